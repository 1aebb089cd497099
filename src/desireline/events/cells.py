"""Splitting a block of a csv file into cells: fast where its structure is plain, exact where it is not.

The fast way counts delimiters, quotes and line ends with NumPy (about 10 passes over the bytes), sets bad rows aside,
and lets Polars read the rest. Where a quote stands where none should, or a byte that is no text, the exact way takes
that block row by row with Python's csv module. Both give the same cells.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import polars as pl
from numpy.typing import NDArray

LONGEST_FIELD = 1 << 20  # bytes; a longer one is a quote that is not closed, or no event log
LONGEST_RECORD = 1 << 22  # bytes over which a quoted cell may run on from line to line
SHOWN = 2000  # characters kept of a rejected row
QUOTE, NEWLINE, RETURN = ord('"'), ord("\n"), ord("\r")
NO_TEXT = "the row holds bytes that are no text"
HAS_NUL = "the row holds a NUL byte; take it out of the file"
NOT_CLOSED = "a quote is not closed, or stands inside a cell; double it, or take it out"


@dataclass(frozen=True)
class Layout:
    """A file's columns and what stands between them."""

    names: list[str]
    delimiter: str


@dataclass
class Split:
    """What became of a block.

    frame   : the good rows, all columns String
    places  : int64, which record of the block each of them is, from 0
    bad     : (record, line, reason, raw) of the others
    records : how many records and lines the block held
    rest    : its end that the next block's beginning completes
    """

    frame: pl.DataFrame
    places: NDArray[np.int64]
    bad: list[tuple[int, int, str, str]] = field(default_factory=list)
    records: int = 0
    lines: int = 0
    rest: bytes = b""


def split(block: bytes, layout: Layout, wanted: Sequence[str], at_end: bool) -> Split:
    """Split a block that begins with a record into the cells of the `wanted` columns."""
    return _fast(block, layout, wanted, at_end) or _exact(block, layout, wanted, at_end)


def _fast(block: bytes, layout: Layout, wanted: Sequence[str], at_end: bool) -> Split | None:
    """The block as Polars splits it; None where its structure is not plain."""
    if b"\0" in block or block.count(b"\r") != block.count(b"\r\n") or not _is_text(block):
        return None
    if at_end and not block.endswith(b"\n"):
        block += b"\n"
    held = np.frombuffer(block, np.uint8)
    ends = np.flatnonzero(held == NEWLINE)
    marks = np.flatnonzero(held == ord(layout.delimiter))
    line_ends = ends
    quotes = np.flatnonzero(held == QUOTE) if QUOTE in block else np.empty(0, np.int64)
    if len(quotes):
        if not _are_plain(held, quotes, ord(layout.delimiter)) or (at_end and len(quotes) % 2):
            return None
        ends = ends[np.searchsorted(quotes, ends) % 2 == 0]  # a line end inside quotes ends no record
        marks = marks[np.searchsorted(quotes, marks) % 2 == 0]
    last = int(ends[-1]) + 1 if len(ends) else 0
    if len(block) - last > LONGEST_RECORD:
        return None
    begins = np.concatenate([np.zeros(min(len(ends), 1), np.int64), ends[:-1] + 1])
    lengths = ends - begins
    blank = (lengths == 0) | ((lengths == 1) & (held[begins] == RETURN)) if len(ends) else np.empty(0, bool)
    cells = np.diff(np.searchsorted(marks, ends), prepend=0) + 1
    good = (cells == len(layout.names)) & ~blank
    too_long = [
        int(k) for k in np.flatnonzero(good & (lengths > LONGEST_FIELD)) if _has_long(marks, begins[k], ends[k])
    ]
    good[too_long] = False
    wrong = np.flatnonzero(~good & ~blank)
    if (np.searchsorted(line_ends, ends[wrong]) != np.searchsorted(line_ends, begins[wrong])).any():
        return None  # a bad row of several lines may be several rows, of which some are good
    place = np.cumsum(~blank) - 1
    bad = []
    for k in wrong:
        reason = _too_long(int(lengths[k])) if k in too_long else _wrong_count(int(cells[k]), len(layout.names))
        line = int(np.searchsorted(line_ends, begins[k]))
        bad.append((int(place[k]), line, reason, _raw(block[begins[k] : ends[k]])))
    body = block[:last] if good.all() else held[:last][np.repeat(good, lengths + 1)].tobytes()
    frame = _read(body, layout, wanted, bool(len(quotes)))
    if frame is None or frame.height != int(good.sum()):
        return None
    lines = int(np.searchsorted(line_ends, last))
    return Split(frame, place[good], bad, int((~blank).sum()), lines, block[last:])


def _are_plain(held: NDArray[np.uint8], quotes: NDArray[np.int64], delimiter: int) -> bool:
    """Whether every quote opens or closes a cell, or is doubled inside one."""
    opening, closing = quotes[0::2], quotes[1::2]
    before = held[opening[opening > 0] - 1]
    after = held[closing[closing + 1 < len(held)] + 1]
    return bool(
        np.isin(before, (delimiter, NEWLINE, QUOTE)).all() and np.isin(after, (delimiter, NEWLINE, RETURN, QUOTE)).all()
    )


