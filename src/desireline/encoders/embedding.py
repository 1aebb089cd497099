"""One vector an event: the sum of what is known of it at its moment, normed.

item (with the item's own category fields), type, category fields, binned numbers, the gap since the event before, hour
and weekday. Everything is known when the event happens, so a live step sees exactly what training saw.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from desireline.encoders.dropout import Dropout
from desireline.sequences.vocabulary import FIRST

FREQUENCIES = 8  # of the gap's and the calendar's waves
START = 0.02  # deviation of a table's first values
SHARE = 0.5  # of its neighbours' mean in an item's first vector

Turned: TypeAlias = tuple[Tensor, Tensor, Tensor]


@dataclass(frozen=True)
class Inputs:
    """What the events of a log carry: sizes of the tables.

    items, types  : ids in all, padding and unknown included; items 2 means a log without items
    categories    : column -> ids, of the event's category fields and binned numbers
    item_fields   : field -> (ids, the id of each item's value), of the item's category fields
    timed         : whether times mean anything; false for logs that know the order only
    """

    items: int
    types: int
    categories: dict[str, int] = field(default_factory=dict)
    item_fields: dict[str, tuple[int, list[int]]] = field(default_factory=dict)
    timed: bool = True


class EventEmbedding(nn.Module):
    """Event vectors [..., d] from columns [...]; the item table is shared with the item head."""

    near: Tensor
    near_share: Tensor

    def __init__(self, inputs: Inputs, d_model: int, dropout: float, neighbours: int = 0) -> None:
        super().__init__()
        self.timed = inputs.timed
        self.items = nn.Embedding(inputs.items, d_model, padding_idx=0)
        self.types = nn.Embedding(inputs.types, d_model, padding_idx=0)
        self.categories = nn.ModuleDict(
            {n: nn.Embedding(size, d_model, padding_idx=0) for n, size in inputs.categories.items()}
        )
        self.item_fields = nn.ModuleDict(
            {n: nn.Embedding(size, d_model, padding_idx=0) for n, (size, _) in inputs.item_fields.items()}
        )
        for name, (_, of_item) in inputs.item_fields.items():
            self.register_buffer(f"of_item_{name}", torch.tensor(of_item, dtype=torch.int64))
        self.neighbours = neighbours
        if neighbours:  # of each item in the graph of what follows what, and their shares
            self.register_buffer("near", torch.zeros(inputs.items, neighbours, dtype=torch.int32))
            self.register_buffer("near_share", torch.zeros(inputs.items, neighbours))
            self.of_neighbours, self.into_events = (nn.Linear(d_model, d_model, bias=False) for _ in range(2))
            with torch.no_grad():
                for layer in (self.of_neighbours, self.into_events):
                    layer.weight.copy_(SHARE * torch.eye(d_model))
        self._turned: Turned | None = None
        self.gap = nn.Linear(1 + 2 * FREQUENCIES, d_model)
        self.calendar = nn.Linear(4, d_model, bias=False)
        self.norm = nn.LayerNorm(d_model)
        self.dropout = Dropout(dropout)
        for table in self.modules():
            if isinstance(table, nn.Embedding):
                nn.init.normal_(table.weight, std=START)
                with torch.no_grad():
                    table.weight[0].zero_()
        for layer in (self.gap, self.calendar):
            nn.init.normal_(layer.weight, std=0.02)

    def start_items(self, vectors: NDArray[np.float32]) -> None:
        """Begin items from vectors [items, d] of deviation 1; rows of nan stay as they are."""
        found = torch.from_numpy(vectors)
        known = ~found.isnan().any(1)
        known[:FIRST] = False
        weight = self.items.weight
        with torch.no_grad():
            weight[known.to(weight.device)] = START * found[known].to(weight.device)

    def start_neighbours(self, ids: NDArray[np.int32], shares: NDArray[np.float32]) -> None:
        """Take each item's neighbours [items, neighbours] and their shares, as `ItemKNN.followers` gives."""
        self.near.copy_(torch.from_numpy(ids))
        self.near_share.copy_(torch.from_numpy(shares))
        self._turned = None

    def item_vectors(self, ids: Tensor | None = None) -> Tensor:
        """Vectors [n, d] of items `ids` [n], or of the whole catalogue in the order of ids.

        Where neighbours are read, a candidate gains a learnt projection of the weighted mean of its neighbours in the
        graph of all histories, one round of propagation as in LightGCN (He et al. 2020, arXiv 2002.02126, equation 3),
        and an event's item another one, as from GCE-GNN's global graph (Wang et al. 2020, arXiv 2106.05081).
        """
        return self._vectors(ids, self.of_neighbours if self.neighbours else None)

    def _vectors(self, ids: Tensor | None, projection: nn.Module | None) -> Tensor:
        table = self.items.weight
        vectors = table if ids is None else self.items(ids)
        if projection is not None:
            vectors = vectors + projection(self._means(table, ids))
        for name, fields in self.item_fields.items():
            of_item = getattr(self, f"of_item_{name}")
            vectors = vectors + fields(of_item if ids is None else of_item[ids])
        return vectors

    def _means(self, table: Tensor, ids: Tensor | None) -> Tensor:
        if ids is None and torch.is_grad_enabled() and not self.items.sparse:
            if self._turned is None:
                self._turned = turned(self.near, self.near_share)
            found: Tensor = _AllMeans.apply(table, self.near, self.near_share, *self._turned)  # type: ignore[no-untyped-call]
            return found
        near, share = (self.near, self.near_share) if ids is None else (self.near[ids], self.near_share[ids])
        return F.embedding_bag(near, table, mode="sum", per_sample_weights=share, sparse=self.items.sparse)

    def forward(self, columns: Mapping[str, Tensor]) -> Tensor:
        """columns: `item`, `event` and the categories as ids, `gap` in seconds (−1: a user's first), `time` in µs."""
        return self.around(self.items_at(columns["item"]), columns)

    def items_at(self, ids: Tensor) -> Tensor:
        """Vectors [..., d] of the items `ids` [...] of events."""
        return self._vectors(ids.flatten(), self.into_events if self.neighbours else None).view(*ids.shape, -1)

    def around(self, items: Tensor, columns: Mapping[str, Tensor]) -> Tensor:
        """Event vectors [..., d] of events whose items' vectors [..., d] are given."""
        x = items + self.types(columns["event"])
        for name, table in self.categories.items():
            x = x + table(columns[name])
        if self.timed:
            x = x + self.gap(gap_waves(columns["gap"])) + self.calendar(calendar_waves(columns["time"]))
        return self.dropout(self.norm(x))


def turned(near: Tensor, share: Tensor) -> Turned:
    """Of each item those whose neighbour it is [E], where each item's begin [items], and its shares in them [E]."""
    owner = torch.arange(len(near), device=near.device, dtype=near.dtype)[:, None].expand_as(near)
    real = share > 0
    of, ids, shares = near[real], owner[real], share[real]
    order = torch.argsort(of, stable=True)
    begin = torch.searchsorted(of[order], torch.arange(len(near), device=near.device, dtype=near.dtype))
    return ids[order], begin.to(near.dtype), shares[order]


class _AllMeans(torch.autograd.Function):
    """Each item's weighted mean of its neighbours. The gradient is the same sum over the graph turned round, in a fifth
    of the time of PyTorch's own."""

    @staticmethod
    def forward(
        ctx: Any, table: Tensor, near: Tensor, share: Tensor, ids: Tensor, begin: Tensor, back: Tensor
    ) -> Tensor:
        ctx.save_for_backward(ids, begin, back)
        return F.embedding_bag(near, table, mode="sum", per_sample_weights=share)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        ids, begin, back = ctx.saved_tensors
        summed = F.embedding_bag(ids, grads[0].contiguous(), begin, mode="sum", per_sample_weights=back)
        return summed, None, None, None, None, None


def gap_waves(gap_s: Tensor) -> Tensor:
    """[..., 1 + 2·FREQUENCIES] of gaps in seconds: the logarithm, its waves at doubling frequencies; zeros for −1."""
    known = (gap_s >= 0).float()[..., None]
    log = torch.log1p(gap_s.clamp(min=0).float())[..., None] / 18.0  # 18 = log of two years in seconds
    angles = log * (math.pi * 2.0 ** torch.arange(FREQUENCIES, device=gap_s.device))
    return torch.cat([log, angles.sin(), angles.cos()], dim=-1) * known


def calendar_waves(time_us: Tensor) -> Tensor:
    """[..., 4]: sine and cosine of the hour of the day and of the weekday, in UTC."""
    hours = (time_us // 3_600_000_000).remainder(24).float() * (2 * math.pi / 24)
    days = (time_us // 86_400_000_000).remainder(7).float() * (2 * math.pi / 7)
    return torch.stack([hours.sin(), hours.cos(), days.sin(), days.cos()], dim=-1)
