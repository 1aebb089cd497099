"""Accounts that bind targets to each other that nothing bound before: campaigns and rings, at whatever times they act.

Pairs of targets that improbably many accounts share (`graphs.associations`) are joined where they have a target in
common; the accounts of such a cluster are those that have more than half of its targets. A cluster of which nobody has
so much is a chain of fashions and no group.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import connected_components

from desireline.graphs.associations import Associations, associations

Ints = NDArray[np.int64]
LEAST, MOST = 3, 400  # accounts of a cluster; more are a fashion and no group


@dataclass(frozen=True)
class Bond:
    """accounts, targets : int64, ascending;  log_p : corrected for all pairs that any account has

    pair : the two targets that are bound the least likely;  shared, expected : accounts that have both
    """

    accounts: Ints
    targets: Ints
    log_p: float
    pair: tuple[int, int]
    shared: float
    expected: float


def bonds(judged: pl.DataFrame, past: pl.DataFrame, accounts: int, targets: int, alpha: float) -> list[Bond]:
    """Clusters of targets bound with a p-value up to `alpha`, the least likely first.

    judged, past : `account`, `target` of the events of the window, and of those before it
    """
    now = _matrix(judged, accounts, targets)
    found = associations(now, _matrix(past, accounts, targets))
    log_p = np.log(np.maximum(found.p, 1e-300)) + np.log(max(found.tried, 1))
    kept = np.flatnonzero(log_p <= np.log(alpha))
    if len(kept) == 0:
        return []
    edges = coo_array((np.ones(len(kept)), (found.first[kept], found.second[kept])), shape=(targets, targets))
    _, cluster = connected_components(edges, directed=False)
    of_pair = cluster[found.first[kept]]
    made = [_bond(now, found, kept[of_pair == one], log_p) for one in np.unique(of_pair)]
    return sorted((b for b in made if LEAST <= len(b.accounts) <= MOST), key=lambda b: (b.log_p, b.accounts.tolist()))


def _bond(now: csr_array, found: Associations, pairs: Ints, log_p: NDArray[np.float64]) -> Bond:
    best = pairs[np.argmin(log_p[pairs])]
    targets = np.unique(np.concatenate([found.first[pairs], found.second[pairs]]))
    held = np.asarray(now[:, targets].sum(axis=1)).ravel()
    accounts = np.flatnonzero(held >= len(targets) // 2 + 1).astype(np.int64)
    pair = int(found.first[best]), int(found.second[best])
    return Bond(accounts, targets, float(log_p[best]), pair, float(found.shared[best]), float(found.expected[best]))


def _matrix(events: pl.DataFrame, accounts: int, targets: int) -> csr_array:
    """[accounts, targets], 1 where the account has an event about the target."""
    pairs = events.select("account", "target").unique(maintain_order=True)
    at = (pairs["account"].to_numpy().astype(np.int64), pairs["target"].to_numpy().astype(np.int64))
    return csr_array((np.ones(pairs.height), at), shape=(accounts, targets))
