"""A gated graph network over the session graph (SR-GNN, Wu et al. 2019, arXiv 1811.00855), made causal.

Nodes are items, edges lead from each event's item to the next one's. SR-GNN builds the graph of a whole session for
one prediction; here every event is a target, so each sees the graph of what came up to it: it takes the means of the
nodes that led to its item and of those that its item led to, as they were when they came, and a gated unit updates its
state (equations 1–5). The last block is the soft attention over all nodes (equation 6), scored by a product instead of
a sum, so that memory stays events × window. Cost of a token: 10·d² multiply-adds a layer, 2·length·d for the means.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from desireline.encoders.dropout import Dropout
from desireline.encoders.windowed import Block, View, Windowed, joined
from desireline.schema.model import EncoderSettings


class GNN(Windowed):
    """`layers` rounds of propagation, then the readout."""

    def __init__(self, settings: EncoderSettings) -> None:
        rounds = [Propagation(settings) for _ in range(settings.layers)]
        super().__init__(settings.d_model, settings.length, [*rounds, Readout(settings)])


class Propagation(Block):
    """One round: each event's node reads its neighbours in the graph up to it."""

    def __init__(self, settings: EncoderSettings) -> None:
        super().__init__()
        d = settings.d_model
        self.width = d
        self.norm = nn.LayerNorm(d)
        self.into, self.out_of = nn.Linear(d, d), nn.Linear(d, d)
        self.cell = nn.GRUCell(2 * d, d)
        self.dropout = Dropout(settings.dropout)

    def forward(self, x: Tensor, earlier: Tensor | None, view: View) -> tuple[Tensor, Tensor]:
        state = self.norm(x)
        memory = joined(earlier, state)
        x, state = view.asked(x), view.asked(state)
        before, after = (part.to(x.dtype) for part in view.once(neighbours))
        said = torch.cat([self.into(before @ memory), self.out_of(after @ memory)], dim=-1)
        updated = self.cell(said.flatten(0, 1), state.flatten(0, 1)).view_as(x)
        return x + self.dropout(updated), memory


class Readout(Block):
    """The node of the event itself beside the attended sum of all nodes in view."""

    def __init__(self, settings: EncoderSettings) -> None:
        super().__init__()
        d = settings.d_model
        self.width = d
        self.norm = nn.LayerNorm(d)
        self.query, self.both = nn.Linear(d, d), nn.Linear(2 * d, d)
        self.dropout = Dropout(settings.dropout)

    def forward(self, x: Tensor, earlier: Tensor | None, view: View) -> tuple[Tensor, Tensor]:
        own = self.norm(x)
        memory = joined(earlier, own)
        x, own = view.asked(x), view.asked(own)
        scores = self.query(own) @ memory.transpose(-1, -2) / math.sqrt(x.shape[-1])
        seen = view.once(View.allowed).to(x.dtype)
        weights = scores.sigmoid() * seen / seen.sum(-1, keepdim=True).clamp(min=1)
        return x + self.dropout(self.both(torch.cat([own, weights @ memory], dim=-1))), memory


def neighbours(view: View) -> tuple[Tensor, Tensor]:
    """float [B, L, M] twice, rows sum to 1 or 0: who led to the query's item, and whom it led to, up to the query.

    The events before and after each occurrence of the item within the view; an event without an item is its own kind.
    """
    items, allowed = view.items, view.once(View.allowed)
    same = (items[:, -view.new :, None] == items[:, None, :]) & allowed
    before = F.pad(same[:, :, 1:], (0, 1)) & allowed  # the key stands right before an occurrence
    after = F.pad(same[:, :, :-1], (1, 0)) & allowed
    return _shares(before), _shares(after)


def _shares(links: Tensor) -> Tensor:
    found = links.float()
    return found / found.sum(-1, keepdim=True).clamp(min=1)
