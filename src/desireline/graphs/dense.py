"""Dense blocks of a bipartite graph, by greedy peeling that camouflage does not fool (FRAUDAR).

Accounts that lift the same targets are a block of rows and columns with more edges than its nodes should have. Nodes
are removed one after the other, always the one that the rest loses least by, and the densest state on the way is the
block: at worst half of the best density. An edge into a popular column weighs little, 1 / log(degree + 5), so that
edges to best-sellers (camouflage) neither hide a block nor make one.

Plain density finds the heart of a shop first, its wholesalers times its best-sellers. With `resolution` γ > 0 a set is
credited only with what exceeds γ times the weight that its nodes' own totals let expect (the modularity of Reichardt
and Bornholdt 2006, by node): the heart of a shop then counts for nothing and a small block of light nodes stands out.

Cost: O(E log V) for each block, under a second for a million edges on one core, and 60 bytes an edge. Nodes of one
(rounded) total share a heap, since what is expected of them falls in step; so with γ > 0 each removal looks at some
hundred tops.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice, takewhile

import numba
import numpy as np
from numpy.typing import NDArray

from desireline.core.errors import DataError

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
STEPS = 4  # classes of totals to a doubling, with `resolution`


@dataclass(frozen=True)
class Block:
    """A set of rows and columns that are denser together than they should be.

    rows : int64 [R], columns : int64 [C], both ascending;  density : credited weight by R + C
    """

    rows: Ints
    columns: Ints
    density: float


def column_weights(degree: NDArray[np.int64]) -> Floats:
    """float64 [C]: what an edge into a column of a degree weighs (Hooi et al. 2016, section 4.3)."""
    return np.asarray(1 / np.log(degree + 5.0))


def dense_blocks(
    rows: Ints,
    columns: Ints,
    weights: Floats,
    most: int = 1,
    *,
    resolution: float = 0.0,
    row_prior: Floats | None = None,
    column_prior: Floats | None = None,
    least: float = 0.0,
) -> list[Block]:
    """Up to `most` blocks, one after the other: the edges inside a found block are removed before the next.

    Parameters
    ----------
    rows, columns : int64 [E]
        The ends of each edge, counted from 0. A pair that is named twice counts with both weights.
    weights : float64 [E]
        What each edge weighs of its own, above 0; the discount of its column's popularity comes on top.
    resolution : float
        γ: how many times over the expected weight is taken off; 0 is FRAUDAR as published.
    row_prior, column_prior : float64, one for each node, optional
        What a node adds to a set's weight whatever its edges: suspicion from elsewhere, not negative.
    least : float
        The search ends at a block below this density.

    Raises DataError when the arrays do not fit, or a weight or prior is no finite number above (for priors: from) 0.
    Source: Hooi et al., FRAUDAR, KDD 2016, algorithm 1 and section 4.3.

    >>> rows, columns = np.array([0, 0, 1, 1, 2]), np.array([0, 1, 0, 1, 2])
    >>> dense_blocks(rows, columns, np.ones(5))[0].rows
    array([0, 1])
    """
    blocks = each_block(rows, columns, weights, resolution, row_prior, column_prior)
    return list(islice(takewhile(lambda block: block.density >= least, blocks), most))


def each_block(
    rows: Ints,
    columns: Ints,
    weights: Floats,
    resolution: float = 0.0,
    row_prior: Floats | None = None,
    column_prior: Floats | None = None,
) -> Iterator[Block]:
    """As `dense_blocks`, one at a time, until no edges are left: for callers that know better when to stop."""
    _check(rows, columns, weights)
    if len(rows) == 0:
        return
    R, C = int(rows.max()) + 1, int(columns.max()) + 1
    row_prior = np.zeros(R) if row_prior is None else row_prior
    column_prior = np.zeros(C) if column_prior is None else column_prior
    for name, prior, count in (("row", row_prior, R), ("column", column_prior, C)):
        if len(prior) < count or not (np.isfinite(prior).all() and (prior >= 0).all()):
            raise DataError(f"The {name} priors must be {count} numbers from 0 up, one for each {name}.")
    R, C = len(row_prior), len(column_prior)
    discounted = weights * column_weights(np.bincount(columns, minlength=C))[columns]
    prior = np.concatenate([row_prior, column_prior])
    while len(rows):
        block = peel(rows, columns, discounted, R, C, prior, resolution)
        if len(block.rows) == 0 or len(block.columns) == 0:
            return
        yield block
        rest = ~(np.isin(rows, block.rows) & np.isin(columns, block.columns))
        if rest.all():  # priors alone made it: what is left would be found again
            return
        rows, columns, discounted = rows[rest], columns[rest], discounted[rest]


def peel(rows: Ints, columns: Ints, weights: Floats, R: int, C: int, prior: Floats, resolution: float) -> Block:
    """The densest state of one peeling; `weights` are taken as they are.

    Of equal nodes some one goes first, always the same.
    """
    ends = np.concatenate([rows, columns + R])
    order = np.argsort(ends, kind="stable")
    offsets = np.searchsorted(ends[order], np.arange(R + C + 1)).astype(np.int64)
    neighbours = np.concatenate([columns + R, rows])[order].astype(np.int32)
    weight = np.concatenate([weights, weights])[order]
    total = np.bincount(ends, np.concatenate([weights, weights]), R + C)
    charge = np.zeros(R + C)
    if resolution > 0:
        used = total > 0
        charge[used] = np.exp2(np.round(STEPS * np.log2(total[used])) / STEPS)
    side = np.arange(R + C) >= R
    _, group = np.unique(np.where(side & (resolution > 0), -1 - charge, charge), return_inverse=True)
    # both sides share one heap where nothing is charged
    by_group = np.argsort(group, kind="stable")
    starts = np.searchsorted(group[by_group], np.arange(group.max() + 2)).astype(np.int64)
    scale = resolution / weights.sum()
    removed, best, density = _peel(
        offsets,
        neighbours,
        weight,
        total + prior,
        float(weights.sum() + prior.sum()),
        charge,
        side,
        by_group,
        starts,
        scale,
    )
    kept = np.sort(removed[best:])
    return Block(kept[kept < R], kept[kept >= R] - R, density)


def _check(rows: Ints, columns: Ints, weights: Floats) -> None:
    if not len(rows) == len(columns) == len(weights):
        raise DataError(
            f"A graph's edges need a row, a column and a weight each; there are {len(rows)}, {len(columns)} and "
            f"{len(weights)}."
        )
    if len(rows) and min(rows.min(), columns.min()) < 0:
        raise DataError("Rows and columns of a graph are counted from 0; one of them is negative.")
    if not (np.isfinite(weights).all() and (weights > 0).all()):
        raise DataError("An edge's weight must be a finite number above 0; leave out edges that weigh nothing.")


@numba.njit(cache=True, nogil=True)
def _peel(
    offsets: Ints,
    neighbours: NDArray[np.int32],
    weight: Floats,
    key: Floats,
    whole: float,
    charge: Floats,
    side: NDArray[np.bool_],
    heap: Ints,
    starts: Ints,
    scale: float,
) -> tuple[Ints, int, float]:  # pragma: no cover
    """The nodes in the order they were removed, where the densest rest begins, its density.

    key : [V] weight of a node's edges to what is left, changed;  heap : [V] nodes by group, ordered as heaps here
    """
    V, groups = len(key), len(starts) - 1
    place = np.empty(V, np.int64)  # of a node in `heap`
    size = np.empty(groups, np.int64)
    charged = np.zeros(2)  # what is left of both sides' charges
    for node in range(V):
        charged[int(side[node])] += charge[node]
        key[node] += scale * charge[node] ** 2 / 2  # half of its charge against itself came twice
    for group in range(groups):
        size[group] = starts[group + 1] - starts[group]
        for n in range(starts[group], starts[group + 1]):
            place[heap[n]] = n
        for n in range(size[group] // 2 - 1, -1, -1):
            _sink(heap, place, key, starts[group], size[group], n)
    of = np.empty(V, np.int64)
    for group in range(groups):
        for n in range(starts[group], starts[group + 1]):
            of[heap[n]] = group
    gone = np.zeros(V, np.bool_)
    removed = np.empty(V, np.int64)
    left = whole - scale * (charged[0] ** 2 + charged[1] ** 2) / 2
    best, density = 0, left / V
    for step in range(V):
        lowest, chosen = np.inf, -1
        for group in range(groups):
            if size[group] > 0:
                node = heap[starts[group]]
                value = key[node] - scale * charge[node] * charged[int(side[node])]
                if value < lowest:
                    lowest, chosen = value, group
        base = starts[chosen]
        node = heap[base]
        size[chosen] -= 1
        last = heap[base + size[chosen]]
        heap[base] = last
        place[last] = base
        _sink(heap, place, key, base, size[chosen], 0)
        gone[node], removed[step] = True, node
        left -= lowest
        charged[int(side[node])] -= charge[node]
        for n in range(offsets[node], offsets[node + 1]):
            other = neighbours[n]
            if not gone[other]:
                key[other] -= weight[n]
                _rise(heap, place, key, starts[of[other]], other)
        rest = V - step - 1
        if rest > 0 and left / rest > density:
            best, density = step + 1, left / rest
    return removed, best, density


@numba.njit(cache=True, nogil=True)
def _sink(heap: Ints, place: Ints, key: Floats, base: int, size: int, at: int) -> None:  # pragma: no cover
    if at >= size:
        return
    node = heap[base + at]
    while True:
        child = 2 * at + 1
        if child >= size:
            break
        if child + 1 < size and key[heap[base + child + 1]] < key[heap[base + child]]:
            child += 1
        if key[heap[base + child]] >= key[node]:
            break
        heap[base + at] = heap[base + child]
        place[heap[base + at]] = base + at
        at = child
    heap[base + at] = node
    place[node] = base + at


@numba.njit(cache=True, nogil=True)
def _rise(heap: Ints, place: Ints, key: Floats, base: int, node: int) -> None:  # pragma: no cover
    at = place[node] - base
    while at > 0:
        parent = (at - 1) // 2
        if key[heap[base + parent]] <= key[node]:
            break
        heap[base + at] = heap[base + parent]
        place[heap[base + at]] = base + at
        at = parent
    heap[base + at] = node
    place[node] = base + at
