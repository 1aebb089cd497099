"""The one sequence model: event embedding, encoder, and the heads of a task; read in training or as of given events."""

from __future__ import annotations

import gc
from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call

from desireline.encoders import ENCODERS, Events
from desireline.encoders.embedding import EventEmbedding, Inputs
from desireline.encoders.interface import Encoder
from desireline.schema.model import EncoderSettings
from desireline.sequences.batches import Batch, filled, places_within
from desireline.sequences.prepared import Prepared
from desireline.sequences.ragged import Sequences
from desireline.sequences.vocabulary import FIRST
from desireline.training.device import beside, fast_products
from desireline.training.graphs import Replayed

Ints: TypeAlias = NDArray[np.int64]

TOKENS, PIECE = 8_192, 256  # events read side by side, and of one user at a time: what they need stays in the cache
LARGE = 1 << 20  # events × width: from there a walk's products pay oneDNN's ten microseconds a call
TOKENS_ON_CARD = 65_536  # a card is idle with fewer
LONGEST = 1_024  # events of one user read at once where only the last is asked: attention holds their square


def inputs_of(prepared: Prepared) -> Inputs:
    """The tables that a log's events need; a field of which nothing was kept brings none."""
    vocabularies = prepared.vocabularies
    categories = {name: len(v) for name, v in vocabularies.items() if name.startswith("field_") and len(v) > FIRST}
    categories |= {name: len(bins) for name, bins in prepared.bins.items() if bins.edges}
    item_fields = {}
    for name, vocabulary in vocabularies.items():
        if name.startswith("item_") and len(vocabulary) > FIRST:
            of_item = vocabulary.encode(prepared.items[name.removeprefix("item_")])
            item_fields[name.removeprefix("item_")] = (len(vocabulary), [0, 0, *of_item.tolist()])
    timed = prepared.schema.time.column is not None and prepared.schema.time.format != "position"
    return Inputs(len(vocabularies["item"]), len(vocabularies["event"]), categories, item_fields, timed)


