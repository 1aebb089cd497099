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

from desireline.encoders.bits import array, narrow, raised, widen

BLOCK = 2_048  # scores that are worked on together
NOTHING = np.float32(0)
SHORTEST = np.float32(1e-12)  # a vector of nothing has no direction


@numba.njit(cache=True, nogil=True)
def _rows(bits: NDArray[np.uint16], first: int, end: int, totals: NDArray[np.float32]) -> None:  # pragma: no cover
    held = np.empty(BLOCK, np.float32)
    for row in range(bits.shape[0]):
        bits[row, :first] = 0
        bits[row, end:] = 0
        total = np.float32(0)
        for lo in range(first, end, BLOCK):
            part = bits[row, lo : min(lo + BLOCK, end)]
            some = held[: len(part)]
            widen(part, some)
            total += raised(some, NOTHING)
            narrow(some, part)
        totals[row] = total


def exp_and_sum(scores: Tensor, first: int, end: int) -> Tensor:
    """Replace scores [C, V] by their exponentials, in place, and return the float32 sums [C] of each row.

    Columns before `first` and from `end` on become 0 and are not summed. Scores must be within ±80: nothing is
    subtracted. bfloat16 on a CPU takes the kernel above, everything else plain PyTorch.
    """
    if scores.dtype == torch.bfloat16 and scores.device.type == "cpu":
        totals = torch.empty(len(scores))
        _rows(array(scores), first, end, totals.numpy())
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
    for row in range(items.shape[0]):
        square = np.float32(0)
        for n in range(width):
            square += items[row, n] * items[row, n]
        length = max(np.sqrt(square), SHORTEST)
        lengths[row] = length
        share = np.float32(1) / length
        for n in range(width):
            scaled[n] = items[row, n] * share
        narrow(scaled, bits[row])


def unit_rows(items: Tensor, kind: torch.dtype, rows: int) -> tuple[Tensor, Tensor]:
    """Items [V, d] scaled to length 1, as `kind`, filled up to so many rows, and their lengths [V] in float32."""
    unit = torch.zeros(rows, items.shape[1], dtype=kind, device=items.device)
    if kind == torch.bfloat16 and items.device.type == "cpu" and items.dtype == torch.float32:
        held = items.detach().contiguous()
        lengths = torch.empty(len(held))
        _unit(held.numpy(), array(unit), lengths.numpy())
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


def across_rows(gradient: Tensor, items: Tensor, lengths: Tensor, factor: Tensor) -> None:
    """Turn a gradient [V, d] of the unit rows, in place, into that of items [V, d], times a factor [] ."""
    if gradient.device.type == "cpu" and gradient.dtype == torch.float32:
        _across(gradient.numpy(), items.detach().contiguous().numpy(), lengths.numpy(), np.float32(factor.item()))
        return
    unit = items.detach() / lengths[:, None]
    gradient -= unit * (gradient * unit).sum(1, keepdim=True)
    gradient *= factor / lengths[:, None]


@numba.njit(cache=True, fastmath=True, nogil=True)
def _take(
    hidden: NDArray[np.float32],
    items: NDArray[np.float32],
    lengths: NDArray[np.float32],
    targets: NDArray[np.int64],
    weights: NDArray[np.float32],
    grad_hidden: NDArray[np.float32],
    grad_items: NDArray[np.float32],
) -> float:  # pragma: no cover
    total, width = 0.0, hidden.shape[1]
    for token in range(targets.shape[0]):
        for one in range(targets.shape[1]):
            item, weight = targets[token, one], weights[token, one]
            if weight != 0:
                share, score = weight / lengths[item], np.float32(0)
                for n in range(width):
                    score += items[item, n] * hidden[token, n]
                    grad_hidden[token, n] -= items[item, n] * share
                    grad_items[item, n] -= hidden[token, n] * weight
                total += score * share
    return total


def take_targets(
    hidden: Tensor,
    items: Tensor,
    lengths: Tensor,
    targets: Tensor,
    weights: Tensor,
    grad_hidden: Tensor,
    grad_items: Tensor,
) -> Tensor:
    """Σ weights · scores [] of the targets [T, M]; both gradients, [T, d] and [V, d], lose those of that sum in place.

    A score is the product of hidden [T, d] with the direction of an item: items [V, d] over lengths [V].
    """
    if hidden.device.type == "cpu" and hidden.dtype == torch.float32:
        h, e, length, target, weight = (
            tensor.detach().contiguous().numpy() for tensor in (hidden, items, lengths, targets, weights)
        )
        return torch.tensor(_take(h, e, length, target, weight, grad_hidden.numpy(), grad_items.numpy())).float()
    flat = targets.flatten()
    picked = (items[flat] / lengths[flat, None]).view(*targets.shape, -1)  # [T, M, d]
    grad_hidden -= (picked * weights[..., None]).sum(1)
    grad_items.index_add_(0, flat, (hidden[:, None] * weights[..., None]).flatten(0, 1), alpha=-1)
    return ((picked * hidden[:, None]).sum(-1) * weights).sum()


@numba.njit(cache=True, fastmath=True, nogil=True)
def _towards(
    averages: NDArray[np.float32], weights: NDArray[np.float32], rows: NDArray[np.int64], kept: NDArray[np.float32]
) -> None:  # pragma: no cover
    for n in range(len(rows)):
        average, weight, share = averages[rows[n]], weights[rows[n]], kept[n]
        for k in range(len(average)):
            average[k] = weight[k] + (average[k] - weight[k]) * share


def move_rows(averages: Tensor, weights: Tensor, rows: Tensor, kept: Tensor) -> None:
    """Move `rows` [n] of averages [V, d] towards those of weights [V, d], in place: of the way to there a share `kept`
    [n] is left."""
    if averages.device.type == "cpu" and averages.dtype == torch.float32 and averages.is_contiguous():
        _towards(averages.numpy(), weights.detach().contiguous().numpy(), rows.numpy(), kept.numpy())
        return
    averages[rows] = weights[rows] + (averages[rows] - weights[rows]) * kept[:, None]
