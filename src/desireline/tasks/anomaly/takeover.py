"""What is measured of an account to see whether somebody else uses it now: its newest stretch against its own past.

The moment at which a hijacker would have begun is the split of the account's moments, inside the window, that best
tells a before from an after by hours of the day, types and the share of new targets: the likelihood ratio of two
multinomial laws against one. A moment weighs one however many basket lines it holds, and a clock hour with events one
where parts of the day are counted. Days, values and silences are each compared with all that the
account did before them. One walk an account; three to eleven seconds for ten million events, by how many are judged.
"""

from __future__ import annotations

from functools import cache

import numba
import numpy as np
import polars as pl
from numpy.typing import NDArray

from desireline.tasks.anomaly.actions import Actions
from desireline.tasks.anomaly.fact import Evidence, Fact
from desireline.tasks.anomaly.spans import DAY_US, HOUR_US, SECOND_US, by_account, codes, starts, strongest, times

BEFORE, AFTER = 10, 5  # moments on either side of a split
HOURS_BEFORE, HOURS_AFTER = 5, 3  # clock hours with events on either side, from which on their change is told
PARTS = 8  # of the day, three hours each
PAST_DAYS = 3  # days with events, from which on a day is compared with them
PAST_MOMENTS = 5  # of ordering, or with silences between, from which on another is compared with them

MOVED = "a journey, a new job, a new phone"
FACTS: dict[str, Fact] = {
    "split_change": Fact(
        ("takeover",), "high", "behaviour before and after one moment differs by {value}", "nats", MOVED
    ),
    "hours_change": Fact(("takeover",), "high", "hours of the day moved by {value} from then on", "nats", MOVED),
    "types_change": Fact(
        ("takeover",), "high", "kinds of events moved by {value} from then on", "nats", "a first purchase after looking"
    ),
    "new_targets_change": Fact(
        ("takeover",),
        "high",
        "{value} more of the events about new targets than before",
        "share",
        "a gift, a new taste",
    ),
    "rate_jump": Fact(
        ("takeover", "bot"),
        "high",
        "the busiest day is {value} away from the account's earlier days",
        "nats",
        "a sale or a holiday",
    ),
    "value_jump": Fact(
        ("takeover",), "high", "an order {value} times the largest one before", "ratio", "a large purchase, announced"
    ),
    "silence_before": Fact(
        ("takeover",), "high", "{value} of silence before it came back", "seconds", "a season, or a long absence"
    ),
}


def takeover_facts(actions: Actions) -> pl.DataFrame:
    """`account` and a column a fact in FACTS, a row an account with a judged event."""
    wanted = actions.events.filter("inside")["account"].unique()
    events = actions.events.filter(pl.col("account").is_in(wanted.implode()))
    account, time = codes(events, "account"), times(events)
    inside, moment = events["inside"].to_numpy(), starts(account, time)
    at, judged, group = time[moment[:-1]], inside[moment[:-1]], starts(account[moment[:-1]])
    coarse = actions.step_us >= HOUR_US
    change, _ = _splits(
        at,
        _opens(at, group),
        judged,
        group,
        moment,
        codes(events, "type"),
        _new_targets(events),
        len(actions.types),
        not coarse,
    )
    rate, _ = _rates(at, judged, group)
    value, silence, _, _ = _records(at, judged, group, _paid(events, moment))
    columns = np.column_stack([change, rate, value, silence / SECOND_US])
    if coarse:
        columns[:, 1] = np.nan
    if actions.events["type"].n_unique() < 2:
        columns[:, 2] = np.nan
    owner = events["account"].gather(moment[:-1][group[:-1]])
    named = {name: pl.Series(columns[:, n], dtype=pl.Float64).fill_nan(None) for n, name in enumerate(FACTS)}
    return pl.DataFrame({"account": owner} | named)


