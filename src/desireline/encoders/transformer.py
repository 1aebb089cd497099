"""A causal pre-norm transformer whose attention looks back over the last `length` events (SASRec, Kang & McAuley 2018).

Position enters as a learnt bias per head and distance (T5, Raffel et al. 2020, section 2.1), never as an absolute
number. With `gate` each branch is scaled by a learnt gate of its input (LiGR, Hertel et al. 2025, arXiv 2502.03417).
Cost of a token: 12·d² multiply-adds a layer for the projections, 2·length·d for attention.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from desireline.encoders.attention import attend
from desireline.encoders.dropout import Dropout
from desireline.encoders.windowed import Block, View, Windowed, check_heads, joined, split_heads
from desireline.schema.model import EncoderSettings


class Transformer(Windowed):
    """`layers` blocks of attention and a feed-forward of width 4·d."""

    def __init__(self, settings: EncoderSettings) -> None:
        blocks = [AttentionBlock(settings) for _ in range(settings.layers)]
        super().__init__(settings.d_model, settings.length, blocks)


class AttentionBlock(Block):
    """Pre-norm attention over keys and values, then a feed-forward."""

    def __init__(self, settings: EncoderSettings) -> None:
        super().__init__()
        check_heads(settings)
        d = settings.d_model
        self.heads, self.width = settings.heads, 2 * d
        self.attention_norm, self.forward_norm = nn.LayerNorm(d), nn.LayerNorm(d)
        self.query, self.key_value, self.out = nn.Linear(d, d), nn.Linear(d, 2 * d), nn.Linear(d, d)
        self.up, self.down = nn.Linear(d, 4 * d), nn.Linear(4 * d, d)
        self.bias = nn.Parameter(torch.zeros(settings.heads, settings.length))  # by distance
        self.gates = nn.ModuleList(nn.Linear(d, d) for _ in range(2)) if settings.gate else None
        self.dropout = Dropout(settings.dropout)

    def forward(self, x: Tensor, earlier: Tensor | None, view: View) -> tuple[Tensor, Tensor]:
        normed = self.attention_norm(x)
        memory = joined(earlier, self.key_value(normed))
        x, normed = view.asked(x), view.asked(normed)
        queries = split_heads(self.query(normed), self.heads)  # [B, H, L, d / H]
        keys, values = (split_heads(part, self.heads) for part in memory.chunk(2, dim=-1))
        attended = attend(queries, keys, values, self.bias, view.first)
        mixed = self.out(attended.transpose(1, 2).flatten(-2))  # [B, L, d]
        if self.gates is not None:
            mixed = mixed * self.gates[0](normed).sigmoid()
        x = x + self.dropout(mixed)
        normed = self.forward_norm(x)
        grown = self.down(F.gelu(self.up(normed)))
        if self.gates is not None:
            grown = grown * self.gates[1](normed).sigmoid()
        return x + self.dropout(grown), memory
