"""Shared arithmetic of the recommenders: histories as sparse matrices, age weights."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from desireline.evaluation.queries import Histories

DAY_US = 86_400_000_000
FIRST = 2  # ids 0 and 1 are no items
TAIL = np.float32(1e-6)  # of popularity, below any other score: it orders what a model knows nothing of


def matrix(asked: Histories, items: int, weights: NDArray[np.floating] | None = None) -> csr_array:
    """float32 [Q, items]: the weights of each history's events summed an item; 1 an event without weights."""
    known = asked.item >= FIRST
    data = np.ones(int(known.sum()), np.float32) if weights is None else weights[known].astype(np.float32)
    made = csr_array((data, (asked.rows()[known], asked.item[known])), shape=(len(asked), items))
    made.sum_duplicates()
    return made


def age_days(asked: Histories) -> NDArray[np.float64]:
    """float64 [N]: days between each event and its history's moment."""
    return np.asarray((np.repeat(asked.as_of, np.diff(asked.offsets)) - asked.time) / DAY_US, np.float64)


def age_rank(asked: Histories) -> NDArray[np.int64]:
    """int64 [N]: 0 for each history's newest event, 1 for the one before."""
    return np.repeat(asked.offsets[1:], np.diff(asked.offsets)) - 1 - np.arange(len(asked.item))


def span_days(train: Histories) -> float:
    """Days between the first and the last event; at least a second."""
    if len(train.time) == 0:
        return 1.0
    return max(float(train.time.max() - train.time.min()) / DAY_US, 1e-5)


def counts(train: Histories, items: int) -> NDArray[np.float32]:
    """float32 [items]: events of each item; 0 for the ids that are no items."""
    found = np.bincount(train.item, minlength=items).astype(np.float32)
    found[:FIRST] = 0
    return found


def shares(train: Histories, items: int) -> NDArray[np.float32]:
    """float32 [items]: each item's share of the events."""
    return normalised(counts(train, items))


def normalised(found: NDArray[np.float32]) -> NDArray[np.float32]:
    """float32 [items]: counts [items] as shares of their sum."""
    return np.asarray(found / max(np.float32(1), found.sum()), np.float32)
