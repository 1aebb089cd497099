"""A source's rows as events under a schema, and the rows that cannot be one, each with its place, reason and remedy.

Everything is column-wise: about a second for two million rows of numeric ids, types and epoch times, a second more when
the times are text. No check looks at a row twice, and the costly ones (NUL bytes, lengths) run on text columns only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import polars as pl

from desireline.core.errors import SchemaError
from desireline.schema.binding import float_text
from desireline.schema.expression import Compiled, compile_condition, compile_number, number_column
from desireline.schema.model import FieldSpec, Schema
from desireline.schema.syntax import missing_columns
from desireline.schema.times import EPOCH_US, read_times

MAX_ID = 512  # characters
FIRST = datetime(1971, 1, 1, tzinfo=UTC)  # an earlier time is a zero that was never set
WHERE = "desireline.yaml"


@dataclass(frozen=True)
class Mapped:
    """What became of a source's rows.

    `events` has user, time, event, item, value, order, the schema's fields and `alias` (types as in
    `events/frame.py`), then `declared_id` (String, null when the schema names no event_id) and `row` (Int64, the row's
    number in the source). `rejected` has row (Int64), column, value, reason and raw (String; the whole row as JSON).
    Every row of the source is in exactly one of the two, in the source's order.
    """

    events: pl.DataFrame
    rejected: pl.DataFrame


@dataclass(frozen=True)
class _Check:
    """Rows that cannot be an event: which, the column at fault, and what is wrong with its cell."""

    mask: pl.Series
    column: str | None
    fault: str
    shows_cell: bool = True


@dataclass
class _Rows:
    """A source's rows on their way: the columns made so far, and the checks in the order of their importance."""

    raw: pl.DataFrame
    schema: Schema
    number: pl.Series  # the rows' numbers in the source
    made: dict[str, pl.Series] = field(default_factory=dict)
    checks: list[_Check] = field(default_factory=list)

    def reject(self, mask: pl.Series, column: str | None, fault: str, shows_cell: bool = True) -> None:
        """Add a check, unless it holds nowhere."""
        if mask.any():
            self.checks.append(_Check(mask.fill_null(False), column, fault, shows_cell))

    def full(self, value: str | None) -> pl.Series:
        """A String column of one value."""
        return pl.repeat(value, len(self.raw), dtype=pl.String, eager=True)


def map_rows(raw: pl.DataFrame, schema: Schema, first_row: int | pl.Series = 1, now: datetime | None = None) -> Mapped:
    """Map a source's rows to events.

    Parameters
    ----------
    raw
        The source's columns as they were read: text from csv, native types from Parquet, JSON lines or SQL.
    schema
        Which column means what.
    first_row
        The number of `raw`'s first row in its source; the first data row is 1. Or every row's number (Int64), where
        some rows between were lost.
    now
        Times more than a day after it are rejected; by default the clock's.

    Returns
    -------
    Mapped
        Events and rejected rows. A row that fails several checks is listed once, with the first of: user, time, event,
        item, value, order, fields, event_id, alias.

    Raises
    ------
    SchemaError
        A column is missing, or a column's type cannot be what the schema says that it is.

    Examples
    --------
    >>> from desireline.schema.model import parse
    >>> raw = {"user": "who", "time": {"column": "at"}, "event": {"constant": "buy"}, "types": {"buy": {}}}
    >>> schema = parse(raw, "an example")
    >>> mapped = map_rows(pl.DataFrame({"who": ["007", " "], "at": ["2011-12-01 08:26", "2011-12-01"]}), schema, 1)
    >>> mapped.events["user"].to_list(), mapped.rejected["row"].to_list()
    (['007'], [2])
    """
    missing = [name for name in schema.source_columns() if name not in raw.columns]
    if missing:
        raise missing_columns(missing, raw.columns, WHERE)
    if not isinstance(first_row, pl.Series):
        first_row = pl.int_range(first_row, first_row + len(raw), dtype=pl.Int64, eager=True)
    rows = _Rows(raw, schema, first_row)
    _user(rows)
    _time(rows, now or datetime.now(UTC))
    _event(rows)
    _item(rows)
    _value(rows)
    _order(rows)
    for name, spec in schema.fields.items():
        rows.made[name] = _field(rows, name, spec)
    _identity(rows)
    return _parted(rows)


