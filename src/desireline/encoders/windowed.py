"""Encoders whose events look back on the last `length` ones: blocks that read a memory of earlier events.

A block turns each event into a memory once (keys and values, a node's state); whoever comes later within the window
reads it. Distances and time differences are relative, so a memory computed once stays valid while the window rolls on:
a live step costs O(length) and equals the batch result. State of a user: (length − 1) × (memories of all blocks, item,
time).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import ClassVar, Literal, TypeVar, cast

import torch
from torch import Tensor, nn

from desireline.core.errors import SettingError
from desireline.encoders.interface import Encoder, Events, State, newest
from desireline.schema.model import EncoderSettings

Value = TypeVar("Value")


@dataclass(frozen=True)
class View:
    """Who sees whom: L queries look at M keys, of which the last L are their own.

    first : int64 [B, L], each query sees the keys from this place up to its own
    items, times : int64 [B, M] of the keys
    """

    first: Tensor
    items: Tensor
    times: Tensor
    _made: dict[Callable[[View], object], object] = field(default_factory=dict)

    @property
    def new(self) -> int:
        """L."""
        return self.first.shape[1]

    def asked(self, x: Tensor) -> Tensor:
        """The queries' part [B, L, d] of x [B, N, d], N ≥ L."""
        return x if x.shape[1] == self.new else x[:, -self.new :]

    def distance(self) -> Tensor:
        """int64 [L, M]: events from the key to the query."""
        key = torch.arange(self.items.shape[1], device=self.items.device)
        return key[-self.new :, None] - key

    def allowed(self) -> Tensor:
        """bool [B, L, M]: whether the query sees the key."""
        key = torch.arange(self.items.shape[1], device=self.items.device)
        return (key >= self.first[:, :, None]) & (self.distance() >= 0)

    def once(self, make: Callable[[View], Value]) -> Value:
        """make(view), the same for all blocks that ask for it."""
        if make not in self._made:
            self._made[make] = make(self)
        return cast(Value, self._made[make])


class Block(nn.Module):
    """One layer over a memory of earlier events."""

    width: int  # of an event's memory

    @abstractmethod
    def forward(self, x: Tensor, earlier: Tensor | None, view: View) -> tuple[Tensor, Tensor]:
        """New vectors [B, L, d] of the last L of events x [B, N, d], and the memories [B, M, width] of all in view.

        earlier : [B, M − N, width], the memories of the events before; None: there are none
        """


class Windowed(Encoder):
    """Blocks one on the other, and a norm."""

    layout: ClassVar[Literal["padded", "packed"]] = "packed"
    trains_in_bfloat16: ClassVar[bool] = True

    def __init__(self, d_model: int, window: int, blocks: Iterable[Block]) -> None:
        super().__init__()
        self.d_model, self.window = d_model, window
        self.blocks: list[Block] = nn.ModuleList(blocks)  # type: ignore[assignment]
        self.last = nn.LayerNorm(d_model)

    def forward(self, events: Events, start: Tensor) -> Tensor:
        x = events.x
        here = torch.arange(x.shape[1], device=x.device)
        view = View(torch.maximum(start, here - (self.window - 1)), events.item, events.time)
        for block in self.blocks:
            x, _ = block(x, None, view)
        hidden: Tensor = self.last(x)
        return hidden

    @property
    def reach(self) -> int:
        return len(self.blocks) * (self.window - 1) + 1

    def latest(self, events: Events, lengths: Tensor) -> Tensor:
        """As the interface has it; each block answers only for the events that the blocks above it read."""
        here = torch.arange(events.x.shape[1], device=events.x.device)
        first = (len(here) - lengths)[:, None]  # rows moved to the right end: [B, 1], the first event of each
        place = (here - first).clamp(min=0)
        x = events.x.gather(1, place[..., None].expand_as(events.x))
        items, times = events.item.gather(1, place), events.time.gather(1, place)
        for above, block in zip(reversed(range(len(self.blocks))), self.blocks, strict=True):
            keys = x.shape[1]
            asked = min(keys, above * (self.window - 1) + 1)
            own = here[keys - asked : keys]
            seen = torch.maximum(first, own - (self.window - 1)).minimum(own)  # padding sees itself alone
            x, _ = block(x, None, View(seen, items[:, -keys:], times[:, -keys:]))
            first = (first - (keys - asked)).clamp(min=0)
        hidden: Tensor = self.last(x[:, -1])
        return hidden

    def initial(self, users: int) -> State:
        kept, place = self.window - 1, self.last.weight
        whole = torch.zeros(users, kept, dtype=torch.int64, device=place.device)
        state = {"seen": whole[:, 0].clone(), "items": whole, "times": whole.clone()}  # filled from the right
        return state | {f"memory_{k}": place.new_zeros(users, kept, b.width) for k, b in enumerate(self.blocks)}

    def extend(self, events: Events, lengths: Tensor, state: State) -> tuple[Tensor, State]:
        x, kept = events.x, self.window - 1
        own = kept + torch.arange(x.shape[1], device=x.device)
        items, times = (
            torch.cat([state[name], new], dim=1) for name, new in (("items", events.item), ("times", events.time))
        )
        view = View(torch.maximum(kept - state["seen"][:, None], own - kept), items, times)
        after: State = {
            "seen": (state["seen"] + lengths).clamp(max=kept),
            "items": newest(items, lengths, kept),
            "times": newest(times, lengths, kept),
        }
        for k, block in enumerate(self.blocks):
            x, memory = block(x, state[f"memory_{k}"], view)
            after[f"memory_{k}"] = newest(memory, lengths, kept)
        return self.last(x), after


def joined(earlier: Tensor | None, new: Tensor) -> Tensor:
    """Memories [B, M, width] of earlier events and of the new ones."""
    return new if earlier is None else torch.cat([earlier, new], dim=1)


def check_heads(settings: EncoderSettings) -> None:
    """Raise SettingError where the width cannot be shared out among the heads."""
    if settings.d_model % settings.heads:
        raise SettingError(
            f"d_model {settings.d_model} is no multiple of heads {settings.heads}, which share it: change one of them "
            "with --set."
        )


def split_heads(x: Tensor, heads: int) -> Tensor:
    """[B, L, d] as [B, heads, L, d / heads]."""
    return x.view(*x.shape[:-1], heads, -1).transpose(1, 2)
