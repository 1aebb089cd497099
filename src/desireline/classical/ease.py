"""EASE: a linear item-item model in closed form (Steck 2019, arXiv 1905.03375, equation 8)."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import lapack
from scipy.sparse import csr_array

from desireline.classical.arrays import DAY_US, TAIL, counts, matrix, shares, span_days
from desireline.core.errors import DataError
from desireline.evaluation.queries import Histories

MOST_ITEMS = 8_000  # a dense matrix of so many items takes 256 MB, and inverting it some ten seconds
FAR_BELOW = np.float32(-100.0)  # where the rest stands; weights and their sums stay within a few units


class Ease:
    """Item weights B = I − P / diag(P), P the inverse of XᵀX + λI over the users' item sets.

    In catalogues of more than `most` items the most frequent ones have weights; the others, and those that nobody had,
    stand far below them in the order of popularity. `penalty` is λ. Memory while fitting: about two dense matrices of
    the kept items.
    """

    name: ClassVar[str] = "ease"
    grid: ClassVar[list[dict[str, Any]]] = [{"penalty": p} for p in (30.0, 100.0, 300.0, 1000.0)]

    def __init__(self, penalty: float = 100.0, most: int = MOST_ITEMS) -> None:
        self.penalty, self.most = penalty, most

    def fit(self, train: Histories, items: int) -> None:
        seen = counts(train, items)
        ranked = np.argsort(-seen, kind="stable")
        kept = np.sort(ranked[: self.most])
        self.kept = kept[seen[kept] > 0].astype(np.int32)
        self.start = np.empty(items, np.float32)
        self.start[ranked] = FAR_BELOW * (1 + np.arange(items, dtype=np.float32) / items)
        self.start[self.kept] = TAIL * shares(train, items)[self.kept]
        self.weights = self._weights(matrix(train, items)[:, self.kept])

    def _weights(self, users: csr_array) -> NDArray[np.float32]:
        users.data[:] = 1
        if users.shape[1] == 0:  # a log without any known item
            return np.zeros((0, 0), np.float32)
        few = 2 * users.shape[0] < users.shape[1]
        inverse = _inverse_by_users(users, self.penalty) if few else _inverse_by_items(users, self.penalty)
        inverse /= -np.diag(inverse).copy()
        np.fill_diagonal(inverse, 0)
        return inverse

    def score(self, asked: Histories) -> NDArray[np.float32]:
        had = matrix(asked, len(self.start))[:, self.kept]
        had.data[:] = 1
        scores = np.tile(self.start, (len(asked), 1))
        scores[:, self.kept] += had @ self.weights
        return scores

    def state(self) -> dict[str, NDArray[Any]]:
        return {"kept": self.kept, "start": self.start, "weights": self.weights}

    def load(self, state: dict[str, NDArray[Any]]) -> None:
        self.kept, self.start, self.weights = state["kept"], state["start"], state["weights"]

    @property
    def parameters(self) -> int:
        return self.weights.size


class RecentEase(Ease):
    """EASE over each user's events of late: what goes together now, where assortments and seasons change.

    recent : the last share of the log's span that is learnt from
    """

    name: ClassVar[str] = "recent-ease"
    grid: ClassVar[list[dict[str, Any]]] = [
        {"penalty": penalty, "recent": recent} for penalty in (100.0, 300.0) for recent in (0.1, 0.25)
    ]

    def __init__(self, penalty: float = 100.0, most: int = MOST_ITEMS, recent: float = 0.25) -> None:
        super().__init__(penalty, most)
        self.recent = recent

    def fit(self, train: Histories, items: int) -> None:
        newest = int(train.time.max(initial=0))
        kept = train.time >= newest - self.recent * span_days(train) * DAY_US
        offsets = np.concatenate([[0], np.cumsum(kept)])[train.offsets]
        super().fit(Histories(offsets, train.item[kept], train.time[kept], train.as_of), items)


def _inverse_by_items(users: csr_array, penalty: float) -> NDArray[np.float32]:
    """(XᵀX + λI)⁻¹ by Cholesky: a third of the time of a general inversion."""
    gram = (users.T @ users).toarray().astype(np.float32, copy=False)
    gram[np.diag_indices_from(gram)] += np.float32(penalty)
    # The matrix is symmetric, so that its transpose is the Fortran order in which LAPACK works in place.
    factor, failed = lapack.spotrf(gram.T, lower=1, clean=0, overwrite_a=1)
    inverse, failed_too = lapack.spotri(factor, lower=1, overwrite_c=1)
    if failed or failed_too:
        raise DataError("EASE: the item-item matrix cannot be inverted; use a larger penalty.")
    for lo in range(0, len(inverse), 1024):  # mirror the lower triangle
        hi = lo + 1024
        inverse[lo:hi, hi:] = inverse[hi:, lo:hi].T
        corner = inverse[lo:hi, lo:hi]
        corner[:] = np.tril(corner) + np.tril(corner, -1).T
    return np.ascontiguousarray(inverse.T)


def _inverse_by_users(users: csr_array, penalty: float) -> NDArray[np.float32]:
    """The same where users are few: (I − Xᵀ (XXᵀ + λI)⁻¹ X) / λ, Woodbury's identity."""
    alike = (users @ users.T).toarray().astype(np.float64)
    alike[np.diag_indices_from(alike)] += penalty
    spread = np.linalg.solve(alike, users.toarray().astype(np.float64)).astype(np.float32)
    inverse = np.asarray(users.T @ spread, np.float32)
    np.negative(inverse, out=inverse)
    inverse[np.diag_indices_from(inverse)] += 1
    inverse /= np.float32(penalty)
    return inverse
