"""Neighbours among users: TIFU-kNN over decayed item frequencies, session-kNN over recent histories."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from desireline.classical.arrays import age_rank, counts, matrix
from desireline.classical.sparse_state import from_arrays, to_arrays
from desireline.evaluation.queries import Histories

LATEST = 50_000  # histories that session-kNN keeps: the latest ones


class TifuKNN:
    """Temporal item frequency (Hu et al. 2020, arXiv 2006.00556): own decayed counts, blended with the neighbours'.

    Baskets are events of equal time. A basket's weight falls by `within` from basket to basket inside a group of
    `group` baskets and by `across` from group to group; `alpha` is the share of the user's own vector.
    """

    name: ClassVar[str] = "tifu-knn"
    grid: ClassVar[list[dict[str, Any]]] = [
        {"neighbours": n, "alpha": a, "across": r}
        for n, a, r in [(300, 0.7, 0.7), (300, 0.9, 0.7), (300, 0.7, 0.9), (100, 0.5, 0.9)]
    ]

    def __init__(
        self, neighbours: int = 300, alpha: float = 0.7, within: float = 0.9, across: float = 0.7, group: int = 7
    ) -> None:
        self.neighbours, self.alpha, self.within, self.across, self.group = neighbours, alpha, within, across, group

    def _vectors(self, asked: Histories, items: int) -> csr_array:
        rows = asked.rows()
        new = np.ones(len(rows), bool)
        new[1:] = (rows[1:] != rows[:-1]) | (asked.time[1:] != asked.time[:-1])
        number = np.cumsum(new) - 1
        last = number[np.maximum(asked.offsets[1:] - 1, 0)] if len(number) else np.zeros(len(asked), np.int64)
        ago = np.repeat(last, np.diff(asked.offsets)) - number  # baskets since
        group = ago // self.group
        size = np.minimum(self.group, np.repeat(np.maximum(1, last - np.append(0, last[:-1])), np.diff(asked.offsets)))
        weights = self.within ** (ago % self.group) / size * self.across**group
        return matrix(asked, items, weights)

    def fit(self, train: Histories, items: int) -> None:
        self.table = self._vectors(train, items)
        norms = np.sqrt(np.asarray(self.table.multiply(self.table).sum(axis=1)).ravel())
        self.norms = np.maximum(norms, 1e-9).astype(np.float32)
        popular = counts(train, items)
        self.popular = (popular / max(1.0, float(popular.sum()))).astype(np.float32)

    def score(self, asked: Histories) -> NDArray[np.float32]:
        own = self._vectors(asked, len(self.popular))
        norms = np.maximum(np.sqrt(np.asarray(own.multiply(own).sum(axis=1)).ravel()), 1e-9)
        alike = (own @ self.table.T).toarray() / norms[:, None] / self.norms
        mixed = _mean_of_nearest(alike, self.table, self.neighbours)
        scores = self.alpha * own.toarray() + (1 - self.alpha) * mixed + np.float32(1e-6) * self.popular
        return np.asarray(scores, np.float32)

    def state(self) -> dict[str, NDArray[Any]]:
        return to_arrays("table", self.table) | {"norms": self.norms, "popular": self.popular}

    def load(self, state: dict[str, NDArray[Any]]) -> None:
        self.table, self.norms, self.popular = from_arrays("table", state), state["norms"], state["popular"]

    @property
    def parameters(self) -> int:
        return int(self.table.nnz)


class SessionKNN:
    """Vector multiplication session-kNN (Ludewig & Jannach 2018): histories that share the newest items vote.

    `memory` is the number of the user's newest events that are compared, linearly decayed; `neighbours` vote, weighted
    by likeness; only the latest LATEST histories are kept, their last `memory` × 4 events each.
    """

    name: ClassVar[str] = "session-knn"
    grid: ClassVar[list[dict[str, Any]]] = [
        {"neighbours": n, "memory": m} for n, m in [(100, 5), (500, 5), (100, 20), (500, 20)]
    ]

    def __init__(self, neighbours: int = 100, memory: int = 20) -> None:
        self.neighbours, self.memory = neighbours, memory

    def fit(self, train: Histories, items: int) -> None:
        recent = (age_rank(train) < self.memory * 4).astype(np.float32)
        table = matrix(train, items, recent)
        table.eliminate_zeros()
        table.data[:] = 1
        newest = np.full(len(train), np.iinfo(np.int64).min)
        has = np.diff(train.offsets) > 0
        newest[has] = train.time[train.offsets[1:][has] - 1]
        kept = np.sort(np.argsort(-newest, kind="stable")[:LATEST])
        self.table = csr_array(table[kept])
        sizes = np.sqrt(np.maximum(1, np.diff(self.table.indptr)))
        self.scale = (1 / sizes).astype(np.float32)
        users = np.maximum(1, np.asarray(self.table.sum(axis=0)).ravel())
        self.rarity = np.log(max(2, len(kept)) / users).astype(np.float32)
        popular = counts(train, items)
        self.popular = (popular / max(1.0, float(popular.sum()))).astype(np.float32)

    def score(self, asked: Histories) -> NDArray[np.float32]:
        rank = age_rank(asked)
        weights = np.where(rank < self.memory, 1 - rank / self.memory, 0)
        reader = matrix(asked, len(self.popular), weights * self.rarity[asked.item])
        alike = (reader @ self.table.T).toarray() * self.scale
        votes = _mean_of_nearest(alike, self.table, self.neighbours, weighted=True)
        return np.asarray(votes * (1 + self.rarity) + np.float32(1e-6) * self.popular, np.float32)

    def state(self) -> dict[str, NDArray[Any]]:
        return to_arrays("table", self.table) | {"scale": self.scale, "rarity": self.rarity, "popular": self.popular}

    def load(self, state: dict[str, NDArray[Any]]) -> None:
        self.table, self.scale = from_arrays("table", state), state["scale"]
        self.rarity, self.popular = state["rarity"], state["popular"]

    @property
    def parameters(self) -> int:
        return int(self.table.nnz)


def _mean_of_nearest(
    alike: NDArray[np.float32], table: csr_array, neighbours: int, weighted: bool = False
) -> NDArray[np.float32]:
    """float32 [Q, items]: the mean of the most alike rows of `table`, weighted by likeness or not."""
    count = min(neighbours, alike.shape[1])
    nearest = np.argpartition(-alike, count - 1, axis=1)[:, :count]
    likeness = np.take_along_axis(alike, nearest, axis=1)
    weights = np.where(likeness > 0, likeness if weighted else 1.0, 0.0).astype(np.float32)
    rows = np.repeat(np.arange(len(alike)), count)
    chosen = csr_array((weights.ravel(), (rows, nearest.ravel())), shape=(len(alike), table.shape[0]))
    return np.asarray((chosen @ table).toarray() / count, np.float32)
