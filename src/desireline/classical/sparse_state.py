"""A sparse matrix as the arrays that a safetensors file holds, and back."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array


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
    return csr_array(parts, shape=(rows, columns))
