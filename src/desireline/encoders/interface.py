"""What every encoder is: hidden states from event vectors, in two gaits that give the same numbers.

`forward` reads whole batches in training, each segment from nothing. `extend` reads the next events of users whose
earlier ones live on in a carried state; `step` is `extend` by one event, for the live service. A history read by
`forward`, by `extend` in pieces of any size, or by `step` event by event gives equal hidden states (tested to 1e-5).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

State = dict[str, Tensor]  # every tensor has one row a user


class Encoder(nn.Module, ABC):
    """A causal map from event vectors to hidden states of the same width.

    layout : how training batches are laid out. `padded`: one segment a row, rows of about equal length. `packed`: rows
    of constant length that hold several segments each.
    """

    layout: ClassVar[Literal["padded", "packed"]]

    @abstractmethod
    def forward(self, x: Tensor, start: Tensor) -> Tensor:
        """Hidden states [R, L, d] of rows x [R, L, d]; `start` [R, L] is the first token of each token's segment."""

    @abstractmethod
    def initial(self, users: int) -> State:
        """The state of `users` users without an event."""

    @abstractmethod
    def extend(self, x: Tensor, lengths: Tensor, state: State) -> tuple[Tensor, State]:
        """Hidden states [B, L, d] of the next `lengths` [B] events x [B, L, d] of B users, and their states after them.

        Rows are filled from the left; what stands beyond a row's length is padding and gives no meaning.
        """

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Hidden states [B, d] after one further event x [B, d] of each of B users."""
        hidden, state = self.extend(x[:, None], torch.ones(len(x), dtype=torch.int64, device=x.device), state)
        return hidden[:, 0], state


def state_bytes(encoder: Encoder) -> int:
    """Bytes that the carried state of one user takes."""
    return sum(t.numel() * t.element_size() for t in encoder.initial(1).values())