def text_of(column: pl.Series, where: str) -> pl.Series:
    """A column of ids or categories as text: untouched where it is text, whole floats without a point, blank is null.

    Raises SchemaError, beginning with `where`, for a column of lists, structures or bytes.
    """
    dtype = column.dtype
    if dtype == pl.String:
        return column.to_frame("t").select(pl.when(pl.col("t").str.strip_chars() != "").then("t").alias("t"))["t"]
    if dtype in (pl.Categorical, pl.Enum):
        return text_of(column.cast(pl.String), where)
    if dtype.is_float() or dtype.is_decimal():
        return column.cast(pl.Float64).to_frame("t").select(float_text(pl.col("t")).alias("t"))["t"]
    if dtype.is_integer() or dtype.is_temporal() or dtype in (pl.Boolean, pl.Null):
        return column.cast(pl.String)
    raise SchemaError(f'{where}: the column "{column.name}" holds {dtype}, which is no single value; name another one.')


def _identifier(rows: _Rows, key: str, column: str) -> pl.Series:
    source = rows.raw[column]
    text = text_of(source, f"{WHERE}, {key}")
    if source.dtype == pl.String and (text.str.len_bytes() > MAX_ID).any():  # counting characters costs more
        rows.reject(
            text.str.len_chars() > MAX_ID, column, f" has more than {MAX_ID} characters and is no id; correct it"
        )
    if source.dtype == pl.String:
        rows.reject(text.str.contains("\0", literal=True), column, " holds a NUL byte; take it out of the file")
    return text


def _user(rows: _Rows) -> None:
    column = rows.schema.user
    if column is None:
        rows.made["user"] = "row-" + rows.number.cast(pl.String)
        return
    user = _identifier(rows, "user", column)
    rows.made["user"] = user
    rows.reject(user.is_null(), column, "no user; fill the cell, or declare user: null if every row is its own", False)


def _time(rows: _Rows, now: datetime) -> None:
    spec = rows.schema.time
    if spec.column is None:
        spec, cells = spec.model_copy(update={"format": "position"}), rows.number
    else:
        cells = rows.raw[spec.column]
    moments = read_times(cells, spec)
    time = rows.made["time"] = moments.time
    empty = cells.is_null()
    if cells.dtype == pl.String:
        empty |= cells.str.strip_chars() == ""
    rows.reject(empty, spec.column, "no time; fill the cell", False)
    rows.reject(
        moments.skipped,
        spec.column,
        f" does not exist in {spec.zone}, where the clock went forward; correct it or declare time.zone in {WHERE}",
    )
    rows.reject(
        moments.outside, spec.column, f" lies beyond every calendar; declare time.format ({spec.format}) in {WHERE}"
    )
    what = "number" if spec.format in EPOCH_US or spec.format == "position" else "date"
    unread = time.is_null() & ~empty & ~moments.skipped & ~moments.outside
    rows.reject(unread, spec.column, f" is no {what}; declare time.format in {WHERE}")
    if spec.format != "position":
        latest = (now if now.tzinfo else now.replace(tzinfo=UTC)) + timedelta(days=1)
        remedy = f"correct it or declare time.format in {WHERE}"
        rows.reject(time < FIRST, spec.column, f" lies before 1971, as a time that was never set; {remedy}")
        rows.reject(time > latest, spec.column, f" lies in the future (now is {now:%Y-%m-%d}); {remedy}")


