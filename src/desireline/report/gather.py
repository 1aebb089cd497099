"""What the report shows, aggregated from the log and the kept tables: small frames and plain values."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

import polars as pl

from desireline.core.errors import DesirelineError, ModelError
from desireline.core.progress import say
from desireline.evaluation.result import Result
from desireline.events.frame import content_hash
from desireline.events.health import Health
from desireline.events.store import EventStore
from desireline.report.leaving import Leaving, gather_leaving
from desireline.schema.model import Schema

EXAMPLES = 3  # users whose timelines are drawn
SHOWN_MOMENTS = 60  # of an example user, the latest
PERIODS = {"1h": timedelta(days=4), "1d": timedelta(days=120), "1w": timedelta(days=365 * 4), "1mo": timedelta.max}
WORDS = {"1h": "hour", "1d": "day", "1w": "week", "1mo": "month"}
BINS = 40  # of a log that has positions and no times
TYPES = 6  # drawn by name over time; the rest is one colour
STEPS = 15  # of the funnel at most
OTHER = "other types"


class Workspace(Protocol):
    """What a report needs of a workspace."""

    folder: Path
    schema: Schema

    @property
    def store(self) -> EventStore:
        """The event store."""

    def check(self) -> Health:
        """The log's health."""

    def results(self) -> list[Result]:
        """The kept tables."""

    def predict(self, task: str, user: str | None = None, *, k: int = 10) -> Any:
        """The answer of a task for a user."""

    def answered_tasks(self) -> list[str]:
        """The tasks for which a model answers."""


@dataclass(frozen=True)
class Example:
    """One user: the latest events and what the models answer.

    moments : time, event, count, items (list of str) — events of one type at one moment are one row, in order
    answers : task -> the answer as plain values, or `{"error": why there is none}`
    """

    user: str
    moments: pl.DataFrame
    answers: dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Report:
    """Everything on the page.

    timed    : False for a log that has positions and no times
    zone     : in which moments are told
    first, last : of the events that lie within the window of possible times
    period   : "hour", "day", "week", "month", or "" for a log of positions
    activity : start, end, event, events — every period and type, silent ones as zeros; wall times or positions
    funnel   : event, users — users who had each type, in the schema's order
    results  : the comparison of each task, a single fit where its task was never compared
    others   : the further kept tables
    titles   : item -> a text that says what it is, for the items shown
    leaving  : churn beside its table; None where no model answers for it
    """

    name: str
    timed: bool
    zone: str
    first: datetime | None
    last: datetime | None
    health: dict[str, Any]
    period: str
    activity: pl.DataFrame
    funnel: pl.DataFrame
    results: list[Result]
    others: list[Result]
    examples: list[Example]
    titles: dict[str, str]
    leaving: Leaving | None = None


def gather(workspace: Workspace) -> Report:
    """Aggregate a workspace. Raises DataError when nothing was ingested."""
    schema, store = workspace.schema, workspace.store
    health = workspace.check().to_json()
    events = _events(store, schema, health["limits"])
    span = events.select(first=pl.col("time").min(), last=pl.col("time").max()).collect(engine="streaming")
    first, last = span.row(0)
    timed = bool(health["clock"]["has_times"])
    period, activity = "", pl.DataFrame(schema={"start": pl.Float64, "end": pl.Float64, "event": pl.String})
    if first is not None:
        drawn = _drawn_types(schema, health["types"])
        period, activity = _activity(events, drawn, first, last, schema.time.zone if timed else None)
    kept = workspace.results()
    compared = {result.task for result in kept if result.chosen is not None}
    in_full = [result.chosen is not None or result.task not in compared for result in kept]
    examples = _examples(workspace, events)
    return Report(
        workspace.folder.resolve().name,
        timed,
        schema.time.zone,
        first,
        last,
        health,
        period,
        activity,
        _funnel(events, schema),
        [result for result, full in zip(kept, in_full, strict=True) if full],
        [result for result, full in zip(kept, in_full, strict=True) if not full],
        examples,
        _titles(store, schema, examples),
        _leaving(workspace),
    )


def _leaving(workspace: Workspace) -> Leaving | None:
    if "churn" not in workspace.answered_tasks():
        return None
    try:
        return gather_leaving(workspace)
    except ModelError as error:  # its table still stands, and a page without the rest of it is better than none
        say(f"The report leaves out what the churn model would tell: {error}")
        return None


def _events(store: EventStore, schema: Schema, limits: dict[str, Any]) -> pl.LazyFrame:
    """User, time and event of what lies within the window of possible times; merged users under one id."""
    events = store.scan(["user", "time", "event"])
    if schema.alias is not None:
        merged = store.aliases()
        table = pl.LazyFrame(
            {"user": list(merged), "canonical": list(merged.values())},
            schema={"user": pl.String, "canonical": pl.String},
        )
        events = events.filter(pl.col("event") != schema.alias.event).join(table, on="user", how="left")
        events = events.with_columns(user=pl.coalesce("canonical", "user")).drop("canonical")
    if limits["low"]:
        events = events.filter(pl.col("time") >= datetime.fromisoformat(limits["low"]))
    if limits["high"]:
        events = events.filter(pl.col("time") < datetime.fromisoformat(limits["high"]))
    return events


