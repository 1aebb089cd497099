"""What a model is asked: histories, and the items that then came."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Histories:
    """Item histories of Q users (or of Q moments of users), ragged, oldest event first.

    Holds the positive events about an item only, and only those strictly before `as_of`. The same type carries the
    training data of a baseline (one history a user) and the questions that are put to it.

    offsets : int64 [Q + 1], history q stands at `offsets[q]:offsets[q + 1]`
    item    : int32 [N], ids from 2 up (0 = padding, 1 = unknown item)
    time    : int64 [N], microseconds since 1970 UTC, ascending within a history
    as_of   : int64 [Q], microseconds: the moment of the question
    """

    offsets: NDArray[np.int64]
    item: NDArray[np.int32]
    time: NDArray[np.int64]
    as_of: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def rows(self) -> NDArray[np.int64]:
        """int64 [N]: the history that each event belongs to."""
        return np.repeat(np.arange(len(self), dtype=np.int64), np.diff(self.offsets))


@dataclass(frozen=True)
class Targets:
    """The items that truly came for each of Q questions; id 1 is an item unknown before the cut (a cold one).

    offsets : int64 [Q + 1];  item : int32 [M], each item once a question
    """

    offsets: NDArray[np.int64]
    item: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def part(self, lo: int, hi: int) -> Targets:
        """The targets of questions [lo, hi)."""
        offsets = self.offsets[lo : hi + 1]
        return Targets(offsets - offsets[0], self.item[offsets[0] : offsets[-1]])
