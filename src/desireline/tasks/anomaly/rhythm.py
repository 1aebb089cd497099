"""What is measured of an account's rhythm, to tell a script from a person: speed, gaps, rest, repetition, breadth.

All events of the window count, of whatever type. Where many share one step of the clock, moments are counted beside
them: a basket of twenty lines is one moment. Gaps lie between moments. Everything is one walk over an account's events
with small sorts inside; about a second for a million judged events.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

import numba
import numpy as np
import polars as pl
from numpy.typing import NDArray

from desireline.tasks.anomaly.actions import Actions
from desireline.tasks.anomaly.fact import Evidence, Fact
from desireline.tasks.anomaly.spans import (
    DAY_US,
    HOUR_US,
    MINUTE_US,
    SECOND_US,
    ahead,
    ascend,
    by_account,
    codes,
    crowded,
    greatest,
    midnight,
    mixed,
    starts,
    strongest,
    times,
)

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
GAPS = 10  # of an account, from which on their regularity is told
STEPS = 10  # of the clock in the median gap, from which on being equal to it says something
BUSY = 10  # moments of a day, from which on its rest is told
SESSION_US = 30 * MINUTE_US  # a longer silence opens a new session
LONG_SESSION, SESSIONS = 3, 4  # events of a session, and such sessions, from which on they are compared
RUN, RUNS = 4, 10  # events of a run, and runs, from which on repetition is told
ITEMS = 5  # events about items, from which on the share of distinct ones is told

SEEN_US = 12 * HOUR_US  # of a day inside the window, from which on rest in it is told
# what needs a clock with steps below an hour
OF_AN_HOUR = (
    *("hour_events", "hour_moments", "hours_of_day", "daily_rest"),
    *("regular_gaps", "gap_scatter", "same_sessions", "round_times"),
)

SHARED = "an account that several people share, or a shop's own till"
TOOL = "an app that reloads or refills by itself"
FACTS: dict[str, Fact] = {
    "hour_events": Fact(("bot", "takeover"), "high", "{value} events within an hour", "count", SHARED),
    "day_events": Fact(("bot", "takeover"), "high", "{value} events within a day", "count", SHARED),
    "hour_moments": Fact(("bot",), "high", "{value} distinct moments with events within an hour", "count", SHARED),
    "moment_events": Fact(("bot",), "high", "{value} events at one moment", "count", "a basket or an import"),
    "identical_events": Fact(
        ("bot", "brushing"), "high", "{value} of the events the same as another of their moment", "share", TOOL
    ),
    "regular_gaps": Fact(("bot",), "high", "{value} of the gaps between events equal", "share", TOOL),
    "gap_scatter": Fact(("bot",), "low", "gaps between events scatter by {value} of their size", "ratio", TOOL),
    "hours_of_day": Fact(("bot",), "high", "events in {value} hours of one day", "count", SHARED),
    "daily_rest": Fact(("bot",), "low", "{value} of rest on a busy day", "seconds", SHARED),
    "same_sessions": Fact(
        ("bot",), "high", "{value} of the sessions with the same events in the same order", "share", TOOL
    ),
    "repeated_runs": Fact(
        ("bot",), "high", "{value} of the runs of four events made before", "share", "a weekly order made again"
    ),
    "distinct_items": Fact(
        ("bot",), "both", "{value} of the events about an item not met before in the window", "share", "a collector"
    ),
    "items": Fact(("bot",), "high", "{value} distinct items", "count", "a trader"),
    "round_times": Fact(("bot",), "high", "{value} of the moments on full units of the clock", "share", TOOL),
    "type_entropy": Fact(
        ("bot",), "low", "kinds of events as varied as {value} nats", "nats", "a person who only looks around"
    ),
}


def rhythm_facts(actions: Actions) -> pl.DataFrame:
    """`account` and a column a fact in FACTS, a row an account with a judged event."""
    judged = actions.judged
    account, time, item, kind = (codes(judged, "account"), times(judged), codes(judged, "item"), codes(judged, "type"))
    start, moment = starts(account), starts(account, time)
    at, moments = time[moment[:-1]], starts(account[moment[:-1]])
    lines, each = np.diff(start), np.diff(moments)
    hours, rest, _ = _days(at, moments, *_day_bounds(actions))
    regular, scatter, _ = _gaps(at, moments, actions.step_us)
    columns = {
        "hour_events": greatest(ahead(time, start, HOUR_US), start),
        "hour_moments": greatest(ahead(at, moments, HOUR_US), moments),
        "regular_gaps": regular,
        "gap_scatter": scatter,
        "hours_of_day": hours,
        "daily_rest": rest / SECOND_US,
        "same_sessions": _sessions(time, kind, start)[0],
        "round_times": np.where(each > GAPS, _sums(_full_units(at, actions.step_us), moments) / each, np.nan),
        "day_events": greatest(ahead(time, start, DAY_US), start),
        "moment_events": greatest(np.diff(moment), moments),
        "identical_events": _sums(_identical(judged), start) / lines,
        "repeated_runs": _share_of_repeats(_repeated(item, kind, start), len(lines)),
        "type_entropy": _entropy(kind, start, len(actions.types)),
    }
    undefined = set(OF_AN_HOUR) if actions.step_us >= HOUR_US else set()
    if actions.events["type"].n_unique() < 2:
        undefined.add("type_entropy")
    some, distinct = _breadth(judged)
    columns["items"] = np.where(some > 0, distinct, np.nan)
    columns["distinct_items"] = np.where(some >= ITEMS, distinct / np.maximum(some, 1), np.nan)
    columns |= {name: np.full(len(lines), np.nan) for name in undefined}
    named = {name: pl.Series(columns[name], dtype=pl.Float64).fill_nan(None) for name in FACTS}
    return pl.DataFrame({"account": judged["account"].gather(start[:-1])} | named)


def rhythm_evidence(actions: Actions) -> Evidence:
    """Judged events of an account behind a fact, the most telling first."""
    events = cache(lambda: by_account(actions.judged))
    bounds = cache(lambda: _day_bounds(actions))

    def behind(account: int, fact: str) -> list[int]:
        own = events()(account)
        time, item, kind = times(own), codes(own, "item"), codes(own, "type")
        start, moment = starts(codes(own, "account")), starts(time)
        at, whole = time[moment[:-1]], np.array([0, len(moment) - 1])
        of_moment = np.repeat(np.arange(len(moment) - 1), np.diff(moment))
        if own.height == 0 or (actions.step_us >= HOUR_US and fact in OF_AN_HOUR):
            return []
        if fact in ("hour_events", "day_events"):
            return _chosen(own, crowded(time, start, DAY_US if fact == "day_events" else HOUR_US))
        if fact == "hour_moments":
            return _chosen(own, crowded(at, whole, HOUR_US)[of_moment])
        if fact == "moment_events":
            return strongest(own, pl.lit(np.diff(moment)[of_moment]))
        if fact == "identical_events":
            return _chosen(own, _identical(own))
        if fact in ("regular_gaps", "gap_scatter"):
            return strongest(own, pl.lit(-_gaps(at, whole, actions.step_us)[2][of_moment]))
        if fact in ("hours_of_day", "daily_rest"):
            _, _, day = _days(at, whole, *bounds())
            return _chosen(own, (time - bounds()[0]) // DAY_US == day[0, int(fact == "daily_rest")])
        if fact == "same_sessions":
            key = pl.Series("key", _sessions(time, kind, start)[1])
            return strongest(own.with_columns(key).filter(key != 0), pl.len().over("key"))
        if fact == "repeated_runs":
            runs = _repeated(item, kind, start)
            return _chosen(own, np.isin(np.arange(own.height), runs.filter("again")["row"].to_numpy()))
        if fact == "round_times":
            return _chosen(own, _full_units(time, actions.step_us) == 1)
        if fact == "type_entropy":
            return strongest(own, pl.len().over("type"))
        about = own.filter(pl.col("item").is_not_null())
        return strongest(
            about, pl.len().over("item") if fact == "distinct_items" else -pl.col("time").rank().over("item")
        )

    return behind


def _chosen(events: pl.DataFrame, chosen: NDArray[np.bool_]) -> list[int]:
    return strongest(events.filter(chosen), pl.lit(1.0))


def _sums(values: NDArray[Any], start: NDArray[np.int64]) -> NDArray[np.float64]:
    """float64 [G]: sums of groups, none of which is empty."""
    if len(start) == 1:
        return np.empty(0)
    return np.add.reduceat(values.astype(np.float64), start[:-1])


def _full_units(at: NDArray[np.int64], step_us: int) -> NDArray[np.float64]:
    """float64 [N]: 1 on a full minute, or on 60 steps of a clock of more than a second; NaN above minutes."""
    if step_us > MINUTE_US:
        return np.full(len(at), np.nan)
    return (at // max(step_us, SECOND_US) % 60 == 0).astype(np.float64)


def _identical(events: pl.DataFrame) -> NDArray[np.bool_]:
    """Boolean [N]: whether another event of the account's same moment has the same type and item."""
    return (~events.select(pl.struct("account", "time", "type", "item").is_unique()).to_series()).to_numpy()


