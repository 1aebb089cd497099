"""A sparse matrix with short indices, as the arrays that a safetensors file holds, and back."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array


def narrow(table: csr_array) -> csr_array:
    """The same matrix with int32 indices, as our kernels read them: SciPy's are int64 wherever its input's were.

    A kernel would else copy them at every question. 2³¹ entries and more keep theirs.
    """
    if table.nnz > np.iinfo(np.int32).max or table.indices.dtype == np.int32:
        return table
    return csr_array((table.data, table.indices.astype(np.int32), table.indptr.astype(np.int32)), shape=table.shape)


def to_arrays(name: str, table: csr_array) -> dict[str, NDArray[Any]]:
    """The three arrays of a CSR matrix and its shape."""
    return {
        f"{name}.data": table.data,
        f"{name}.indices": table.indices,
        f"{name}.indptr": table.indptr,
        f"{name}.shape": np.asarray(table.shape, np.int64),
    }


def from_arrays(name: str, state: dict[str, NDArray[Any]]) -> csr_array:
    """The inverse of `to_arrays`."""
    parts = (state[f"{name}.data"], state[f"{name}.indices"], state[f"{name}.indptr"])
    rows, columns = (int(n) for n in state[f"{name}.shape"])
    return narrow(csr_array(parts, shape=(rows, columns)))
