"""Hierarchical sequential transduction units (Zhai et al. 2024, arXiv 2402.17152, equations 1–3).

Attention without softmax: silu of the scores, so that how much of a kind there was is not divided away, with a learnt
bias by distance and one by the time between the two events (logarithmic buckets); the mixed values are normed and
gated by the event itself, and no feed-forward follows. The paper divides the sums by a
constant; the norm that follows takes any constant out again, so it is left away.
Cost of a token: 5·d² multiply-adds a layer for the projections, 2·length·d for attention.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from desireline.encoders.dropout import Dropout
from desireline.encoders.windowed import Block, View, Windowed, check_heads, joined, split_heads
from desireline.schema.model import EncoderSettings

BUCKETS = 64  # of the time between two events, two each doubling: up to 2³² seconds


class HSTU(Windowed):
    """`layers` units."""

    def __init__(self, settings: EncoderSettings) -> None:
        super().__init__(settings.d_model, settings.length, [Unit(settings) for _ in range(settings.layers)])


class Unit(Block):
    """Pointwise projection, aggregation, gated transformation."""

    def __init__(self, settings: EncoderSettings) -> None:
        super().__init__()
        check_heads(settings)
        d = settings.d_model
        self.heads, self.width = settings.heads, 2 * d
        self.norm, self.mixed_norm = nn.LayerNorm(d), nn.LayerNorm(d)
        self.gate_query, self.key_value, self.out = nn.Linear(d, 2 * d), nn.Linear(d, 2 * d), nn.Linear(d, d)
        self.position = nn.Parameter(torch.randn(self.heads, settings.length) * 0.02)
        self.elapsed = nn.Parameter(torch.randn(BUCKETS, self.heads) * 0.02)
        self.dropout = Dropout(settings.dropout)

    def forward(self, x: Tensor, earlier: Tensor | None, view: View) -> tuple[Tensor, Tensor]:
        normed = self.norm(x)
        memory = joined(earlier, F.silu(self.key_value(normed)))
        x, normed = view.asked(x), view.asked(normed)
        gate, query = F.silu(self.gate_query(normed)).chunk(2, dim=-1)
        keys, values = (split_heads(part, self.heads) for part in memory.chunk(2, dim=-1))
        elapsed = F.embedding(view.once(elapsed_bucket), self.elapsed).permute(0, 3, 1, 2)  # [B, H, L, M]
        by_distance = self.position[:, view.once(View.distance).clamp(min=0, max=self.position.shape[1] - 1)]
        scores = split_heads(query, self.heads) @ keys.transpose(-1, -2) + by_distance + elapsed
        weights = F.silu(scores).masked_fill(~view.once(View.allowed)[:, None], 0.0)
        mixed = (weights @ values).transpose(1, 2).flatten(-2)
        return x + self.dropout(self.out(self.mixed_norm(mixed) * gate)), memory


def elapsed_bucket(view: View) -> Tensor:
    """int64 [B, L, M]: the bucket of the time between key and query."""
    seconds = (view.times[:, -view.new :, None] - view.times[:, None, :]).clamp(min=0) / 1e6
    return (2 * torch.log2(1 + seconds)).long().clamp(max=BUCKETS - 1)
