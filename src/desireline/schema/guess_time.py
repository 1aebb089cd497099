"""Guess which column is the time and how it is written; a column that only counts a user's events orders them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

import polars as pl

from desireline.core.errors import SchemaError
from desireline.schema.model import TimeSpec
from desireline.schema.names import plain, words
from desireline.schema.sample import ENOUGH, Column, Sample
from desireline.schema.times import EPOCH_US, read_times

MOST_TRIED = 5_000  # cells that every pattern is tried on
TIME_WORDS = {"time", "timestamp", "date", "datetime", "at", "ts"}

# Day-first and month-first with each separator; the two of one line are told apart by days above the twelfth only.
_TWINS = [(f"%d{sign}%m{sign}{year}", f"%m{sign}%d{sign}{year}") for sign in ("/", ".", "-") for year in ("%Y", "%y")]
_DATES = ["%Y/%m/%d", "%Y.%m.%d", "%Y%m%d", "%Y年%m月%d日", "%d %b %Y", "%d-%b-%Y", "%d-%b-%y", "%d %B %Y", "%b %d, %Y"]
_DATES += ["%B %d, %Y", *(pattern for twins in _TWINS for pattern in twins)]
_CLOCKS = ["", "%H:%M", "%H:%M:%S", "%H:%M:%S%.f", "%I:%M %p", "%I:%M:%S %p", "%H:%M:%S %z", "%H:%M:%S%z"]
_WHOLE = ["%a %b %d %H:%M:%S %Y", "%Y%m%d%H%M%S", "%Y%m%dT%H%M%S", "%d/%b/%Y:%H:%M:%S %z", "%Y年%m月%d日%H:%M:%S"]


@dataclass(frozen=True)
class _Format:
    """How one column could be read: the format, the share of cells that it reads, and what to say."""

    column: Column
    format: str
    share: float
    text: str
    ambiguous: bool = False

    @property
    def is_position(self) -> bool:
        return self.format == "position"


def guess_time(view: Sample) -> tuple[TimeSpec, str]:
    """The time's column and format, and the schema's `tie_break`; says what was guessed in the sample's notes."""
    formats = [found for column in _candidates(view) if (found := _format_of(column)) is not None]
    times = [f for f in formats if not f.is_position]
    positions = [f for f in formats if f.is_position]
    positions += [f for c in view.named("position") if (f := _position(c)) is not None]
    if not (times or positions):
        view.note("time.column", "no column looks like a time: the order of the file's rows counts", True)
        return TimeSpec(), "event"
    chosen = (times or positions)[0]
    view.take(chosen.column)
    spec = TimeSpec(column=chosen.column.name, format=chosen.format)
    others = [f.column.name for f in times if f is not chosen]
    view.note(
        "time.column",
        "by its name" + (f"; {', '.join(others)} could be the time as well" if others else ""),
        bool(others),
    )
    view.note("time.format", chosen.text, chosen.ambiguous)
    view.leave_out((f.column for f in times if f is not chosen), "a further time")
    _note_faults(view, chosen, spec)
    for clock in [
        c for c in view.named("time") if c.is_string and c.values.drop_nulls().str.contains(r"^\d{1,2}:\d{2}").all()
    ]:
        view.take(clock)
        view.note(
            "time.column", f"{clock.name} holds the hour alone and was left out; put day and hour in one column", True
        )
    if chosen.is_position or not positions:
        return spec, "event"
    ties = positions[0].column.name
    # It keeps its place among the fields: where on the page something stood says more than the order of equal times.
    view.note("tie_break", f"{ties} looks like a position; it orders events with equal times, and is a field too", True)
    return spec, ties


def _candidates(view: Sample) -> list[Column]:
    named = view.named("time")
    ending = [c for c in view.free if c not in named and set(words(c.name)[-1:]) & TIME_WORDS]
    ending += [
        c for c in view.free if c not in named and plain(c.name).endswith(("时间", "日期", "timestamp", "datetime"))
    ]
    native = [c for c in view.free if c.values.dtype == pl.Date or isinstance(c.values.dtype, pl.Datetime)]
    return list({c.name: c for c in [*named, *ending, *native] if c.filled}.values())


def _format_of(column: Column) -> _Format | None:
    dtype = column.values.dtype
    if dtype == pl.Date or isinstance(dtype, pl.Datetime):
        zoned = isinstance(dtype, pl.Datetime) and dtype.time_zone is not None
        return _Format(
            column, "auto", 1.0, "the column's own type" + ("" if zoned else "; without a zone, so time.zone counts")
        )
    if column.numbers is not None and not column.leads_with_zero:
        return _counted(column, column.numbers)
    return _written(column) if column.is_string else None


