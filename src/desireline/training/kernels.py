"""Passes that PyTorch lacks on a CPU. Over a block of scores: exp in place in bfloat16, and the sums of the rows; over
the item table: its rows scaled to length 1, and the gradient of that.

A block of C × V scores is read and written once, 4 bytes a score; eager PyTorch takes a pass for exp and a slower one
for the float32 sum. Numba compiles it on first use and keeps the result: no compiler is needed on the user's machine.
"""

from __future__ import annotations

import numba
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

# 2^f on [-1/2, 1/2] as a quartic: relative error 4e-6, far below bfloat16's own 4e-3
C0, C1, C2, C3, C4 = (np.float32(c) for c in (1.0000001, 0.6931472, 0.2402228, 0.0555041, 0.0096813))
LOG2E = np.float32(1.4426950408889634)
EXPONENT, HALF_WORD, ROUND, ONE = np.int32(23), np.uint32(16), np.uint32(0x7FFF), np.uint32(1)
BLOCK = 2_048  # scores that are worked on together
SHORTEST = np.float32(1e-12)  # a vector of nothing has no direction


@numba.njit(cache=True, fastmath=True, nogil=True)
def _raised(bits: NDArray[np.uint16], held: NDArray[np.uint32]) -> np.float32:  # pragma: no cover
    # three loops over what stays in the cache: mixed with the change of width, the compiler does not vectorise the sum
    for n in range(len(bits)):
        held[n] = np.uint32(bits[n]) << HALF_WORD
    score = held.view(np.float32)
    total = np.float32(0)
    for n in range(len(bits)):
        power = score[n] * LOG2E
        whole = np.rint(power)
        f = power - whole
        grown = np.float32(C0 + f * (C1 + f * (C2 + f * (C3 + f * C4))))
        raised = np.uint32(grown.view(np.int32) + np.int32(np.int32(whole) << EXPONENT))
        total += raised.view(np.float32)
        held[n] = raised
    for n in range(len(bits)):
        bits[n] = np.uint16(
            np.uint32(held[n] + ROUND + np.uint32((held[n] >> HALF_WORD) & ONE)) >> HALF_WORD
        )  # to even
    return total


@numba.njit(cache=True, nogil=True)
def _rows(bits: NDArray[np.uint16], first: int, end: int, totals: NDArray[np.float32]) -> None:  # pragma: no cover
    held = np.empty(BLOCK, np.uint32)
    for row in range(bits.shape[0]):
        bits[row, :first] = 0
        bits[row, end:] = 0
        total = np.float32(0)
        for lo in range(first, end, BLOCK):
            part = bits[row, lo : min(lo + BLOCK, end)]
            total += _raised(part, held[: len(part)])
        totals[row] = total


def exp_and_sum(scores: Tensor, first: int, end: int) -> Tensor:
    """Replace scores [C, V] by their exponentials, in place, and return the float32 sums [C] of each row.

    Columns before `first` and from `end` on become 0 and are not summed. Scores must be within ±80: nothing is
    subtracted. bfloat16 on a CPU takes the kernel above, everything else plain PyTorch.
    """
    if scores.dtype == torch.bfloat16 and scores.device.type == "cpu":
        totals = torch.empty(len(scores))
        _rows(scores.view(torch.uint16).numpy(), first, end, totals.numpy())
        return totals
    scores.exp_()
    scores[:, :first] = 0
    scores[:, end:] = 0
    return scores.sum(dim=1, dtype=torch.float32)


@numba.njit(cache=True, fastmath=True, nogil=True)
def _unit(
    items: NDArray[np.float32], bits: NDArray[np.uint16], lengths: NDArray[np.float32]
) -> None:  # pragma: no cover
    width = items.shape[1]
    scaled = np.empty(width, np.float32)
    raw = scaled.view(np.uint32)
    for row in range(items.shape[0]):
        square = np.float32(0)
        for n in range(width):
            square += items[row, n] * items[row, n]
        length = max(np.sqrt(square), SHORTEST)
        lengths[row] = length
        share = np.float32(1) / length
        for n in range(width):
            scaled[n] = items[row, n] * share
        for n in range(width):
            bits[row, n] = np.uint16(np.uint32(raw[n] + ROUND + np.uint32((raw[n] >> HALF_WORD) & ONE)) >> HALF_WORD)


def unit_rows(items: Tensor, kind: torch.dtype, rows: int) -> tuple[Tensor, Tensor]:
    """Items [V, d] scaled to length 1, as `kind`, filled up to so many rows, and their lengths [V] in float32."""
    unit = torch.zeros(rows, items.shape[1], dtype=kind, device=items.device)
    if kind == torch.bfloat16 and items.device.type == "cpu" and items.dtype == torch.float32:
        held = items.detach().contiguous()
        lengths = torch.empty(len(held))
        _unit(held.numpy(), unit.view(torch.uint16).numpy(), lengths.numpy())
        return unit, lengths
    lengths = items.norm(dim=1).clamp(min=float(SHORTEST))
    unit[: len(items)] = items / lengths[:, None]
    return unit, lengths


@numba.njit(cache=True, fastmath=True, nogil=True)
def _across(
    gradient: NDArray[np.float32], items: NDArray[np.float32], lengths: NDArray[np.float32], factor: np.float32
) -> None:  # pragma: no cover
    width = items.shape[1]
    for row in range(items.shape[0]):
        along = np.float32(0)
        for n in range(width):
            along += gradient[row, n] * items[row, n]
        share = factor / lengths[row]
        back = along * share / (lengths[row] * lengths[row])
        for n in range(width):
            gradient[row, n] = gradient[row, n] * share - items[row, n] * back


def across_rows(gradient: Tensor, items: Tensor, lengths: Tensor, factor: float) -> None:
    """Turn a gradient [V, d] of the unit rows, in place, into that of items [V, d], times a factor."""
    if gradient.device.type == "cpu" and gradient.dtype == torch.float32:
        _across(gradient.numpy(), items.detach().contiguous().numpy(), lengths.numpy(), np.float32(factor))
        return
    unit = items.detach() / lengths[:, None]
    gradient -= unit * (gradient * unit).sum(1, keepdim=True)
    gradient *= factor / lengths[:, None]
