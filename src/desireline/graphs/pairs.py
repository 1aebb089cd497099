"""The item-item counts that neighbour models and the item graph stand on, one item's row at a time.

A row is summed up in a dense line from the places where its item stands in the log, so that the pairs of a log (events
× 100) are never held: memory is the result's, and each row keeps its strongest entries alone. Two-hop paths are the
same sum over rows instead of places. About 2 · 10⁸ pairs a second and core.
"""

from __future__ import annotations

from collections.abc import Callable

import numba
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from desireline.evaluation.blocks import over_blocks
from desireline.evaluation.queries import Histories

Part = tuple[NDArray[np.int32], NDArray[np.float32], NDArray[np.int64]]  # columns, values, entries of each row
PATHS = 1_000_000_000  # two-hop paths that are walked at most: beyond, each item's weaker neighbours start none


def count_pairs(
    train: Histories, items: int, weight: NDArray[np.float32], backward: float, most: int
) -> tuple[csr_array, NDArray[np.float32]]:
    """Rows of the `most` strongest neighbours, and the rows' whole sums.

    A pair of one history's events at distance d ≤ len(weight) adds weight[d − 1] to [earlier, later] and `backward`
    times that to [later, earlier].
    """
    order = np.argsort(train.item, kind="stable")
    at = np.searchsorted(train.item[order], np.arange(items + 1))
    begin = np.repeat(train.offsets[:-1], np.diff(train.offsets))
    end = np.repeat(train.offsets[1:], np.diff(train.offsets))
    sums = np.zeros(items, np.float32)

    def part(lo: int, hi: int) -> Part:
        return _pair_rows(train.item, order, at, begin, end, weight, np.float32(backward), most, items, sums, lo, hi)

    return _stacked(part, items), sums


def add_paths(table: csr_array, sums: NDArray[np.float32], share: float, most: int) -> csr_array:
    """table + share · diag(sums) R R with R = table / (sums + 1), diagonal zero, each row's `most` strongest kept.

    Where all paths would be more than PATHS, only the strongest neighbours of each item start some. Of equally strong
    entries at the end of a row those that stand first in the table, or that a path found first, are kept.
    """
    sizes = np.diff(table.indptr).astype(np.int64)
    first = int(sizes.max(initial=0))
    if sizes[table.indices].sum() > PATHS:
        falling, rank = _strongest_first(table)
        table = csr_array((table.data[falling], table.indices[falling], table.indptr), shape=table.shape)
        reach = sizes[table.indices]
        while first > 1 and reach[rank < first].sum() > PATHS:
            first //= 2
    at, columns, values = table.indptr.astype(np.int64), table.indices.astype(np.int32), table.data
    weight = np.float32(share)

    def part(lo: int, hi: int) -> Part:
        return _path_rows(at, columns, values, sums, weight, first, most, lo, hi)

    return _stacked(part, table.shape[0])


