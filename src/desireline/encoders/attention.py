"""Causal attention over a window, fused for a CPU: products by the library, the rest in one pass.

PyTorch's own on a CPU reads and writes the scores five times forward and six times back (scale, bias, mask, softmax,
copies), and in bfloat16 it is slower than in float32. Here the scores of one query are scaled, biased, masked and
normalised while they are in the cache, in place; the gradient likewise. Only what the query sees is touched, the rest
of a row is zero. On another device PyTorch's own fused attention gives the same numbers.
"""

from __future__ import annotations

import math
from typing import Any

import numba
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from desireline.encoders.bits import array, narrow, raised, widen

NEVER = -1e9  # added to a forbidden score; finite, so that a row without a key gives no nan


def attend(queries: Tensor, keys: Tensor, values: Tensor, bias: Tensor, first: Tensor) -> Tensor:
    """Mixed values [B, H, L, d] of softmax(q·k / √d + bias by distance).

    queries [B, H, L, d]; keys and values [B, H, M, d], of which the last L belong to the queries themselves; bias
    [H, window] by the distance from key to query. Each query sees from key `first` [B, L] up to its own, fewer than
    `window` events back.
    """
    if queries.device.type == "cpu":
        fused: Tensor = _Attention.apply(queries, keys, values, bias, first)  # type: ignore[no-untyped-call]
        return fused
    return by_library(queries, keys, values, bias, first)


def by_library(queries: Tensor, keys: Tensor, values: Tensor, bias: Tensor, first: Tensor) -> Tensor:
    """The same by PyTorch's scaled_dot_product_attention."""
    return scaled_dot_product_attention(queries, keys, values, attn_mask=_mask(bias, first, keys.shape[2]))


def _mask(bias: Tensor, first: Tensor, keys: int) -> Tensor:
    """[B, H, L, keys], what is added to the scores of queries that see from `first` [B, L] on: bias, or NEVER."""
    length = first.shape[1]
    key = torch.arange(keys, device=bias.device)
    distance = torch.arange(keys - 1, -length, -1, device=bias.device)  # of each diagonal, from the lower left
    diagonals = bias.index_select(1, distance.clamp(min=0, max=bias.shape[1] - 1))  # [H, keys + L − 1]
    by_distance = diagonals.unfold(1, keys, 1).flip(1)  # [H, L, keys]
    allowed = (key <= key[-length:, None]) & (key >= first[:, :, None])
    return by_distance.masked_fill(~allowed[:, None], NEVER)


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, queries: Tensor, keys: Tensor, values: Tensor, bias: Tensor, first: Tensor) -> Tensor:
        # heads lie interleaved: laid out one after the other they multiply half as fast again
        queries, keys, values = queries.contiguous(), keys.contiguous(), values.contiguous()
        weights = queries @ keys.transpose(-1, -2)
        scale = 1 / math.sqrt(queries.shape[-1])
        # farthest first, so that a row of scores meets a row of biases: [H, window], the last is distance 0
        reverse = bias.detach().float().flip(-1).contiguous().numpy()
        _softmax(array(weights), reverse, first.numpy(), np.float32(scale))
        ctx.save_for_backward(queries, keys, values, weights, first)
        ctx.bias, ctx.scale = bias, scale
        return weights @ values

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, None]:
        queries, keys, values, weights, first = ctx.saved_tensors
        given = grads[0].contiguous()
        change = given @ values.transpose(-1, -2)
        reverse = np.zeros(ctx.bias.shape, np.float32)
        _gradient(array(weights), array(change), reverse, first.numpy(), np.float32(ctx.scale))
        return (
            change @ keys,
            change.transpose(-1, -2) @ queries,
            weights.transpose(-1, -2) @ given,
            torch.from_numpy(reverse).flip(-1).to(ctx.bias.dtype),
            None,
        )


@numba.njit(cache=True, fastmath=True, nogil=True)
def _normalised(z: NDArray[np.float32], bias: NDArray[np.float32], scale: np.float32) -> None:  # pragma: no cover
    highest = np.float32(-3e38)
    for j in range(len(z)):
        z[j] = z[j] * scale + bias[j]
        highest = max(highest, z[j])
    share = np.float32(1) / raised(z, highest)
    for j in range(len(z)):
        z[j] *= share


@numba.njit(cache=True, fastmath=True, nogil=True)
def _turned_back(
    p: NDArray[np.float32], g: NDArray[np.float32], bias: NDArray[np.float32], scale: np.float32
) -> None:  # pragma: no cover
    dot = np.float32(0)
    for j in range(len(p)):
        dot += p[j] * g[j]
    for j in range(len(p)):
        change = p[j] * (g[j] - dot)
        bias[j] += change
        g[j] = change * scale


@numba.njit(cache=True, nogil=True)
def _softmax(
    scores: NDArray[Any], bias: NDArray[np.float32], first: NDArray[np.int64], scale: np.float32
) -> None:  # pragma: no cover
    """Scores [B, H, L, M], float32 or bfloat16's bits, become weights in place."""
    rows, heads, length, keys = scores.shape
    z = np.empty(keys, np.float32)
    for r in range(rows):
        for h in range(heads):
            for i in range(length):
                begin, own, row = first[r, i], keys - length + i, scores[r, h, i]
                row[:begin] = 0
                row[own + 1 :] = 0
                seen, held = row[begin : own + 1], z[: own + 1 - begin]
                widen(seen, held)
                _normalised(held, bias[h, bias.shape[1] - len(held) :], scale)
                narrow(held, seen)


@numba.njit(cache=True, nogil=True)
def _gradient(
    weights: NDArray[Any],
    change: NDArray[Any],
    bias: NDArray[np.float32],
    first: NDArray[np.int64],
    scale: np.float32,
) -> None:  # pragma: no cover
    """`change`, the gradient of weights [B, H, L, M], becomes that of scores in place; `bias` gains its own."""
    rows, heads, length, keys = weights.shape
    p, g = np.empty(keys, np.float32), np.empty(keys, np.float32)
    for r in range(rows):
        for h in range(heads):
            for i in range(length):
                begin, own, row = first[r, i], keys - length + i, change[r, h, i]
                row[:begin] = 0
                row[own + 1 :] = 0
                size = own + 1 - begin
                widen(weights[r, h, i, begin : own + 1], p[:size])
                widen(row[begin : own + 1], g[:size])
                _turned_back(p[:size], g[:size], bias[h, bias.shape[1] - size :], scale)
                narrow(g[:size], row[begin : own + 1])
