"""The one event: names, types and order of the columns that everything below the schema works on.

An event frame is a polars frame with the columns of `CORE`, then the schema's fields in their declared order (category,
text, image and audio fields are String, number and duration fields Float64), and `alias` (String) when the schema has
an alias event. Inside one user, events stand in the order of `ORDER`.
"""

from __future__ import annotations

import polars as pl

from desireline.schema.model import Schema

BUCKETS = 64
TIME = pl.Datetime("us", "UTC")
CORE: dict[str, pl.DataType | type[pl.DataType]] = {
    "event_id": pl.Int64,  # signed 64-bit hash: of the declared id, else of the content and its occurrence number
    "user": pl.String,
    "time": TIME,
    "event": pl.String,
    "item": pl.String,  # null: the event is about no item
    "value": pl.Float64,  # null: the event has no value
    "order": pl.Int64,  # rank at equal times, from the schema's tie_break
    "bucket": pl.Int16,  # hash of the user modulo BUCKETS
}
ORDER = ["user", "time", "order", "event_id"]


def frame_schema(schema: Schema) -> dict[str, pl.DataType | type[pl.DataType]]:
    """Column names and types of an event frame under a schema, in order."""
    columns = dict(CORE)
    for name, field in schema.fields.items():
        columns[name] = pl.Float64 if field.kind in ("number", "duration") else pl.String
    if schema.alias:
        columns["alias"] = pl.String
    return columns


def empty(schema: Schema) -> pl.DataFrame:
    """An event frame without rows."""
    return pl.DataFrame(schema=frame_schema(schema))


def content_hash(values: pl.Expr) -> pl.Expr:
    """A 64-bit hash of a string expression that is the same on every machine and version, as Int64."""
    import polars_hash as plh

    return plh.concat_str(values).nchash.xxhash64().reinterpret(signed=True)


def bucket_of(user: str) -> int:
    """The bucket of one user."""
    return int(pl.select(bucket_expression(pl.lit(user))).item())


def bucket_expression(user: pl.Expr) -> pl.Expr:
    """Int16 bucket of a user expression."""
    return (content_hash(user) & (BUCKETS - 1)).cast(pl.Int16)