def _strongest_first(table: csr_array) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Places [E] of the table's entries, each row's strongest first, and their ranks [E] within the row, from 0."""
    begin = table.indptr.astype(np.int64)
    row = np.repeat(np.arange(table.shape[0]), np.diff(begin))
    return np.lexsort((-table.data, row)), np.arange(len(row)) - begin[row]


@numba.njit(cache=True, nogil=True)
def strongest(
    begin: NDArray[np.int64], column: NDArray[np.int32], strength: NDArray[np.float32], most: int
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:  # pragma: no cover
    """Columns and strengths [rows, most] of each row's strongest entries, falling; where fewer are above 0, zeros.

    begin [rows + 1] is where rows begin among the entries' column [E] and strength [E]; equally strong ones keep their
    order.
    """
    rows = len(begin) - 1
    columns, values = np.zeros((rows, most), np.int32), np.zeros((rows, most), np.float32)
    for row in range(rows):
        held, kept = values[row], columns[row]
        for n in range(begin[row], begin[row + 1]):
            place = most
            while place > 0 and strength[n] > held[place - 1]:
                place -= 1
            if place < most:
                held[place + 1 :] = held[place : most - 1].copy()
                kept[place + 1 :] = kept[place : most - 1].copy()
                held[place], kept[place] = strength[n], column[n]
    return columns, values


def _stacked(part: Callable[[int, int], Part], items: int) -> csr_array:
    found: dict[int, Part] = {}

    def run(lo: int, hi: int) -> None:
        found[lo] = part(lo, hi)

    over_blocks(items, run)
    columns, values, sizes = (np.concatenate([found[lo][n] for lo in sorted(found)]) for n in range(3))
    return csr_array((values, columns, np.concatenate([[0], np.cumsum(sizes)])), shape=(items, items))


@numba.njit(cache=True, nogil=True)
def _pair_rows(
    item: NDArray[np.int32],
    order: NDArray[np.int64],
    at: NDArray[np.int64],
    begin: NDArray[np.int64],
    end: NDArray[np.int64],
    weight: NDArray[np.float32],
    backward: np.float32,
    most: int,
    items: int,
    sums: NDArray[np.float32],
    lo: int,
    hi: int,
) -> Part:  # pragma: no cover
    line, touched = np.zeros(items, np.float32), np.empty(items, np.int32)
    columns, values, used = np.empty(1024, np.int32), np.empty(1024, np.float32), 0
    sizes = np.zeros(hi - lo, np.int64)
    reach = len(weight)
    for row in range(lo, hi):
        count = 0
        if row >= 2:
            for n in range(at[row], at[row + 1]):
                here = order[n]
                for other in range(max(begin[here], here - reach), min(end[here], here + reach + 1)):
                    column = item[other]
                    if other == here or column < 2:
                        continue
                    value = weight[other - here - 1] if other > here else backward * weight[here - other - 1]
                    if value == 0:  # would be taken for untouched
                        continue
                    if line[column] == 0:
                        touched[count] = column
                        count += 1
                    line[column] += value
        for n in range(count):
            sums[row] += line[touched[n]]
        columns, values, kept = _keep(line, touched, count, most, -1, columns, values, used)
        sizes[row - lo] = kept
        used += kept
    return columns[:used].copy(), values[:used].copy(), sizes


@numba.njit(cache=True, nogil=True)
def _path_rows(
    at: NDArray[np.int64],
    columns_in: NDArray[np.int32],
    values_in: NDArray[np.float32],
    sums: NDArray[np.float32],
    share: np.float32,
    first: int,
    most: int,
    lo: int,
    hi: int,
) -> Part:  # pragma: no cover
    items = len(at) - 1
    line, touched = np.zeros(items, np.float32), np.empty(items, np.int32)
    columns, values, used = np.empty(1024, np.int32), np.empty(1024, np.float32), 0
    sizes = np.zeros(hi - lo, np.int64)
    for row in range(lo, hi):
        count = 0
        for n in range(at[row], at[row + 1]):
            column = columns_in[n]
            if line[column] == 0:
                touched[count] = column
                count += 1
            line[column] += values_in[n]
        if share > 0:
            own = share * sums[row] / (sums[row] + np.float32(1))
            for n in range(at[row], min(at[row + 1], at[row] + first)):
                middle = columns_in[n]
                weight = own * values_in[n] / (sums[middle] + np.float32(1))
                for m in range(at[middle], at[middle + 1]):
                    column, value = columns_in[m], weight * values_in[m]
                    if value == 0:
                        continue
                    if line[column] == 0:
                        touched[count] = column
                        count += 1
                    line[column] += value
        columns, values, kept = _keep(line, touched, count, most, row, columns, values, used)
        sizes[row - lo] = kept
        used += kept
    return columns[:used].copy(), values[:used].copy(), sizes


@numba.njit(cache=True, nogil=True)
def _keep(
    line: NDArray[np.float32],
    touched: NDArray[np.int32],
    count: int,
    most: int,
    without: int,
    columns: NDArray[np.int32],
    values: NDArray[np.float32],
    used: int,
) -> tuple[NDArray[np.int32], NDArray[np.float32], int]:  # pragma: no cover
    """Append the `most` strongest of the touched columns and wipe the line."""
    if without >= 0:
        line[without] = 0
    border = np.float32(0)
    if count > most:
        border = nth(line[touched[:count]], count - most)
    while used + min(count, most) > len(columns):
        columns, values = np.append(columns, np.empty_like(columns)), np.append(values, np.empty_like(values))
    kept = 0
    for tied in range(2):  # of those at the border the first ones found, until the row is full
        for n in range(count):
            column = touched[n]
            strength = line[column]
            if strength > 0 and kept < most and (strength == border if tied else strength > border):
                columns[used + kept], values[used + kept] = column, strength
                kept += 1
    for n in range(count):
        line[touched[n]] = 0
    return columns, values, kept


@numba.njit(cache=True, nogil=True)
def nth(values: NDArray[np.float32], n: int) -> np.float32:  # pragma: no cover
    """Number n of the values by size (Hoare 1961), reordering them; NumPy's takes five seconds to compile."""
    low, high = 0, len(values) - 1
    while low < high:
        pivot = values[(low + high) // 2]
        left, right = low, high
        while left <= right:
            while values[left] < pivot:
                left += 1
            while values[right] > pivot:
                right -= 1
            if left <= right:
                values[left], values[right] = values[right], values[left]
                left += 1
                right -= 1
        if n <= right:
            high = right
        elif n >= left:
            low = left
        else:
            break
    return values[n]
