"""Batches cover every event once an epoch, with next to no padding, and the same for the same seed."""

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from desireline.sequences.batches import batches, best_fit
from desireline.sequences.ragged import Sequences


def ragged(counts: list[int]) -> Sequences:
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return Sequences(pl.Series("user", [str(k) for k in range(len(counts))]), offsets, {})


@pytest.mark.parametrize("layout", ["padded", "packed"])
@given(
    counts=st.lists(st.integers(0, 60), max_size=40),
    length=st.integers(2, 20),
    tokens=st.integers(16, 200),
    epoch=st.integers(0, 3),
)
def test_every_event_stands_in_one_window_an_epoch(layout, counts, length, tokens, epoch):
    sequences = ragged(counts)
    seen = []
    for batch in batches(sequences, layout, length, tokens, seed=5, epoch=epoch):
        index, start = batch.index.numpy(), batch.start.numpy()
        assert index.shape[1] <= length
        rows, places = np.nonzero(index >= 0)
        seen.append(index[rows, places])
        # inside a window events follow each other and belong to one user
        later = places > start[rows, places]
        assert (index[rows, places][later] == index[rows, places - 1][later] + 1).all()
        owner = np.searchsorted(sequences.offsets, index[rows, places], side="right")
        assert (owner == np.searchsorted(sequences.offsets, index[rows, start[rows, places]], side="right")).all()
    joined = np.sort(np.concatenate(seen)) if seen else np.empty(0, int)
    assert joined.tolist() == list(range(sum(counts)))


@pytest.mark.parametrize("layout", ["padded", "packed"])
@given(counts=st.lists(st.integers(0, 30), max_size=20), length=st.integers(2, 20), tokens=st.integers(16, 100))
def test_every_event_ends_one_prefix_an_epoch(layout, counts, length, tokens):
    sequences = ragged(counts)
    ends = []
    for batch in batches(sequences, layout, length, tokens, seed=5, epoch=1, each_prefix=True):
        for index, start, last in zip(batch.index.tolist(), batch.start.tolist(), batch.last.tolist(), strict=True):
            for place in np.flatnonzero(last):
                window = index[start[place] : place + 1]
                own = sequences.offsets[np.searchsorted(sequences.offsets, index[place], side="right") - 1]
                assert window == list(range(max(own, index[place] + 1 - length), index[place] + 1))
                ends.append(index[place])
    assert sorted(ends) == list(range(sum(counts)))


@pytest.mark.parametrize("layout", ["padded", "packed"])
def test_padding_stays_under_five_percent_on_heavy_tails(layout):
    rng = np.random.default_rng(0)
    sequences = ragged(np.minimum(rng.zipf(1.4, 20_000), 5_000).tolist())
    held = valid = 0
    for batch in batches(sequences, layout, 100, 1024, seed=0, epoch=0):
        held, valid = held + batch.index.numel(), valid + int(batch.valid.sum())
    assert 1 - valid / held < 0.05


def test_the_same_seed_and_epoch_give_the_same_batches_and_another_epoch_does_not():
    sequences = ragged([30, 5, 80, 12] * 20)
    first, again, other = ([b.index for b in batches(sequences, "packed", 20, 100, 3, epoch)] for epoch in (0, 0, 1))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert len(first) != len(other) or not all(torch.equal(a, b) for a, b in zip(first, other, strict=True))


@given(lengths=st.lists(st.integers(1, 30), min_size=1, max_size=80))
def test_best_fit_never_overfills_a_row(lengths):
    row, place = best_fit(np.array(sorted(lengths, reverse=True)), 30)
    taken = np.zeros((row.max() + 1, 30), int)
    for length, r, p in zip(sorted(lengths, reverse=True), row, place, strict=True):
        taken[r, p : p + length] += 1
        assert p + length <= 30
    assert taken.max() <= 1
