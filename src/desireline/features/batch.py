"""All features of many users as of a moment: columns in, one row a user out.

Cost: about 30 passes over integer columns of 8 bytes an event and one sort of 64-bit keys a counted column; 0.2 us an
event on two cores. Users stand together in time order, so a window is the tail of a user's rows, and every sum is the
difference of a running sum at two places: no group-by, no hash table, no copy of a row.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from desireline.core.errors import DataError
from desireline.events.roles import Roles
from desireline.events.sessions import microseconds
from desireline.features.definitions import DAY_US, HOURS, MONEY_ONE, WEEKDAYS, WINDOWS, counted_columns, definitions
from desireline.features.entropy import c_log_c
from desireline.schema.model import Schema

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
LARGEST_MONEY = 1e12  # a value beyond it counts as this much, so that its millionths fit 64 bits

Integers = NDArray[np.int64]
Statistics = dict[str, NDArray[Any]]


def batch_features(events: pl.DataFrame, as_of: datetime | pl.Series, schema: Schema) -> pl.DataFrame:
    """Compute every feature of every user.

    Parameters
    ----------
    events
        Event frame of whole users, each user's events together in the order of ORDER, all strictly before `as_of`.
    as_of
        The moment that the features describe; without a zone it is UTC. Or, where each user has one of its own, the
        moment of each event's user, in UTC.
    schema
        Gives roles, session gap, time zone and category fields.

    Returns
    -------
    polars.DataFrame
        `user` and the columns of `definitions(schema)` (Float64), one row a user, in the order of `events`.

    Raises
    ------
    DataError
        An event is at `as_of` or after it, or a user's events do not stand together in time order.
    """
    table = definitions(schema)
    if events.height == 0:
        return pl.DataFrame(schema={"user": pl.String} | dict.fromkeys(table, pl.Float64))
    users, offsets, time = _sorted_users(events)
    now = epoch_us(as_of) if isinstance(as_of, datetime) else as_of.cast(pl.Int64).to_numpy()
    if (time >= now).any():
        told = as_of.isoformat() if isinstance(as_of, datetime) else "each user's own moment"
        raise DataError(
            f"Features as of {told} may not see the {int((time >= now).sum())} events at that moment or "
            "after it that were passed: pass only what events.cut.cut leaves before it."
        )
    counted = _count(events, offsets, time, now, schema)
    statistics = {name: array.astype(np.float64) for name, array in counted.items()}
    columns = [pl.Series(name, feature.values(statistics), nan_to_null=True) for name, feature in table.items()]
    return pl.DataFrame([users.alias("user"), *columns])


def epoch_us(moment: datetime) -> int:
    """Microseconds since 1970; a moment without a zone is UTC."""
    return ((moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - EPOCH) // timedelta(microseconds=1)


def _sorted_users(events: pl.DataFrame) -> tuple[pl.Series, Integers, Integers]:
    runs = events.select(pl.col("user").rle()).unnest("user")
    offsets = np.concatenate([[0], np.cumsum(runs["len"].to_numpy(), dtype=np.int64)])
    time = events["time"].cast(pl.Int64).to_numpy()
    backwards = np.flatnonzero(np.diff(time) < 0) + 1
    if runs["value"].n_unique() != runs.height or not np.isin(backwards, offsets).all():
        raise DataError(
            "batch_features needs every user's events together and in time order: "
            "sort the frame by events.frame.ORDER first."
        )
    return runs["value"], offsets, time


def _count(events: pl.DataFrame, offsets: Integers, time: Integers, now: int | Integers, schema: Schema) -> Statistics:
    """now : one moment, or int64 [N], that of each event's user"""
    start, end, n = offsets[:-1], offsets[1:], len(time)
    of_user = now if isinstance(now, int) else now[start]
    row = np.repeat(np.arange(len(start), dtype=np.int64), np.diff(offsets))
    positive, target, negative = Roles.of(schema).flags(events)

    gap = np.diff(time, prepend=time[:1])
    opens = gap > microseconds(schema.prepare.session_gap_s)
    opens[start] = True
    local = _local(events, time, schema.time.zone)
    day = local // DAY_US
    last_day = _never_back(day, row, start)
    new_day = np.diff(last_day, prepend=last_day[:1] - 1) != 0
    money, negative_money, valued = _money(events, target, negative, offsets)

    running = {
        "events": np.arange(n + 1),
        "targets": _running(target),
        "money": _running(money),
    }
    # a day's or session's number grows by one at its first event: last - first + 1 is how many there are
    numbered = {"active_days": np.cumsum(new_day), "sessions": np.cumsum(opens)}
    out: Statistics = {}
    for name, width in {"": None, **{f"_{w}": d * DAY_US for w, d in WINDOWS.items()}}.items():
        first = start if width is None else end - np.add.reduceat(time >= now - width, start, dtype=np.int64)
        for key, total in running.items():
            out[key + name] = total[end] - total[first]
        for key, number in numbered.items():
            out[key + name] = np.where(first < end, number[end - 1] - number[np.minimum(first, n - 1)] + 1, 0)
    out["money_trend"] = 3 * out["money_30d"] - out["money_90d"]
    out["money_negative"] = _sums(negative_money, offsets)
    out["valued"] = _sums(valued, offsets)
    out["negatives"] = _sums(negative, offsets)
    out["dwell_us"] = _sums(np.where(opens, 0, gap), offsets)
    out["dwells"] = out["events"] - out["sessions"]
    out["age_first"], out["age_last"] = of_user - time[start], of_user - time[end - 1]
    out["age_positive"] = _age_of_last(positive, time, offsets, of_user)
    out["age_target"] = _age_of_last(target, time, offsets, of_user)
    out |= _target_gaps(np.flatnonzero(target), last_day, offsets)
    out |= _profile("hour", HOURS, local % DAY_US // (4 * 3600 * 1_000_000), row, len(start))
    out |= _profile("weekday", WEEKDAYS, (day + 3) % 7, row, len(start))  # 1970 began on a Thursday
    kinds = events["event"].cast(pl.Enum(list(schema.types)), strict=False).to_physical()
    kind = kinds.cast(pl.Int64).fill_null(len(schema.types)).to_numpy()  # the last: types that the schema lacks
    out |= _profile("type", [*schema.types, ""], kind, row, len(start))
    for name in counted_columns(schema):
        code = events[name].cast(pl.Categorical).to_physical()
        known = np.flatnonzero(code.is_not_null().to_numpy())
        key = (row << 32 | code.fill_null(0).to_numpy())[known]
        out |= _diversity(name, key, row[known], len(start))
        if name == "item":
            bought = target[known]
            out |= _repeats(key[bought], time[known][bought], len(start))
    return out


def _local(events: pl.DataFrame, time: Integers, zone: str) -> Integers:
    """Wall-clock microseconds in a zone."""
    if zone == "UTC":
        return time
    wall = events["time"].dt.convert_time_zone(zone).dt.replace_time_zone(None)
    return wall.cast(pl.Int64).to_numpy()


def _never_back(day: Integers, row: Integers, start: Integers) -> Integers:
    """Days that never go back within a user: where clocks are set back at midnight, the later day goes on."""
    back = np.diff(day, prepend=day[:1]) < 0
    back[start] = False
    if not back.any():
        return day
    low, width = day.min(), day.max() - day.min() + 1
    return np.maximum.accumulate(row * width + day - low) - row * width + low


def _money(
    events: pl.DataFrame, target: NDArray[np.bool_], negative: NDArray[np.bool_], offsets: Integers
) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.bool_]]:
    """Millionths of targets and (as magnitude) of negative events, and which targets have a value."""
    value = events["value"].fill_null(np.nan).to_numpy()
    there = np.isfinite(value)
    clipped = np.clip(np.where(there, value, 0.0), -LARGEST_MONEY, LARGEST_MONEY)
    millionths: NDArray[Any] = np.floor(clipped * MONEY_ONE + 0.5).astype(np.int64)
    # running sums may wrap, their differences do not, as long as a user's own sum fits
    if float(np.abs(millionths).max()) * float(np.diff(offsets).max()) > 2.0**60:
        millionths = millionths.astype(object)  # Python's integers: slow, and never too small
    return millionths * target, abs(millionths) * negative, target & there