def _breadth(judged: pl.DataFrame) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """float64 [A] each, in the order of accounts: events about items, and distinct items."""
    item = pl.col("item")
    distinct = item.drop_nulls().n_unique()
    found = judged.group_by("account", maintain_order=True).agg(some=item.count(), distinct=distinct)
    return found["some"].cast(pl.Float64).to_numpy(), found["distinct"].cast(pl.Float64).to_numpy()


def _day_bounds(actions: Actions) -> tuple[int, int, int]:
    """Microseconds at which days begin (opposite the log's quietest hours: no night is cut), of begin and of end."""
    begin, end = ((moment - EPOCH) // timedelta(microseconds=1) for moment in (actions.begin, actions.end))
    return (midnight(actions) + 12 * HOUR_US) % DAY_US, begin, end


@numba.njit(cache=True, nogil=True)
def _gaps(
    at: NDArray[np.int64], start: NDArray[np.int64], step_us: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:  # pragma: no cover
    """Of each account: share of gaps within 1 % or one step of the median gap, deviation of log gaps; NaN below GAPS.

    Third, of each moment: how far the log of the gap before it is from the median's; NaN for the first.
    """
    groups = len(start) - 1
    share, scatter, far = np.full(groups, np.nan), np.full(groups, np.nan), np.full(len(at), np.nan)
    for group in range(groups):
        low, end = start[group], start[group + 1]
        count = end - low - 1
        if count < GAPS:
            continue
        gap = at[low + 1 : end] - at[low : end - 1]
        ranked = gap.copy()
        ascend(ranked)
        middle = ranked[count // 2]
        near, total, square = 0, 0.0, 0.0
        for n in range(count):
            log = np.log(gap[n])
            near += abs(gap[n] - middle) <= max(0.01 * middle, step_us)
            total += log
            square += log * log
            far[low + 1 + n] = abs(log - np.log(middle))
        if middle >= STEPS * step_us:
            share[group] = near / count
        scatter[group] = np.sqrt(max(0.0, square / count - (total / count) ** 2))
    return share, scatter, far


@numba.njit(cache=True, nogil=True)
def _days(
    at: NDArray[np.int64], start: NDArray[np.int64], noon: int, begin: int, end: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:  # pragma: no cover
    """Of each account: most hours of one day with an event; the median, over days of BUSY moments, of the longest rest.

    Only the part of a day in [begin, end) counts. Third, int64 [A, 2]: the days of most hours and of least rest.
    """
    groups = len(start) - 1
    most, rest, which = np.zeros(groups), np.full(groups, np.nan), np.full((groups, 2), -1, np.int64)
    rests = np.empty(len(at))
    for group in range(groups):
        found, row = 0, start[group]
        least = np.int64(-1)
        while row < start[group + 1]:
            day = (at[row] - noon) // DAY_US
            low, high = max(begin, day * DAY_US + noon), min(end, (day + 1) * DAY_US + noon)
            hours, moments, last, longest = 0, 0, np.int64(-1), np.int64(0)
            before = low
            while row < start[group + 1] and at[row] < (day + 1) * DAY_US + noon:
                hour = at[row] // HOUR_US
                hours += hour != last
                last = hour
                longest = max(longest, at[row] - before)
                before = at[row]
                moments += 1
                row += 1
            longest = max(longest, high - before)
            if hours > most[group]:
                most[group], which[group, 0] = hours, day
            if moments >= BUSY and high - low >= SEEN_US:
                rests[found] = longest
                found += 1
                if least < 0 or longest < least:
                    least, which[group, 1] = longest, day
        if found:
            ranked = rests[:found]
            ascend(ranked)
            rest[group] = (ranked[(found - 1) // 2] + ranked[found // 2]) / 2
    return most, rest, which


@numba.njit(cache=True, nogil=True)
def _sessions(
    time: NDArray[np.int64], kind: NDArray[np.int64], start: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.uint64]]:  # pragma: no cover
    """Of each account: share of long sessions with the most frequent sequence of types; NaN below SESSIONS.

    Second, of each event: a hash of its session's sequence, 0 in shorter ones.
    """
    groups = len(start) - 1
    share, key = np.full(groups, np.nan), np.zeros(len(time), np.uint64)
    held = np.empty(len(time), np.uint64)
    for group in range(groups):
        found, row = 0, start[group]
        while row < start[group + 1]:
            first, value = row, np.uint64(0)
            while row < start[group + 1] and (row == first or time[row] - time[row - 1] <= SESSION_US):
                value = mixed(value * np.uint64(31) + np.uint64(kind[row] + 1))
                row += 1
            if row - first >= LONG_SESSION:
                key[first:row] = value | np.uint64(1)
                held[found] = value
                found += 1
        if found >= SESSIONS:
            ranked = held[:found]
            ascend(ranked)
            run, most = 0, 0
            for n in range(found):
                run = run + 1 if n and ranked[n] == ranked[n - 1] else 1
                most = max(most, run)
            share[group] = most / found
    return share, key


def _repeated(item: NDArray[np.int64], kind: NDArray[np.int64], start: NDArray[np.int64]) -> pl.DataFrame:
    """A row a run of RUN events of one account: `group`, `row` (of its last event), `again` (whether made before)."""
    group = np.repeat(np.arange(len(start) - 1), np.diff(start))
    row = np.flatnonzero(np.arange(len(item)) - start[group] >= RUN - 1)
    runs = pl.DataFrame({"group": group[row], "row": row, "key": _run_keys(item, kind)[row]})
    return runs.with_columns(again=~pl.struct("group", "key").is_first_distinct()).drop("key")


@numba.njit(cache=True, nogil=True)
def _run_keys(item: NDArray[np.int64], kind: NDArray[np.int64]) -> NDArray[np.uint64]:  # pragma: no cover
    """uint64 [N]: a hash of the RUN events up to each."""
    key = np.zeros(len(item), np.uint64)
    for last in range(RUN - 1, len(item)):
        value = np.uint64(0)
        for row in range(last - RUN + 1, last + 1):
            value = mixed(value * np.uint64(31) + mixed(np.uint64(item[row] + 2)) + np.uint64(kind[row]))
        key[last] = value
    return key


def _share_of_repeats(runs: pl.DataFrame, groups: int) -> NDArray[np.float64]:
    """float64 [A]: share of an account's runs made before; NaN below RUNS."""
    count = np.bincount(runs["group"], minlength=groups)
    again = np.bincount(runs["group"], weights=runs["again"].cast(pl.Float64), minlength=groups)
    return np.where(count >= RUNS, again / np.maximum(count, 1), np.nan)


@numba.njit(cache=True, nogil=True)
def _entropy(kind: NDArray[np.int64], start: NDArray[np.int64], kinds: int) -> NDArray[np.float64]:  # pragma: no cover
    """float64 [A]: entropy of each account's types in nats; NaN below GAPS events."""
    found = np.full(len(start) - 1, np.nan)
    for group in range(len(start) - 1):
        rows = start[group + 1] - start[group]
        if rows < GAPS:
            continue
        held = np.zeros(kinds)
        for row in range(start[group], start[group + 1]):
            held[kind[row]] += 1
        total = 0.0
        for n in range(kinds):
            if held[n]:
                total -= held[n] / rows * np.log(held[n] / rows)
        found[group] = max(0.0, total)
    return found