def takeover_evidence(actions: Actions) -> Evidence:
    """Judged events of an account behind a fact, the most telling first."""
    events = cache(lambda: by_account(actions.events))

    def behind(account: int, fact: str) -> list[int]:
        own = events()(account)
        time, inside = times(own), own["inside"].to_numpy()
        if not inside.any():
            return []
        moment = starts(time)
        at, judged, whole = time[moment[:-1]], inside[moment[:-1]], np.array([0, len(moment) - 1])
        if fact == "rate_jump":
            day = _rates(at, judged, whole)[1][0]
            return strongest(own.filter((time // DAY_US == day) & inside), pl.lit(1.0))
        if fact in ("value_jump", "silence_before"):
            place = _records(at, judged, whole, _paid(own, moment))[2 if fact == "value_jump" else 3][0]
            if place < 0:
                return []
            rows = own.slice(int(moment[place]), int(moment[place + 1] - moment[place]))
            return strongest(rows, pl.col("value").fill_null(0.0))
        kind, new = codes(own, "type"), _new_targets(own)
        fine = actions.step_us < HOUR_US
        split = _splits(at, _opens(at, whole), judged, whole, moment, kind, new, len(actions.types), fine)[1][0]
        if split < 0:
            return []
        after = time >= at[split]
        if fact == "new_targets_change":
            return strongest(own.filter(after & (new == 1)), pl.lit(1.0))
        cell = {"hours_change": time // (DAY_US // PARTS) % PARTS, "types_change": kind}.get(fact)
        if cell is None:
            return strongest(own.filter(after), pl.lit(1.0))
        size = int(cell.max()) + 1
        late, early = (np.bincount(cell[part], minlength=size) + 0.5 for part in (after, ~after))
        gain = (late / late.sum()) / (early / early.sum())
        return strongest(own.filter(after), pl.lit(pl.Series(gain[cell[after]])))

    return behind


def _opens(at: NDArray[np.int64], group: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Boolean [M]: whether a moment is the first one of its account and clock hour."""
    opens = np.diff(at // HOUR_US, prepend=-1) != 0
    opens[group[:-1]] = True
    return opens


def _new_targets(events: pl.DataFrame) -> NDArray[np.float64]:
    """float64 [N]: 1 where the account meets the target first, also in other lines of that moment; NaN without one."""
    first = pl.col("time").min().over("account", "target")
    met = pl.when(pl.col("target").is_not_null()).then((pl.col("time") == first).cast(pl.Float64))
    return events.select(met.fill_null(float("nan")).alias("new"))["new"].to_numpy()


def _paid(events: pl.DataFrame, moment: NDArray[np.int64]) -> NDArray[np.float64]:
    """float64 [M]: the sum of the positive values of a moment's orders; 0 without any."""
    value = events.select(pl.when(pl.col("order") & (pl.col("value") > 0)).then("value").fill_null(0.0)).to_series()
    return np.add.reduceat(value.to_numpy(), moment[:-1]) if len(moment) > 1 else np.empty(0)


@numba.njit(cache=True, nogil=True)
def _likelihood(held: NDArray[np.float64]) -> float:  # pragma: no cover
    """Greatest log likelihood of a multinomial law for some counts: Σ c ln(c / n)."""
    total, found = 0.0, 0.0
    for n in range(len(held)):
        if held[n] > 0:
            total += held[n]
            found += held[n] * np.log(held[n])
    return found - total * np.log(total) if total > 0 else 0.0


@numba.njit(cache=True, nogil=True)
def _divergence(left: NDArray[np.float64], right: NDArray[np.float64]) -> float:  # pragma: no cover
    """Jensen–Shannon divergence in nats, at most ln 2, of two compositions with half a count more in cells in use."""
    total_left, total_right, found = 0.0, 0.0, 0.0
    for n in range(len(left)):
        if left[n] + right[n] > 0:
            total_left += left[n] + 0.5
            total_right += right[n] + 0.5
    for n in range(len(left)):
        if left[n] + right[n] > 0:
            p, q = (left[n] + 0.5) / total_left, (right[n] + 0.5) / total_right
            found += 0.5 * (p * np.log(2 * p / (p + q)) + q * np.log(2 * q / (p + q)))
    return found


@numba.njit(cache=True, nogil=True)
def _splits(
    at: NDArray[np.int64],
    opens: NDArray[np.bool_],
    judged: NDArray[np.bool_],
    group: NDArray[np.int64],
    moment: NDArray[np.int64],
    kind: NDArray[np.int64],
    new: NDArray[np.float64],
    kinds: int,
    fine: bool,
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:  # pragma: no cover
    """float64 [A, 4]: best split's likelihood ratio, divergence of hours, of types, rise of new targets' share.

    Second, int64 [A]: the place of the first moment after the split, −1 without one.
    at, opens, judged : [M], of moments: time, whether the first one of its clock hour, whether in the window
    group : [A + 1], places in them;  moment : [M + 1], places in kind and new
    fine : whether hours of the day count
    """
    accounts = len(group) - 1
    change, best = np.full((accounts, 4), np.nan), np.full(accounts, -1, np.int64)
    cells = PARTS + kinds + 2
    hours, types, met = slice(0, PARTS), slice(PARTS, PARTS + kinds), slice(PARTS + kinds, cells)
    for account in range(accounts):
        low, end = group[account], group[account + 1]
        if end - low < BEFORE + AFTER or not judged[end - AFTER]:
            continue
        after, before = np.zeros(cells), np.zeros(cells)
        for place in range(low, end):
            _add(after, 1.0, at, opens, moment, kind, new, place, kinds)
        total = after.copy()
        whole_hours, whole_types = _likelihood(total[hours]), _likelihood(total[types])
        whole_met = _likelihood(total[met])
        greatest = -1.0
        for place in range(low, end - AFTER + 1):
            if place - low >= BEFORE and judged[place]:
                ratio = _likelihood(before[types]) + _likelihood(after[types]) - whole_types
                if fine:
                    ratio += _likelihood(before[hours]) + _likelihood(after[hours]) - whole_hours
                old, late = before[met], after[met]
                if late[1] * (old[0] + old[1]) > old[1] * (late[0] + late[1]):  # only more new ones speak for it
                    ratio += _likelihood(old) + _likelihood(late) - whole_met
                if ratio > greatest:
                    greatest, best[account] = ratio, place
                    change[account, 0] = max(0.0, ratio)
                    change[account, 1] = np.nan
                    if before[hours].sum() >= HOURS_BEFORE and after[hours].sum() >= HOURS_AFTER:
                        change[account, 1] = _divergence(before[hours], after[hours])
                    change[account, 2] = _divergence(before[types], after[types])
                    change[account, 3] = np.nan
                    if old[0] + old[1] > 0 and late[0] + late[1] > 0:
                        change[account, 3] = late[1] / (late[0] + late[1]) - old[1] / (old[0] + old[1])
            _add(after, -1.0, at, opens, moment, kind, new, place, kinds)
            _add(before, 1.0, at, opens, moment, kind, new, place, kinds)
    return change, best


@numba.njit(cache=True, nogil=True)
def _add(
    held: NDArray[np.float64],
    sign: float,
    at: NDArray[np.int64],
    opens: NDArray[np.bool_],
    moment: NDArray[np.int64],
    kind: NDArray[np.int64],
    new: NDArray[np.float64],
    place: int,
    kinds: int,
) -> None:  # pragma: no cover
    """Add a moment to the cells or take it away: its clock hour to the parts of the day, 1 to types and to targets."""
    if opens[place]:
        held[at[place] // (DAY_US // PARTS) % PARTS] += sign
    low, end = moment[place], moment[place + 1]
    some, fresh = 0, 0.0
    for row in range(low, end):
        held[PARTS + kind[row]] += sign / (end - low)
        if not np.isnan(new[row]):
            some += 1
            fresh += new[row]
    if some:
        held[PARTS + kinds] += sign * (some - fresh) / some
        held[PARTS + kinds + 1] += sign * fresh / some
    for cell in range(len(held)):
        if abs(held[cell]) < 1e-9:  # what rounding leaves is no event
            held[cell] = 0.0


@numba.njit(cache=True, nogil=True)
def _rates(
    at: NDArray[np.int64], judged: NDArray[np.bool_], group: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:  # pragma: no cover
    """Of each account: how far a judged day's moments lie above those of its earlier days with events, at most.

    n ln(n / μ) − (n − μ), Chernoff's bound of the Poisson tail in nats, by the earlier days' variance over their mean
    where that is above 1. NaN before PAST_DAYS days. Second: that day, counted from 1970, −1 without one.
    """
    accounts = len(group) - 1
    jump, which = np.full(accounts, np.nan), np.full(accounts, -1, np.int64)
    for account in range(accounts):
        days, total, square = 0, 0.0, 0.0
        place = group[account]
        while place < group[account + 1]:
            day, n, inside = at[place] // DAY_US, 0.0, judged[place]
            while place < group[account + 1] and at[place] // DAY_US == day:
                inside = inside or judged[place]
                n += 1
                place += 1
            if inside and days >= PAST_DAYS:
                mean = total / days
                loose = max(1.0, (square / days - mean * mean) / mean)
                far = (n * np.log(n / mean) - (n - mean)) / loose if n > mean else 0.0
                if np.isnan(jump[account]) or far > jump[account]:
                    jump[account], which[account] = far, day
            days, total, square = days + 1, total + n, square + n * n
    return jump, which


@numba.njit(cache=True, nogil=True)
def _records(
    at: NDArray[np.int64], judged: NDArray[np.bool_], group: NDArray[np.int64], paid: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:  # pragma: no cover
    """Of each account: greatest judged order by the greatest before it, longest silence that ended in the window.

    NaN before PAST_MOMENTS of each; the silence in microseconds. Then the places of both moments, −1 without one.
    """
    accounts = len(group) - 1
    value, silence = np.full(accounts, np.nan), np.full(accounts, np.nan)
    of_value, of_silence = np.full(accounts, -1, np.int64), np.full(accounts, -1, np.int64)
    for account in range(accounts):
        orders, record = 0, 0.0
        for place in range(group[account], group[account + 1]):
            if paid[place] > 0:
                ratio = paid[place] / record if record > 0 else 0.0
                if judged[place] and orders >= PAST_MOMENTS and not ratio <= value[account]:
                    value[account], of_value[account] = ratio, place
                orders, record = orders + 1, max(record, paid[place])
            if judged[place] and place - group[account] >= PAST_MOMENTS:
                gap = float(at[place] - at[place - 1])
                if not gap <= silence[account]:
                    silence[account], of_silence[account] = gap, place
    return value, silence, of_value, of_silence
