"""A source's times, however they are written, as moments in UTC.

A column that already holds moments is taken as it is. Text is parsed column-wise: one guess at the common shape reads
almost all of it at 0.1 to 0.3 s per two million rows, and only what that leaves unread goes through the general pattern
(three times as slow). Local times go through the time zone's rules: a moment that stands twice on the clock in autumn
is the earlier one, a moment that the clock skips in spring does not exist.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

import polars as pl

from desireline.core.errors import SchemaError
from desireline.schema.model import TimeSpec

MOMENT = pl.Datetime("us", "UTC")
NAIVE = pl.Datetime("us")
EPOCH_US = {"epoch_s": 1_000_000, "epoch_ms": 1_000, "epoch_us": 1}  # microseconds in one unit
WORDS = ("auto", "iso", "position", *EPOCH_US)
FIRST_S, LAST_S = -62_135_596_800, 253_402_300_799  # the years 1 to 9999: what a calendar can hold

_OFFSET = r"(?:[Zz]|UTC|[+-]\d{2}(?::?\d{2})?)"
_ISO = (
    r"^\s*(\d{4}-\d{2}-\d{2})"  # date
    r"(?:[T ](\d{2}:\d{2})(?::(\d{2}(?:[.,]\d{1,9})?)\d*)?)?"  # hour and minute, seconds
    rf"\s*({_OFFSET})?\s*$"
)
_PROBE = datetime(2011, 11, 23, 14, 25, 36, tzinfo=UTC)  # no two of its parts can be taken for each other


@dataclass(frozen=True)
class Moments:
    """The moments of a column's rows (Datetime us UTC); where one is null, two masks (Boolean, no nulls) say why."""

    time: pl.Series
    skipped: pl.Series  # a local time that the clock leaves out
    outside: pl.Series  # a number beyond every calendar


def read_times(column: pl.Series, spec: TimeSpec) -> Moments:
    """Read a column of times.

    Parameters
    ----------
    column
        The source's column, of any type.
    spec
        How it is written. A column of dates or datetimes needs no format; whole numbers need one.

    Returns
    -------
    Moments
        Where a time is null and neither mask holds, the cell is empty or could not be read.

    Raises
    ------
    SchemaError
        The format does not go with the column's type, the pattern cannot work, or the zone is unknown.
    """
    dtype = column.dtype
    if dtype in (pl.Categorical, pl.Enum):
        column, dtype = column.cast(pl.String), pl.String()
    if dtype == pl.Null:
        column, dtype = column.cast(pl.String), pl.String()
    check_zone(spec.zone)
    if dtype == pl.Date or isinstance(dtype, pl.Datetime):
        if spec.format == "position":
            raise SchemaError(_place(spec) + "is declared as a position, but the column holds times; use format: auto.")
        return _native(column, spec.zone)
    if not (dtype.is_numeric() or dtype == pl.String):
        raise SchemaError(_place(spec) + f"holds {dtype}, which is no time; name another column.")
    if spec.format in EPOCH_US:
        return _counted(column, EPOCH_US[spec.format])
    if spec.format == "position":
        return _counted(column, EPOCH_US["epoch_s"])
    if spec.format in ("auto", "iso"):
        if dtype != pl.String:
            raise SchemaError(
                _place(spec) + "holds numbers, which may mean many things; declare time.format in desireline.yaml: "
                "epoch_s, epoch_ms, epoch_us, position (order only) or a pattern as %Y%m%d."
            )
        return _iso(column, spec.zone)
    pattern = check_pattern(spec)
    if dtype.is_float():
        column = column.cast(pl.Int64, strict=False)
    return _pattern(column.cast(pl.String), pattern, spec.zone)


def check_zone(zone: str) -> None:
    """Raise SchemaError when a time zone is unknown."""
    try:
        pl.Series([datetime(2011, 1, 1)]).dt.replace_time_zone(zone)
    except pl.exceptions.PolarsError as error:
        raise SchemaError(f'time.zone: "{zone}" is no time zone; write an IANA name as Europe/London.') from error


def check_pattern(spec: TimeSpec) -> str:
    """The strptime pattern in the dialect of Polars. Raises SchemaError when it cannot read back what it writes."""
    pattern = spec.format.strip().replace("%S.%f", "%S%.f")
    if "%f" in pattern or "%Z" in pattern:
        raise SchemaError(
            f"time.format: {spec.format!r} has %f or %Z, which are not read; write fractions of a second as %.f, "
            "an offset as %z, and a zone's name as time.zone."
        )
    try:
        written = pl.Series([_PROBE]).cast(MOMENT).dt.strftime(pattern)
        read = _strptime(written, pattern)[0]
    except pl.exceptions.PolarsError as error:
        raise SchemaError(f"time.format: {spec.format!r} is no pattern ({str(error).splitlines()[0]}).") from error
    if read is None or (read.year, read.month) != (_PROBE.year, _PROBE.month):
        raise SchemaError(
            f"time.format: {spec.format!r} names no day of a year; write iso, epoch_s, epoch_ms, epoch_us, position, "
            "or a pattern as %d/%m/%Y %H:%M."
        )
    return pattern


def _place(spec: TimeSpec) -> str:
    return f'time: the column "{spec.column}" (format: {spec.format}) '


def _none(column: pl.Series) -> pl.Series:
    return pl.repeat(False, len(column), dtype=pl.Boolean, eager=True)


def _native(column: pl.Series, zone: str) -> Moments:
    if isinstance(column.dtype, pl.Datetime) and column.dtype.time_zone:
        return Moments(column.dt.convert_time_zone("UTC").cast(MOMENT), _none(column), _none(column))
    return _localised(column.cast(NAIVE), zone, column.dtype == pl.Date)


