"""What everybody takes: counts of all times, or decayed by age."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from desireline.classical.arrays import DAY_US, FIRST, TAIL, counts, shares, span_days
from desireline.evaluation.queries import Histories


class Popularity:
    """The number of events of an item, the same list for everybody."""

    name: ClassVar[str] = "popularity"
    grid: ClassVar[list[dict[str, Any]]] = [{}]

    def fit(self, train: Histories, items: int) -> None:
        self.scores = counts(train, items)

    def score(self, asked: Histories) -> NDArray[np.float32]:
        return np.tile(self.scores, (len(asked), 1))

    def state(self) -> dict[str, NDArray[Any]]:
        return {"scores": self.scores}

    def load(self, state: dict[str, NDArray[Any]]) -> None:
        self.scores = state["scores"]

    @property
    def parameters(self) -> int:
        return len(self.scores)


class RecentPopularity(Popularity):
    """Counts that halve with age; `half_life` is a share of the log's span, so that days and years need no constant.

    What decayed to nothing is ordered by its plain counts.
    """

    name: ClassVar[str] = "recent-popularity"
    grid: ClassVar[list[dict[str, Any]]] = [{"half_life": share} for share in (0.003, 0.01, 0.03, 0.1, 0.3)]

    def __init__(self, half_life: float = 0.03) -> None:
        self.half_life = half_life

    def fit(self, train: Histories, items: int) -> None:
        age = (train.time.max(initial=0) - train.time) / DAY_US / (self.half_life * span_days(train))
        weighted = np.bincount(train.item, weights=np.exp2(-age), minlength=items)
        weighted[:FIRST] = 0
        self.scores = (weighted + TAIL * shares(train, items)).astype(np.float32)