class Network(nn.Module):
    """Embedding, encoder and heads under one roof; `heads` belongs to the task.

    temperature : of the cosines between hidden states and items, where a head has such
    """

    def __init__(
        self, inputs: Inputs, encoder: str, settings: EncoderSettings, heads: nn.Module, temperature: float = 0.07
    ) -> None:
        super().__init__()
        self.inputs = inputs
        self.embedding = EventEmbedding(inputs, settings.d_model, settings.dropout, settings.neighbours)
        self.encoder = ENCODERS[encoder](settings)
        self.heads = heads
        self.length = settings.length
        self.temperature = temperature
        self.low = False  # whether training may read in bfloat16
        self.kept: tuple[object, Tensor] | None = None  # all items as candidates, and of which weights
        self._replayed: dict[Hashable, Replayed] = {}

    def columns(self, sequences: Sequences, index: NDArray[np.int64]) -> dict[str, Tensor]:
        """The event columns at places `index` (any shape; −1 gives padding) as tensors."""
        names = ["item", "event", *self.inputs.categories]
        held = np.maximum(index, 0)
        if sequences.events == 0:
            held = np.zeros_like(held)
            taken = {name: np.zeros(index.shape, np.int64) for name in (*names, "time")}
            before = taken["time"]
        else:
            taken = {name: np.where(index < 0, 0, sequences[name][held]).astype(np.int64) for name in (*names, "time")}
            before = sequences["time"][np.maximum(held - 1, 0)]
        place = self.embedding.items.weight
        columns = {name: beside(place, array) for name, array in taken.items()}
        owner = np.searchsorted(sequences.offsets, held, side="right") - 1
        first = (sequences.offsets[owner] == held) | (index < 0)
        gap = np.where(first, -1.0, (taken["time"] - before) / 1e6)
        columns["gap"] = beside(place, gap.astype(np.float32))
        return columns

    def forward(self, sequences: Sequences, batch: Batch) -> tuple[Tensor, NDArray[np.int64]]:
        """Hidden states [T, d] of the batch's events and their places [T] in the sequences."""
        index = batch.index.numpy()
        columns = self.columns(sequences, index)
        items, start = self.embedding.items_at(columns["item"]), beside(columns["item"], batch.start.numpy())
        names = sorted(columns)
        reading = self.replayed(("read", self.low), lambda: _Reading(self.embedding, self.encoder, names, self.low))
        again = self.training and self.encoder.layout == "packed"  # else dropout is off, or rows have no constant shape
        read = reading if again else reading.module
        hidden = read(items, start, *(columns[name] for name in names)).flatten(0, 1)
        valid = np.flatnonzero(index.ravel() >= 0)
        return hidden.index_select(0, beside(hidden, valid)), index.ravel()[valid]

    def replayed(self, name: Hashable, make: Callable[[], nn.Module]) -> Replayed:
        """A part of training's pass that a card may replay, made at the first call of its name."""
        if name not in self._replayed:
            self._replayed[name] = Replayed(make())
        return self._replayed[name]

    def release(self) -> None:
        """Forget what a card recorded for training, and give its memory back: graphs hold themselves in circles."""
        if self._replayed:
            self._replayed.clear()
            gc.collect()

    def products(self, events: int) -> AbstractContextManager[None]:
        """What to enter to read, or to learn from, so many events at once: float32 products where they are fastest.

        Encoders that walk event by event make small products, which MKL starts sooner, unless events × width are many
        or a step projects what all items gain from others.
        """
        projects = self.embedding.neighbours is not None and not self.embedding.items.sparse and self.training
        large = self.encoder.layout == "packed" or events * self.encoder.d_model >= LARGE or projects
        return fast_products(self.embedding.items.weight.device) if large else nullcontext()

    @torch.inference_mode()
    def encode(self, sequences: Sequences, places: NDArray[np.int64]) -> Tensor:
        """Hidden states [Q, d] right after the events at `places` [Q], from all earlier events that they depend on."""
        answer = self._room(len(places))
        owner = np.searchsorted(sequences.offsets, places, side="right") - 1
        order = np.lexsort((places, owner))
        users, first = np.unique(owner[order], return_index=True)
        asked = np.diff(np.append(first, len(order)))
        begin, reach = sequences.offsets[users], self.encoder.reach
        if reach is not None:
            begin = np.maximum(begin, places[order[first]] - (reach - 1))
        needed = places[order[first + asked - 1]] - begin + 1  # events to read of each user
        at_once = (asked == 1) & (needed <= max(PIECE, min(reach or 0, LONGEST)))
        tokens = TOKENS if answer.device.type == "cpu" else TOKENS_ON_CARD
        by_length = np.argsort(needed, kind="stable")
        latest, rolling = by_length[at_once[by_length]], by_length[~at_once[by_length]]
        with self.products(min(tokens, int(needed.sum()))):
            for lo, hi in filled(needed[latest], tokens):
                group = latest[lo:hi]
                answer[beside(answer, order[first[group]])] = self._latest(sequences, begin[group], needed[group])
            for lo, hi in filled(np.minimum(needed[rolling], PIECE), tokens):
                group = rolling[lo:hi]
                here = order[np.repeat(first[group], asked[group]) + places_within(asked[group])]
                row = np.repeat(np.arange(len(group)), asked[group])
                inside = places[here] - begin[group][row]
                answer[beside(answer, here)] = self._all(sequences, begin[group], needed[group], row, inside)
        return answer

    def _latest(self, sequences: Sequences, begin: Ints, needed: Ints) -> Tensor:
        """Hidden states of users [B] after the last of their `needed` events from place `begin`."""
        place = np.arange(int(needed.max()))
        index = np.where(place < needed[:, None], begin[:, None] + place, -1)
        events = self.events(self.columns(sequences, index))
        return self.encoder.latest(events, beside(events.x, needed))

    def _all(self, sequences: Sequences, begin: Ints, needed: Ints, row: Ints, inside: Ints) -> Tensor:
        """Hidden states at places `inside` of the rows `row`, users read in pieces by a carried state."""
        answer = self._room(len(row))
        longest = int(needed.max())
        alive = np.arange(len(begin))
        state = self.encoder.initial(len(alive)) if longest > PIECE else {}
        for lo in range(0, longest, PIECE):
            kept = needed[alive] > lo
            if not kept.all():
                alive, state = alive[kept], {name: t[beside(t, kept)] for name, t in state.items()}
            place = lo + np.arange(min(PIECE, longest - lo))
            index = np.where(place < needed[alive, None], begin[alive, None] + place, -1)
            events = self.events(self.columns(sequences, index))
            if longest <= PIECE:  # read at once: no state is carried
                hidden = self.encoder(events, torch.zeros_like(events.item))
            else:
                lengths = beside(answer, np.minimum(needed[alive] - lo, len(place)))
                hidden, state = self.encoder.extend(events, lengths, state)
            here = np.flatnonzero((inside >= lo) & (inside < lo + len(place)))
            found = hidden[beside(answer, np.searchsorted(alive, row[here])), beside(answer, inside[here] - lo)]
            answer[beside(answer, here)] = found
        return answer

    def _room(self, rows: int) -> Tensor:
        return self.embedding.items.weight.new_zeros(rows, self.encoder.d_model)

    def events(self, columns: Mapping[str, Tensor]) -> Events:
        """What the encoder reads."""
        return Events(self.embedding(columns), columns["item"], columns["time"])

    @property
    def parameters_count(self) -> int:
        """Learnt numbers."""
        return sum(p.numel() for p in self.parameters() if p.requires_grad)


class _Reading(nn.Module):
    """From vectors of items [R, L, d], the places where windows start [R, L] and columns [R, L] to hidden states."""

    def __init__(self, embedding: EventEmbedding, encoder: Encoder, names: Sequence[str], low: bool) -> None:
        super().__init__()
        self.embedding, self.encoder, self.names = embedding, encoder, names
        self.low = low and encoder.trains_in_bfloat16

    def forward(self, items: Tensor, start: Tensor, *held: Tensor) -> Tensor:
        columns = dict(zip(self.names, held, strict=True))
        events = Events(self.embedding.around(items, columns), columns["item"], columns["time"])
        return (
            in_bfloat16(self.encoder, events, start)
            if self.low and self.encoder.training
            else self.encoder(events, start)
        )


def in_bfloat16(encoder: Encoder, events: Events, start: Tensor) -> Tensor:
    """Hidden states by a copy of the encoder's weights in bfloat16; they, gradients and the optimiser stay in float32.

    `torch.autocast` is slower than no bfloat16 at all.
    """
    weights = {name: p.to(torch.bfloat16) for name, p in encoder.named_parameters()}
    low = replace(events, x=events.x.to(torch.bfloat16))
    hidden: Tensor = functional_call(encoder, weights, (low, start))
    return hidden.float()
