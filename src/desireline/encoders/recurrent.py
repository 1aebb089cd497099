"""Recurrent encoders: the cheapest state and the default of live use. `rnn` (Elman 1990), `lstm` (Hochreiter &
Schmidhuber 1997), `gru` (Cho et al. 2014), each stacked with pre-norm residuals.

Cost of a token and layer in multiply-adds: 2·d² (rnn), 8·d² (lstm), 6·d² (gru). State of a user: layers × d floats,
lstm twice that, whatever the history's length. Batches are padded rows of about equal length: dense rows are twice as
fast as a PackedSequence.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from desireline.encoders.dropout import Dropout
from desireline.encoders.gated import unrolled
from desireline.encoders.interface import Encoder, Events, State
from desireline.schema.model import EncoderSettings


class Recurrent(Encoder):
    """`layers` pre-norm residual recurrent layers of width d; `kind` is the cell."""

    layout: ClassVar[Literal["padded", "packed"]] = "padded"
    kind: ClassVar[Callable[..., nn.RNNBase]]

    def __init__(self, settings: EncoderSettings) -> None:
        super().__init__()
        d = settings.d_model
        self.d_model = d
        self.cells = nn.ModuleList(self.kind(d, d, batch_first=True) for _ in range(settings.layers))
        self.norms = nn.ModuleList(nn.LayerNorm(d) for _ in range(settings.layers))
        self.last = nn.LayerNorm(d)
        self.dropout = Dropout(settings.dropout)

    def forward(self, events: Events, start: Tensor) -> Tensor:
        x = events.x
        for cell, norm in zip(self.cells, self.norms, strict=True):
            x = x + self.dropout(self.outputs(cell, norm(x)))
        hidden: Tensor = self.last(x)
        return hidden

    def outputs(self, cell: nn.Module, x: Tensor) -> Tensor:
        """Outputs [R, L, d] of one layer that begins from nothing."""
        out: Tensor = cell(x)[0]
        return out

    def initial(self, users: int) -> State:
        place = self.last.weight
        return {f"hidden_{k}": place.new_zeros(users, self.d_model) for k in range(len(self.cells))}

    def extend(self, events: Events, lengths: Tensor, state: State) -> tuple[Tensor, State]:
        x, after = events.x, State()
        last = (lengths - 1).clamp(min=0)[:, None, None].expand(-1, 1, self.d_model)
        for k, (cell, norm) in enumerate(zip(self.cells, self.norms, strict=True)):
            before = state[f"hidden_{k}"]
            out, _ = cell(norm(x), before[None])
            reached = out.gather(1, last)[:, 0]  # [B, d], the state at each row's own end
            after[f"hidden_{k}"] = torch.where(lengths[:, None] > 0, reached, before)
            x = x + self.dropout(out)
        return self.last(x), after


class RNN(Recurrent):
    """Elman's cell with tanh."""

    kind = nn.RNN


class GRU(Recurrent):
    """Gated recurrent units."""

    kind = nn.GRU

    def outputs(self, cell: nn.Module, x: Tensor) -> Tensor:
        assert isinstance(cell, nn.GRU)
        return unrolled(cell, x)


class LSTM(Recurrent):
    """Long short-term memory: beside the hidden state a cell state is carried, which no output shows."""

    kind = nn.LSTM

    def initial(self, users: int) -> State:
        hidden = super().initial(users)
        return hidden | {name.replace("hidden", "cell"): t.clone() for name, t in hidden.items()}

    def extend(self, events: Events, lengths: Tensor, state: State) -> tuple[Tensor, State]:
        x, after, some = events.x, State(), lengths > 0
        sizes = lengths.clamp(min=1).cpu()  # a packed row holds one event at least; states of empty rows are kept below
        for k, (cell, norm) in enumerate(zip(self.cells, self.norms, strict=True)):
            before = state[f"hidden_{k}"], state[f"cell_{k}"]
            packed = pack_padded_sequence(norm(x), sizes, batch_first=True, enforce_sorted=False)
            packed, reached = cell(packed, tuple(t[None] for t in before))
            out, _ = pad_packed_sequence(packed, batch_first=True, total_length=x.shape[1])
            for name, old, new in zip(("hidden", "cell"), before, reached, strict=True):
                after[f"{name}_{k}"] = torch.where(some[:, None], new[0], old)
            x = x + self.dropout(out)
        return self.last(x), after
