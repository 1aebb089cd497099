"""The fused attention gives the values and gradients of plain float32 PyTorch."""

from __future__ import annotations

import pytest
import torch

from desireline.encoders.attention import attend


def asked(seed: int, dtype: torch.dtype, start: torch.Tensor, window: int) -> tuple[list[torch.Tensor], tuple]:
    torch.manual_seed(seed)
    rows, length = start.shape
    tensors = [torch.randn(rows, 3, length, 8) * 2 for _ in range(3)]
    tensors.append(torch.randn(3, window))
    tensors = [t.to(dtype).requires_grad_() for t in tensors]
    here = torch.arange(length)
    distance = here[:, None] - here[None, :]
    allowed = (distance >= 0) & (distance < window) & (here[None, None, :] >= start[:, :, None])
    return tensors, (allowed, distance)


@pytest.mark.parametrize(("dtype", "within"), [(torch.float32, 1e-5), (torch.bfloat16, 4e-2)])
@pytest.mark.parametrize("window", [3, 7, 12])
def test_values_and_gradients_are_those_of_plain_attention(dtype, within, window):
    start = torch.tensor([[0] * 7, [0, 0, 2, 2, 2, 2, 6]])
    tensors, (allowed, distance) = asked(5, dtype, start, window)
    start = torch.maximum(start, torch.arange(7) - window + 1)
    fused = attend(*tensors, allowed, distance, start)
    plain_tensors = [t.detach().float().requires_grad_() for t in tensors]
    plain = attend(*plain_tensors, allowed, distance, None)
    torch.testing.assert_close(fused.float(), plain, atol=within, rtol=within)
    towards = torch.randn_like(plain)
    found = torch.autograd.grad((fused.float() * towards).sum(), tensors)
    expected = torch.autograd.grad((plain * towards).sum(), plain_tensors)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one.float(), other, atol=within * 4, rtol=within * 4)


def test_large_scores_neither_overflow_nor_lose_the_best():
    tensors, (allowed, distance) = asked(1, torch.float32, torch.zeros(1, 5, dtype=torch.int64), 5)
    big = [t.detach() * 60 for t in tensors[:3]] + [tensors[3].detach()]
    torch.testing.assert_close(
        attend(*big, allowed, distance, torch.zeros(1, 5, dtype=torch.int64)), attend(*big, allowed, distance, None)
    )
