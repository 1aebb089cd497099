"""Batches of windows over every user's whole history, filled by a token budget, with next to no padding.

A history longer than the window is cut into windows whose border moves from epoch to epoch, so that each event is a
target once an epoch and no border stays blind. Two layouts: `padded` takes windows of about equal length from a
shuffled pool (sorting the whole epoch by length would hurt quality); `packed` fills rows of constant length by best
fit within a shuffled pool. Cost: one gather a column; no per-event objects.

Published recipes learn the last event of each prefix instead: each event ends a window of its own. That reads an event
as often as windows hold it, and lets a step see targets of as many users as it has targets.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numba
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from desireline.sequences.ragged import Sequences

POOL = 64  # batches that are sorted or packed together


@dataclass(frozen=True)
class Batch:
    """R rows of L tokens.

    index : int64 [R, L], the event's place in the sequences' columns; −1 where a row is padded
    start : int64 [R, L], the place in the row of the first token of the token's window
    """

    index: Tensor
    start: Tensor

    @property
    def valid(self) -> Tensor:
        """bool [R, L]: no padding."""
        return self.index >= 0

    @property
    def last(self) -> Tensor:
        """bool [R, L]: the last token of its window."""
        begins = F.pad(self.start[:, 1:] != self.start[:, :-1], (0, 1), value=True)  # the next token begins one
        return self.valid & begins


def windows(offsets: NDArray[np.int64], length: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """[W, 2]: first place and end of windows of at most `length` events that cover every history once."""
    counts = np.diff(offsets)
    shift = np.where(counts > length, rng.integers(1, length + 1, len(counts)), length)  # size of the first window
    first = np.minimum(shift, counts)
    pieces = np.where(counts > 0, 1 + -(-(counts - first) // length), 0)
    user = np.repeat(np.arange(len(counts)), pieces)
    number = places_within(pieces)
    begin = np.where(number == 0, 0, first[user] + (number - 1) * length)
    end = np.minimum(first[user] + number * length, counts[user])
    return np.stack([offsets[user] + begin, offsets[user] + end], axis=1)


def prefixes(offsets: NDArray[np.int64], length: int) -> NDArray[np.int64]:
    """[E, 2]: first place and end of the windows that end with each event, of at most `length` events."""
    end = np.arange(1, int(offsets[-1]) + 1)
    return np.stack([np.maximum(np.repeat(offsets[:-1], np.diff(offsets)), end - length), end], axis=1)


def batches(
    sequences: Sequences, layout: str, length: int, tokens: int, seed: int, epoch: int, *, each_prefix: bool = False
) -> Iterator[Batch]:
    """The batches of one epoch, about `tokens` events each; the same for the same seed and epoch.

    each_prefix : windows are the prefixes, about `tokens` of them in a batch
    """
    rng = np.random.default_rng([seed, epoch])
    if each_prefix:
        spans = prefixes(sequences.offsets, length)
        tokens = max(length, round(tokens * float((spans[:, 1] - spans[:, 0]).mean()))) if len(spans) else tokens
    else:
        spans = windows(sequences.offsets, length, rng)
    spans = spans[rng.permutation(len(spans))]
    lay = _packed if layout == "packed" else _padded
    sizes = np.cumsum(spans[:, 1] - spans[:, 0])
    pool = np.searchsorted(sizes, np.arange(tokens * POOL, sizes[-1] if len(sizes) else 0, tokens * POOL))
    for part in np.split(spans, pool):
        made = list(lay(part, length, tokens))
        for place in rng.permutation(len(made)):
            yield made[place]


def _padded(spans: NDArray[np.int64], length: int, tokens: int) -> Iterator[Batch]:
    spans = spans[np.argsort(spans[:, 1] - spans[:, 0], kind="stable")]
    lengths = spans[:, 1] - spans[:, 0]
    for lo, hi in filled(lengths, tokens):
        yield _batch(spans[lo:hi], np.arange(hi - lo), np.zeros(hi - lo, np.int64), int(lengths[hi - 1]), hi - lo)


def filled(lengths: NDArray[np.int64], tokens: int) -> Iterator[tuple[int, int]]:
    """Ranges of rows, whose lengths ascend, of which each holds at most `tokens` places, padding too, or one row."""
    lo = 0
    while lo < len(lengths):
        ahead = lengths[lo : lo + tokens]
        fits = np.flatnonzero(np.arange(1, len(ahead) + 1) * ahead <= tokens)
        hi = lo + (int(fits[-1]) + 1 if len(fits) else 1)
        yield lo, hi
        lo = hi


def places_within(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """0 … n − 1 for each n of lengths, one after the other."""
    return np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)


def _packed(spans: NDArray[np.int64], length: int, tokens: int) -> Iterator[Batch]:
    order = np.argsort(spans[:, 0] - spans[:, 1], kind="stable")  # longest first
    row, place = best_fit((spans[order, 1] - spans[order, 0]), length)
    rows_a_batch = max(1, tokens // length)
    made = int(row.max()) + 1 if len(row) else 0
    by_row = np.argsort(row, kind="stable")
    borders = np.searchsorted(row[by_row], np.arange(0, made + rows_a_batch, rows_a_batch))
    for k, (lo, hi) in enumerate(pairwise(borders)):
        pick = by_row[lo:hi]
        if len(pick):
            first = k * rows_a_batch
            yield _batch(spans[order[pick]], row[pick] - first, place[pick], length, min(rows_a_batch, made - first))


@numba.njit(cache=True)
def best_fit(
    lengths: NDArray[np.int64], capacity: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:  # pragma: no cover
    """Best-fit rows of `capacity` for windows sorted longest first: each window's row and its place in it."""
    count = len(lengths)
    row, place = np.empty(count, np.int64), np.empty(count, np.int64)
    # rows with the same room left form a stack: top[room] is its last row, below[row] the one under it
    top = np.full(capacity + 1, -1, np.int64)
    below = np.empty(count, np.int64)
    made = 0
    for k in range(count):
        room = lengths[k]
        while room <= capacity and top[room] < 0:
            room += 1
        if room > capacity:
            this, room = made, capacity
            made += 1
        else:
            this = top[room]
            top[room] = below[this]
        row[k], place[k] = this, capacity - room
        left = room - lengths[k]
        below[this] = top[left]
        top[left] = this
    return row, place


def _batch(spans: NDArray[np.int64], row: NDArray[np.int64], place: NDArray[np.int64], width: int, rows: int) -> Batch:
    lengths = spans[:, 1] - spans[:, 0]
    index = np.full((rows, width), -1, np.int64)
    start = np.zeros((rows, width), np.int64)
    inside = places_within(lengths)
    where = (np.repeat(row, lengths), np.repeat(place, lengths) + inside)
    index[where] = np.repeat(spans[:, 0], lengths) + inside
    start[where] = np.repeat(place, lengths)
    padded = index < 0
    start[padded] = np.broadcast_to(np.arange(width), start.shape)[padded]  # padding sees itself alone
    return Batch(torch.from_numpy(index), torch.from_numpy(start))