def _event(rows: _Rows) -> None:
    spec, schema = rows.schema.event, rows.schema
    if spec.column is not None:
        event = text_of(rows.raw[spec.column], f"{WHERE}, event.column").str.strip_chars()
        rows.reject(event.is_null(), spec.column, "no event type; fill the cell", False)
    elif spec.constant is not None:
        event = rows.full(spec.constant)
    else:
        chosen = pl.lit(None, pl.String)
        for position, rule in reversed(list(enumerate(spec.rules))):
            holds = compile_condition(rule.when, rows.raw.schema, f"{WHERE}, event.rules.{position}")
            chosen = pl.when(holds).then(pl.lit(rule.type)).otherwise(chosen)
        event = rows.raw.with_columns(chosen.alias("event"))["event"]
        rows.reject(event.is_null(), None, f"no rule of event.rules holds; add one in {WHERE}", False)
    rows.made["event"] = event
    known = [*schema.types, *([schema.alias.event] if schema.alias else [])]
    if schema.unknown_types == "quarantine":
        unknown = ~event.is_in(known)
        fault = f" is not in types; add it in {WHERE}, or declare unknown_types: keep"
        if spec.column is not None:
            rows.reject(unknown, spec.column, fault)
        else:
            for name in sorted(set(event.filter(unknown.fill_null(False)).unique())):
                rows.reject(event == name, None, f'the event type "{name}"{fault}', False)


def _item(rows: _Rows) -> None:
    column = rows.schema.item
    rows.made["item"] = rows.full(None) if column is None else _identifier(rows, "item", column)


def _value(rows: _Rows) -> None:
    text = rows.schema.value
    if text is None:
        rows.made["value"] = pl.repeat(None, len(rows.raw), dtype=pl.Float64, eager=True)
    else:
        rows.made["value"] = _number(rows, compile_number(text, rows.raw.schema, f"{WHERE}, value"), "value")


def _number(rows: _Rows, compiled: Compiled, key: str) -> pl.Series:
    for column in sorted(compiled.numeric_text):
        cell = pl.col(column).cast(pl.String).str.strip_chars()
        unread = (cell != "") & cell.cast(pl.Float64, strict=False).is_null()
        mask = rows.raw.select(unread.alias("unread"))["unread"]
        rows.reject(mask, column, f" is no number; correct it or change {key} in {WHERE}")
    return rows.raw.with_columns(compiled.expression.alias("value"))[
        "value"
    ]  # with_columns gives a constant its height


def _order(rows: _Rows) -> None:
    schema = rows.schema
    if schema.tie_break == "event":
        ranks = {name: rank for rank, name in enumerate(schema.types)}
        event = rows.made["event"]
        rows.made["order"] = event.replace_strict(ranks, default=len(ranks), return_dtype=pl.Int64)
    elif schema.tie_break == "row":
        rows.made["order"] = rows.number
    else:
        column = rows.raw[schema.tie_break]
        if not (column.dtype.is_numeric() or column.dtype in (pl.String, pl.Null)):
            raise SchemaError(
                f'{WHERE}, tie_break: the column "{column.name}" holds {column.dtype}, which is no number.'
            )
        if column.dtype == pl.String:
            column = column.str.strip_chars()
        order = column.cast(pl.Int64, strict=False)
        if not column.dtype.is_integer() and order.null_count() > column.null_count():
            order = column.cast(pl.Float64, strict=False).fill_nan(None).cast(pl.Int64, strict=False)
        rows.made["order"] = order
        rows.reject(
            order.is_null(), schema.tie_break, f" is no number, and orders equal times; change tie_break in {WHERE}"
        )


def _field(rows: _Rows, name: str, spec: FieldSpec) -> pl.Series:
    column, key = rows.raw[spec.column], f"fields.{name}"
    if spec.kind not in ("number", "duration"):
        return text_of(column, f"{WHERE}, {key}")
    if isinstance(column.dtype, pl.Duration):
        return column.dt.total_microseconds().cast(pl.Float64) / 1e6  # a duration is in seconds everywhere
    return _number(rows, number_column(spec.column, rows.raw.schema, f"{WHERE}, {key}"), key)


