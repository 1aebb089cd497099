"""Hidden states as of given events, however many of a user's are asked for and however they are read."""

from __future__ import annotations

from contextlib import nullcontext
from unittest import mock

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from desireline.encoders import ENCODERS
from desireline.encoders.embedding import Inputs
from desireline.schema.model import EncoderSettings
from desireline.sequences.batches import batches
from desireline.sequences.ragged import Sequences
from desireline.tasks.items import unit_items
from desireline.training import network as module
from desireline.training.graphs import Replayed
from desireline.training.network import Network

ITEMS, TYPES = 9, 4


def sequences_of(lengths: list[int], seed: int) -> Sequences:
    rng = np.random.default_rng(seed)
    n = sum(lengths)
    columns = {
        "time": np.cumsum(rng.integers(1, 10**9, n)),
        "event": rng.integers(2, TYPES, n).astype(np.int16),
        "item": rng.integers(0, ITEMS, n).astype(np.int32),
        "role": np.zeros(n, np.uint8),
    }
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return Sequences(pl.Series([str(k) for k in range(len(lengths))]), offsets, columns)


@pytest.mark.parametrize("encoder", sorted(ENCODERS))
@given(lengths=st.lists(st.integers(1, 30), min_size=1, max_size=6), seed=st.integers(0, 99), data=st.data())
def test_states_as_of_places_equal_those_of_each_history_read_alone(encoder, lengths, seed, data):
    sequences = sequences_of(lengths, seed)
    asked = data.draw(st.lists(st.integers(0, sequences.events - 1), min_size=1, max_size=12))
    torch.manual_seed(seed)
    settings = EncoderSettings(d_model=8, layers=2, heads=2, length=4)
    network = Network(Inputs(ITEMS, TYPES), encoder, settings, nn.Identity()).eval()
    expected = []
    for place in asked:
        first = sequences.offsets[np.searchsorted(sequences.offsets, place, side="right") - 1]
        events = network.events(network.columns(sequences, np.arange(first, place + 1)[None]))
        expected.append(network.encoder(events, torch.zeros(1, place + 1 - first, dtype=torch.int64))[0, -1])
    sizes = {name: data.draw(st.integers(1, 60)) for name in ("TOKENS", "PIECE", "LONGEST")}
    with mock.patch.multiple(module, **sizes):
        found = network.encode(sequences, np.array(asked))
    torch.testing.assert_close(found, torch.stack(expected).detach(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("encoder", sorted(ENCODERS))
def test_the_last_of_each_prefix_is_read_as_every_position_is(encoder):
    sequences = sequences_of([12, 1, 7, 3], 0)
    settings = EncoderSettings(d_model=8, layers=2, heads=2, length=12)
    network = Network(Inputs(ITEMS, TYPES), encoder, settings, nn.Identity()).eval()
    every, last = torch.full((2, sequences.events, 8), torch.nan).detach()
    for each_prefix, to in ((False, every), (True, last)):
        for batch in batches(sequences, network.encoder.layout, 12, 24, 0, 0, each_prefix=each_prefix):
            hidden, places = network(sequences, batch)
            ends = batch.last[batch.valid].numpy() if each_prefix else np.ones(len(places), bool)
            to[places[ends]] = hidden.detach()[ends]
    torch.testing.assert_close(last, every, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("encoder", "training", "replayed"), [("transformer", True, 1), ("transformer", False, 0), ("gru", True, 0)]
)
def test_only_training_over_rows_of_constant_shape_is_left_to_a_replay(monkeypatch, encoder, training, replayed):
    asked = []
    monkeypatch.setattr(Replayed, "__call__", lambda self, *given: asked.append(self) or self.module(*given))
    sequences = sequences_of([7, 3], 0)
    network = Network(Inputs(ITEMS, TYPES), encoder, EncoderSettings(d_model=8, layers=1, heads=2), nn.Identity())
    batch = next(batches(sequences, network.encoder.layout, 8, 64, 0, 0))
    hidden, places = network.train(training)(sequences, batch)
    assert len(asked) == replayed
    assert hidden.shape == (len(places), 8)


def test_hidden_states_are_the_same_by_either_library(monkeypatch):
    sequences = sequences_of([30, 4, 17], 3)
    torch.manual_seed(0)
    settings = EncoderSettings(d_model=64, layers=2, heads=2, length=20)
    network = Network(Inputs(9, 4), "transformer", settings, nn.Identity()).eval()
    places = np.arange(sequences.events)
    found = network.encode(sequences, places)
    monkeypatch.setattr(module, "fast_products", lambda device: nullcontext())
    torch.testing.assert_close(found, network.encode(sequences, places), atol=1e-5, rtol=1e-5)


def test_items_at_length_one_are_kept_until_weights_change(monkeypatch):
    settings = EncoderSettings(d_model=8, layers=1, heads=2, length=4)
    network = Network(Inputs(ITEMS, TYPES), "gru", settings, nn.Identity()).eval()
    first = unit_items(network)
    assert unit_items(network) is first
    with torch.no_grad():
        network.embedding.items.weight[3] = 1.0
    changed = unit_items(network)
    torch.testing.assert_close(changed[3], torch.full((8,), 8**-0.5))
    torch.testing.assert_close(changed[4], first[4])
    network.load_state_dict({name: -t for name, t in network.state_dict().items()})
    torch.testing.assert_close(unit_items(network), -changed)
    monkeypatch.setattr("desireline.tasks.items.MOST_KEPT", 1)
    network.kept = None
    assert unit_items(network) is not unit_items(network)
