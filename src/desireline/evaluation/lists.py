"""What lists look like beside each other: do they reach the catalogue, differ between users, and go beyond the popular?

They depend on a model's lists and the training counts alone, so that they can be compared from row to row.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FIRST = 2  # ids 0 and 1 are no items


def list_statistics(lists: NDArray[np.int32], counts: NDArray[np.int64]) -> dict[str, float]:
    """Of lists int32 [Q, n] (0 where a place is empty) and the items' counts in the training events [items].

    coverage@n : share of the known items that stand in any list
    identical lists : share of lists that hold the same items as an earlier one, whatever their order
    popularity overlap : mean share of a list that stands among the n most popular items (ties by id)
    novelty : mean over shown items of −log2 of the item's share of the training events, in bits (Zhou et al. 2010); an
        item never seen counts as seen once
    """
    n = lists.shape[1]
    known = max(1, len(counts) - FIRST)
    shown = lists[lists >= FIRST]
    if not len(shown):
        return {f"coverage@{n}": 0.0, "identical lists": 0.0, "popularity overlap": 0.0, "novelty": 0.0}
    popular = np.argsort(-counts[FIRST:], kind="stable")[:n] + FIRST
    overlap = np.isin(lists, popular).sum(axis=1) / min(n, known)
    share = np.maximum(counts, 1) / max(1, int(counts[FIRST:].sum()))
    return {
        f"coverage@{n}": len(np.unique(shown)) / known,
        "identical lists": 1 - len(np.unique(np.sort(lists, axis=1), axis=0)) / len(lists),
        "popularity overlap": float(overlap.mean()),
        "novelty": float(-np.log2(share[shown]).mean()),
    }
