"""The health of a log: what it holds, what is wrong with it, what it will be good for and what it will cost.

The log is read once, one range of buckets after another, and only sums and histograms are kept, so memory is that of
one range (half a million events) and of the distinct items. What cleaning would do is found by cleaning, what order is
worth on a bounded sample of users.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from typing import Any, Protocol

import numpy as np
import polars as pl
from rich.console import RenderableType

from desireline.core.errors import DataError
from desireline.core.progress import progress
from desireline.events.clean import RULES, Limits, clean, fit_limits, reasons
from desireline.events.estimate import estimate_epoch, estimate_prepare
from desireline.events.frame import BUCKETS, frame_schema
from desireline.events.health_facts import Facts
from desireline.events.health_screen import notes, screen
from desireline.events.health_sums import Sums
from desireline.events.histories import behaviour
from desireline.events.limits import CLOCKS, HOUR
from desireline.events.order import Order, order_strength
from desireline.schema.model import Schema

CHUNK_EVENTS = 500_000
SAMPLE_EVENTS = 200_000
QUANTILES = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99, 1.0)
QUIET_HOURS = 5  # the longest stretch in which people nearly everywhere sleep
GAPS, BOTS = 3, 5  # named at most


class Log(Protocol):
    """What health needs of an event store."""

    def scan(self, columns: list[str] | None = None) -> pl.LazyFrame:
        """All events, lazily."""

    def read_bucket(self, lo: int, hi: int) -> pl.DataFrame:
        """The events of the users of buckets [lo, hi), in the order of ORDER within a user."""

    def count(self) -> int:
        """How many events there are."""


class Health(Facts):
    """The facts, as JSON and on a screen."""

    def to_json(self) -> dict[str, Any]:
        """The whole of it as a JSON object, `notes` (what to look at, in words) included."""
        return asdict(self) | {"limits": self.limits.to_json(), "notes": notes(self)}

    def __rich__(self) -> RenderableType:
        return screen(self)


def health(
    store: Log,
    schema: Schema,
    now: datetime,
    quarantine: Mapping[str, int] | None = None,
    seed: int = 0,
    cores: int = 1,
) -> Health:
    """Examine a log.

    Parameters
    ----------
    store
        The event store, or anything that reads like one.
    schema
        The log's schema.
    now
        Later events are in the future.
    quarantine
        Reason and number of rows that ingest set aside.
    seed
        Of the sample and the shuffle behind `order`.
    cores
        That the next steps may use, for the estimates.

    Raises
    ------
    DataError
        The log is empty.
    """
    total = store.count()
    if total == 0:
        raise DataError("The log is empty, there is nothing to check: bring events in with `desireline ingest`.")
    limits = fit_limits(store.scan(["time", "event", "value"]), schema.clean)
    items = store.scan(["item"]).select(pl.col("item").drop_nulls().n_unique()).collect(engine="streaming").item()
    sums = Sums(schema, limits, now)
    width = max(1, BUCKETS >> (total // CHUNK_EVENTS).bit_length())
    with progress("checking", total) as advance:
        for lo in range(0, BUCKETS, width):
            events = store.read_bucket(lo, lo + width)
            sums.add(behaviour(events, schema))
            advance(events.height)
    if not sums.users:
        raise DataError("The log holds alias events only, there is nothing to check: bring in what the users did.")
    order = order_strength(_sample(store, schema, limits, seed), seed)
    return _conclude(sums, int(items), order, dict(quarantine or {}), cores)


def _sample(store: Log, schema: Schema, limits: Limits, seed: int) -> pl.DataFrame:
    """Cleaned events of whole buckets, in a seeded order, until there are enough."""
    parts, height = [pl.DataFrame(schema=frame_schema(schema)).select("user", "event", "item")], 0
    for bucket in np.random.default_rng(seed).permutation(BUCKETS).tolist():
        events = behaviour(store.read_bucket(bucket, bucket + 1), schema)
        parts.append(clean(events, schema.clean, limits).events.select("user", "event", "item"))
        height += parts[-1].height
        if height >= SAMPLE_EVENTS:
            break
    return pl.concat(parts)


def _conclude(sums: Sums, items: int, order: Order, quarantine: dict[str, int], cores: int) -> Health:
    schema, limits, events = sums.schema, sums.limits, sum(sums.types.values())
    assert sums.first is not None  # there are events
    assert sums.last is not None
    hours = pl.DataFrame({"hour": list(sums.hours), "n": list(sums.hours.values())}).sort("hour")
    start = (pl.col("hour") * HOUR).cast(pl.Datetime("us", "UTC"))
    hours = hours.with_columns(
        start=start, wall=start.dt.convert_time_zone(schema.time.zone).dt.replace_time_zone(None)
    )
    before = hours.filter(pl.col("start") < limits.low) if limits.low else hours.clear()
    after = hours.filter(pl.col("start") >= limits.high) if limits.high else hours.clear()
    inside = hours.join(pl.concat([before, after]), on="hour", how="anti", maintain_order="left")
    of_day = dict(hours.group_by(pl.col("wall").dt.hour()).agg(pl.col("n").sum()).iter_rows())
    by_hour = [int(of_day.get(hour, 0)) for hour in range(24)]
    period, activity = _activity(inside)
    silent_days, gaps = _gaps(inside) if limits.clock else (0, [])
    columns = ["item", "value", *schema.fields]
    return Health(
        events=events,
        users=sums.users,
        items=items,
        first=sums.first.isoformat(),
        last=sums.last.isoformat(),
        types=dict(sums.types.most_common()),
        period=period,
        activity=activity,
        hours=by_hour,
        silent_days=silent_days,
        gaps=gaps,
        clock={
            "has_times": limits.clock,
            "step": CLOCKS[limits.resolution_us],
            "zone": schema.time.zone,
            "exact_hours": sums.exact_hours / events,
            "midnights": sums.midnights / events,
            "future": sums.future,
            "quietest_from": _quietest(by_hour),
        },
        missing={name: sums.nulls[name] / events for name in columns},
        quarantine=quarantine,
        outside={"before": int(before["n"].sum()), "after": int(after["n"].sum())},
        repeated=sums.repeated,
        removed={name: sums.removed[name] for name in RULES},
        rules=reasons(schema.clean, limits),
        clipped=sums.clipped,
        bots=dict(sums.bots.most_common(BOTS)),
        lengths=_quantiles(sums.lengths),
        targets=sums.targets,
        repeat_share=sums.again / sums.about if sums.about else None,
        order=order,
        prepare=estimate_prepare(events, sums.users, schema, cores),
        epoch=estimate_epoch(events - sums.users, items, schema, cores),
        limits=limits,
    )


def _activity(hours: pl.DataFrame) -> tuple[str, list[tuple[str, int]]]:
    """Events of each period of the log, by the wall clock: months of a long log, days, or hours of a short one."""
    if hours.height == 0:
        return "day", []
    days = (hours["wall"].max() - hours["wall"].min()).days  # type: ignore[operator, union-attr]
    period, step, form = next(
        choice
        for longest, *choice in (
            (3, "hour", "1h", "%F %H:00"),
            (120, "day", "1d", "%F"),
            (10**9, "month", "1mo", "%Y-%m"),
        )
        if days <= longest
    )
    counts = (
        hours.group_by(pl.col("wall").dt.truncate(step))
        .agg(pl.col("n").sum())
        .sort("wall")
        .upsample("wall", every=step)
    )
    return period, list(
        counts.select(pl.col("wall").dt.strftime(form), pl.col("n").fill_null(0).cast(pl.Int64)).iter_rows()
    )


def _gaps(hours: pl.DataFrame) -> tuple[int, list[dict[str, Any]]]:
    """Silent days in all, and the longest stretches of two days or more."""
    days = hours.select(day=pl.col("wall").dt.date().unique().sort())
    silent = days.with_columns(next=pl.col("day").shift(-1)).drop_nulls()
    silent = silent.with_columns(days=(pl.col("next") - pl.col("day")).dt.total_days() - 1).filter(pl.col("days") > 0)
    longest = silent.filter(pl.col("days") > 1).sort("days", "day", descending=[True, False]).head(GAPS)
    return int(silent["days"].sum()), [
        {"after": row["day"].isoformat(), "before": row["next"].isoformat(), "days": row["days"]}
        for row in longest.iter_rows(named=True)
    ]


def _quietest(hours: list[int]) -> int:
    """The hour of the day with which the quietest stretch of QUIET_HOURS begins."""
    sums = [sum(hours[(first + i) % 24] for i in range(QUIET_HOURS)) for first in range(24)]
    return sums.index(min(sums))


def _quantiles(lengths: Counter[int]) -> dict[str, int]:
    """Quantiles of a histogram: the smallest length that at least that share of the users does not exceed."""
    if not lengths:
        return {}
    values = np.array(sorted(lengths))
    total = np.cumsum([lengths[value] for value in values.tolist()])
    return {f"{q:g}": int(values[np.searchsorted(total, q * total[-1])]) for q in QUANTILES}
