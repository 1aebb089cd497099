"""Sparse times sparse into a dense answer, row by row on all cores: how every neighbour model scores a catalogue.

A row of the answer is summed up in one fixed order, whatever stands in the other rows of the chunk. scipy would first
build the sparse product and then copy it: several times the time.
"""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from desireline.evaluation.blocks import over_blocks


def dense_product(left: csr_array, right: csr_array, start: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
    """float32 [Q, items]: left [Q, n] @ right [n, items], added to `start` [items] in each row."""
    out = np.zeros((left.shape[0], right.shape[1]), np.float32)
    if start is not None:
        out += start
    at, to = left.indptr.astype(np.int64), right.indptr.astype(np.int64)
    columns, targets = left.indices.astype(np.int32, copy=False), right.indices.astype(np.int32, copy=False)
    weights, values = left.data.astype(np.float32, copy=False), right.data.astype(np.float32, copy=False)
    over_blocks(len(out), lambda lo, hi: _product(at, columns, weights, to, targets, values, out, lo, hi), least=8)
    return out


@numba.njit(cache=True, nogil=True)
def _product(
    at: NDArray[np.int64],
    columns: NDArray[np.int32],
    weights: NDArray[np.float32],
    to: NDArray[np.int64],
    targets: NDArray[np.int32],
    values: NDArray[np.float32],
    out: NDArray[np.float32],
    lo: int,
    hi: int,
) -> None:  # pragma: no cover
    for q in range(lo, hi):
        line = out[q]
        for n in range(at[q], at[q + 1]):
            weight = weights[n]
            for m in range(to[columns[n]], to[columns[n] + 1]):
                line[targets[m]] += weight * values[m]