def _running(values: NDArray[Any]) -> NDArray[Any]:
    """[N + 1]: the sum of the first k values, at k."""
    total = np.zeros(len(values) + 1, dtype=object if values.dtype == object else np.int64)
    np.cumsum(values, out=total[1:])
    return total


def _sums(values: NDArray[Any], offsets: Integers) -> NDArray[Any]:
    total = _running(values)
    return np.asarray(total[offsets[1:]] - total[offsets[:-1]])


def _age_of_last(
    flag: NDArray[np.bool_], time: Integers, offsets: Integers, now: int | Integers
) -> NDArray[np.float64]:
    """Microseconds since each user's last flagged event; nan without one."""
    rows = np.flatnonzero(flag)
    last = np.searchsorted(rows, offsets[1:]) - 1
    found = (last >= 0) & (np.append(rows, -1)[last] >= offsets[:-1])
    return np.where(found, now - time[np.append(rows, 0)[last]], np.nan)


def _target_gaps(rows: Integers, day: Integers, offsets: Integers) -> Statistics:
    """Days with a target and the gaps between neighbouring ones."""
    at = np.searchsorted(rows, offsets)  # [U + 1] into the targets
    days = day[rows]
    new = np.diff(days, prepend=days[:1] - 1) != 0
    new[at[:-1][at[:-1] < at[1:]]] = True
    number = _running(new)
    bounds, days = number[at], days[new]  # [U + 1] into the days
    first, last, count = bounds[:-1], bounds[1:], np.diff(bounds)
    gap = np.diff(days, prepend=days[:1])
    inner = np.ones(len(days), dtype=np.bool_)
    inner[first[count > 0]] = False
    gap = gap * inner
    gaps, total, squares = np.maximum(count - 1, 0), _sums(gap, bounds), _sums(gap * gap, bounds)
    return {
        "target_days": count,
        "target_gaps": gaps,
        "target_gap_sum": total,
        "target_gap_spread": gaps * squares - total * total,
        "target_gap_last": np.where(count > 1, np.append(gap, 0)[last - 1], np.nan),
    }


