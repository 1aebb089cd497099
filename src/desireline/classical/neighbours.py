"""Which item follows which: the last item alone (Markov), or a directed, decayed count over the whole recent history.

The neighbour model counts each pair of a user's sequence by its distance, a share of it backwards, adds two-hop paths,
tempers popular rows and columns, and reads a history with a steep decay. It fits in seconds and equals a transformer
on sparse logs, so that it is the k-nearest-neighbours row of every table. Later events are counted as they come.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from desireline.classical.arrays import FIRST, TAIL, age_rank, counts, matrix, normalised, shares
from desireline.classical.products import dense_product
from desireline.classical.sparse_state import from_arrays, narrow, to_arrays
from desireline.evaluation.queries import Histories
from desireline.graphs.pairs import add_paths, count_pairs, strongest

REACH = 50  # events that a pair may lie apart, and that a history is read back
MOST, LEAST = 500, 50  # neighbours kept an item; on Beauty more than 500 change nothing
ENTRIES = 50_000_000  # of the whole table, 8 bytes each: from 100,000 items on rows get shorter


class Markov:
    """Items by how often they followed the user's last item; then popularity."""

    name: ClassVar[str] = "markov"
    grid: ClassVar[list[dict[str, Any]]] = [{}]

    def fit(self, train: Histories, items: int) -> None:
        follows = np.ones(len(train.item), bool)
        follows[train.offsets[:-1][np.diff(train.offsets) > 0]] = False
        after = np.flatnonzero(follows)
        pairs = (train.item[after - 1], train.item[after])
        self.follow = narrow(csr_array((np.ones(len(after), np.float32), pairs), shape=(items, items)))
        self.follow.sum_duplicates()
        self.popular = shares(train, items)

    def score(self, asked: Histories) -> NDArray[np.float32]:
        last = matrix(asked, len(self.popular), (age_rank(asked) == 0).astype(np.float32))
        return dense_product(last, self.follow, np.float32(0.5) * self.popular)

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

    What was counted: `neighbours` [items, items] by `fit`, `later` by `learn`, and of each item the events `seen`
    [items], by which scores are tempered when they are asked for.
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
        most = max(LEAST, min(MOST, ENTRIES // max(1, items)))
        counted, sums = count_pairs(train, items, self._weights(), self.backward, 2 * most)
        self.neighbours = narrow(add_paths(counted, sums, self.two_hop, most))
        self.later = csr_array((items, items), dtype=np.float32)
        self.seen = counts(train, items)

    def learn(self, histories: Histories, fresh: NDArray[np.int64]) -> None:
        """Count the last `fresh` [Q] events of each history, which come after all that was counted so far.

        Of a history only the last REACH + fresh events are read: at most 2·REACH pairs an event. Two-hop paths, and the
        pairs that `fit` dropped as weak, follow with the next `fit`; but for those it gives what `fit` on all gives.
        """
        item, weight = histories.item, self._weights()
        place = np.arange(len(item)) - np.repeat(histories.offsets[:-1], np.diff(histories.offsets))
        new = np.flatnonzero(place >= np.repeat(np.diff(histories.offsets) - fresh, np.diff(histories.offsets)))
        row, back = np.nonzero(place[new][:, None] >= np.arange(1, REACH + 1))
        after, far = new[row], back + 1
        known = (item[after] >= FIRST) & (item[after - far] >= FIRST) & (item[after] != item[after - far])
        earlier, later, value = item[after - far][known], item[after][known], weight[far[known] - 1]
        rows, columns = np.append(earlier, later), np.append(later, earlier)
        values = np.append(value, np.float32(self.backward) * value)
        self.later = narrow(csr_array(self.later + csr_array((values, (rows, columns)), shape=self.later.shape)))
        more = np.bincount(item[new][item[new] >= FIRST], minlength=len(self.seen))
        self.seen = (self.seen + more).astype(np.float32)  # not in place: who holds the state keeps what it was

    def score(self, asked: Histories) -> NDArray[np.float32]:
        rank = age_rank(asked)
        weights = np.where(rank < REACH, np.exp(-rank / self.age), 0) * (self.seen[asked.item] + 1) ** -0.5
        reader = matrix(asked, len(self.seen), weights)
        scores = dense_product(reader, self.neighbours)
        if self.later.nnz:
            scores += dense_product(reader, self.later)
        scores *= (self.seen + 1) ** np.float32(-0.1)
        scores += TAIL * normalised(self.seen)
        return scores

    def followers(self, most: int) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """Ids int32 [items, most] of what follows each item most strongly, tempered as scores are, and their shares,
        float32 [items, most], that sum to 1.

        Equally strong ones go by id; where fewer are left, ids are 0 and shares 0.
        """
        table = csr_array(self.neighbours + self.later)
        table.sort_indices()
        strength = table.data * (self.seen[table.indices] + 1) ** np.float32(-0.1)
        ids, found = strongest(table.indptr.astype(np.int64), table.indices.astype(np.int32), strength, most)
        return ids, found / np.maximum(found.sum(axis=1, keepdims=True), 1e-12)

    def _weights(self) -> NDArray[np.float32]:
        """float32 [REACH]: of a pair of events so far apart, from 1 on."""
        return np.exp(-np.arange(REACH) / self.distance).astype(np.float32)

    def state(self) -> dict[str, NDArray[Any]]:
        return to_arrays("neighbours", self.neighbours) | to_arrays("later", self.later) | {"seen": self.seen}

    def load(self, state: dict[str, NDArray[Any]]) -> None:
        self.neighbours, self.later = from_arrays("neighbours", state), from_arrays("later", state)
        self.seen = state["seen"]

    @property
    def parameters(self) -> int:
        return int(self.neighbours.nnz + self.later.nnz)
