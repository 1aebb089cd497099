"""Item vectors from the co-visit graph: items that stand near each other in histories begin near each other.

The symmetric graph of neighbours in histories, normalised by degrees (Ng, Jordan & Weiss 2002), its largest
eigenvectors, each times the root of its eigenvalue, turned at random so that no coordinate stands out.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array, diags_array
from scipy.sparse.linalg import eigsh

from desireline.evaluation.queries import Histories
from desireline.graphs.pairs import count_pairs

REACH, DECAY = 10, 3.0  # events between two items, at most; a pair counts exp(−(distance − 1) / DECAY)
MOST = 200  # neighbours kept of an item
LEAST = 3  # items beyond the dimensions, else there are no so many eigenvectors


def spectral_vectors(train: Histories, items: int, d: int, seed: int) -> NDArray[np.float32]:
    """float32 [items, d] of deviation 1, rows of items without a neighbour are nan.

    Needs `d + LEAST` items with neighbours; with fewer all rows are nan. Cost: the pairs, and about 20·d products of
    the graph's matrix.
    """
    weight = np.exp(-np.arange(REACH) / DECAY).astype(np.float32)
    table, _ = count_pairs(train, items, weight, 1.0, MOST)
    graph = csr_array(table + table.T)
    graph.setdiag(0)
    degree = np.asarray(graph.sum(axis=1)).ravel()
    known = np.flatnonzero(degree > 0)
    vectors = np.full((items, d), np.nan, np.float32)
    if len(known) < d + LEAST:
        return vectors
    part = graph[known][:, known]
    root = diags_array(1 / np.sqrt(degree[known]))
    rng = np.random.default_rng(seed)
    values, found = eigsh(root @ part @ root, k=d, which="LA", v0=rng.standard_normal(len(known)), tol=1e-3)
    turn, _ = np.linalg.qr(rng.standard_normal((d, d)))
    made = (found * np.sqrt(np.maximum(values, 0))) @ turn
    # rows to one length first: a popular item's eigenvector entries are larger only for its degree
    made /= np.maximum(np.linalg.norm(made, axis=1, keepdims=True), 1e-12)
    vectors[known] = made / made.std()
    return vectors
