"""One vector an event: the sum of what is known of it at its moment, normed.

item (with the item's own category fields), type, category fields, binned numbers, the gap since the event before, hour
and weekday. Everything is known when the event happens, so a live step sees exactly what training saw.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from desireline.encoders.dropout import Dropout
from desireline.encoders.neighbours import Neighbours
from desireline.sequences.vocabulary import FIRST

FREQUENCIES = 8  # of the gap's and the calendar's waves
START = 0.02  # deviation of a table's first values


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

    def __init__(self, inputs: Inputs, d_model: int, dropout: float, neighbours: int | Literal["auto"] = 0) -> None:
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
        most = 0 if neighbours == "auto" else neighbours  # who knows the log says how many
        self.neighbours = Neighbours(inputs.items, most, d_model) if most else None
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

    def item_vectors(self, ids: Tensor | None = None) -> Tensor:
        """Vectors [n, d] of items `ids` [n] as candidates, or of the whole catalogue in the order of ids."""
        return self._vectors(ids, self.neighbours and self.neighbours.of_candidates)

    def _vectors(self, ids: Tensor | None, projection: nn.Module | None) -> Tensor:
        vectors = self.items.weight if ids is None else self.items(ids)
        if self.neighbours is not None and projection is not None:
            vectors = vectors + projection(self.neighbours(self.items, ids))
        for name, table in self.item_fields.items():
            of_item = getattr(self, f"of_item_{name}")
            vectors = vectors + table(of_item if ids is None else of_item[ids])
        return vectors

    def forward(self, columns: Mapping[str, Tensor]) -> Tensor:
        """columns: `item`, `event` and the categories as ids, `gap` in seconds (−1: a user's first), `time` in µs."""
        return self.around(self.items_at(columns["item"]), columns)

    def items_at(self, ids: Tensor) -> Tensor:
        """Vectors [..., d] of the items `ids` [...] of events."""
        return self._vectors(ids.flatten(), self.neighbours and self.neighbours.of_events).view(*ids.shape, -1)

    def around(self, items: Tensor, columns: Mapping[str, Tensor]) -> Tensor:
        """Event vectors [..., d] of events whose items' vectors [..., d] are given."""
        x = items + self.types(columns["event"])
        for name, table in self.categories.items():
            x = x + table(columns[name])
        if self.timed:
            x = x + self.gap(gap_waves(columns["gap"])) + self.calendar(calendar_waves(columns["time"]))
        return self.dropout(self.norm(x))


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
