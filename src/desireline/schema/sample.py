"""A sample of a file, column by column: what a guess looks at, which columns are taken, and the notes on it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property

import polars as pl

from desireline.schema.model import Schema
from desireline.schema.names import plain
from desireline.schema.presets import PRESETS, Preset

MOST_ROWS = 200_000  # rows whose cells are looked at; spread over the whole sample
ENOUGH = 0.99  # of the cells that must fit for a column to be of a kind


@dataclass(frozen=True)
class Note:
    """A guess in words: the dotted key of `desireline.yaml` that it stands at, and whether the sample settled it."""

    key: str
    text: str
    ambiguous: bool = False


@dataclass(frozen=True)
class Guess:
    """A guessed schema and what there is to say about it."""

    schema: Schema
    notes: list[Note]


@dataclass(frozen=True, eq=False)
class Column:
    """One column of a sample; blank text counts as null, and nothing is read before it is asked for."""

    values: pl.Series

    @property
    def name(self) -> str:
        """The column's name as the file has it."""
        return self.values.name

    @cached_property
    def empty(self) -> int:
        """Rows without a value."""
        return self.values.null_count()

    @cached_property
    def filled(self) -> int:
        """Rows with a value."""
        return len(self.values) - self.empty

    @cached_property
    def distinct(self) -> int:
        """Different values; 0 for lists and structures."""
        return 0 if self.is_nested else self.values.drop_nulls().n_unique()

    @property
    def is_nested(self) -> bool:
        """Lists, structures, bytes: no single value."""
        return self.values.dtype.is_nested() or self.values.dtype in (pl.Binary, pl.Object)

    @property
    def is_string(self) -> bool:
        """Text, as the file has it."""
        return self.values.dtype == pl.String

    @cached_property
    def numbers(self) -> pl.Series | None:
        """The cells as Float64 without nulls, when nearly all are numbers."""
        dtype = self.values.dtype
        if not (dtype.is_numeric() or dtype == pl.String) or not self.filled:
            return None
        read = self.values.drop_nulls().cast(pl.Float64, strict=False)
        read = read.filter(read.is_finite().fill_null(False))
        return read if len(read) >= ENOUGH * self.filled else None

    @cached_property
    def is_whole(self) -> bool:
        """Numbers without fractions."""
        return self.numbers is not None and bool((self.numbers == self.numbers.floor()).all())

    @property
    def is_fraction(self) -> bool:
        """Numbers, some of them with fractions."""
        return self.numbers is not None and not self.is_whole

    @cached_property
    def leads_with_zero(self) -> bool:
        """Text of digits that a number would lose: 007."""
        return self.is_string and bool(self.values.drop_nulls().str.contains(r"^0\d").any())

    @cached_property
    def counts_rows(self) -> bool:
        """Whole numbers from 0 or 1 that rise by one with each row: an index that somebody saved with the table."""
        numbers = self.numbers
        if numbers is None or len(numbers) != len(self.values) or len(numbers) < 2 or numbers[0] not in (0, 1):
            return False
        steps = numbers.diff().drop_nulls()
        return bool((steps == steps[0]).all()) and steps[0] >= 1  # the sample may be every tenth row

    @cached_property
    def mean_length(self) -> float:
        """Characters in a cell of text, on average."""
        mean = self.values.str.len_chars().mean() if self.is_string else None
        return float(mean) if isinstance(mean, (int, float)) else 0.0

    @cached_property
    def is_text(self) -> bool:
        """Sentences and titles rather than names: several words in a cell, and many different cells."""
        if not self.is_string or self.numbers is not None or not self.filled:
            return False
        spaces = self.values.drop_nulls().str.count_matches(r"\S\s+\S").mean()
        several = isinstance(spaces, (int, float)) and spaces >= 2
        chinese = bool(
            self.values.drop_nulls().head(1000).str.contains(r"[\p{Han}\p{Hiragana}\p{Katakana}]").mean() or 0
        )
        varied = self.distinct > 100 or self.distinct > 0.5 * self.filled
        return varied and ((several and self.mean_length >= 15) or (chinese and self.mean_length >= 12))


@dataclass
class Sample:
    """The columns of a sample, which of them are still free, and the notes so far."""

    whole: pl.DataFrame
    preset: Preset
    columns: list[Column]
    taken: set[str] = field(default_factory=set)
    notes: list[Note] = field(default_factory=list)

    @staticmethod
    def of(frame: pl.DataFrame, preset: Preset) -> Sample:
        """Prepare a sample: no more than `MOST_ROWS` of its rows, text stripped, blank cells null."""
        part = frame.gather_every(-(-len(frame) // MOST_ROWS)) if len(frame) > MOST_ROWS else frame
        return Sample(frame, preset, [Column(_cleaned(column)) for column in part.get_columns()])

    @property
    def height(self) -> int:
        """Rows that are looked at."""
        return len(self.columns[0].values)

    @property
    def free(self) -> list[Column]:
        """Columns without a meaning so far, in the file's order."""
        return [column for column in self.columns if column.name not in self.taken]

    def column(self, name: str) -> Column:
        """The column of that name."""
        return next(column for column in self.columns if column.name == name)

    def named(self, meaning: str) -> list[Column]:
        """Free columns whose name has a meaning, the surest name first."""
        # Another domain's names come last: a shop's log may well call its customer a patient.
        others = [name for preset in PRESETS.values() for name in preset.columns[meaning]]
        names = {name: rank for rank, name in enumerate(dict.fromkeys([*self.preset.columns[meaning], *others]))}
        found = [column for column in self.free if plain(column.name) in names and not column.is_nested]
        return sorted(found, key=lambda column: names[plain(column.name)])

    def take(self, column: Column) -> Column:
        """Give a column its meaning, so that it gets no other."""
        self.taken.add(column.name)
        return column

    def note(self, key: str, text: str, ambiguous: bool = False) -> None:
        """Say what was guessed."""
        self.notes.append(Note(key, text, ambiguous))

    def leave_out(self, columns: Iterable[Column], why: str) -> None:
        """Take columns out of the schema and say why."""
        names = [self.take(column).name or "(a column without a name)" for column in columns]
        if names:
            self.note("fields", f"left out, {why}: {', '.join(names)}")

    def leave_out_indices(self) -> None:
        """Leave out the row numbers that tables are often saved with."""
        indices = [
            c for c in self.free if plain(c.name) in ("", "unnamed0", "index", "rowindex", "rownumber", "id", "rowid")
        ]
        self.leave_out((c for c in indices if not c.name.strip() or c.counts_rows), "a row's number in its file")


def _cleaned(column: pl.Series) -> pl.Series:
    if column.dtype in (pl.Categorical, pl.Enum):
        column = column.cast(pl.String)
    if column.dtype != pl.String:
        return column
    stripped = pl.col(column.name).str.strip_chars()
    return column.to_frame().select(pl.when(stripped != "").then(stripped).alias(column.name)).to_series()