def _profile(name: str, parts: Sequence[str], index: NDArray[Any], row: Integers, users: int) -> Statistics:
    """Events of each user by an index into `parts`."""
    counts = np.bincount(row * len(parts) + index, minlength=users * len(parts)).reshape(users, len(parts))
    return {f"{name}_{part}": counts[:, i] for i, part in enumerate(parts)}


def _diversity(name: str, key: Integers, row: Integers, users: int) -> Statistics:
    """How many values each user has, and n ln n - sum c ln c over their counts."""
    ordered = np.sort(key)
    starts = np.flatnonzero(np.diff(ordered, prepend=-1))
    counts = np.diff(starts, append=len(ordered))
    bounds = np.searchsorted(ordered[starts] >> 32, np.arange(users + 1))
    present = np.bincount(row, minlength=users)
    f = c_log_c(int(present.max()))
    return {
        f"present_{name}": present,
        f"distinct_{name}": np.diff(bounds),
        f"entropy_{name}": f[present] - _sums(f[counts], bounds),
    }


def _repeats(key: Integers, time: Integers, users: int) -> Statistics:
    """Targets with an item, and those later than the first target on that item."""
    order = np.argsort(key, kind="stable")  # time ascends within a user, so within a key
    ordered, moments = key[order], time[order]
    starts = np.flatnonzero(np.diff(ordered, prepend=-1))
    first = np.repeat(moments[starts], np.diff(starts, append=len(ordered)))
    row = ordered >> 32
    return {
        "item_targets": np.bincount(row, minlength=users),
        "repeats": np.bincount(row[moments > first], minlength=users),
    }
