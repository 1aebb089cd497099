"""JSON lines: one object a line, every value as text, nested ones as their JSON text.

Polars reads a block of lines whole, ten times as fast as Python would; where it refuses one, the lines that are at
fault are found and set aside, and it reads the rest.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from desireline.core.errors import SourceError
from desireline.events.chunk import REJECTED, Chunk
from desireline.events.text import BLOCK, BrokenOffError, broken_off, line_blocks

LONGEST_LINE = 1 << 22  # bytes
SHOWN = 2000  # characters kept of a rejected line
SMALL_BLOCK = 1 << 20
KEYS_FROM = 20_000  # lines whose keys are the columns where none are named


class JsonLines:
    """One jsonl or ndjson file, plain or packed. A key that no line has is an empty column, not a missing one."""

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
        line, seen = 0, 0
        try:
            for block in line_blocks(self.path, size):
                lines = io.BytesIO(block).readlines()
                if seen == 0 and block.lstrip()[:1] == b"[":
                    raise SourceError(f"{self.path} is one JSON array. Write one object a line, as `jq -c '.[]'` does.")
                if columns is None:
                    columns = _keys(lines[:KEYS_FROM])
                for begin in range(0, len(lines), rows):
                    chunk = _chunk(lines[begin : begin + rows], line + begin + 1, list(columns))
                    seen += len(chunk.numbers) + len(chunk.rejected)
                    yield chunk
                line += len(lines)
        except BrokenOffError as error:
            raise broken_off(self.path, line, error) from error
        if seen == 0:
            raise SourceError(f"{self.path} holds no rows.")


def _chunk(lines: list[bytes], first: int, columns: list[str]) -> Chunk:
    numbers = [number for number, line in enumerate(lines, first) if line.strip()]
    filled = [lines[number - first] for number in numbers]
    bad: list[dict[str, Any]] = []
    frame = _read(filled, columns)
    if frame is None:
        good: list[int] = []
        for place, line in enumerate(filled):
            if reason := _fault(line):
                bad.append(_rejected(numbers[place], reason, line))
            else:
                good.append(place)
        frames, kept = _read_apart([filled[k] for k in good], [numbers[k] for k in good], columns, bad)
        frame, numbers = pl.concat([pl.DataFrame(schema=dict.fromkeys(columns, pl.String)), *frames]), kept
        bad.sort(key=lambda row: int(row["row"]))
    return Chunk(pl.Series(np.array(numbers, np.int64)), frame, pl.DataFrame(bad, schema=REJECTED))


def _read(lines: list[bytes], columns: list[str]) -> pl.DataFrame | None:
    """Lines as Polars reads them; None when it refuses one."""
    if not lines:
        return pl.DataFrame(schema=dict.fromkeys(columns, pl.String))
    if any(len(line) > LONGEST_LINE for line in lines):
        return None
    try:
        frame = pl.read_ndjson(b"".join(lines), schema=dict.fromkeys(columns, pl.String))
    except pl.exceptions.PolarsError:
        return None
    return frame if frame.height == len(lines) else None


def _read_apart(
    lines: list[bytes], numbers: list[int], columns: list[str], bad: list[dict[str, Any]]
) -> tuple[list[pl.DataFrame], list[int]]:
    """Lines that Python reads, halved until each part is read by Polars too, or is one line that it refuses."""
    frame = _read(lines, columns)
    if frame is not None:
        return [frame], numbers
    if len(lines) == 1:
        bad.append(_rejected(numbers[0], "the line is no JSON that can be read", lines[0]))
        return [], []
    half = len(lines) // 2
    left, first = _read_apart(lines[:half], numbers[:half], columns, bad)
    right, second = _read_apart(lines[half:], numbers[half:], columns, bad)
    return left + right, first + second


def _fault(line: bytes) -> str:
    if len(line) > LONGEST_LINE:
        return f"the line holds {len(line):,} bytes, more than {LONGEST_LINE:,}; shorten it"
    try:
        found = json.loads(line.decode())
    except (ValueError, RecursionError) as error:
        return f"the line is no JSON ({error})"
    return "" if isinstance(found, dict) else "the line is no JSON object; write one object a line"


def _rejected(number: int, reason: str, line: bytes) -> dict[str, Any]:
    shown = line[: 4 * SHOWN].decode(errors="replace").strip()[:SHOWN]
    return {"row": number, "column": None, "value": None, "reason": f"row {number}: {reason}", "raw": json.dumps(shown)}


def _keys(lines: list[bytes]) -> list[str]:
    """The keys of the objects among lines, in the order that they come in."""
    keys: dict[str, None] = {}
    for line in lines:
        if line.strip() and not _fault(line):
            keys.update(dict.fromkeys(json.loads(line)))
    return list(keys)
