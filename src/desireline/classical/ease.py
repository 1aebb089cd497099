"""EASE: a linear item-item model in closed form (Steck 2019, arXiv 1905.03375, equation 8)."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import lapack

from desireline.classical.arrays import FIRST, counts, matrix
from desireline.core.errors import DataError
from desireline.evaluation.queries import Histories

MOST_ITEMS = 8_000  # a dense matrix of so many items takes 256 MB


class Ease:
    """Item weights B = I − P / diag(P), P the inverse of XᵀX + λI over the users' item sets.

    Catalogues above MOST_ITEMS: the most frequent ones have weights, the others stand below them by popularity.
    `penalty` is λ.
    """

    name: ClassVar[str] = "ease"
    grid: ClassVar[list[dict[str, Any]]] = [{"penalty": p} for p in (30.0, 100.0, 300.0, 1000.0)]

    def __init__(self, penalty: float = 100.0) -> None:
        self.penalty = penalty

    def fit(self, train: Histories, items: int) -> None:
        seen = counts(train, items)
        ranked = np.argsort(-seen[FIRST:], kind="stable")[:MOST_ITEMS] + FIRST
        self.kept = np.sort(ranked[seen[ranked] > 0]).astype(np.int32)
        popular = seen / max(1.0, float(seen.sum()))
        self.popular = popular.astype(np.float32)
        users = matrix(train, items)[:, self.kept]
        users.data[:] = 1
        gram = (users.T @ users).toarray().astype(np.float32)
        gram[np.diag_indices_from(gram)] += np.float32(self.penalty)
        # Cholesky, then the inverse from it: a third of the time of a general inversion
        factor, failed = lapack.spotrf(gram, lower=1, overwrite_a=1)
        inverse, failed_too = lapack.spotri(factor, lower=1, overwrite_c=1)
        if failed or failed_too:
            raise DataError("EASE: the item-item matrix cannot be inverted; use a larger penalty.")
        inverse = np.tril(inverse) + np.tril(inverse, -1).T
        self.weights = np.asarray(-inverse / np.diag(inverse), np.float32)
        np.fill_diagonal(self.weights, 0)

    def score(self, asked: Histories) -> NDArray[np.float32]:
        had = matrix(asked, len(self.popular))[:, self.kept]
        had.data[:] = 1
        scores = np.tile(self.popular - np.float32(10), (len(asked), 1))
        scores[:, self.kept] = had @ self.weights + np.float32(1e-6) * self.popular[self.kept]
        return scores

    def state(self) -> dict[str, NDArray[Any]]:
        return {"kept": self.kept, "popular": self.popular, "weights": self.weights}

    def load(self, state: dict[str, NDArray[Any]]) -> None:
        self.kept, self.popular, self.weights = state["kept"], state["popular"], state["weights"]

    @property
    def parameters(self) -> int:
        return self.weights.size
