"""Targets that go together all of a sudden: pairs that many accounts share now and few ever did before.

Accounts that serve the same few targets, at whatever times and behind whatever camouflage, bind these targets to each
other. Nature binds targets too (the red and the blue one of a series), but it has always done so, so the past of the
log itself is the null. How many accounts share a pair follows from its targets' and the accounts' activity (the
configuration model), times what the pair's past says of it: a gamma prior, worth PRIOR accounts, updated by the
accounts that shared it before. The tail is the negative binomial's of that gamma, whose shape stays at most STEADY,
since seasons move natural bonds by so much.

Cost: one sparse product, Σ over accounts of the square of its targets, at most MOST each (the least popular, which tell
the most), made in slices of PART targets so that pairs that too few share are never held.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array, csc_array, csr_array

PRIOR = 2.0  # accounts that a pair's past is worth before it is looked at
STEADY = 6.0  # largest shape of the gamma
LEAST = 3  # accounts that share a pair, before it is looked at
MOST = 150  # targets of an account that are paired
PART = 2_000  # targets at once


@dataclass(frozen=True)
class Associations:
    """P pairs of targets that at least LEAST accounts share, first < second.

    first, second : int64 [P];  shared, expected : float64 [P] accounts that share the pair, and that would
    p : float64 [P], of as many by chance;  tried : pairs that any account has, whatever their number
    """

    first: NDArray[np.int64]
    second: NDArray[np.int64]
    shared: NDArray[np.float64]
    expected: NDArray[np.float64]
    p: NDArray[np.float64]
    tried: int


def associations(now: csr_array, before: csr_array) -> Associations:
    """Pairs of targets and how improbable it is that so many accounts share them.

    now, before : [accounts, targets], 1 where the account had to do with the target in the window, or before it
    """
    from scipy.stats import nbinom  # half a second to load, for those who look for fraud alone

    now = _least_popular(now, MOST)
    first, second, shared, tried = _pairs(now)
    count, degree = (np.asarray(now.sum(axis=axis), np.float64).ravel() for axis in (0, 1))
    expected = count[first] * count[second] * _pairing(degree)
    past_count, past_degree = (np.asarray(before.sum(axis=axis), np.float64).ravel() for axis in (0, 1))
    usual = past_count[first] * past_count[second] * _pairing(past_degree)
    had = _shared(before, first, second)
    shape = np.minimum(had + PRIOR, STEADY)
    mean = expected * (had + PRIOR) / (usual + PRIOR)
    p = nbinom.sf(shared - 1, shape, shape / (shape + mean))
    return Associations(first, second, shared, mean, np.asarray(p, np.float64), tried)


def _pairing(degree: NDArray[np.float64]) -> float:
    """Σ d (d − 1) / (Σ d)²: of accounts with so many targets, how often two given ends of edges meet."""
    total = degree.sum()
    return float((degree * (degree - 1)).sum() / total**2) if total else 0.0


def _least_popular(matrix: csr_array, most: int) -> csr_array:
    """Of each row the columns that the fewest rows have, at most so many."""
    if int(np.diff(matrix.indptr).max(initial=0)) <= most:
        return matrix
    entry = matrix.tocoo()
    rows, columns = entry.coords
    popularity = np.bincount(columns, minlength=matrix.shape[1])[columns]
    order = np.lexsort((columns, popularity, rows))
    place = np.arange(len(order)) - matrix.indptr[rows[order]]
    kept = order[place < most]
    return csr_array(coo_array((entry.data[kept], (rows[kept], columns[kept])), shape=matrix.shape))


def _pairs(
    matrix: csr_array,
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64], int]:
    """Pairs of columns that LEAST rows or more share, by how many, and how many pairs any row has."""
    columns = csc_array(matrix)
    parts: list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]] = []
    tried = 0
    for lo in range(0, matrix.shape[1], PART):
        product = coo_array(csr_array(columns[:, lo : lo + PART].T) @ matrix)
        row, column = product.coords
        row = row.astype(np.int64) + lo
        above = column > row
        tried += int(above.sum())
        kept = above & (product.data >= LEAST)
        parts.append((row[kept], column[kept].astype(np.int64), product.data[kept].astype(np.float64)))
    first, second, shared = (np.concatenate(part) for part in zip(*parts, strict=True)) if parts else _NOTHING
    return first, second, shared, tried


_NOTHING = np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0)


def _shared(matrix: csr_array, first: NDArray[np.int64], second: NDArray[np.int64]) -> NDArray[np.float64]:
    """float64 [P]: rows that have both columns of each pair, pairs ascending by their first."""
    columns, found = csc_array(matrix), np.zeros(len(first))
    for lo in range(0, matrix.shape[1], PART):
        here = slice(*np.searchsorted(first, [lo, lo + PART]))
        if here.stop > here.start:
            others = np.unique(second[here])
            product = csr_array(csr_array(columns[:, lo : lo + PART].T) @ csr_array(columns[:, others]))
            found[here] = np.asarray(product[first[here] - lo, np.searchsorted(others, second[here])]).ravel()
    return found
