"""What a source is and gives: rows in chunks, each with its number in the source."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import polars as pl

from desireline.schema.syntax import missing_columns

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
        """Its rows in order, at most `rows` at a time; `columns`: those that are needed, None for all.

        Raises SchemaError for a column that is needed and not there, but of JSON lines: none has it there.
        """


def wanted_columns(columns: Sequence[str] | None, present: Sequence[str], name: str) -> list[str]:
    """The columns to read of those that a source has.

    Raises SchemaError, naming all that are there, where one of `columns` is not: by the time that rows are mapped only
    those that were asked for are left to name.
    """
    missing = [column for column in columns or [] if column not in present]
    if missing:
        raise missing_columns(missing, present, "desireline.yaml", name)
    return list(present if columns is None else columns)


def no_rejected() -> pl.DataFrame:
    """An empty frame of rejected rows."""
    return pl.DataFrame(schema=REJECTED)


def numbered(first: int, count: int) -> pl.Series:
    """Row numbers from `first` on."""
    return pl.int_range(first, first + count, eager=True, dtype=pl.Int64)
