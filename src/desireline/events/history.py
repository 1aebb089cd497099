"""Events of somebody unknown: a history given with a question instead of a user of the log."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl

from desireline.core.errors import DataError, SourceError
from desireline.events.frame import empty, frame_schema
from desireline.schema.mapping import map_rows
from desireline.schema.model import EventSpec, Schema
from desireline.schema.moment import parse_moment


def read_history(path: Path, schema: Schema, at: datetime) -> pl.DataFrame:
    """Events of somebody unknown from JSON lines `{"event", "item", "time", "value", "fields"}` as an event frame.

    Times are ISO 8601 or epoch seconds; lines without one are taken for the last things before the moment of the
    question `at`, in the order of the file. The frame of a file without a line is empty. Raises SourceError for a line
    that is no JSON object, DataError for an event type that the schema does not know.
    """
    rows = []
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"The history {path} cannot be read: {error}.") from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            event = json.loads(line)
            fields = event.get("fields") or {}
            rows.append(
                {
                    "event": event["event"],
                    "item": event.get("item"),
                    "time": event.get("time"),
                    "value": event.get("value"),
                    "fields": fields,
                }
            )
        except (ValueError, KeyError, AttributeError) as error:
            raise SourceError(
                f'{path}, line {number}: no event of the form {{"event", "item", "time"}} ({error}).'
            ) from error
    return history_frame(rows, schema, str(path), at) if rows else empty(schema)


def history_frame(rows: list[dict[str, Any]], schema: Schema, where: str, at: datetime) -> pl.DataFrame:
    """An event frame of one made-up user from contract-shaped events, as asked about at a moment."""
    untimed = at - timedelta(microseconds=len(rows) + 1)
    plain = schema.model_copy(
        update={
            "user": "user",
            "item": "item",
            "value": "value",
            "event": EventSpec(column="event"),
            "event_id": None,
            "alias": None,
            "tie_break": "row",
            "time": schema.time.model_copy(update={"column": "time", "format": "epoch_us"}),
            "fields": {name: field.model_copy(update={"column": name}) for name, field in schema.fields.items()},
        }
    )
    raw = pl.DataFrame(
        [
            {
                "user": "history",
                "event": str(r["event"]),
                "item": None if r["item"] is None else str(r["item"]),
                "time": _event_time(r["time"], untimed, n, where),
                "value": r["value"],
            }
            | {name: r["fields"].get(name) for name in schema.fields}
            for n, r in enumerate(rows, 1)
        ],
        infer_schema_length=None,
    )
    mapped = map_rows(raw.with_columns(pl.col("event", "item").cast(pl.String)), plain, 1)
    if mapped.rejected.height:
        first = mapped.rejected.row(0, named=True)
        raise DataError(f"{where}, event {first['row']}: {first['reason']}")
    frame = mapped.events.with_columns(event_id=pl.col("row").cast(pl.Int64), bucket=pl.lit(0, pl.Int16))
    if schema.alias:
        frame = frame.with_columns(alias=pl.lit(None, pl.String))
    return frame.select(list(frame_schema(schema))).sort("user", "time", "order", "event_id")


def _event_time(value: object, untimed: datetime, number: int, where: str) -> int:
    if value is None:
        moment = untimed + timedelta(microseconds=number)
    else:
        moment = parse_moment(value, f"{where}, event {number}")
    return int((moment - datetime(1970, 1, 1, tzinfo=UTC)) / timedelta(microseconds=1))