def _localised(naive: pl.Series, zone: str, whole_days: bool | pl.Series) -> Moments:
    """Moments of local times; a day without a midnight (the clock skips it) begins at its first hour."""
    if zone == "UTC":
        return Moments(naive.dt.replace_time_zone("UTC"), _none(naive), _none(naive))

    def local(times: pl.Series) -> pl.Series:
        return times.dt.replace_time_zone(zone, ambiguous="earliest", non_existent="null").dt.convert_time_zone("UTC")

    time = local(naive)
    skipped = time.is_null() & naive.is_not_null()
    days = skipped & whole_days
    if days.any():
        time = _where(days, local(naive.dt.offset_by("1h")), time)
        skipped = time.is_null() & naive.is_not_null()
    return Moments(time, skipped, _none(naive))


def _counted(column: pl.Series, unit_us: int) -> Moments:
    first, last = FIRST_S * 1_000_000 // unit_us, LAST_S * 1_000_000 // unit_us
    if column.dtype == pl.String:
        text = column.str.strip_chars()
        column = text.cast(pl.Int64, strict=False)
        if column.null_count() > text.null_count():
            decimal = text.cast(pl.Float64, strict=False)
            if decimal.null_count() < column.null_count():
                column = decimal
    if not column.dtype.is_integer():
        column = column.cast(pl.Float64).fill_nan(None)
    outside = ((column < first) | (column > last)).fill_null(False)
    inside = _where(outside, None, column)
    micros = inside.cast(pl.Int64) * unit_us if inside.dtype.is_integer() else (inside * unit_us).round().cast(pl.Int64)
    return Moments(micros.cast(NAIVE).dt.replace_time_zone("UTC"), _none(column), outside)


def _strptime(text: pl.Series, pattern: str) -> pl.Series:
    return text.str.to_datetime(pattern, time_unit="us", strict=False)


def _pattern(text: pl.Series, pattern: str, zone: str) -> Moments:
    parsed = _strptime(text.str.strip_chars(), pattern)
    if parsed.dtype == NAIVE:
        return _localised(parsed, zone, not re.search(r"%[HIklTRrXcsp+]", pattern))
    return Moments(parsed.dt.convert_time_zone("UTC"), _none(text), _none(text))


def _iso(text: pl.Series, zone: str) -> Moments:
    first_row = text.is_not_null().arg_max()
    shape, read = _common_shape(text[first_row] if first_row is not None and len(text) else None)
    whole_days: bool | pl.Series = shape == "%Y-%m-%d"
    parsed = read(text)
    moments = (
        _localised(parsed, zone, whole_days)
        if parsed.dtype == NAIVE
        else Moments(parsed.dt.convert_time_zone("UTC"), _none(text), _none(text))
    )
    unread = moments.time.is_null() & ~moments.skipped & text.is_not_null()
    if not unread.any():
        return moments
    rest = _iso_general(text.filter(unread), zone)
    rows = unread.arg_true()
    return Moments(moments.time.scatter(rows, rest.time), moments.skipped.scatter(rows, rest.skipped), moments.outside)


def _common_shape(text: str | None) -> tuple[str, Callable[[pl.Series], pl.Series]]:
    """The pattern that the first value has, and how a column of that shape is read quickly."""
    text = (text or "").strip()
    if re.search(r"\d[T ].*(?:[Zz]|[+-]\d{2}:?\d{2})$", text):
        shape = "%+"
    elif len(text) <= 10:
        shape = "%Y-%m-%d"
    else:
        seconds = "" if len(text) <= 16 else ":%S%.f" if "." in text else ":%S"
        shape = f"%Y-%m-%d{'T' if text[10] == 'T' else ' '}%H:%M{seconds}"
    return shape, lambda column: _strptime(column, shape)


def _iso_general(text: pl.Series, zone: str) -> Moments:
    parts = text.str.extract_groups(_ISO).struct.unnest()
    day, minute, second, offset = (parts[:, k] for k in range(4))
    clock = minute.fill_null("00:00") + ":" + second.str.replace(",", ".", literal=True).fill_null("00")
    naive = _strptime(day + "T" + clock, "%Y-%m-%dT%H:%M:%S%.f")
    moments = _localised(naive, zone, minute.is_null())
    if offset.null_count() == len(offset):
        return moments
    digits = offset.str.replace(":", "", literal=True)
    hours = digits.str.slice(1, 2).cast(pl.Int64, strict=False)
    minutes = digits.str.slice(3, 2).cast(pl.Int64, strict=False).fill_null(0)
    sign = digits.str.starts_with("-").cast(pl.Int64) * -2 + 1
    # "Z" and "UTC" have no digits at these places: no hours, an offset of nothing.
    shift = (sign * (hours.fill_null(0) * 60 + minutes) * 60_000_000).cast(pl.Duration("us"))
    possible = (hours.fill_null(0) < 24) & (minutes < 60)
    given = (naive - shift).dt.replace_time_zone("UTC")
    time = _where(offset.is_null(), moments.time, _where(possible, given, None))
    return Moments(time, moments.skipped & offset.is_null(), moments.outside)


def _where(mask: pl.Series, this: pl.Series | None, other: pl.Series | None) -> pl.Series:
    """`this` where the mask holds, else `other`; None is null; a null in the mask counts as false."""
    values = {
        "mask": mask,
        **({"this": this} if this is not None else {}),
        **({"other": other} if other is not None else {}),
    }
    frame = pl.DataFrame(values)
    first = pl.lit(None) if this is None else pl.col("this")
    second = pl.lit(None) if other is None else pl.col("other")
    return frame.select(v=pl.when("mask").then(first).otherwise(second))["v"]
