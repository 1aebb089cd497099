"""CSV and its kin as sources: all columns as text, bad rows set aside with their number and the reason."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from desireline.core.errors import SchemaError, SourceError
from desireline.events.cells import Layout, Split, split
from desireline.events.chunk import REJECTED, Chunk, no_rejected, wanted_columns
from desireline.events.text import BLOCK, BrokenOffError, broken_off, line_blocks

DELIMITERS = ",;\t|"
SMALL_BLOCK = 1 << 20  # bytes that are enough for a sample


class Delimited:
    """One csv, tsv or txt file, plain or packed."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def name(self) -> str:
        return str(self.path)

    def size_rows(self) -> int | None:
        return None

    def sample(self, rows: int = 20_000) -> pl.DataFrame:
        return next(self._chunks(None, rows, SMALL_BLOCK)).frame

    def chunks(self, columns: Sequence[str] | None, rows: int) -> Iterator[Chunk]:
        return self._chunks(columns, rows, BLOCK)

    def _chunks(self, columns: Sequence[str] | None, rows: int, size: int) -> Iterator[Chunk]:
        blocks = line_blocks(self.path, size)
        number, line = 0, 1  # records and lines that came before
        waiting: list[Chunk] = []
        block, broken = _next(blocks)
        if block is None and broken:
            raise broken_off(self.path, 0, broken) from broken
        layout, begin = self._layout(block or b"")
        wanted = wanted_columns(columns, layout.names, self.name)
        wanted = wanted or layout.names[:1]  # a frame without columns would have no rows
        line += (block or b"")[:begin].count(b"\n")
        block = (block or b"")[begin:]
        while block:
            later, broken = _next(blocks)
            found = split(block, layout, wanted, at_end=later is None and not broken)
            waiting.append(_chunk(found, number, line))
            number, line = number + found.records, line + found.lines
            if sum(len(c.numbers) for c in waiting) >= rows:
                yield from _joined(waiting, rows)
                waiting = []
            block = b"" if broken else found.rest + (later or b"")
        yield from _joined(waiting, rows)
        if broken:
            raise broken_off(self.path, number, broken) from broken
        if number == 0:
            raise SourceError(f"{self.path} has a header but holds no rows.")

    def _layout(self, block: bytes) -> tuple[Layout, int]:
        """The columns, and where the first record begins.

        Raises SourceError for a file without a line, SchemaError for duplicate or single columns.
        """
        end = 0
        while not (first := block[end : (end := (block.find(b"\n", end) + 1) or len(block))].strip()):
            if end == len(block):
                raise SourceError(f"{self.path} holds no rows.")
        if b"\0" in first:
            raise SourceError(f"{self.path} is no text table, or UTF-16 without a mark. Convert it to UTF-8.")
        text = first.decode(errors="replace")
        named = text.removeprefix("sep=")  # how Excel names the delimiter, on a line of its own
        if named != text and len(named) == 1:
            layout, more = self._layout(block[end:])
            return layout, end + more
        delimiter = max(DELIMITERS, key=text.count)
        if ".tsv" in self.path.name.lower() and "\t" in text:
            delimiter = "\t"
        header = [name.strip() for name in next(csv.reader([text], delimiter=delimiter))]
        twice = sorted({name for name in header if name and header.count(name) > 1})
        if twice:
            raise SchemaError(f"{self.path}: the column {', '.join(map(repr, twice))} stands twice. Rename one.")
        if len(header) == 1:
            raise SchemaError(
                f"{self.path}: one column only ({header[0][:60]!r}); none of the delimiters , ; tab | splits its "
                "first line. Is it a table with a header?"
            )
        return Layout([name or f"column_{k}" for k, name in enumerate(header, 1)], delimiter), end


def _next(blocks: Iterator[bytes]) -> tuple[bytes | None, BrokenOffError | None]:
    """The next block, None at the end; or why there is none."""
    try:
        return next(blocks, None), None
    except BrokenOffError as error:
        return None, error


def _chunk(found: Split, number: int, line: int) -> Chunk:
    rows: list[dict[str, Any]] = []
    for place, at, reason, raw in found.bad:
        row = number + place + 1
        where = f"row {row} (line {line + at}): {reason}"
        rows.append({"row": row, "column": None, "value": None, "reason": where, "raw": raw})
    rejected = pl.DataFrame(rows, schema=REJECTED) if rows else no_rejected()
    return Chunk(pl.Series(found.places + np.int64(number + 1)), found.frame, rejected)


def _joined(waiting: list[Chunk], rows: int) -> Iterator[Chunk]:
    """Chunks as one, or as several of at most `rows` good rows; what was rejected comes with the first."""
    if not waiting:
        return
    frame, numbers = pl.concat([c.frame for c in waiting]), pl.concat([c.numbers for c in waiting])
    rejected = pl.concat([c.rejected for c in waiting])
    for begin in range(0, max(len(numbers), 1), rows):
        yield Chunk(numbers.slice(begin, rows), frame.slice(begin, rows), rejected if begin == 0 else no_rejected())
