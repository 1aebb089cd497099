"""CSV and its kin: all columns as text, a fast path through Polars and an exact one through Python's csv module.

The fast path is taken for plain UTF-8 files that Polars splits without complaint. Where it complains (rows of another
length, broken quotes, NUL bytes), and for packed or otherwise encoded files, the exact path goes row by row: good rows
come, each bad one is rejected with its number and the reason.
"""

from __future__ import annotations

import csv
import json
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from desireline.core.errors import SchemaError, SourceError
from desireline.events.chunk import REJECTED, Chunk, no_rejected, numbered
from desireline.events.text import encoding_of, opened, text_of

DELIMITERS = ",;\t|"
LONGEST_FIELD = 1 << 20  # characters; a longer one is a broken quote or no event log
SHOWN = 200  # characters of a rejected row's cell that are kept
EXACT_ROWS = 200_000  # Python objects a chunk: bounds the exact path's memory
NUL = "\ufffd"  # stands for a NUL byte, which the csv module refuses; no id may hold it


class Delimited:
    """One csv, tsv or txt file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._layout: tuple[str, str, list[str]] | None = None

    @property
    def name(self) -> str:
        return str(self.path)

    def size_rows(self) -> int | None:
        return None

    def sample(self, rows: int = 20_000) -> pl.DataFrame:
        return next(self._exact(None, rows)).frame

    def chunks(self, columns: Sequence[str] | None, rows: int) -> Iterator[Chunk]:
        encoding, _, _ = self._read_layout()
        packed = self.path.name.lower().endswith((".gz", ".zst"))
        if not packed and encoding in ("utf-8", "utf-8-sig") and self._is_regular():
            yield from self._fast(columns, rows)
        else:
            yield from self._exact(columns, rows)

    def _read_layout(self) -> tuple[str, str, list[str]]:
        """Encoding, delimiter and header. Raises SchemaError for duplicate or single columns."""
        if self._layout is None:
            encoding = encoding_of(self.path)
            with opened(self.path) as file:
                first = next((line for line in text_of(file, encoding) if line.strip()), "")
            if not first:
                raise SourceError(f"{self.path} holds no rows.")
            delimiter = "\t" if ".tsv" in self.path.name.lower() else max(DELIMITERS, key=first.count)
            header = [name.strip().lstrip("\ufeff") for name in next(csv.reader([first], delimiter=delimiter))]
            twice = sorted({name for name in header if name and header.count(name) > 1})
            if twice:
                raise SchemaError(f"{self.path}: the column {', '.join(map(repr, twice))} stands twice. Rename one.")
            if len(header) == 1:
                raise SchemaError(
                    f"{self.path}: one column only ({header[0][:60]!r}); none of the delimiters , ; tab | splits its "
                    "first line. Is it a table with a header?"
                )
            header = [name or f"column_{k}" for k, name in enumerate(header, 1)]
            self._layout = (encoding, delimiter, header)
        return self._layout

    def _scan(self) -> pl.LazyFrame:
        _, delimiter, header = self._read_layout()
        return pl.scan_csv(self.path, separator=delimiter, infer_schema=False, new_columns=header)

    def _is_regular(self) -> bool:
        """Whether every row has the header's number of cells and no quote or NUL: one pass over the bytes."""
        _, delimiter, header = self._read_layout()
        with opened(self.path) as file:
            while block := file.read(1 << 24):
                block += file.readline()
                if not block.endswith(b"\n"):
                    block += b"\n"
                held = np.frombuffer(block, np.uint8)
                ends = np.flatnonzero(held == ord("\n"))
                marks = np.searchsorted(np.flatnonzero(held == ord(delimiter)), ends)
                lengths = np.diff(ends, prepend=-1)
                if (np.diff(marks, prepend=0) != len(header) - 1).any() or lengths.max() > LONGEST_FIELD:
                    return False
                if b"\0" in block or b'"' in block:
                    return False
        return True

    def _fast(self, columns: Sequence[str] | None, rows: int) -> Iterator[Chunk]:
        scanned = self._scan()
        if columns is not None:
            present = self._read_layout()[2]
            scanned = scanned.select([name for name in columns if name in present])
        begin = 1
        for frame in scanned.collect_batches(chunk_size=rows, maintain_order=True):
            if frame.height:
                yield Chunk(numbered(begin, frame.height), frame, no_rejected())
                begin += frame.height
        if begin == 1:
            raise SourceError(f"{self.path} has a header but holds no rows.")

    def _exact(self, columns: Sequence[str] | None, rows: int) -> Iterator[Chunk]:
        encoding, delimiter, header = self._read_layout()
        csv.field_size_limit(1 << 30)
        held: list[list[str]] = []
        numbers: list[int] = []
        rejected: list[dict[str, Any]] = []
        number = 0
        with opened(self.path) as file:
            reader = csv.reader((line.replace("\0", NUL) for line in text_of(file, encoding)), delimiter=delimiter)
            try:
                next(row for row in reader if row)  # the header
                for row in reader:
                    if not row:
                        continue
                    number += 1
                    reason = _fault(row, len(header))
                    if reason:
                        shown = json.dumps([cell[:SHOWN] for cell in row[:50]], ensure_ascii=False)
                        rejected.append({"row": number, "column": None, "value": None, "reason": reason, "raw": shown})
                    else:
                        held.append(row)
                        numbers.append(number)
                    if len(held) + len(rejected) >= min(rows, EXACT_ROWS):
                        yield _chunk(held, numbers, rejected, header, columns)
                        held, numbers, rejected = [], [], []
            except (EOFError, zlib.error) as error:
                if held or rejected:
                    yield _chunk(held, numbers, rejected, header, columns)
                raise SourceError(
                    f"{self.path} breaks off after row {number:,}; what came before is kept. "
                    "Get the whole file and ingest it again: what is stored will not be stored twice."
                ) from error
        if number == 0:
            raise SourceError(f"{self.path} has a header but holds no rows.")
        if held or rejected:
            yield _chunk(held, numbers, rejected, header, columns)


def _fault(row: list[str], cells: int) -> str | None:
    """Why a row cannot be taken; None for a good one."""
    if len(row) != cells:
        return f"the row has {len(row):,} cells, the header {cells:,}: look for a stray delimiter or quote"
    if any(NUL in cell for cell in row):
        return "the row holds a NUL byte or bytes that are no text"
    longest = max(map(len, row))
    if longest > LONGEST_FIELD:
        return f"a cell holds {longest:,} characters, more than {LONGEST_FIELD:,}: look for a quote that is not closed"
    return None


def _chunk(
    held: list[list[str]],
    numbers: list[int],
    rejected: list[dict[str, Any]],
    header: list[str],
    columns: Sequence[str] | None,
) -> Chunk:
    cells = list(zip(*held, strict=True)) if held else [()] * len(header)
    wanted = {n: c for n, c in zip(header, cells, strict=True) if columns is None or n in columns}
    frame = pl.DataFrame(wanted, schema=dict.fromkeys(wanted, pl.String))
    return Chunk(pl.Series(numbers, dtype=pl.Int64), frame, pl.DataFrame(rejected, schema=REJECTED))
