"""The fused attention gives the values and gradients of plain float32 PyTorch."""

from __future__ import annotations

import math

import pytest
import torch

from desireline.encoders.attention import NEVER, attend, by_library


def plain(queries, keys, values, bias, first):
    """Attention in PyTorch's operators, a pass each."""
    key = torch.arange(keys.shape[2])
    distance = key[-queries.shape[2] :, None] - key  # [L, M]
    allowed = (distance >= 0) & (key >= first[:, :, None])
    by_distance = bias[:, distance.clamp(min=0, max=bias.shape[1] - 1)]
    scores = queries @ keys.transpose(-1, -2) / math.sqrt(queries.shape[-1]) + by_distance
    return scores.masked_fill(~allowed[:, None], NEVER).softmax(dim=-1) @ values


def asked(seed: int, dtype: torch.dtype, new: int, window: int) -> list[torch.Tensor]:
    """Queries of the last `new` of seven events, keys and values of all, biases."""
    torch.manual_seed(seed)
    tensors = [torch.randn(2, 3, length, 8) * 2 for length in (new, 7, 7)]
    tensors.append(torch.randn(3, window))
    return [t.to(dtype).requires_grad_() for t in tensors]


@pytest.mark.parametrize(("dtype", "within"), [(torch.float32, 1e-5), (torch.bfloat16, 4e-2)])
@pytest.mark.parametrize("window", [3, 7, 12])
@pytest.mark.parametrize("new", [7, 2])
@pytest.mark.parametrize("attention", [attend, by_library])
def test_values_and_gradients_are_those_of_plain_attention(attention, dtype, within, window, new):
    start = torch.tensor([[0] * 7, [0, 0, 2, 2, 2, 2, 6]])
    first = torch.maximum(start, torch.arange(7) - window + 1)[:, -new:]
    tensors = asked(5, dtype, new, window)
    fused = attention(*tensors, first)
    plain_tensors = [t.detach().float().requires_grad_() for t in tensors]
    expected = plain(*plain_tensors, first)
    torch.testing.assert_close(fused.float(), expected, atol=within, rtol=within)
    towards = torch.randn_like(expected)
    found = torch.autograd.grad((fused.float() * towards).sum(), tensors)
    wanted = torch.autograd.grad((expected * towards).sum(), plain_tensors)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one.float(), other, atol=within * 4, rtol=within * 4)


def test_large_scores_neither_overflow_nor_lose_the_best():
    *big, bias = (t.detach() for t in asked(1, torch.float32, 7, 7))
    big = [t * 60 for t in big]
    first = torch.zeros(2, 7, dtype=torch.int64)
    torch.testing.assert_close(attend(*big, bias, first), plain(*big, bias, first))
