"""bfloat16 in Numba, which does not know it: rows of its bits widened to float32, raised by exp, narrowed again.

Every function works on one contiguous row that stays in the cache, a loop each: mixed with a change of width, the
compiler would vectorise neither the arithmetic nor the sum.
"""

from __future__ import annotations

import math
from typing import Any

import numba
import numpy as np
import torch
from numba import types
from numba.extending import overload
from numpy.typing import NDArray
from torch import Tensor

# 2^f on [-1/2, 1/2], Taylor's terms (ln 2)^k / k! up to the sixth: relative error 1e-7
C1, C2, C3, C4, C5, C6 = (np.float32(math.log(2) ** k / math.factorial(k)) for k in range(1, 7))
LOG2E, UNIT, LOWEST = np.float32(1.4426950408889634), np.float32(1), np.float32(-126.0)
EXPONENT, HALF_WORD, ROUND, ONE = np.int32(23), np.uint32(16), np.uint32(0x7FFF), np.uint32(1)


def array(tensor: Tensor) -> NDArray[Any]:
    """A CPU tensor as Numba reads it: bfloat16 as its bits, shared memory."""
    return tensor.view(torch.uint16).numpy() if tensor.dtype == torch.bfloat16 else tensor.numpy()


@numba.njit(cache=True, fastmath=True, nogil=True)
def raised(row: NDArray[np.float32], less: np.float32) -> np.float32:  # pragma: no cover
    """Replace the row by exp(row − less), and return its sum; what is below the smallest float32 becomes that."""
    total = np.float32(0)
    for n in range(len(row)):
        power = max((row[n] - less) * LOG2E, LOWEST)
        whole = np.rint(power)
        f = power - whole
        grown = np.float32(UNIT + f * (C1 + f * (C2 + f * (C3 + f * (C4 + f * (C5 + f * C6))))))
        value = np.uint32(grown.view(np.int32) + np.int32(np.int32(whole) << EXPONENT)).view(np.float32)
        row[n] = value
        total += value
    return total


def widen(given: Any, row: Any) -> None:
    """Write a row of bfloat16 bits, or of float32, into a float32 row."""
    raise NotImplementedError("only inside Numba's functions")


def narrow(row: Any, to: Any) -> None:
    """Write a float32 row into one of bfloat16 bits, rounded to even, or of float32."""
    raise NotImplementedError("only inside Numba's functions")


@overload(widen, jit_options={"fastmath": True})
def _widen(given: Any, row: Any) -> Any:  # pragma: no cover
    def from_bits(given: Any, row: Any) -> Any:
        for n in range(len(given)):
            row[n] = np.uint32(np.uint32(given[n]) << HALF_WORD).view(np.float32)

    def copied(given: Any, row: Any) -> Any:
        for n in range(len(given)):
            row[n] = given[n]

    return from_bits if given.dtype == types.uint16 else copied


@overload(narrow)
def _narrow(row: Any, to: Any) -> Any:  # pragma: no cover
    def to_bits(row: Any, to: Any) -> Any:
        raw = row.view(np.uint32)
        for n in range(len(to)):
            even = np.uint32((raw[n] >> HALF_WORD) & ONE)
            to[n] = np.uint16(np.uint32(raw[n] + ROUND + even) >> HALF_WORD)

    def copied(row: Any, to: Any) -> Any:
        for n in range(len(to)):
            to[n] = row[n]

    return to_bits if to.dtype == types.uint16 else copied
