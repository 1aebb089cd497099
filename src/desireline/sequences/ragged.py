"""The one ragged layout: per-user time-sorted columns with offsets, memory-mapped from plain .npy files.

A column costs its own width an event and nothing else: no padding, no per-event objects. User u's events stand at
`offsets[u]:offsets[u + 1]` of every column.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

# column: type on disk
COLUMNS: dict[str, type[np.generic]] = {
    "time": np.int64,  # microseconds since 1970 UTC
    "event": np.int16,  # id in the vocabulary of event types
    "item": np.int32,  # id in the vocabulary of items; 0: the event is about none
    "value": np.float32,  # as in the log, unscaled; nan: none
    "value_bin": np.int16,  # 0: none, 1: zero, then quantile bins
    "session": np.int32,  # the user's sessions, counted from 0
    "role": np.uint8,  # bit 0: positive, bit 1: target, bit 2: negative
}
POSITIVE, TARGET, NEGATIVE = 1, 2, 4


@dataclass(frozen=True)
class Sequences:
    """Events of U users, N in all.

    users   : polars String Series [U], ascending by (bucket, user)
    offsets : int64 [U + 1]
    columns : name -> array [N]; the names of COLUMNS, then one int32 column a category field of the event
    """

    users: pl.Series
    offsets: NDArray[np.int64]
    columns: Mapping[str, NDArray[Any]]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def upto(self, user: NDArray[np.int64], place: NDArray[np.int64]) -> Sequences:
        """Of each of some users [Q] the events up to a place [Q]; of all others none."""
        step = np.zeros(self.events + 1, np.int64)
        np.add.at(step, self.offsets[user], 1)
        np.add.at(step, place + 1, -1)
        return self.take(np.cumsum(step[:-1]) > 0)

    @property
    def events(self) -> int:
        return int(self.offsets[-1])

    def __getitem__(self, column: str) -> NDArray[Any]:
        return self.columns[column]

    def rows(self) -> NDArray[np.int64]:
        """int64 [N]: the user row that each event belongs to."""
        return np.repeat(np.arange(len(self), dtype=np.int64), np.diff(self.offsets))

    @staticmethod
    def open(folder: Path) -> Sequences:
        """Map a folder written by `write`; nothing is read until it is touched."""
        columns = {p.stem: np.load(p, mmap_mode="r") for p in sorted(folder.glob("*.npy")) if p.stem != "offsets"}
        users = pl.read_parquet(folder / "users.parquet")["user"]
        return Sequences(users, np.load(folder / "offsets.npy"), columns)

    def write(self, folder: Path) -> None:
        """Write users, offsets and every column into an existing folder."""
        self.users.to_frame("user").write_parquet(folder / "users.parquet")
        np.save(folder / "offsets.npy", self.offsets)
        for name, array in self.columns.items():
            np.save(folder / f"{name}.npy", array)

    def take(self, keep: NDArray[np.bool_]) -> Sequences:
        """The same users with only the events where `keep` [N] holds."""
        kept = np.concatenate([[0], np.cumsum(keep)])[self.offsets]
        return Sequences(self.users, kept.astype(np.int64), {name: array[keep] for name, array in self.columns.items()})