def _in_order(schema: Schema, types: list[str]) -> list[str]:
    """Types in the schema's order; those it does not name come last, by name."""
    known = [name for name in schema.types if name in types]
    return known + sorted(set(types) - set(known))


def _drawn_types(schema: Schema, counts: dict[str, int]) -> list[str]:
    """The types that get a colour of their own: the most frequent, in the schema's order."""
    frequent = sorted(counts, key=lambda name: (-counts[name], name))
    return _in_order(schema, frequent if len(frequent) <= TYPES else frequent[: TYPES - 1])


def _activity(
    events: pl.LazyFrame, drawn: list[str], first: datetime, last: datetime, zone: str | None
) -> tuple[str, pl.DataFrame]:
    """Events of every period and type. `zone` None: of equal stretches of positions."""
    named = pl.when(pl.col("event").is_in(drawn)).then("event").otherwise(pl.lit(OTHER)).alias("event")
    if zone is None:
        period, seconds = "", pl.col("time").dt.epoch("s")
        low, high = int(first.timestamp()), int(last.timestamp())
        width = max(1, -(-(high - low + 1) // BINS))
        bins = pl.DataFrame({"start": range(low, high + 1, width)}, schema={"start": pl.Int64})
        bins = bins.with_columns(end=pl.col("start") + width)
        start = (seconds - low) // width * width + low
    else:
        every = next(name for name, most in PERIODS.items() if last - first <= most)
        period, wall = WORDS[every], pl.col("time").dt.convert_time_zone(zone).dt.replace_time_zone(None)
        start = wall.dt.truncate(every)
        ends = pl.DataFrame({"time": [first, last]}, schema={"time": pl.Datetime("us", "UTC")}).select(start)
        bins = ends.unique().sort("time").upsample("time", every=every).rename({"time": "start"})
        bins = bins.with_columns(end=pl.col("start").dt.offset_by(every))
    counted = events.select(start.alias("start"), named).group_by("start", "event").agg(events=pl.len())
    found = counted.collect(engine="streaming")
    types = pl.DataFrame({"event": [*drawn, *([OTHER] if OTHER in found["event"] else [])]})
    grid = bins.join(types, how="cross")
    return period, grid.join(found, on=["start", "event"], how="left", maintain_order="left").with_columns(
        pl.col("events").fill_null(0).cast(pl.Int64)
    )


def _funnel(events: pl.LazyFrame, schema: Schema) -> pl.DataFrame:
    """Users who had each type, of many types those with the most users."""
    found = events.select("user", "event").unique().group_by("event").agg(users=pl.len()).collect(engine="streaming")
    users = dict(found.iter_rows()) | {name: 0 for name in schema.types if name not in found["event"]}
    if schema.alias is not None:
        users.pop(schema.alias.event, None)
    kept = sorted(users, key=lambda name: (-users[name], name))[:STEPS]
    order = _in_order(schema, kept)
    return pl.DataFrame(
        {"event": order, "users": [users[name] for name in order]}, schema_overrides={"users": pl.Int64}
    )


def _examples(workspace: Workspace, events: pl.LazyFrame) -> list[Example]:
    """Users with a history of middling length who were there lately; always the same ones for the same log."""
    store, schema = workspace.store, workspace.schema
    lengths = events.group_by("user").agg(moments=pl.col("time").n_unique(), last=pl.col("time").max())
    users = lengths.collect(engine="streaming")
    middling = pl.col("moments").is_between(pl.col("moments").median(), pl.col("moments").quantile(0.95))
    lately = pl.col("last") >= pl.col("last").quantile(0.5)
    ranked = users.with_columns(fit=(middling & (pl.col("moments") > 2)).cast(pl.Int8) * 2 + lately.cast(pl.Int8))
    ranked = ranked.with_columns(hash=content_hash(pl.col("user"))).sort("fit", "hash", descending=[True, False])
    examples = []
    for user in ranked["user"].head(EXAMPLES):
        history = store.users_events(user)
        if schema.alias is not None:
            history = history.filter(pl.col("event") != schema.alias.event)
        moments = history.group_by("time", "event", maintain_order=True).agg(
            count=pl.len(), items=pl.col("item").drop_nulls()
        )
        answers: dict[str, dict[str, Any]] = {}
        for task in workspace.answered_tasks():
            try:
                answers[task] = asdict(workspace.predict(task, user, k=5))
            except DesirelineError as error:  # said on the page in the answer's place
                answers[task] = {"error": str(error)}
        examples.append(Example(user, moments.tail(SHOWN_MOMENTS), answers))
    return examples


def _titles(store: EventStore, schema: Schema, examples: list[Example]) -> dict[str, str]:
    names = [name for name, field in schema.fields.items() if field.kind == "text" and field.of == "item"]
    if not names:
        return {}
    shown = {item for example in examples for items in example.moments["items"] for item in items}
    shown |= {i["item"] for e in examples for a in e.answers.values() for i in a.get("items", [])}
    rows = store.scan(["item", names[0]]).filter(pl.col("item").is_in(sorted(shown)), pl.col(names[0]).is_not_null())
    found = rows.group_by("item").agg(pl.col(names[0]).mode().sort().first()).collect(engine="streaming")
    return dict(found.iter_rows())
