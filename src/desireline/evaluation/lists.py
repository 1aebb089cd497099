"""What lists look like beside each other: do they reach the catalogue, differ between users, and differ from popularity?"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def list_statistics(lists: NDArray[np.int32], counts: NDArray[np.int64]) -> dict[str, float]:
    """Of lists int32 [Q, n] (0 where a place is empty) and the items' counts in the training events [items].

    coverage@n : share of the known items that stand in any list;  identical lists : share of lists that repeat another;
    popularity overlap : mean share of a list that stands among the n most popular items
    """
    n = lists.shape[1]
    shown = np.unique(lists[lists > 0])
    known = max(1, len(counts) - 2)
    popular = np.argsort(-counts[2:], kind="stable")[:n] + 2
    overlap = np.isin(lists, popular).sum(axis=1) / max(1, min(n, known))
    identical = 1 - len(np.unique(np.sort(lists, axis=1), axis=0)) / max(1, len(lists))
    return {
        f"coverage@{n}": float(len(shown) / known),
        "identical lists": float(identical),
        "popularity overlap": float(overlap.mean()) if len(lists) else 0.0,
    }
