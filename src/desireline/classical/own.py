"""What the user took before: the last items, or all of them with a decay."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from desireline.classical.arrays import TAIL, age_days, age_rank, matrix, shares, span_days
from desireline.evaluation.queries import Histories


class RepeatLast:
    """The user's items, the newest first; then popularity."""

    name: ClassVar[str] = "repeat-last"
    grid: ClassVar[list[dict[str, Any]]] = [{}]

    def fit(self, train: Histories, items: int) -> None:
        self.popular = shares(train, items)

    def score(self, asked: Histories) -> NDArray[np.float32]:
        scores = np.tile(TAIL * self.popular, (len(asked), 1))
        newest = 1.0 / (1.0 + age_rank(asked))
        known = asked.item >= 2
        np.maximum.at(scores, (asked.rows()[known], asked.item[known]), newest[known].astype(np.float32))
        return scores

    def state(self) -> dict[str, NDArray[Any]]:
        return {"popular": self.popular}

    def load(self, state: dict[str, NDArray[Any]]) -> None:
        self.popular = state["popular"]

    @property
    def parameters(self) -> int:
        return len(self.popular)


class OwnFrequency(RepeatLast):
    """The user's own items, counted with an exponential decay; then popularity.

    The decay is a share of the log's span; validation chooses it. On logs of repeat purchases hard to beat.
    """

    name: ClassVar[str] = "own-frequency"
    grid: ClassVar[list[dict[str, Any]]] = [{"decay": share} for share in (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)]

    def __init__(self, decay: float = 0.3) -> None:
        self.decay = decay

    def fit(self, train: Histories, items: int) -> None:
        super().fit(train, items)
        self.days = np.array([self.decay * span_days(train)])

    def score(self, asked: Histories) -> NDArray[np.float32]:
        age = age_days(asked)
        full = np.diff(asked.offsets) > 0
        newest = np.zeros(len(asked))
        newest[full] = age[asked.offsets[1:][full] - 1]
        # counted from the user's newest event: the order of own items stays, and a long silence lets none sink to zero
        weights = np.exp(-(age - np.repeat(newest, np.diff(asked.offsets))) / self.days[0])
        return np.asarray(matrix(asked, len(self.popular), weights).toarray() + TAIL * self.popular, np.float32)

    def state(self) -> dict[str, NDArray[Any]]:
        return {"popular": self.popular, "days": self.days}

    def load(self, state: dict[str, NDArray[Any]]) -> None:
        super().load(state)
        self.days = state["days"]
