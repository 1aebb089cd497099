"""What the report shows, aggregated from the log and the kept tables: small frames and plain values."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol

import polars as pl

from desireline.core.errors import DesirelineError
from desireline.evaluation.result import Result
from desireline.events.frame import content_hash
from desireline.events.health import Health
from desireline.events.store import EventStore
from desireline.schema.model import Schema

EXAMPLES = 3  # users whose timelines are drawn
SHOWN_EVENTS = 60  # of an example user, the latest
PERIODS = {"1h": timedelta(days=5), "1d": timedelta(days=200), "1w": timedelta(days=365 * 4), "1mo": timedelta.max}


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
    """One user: the latest events (time, event, item) and what the models answer."""

    user: str
    events: pl.DataFrame
    answers: dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Report:
    """Everything on the page.

    activity : period, event, events;  funnel : event, users — users who had each type, in the schema's order
    titles : item -> a text that says what it is, for the items shown
    """

    name: str
    timed: bool
    health: dict[str, Any]
    notes: list[str]
    activity: pl.DataFrame
    funnel: pl.DataFrame
    results: list[Result]
    examples: list[Example]
    titles: dict[str, str]


def gather(workspace: Workspace) -> Report:
    """Aggregate a workspace. Raises DataError when nothing was ingested."""
    schema, store = workspace.schema, workspace.store
    timed = schema.time.column is not None and schema.time.format != "position"
    health = workspace.check().to_json()
    first, last = store.span()
    period = next(name for name, most in PERIODS.items() if last - first <= most)
    counted = store.scan(["time", "event"]).group_by(pl.col("time").dt.truncate(period).alias("period"), "event")
    activity = counted.agg(events=pl.len()).sort("period", "event").collect(engine="streaming")
    users = store.scan(["user", "event"]).unique().group_by("event").agg(users=pl.len()).collect(engine="streaming")
    order = {name: place for place, name in enumerate(schema.types)}
    funnel = users.with_columns(order=pl.col("event").replace_strict(order, default=len(order))).sort("order")
    examples = _examples(workspace)
    return Report(
        workspace.folder.resolve().name,
        timed,
        health,
        [str(note) for note in health.get("notes", [])],
        activity,
        funnel.drop("order"),
        _latest(workspace.results()),
        examples,
        _titles(store, schema, examples),
    )


def _latest(results: list[Result]) -> list[Result]:
    """The comparison of each task; a single fit only where its task was never compared."""
    compared = {result.task for result in results if result.chosen is not None}
    return [result for result in results if result.chosen is not None or result.task not in compared]


def _examples(workspace: Workspace) -> list[Example]:
    """Users with a history of middling length, always the same ones for the same log."""
    store = workspace.store
    lengths = store.scan(["user"]).group_by("user").agg(n=pl.len()).collect(engine="streaming")
    floor = lengths["n"].quantile(0.7) or 0
    kept = lengths.filter(pl.col("n") >= floor).with_columns(hash=content_hash(pl.col("user"))).sort("hash")
    examples = []
    for user in kept["user"].head(EXAMPLES):
        events = store.users_events(user).select("time", "event", "item").tail(SHOWN_EVENTS)
        answers: dict[str, dict[str, Any]] = {}
        for task in workspace.answered_tasks():
            try:
                answers[task] = asdict(workspace.predict(task, user, k=5))
            except DesirelineError as error:  # said on the page in the answer's place
                answers[task] = {"error": str(error)}
        examples.append(Example(user, events, answers))
    return examples


def _titles(store: EventStore, schema: Schema, examples: list[Example]) -> dict[str, str]:
    names = [name for name, field in schema.fields.items() if field.kind == "text" and field.of == "item"]
    if not names:
        return {}
    shown = {item for example in examples for item in example.events["item"].drop_nulls()}
    shown |= {i["item"] for e in examples for a in e.answers.values() for i in a.get("items", [])}
    rows = store.scan(["item", names[0]]).filter(pl.col("item").is_in(sorted(shown)), pl.col(names[0]).is_not_null())
    found = rows.group_by("item").agg(pl.col(names[0]).mode().sort().first()).collect(engine="streaming")
    return dict(found.iter_rows())
