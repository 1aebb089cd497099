"""A causal pre-norm transformer whose attention looks back over the last `length` events (SASRec, Kang & McAuley 2018).

Position enters as a learnt bias per head and distance (T5, Raffel et al. 2020, section 2.1), never as an absolute
number: a key computed once stays valid while the window rolls on, so that a live step costs O(length) and equals the
batch result. Cost of a token: 12·d² multiply-adds a layer for the projections, 2·length·d for attention. State of a
user: layers × 2 × (length − 1) × d floats.
"""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from desireline.encoders.interface import Encoder, State
from desireline.schema.model import EncoderSettings

NEVER = -1e9  # added to a forbidden score; finite, so that a row without a key gives no nan


class Transformer(Encoder):
    """`layers` blocks of attention and a feed-forward of width 4·d."""

    layout: ClassVar[Literal["padded", "packed"]] = "packed"

    def __init__(self, settings: EncoderSettings) -> None:
        super().__init__()
        if settings.d_model % settings.heads:
            raise ValueError(f"d_model {settings.d_model} is no multiple of heads {settings.heads}")
        self.window = settings.length
        self.d_model = settings.d_model
        self.blocks: list[Block] = nn.ModuleList(Block(settings) for _ in range(settings.layers))  # type: ignore[assignment]
        self.last = nn.LayerNorm(settings.d_model)

    def forward(self, x: Tensor, start: Tensor) -> Tensor:
        here = torch.arange(x.shape[1], device=x.device)
        distance = here[:, None] - here[None, :]  # [L, L], query − key
        allowed = (distance >= 0) & (distance < self.window) & (here[None, None, :] >= start[:, :, None])  # [R, L, L]
        for block in self.blocks:
            x = block(x, block.keys_values(x), distance, allowed)
        return self.last(x)

    def initial(self, users: int) -> State:
        kept = self.last.weight.new_zeros(users, 2, self.window - 1, self.d_model)
        seen = torch.zeros(users, dtype=torch.int64, device=kept.device)  # how many of them are filled, from the right
        return {"seen": seen} | {f"cache_{k}": kept.clone() for k in range(len(self.blocks))}

    def extend(self, x: Tensor, lengths: Tensor, state: State) -> tuple[Tensor, State]:
        kept, new = self.window - 1, x.shape[1]
        place = torch.arange(kept + new, device=x.device)
        distance = (place[kept:, None] - place[None, :]).clamp(max=self.window)  # [L, kept + L]
        filled = place[None, :] >= kept - state["seen"][:, None]  # [B, kept + L]
        allowed = (distance >= 0) & (distance < self.window) & filled[:, None, :]
        newest = lengths[:, None] + torch.arange(kept, device=x.device)  # the last `kept` places up to each row's end
        after: State = {"seen": (state["seen"] + lengths).clamp(max=kept)}
        for k, block in enumerate(self.blocks):
            both = torch.cat([state[f"cache_{k}"], block.keys_values(x)], dim=2)  # [B, 2, kept + L, d]
            x = block(x, both, distance, allowed)
            rows = newest[:, None, :, None].expand(-1, 2, -1, self.d_model)
            after[f"cache_{k}"] = both.gather(2, rows)
        return self.last(x), after


class Block(nn.Module):
    """Pre-norm attention over given keys and values, then a feed-forward."""

    def __init__(self, settings: EncoderSettings) -> None:
        super().__init__()
        d = settings.d_model
        self.heads = settings.heads
        self.attention_norm, self.forward_norm = nn.LayerNorm(d), nn.LayerNorm(d)
        self.query, self.key_value, self.out = nn.Linear(d, d), nn.Linear(d, 2 * d), nn.Linear(d, d)
        self.up, self.down = nn.Linear(d, 4 * d), nn.Linear(4 * d, d)
        self.bias = nn.Parameter(torch.zeros(settings.heads, settings.length + 1))  # by distance
        self.dropout = nn.Dropout(settings.dropout)

    def keys_values(self, x: Tensor) -> Tensor:
        """[B, 2, L, d] of the tokens x [B, L, d]."""
        return self.key_value(self.attention_norm(x)).unflatten(-1, (2, -1)).transpose(1, 2)

    def forward(self, x: Tensor, keys_values: Tensor, distance: Tensor, allowed: Tensor) -> Tensor:
        """x [B, L, d] attends to keys_values [B, 2, M, d] where allowed [B, L, M]; distance [L, M]."""
        queries = self._split(self.query(self.attention_norm(x)))  # [B, H, L, d / H]
        keys, values = self._split(keys_values[:, 0]), self._split(keys_values[:, 1])
        bias = self.bias[:, distance.clamp(min=0, max=self.bias.shape[1] - 1)]  # [H, L, M]
        scores = queries @ keys.transpose(-1, -2) / math.sqrt(queries.shape[-1]) + bias
        weights = scores.masked_fill(~allowed[:, None], NEVER).softmax(dim=-1)
        mixed = (weights @ values).transpose(1, 2).flatten(-2)  # [B, L, d]
        x = x + self.dropout(self.out(mixed))
        return x + self.dropout(self.down(F.gelu(self.up(self.forward_norm(x)))))

    def _split(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:-1], self.heads, -1).transpose(1, 2)