def _read(body: bytes, layout: Layout, wanted: Sequence[str], quoted: bool) -> pl.DataFrame | None:
    if not body:
        return pl.DataFrame(schema=dict.fromkeys(wanted, pl.String))
    try:
        scanned = pl.scan_csv(
            body,
            has_header=False,
            schema=dict.fromkeys(layout.names, pl.String),
            separator=layout.delimiter,
            quote_char='"' if quoted else None,
            infer_schema=False,
        )
        return scanned.select(wanted).collect()
    except pl.exceptions.PolarsError:
        return None  # the exact way finds the row that Polars cannot read


def _exact(block: bytes, layout: Layout, wanted: Sequence[str], at_end: bool) -> Split:
    """The block row by row: a bad row costs itself only, even where a quote in it is never closed."""
    lines = io.BytesIO(block).readlines()
    held: list[list[str]] = []
    places: list[int] = []
    found = Split(pl.DataFrame(), np.empty(0, np.int64))
    limit = csv.field_size_limit(len(block) + 1)
    try:
        while found.lines < len(lines):
            here = found.lines
            if not lines[here].strip(b"\r\n"):
                found.lines += 1
                continue
            row, used, reason = _record(lines, here, layout.delimiter)
            if row is None and used == 0:  # it runs on past the block
                if not at_end:
                    found.rest = b"".join(lines[here:])
                    break
                used, reason = 1, NOT_CLOSED
            if row is not None:
                reason = _fault(row, len(layout.names))
            if row is None or reason:
                if row is not None and len(row) != len(layout.names):
                    used = 1  # what seemed to run on may be rows of its own
                found.bad.append((found.records, here, reason, _raw(lines[here])))
            else:
                held.append(row)
                places.append(found.records)
            found.records += 1
            found.lines += used
    finally:
        csv.field_size_limit(limit)
    cells = list(zip(*held, strict=True)) if held else [()] * len(layout.names)
    columns = dict(zip(layout.names, cells, strict=True))
    found.frame = pl.DataFrame({n: columns[n] for n in wanted}, schema=dict.fromkeys(wanted, pl.String))
    found.places = np.array(places, np.int64)
    return found


def _record(lines: list[bytes], here: int, delimiter: str) -> tuple[list[str] | None, int, str]:
    """The record that begins at a line: its cells, how many lines it takes, and what is wrong.

    No cells and 0 lines: it has no end among these lines.
    """
    try:
        if b'"' not in lines[here]:
            return lines[here].decode().rstrip("\r\n").split(delimiter), 1, ""
        beyond: list[bool] = []
        reader = csv.reader(_text_from(lines, here, beyond), delimiter=delimiter, strict=True)
        return next(reader), reader.line_num, ""
    except UnicodeDecodeError:
        return None, 1, NO_TEXT
    except csv.Error as error:
        if beyond == [False] and "unexpected end" in str(error):
            return None, 0, NOT_CLOSED
        return None, 1, NOT_CLOSED


def _text_from(lines: list[bytes], here: int, beyond: list[bool]) -> Iterator[str]:
    """Lines from one on, as far as a record may reach; says in `beyond` whether that was too far."""
    size = 0
    for place in range(here, len(lines)):
        if size > LONGEST_RECORD:
            beyond.append(True)
            return
        size += len(lines[place])
        yield lines[place].decode()
    beyond.append(False)


def _fault(row: list[str], columns: int) -> str:
    if len(row) != columns:
        return _wrong_count(len(row), columns)
    if any("\0" in cell for cell in row):
        return HAS_NUL
    longest = max(len(cell.encode()) if len(cell) * 4 > LONGEST_FIELD else 0 for cell in row)
    return _too_long(longest) if longest > LONGEST_FIELD else ""


def _has_long(marks: NDArray[np.int64], begin: int, end: int) -> bool:
    inside = marks[np.searchsorted(marks, begin) : np.searchsorted(marks, end)]
    return bool(np.diff(np.concatenate([[begin - 1], inside, [end]])).max() - 1 > LONGEST_FIELD)


def _wrong_count(cells: int, columns: int) -> str:
    return f"the row has {cells:,} cells, the header {columns:,}; look for a stray delimiter or quote"


def _too_long(length: int) -> str:
    return f"a cell holds about {length:,} bytes, more than {LONGEST_FIELD:,}; shorten it, or look for a stray quote"


def _raw(line: bytes) -> str:
    return json.dumps(line[: 4 * SHOWN].decode(errors="replace").rstrip("\r\n")[:SHOWN], ensure_ascii=False)


def _is_text(block: bytes) -> bool:
    if block.isascii():
        return True
    try:
        block.decode()
    except UnicodeDecodeError:
        return False
    return True
