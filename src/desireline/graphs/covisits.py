"""The co-visit graph: which items stand near each other in histories, and the nearest of each item.

An edge's weight is the sum over all pairs of both items' events in one history, at most REACH events apart, of
exp(−(distance − 1) / DECAY). It is made of the histories given, those before a cut, and of nothing else.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array, diags_array

from desireline.evaluation.queries import Histories
from desireline.graphs.pairs import count_pairs

REACH, DECAY = 10, 3.0  # events between two items, at most; a pair counts exp(−(distance − 1) / DECAY)
MOST = 200  # neighbours kept of an item


def covisits(train: Histories, items: int) -> csr_array:
    """Symmetric weights [items, items], nothing on the diagonal."""
    weight = np.exp(-np.arange(REACH) / DECAY).astype(np.float32)
    table, _ = count_pairs(train, items, weight, 1.0, MOST)
    graph = csr_array(table + table.T)
    graph.setdiag(0)
    return graph


def neighbours(train: Histories, items: int, most: int) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Ids int32 [items, most] of each item's strongest neighbours, and shares float32 [items, most] that sum to 1.

    Strength is an edge's weight over the roots of both degrees, so that what is near everything is near nothing; equal
    ones go by id. Where fewer are left, ids are 0 and shares 0.
    """
    graph = covisits(train, items)
    graph.eliminate_zeros()
    graph.sort_indices()
    root = diags_array(1 / np.sqrt(np.maximum(np.asarray(graph.sum(axis=1)).ravel(), 1e-12)))
    strength = csr_array(root @ graph @ root)
    row = np.repeat(np.arange(items), np.diff(strength.indptr))
    falling = np.lexsort((strength.indices, -strength.data, row))
    rank = np.arange(len(row)) - strength.indptr[:-1][row]
    kept = rank < most
    ids, shares = np.zeros((items, most), np.int32), np.zeros((items, most), np.float32)
    ids[row[kept], rank[kept]] = strength.indices[falling][kept]
    shares[row[kept], rank[kept]] = strength.data[falling][kept]
    return ids, shares / np.maximum(shares.sum(axis=1, keepdims=True), 1e-12)