def _counted(column: Column, numbers: pl.Series) -> _Format | None:
    """Numbers by their size: the units of an epoch are a thousand apart, and so are the years that they would give."""
    middle = numbers.median()
    if not isinstance(middle, (int, float)):
        return None
    for pattern, low, high in (("%Y%m%d", 19_000_101, 21_001_231), ("%Y%m%d%H%M%S", 19e12, 21.01e12)):
        if column.is_whole and low <= middle <= high:
            cells = column.values.drop_nulls().head(MOST_TRIED)
            share = _share(cells, pattern)
            if share >= ENOUGH:
                return _Format(column, pattern, share, f"digits of a date, as {cells[0]}")
    for name, low, high in (("epoch_s", 1e8, 5e9), ("epoch_ms", 1e11, 5e12), ("epoch_us", 1e14, 5e15)):
        if low <= middle < high:
            moment = datetime.fromtimestamp(middle * EPOCH_US[name] / 1e6, UTC)
            unit = {"epoch_s": "seconds", "epoch_ms": "milliseconds", "epoch_us": "microseconds"}[name]
            text = f"by the numbers' size, {unit} since 1970: the middle one, {middle:.0f}, is {moment:%Y-%m-%d %H:%M}"
            return _Format(column, name, 1.0, text)
    position = _position(column)
    if position is None:
        return None
    text = "small numbers, in no unit that is known: they order events and say nothing of the time between them"
    return _Format(column, "position", 1.0, text, True)


def _position(column: Column) -> _Format | None:
    numbers = column.numbers
    if numbers is None or not column.is_whole or not 0 <= float(numbers.min() or 0) <= float(numbers.max() or 0) < 1e8:  # type: ignore[arg-type]
        return None
    return _Format(column, "position", 1.0, "a position: order only, nothing is known of the time between events")


def _written(column: Column) -> _Format | None:
    cells = column.values.drop_nulls()
    cells = cells.gather_every(max(1, len(cells) // MOST_TRIED)).head(MOST_TRIED)
    shares = {pattern: _share(cells, pattern) for pattern in ["iso"] if _share(cells, pattern) >= 0.5}
    if not shares:
        shares = {p: share for p in _patterns(cells) if (share := _share(cells, p)) >= 0.5}
    if not shares:
        return None
    best = max(shares, key=lambda pattern: shares[pattern])
    twin = _twin(best)
    if twin not in shares or shares[twin] < shares[best]:
        return _Format(column, best, shares[best], f"as {cells[0]}" + (_proof(best, twin) if twin else ""))
    chosen = _smoother(cells, best, twin)
    first = "day" if chosen.startswith("%d") else "month"
    text = f"every sample fits day-first and month-first alike; {first}-first was taken. The other is {_twin(chosen)}"
    return _Format(column, chosen, shares[best], text, True)


def _patterns(cells: pl.Series) -> Iterator[str]:
    """The patterns that the first cells do not rule out: a few instead of all, tried on a handful first."""
    few = cells.head(20)
    for pattern in _WHOLE + [f"{date} {clock}".strip() for date in _DATES for clock in _CLOCKS]:
        if _share(few, pattern) >= 0.25:
            yield pattern


def _share(cells: pl.Series, pattern: str) -> float:
    try:
        moments = read_times(cells, TimeSpec(column=cells.name, format=pattern))
    except SchemaError:  # the pattern does not go with the column, so it reads nothing of it
        return 0.0
    years = moments.time.dt.year()
    return float(((years >= 1900) & (years <= 2100)).sum()) / max(len(cells), 1)


def _twin(pattern: str) -> str | None:
    """The same pattern with day and month exchanged, when it begins with them."""
    if pattern[:2] not in ("%d", "%m") or pattern[3:5] not in ("%d", "%m"):
        return None
    return pattern[3:5] + pattern[2] + pattern[:2] + pattern[5:]


def _proof(best: str, twin: str) -> str:
    return f"; {'day' if best.startswith('%d') else 'month'}-first, since not all of the sample fits {twin}"


def _smoother(cells: pl.Series, one: str, other: str) -> str:
    """Of two patterns that both fit, the one that leaves the file nearer to being in order; else the sign decides."""

    def disorder(pattern: str) -> int:
        return int((read_times(cells, TimeSpec(format=pattern)).time.diff().dt.total_days().drop_nulls() < 0).sum())

    if disorder(one) != disorder(other):
        return min((one, other), key=disorder)
    wanted = "%m" if one[2] == "/" else "%d"  # a slash is American more often than not, a dot never
    return one if one.startswith(wanted) else other


def _note_faults(view: Sample, chosen: _Format, spec: TimeSpec) -> None:
    """Say how many cells the format leaves unread, and how many lie in the past or future beyond belief."""
    cells = chosen.column.values
    moments = read_times(cells, spec)
    unread = int((moments.time.is_null()).sum())
    if unread:
        view.note("time.format", f"{unread} of the sample's {len(cells)} rows have no time that can be read so", True)
    if chosen.is_position:
        return
    years = moments.time.dt.year().drop_nulls()
    odd = int(((years < 1971) | (years > 2037)).sum())
    if odd:
        view.note("time.format", f"{odd} of the sample's {len(cells)} rows lie before 1971 or after 2037", True)
    if not (isinstance(cells.dtype, pl.Datetime) and cells.dtype.time_zone) and chosen.format not in EPOCH_US:
        zoned = cells.dtype == pl.String and bool(
            cells.drop_nulls().head(1000).str.contains(r"\d(?: ?Z| ?UTC|[+-]\d{2}:?\d{2})$").all()
        )
        text = (
            "the times carry their own"
            if zoned
            else "the times carry none; UTC was taken, write the place's, as Europe/London"
        )
        view.note("time.zone", text)
