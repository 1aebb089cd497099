"""The item head that tasks share: cosine against the item table, full or sampled softmax by catalogue size."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from desireline.schema.model import TrainSettings
from desireline.sequences.vocabulary import FIRST
from desireline.training.losses import cosine, sampled_loss, softmax_loss
from desireline.training.network import Network, pays_bfloat16

FULL_SOFTMAX_ITEMS = 20_000  # above it `loss: auto` samples negatives


@dataclass(frozen=True)
class Negatives:
    """Where sampled negatives come from: half uniformly from the catalogue, half as the training events have them.

    seen : int32 [E], known items of the training events;  log_q : float32 [items], of being drawn at one draw
    """

    seen: NDArray[np.int32]
    log_q: Tensor

    @staticmethod
    def of(item: NDArray[np.int32], items: int) -> Negatives:
        """From the item column of the training events; `items` is the catalogue's size, all ids."""
        seen = np.asarray(item)[np.asarray(item) >= FIRST]
        share = np.bincount(seen, minlength=items) / max(1, len(seen))
        return Negatives(seen, torch.from_numpy(np.log(0.5 * share + 0.5 / max(1, items - FIRST)).astype(np.float32)))

    def draw(self, count: int) -> Tensor:
        """int64 [count] item ids."""
        half = count // 2
        seen = torch.from_numpy(self.seen[torch.randint(len(self.seen), (half,)).numpy()].astype(np.int64))
        return torch.cat([torch.randint(FIRST, len(self.log_q), (count - half,)), seen])


def samples(settings: TrainSettings, items: int) -> bool:
    """Whether the item loss reads a sample of the catalogue of `items` ids, so that a step touches few rows of it."""
    return settings.loss == "sampled" or (settings.loss == "auto" and items > FULL_SOFTMAX_ITEMS)


def item_loss(
    network: Network,
    hidden: Tensor,
    targets: NDArray[np.int32],
    weights: NDArray[np.float32],
    negatives: Negatives,
    settings: TrainSettings,
) -> tuple[Tensor, int]:
    """Summed loss of hidden [T, d] against targets [T, M] with weights [T, M]; the tokens that had a known target."""
    weights = np.where(targets >= FIRST, weights, 0).astype(np.float32)
    sums = weights.sum(axis=1)
    kept = np.flatnonzero(sums > 0)
    if len(kept) == 0:
        return hidden.sum() * 0, 0
    weight = torch.from_numpy(weights[kept] / sums[kept, None])
    target = torch.from_numpy(targets[kept].astype(np.int64))
    hidden = hidden[torch.from_numpy(kept)]
    low = pays_bfloat16(settings.precision)
    if not samples(settings, network.inputs.items):
        scaled, items = F.normalize(hidden, dim=-1) / settings.temperature, network.embedding.item_vectors()
        return softmax_loss(scaled, items, target, weight, low), len(kept)
    drawn = negatives.draw(settings.negatives)
    scaled, items = cosine(
        hidden, network.embedding.item_vectors(torch.cat([target.flatten(), drawn])), settings.temperature
    )
    picked, others = items[: target.numel()].view(*target.shape, -1), items[target.numel() :]
    return sampled_loss(scaled, picked, others, target, drawn, negatives.log_q[drawn], weight, low), len(kept)


@torch.inference_mode()
def item_scores(network: Network, hidden: Tensor) -> NDArray[np.float32]:
    """float32 [Q, items]: cosine of hidden states [Q, d] with every item, padding and unknown included."""
    scaled, items = cosine(hidden, network.embedding.item_vectors(), 1.0)
    return (scaled @ items.T).numpy()
