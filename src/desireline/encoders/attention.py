"""Causal attention within segments of packed rows, fused for a CPU: products by the library, the rest in one pass.

PyTorch's own on a CPU reads and writes the scores five times forward and six times back (scale, bias, mask, softmax,
copies), and in bfloat16 it is slower than in float32. Here the scores of one query are scaled, biased, masked and
normalised while they are in the cache, in place; the gradient likewise. Only [start, query] is touched, the rest of a
row is zero. Elsewhere (another device, a carried state) plain PyTorch gives the same numbers.
"""

from __future__ import annotations

import math
from typing import Any

import numba
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

NEVER = -1e9  # added to a forbidden score; finite, so that a row without a key gives no nan
# 2^f on [-1/2, 1/2], Taylor's terms (ln 2)^k / k! up to the sixth: relative error 1e-7
C1, C2, C3, C4, C5, C6 = (np.float32(math.log(2) ** k / math.factorial(k)) for k in range(1, 7))
UNIT = np.float32(1)
LOG2E, LOWEST = np.float32(1.4426950408889634), np.float32(-126.0)
EXPONENT, HALF_WORD, ROUND, ONE = np.int32(23), np.uint32(16), np.uint32(0x7FFF), np.uint32(1)


def attend(
    queries: Tensor, keys: Tensor, values: Tensor, bias: Tensor, allowed: Tensor, distance: Tensor, start: Tensor | None
) -> Tensor:
    """Mixed values [B, H, L, d] of softmax(q·k / √d + bias by distance) over what is allowed.

    queries [B, H, L, d], keys and values [B, H, M, d], bias [H, window] by `distance` [L, M], allowed [B, L, M].
    `start` [B, L], where keys are the queries' own events and each sees all from its start up to itself, at most the
    window: lets a CPU take the fused way.
    """
    if start is not None and queries.device.type == "cpu" and queries.dtype in (torch.float32, torch.bfloat16):
        fused: Tensor = _Attention.apply(queries, keys, values, bias, start)  # type: ignore[no-untyped-call]
        return fused
    by_distance = bias[:, distance.clamp(min=0, max=bias.shape[1] - 1)]
    scores = queries @ keys.transpose(-1, -2) / math.sqrt(queries.shape[-1]) + by_distance
    return scores.masked_fill(~allowed[:, None], NEVER).softmax(dim=-1) @ values


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, queries: Tensor, keys: Tensor, values: Tensor, bias: Tensor, start: Tensor) -> Tensor:
        weights = queries @ keys.transpose(-1, -2)
        scale = 1 / math.sqrt(queries.shape[-1])
        # farthest first, so that a row of scores meets a row of biases: [H, window], the last is distance 0
        reverse = bias.detach().float().flip(-1).contiguous().numpy()
        kernel = _softmax_bf16 if weights.dtype == torch.bfloat16 else _softmax_f32
        kernel(_array(weights), reverse, start.numpy(), np.float32(scale))
        ctx.save_for_backward(queries, keys, values, weights, start)
        ctx.bias, ctx.scale = bias, scale
        return weights @ values

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, None]:
        queries, keys, values, weights, start = ctx.saved_tensors
        change = grads[0] @ values.transpose(-1, -2)
        reverse = np.zeros(ctx.bias.shape, np.float32)
        kernel = _gradient_bf16 if weights.dtype == torch.bfloat16 else _gradient_f32
        kernel(_array(weights), _array(change), reverse, start.numpy(), np.float32(ctx.scale))
        grad_bias = torch.from_numpy(reverse).flip(-1).to(ctx.bias.dtype)
        return (
            change @ keys,
            change.transpose(-1, -2) @ queries,
            weights.transpose(-1, -2) @ grads[0],
            grad_bias,
            None,
        )


def _array(tensor: Tensor) -> NDArray[Any]:
    """[B, H, L, L] as what Numba reads: bfloat16 as its bits."""
    return tensor.view(torch.uint16).numpy() if tensor.dtype == torch.bfloat16 else tensor.numpy()


@numba.njit(cache=True, fastmath=True, nogil=True)
def _softmax_row(z: NDArray[np.float32], bias: NDArray[np.float32], scale: np.float32) -> None:  # pragma: no cover
    highest = np.float32(-3e38)
    for j in range(len(z)):
        z[j] = z[j] * scale + bias[j]
        highest = max(highest, z[j])
    total = np.float32(0)
    for j in range(len(z)):
        power = max((z[j] - highest) * LOG2E, LOWEST)
        whole = np.rint(power)
        f = power - whole
        grown = np.float32(UNIT + f * (C1 + f * (C2 + f * (C3 + f * (C4 + f * (C5 + f * C6))))))
        raised = np.uint32(grown.view(np.int32) + np.int32(np.int32(whole) << EXPONENT)).view(np.float32)
        z[j] = raised
        total += raised
    share = np.float32(1) / total
    for j in range(len(z)):
        z[j] *= share