def _identity(rows: _Rows) -> None:
    schema = rows.schema
    if schema.event_id is None:
        rows.made["declared_id"] = rows.full(None)
    else:
        declared = rows.made["declared_id"] = _identifier(rows, "event_id", schema.event_id)
        remedy = f"fill it, or declare event_id: null in {WHERE} if an event's content identifies it"
        rows.reject(declared.is_null(), schema.event_id, f"no event id; {remedy}", False)
    if schema.alias is not None:
        merges = rows.made["event"] == schema.alias.event
        alias = _identifier(rows, "alias.column", schema.alias.column)
        alias = alias.to_frame("a").with_columns(m=merges).select(pl.when("m").then("a").alias("a"))["a"]
        rows.made["alias"] = alias
        rows.reject(merges & alias.is_null(), schema.alias.column, "no id to merge into the user; fill the cell", False)


def _parted(rows: _Rows) -> Mapped:
    names = ["user", "time", "event", "item", "value", "order", *rows.schema.fields]
    names += ["alias", "declared_id"] if rows.schema.alias else ["declared_id"]
    events = pl.DataFrame({**{name: rows.made[name] for name in names}, "row": rows.number})
    if not rows.checks:
        return Mapped(events, _listing([]))
    masks = pl.DataFrame({str(k): check.mask for k, check in enumerate(rows.checks)})
    first = masks.select(pl.coalesce(pl.when(str(k)).then(k) for k in range(len(rows.checks))).alias("first"))["first"]
    lost = [
        _rejected(rows, check, (first == k).fill_null(False))
        for k, check in enumerate(rows.checks)
        if (first == k).any()
    ]
    return Mapped(events.filter(first.is_null()), _listing(lost))


def _rejected(rows: _Rows, check: _Check, mask: pl.Series) -> pl.DataFrame:
    raw, number = rows.raw.filter(mask), rows.number.filter(mask)
    cell = pl.repeat(None, len(raw), dtype=pl.String, eager=True)
    if check.column is not None:
        cell = _printable(raw.get_column(check.column))
    place = pl.lit("") if check.column is None else pl.lit(f', column "{check.column}"')
    shown = pl.concat_str(pl.lit('"'), pl.col("value").fill_null("").str.slice(0, 80), pl.lit('"'))
    fault = pl.concat_str(shown if check.shows_cell else pl.lit(""), pl.lit(check.fault))
    frame = pl.DataFrame({"row": number, "value": cell, "raw": _as_json(raw)})
    return frame.select(
        "row",
        pl.lit(check.column, pl.String).alias("column"),
        "value",
        pl.concat_str(pl.lit("row "), pl.col("row").cast(pl.String), place, pl.lit(": "), fault).alias("reason"),
        "raw",
    )


def _listing(lost: Sequence[pl.DataFrame]) -> pl.DataFrame:
    empty = pl.DataFrame(
        schema={"row": pl.Int64, "column": pl.String, "value": pl.String, "reason": pl.String, "raw": pl.String}
    )
    return pl.concat([empty, *lost]).sort("row")


def _printable(column: pl.Series) -> pl.Series:
    if column.dtype == pl.Binary:
        return column.bin.encode("base64")
    if column.dtype.is_nested() or column.dtype == pl.Object:
        return pl.repeat(None, len(column), dtype=pl.String, eager=True)
    return column.cast(pl.String)


def _as_json(raw: pl.DataFrame) -> pl.Series:
    # The JSON writer knows no bytes; inside lists and structures they are left out, elsewhere they are base64.
    safe = [_printable(c) if c.dtype == pl.Binary or "Binary" in str(c.dtype) else c for c in raw.get_columns()]
    frame = pl.DataFrame({c.name: s for c, s in zip(raw.get_columns(), safe, strict=True)})
    return frame.select(pl.struct(pl.all()).struct.json_encode().alias("raw"))["raw"]
