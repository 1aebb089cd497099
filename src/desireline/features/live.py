"""The same features, one event at a time: what the live service keeps for each user.

The state holds the integers that `definitions.py` divides, so a read gives the batch form's numbers to the bit. It
grows with the user's different items and category values, and with the distinct moments of the last 90 days; a fold
costs O(1), a read O(log n).
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime, timedelta
from functools import lru_cache
from operator import itemgetter
from typing import Any

import polars as pl

from desireline.core.errors import DataError
from desireline.events.roles import Roles
from desireline.events.sessions import microseconds
from desireline.features.batch import EPOCH, LARGEST_MONEY, epoch_us
from desireline.features.definitions import (
    DAY_US,
    HOURS,
    MONEY_ONE,
    WEEKDAYS,
    WINDOWS,
    Feature,
    counted_columns,
    definitions,
)
from desireline.features.entropy import c_log_c
from desireline.schema.model import Schema

VERSION = 1  # of the stored state; a change of meaning counts it up
LONGEST_US = max(WINDOWS.values()) * DAY_US
MINUTE_US = 60_000_000  # zones change their offset at whole minutes


@dataclass(frozen=True)
class Plan:
    """What every state of one schema shares; make it once."""

    table: dict[str, Feature]
    roles: Roles
    columns: tuple[str, ...]
    types: frozenset[str]
    session_gap_us: int
    zone: str

    @staticmethod
    def of(schema: Schema) -> Plan:
        """The plan of a schema."""
        return Plan(
            definitions(schema),
            Roles.of(schema),
            tuple(counted_columns(schema)),
            frozenset(schema.types),
            microseconds(schema.prepare.session_gap_s),
            schema.time.zone,
        )


@dataclass(slots=True)
class UserState:
    """One user's features in the making.

    Examples
    --------
    >>> from datetime import UTC, datetime
    >>> from desireline.schema.model import EventSpec, EventType
    >>> plan = Plan.of(Schema(event=EventSpec(constant="buy"), types={"buy": EventType(roles=["target"])}))
    >>> state = UserState(plan)
    >>> state.fold({"time": datetime(2024, 5, 1, tzinfo=UTC), "event": "buy", "item": "tea", "value": 4.5})
    >>> state.read(datetime(2024, 5, 3, tzinfo=UTC))["days_since_target"]
    2.0
    """

    plan: Plan = field(repr=False)
    totals: dict[str, int] = field(default_factory=dict)  # statistics that only add up
    first: int | None = None  # microseconds since 1970, as all moments here
    last: int | None = None
    last_positive: int | None = None
    last_target: int | None = None
    day: int | None = None  # days since 1970, by the wall clock
    target_day: int | None = None
    target_gap_last: int | None = None
    target_gap_squares: int = 0
    # per distinct moment of the last 90 days: it; events, targets, money before it; number of its day, of its session
    recent: list[list[int]] = field(default_factory=list)
    counts: dict[str, dict[str, int]] = field(default_factory=dict)  # column -> value -> events
    surprise: dict[str, int] = field(default_factory=dict)  # column -> sum of c ln c over its counts
    first_target: dict[str, int] = field(default_factory=dict)  # item -> moment of the first target on it

    def fold(self, event: Mapping[str, Any]) -> None:
        """Take in one event.

        Parameters
        ----------
        event
            `time` (datetime), `event`, and where there are any `item`, `value` and fields, as in an event frame's row.

        Raises
        ------
        DataError
            The event is older than the last one: features cannot be unfolded, rebuild the state from the log.
        """
        now = epoch_us(event["time"])
        if self.last is not None and now < self.last:
            raise DataError(
                f"An event of {event['time'].isoformat()} came after one of {_moment(self.last).isoformat()}: "
                "fold events in the order of time, and rebuild this user's state from the log when one comes late."
            )
        positive, target, negative = self.plan.roles.of_event(event)
        self._clock(now)
        add = self._add
        value = event.get("value")
        if value is not None and math.isfinite(value):
            millionths = math.floor(min(max(float(value), -LARGEST_MONEY), LARGEST_MONEY) * MONEY_ONE + 0.5)
            if target:
                add("valued")
                add("money", millionths)
            if negative:
                add("money_negative", abs(millionths))
        add("events")
        add("negatives", int(negative))
        if event["event"] in self.plan.types:
            add(f"type_{event['event']}")
        if positive:
            self.last_positive = now
        if target:
            self._target(now, event.get("item"))
        for column in self.plan.columns:
            self._value(column, event.get(column))

    def read(self, as_of: datetime) -> dict[str, float]:
        """Every feature as of a moment after the last event; nan where the batch form has null.

        Raises
        ------
        DataError
            `as_of` is not after the last event: a state cannot look back.
        """
        now = epoch_us(as_of)
        if self.last is not None and now <= self.last:
            raise DataError(
                f"Features as of {as_of.isoformat()} were asked of a state that has seen "
                f"{_moment(self.last).isoformat()}: ask as of a later moment, or compute the past from the log "
                "(features.batch.batch_features)."
            )
        statistics = self._statistics(now)
        return {name: feature.value(statistics) for name, feature in self.plan.table.items()}

    def to_dict(self) -> dict[str, Any]:
        """The state for storage as JSON; it shares its parts with the state."""
        return {"version": VERSION} | {f.name: getattr(self, f.name) for f in fields(self) if f.name != "plan"}

    @staticmethod
    def from_dict(raw: Mapping[str, Any], plan: Plan) -> UserState:
        """The inverse of `to_dict`. Raises DataError when another version wrote it, or it is damaged."""
        if raw.get("version") != VERSION:
            raise DataError(
                f"A stored feature state has version {raw.get('version')!r}, not {VERSION}: rebuild it from the log."
            )
        try:
            return UserState(plan, **{key: value for key, value in raw.items() if key != "version"})
        except TypeError as error:
            raise DataError(f"A stored feature state is damaged ({error}): rebuild it from the log.") from error

    def _add(self, name: str, amount: int = 1) -> None:
        self.totals[name] = self.totals.get(name, 0) + amount

    def _clock(self, now: int) -> None:
        """Session, day, hour and weekday of an event, and its moment's entry in `recent`."""
        wall = now + _offset_us(self.plan.zone, now // MINUTE_US)
        day = wall // DAY_US
        self._add(f"hour_{HOURS[wall % DAY_US // (4 * 3600 * 1_000_000)]}")
        self._add(f"weekday_{WEEKDAYS[(day + 3) % 7]}")  # 1970 began on a Thursday
        if self.last is None or now - self.last > self.plan.session_gap_us:
            self._add("sessions")
        else:
            self._add("dwell_us", now - self.last)
        if self.day is None or day > self.day:  # where clocks are set back at midnight, the later day goes on
            self._add("active_days")
            self.day = day
        if now != self.last:
            before = [self.totals.get(name, 0) for name in ("events", "targets", "money", "active_days", "sessions")]
            self.recent.append([now, *before])
            if self.recent[0][0] <= now - LONGEST_US:
                del self.recent[: bisect_right(self.recent, now - LONGEST_US, key=itemgetter(0))]
        self.first, self.last = now if self.first is None else self.first, now

    def _target(self, now: int, item: str | None) -> None:
        self._add("targets")
        self.last_target = now
        day = self.day
        assert day is not None  # _clock has set it
        if self.target_day is None:
            self._add("target_days")
        elif day > self.target_day:
            gap = day - self.target_day
            self._add("target_days")
            self._add("target_gaps")
            self._add("target_gap_sum", gap)
            self.target_gap_squares += gap * gap
            self.target_gap_last = gap
        self.target_day = day
        if item is not None:
            self._add("item_targets")
            self._add("repeats", int(self.first_target.setdefault(item, now) < now))

    def _value(self, column: str, value: str | None) -> None:
        if value is None:
            return
        counts = self.counts.setdefault(column, {})
        count = counts.get(value, 0)
        f = c_log_c(count + 1)
        counts[value] = count + 1
        self.surprise[column] = self.surprise.get(column, 0) + int(f[count + 1] - f[count])
        self._add(f"present_{column}")

    def _statistics(self, now: int) -> dict[str, int | None]:
        known: dict[str, int | None] = dict.fromkeys(_names(self.plan), 0)
        known |= self.totals
        total = {name: self.totals.get(name, 0) for name in ("events", "targets", "money", "active_days", "sessions")}
        for window, days in WINDOWS.items():
            at = bisect_left(self.recent, now - days * DAY_US, key=itemgetter(0))
            if at == len(self.recent):
                continue
            _, events, targets, money, day, session = self.recent[at]
            known[f"events_{window}"] = total["events"] - events
            known[f"targets_{window}"] = total["targets"] - targets
            known[f"money_{window}"] = total["money"] - money
            known[f"active_days_{window}"] = total["active_days"] - day + 1
            known[f"sessions_{window}"] = total["sessions"] - session + 1
        known["money_trend"] = 3 * (known["money_30d"] or 0) - (known["money_90d"] or 0)
        known["dwells"] = total["events"] - total["sessions"]
        ages = {"first": self.first, "last": self.last, "positive": self.last_positive, "target": self.last_target}
        known |= {f"age_{name}": None if moment is None else now - moment for name, moment in ages.items()}
        gaps, gap_sum = self.totals.get("target_gaps", 0), self.totals.get("target_gap_sum", 0)
        known["target_gap_spread"] = gaps * self.target_gap_squares - gap_sum * gap_sum
        known["target_gap_last"] = self.target_gap_last
        for column in self.plan.columns:
            present = self.totals.get(f"present_{column}", 0)
            known[f"distinct_{column}"] = len(self.counts.get(column, ()))
            known[f"entropy_{column}"] = int(c_log_c(present)[present]) - self.surprise.get(column, 0)
        return known


def _names(plan: Plan) -> list[str]:
    """Every statistic that some feature reads."""
    pairs = ((feature.top, feature.per) for feature in plan.table.values())
    return [name for pair in pairs for name in pair if name is not None]


@lru_cache(maxsize=65_536)
def _offset_us(zone: str, minute: int) -> int:
    """Wall clock less UTC, by the time-zone table that the batch form uses."""
    if zone == "UTC":
        return 0
    moment = pl.Series([minute * MINUTE_US]).cast(pl.Datetime("us", "UTC"))
    wall = moment.dt.convert_time_zone(zone).dt.replace_time_zone(None)
    return int(wall.cast(pl.Int64).item()) - minute * MINUTE_US


def _moment(us: int) -> datetime:
    return EPOCH + timedelta(microseconds=us)