@numba.njit(cache=True, fastmath=True, nogil=True)
def _gradient_row(
    p: NDArray[np.float32], g: NDArray[np.float32], bias: NDArray[np.float32], scale: np.float32
) -> None:  # pragma: no cover
    dot = np.float32(0)
    for j in range(len(p)):
        dot += p[j] * g[j]
    for j in range(len(p)):
        change = p[j] * (g[j] - dot)
        bias[j] += change
        g[j] = change * scale


@numba.njit(cache=True, fastmath=True, nogil=True)
def _read(bits: NDArray[np.uint16], out: NDArray[np.float32]) -> None:  # pragma: no cover
    for j in range(len(bits)):
        out[j] = np.uint32(np.uint32(bits[j]) << HALF_WORD).view(np.float32)


@numba.njit(cache=True, nogil=True)
def _write(values: NDArray[np.float32], bits: NDArray[np.uint16]) -> None:  # pragma: no cover
    raw = values.view(np.uint32)
    for j in range(len(bits)):
        raised = raw[j]
        bits[j] = np.uint16(np.uint32(raised + ROUND + np.uint32((raised >> HALF_WORD) & ONE)) >> HALF_WORD)  # to even


@numba.njit(cache=True, nogil=True)
def _softmax_f32(
    scores: NDArray[np.float32], bias: NDArray[np.float32], start: NDArray[np.int64], scale: np.float32
) -> None:  # pragma: no cover
    rows, heads, length, _ = scores.shape
    for r in range(rows):
        for h in range(heads):
            for i in range(length):
                s, row = start[r, i], scores[r, h, i]
                row[:s] = 0
                row[i + 1 :] = 0
                _softmax_row(row[s : i + 1], bias[h, bias.shape[1] - 1 - i + s :], scale)


@numba.njit(cache=True, nogil=True)
def _softmax_bf16(
    scores: NDArray[np.uint16], bias: NDArray[np.float32], start: NDArray[np.int64], scale: np.float32
) -> None:  # pragma: no cover
    rows, heads, length, _ = scores.shape
    z = np.empty(length, np.float32)
    for r in range(rows):
        for h in range(heads):
            for i in range(length):
                s, row = start[r, i], scores[r, h, i]
                row[:s] = 0
                row[i + 1 :] = 0
                seen, held = row[s : i + 1], z[: i + 1 - s]
                _read(seen, held)
                _softmax_row(held, bias[h, bias.shape[1] - 1 - i + s :], scale)
                _write(held, seen)


@numba.njit(cache=True, nogil=True)
def _gradient_f32(
    weights: NDArray[np.float32],
    change: NDArray[np.float32],
    bias: NDArray[np.float32],
    start: NDArray[np.int64],
    scale: np.float32,
) -> None:  # pragma: no cover
    rows, heads, length, _ = weights.shape
    for r in range(rows):
        for h in range(heads):
            for i in range(length):
                s, row = start[r, i], change[r, h, i]
                row[:s] = 0
                row[i + 1 :] = 0
                _gradient_row(weights[r, h, i, s : i + 1], row[s : i + 1], bias[h, bias.shape[1] - 1 - i + s :], scale)


@numba.njit(cache=True, nogil=True)
def _gradient_bf16(
    weights: NDArray[np.uint16],
    change: NDArray[np.uint16],
    bias: NDArray[np.float32],
    start: NDArray[np.int64],
    scale: np.float32,
) -> None:  # pragma: no cover
    rows, heads, length, _ = weights.shape
    p, g = np.empty(length, np.float32), np.empty(length, np.float32)
    for r in range(rows):
        for h in range(heads):
            for i in range(length):
                s, row = start[r, i], change[r, h, i]
                row[:s] = 0
                row[i + 1 :] = 0
                size = i + 1 - s
                _read(weights[r, h, i, s : i + 1], p[:size])
                _read(row[s : i + 1], g[:size])
                _gradient_row(p[:size], g[:size], bias[h, bias.shape[1] - 1 - i + s :], scale)
                _write(g[:size], row[s : i + 1])
