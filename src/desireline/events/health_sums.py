"""What the health of a log is made of: sums and histograms that grow with hours and lengths, not with events."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime

import polars as pl

from desireline.events.clean import Limits, clean
from desireline.events.limits import DAY, HOUR
from desireline.events.roles import Roles
from desireline.schema.model import Schema


@dataclass
class Sums:
    """Counts over the users seen so far."""

    schema: Schema
    limits: Limits
    now: datetime
    first: datetime | None = None
    last: datetime | None = None
    types: Counter[str] = field(default_factory=Counter)
    hours: Counter[int] = field(default_factory=Counter)  # hour since 1970 -> events
    lengths: Counter[int] = field(default_factory=Counter)  # events that cleaning leaves a user -> users
    nulls: Counter[str] = field(default_factory=Counter)
    removed: Counter[str] = field(default_factory=Counter)
    bots: Counter[str] = field(default_factory=Counter)  # user -> events
    clipped: int = 0
    users: int = 0
    repeated: int = 0  # equal another event in user, time, type and item
    exact_hours: int = 0
    midnights: int = 0  # on the wall clock
    future: int = 0
    targets: int = 0
    about: int = 0  # targets on an item
    again: int = 0  # of these, on an item that was a target at an earlier time

    def add(self, events: pl.DataFrame) -> None:
        """Take in all events of further users, an event frame in the order of ORDER."""
        if events.height == 0:
            return
        self.types.update(dict(events.group_by("event").len().iter_rows()))
        self.nulls.update(events.null_count().row(0, named=True))
        self.users += events["user"].n_unique()
        self._add_times(events)
        cleaned = clean(events, self.schema.clean, self.limits)
        self.removed.update(cleaned.counts())
        self.clipped += cleaned.clipped
        self.bots.update(
            dict(cleaned.removed.filter(pl.col("rule").str.starts_with("bot")).group_by("user").len().iter_rows())
        )
        if cleaned.events.height:
            self.lengths.update(cleaned.events["user"].rle().struct.field("len").to_list())
            self._add_targets(cleaned.events)

    def _add_times(self, events: pl.DataFrame) -> None:
        micro = pl.col("time").cast(pl.Int64)
        wall = pl.col("time").dt.convert_time_zone(self.schema.time.zone).dt.replace_time_zone(None).cast(pl.Int64)
        self.hours.update(dict(events.group_by(hour=micro // HOUR).len().iter_rows()))
        found = events.select(
            first=pl.col("time").min(),
            last=pl.col("time").max(),
            exact_hours=(micro % HOUR == 0).sum(),
            midnights=(wall % DAY == 0).sum(),
            future=(pl.col("time") > self.now).sum(),
            repeated=(~pl.struct("user", "time", "event", "item").is_first_distinct()).sum(),
        ).row(0, named=True)
        self.first = min(filter(None, (self.first, found["first"])))
        self.last = max(filter(None, (self.last, found["last"])))
        for name in ("exact_hours", "midnights", "future", "repeated"):
            setattr(self, name, getattr(self, name) + found[name])

    def _add_targets(self, events: pl.DataFrame) -> None:
        _, target, _ = Roles.of(self.schema).flags(events)
        self.targets += int(target.sum())
        about = events.select("user", "item", "time").filter(target).filter(pl.col("item").is_not_null())
        earlier = pl.col("time") > pl.col("time").min().over("user", "item")
        self.about += about.height
        self.again += int(about.select(earlier.sum()).item())
