"""What every encoder is: hidden states from events, in two gaits that give the same numbers.

`forward` reads whole batches in training, each segment from nothing. `extend` reads the next events of users whose
earlier ones live on in a carried state; `step` is `extend` by one event, for the live service. A history read by
`forward`, by `extend` in pieces of any size, or by `step` event by event gives equal hidden states (tested to 1e-5).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

State = dict[str, Tensor]  # every tensor has one row a user


@dataclass(frozen=True)
class Events:
    """Events as encoders read them.

    x : float [..., d], the event vectors;  item : int64 [...], item ids, 0 without one
    time : int64 [...], microseconds, or places where a log knows the order only
    """

    x: Tensor
    item: Tensor
    time: Tensor


class Encoder(nn.Module, ABC):
    """A causal map from event vectors to hidden states of the same width.

    layout : how training batches are laid out. `padded`: one segment a row, rows of about equal length. `packed`: rows
    of constant length that hold several segments each.
    trains_in_bfloat16 : whether training in bfloat16 is faster where the device multiplies it natively
    """

    layout: ClassVar[Literal["padded", "packed"]]
    trains_in_bfloat16: ClassVar[bool] = False
    d_model: int

    @property
    def reach(self) -> int | None:
        """How many of the newest events, itself included, a hidden state can depend on; None: on all."""
        return None

    @abstractmethod
    def forward(self, events: Events, start: Tensor) -> Tensor:
        """Hidden states [R, L, d] of rows of events [R, L]; `start` [R, L] is the first place of each one's segment."""

    @abstractmethod
    def initial(self, users: int) -> State:
        """The state of `users` users without an event."""

    @abstractmethod
    def extend(self, events: Events, lengths: Tensor, state: State) -> tuple[Tensor, State]:
        """Hidden states [B, L, d] of the next `lengths` [B] events [B, L] of B users, and their states after them.

        Rows are filled from the left; what stands beyond a row's length is padding and gives no meaning.
        """

    def latest(self, events: Events, lengths: Tensor) -> Tensor:
        """Hidden states [B, d] after the last of each row's events [B, L], filled from the left up to `lengths` [B]."""
        hidden = self.forward(events, torch.zeros_like(events.item))
        return hidden[torch.arange(len(hidden), device=hidden.device), lengths - 1]

    def step(self, event: Events, state: State) -> tuple[Tensor, State]:
        """Hidden states [B, d] after one further event [B] of each of B users."""
        one = Events(event.x[:, None], event.item[:, None], event.time[:, None])
        hidden, state = self.extend(one, torch.ones(len(event.x), dtype=torch.int64, device=event.x.device), state)
        return hidden[:, 0], state


def newest(row: Tensor, lengths: Tensor, kept: int) -> Tensor:
    """The last `kept` places [B, kept, ...] of rows [B, kept + L, ...] whose own ends are kept + lengths [B]."""
    places = lengths[:, None] + torch.arange(kept, device=row.device)
    places = places.view(*places.shape, *(1 for _ in row.shape[2:])).expand(-1, -1, *row.shape[2:])
    return row.gather(1, places)


def state_bytes(encoder: Encoder) -> int:
    """Bytes that the carried state of one user takes."""
    return sum(t.numel() * t.element_size() for t in encoder.initial(1).values())
