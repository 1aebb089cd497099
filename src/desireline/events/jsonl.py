"""JSON lines: one object a line; values that are no text are taken as their JSON text, nested ones too."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from desireline.core.errors import SourceError
from desireline.events.chunk import REJECTED, Chunk
from desireline.events.text import encoding_of, opened, text_of

CHUNK_ROWS = 200_000
LONGEST_LINE = 1 << 22


class JsonLines:
    """One jsonl or ndjson file. All columns come as text, so that a mixed column needs no guess."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def name(self) -> str:
        return str(self.path)

    def size_rows(self) -> int | None:
        return None

    def sample(self, rows: int = 20_000) -> pl.DataFrame:
        return next(self.chunks(None, rows)).frame

    def chunks(self, columns: Sequence[str] | None, rows: int) -> Iterator[Chunk]:
        held: list[dict[str, str | None]] = []
        numbers: list[int] = []
        rejected: list[dict[str, Any]] = []
        number = 0
        with opened(self.path) as file:
            try:
                for line in text_of(file, encoding_of(self.path)):
                    if not line.strip():
                        continue
                    number += 1
                    found, reason = _object(line)
                    if found is None:
                        rejected.append(
                            {"row": number, "column": None, "value": None, "reason": reason, "raw": line.strip()[:2000]}
                        )
                    else:
                        held.append(found)
                        numbers.append(number)
                    if len(held) + len(rejected) >= min(rows, CHUNK_ROWS):
                        yield _chunk(held, numbers, rejected, columns)
                        held, numbers, rejected = [], [], []
            except (EOFError, zlib.error) as error:
                if held or rejected:
                    yield _chunk(held, numbers, rejected, columns)
                raise SourceError(
                    f"{self.path} breaks off after row {number:,}; what came before is kept. "
                    "Get the whole file and ingest it again: what is stored will not be stored twice."
                ) from error
        if number == 0:
            raise SourceError(f"{self.path} holds no rows.")
        if held or rejected:
            yield _chunk(held, numbers, rejected, columns)


def _object(line: str) -> tuple[dict[str, str | None] | None, str]:
    if len(line) > LONGEST_LINE:
        return None, f"the line holds {len(line):,} characters, more than {LONGEST_LINE:,}"
    try:
        found = json.loads(line, parse_float=str, parse_int=str)
    except (ValueError, RecursionError) as error:
        return None, f"the line is no JSON ({error})"
    if not isinstance(found, dict):
        return None, "the line is no JSON object"
    return {key: _text(value) for key, value in found.items()}, ""


def _text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False, sort_keys=True)


def _chunk(
    held: list[dict[str, str | None]], numbers: list[int], rejected: list[dict[str, Any]], columns: Sequence[str] | None
) -> Chunk:
    names = list(dict.fromkeys(name for row in held for name in row))
    if columns is not None:
        names = list(columns)  # a key that no line of this chunk has is an empty column, not a missing one
    frame = pl.DataFrame(
        {name: [row.get(name) for row in held] for name in names}, schema=dict.fromkeys(names, pl.String)
    )
    return Chunk(pl.Series(numbers, dtype=pl.Int64), frame, pl.DataFrame(rejected, schema=REJECTED))
