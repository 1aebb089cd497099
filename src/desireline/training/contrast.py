"""Contrastive learning of whole sequences beside the task's own loss (CL4SRec, Xie et al. 2022, arXiv 2010.14395).

Each window of a step is seen twice, each time cropped, masked or reordered, and the two states at its end are to find
each other among those of all windows of the step (equation 4). Costs two further passes through the encoder.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from desireline.sequences.batches import Batch
from desireline.sequences.ragged import Sequences
from desireline.sequences.vocabulary import UNKNOWN
from desireline.training.device import beside
from desireline.training.network import Network

KEPT, MASKED, REORDERED = 0.6, 0.3, 0.6  # shares of a window: the authors' middle values


def contrast(network: Network, sequences: Sequences, batch: Batch, temperature: float) -> Tensor:
    """Mean loss of the windows of a batch that hold two events or more; 0 with fewer than two of them.

    Random choices follow from torch's seed.
    """
    first, size = spans(batch)
    if len(first) < 2:
        return network.embedding.items.weight.new_zeros(())
    rng = np.random.default_rng(int(torch.randint(2**31, ())))
    seen = []
    for _ in range(2):
        index, masked = view(first, size, rng)
        columns = network.columns(sequences, index)
        columns["item"][beside(columns["item"], masked)] = UNKNOWN
        lengths = beside(columns["item"], (index >= 0).sum(1))
        seen.append(F.normalize(network.encoder.latest(network.events(columns), lengths), dim=-1))
    states = torch.cat(seen)  # [2·S, d]
    scores = (states @ states.T / temperature).fill_diagonal_(-torch.inf)
    other = torch.arange(len(states), device=states.device).roll(len(first))
    return F.cross_entropy(scores, other)


def spans(batch: Batch) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First place and size of the batch's windows of two events or more."""
    index, start = batch.index.numpy(), batch.start.numpy()
    row, column = np.nonzero(index >= 0)
    begins = start[row, column] == column
    size = np.diff(np.append(np.flatnonzero(begins), len(row)))
    long = size >= 2
    return index[row[begins], column[begins]][long], size[long]


def view(
    first: NDArray[np.int64], size: NDArray[np.int64], rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Places [S, L] of windows changed each in one of the three ways, −1 beyond their ends, and whose items to mask."""
    kind = rng.integers(0, 3, len(first))
    kept = np.where(kind == 0, np.maximum(1, (KEPT * size).astype(np.int64)), size)
    begin = first + (rng.random(len(first)) * (size - kept + 1)).astype(np.int64)
    place = np.arange(kept.max())
    inside = place < kept[:, None]
    masked = inside & (kind == 1)[:, None] & (rng.random(inside.shape) < MASKED)
    part = np.maximum(2, (REORDERED * size).astype(np.int64))
    at = (rng.random(len(first)) * (size - part + 1)).astype(np.int64)
    shuffled = (kind == 2)[:, None] & (place >= at[:, None]) & (place < (at + part)[:, None])
    # a key for each event: its place, for the shuffled ones somewhere within their part
    key = np.where(shuffled, at[:, None] + rng.random(inside.shape) * part[:, None], place)
    order = np.argsort(np.where(inside, key, np.inf), axis=1, kind="stable")
    return np.where(inside, begin[:, None] + order, -1), masked
