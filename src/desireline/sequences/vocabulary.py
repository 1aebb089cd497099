"""Value ↔ id of an event type, an item or a category: 0 = padding (none), 1 = unknown, then the known values.

Ids follow the hash of the value, neither its frequency nor its place in a file, so that an id tells nothing: file order
would leak time and popularity into a model's initialisation.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from desireline.events.frame import content_hash

PADDING, UNKNOWN, FIRST = 0, 1, 2


@dataclass(frozen=True)
class Vocabulary:
    """Known values and how often each was seen before the cut.

    values : String [V], value of id `i + 2`;  counts : int64 [V]
    """

    values: pl.Series
    counts: NDArray[np.int64]

    @staticmethod
    def fit(counted: pl.DataFrame, floor: int = 1, most: int | None = None) -> Vocabulary:
        """From a frame `value, count` (a value may stand in several rows), keeping counts ≥ floor, at most `most`."""
        total = counted.group_by("value").agg(pl.col("count").sum()).filter(pl.col("count") >= floor)
        total = total.with_columns(hash=content_hash(pl.col("value")))
        if most is not None:
            total = total.sort("count", "hash", descending=[True, False]).head(most)
        total = total.sort("hash")
        return Vocabulary(total["value"], total["count"].to_numpy().astype(np.int64))

    @staticmethod
    def of(values: list[str]) -> Vocabulary:
        """The given values in the given order: for event types, which the schema orders."""
        return Vocabulary(pl.Series("value", values, dtype=pl.String), np.zeros(len(values), np.int64))

    def __len__(self) -> int:
        """Ids in all, padding and unknown included."""
        return len(self.values) + FIRST

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {value: index + FIRST for index, value in enumerate(self.values)}

    def id_of(self, value: str | None) -> int:
        """0 for None, 1 for a value unknown before the cut."""
        return PADDING if value is None else self._ids.get(value, UNKNOWN)

    def encode(self, values: pl.Series) -> NDArray[np.int32]:
        """int32 ids of a String series; null becomes 0."""
        table = pl.DataFrame({"value": self.values, "id": np.arange(FIRST, len(self), dtype=np.int32)})
        ids = values.rename("value").to_frame().join(table, on="value", how="left", maintain_order="left")["id"]
        known = ids.fill_null(UNKNOWN).to_numpy().astype(np.int32)
        known[values.is_null().to_numpy()] = PADDING
        return known

    def value_of(self, index: int) -> str:
        """The value of a known id."""
        return str(self.values[index - FIRST])

    def write(self, path: Path) -> None:
        """One Parquet file, rows in the order of ids."""
        pl.DataFrame({"value": self.values, "count": self.counts}).write_parquet(path)

    @staticmethod
    def read(path: Path) -> Vocabulary:
        """What `write` wrote."""
        table = pl.read_parquet(path)
        return Vocabulary(table["value"], table["count"].to_numpy())
