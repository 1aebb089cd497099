"""Encoders whose events look back on the last `length` ones: blocks that read a memory of earlier events.

A block turns each event into a memory once (keys and values, a node's state); whoever comes later within the window
reads it. Distances and time differences are relative, so a memory computed once stays valid while the window rolls on:
a live step costs O(length) and equals the batch result. State of a user: (length − 1) × (memories of all blocks, item,
time).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from desireline.encoders.interface import Encoder, Events, State, newest


@dataclass(frozen=True)
class View:
    """Who sees whom: L new events look at M, of which the new ones are the last L.

    distance : int64 [L, M], events from the key to the query;  allowed : bool [B, L, M]
    items, times : int64 [B, M] of the keys; those of the queries are the last L
    start : int64 [B, L], where L = M and each sees all from its start up to itself; else None
    """

    distance: Tensor
    allowed: Tensor
    items: Tensor
    times: Tensor
    start: Tensor | None = None

    @property
    def new(self) -> int:
        """L."""
        return self.distance.shape[0]


class Block(nn.Module):
    """One layer over a memory."""

    width: int  # of an event's memory

    @abstractmethod
    def memory(self, x: Tensor) -> Tensor:
        """What later events may read of events x [B, L, d]: [B, L, width]."""

    @abstractmethod
    def forward(self, x: Tensor, memory: Tensor, view: View) -> Tensor:
        """New vectors [B, L, d] of events x [B, L, d] that read memory [B, M, width]."""


class Windowed(Encoder):
    """Blocks one on the other, and a norm."""

    layout: ClassVar[Literal["padded", "packed"]] = "packed"
    pays_bfloat16: ClassVar[bool] = True

    def __init__(self, d_model: int, window: int, blocks: Iterable[Block]) -> None:
        super().__init__()
        self.d_model, self.window = d_model, window
        self.blocks: list[Block] = nn.ModuleList(blocks)  # type: ignore[assignment]
        self.last = nn.LayerNorm(d_model)

    def forward(self, events: Events, start: Tensor) -> Tensor:
        x = events.x
        here = torch.arange(x.shape[1], device=x.device)
        distance = here[:, None] - here[None, :]
        allowed = (distance >= 0) & (distance < self.window) & (here[None, None, :] >= start[:, :, None])
        first = torch.maximum(start, here - (self.window - 1))
        view = View(distance, allowed, events.item, events.time, first)
        for block in self.blocks:
            x = block(x, block.memory(x), view)
        hidden: Tensor = self.last(x)
        return hidden

    def initial(self, users: int) -> State:
        kept, place = self.window - 1, self.last.weight
        whole = torch.zeros(users, kept, dtype=torch.int64, device=place.device)
        state = {"seen": whole[:, 0].clone(), "items": whole, "times": whole.clone()}  # filled from the right
        return state | {f"memory_{k}": place.new_zeros(users, kept, b.width) for k, b in enumerate(self.blocks)}

    def extend(self, events: Events, lengths: Tensor, state: State) -> tuple[Tensor, State]:
        x, kept = events.x, self.window - 1
        place = torch.arange(kept + x.shape[1], device=x.device)
        distance = place[kept:, None] - place[None, :]
        filled = place[None, :] >= kept - state["seen"][:, None]
        allowed = (distance >= 0) & (distance < self.window) & filled[:, None, :]
        items, times = (
            torch.cat([state[name], new], dim=1) for name, new in (("items", events.item), ("times", events.time))
        )
        view = View(distance, allowed, items, times)
        after: State = {
            "seen": (state["seen"] + lengths).clamp(max=kept),
            "items": newest(items, lengths, kept),
            "times": newest(times, lengths, kept),
        }
        for k, block in enumerate(self.blocks):
            memory = torch.cat([state[f"memory_{k}"], block.memory(x)], dim=1)
            x = block(x, memory, view)
            after[f"memory_{k}"] = newest(memory, lengths, kept)
        return self.last(x), after


def split_heads(x: Tensor, heads: int) -> Tensor:
    """[B, L, d] as [B, heads, L, d / heads]."""
    return x.view(*x.shape[:-1], heads, -1).transpose(1, 2)


def by_distance(table: Tensor, view: View) -> Tensor:
    """A learnt number per head and distance: table [H, window] as [H, L, M]; what is not allowed gets any."""
    return table[:, view.distance.clamp(min=0, max=table.shape[1] - 1)]
