"""Where a log comes from: files, folders and globs, SQL databases. Each source is read in chunks of bounded memory."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from glob import glob
from pathlib import Path
from typing import Protocol

import polars as pl

from desireline.core.errors import SourceError

SUFFIXES = (".csv", ".tsv", ".txt", ".jsonl", ".ndjson", ".parquet")
PACKED = (".gz", ".zst")
REJECTED: dict[str, type[pl.DataType]] = {
    "row": pl.Int64,
    "column": pl.String,
    "value": pl.String,
    "reason": pl.String,
    "raw": pl.String,
}


@dataclass(frozen=True)
class Chunk:
    """Rows of a source.

    numbers  : Int64, the number in the source of each row of `frame`, from 1
    rejected : rows that could not even be split into columns (columns of REJECTED)
    """

    numbers: pl.Series
    frame: pl.DataFrame
    rejected: pl.DataFrame


class Source(Protocol):
    """One file, table or query."""

    @property
    def name(self) -> str:
        """How it is called in messages and in quarantine; never holds a password."""

    def size_rows(self) -> int | None:
        """Its number of rows where that is cheap to know."""

    def sample(self, rows: int = 20_000) -> pl.DataFrame:
        """Its first rows."""

    def chunks(self, columns: Sequence[str] | None, rows: int) -> Iterator[Chunk]:
        """Its rows in order, at most `rows` at a time; `columns`: those that are needed, None for all."""


def no_rejected() -> pl.DataFrame:
    """An empty frame of rejected rows."""
    return pl.DataFrame(schema=REJECTED)


def numbered(first: int, count: int) -> pl.Series:
    """Row numbers from `first` on."""
    return pl.int_range(first, first + count, eager=True, dtype=pl.Int64)


def open_sources(texts: Sequence[str]) -> list[Source]:
    """The sources that texts name: files, folders, globs, `sqlite:///…` and `postgresql://…` URLs.

    Raises SourceError for what is missing, unreadable or of no known kind.
    """
    found: list[Source] = []
    for text in texts:
        if "://" in text:
            from desireline.events.sql import open_sql

            found.append(open_sql(text))
            continue
        found += [_open_file(path) for path in _files(text)]
    return found


def _files(text: str) -> list[Path]:
    path = Path(text)
    if path.is_dir():
        if not os.access(path, os.R_OK | os.X_OK):
            raise SourceError(f"The folder {text} may not be read. Check its permissions.")
        files = sorted(p for p in path.rglob("*") if p.is_file() and kind_of(p) and not p.name.startswith((".", "_")))
        if not files:
            raise SourceError(f"The folder {text} holds no log: looked for {', '.join(SUFFIXES)}, plain, .gz or .zst.")
        return files
    if path.exists():
        return [path]
    files = sorted(Path(p) for p in glob(text, recursive=True) if Path(p).is_file())  # noqa: PTH207  # text may be absolute
    if not files:
        raise SourceError(f"{text} does not exist. Check the path.")
    return files


def kind_of(path: Path) -> str:
    """The suffix that says how a file is read, without its packing; "" for an unknown one."""
    name = path.name.lower()
    for suffix in PACKED:
        name = name.removesuffix(suffix)
    return next((suffix for suffix in SUFFIXES if name.endswith(suffix)), "")


def _open_file(path: Path) -> Source:
    kind = kind_of(path)
    if not kind:
        raise SourceError(f"{path} is of no known kind: {', '.join(SUFFIXES)} are read, plain, .gz or .zst.")
    if not os.access(path, os.R_OK):
        raise SourceError(f"{path} may not be read. Check its permissions.")
    if path.stat().st_size == 0:
        raise SourceError(f"{path} is empty: it holds no rows.")
    if kind == ".parquet":
        from desireline.events.parquet import ParquetFile

        return ParquetFile(path)
    if kind in (".jsonl", ".ndjson"):
        from desireline.events.jsonl import JsonLines

        return JsonLines(path)
    from desireline.events.delimited import Delimited

    return Delimited(path)
