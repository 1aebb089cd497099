"""The walk through time gives the values and gradients of `nn.GRU`."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from desireline.encoders.gated import MOST_ROWS, unrolled


@pytest.mark.parametrize("rows", [1, 3, MOST_ROWS + 1])
def test_values_and_gradients_are_those_of_the_library(rows):
    torch.manual_seed(0)
    cell = nn.GRU(12, 12, batch_first=True)
    x = torch.randn(rows, 20, 12, requires_grad=True)
    towards = torch.randn(rows, 20, 12)
    leaves = [x, *cell.parameters()]
    expected = cell(x)[0]
    wanted = torch.autograd.grad((expected * towards).sum(), leaves)
    found = unrolled(cell, x)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    for one, other in zip(torch.autograd.grad((found * towards).sum(), leaves), wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
