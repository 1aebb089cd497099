"""Neighbours among users: TIFU-kNN over decayed item frequencies, session-kNN over recent histories.

Both compare a question with the LATEST most recent histories, through an index from items to the users that had them,
and let the nearest vote. One question at a time: nothing of size questions × users is held.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numba
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from desireline.classical.arrays import TAIL, age_rank, matrix, shares
from desireline.classical.sparse_state import from_arrays, narrow, to_arrays
from desireline.evaluation.blocks import over_blocks
from desireline.evaluation.queries import Histories
from desireline.graphs.pairs import nth

LATEST = 50_000  # histories that are compared with


class TifuKNN:
    """Temporal item frequency (Hu et al. 2020, arXiv 2006.00556): own decayed counts, blended with the neighbours'.

    Baskets are events of equal time; an item counts once a basket. Baskets are grouped by `group`, the oldest group may
    be shorter. A basket's weight falls by `within` from basket to basket of a group, a group's by `across` from group
    to group; both levels are means. `alpha` is the share of the user's own vector.

    Neighbours are the nearest by cosine. The paper's Euclidean distance takes whoever has next to nothing for near, a
    weaker baseline wherever it was tried (Online Retail II: NDCG@10 .307 against .310, on new items .038 against .054).
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

    def vectors(self, asked: Histories, items: int) -> csr_array:
        """[Q, items]: each history's decayed frequencies."""
        rows = asked.rows()
        new = np.ones(len(rows), bool)
        new[1:] = (rows[1:] != rows[:-1]) | (asked.time[1:] != asked.time[:-1])
        basket = np.cumsum(new) - 1
        once = np.unique(basket << 32 | asked.item, return_index=True)[1]
        baskets = np.bincount(rows[new], minlength=len(asked))  # of each history
        ago = np.cumsum(baskets)[rows] - 1 - basket
        group = ago // self.group
        oldest = (baskets[rows] - 1) // self.group
        size = np.where(group < oldest, self.group, baskets[rows] - oldest * self.group)
        weights = np.zeros(len(rows))
        weights[once] = (self.within ** (ago % self.group) * self.across**group / (size * (oldest + 1)))[once]
        return matrix(asked, items, weights)

    def fit(self, train: Histories, items: int) -> None:
        self._index(csr_array(self.vectors(train, items)[_latest(train)]))
        self.popular = shares(train, items)

    def _index(self, table: csr_array) -> None:
        norms = np.sqrt(np.asarray(table.multiply(table).sum(axis=1)).ravel())
        self.table, self.by_item = narrow(table), narrow(csr_array(table.T.tocsr()))
        self.by_item.data = (self.by_item.data / norms[self.by_item.indices]).astype(np.float32)

    def score(self, asked: Histories) -> NDArray[np.float32]:
        own = self.vectors(asked, len(self.popular))
        scores = np.zeros((len(asked), len(self.popular)), np.float32)
        _vote(own, self.by_item, self.table, self.neighbours, False, scores)
        scores *= np.float32(1 - self.alpha)
        scores += np.float32(self.alpha) * own.toarray()
        return scores + TAIL * self.popular

    def state(self) -> dict[str, NDArray[Any]]:
        return to_arrays("table", self.table) | {"popular": self.popular}

    def load(self, state: dict[str, NDArray[Any]]) -> None:
        self._index(from_arrays("table", state))
        self.popular = state["popular"]

    @property
    def parameters(self) -> int:
        return int(self.table.nnz)


