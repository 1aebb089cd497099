"""What every recommender without a network is: a baseline of each table, and a part of the product."""

from __future__ import annotations

from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from desireline.evaluation.queries import Histories


class Recommender(Protocol):
    """Scores the whole catalogue for item histories.

    A recommender is made with its constants as keyword arguments; `grid` lists the sets of constants among which
    validation chooses. Fitting is deterministic. `content` is also made with the items' fields.
    """

    name: ClassVar[str]  # the row's name in the contract
    grid: ClassVar[list[dict[str, Any]]]

    def fit(self, train: Histories, items: int) -> None:
        """Learn from one history a user; `items` is the catalogue's size, ids 0 (padding) and 1 (unknown) included."""

    def score(self, asked: Histories) -> NDArray[np.float32]:
        """float32 [Q, items]: higher is better. Columns 0 and 1 mean nothing: the caller masks them."""

    def state(self) -> dict[str, NDArray[Any]]:
        """What `fit` learnt, as arrays: enough for `load` to make the same model again."""

    def load(self, state: dict[str, NDArray[Any]]) -> None:
        """Take back what `state` gave."""

    @property
    def parameters(self) -> int:
        """Learnt numbers."""
