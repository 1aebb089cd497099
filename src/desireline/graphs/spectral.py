"""Item vectors from the co-visit graph: items that stand near each other in histories begin near each other.

The symmetric graph of neighbours in histories, normalised by degrees (Ng, Jordan & Weiss 2002), its largest
eigenvectors, each times the root of its eigenvalue, turned at random so that no coordinate stands out. A start needs
no last digits: a few steps of Chebyshev-filtered subspace iteration (Zhou, Saad, Tiago & Chelikowsky 2006, algorithm
4.3) find them to a few thousandths in an eighth of ARPACK's time, and cannot fail to converge.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array, diags_array

from desireline.evaluation.queries import Histories
from desireline.graphs.pairs import count_pairs

REACH, DECAY = 10, 3.0  # events between two items, at most; a pair counts exp(−(distance − 1) / DECAY)
MOST = 200  # neighbours kept of an item
SPARE, STEPS, DEGREE = 16, 3, 12  # directions beyond those asked for; filters, of so many products each
LARGEST = 200_000  # items that take part, those with the most neighbours: bounds memory


def spectral_vectors(train: Histories, items: int, d: int, seed: int) -> NDArray[np.float32]:
    """float32 [items, d] of deviation 1, rows of items without a neighbour are nan.

    Needs `d` items with neighbours; with fewer all rows are nan. Cost: the pairs, and STEPS·DEGREE products of the
    graph's matrix with d + SPARE columns; memory: 12·(d + SPARE) bytes an item.
    """
    weight = np.exp(-np.arange(REACH) / DECAY).astype(np.float32)
    table, _ = count_pairs(train, items, weight, 1.0, MOST)
    graph = csr_array(table + table.T)
    graph.setdiag(0)
    degree = np.asarray(graph.sum(axis=1)).ravel()
    known = np.sort(np.argsort(-degree, kind="stable")[: min(LARGEST, int((degree > 0).sum()))])
    vectors = np.full((items, d), np.nan, np.float32)
    if len(known) < d:
        return vectors
    root = diags_array(1 / np.sqrt(degree[known]))
    part = csr_array(root @ graph[known][:, known] @ root).astype(np.float32)
    rng = np.random.default_rng(seed)
    values, found = _largest(part, rng.standard_normal((len(known), min(d + SPARE, len(known))), np.float32))
    turn, _ = np.linalg.qr(rng.standard_normal((d, d)))
    made = found[:, -d:] @ (np.sqrt(np.maximum(values[-d:], 0))[:, None] * turn).astype(np.float32)
    # rows to one length first: a popular item's eigenvector entries are larger only for its degree
    made /= np.maximum(np.linalg.norm(made, axis=1, keepdims=True), 1e-12)
    vectors[known] = made / made.std()
    return vectors


def _largest(graph: csr_array, begin: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Largest eigenvalues [k], ascending, and their vectors [n, k], of a symmetric matrix with a spectrum in [−1, 1].

    Each step grows what lies above `low`, the least eigenvalue found so far, by a Chebyshev polynomial that stays small
    on [−1, low].
    """
    found, low = np.linalg.qr(begin)[0], 0.0
    for _ in range(STEPS):
        centre, half = np.float32((low - 1) / 2), np.float32((low + 1) / 2)
        before, grown = found, (graph @ found - centre * found) / half
        for _ in range(DEGREE - 1):
            before, grown = grown, 2 * (graph @ grown - centre * grown) / half - before
        found = np.linalg.qr(grown)[0]
        values, turn = np.linalg.eigh(found.T @ (graph @ found))
        low = max(float(values[0]), 0.0)
    return values, found @ turn