class SessionKNN:
    """Vector multiplication session-kNN (Ludewig & Jannach 2018): histories that share the newest items vote.

    `memory` is the number of the user's newest events that are compared, linearly decayed and weighted by the items'
    rarity; of the histories compared with, the last `memory` × 4 events count. `neighbours` vote, weighted by likeness.
    """

    name: ClassVar[str] = "session-knn"
    grid: ClassVar[list[dict[str, Any]]] = [
        {"neighbours": n, "memory": m} for n, m in [(100, 5), (500, 5), (100, 20), (500, 20)]
    ]

    def __init__(self, neighbours: int = 100, memory: int = 20) -> None:
        self.neighbours, self.memory = neighbours, memory

    def fit(self, train: Histories, items: int) -> None:
        table = matrix(train, items, (age_rank(train) < self.memory * 4).astype(np.float32))[_latest(train)]
        table.eliminate_zeros()
        table.data[:] = 1
        self._index(csr_array(table))
        self.popular = shares(train, items)

    def _index(self, table: csr_array) -> None:
        self.table, by_item = narrow(table), narrow(csr_array(table.T.tocsr()))
        self.rarity = np.log(max(2, table.shape[0]) / np.maximum(1, np.diff(by_item.indptr))).astype(np.float32)
        by_item.data = (1 / np.sqrt(np.maximum(1, np.diff(table.indptr))))[by_item.indices].astype(np.float32)
        self.by_item = by_item

    def score(self, asked: Histories) -> NDArray[np.float32]:
        rank = age_rank(asked)
        weights = np.where(rank < self.memory, 1 - rank / self.memory, 0)
        reader = matrix(asked, len(self.popular), weights * self.rarity[asked.item])
        scores = np.zeros((len(asked), len(self.popular)), np.float32)
        _vote(reader, self.by_item, self.table, self.neighbours, True, scores)
        scores *= 1 + self.rarity
        return scores + TAIL * self.popular

    def state(self) -> dict[str, NDArray[Any]]:
        return to_arrays("table", self.table) | {"popular": self.popular}

    def load(self, state: dict[str, NDArray[Any]]) -> None:
        self._index(from_arrays("table", state))
        self.popular = state["popular"]

    @property
    def parameters(self) -> int:
        return int(self.table.nnz)


def _latest(train: Histories) -> NDArray[np.int64]:
    """Rows of the LATEST histories by their last event, in their own order; empty ones are none."""
    held = np.flatnonzero(np.diff(train.offsets) > 0)
    newest = train.time[train.offsets[held + 1] - 1]
    return np.sort(held[np.argsort(-newest, kind="stable")[:LATEST]])


def _vote(
    reader: csr_array,
    by_item: csr_array,
    table: csr_array,
    neighbours: int,
    weighted: bool,
    out: NDArray[np.float32],
) -> None:
    """Add to out [Q, items] the mean of the nearest rows of `table`, `weighted` by nearness or not.

    reader [Q, items] @ by_item [items, U] tells nearness; who has nothing in common is never near.
    """
    parts = [
        (m.indptr.astype(np.int64), m.indices.astype(np.int32, copy=False), m.data.astype(np.float32, copy=False))
        for m in (reader, by_item, table)
    ]
    a, b, c = parts
    over_blocks(len(out), lambda lo, hi: _votes(*a, *b, *c, neighbours, weighted, out, lo, hi), least=8)


@numba.njit(cache=True, nogil=True)
def _votes(
    asked_at: NDArray[np.int64],
    asked_item: NDArray[np.int32],
    asked_weight: NDArray[np.float32],
    item_at: NDArray[np.int64],
    item_user: NDArray[np.int32],
    item_weight: NDArray[np.float32],
    user_at: NDArray[np.int64],
    user_item: NDArray[np.int32],
    user_weight: NDArray[np.float32],
    neighbours: int,
    weighted: bool,
    out: NDArray[np.float32],
    lo: int,
    hi: int,
) -> None:  # pragma: no cover
    users = len(user_at) - 1
    count = min(neighbours, users)
    if count == 0:
        return
    near = np.empty(users, np.float32)
    for q in range(lo, hi):
        near[:] = 0
        for n in range(asked_at[q], asked_at[q + 1]):
            item = asked_item[n]
            for m in range(item_at[item], item_at[item + 1]):
                near[item_user[m]] += asked_weight[n] * item_weight[m]
        border = nth(near.copy(), users - count)
        room = count - (near > border).sum()  # at the border the first users, until there are enough
        for user in range(users):
            if near[user] < border or near[user] <= 0:
                continue
            if near[user] == border:
                if room == 0:
                    continue
                room -= 1
            weight = (near[user] if weighted else np.float32(1)) / np.float32(count)
            for m in range(user_at[user], user_at[user + 1]):
                out[q, user_item[m]] += weight * user_weight[m]
