"""Where acts crowd in time: counts in moving windows over sorted arrays, moments instead of basket lines, quiet hours.

Rows stand in groups, groups in ascending places, times ascending in a group. All passes are one walk with two pointers,
some 10⁸ rows a second.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
import polars as pl
from numpy.typing import NDArray

from desireline.tasks.anomaly.actions import Actions

SECOND_US = 1_000_000
MINUTE_US = 60 * SECOND_US
HOUR_US = 60 * MINUTE_US
DAY_US = 24 * HOUR_US
NIGHT = 0.05  # share of all moments that the log's quiet hours hold together at most


def codes(events: pl.DataFrame, name: str) -> NDArray[np.int64]:
    """int64 [N]: a column of codes, −1 for none."""
    return events[name].cast(pl.Int64).fill_null(-1).to_numpy()


def by_account(events: pl.DataFrame) -> Callable[[int], pl.DataFrame]:
    """What gives the rows of one account, of events ascending by account, without a walk over all."""
    account = codes(events, "account")

    def rows(one: int) -> pl.DataFrame:
        begin, end = np.searchsorted(account, [one, one + 1]).tolist()
        return events.slice(begin, end - begin)

    return rows


def times(events: pl.DataFrame) -> NDArray[np.int64]:
    """int64 [N]: microseconds since 1970."""
    return events["time"].to_physical().to_numpy()


def starts(*columns: NDArray[Any]) -> NDArray[np.int64]:
    """int64 [G + 1]: where groups of rows with equal values begin, and the number of rows."""
    rows = len(columns[0])
    if rows == 0:
        return np.zeros(1, np.int64)
    new = np.zeros(rows, np.bool_)
    new[0] = True
    for column in columns:
        new[1:] |= column[1:] != column[:-1]
    return np.append(np.flatnonzero(new), rows).astype(np.int64)


def greatest(values: NDArray[Any], start: NDArray[np.int64]) -> NDArray[np.float64]:
    """float64 [G]: the greatest value of each group; NaN where one of its values is."""
    if len(start) == 1:
        return np.empty(0)
    return np.maximum.reduceat(values.astype(np.float64), start[:-1])


def acts(events: pl.DataFrame, step_us: int) -> pl.DataFrame:
    """Events with a target, each account's lines on one target at one moment taken for one act.

    Where the clock has steps of an hour or more, moments tell nothing and every line is an act.

    events : ascending by account and time, as those of Actions
    """
    held = events.select("account", "target", "time", "inside", "event_id").drop_nulls("target")
    if step_us >= HOUR_US or held.height == 0:
        return held
    target = codes(held, "target")
    moment = np.zeros(held.height, np.int64)
    moment[starts(codes(held, "account"), times(held))[1:-1]] = 1
    return held.filter(pl.Series(np.cumsum(moment) * (target.max() + 1) + target).is_first_distinct())


def hours(events: pl.DataFrame) -> NDArray[np.float64]:
    """float64 [24]: moments of all accounts in each hour of the log's clock (UTC)."""
    account, time = codes(events, "account"), times(events)
    first = starts(account, time)[:-1]
    return np.bincount(time[first] // HOUR_US % 24, minlength=24).astype(np.float64)


def quiet(log: Actions) -> NDArray[np.bool_] | None:
    """Boolean [24]: the emptiest hours of the log, which together hold at most NIGHT of its moments.

    None where the clock has steps of an hour or more.
    """
    if log.step_us >= HOUR_US:
        return None
    held = hours(log.events)
    order = np.argsort(held, kind="stable")
    night = np.zeros(24, np.bool_)
    night[order[np.cumsum(held[order]) <= NIGHT * held.sum()]] = True
    return night


def midnight(log: Actions) -> int:
    """Microseconds after 0:00 UTC at which the six quietest hours of the log are half over."""
    held = hours(log.events)
    six = sum(np.roll(held, -hour) for hour in range(6))
    return int((np.argmin(six) + 3) % 24) * HOUR_US


@numba.njit(cache=True, nogil=True)
def ahead(time: NDArray[np.int64], start: NDArray[np.int64], span_us: int) -> NDArray[np.int64]:  # pragma: no cover
    """int64 [N]: rows of the own group in [time, time + span), counted from the row itself on."""
    found = np.empty(len(time), np.int64)
    for group in range(len(start) - 1):
        end = start[group]
        for row in range(start[group], start[group + 1]):
            while end < start[group + 1] and time[end] < time[row] + span_us:
                end += 1
            found[row] = end - row
    return found


@numba.njit(cache=True, nogil=True)
def around(time: NDArray[np.int64], start: NDArray[np.int64], span_us: int) -> NDArray[np.int64]:  # pragma: no cover
    """int64 [N]: rows of the own group at most a span away, the row itself among them."""
    found = np.empty(len(time), np.int64)
    for group in range(len(start) - 1):
        low, end = start[group], start[group]
        for row in range(start[group], start[group + 1]):
            while time[low] < time[row] - span_us:
                low += 1
            while end < start[group + 1] and time[end] <= time[row] + span_us:
                end += 1
            found[row] = end - low
    return found


def crowded(time: NDArray[np.int64], start: NDArray[np.int64], span_us: int) -> NDArray[np.bool_]:
    """Boolean [N]: rows of the first fullest window of the fullest group."""
    chosen = np.zeros(len(time), np.bool_)
    if len(time):
        count = ahead(time, start, span_us)
        row = int(np.argmax(count))
        chosen[row : row + count[row]] = True
    return chosen


def strongest(events: pl.DataFrame, weight: pl.Expr, most: int = 20) -> list[int]:
    """Ids of the events with the greatest weights, at most so many, earlier ones first among equals; null: left out."""
    ranked = events.select("event_id", "time", weight=weight.cast(pl.Float64).fill_nan(None)).drop_nulls("weight")
    return (
        ranked.sort(["weight", "time"], descending=[True, False], maintain_order=True)["event_id"].head(most).to_list()
    )


@numba.njit(cache=True, nogil=True)
def mixed(value: np.uint64) -> np.uint64:  # pragma: no cover
    """A 64-bit number whose bits all depend on all of the value's (splitmix64)."""
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


@numba.njit(cache=True, nogil=True)
def ascend(values: NDArray[Any]) -> None:  # pragma: no cover
    """Sort in place (Shell 1959); NumPy's sort takes five seconds to compile, and most arrays here are short."""
    gap = 1
    while gap < len(values) // 3:
        gap = 3 * gap + 1
    while gap > 0:
        for n in range(gap, len(values)):
            value, place = values[n], n
            while place >= gap and values[place - gap] > value:
                values[place] = values[place - gap]
                place -= gap
            values[place] = value
        gap //= 3
