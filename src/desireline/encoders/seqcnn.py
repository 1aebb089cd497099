"""SeqCNN: dilated causal convolutions that feed gated recurrent units.

The convolutions (kernel 3, dilation 1, 2, 4, … ; residual blocks as in NextItNet, Yuan et al. 2019, arXiv 1808.05163)
read short-range patterns, two layers of them over 7 events; the units carry them on without end. Cost of a token:
`layers` × 3·d² multiply-adds for the convolutions and 6·d² for the units. State of a user: 2 · (2^layers − 1) + 1
vectors of d floats.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from desireline.encoders.dropout import Dropout
from desireline.encoders.interface import Encoder, Events, State, newest
from desireline.encoders.recurrent import GRU
from desireline.schema.model import EncoderSettings

KERNEL = 3


class SeqCNN(Encoder):
    """`layers` convolutions, the dilation doubling, then one layer of gated recurrent units."""

    layout: ClassVar[Literal["padded", "packed"]] = "padded"

    def __init__(self, settings: EncoderSettings) -> None:
        super().__init__()
        d = settings.d_model
        self.d_model = d
        self.norms = nn.ModuleList(nn.LayerNorm(d) for _ in range(settings.layers))
        self.convolutions = nn.ModuleList(nn.Conv1d(d, d, KERNEL, dilation=2**k) for k in range(settings.layers))
        self.dropout = Dropout(settings.dropout)
        self.recurrent = GRU(settings.model_copy(update={"layers": 1}))

    def forward(self, events: Events, start: Tensor) -> Tensor:
        x = events.x
        for k, (norm, convolution) in enumerate(zip(self.norms, self.convolutions, strict=True)):
            x = self._added(x, F.pad(norm(x), (0, 0, self._reach(k), 0)), convolution)
        hidden: Tensor = self.recurrent(Events(x, events.item, events.time), start)
        return hidden

    def initial(self, users: int) -> State:
        place = self.recurrent.last.weight
        caches = {f"past_{k}": place.new_zeros(users, self._reach(k), self.d_model) for k in range(len(self.norms))}
        return caches | self.recurrent.initial(users)

    def extend(self, events: Events, lengths: Tensor, state: State) -> tuple[Tensor, State]:
        x, after = events.x, State()
        for k, (norm, convolution) in enumerate(zip(self.norms, self.convolutions, strict=True)):
            read = torch.cat([state[f"past_{k}"], norm(x)], dim=1)
            x = self._added(x, read, convolution)
            after[f"past_{k}"] = newest(read, lengths, self._reach(k))
        hidden, carried = self.recurrent.extend(Events(x, events.item, events.time), lengths, state)
        return hidden, after | carried

    def _reach(self, k: int) -> int:
        return (KERNEL - 1) * 2**k

    def _added(self, x: Tensor, read: Tensor, convolution: nn.Module) -> Tensor:
        """x [B, L, d] and the convolution of read [B, reach + L, d]."""
        out = convolution(read.transpose(1, 2)).transpose(1, 2)
        return x + self.dropout(F.gelu(out))
