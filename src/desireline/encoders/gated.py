"""Gated recurrent units over few long rows on a CPU: the loop over time in Numba, everything else in large products.

PyTorch walks through time operator by operator, forward and back; with a few rows each operator has next to nothing to
do and the walk costs more than the arithmetic. Values and gradients are those of `nn.GRU` (tested).
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

MOST_ROWS = 16  # beyond, PyTorch's product over all rows of a moment is faster


def unrolled(cell: nn.GRU, x: Tensor) -> Tensor:
    """Outputs [R, L, d] of a one-layer, batch-first `nn.GRU` that begins from nothing, for x [R, L, d]."""
    if x.device.type != "cpu" or x.dtype != torch.float32 or len(x) > MOST_ROWS:
        out: Tensor = cell(x)[0]
        return out
    parameters = dict(cell.named_parameters())
    given = F.linear(x, parameters["weight_ih_l0"], parameters["bias_ih_l0"])
    weight, bias = parameters["weight_hh_l0"], parameters["bias_hh_l0"]
    walked: Tensor = _Walk.apply(given, weight, bias)  # type: ignore[no-untyped-call]
    return walked


class _Walk(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, given: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        given, weight = given.contiguous(), weight.contiguous()
        rows, length, width = given.shape
        out = given.new_empty(rows, length, width // 3)
        kept = given.new_empty(rows, length, 4, width // 3)  # r, z, n and the recurrent part of n
        _forward(given.numpy(), weight.detach().numpy(), bias.detach().numpy(), out.numpy(), kept.numpy())
        ctx.save_for_backward(weight, out, kept)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        weight, out, kept = ctx.saved_tensors
        rows, length, width = out.shape
        to_given, to_state = out.new_empty(rows, length, 3 * width), out.new_empty(rows, length, 3 * width)
        _backward(
            grads[0].contiguous().numpy(),
            weight.detach().numpy(),
            out.numpy(),
            kept.numpy(),
            to_given.numpy(),
            to_state.numpy(),
        )
        before = F.pad(out[:, :-1], (0, 0, 1, 0)).flatten(0, 1)
        flat = to_state.flatten(0, 1)
        return to_given, flat.T @ before, flat.sum(0)


@numba.njit(cache=True, fastmath=True, nogil=True)
def _dot(a: NDArray[np.float32], b: NDArray[np.float32]) -> np.float32:  # pragma: no cover
    total = np.float32(0)
    for n in range(len(a)):
        total += a[n] * b[n]
    return total


@numba.njit(cache=True, fastmath=True, nogil=True)
def _add(a: NDArray[np.float32], times: np.float32, to: NDArray[np.float32]) -> None:  # pragma: no cover
    for n in range(len(a)):
        to[n] += times * a[n]


@numba.njit(cache=True, fastmath=True, nogil=True)
def _forward(
    given: NDArray[np.float32],
    weight: NDArray[np.float32],
    bias: NDArray[np.float32],
    out: NDArray[np.float32],
    kept: NDArray[np.float32],
) -> None:  # pragma: no cover
    rows, length, width = out.shape
    one = np.float32(1)
    said = np.empty(3 * width, np.float32)
    for row in range(rows):
        state = np.zeros(width, np.float32)
        for t in range(length):
            for k in range(3 * width):
                said[k] = bias[k] + _dot(weight[k], state)
            x, saved, new = given[row, t], kept[row, t], out[row, t]
            for n in range(width):
                r = one / (one + np.exp(-(x[n] + said[n])))
                z = one / (one + np.exp(-(x[width + n] + said[width + n])))
                recurrent = said[2 * width + n]
                candidate = np.tanh(x[2 * width + n] + r * recurrent)
                new[n] = (one - z) * candidate + z * state[n]
                saved[0, n], saved[1, n], saved[2, n], saved[3, n] = r, z, candidate, recurrent
            state = new


@numba.njit(cache=True, fastmath=True, nogil=True)
def _backward(
    grad: NDArray[np.float32],
    weight: NDArray[np.float32],
    out: NDArray[np.float32],
    kept: NDArray[np.float32],
    to_given: NDArray[np.float32],
    to_state: NDArray[np.float32],
) -> None:  # pragma: no cover
    rows, length, width = out.shape
    one = np.float32(1)
    nothing = np.zeros(width, np.float32)
    for row in range(rows):
        carried = np.zeros(width, np.float32)
        for t in range(length - 1, -1, -1):
            before = out[row, t - 1] if t > 0 else nothing
            saved, x, h = kept[row, t], to_given[row, t], to_state[row, t]
            for n in range(width):
                r, z, candidate, recurrent = saved[0, n], saved[1, n], saved[2, n], saved[3, n]
                change = grad[row, t, n] + carried[n]
                to_candidate = change * (one - z) * (one - candidate * candidate)
                to_z = change * (before[n] - candidate) * z * (one - z)
                to_r = to_candidate * recurrent * r * (one - r)
                x[n], x[width + n], x[2 * width + n] = to_r, to_z, to_candidate
                h[n], h[width + n], h[2 * width + n] = to_r, to_z, to_candidate * r
                carried[n] = change * z
            for k in range(3 * width):
                _add(weight[k], h[k], carried)
