"""Dropout (Srivastava et al. 2014) whose masks are read, on a processor, from a drawn pool, each time from another
place.

Drawing a mask takes as long as the layer that it is for; reading one costs a product. The pool is the same for every
run and the places follow from torch's seed, so that a run can be repeated and resumed to the bit.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

POOL = 1 << 22  # values; a mask of more than half of it is drawn anew


class Dropout(nn.Module):
    """Sets a share `p` of values to 0 in training and scales the rest by 1 / (1 − p)."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        size = x.numel()
        if not self.training or self.p == 0.0:
            return x
        if size > POOL // 2 or x.device.type != "cpu":
            return F.dropout(x, self.p)
        place = int(torch.randint(POOL - size, ()))
        return x * _pool(self.p, x.dtype)[place : place + size].view(x.shape)


@cache
def _pool(p: float, kind: torch.dtype) -> Tensor:
    drawn = torch.rand(POOL, generator=torch.Generator().manual_seed(0))
    return ((drawn >= p) / (1 - p)).to(kind)
