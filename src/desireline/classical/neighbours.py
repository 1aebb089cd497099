"""Which item follows which: the last item alone (Markov), or a directed, decayed count over the whole recent history.

The neighbour model counts each pair of a user's sequence by its distance, a share of it backwards, adds two-hop paths,
tempers popular rows and columns, and reads a history with a steep decay. It fits in one pass and equals a transformer on
sparse logs, so that it is the k-nearest-neighbours row of every table.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numba
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array, csr_array, diags_array

from desireline.classical.arrays import age_rank, counts, matrix
from desireline.classical.sparse_state import from_arrays, to_arrays
from desireline.evaluation.queries import Histories

REACH = 50  # events that a pair may lie apart, and that a history is read back
TWO_HOP_PAIRS = 3_000_000  # above so many pairs the two-hop product would not fit into memory, and data abounds


class Markov:
    """Items by how often they followed the user's last item; then popularity."""

    name: ClassVar[str] = "markov"
    grid: ClassVar[list[dict[str, Any]]] = [{}]

    def fit(self, train: Histories, items: int) -> None:
        follows = np.ones(len(train.item), bool)
        follows[train.offsets[:-1][np.diff(train.offsets) > 0]] = False
        after = np.flatnonzero(follows)
        pairs = (train.item[after - 1], train.item[after])
        self.follow = csr_array((np.ones(len(after), np.float32), pairs), shape=(items, items))
        self.follow.sum_duplicates()
        popular = counts(train, items)
        self.popular = (popular / max(1.0, float(popular.sum()))).astype(np.float32)

    def score(self, asked: Histories) -> NDArray[np.float32]:
        last = matrix(asked, len(self.popular), (age_rank(asked) == 0).astype(np.float32))
        return np.asarray((last @ self.follow).toarray() + 0.5 * self.popular, np.float32)

    def state(self) -> dict[str, NDArray[Any]]:
        return to_arrays("follow", self.follow) | {"popular": self.popular}

    def load(self, state: dict[str, NDArray[Any]]) -> None:
        self.follow, self.popular = from_arrays("follow", state), state["popular"]

    @property
    def parameters(self) -> int:
        return int(self.follow.nnz)


class ItemKNN:
    """Directed, decayed item-item counts; see the module.

    distance : events over which a pair's weight falls by e;  backward : share of a pair that counts the other way
    age : events over which the reader's memory falls by e;  two_hop : weight of paths over a third item
    """

    name: ClassVar[str] = "item-knn"
    grid: ClassVar[list[dict[str, Any]]] = [
        {"age": 1.5},
        {"age": 5.0},
        {"age": 1.5, "backward": 1.0},
        {"age": 5.0, "backward": 1.0},
        {"age": 25.0, "distance": 25.0, "backward": 1.0},
    ]

    def __init__(self, distance: float = 6.0, backward: float = 0.15, age: float = 1.5, two_hop: float = 0.15) -> None:
        self.distance, self.backward, self.age, self.two_hop = distance, backward, age, two_hop

    def fit(self, train: Histories, items: int) -> None:
        weight = np.exp(-np.arange(REACH) / self.distance).astype(np.float32)
        first, second, value = _pairs(train.item, train.offsets, weight)
        forward = coo_array((value, (first, second)), shape=(items, items)).tocsr()
        counted = csr_array(forward + self.backward * forward.T)
        rows = np.asarray(counted.sum(axis=1)).ravel()
        if self.two_hop and counted.nnz <= TWO_HOP_PAIRS:
            share = csr_array(diags_array(1 / (rows + 1)) @ counted)
            counted = csr_array(counted + self.two_hop * (diags_array(rows) @ (share @ share)))
        counted.setdiag(0)
        counted.eliminate_zeros()
        seen = counts(train, items)
        scaled = diags_array((seen + 1) ** -0.5) @ counted @ diags_array((seen + 1) ** -0.1)
        self.neighbours = csr_array(scaled.astype(np.float32))
        self.popular = (seen / max(1.0, float(seen.sum()))).astype(np.float32)

    def score(self, asked: Histories) -> NDArray[np.float32]:
        rank = age_rank(asked)
        weights = np.where(rank < REACH, np.exp(-rank / self.age), 0).astype(np.float32)
        reader = matrix(asked, len(self.popular), weights)
        return np.asarray((reader @ self.neighbours).toarray() + np.float32(1e-6) * self.popular, np.float32)

    def state(self) -> dict[str, NDArray[Any]]:
        return to_arrays("neighbours", self.neighbours) | {"popular": self.popular}

    def load(self, state: dict[str, NDArray[Any]]) -> None:
        self.neighbours, self.popular = from_arrays("neighbours", state), state["popular"]

    @property
    def parameters(self) -> int:
        return int(self.neighbours.nnz)


@numba.njit(cache=True, nogil=True)
def _pairs(
    item: NDArray[np.int32], offsets: NDArray[np.int64], weight: NDArray[np.float32]
) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.float32]]:  # pragma: no cover
    """Every ordered pair of one user's items at most len(weight) events apart, with the weight of its distance."""
    reach, total = len(weight), 0
    for user in range(len(offsets) - 1):
        n = offsets[user + 1] - offsets[user]
        near = min(n - 1, reach) if n else 0
        total += near * (near + 1) // 2 + max(0, n - 1 - reach) * reach
    first, second, value = np.empty(total, np.int32), np.empty(total, np.int32), np.empty(total, np.float32)
    at = 0
    for user in range(len(offsets) - 1):
        for j in range(offsets[user], offsets[user + 1]):
            for i in range(max(offsets[user], j - reach), j):
                first[at], second[at], value[at] = item[i], item[j], weight[j - i - 1]
                at += 1
    return first[:at], second[:at], value[:at]
