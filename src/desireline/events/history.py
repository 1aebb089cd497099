"""Events of somebody unknown: a history given with a question instead of a user of the log."""

from __future__ import annotations

import json
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl

from desireline.core.errors import DataError, SourceError
from desireline.core.progress import say
from desireline.events.frame import TIME, empty, frame_schema
from desireline.schema.mapping import FIRST, map_rows
from desireline.schema.model import EventSpec, Schema, TimeSpec
from desireline.schema.moment import parse_moment

KEYS = ("event", "item", "time", "value", "fields")


def read_history(path: Path, schema: Schema, at: datetime) -> pl.DataFrame:
    """Events of somebody unknown from JSON lines `{"event", "item", "time", "value", "fields"}` as an event frame.

    Times are ISO 8601 or epoch seconds; lines without one are taken for the last things before the moment of the
    question `at`, in the order of the file. The frame of a file without a line is empty. Keys that are not read are
    named in a line on stderr. Raises SourceError for a line that is no JSON object, DataError for an event type that
    the schema does not know and for a time to come.
    """
    rows = [_event(line, path, number) for number, line in _lines(path)]
    _say_unread(rows, schema, path)
    return history_frame(rows, schema, str(path), at) if rows else empty(schema)


def _lines(path: Path) -> list[tuple[int, str]]:
    """The filled lines of a file, with their numbers."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"The history {path} cannot be read: {error}.") from error
    return [(number, line) for number, line in enumerate(lines, 1) if line.strip()]


def _event(line: str, path: Path, number: int) -> dict[str, Any]:
    """A line's object, its fields an object too."""
    form = f'{path}, line {number}: no event of the form {{"event", "item", "time"}}'
    try:
        event = json.loads(line)
    except ValueError as error:
        raise SourceError(f"{form} ({error}).") from error
    if not isinstance(event, dict) or not isinstance(event.get("fields") or {}, dict):
        raise SourceError(f"{form}: the line, and its `fields` if it has any, are JSON objects.")
    if "event" not in event:
        raise SourceError(f"{form}: `event`, the event's type, is missing.")
    return event | {"fields": event.get("fields") or {}}


def _say_unread(rows: list[dict[str, Any]], schema: Schema, path: Path) -> None:
    keys = [key for event in rows for key in event if key not in KEYS]
    keys += [f"fields.{key}" for event in rows for key in event["fields"] if key not in schema.fields]
    if keys:
        told = ", ".join(f'"{key}" (in {n} of {len(rows)})' for key, n in Counter(keys).most_common(10))
        fields = f"; its fields: {', '.join(schema.fields)}" if schema.fields else ""
        say(f"{path}: not read: {told}. An event has the keys {', '.join(KEYS)}{fields}.")


def history_frame(rows: list[dict[str, Any]], schema: Schema, where: str, at: datetime) -> pl.DataFrame:
    """An event frame of one made-up user from contract-shaped events, as asked about at a moment."""
    untimed = at - timedelta(microseconds=len(rows) + 1)
    clock = schema.time.column is not None and schema.time.format != "position"
    times = [_event_time(r.get("time"), untimed, n, where, clock) for n, r in enumerate(rows, 1)]
    plain = schema.model_copy(
        update={
            "user": "user",
            "item": "item",
            "value": "value",
            "event": EventSpec(column="event"),
            "event_id": None,
            "alias": None,
            "tie_break": "row",
            "time": TimeSpec(),  # read here, line by line: each is written in its own way, or not at all
            "fields": {name: field.model_copy(update={"column": name}) for name, field in schema.fields.items()},
        }
    )
    raw = pl.DataFrame(
        [
            {
                "user": "history",
                "event": str(r["event"]),
                "item": None if r.get("item") is None else str(r["item"]),
                "value": r.get("value"),
            }
            | {name: r["fields"].get(name) for name in schema.fields}
            for r in rows
        ],
        infer_schema_length=None,
    )
    mapped = map_rows(raw.with_columns(pl.col("event", "item").cast(pl.String)), plain, 1)
    if mapped.rejected.height:
        first = mapped.rejected.row(0, named=True)
        raise DataError(f"{where}, event {first['row']}: {first['reason']}")
    frame = mapped.events.with_columns(pl.Series("time", times, TIME))
    frame = frame.with_columns(event_id=pl.col("row").cast(pl.Int64), bucket=pl.lit(0, pl.Int16))
    if schema.alias:
        frame = frame.with_columns(alias=pl.lit(None, pl.String))
    return frame.select(list(frame_schema(schema))).sort("user", "time", "order", "event_id")


def _event_time(value: object, untimed: datetime, number: int, where: str, clock: bool) -> datetime:
    """An event's moment; `clock`: the log's times are moments, no positions."""
    if value is None:
        return untimed + timedelta(microseconds=number)
    moment, now = parse_moment(value, f"{where}, event {number}"), datetime.now(UTC)
    early = clock and moment < FIRST
    if early or moment > now + timedelta(days=1):
        fault = "lies before 1971" if early else f"lies in the future (now is {now:%Y-%m-%d})"
        raise DataError(
            f"{where}, event {number}: the time {json.dumps(value)} {fault}. A history's events lie before now, and "
            "before the moment that is asked about (--as-of); write a time as ISO 8601 or as epoch seconds."
        )
    return moment
