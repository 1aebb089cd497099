"""How one score is made of what several sources think of an item."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from desireline.evaluation.blocks import over_lines
from desireline.evaluation.queries import Histories
from desireline.tasks.ranker import Ranker


class Judge(Protocol):
    """Sources' opinions in, one opinion out."""

    name: ClassVar[str]  # the row's name

    def __call__(self, thought: Sequence[NDArray[np.float32]], asked: Histories) -> NDArray[np.float32]:
        """float32 [Q, items] of what each source thinks, [Q, items] each, for questions with these histories."""

    def at(self, train: Histories, items: int, at_us: int) -> Judge:
        """The judge as of the training histories of another cut, `at_us`; `items` is the catalogue's size, all ids."""

    def told(self, source: int) -> Any:
        """What a table says of the source: its weight, or how much it was used."""

    def state(self) -> dict[str, NDArray[Any]]:
        """What was learnt, as arrays."""

    @classmethod
    def load(cls, state: dict[str, NDArray[Any]]) -> Judge:
        """The judge that gave `state`."""

    @property
    def parameters(self) -> int:
        """Learnt numbers."""


class Blend:
    """A log-linear mixture: the sum of log shares, each times its source's weight."""

    name: ClassVar[str] = "blend"

    def __init__(self, weights: NDArray[np.float32]) -> None:
        self.weights = weights

    def __call__(self, thought: Sequence[NDArray[np.float32]], asked: Histories) -> NDArray[np.float32]:
        mixed = np.empty_like(thought[0])

        def run(lo: int, hi: int) -> None:
            np.multiply(self.weights[0], thought[0][lo:hi], out=mixed[lo:hi])
            for weight, logs in zip(self.weights[1:], thought[1:], strict=True):
                mixed[lo:hi] += weight * logs[lo:hi]

        over_lines(mixed.shape, run)
        return mixed

    def at(self, train: Histories, items: int, at_us: int) -> Blend:
        return self

    def told(self, source: int) -> float:
        return round(float(self.weights[source]), 4)

    def state(self) -> dict[str, NDArray[Any]]:
        return {"weights": self.weights}

    @classmethod
    def load(cls, state: dict[str, NDArray[Any]]) -> Blend:
        return cls(state["weights"])

    @property
    def parameters(self) -> int:
        return len(self.weights)


JUDGES: dict[str, type[Judge]] = {"blend": Blend, "ranker": Ranker}
