"""Parquet files as sources."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import polars as pl

from desireline.core.errors import SchemaError, SourceError
from desireline.events.chunk import Chunk, no_rejected, numbered, wanted_columns


class ParquetFile:
    """One Parquet file, read by slices that skip the row groups they do not need."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def name(self) -> str:
        return str(self.path)

    def _scan(self) -> pl.LazyFrame:
        try:
            scanned = pl.scan_parquet(self.path)
            scanned.collect_schema()
        except (pl.exceptions.PolarsError, OSError) as error:
            raise SourceError(f"{self.path} is no whole Parquet file ({_first_line(error)}). Get it again.") from error
        return scanned

    def size_rows(self) -> int:
        return int(self._scan().select(pl.len()).collect().item())

    def sample(self, rows: int = 20_000) -> pl.DataFrame:
        return self._read(self._scan().head(rows))

    def chunks(self, columns: Sequence[str] | None, rows: int) -> Iterator[Chunk]:
        scanned, total = self._scan(), self.size_rows()
        if total == 0:
            raise SourceError(f"{self.path} holds no rows.")
        scanned = scanned.select(wanted_columns(columns, scanned.collect_schema().names(), self.name))
        for begin in range(0, total, rows):
            frame = self._read(scanned.slice(begin, rows))
            yield Chunk(numbered(begin + 1, frame.height), frame, no_rejected())

    def _read(self, part: pl.LazyFrame) -> pl.DataFrame:
        try:
            return part.collect()
        except pl.exceptions.DuplicateError as error:
            raise SchemaError(f"{self.path}: a column's name stands twice. Rename one.") from error
        except (pl.exceptions.PolarsError, OSError) as error:
            raise SourceError(f"{self.path} is damaged ({_first_line(error)}). Get it again.") from error


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
