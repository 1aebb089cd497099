"""Dropout whose masks cost a byte a value: PyTorch draws each value of a mask by itself, ten times as long."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

STEPS = 256  # the share left out is rounded to 256ths


class Dropout(nn.Module):
    """Leave out a share of values in training and scale up the others (Srivastava et al. 2014).

    On a CPU the masks come from a fast generator that PyTorch's seeds for each mask: `torch.manual_seed` repeats them.
    """

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share
        self.below = round(share * STEPS)

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.below == 0:
            return x
        if x.device.type != "cpu":
            return nn.functional.dropout(x, self.share)
        seed = int(torch.randint(2**62, ()))
        drawn = np.frombuffer(bytearray(np.random.Generator(np.random.SFC64(seed)).bytes(x.numel())), np.uint8)
        kept = torch.from_numpy(drawn).view(x.shape) >= self.below
        return x * (kept.to(x.dtype) * (STEPS / (STEPS - self.below)))
