"""Two changed copies of each window: what may change in them, and that training brings them together."""

from __future__ import annotations

import numpy as np
import polars as pl
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from desireline.encoders.embedding import Inputs
from desireline.schema.model import EncoderSettings
from desireline.sequences.batches import batches
from desireline.sequences.ragged import Sequences
from desireline.training.contrast import contrast, spans, view
from desireline.training.network import Network


def made(lengths: list[int]) -> Sequences:
    rng = np.random.default_rng(0)
    n = sum(lengths)
    columns = {
        "time": np.arange(n) * 1_000_000,
        "event": np.full(n, 2, np.int16),
        "item": rng.integers(2, 30, n).astype(np.int32),
        "role": np.zeros(n, np.uint8),
    }
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return Sequences(pl.Series([str(k) for k in range(len(lengths))]), offsets, columns)


@given(lengths=st.lists(st.integers(1, 9), min_size=1, max_size=20), layout=st.sampled_from(["packed", "padded"]))
def test_spans_are_the_windows_of_a_batch_that_hold_two_events(lengths, layout):
    sequences = made(lengths)
    found = []
    for batch in batches(sequences, layout, 9, 30, 0, 0):
        first, size = spans(batch)
        found += list(zip(first.tolist(), size.tolist(), strict=True))
    expected = [(int(o), n) for o, n in zip(sequences.offsets, lengths, strict=False) if n >= 2]
    assert sorted(found) == expected


@given(sizes=st.lists(st.integers(2, 12), min_size=1, max_size=30), seed=st.integers(0, 99))
def test_a_view_crops_masks_or_reorders_and_nothing_else(sizes, seed):
    size = np.array(sizes)
    first = np.concatenate([[0], np.cumsum(size)[:-1]])
    index, masked = view(first, size, np.random.default_rng(seed))
    for row, hidden, begin, n in zip(index, masked, first, size, strict=True):
        kept = row[row >= 0]
        assert (row[len(kept) :] == -1).all()
        assert not hidden[len(kept) :].any()
        assert len(set(kept)) == len(kept)
        assert kept.min() >= begin
        assert kept.max() < begin + n
        in_order = (np.diff(kept) == 1).all()
        if len(kept) < n:
            assert in_order
            assert not hidden.any()
        elif not in_order:
            assert not hidden.any()


def test_all_three_ways_come_up():
    size = np.full(300, 10)
    index, masked = view(np.arange(300) * 10, size, np.random.default_rng(0))
    cropped = (index >= 0).sum(1) == 6
    reordered = ~cropped & (np.diff(index, axis=1) != 1).any(1)
    assert 60 < cropped.sum() < 140
    assert 60 < reordered.sum() < 140
    assert 60 < masked.any(1).sum() < 140


def test_copies_of_one_window_are_brought_together():
    sequences = made([8] * 12)
    torch.manual_seed(0)
    network = Network(Inputs(30, 3, timed=False), "gru", EncoderSettings(d_model=16, dropout=0.1), nn.Identity())
    optimiser = torch.optim.Adam(network.parameters(), lr=0.01)
    losses = []
    for epoch in range(150):
        for batch in batches(sequences, "padded", 8, 96, 0, epoch):
            loss = contrast(network, sequences, batch, 0.1)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses.append(float(loss.detach()))
    assert np.mean(losses[-5:]) < 0.5 * np.mean(losses[:5])


def test_a_step_of_one_window_has_nobody_to_tell_apart():
    sequences = made([5])
    network = Network(Inputs(30, 3), "gru", EncoderSettings(d_model=8), nn.Identity())
    (batch,) = batches(sequences, "padded", 9, 30, 0, 0)
    assert float(contrast(network, sequences, batch, 0.1)) == 0
