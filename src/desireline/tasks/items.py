"""The item head that tasks share: cosine against the item table, under the loss that the settings name."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from desireline.core.errors import SettingError
from desireline.encoders.embedding import EventEmbedding
from desireline.schema.model import TrainSettings
from desireline.sequences.vocabulary import FIRST
from desireline.training.device import beside, fast_products, fetched, pays_bfloat16
from desireline.training.graphs import rounded
from desireline.training.losses import binary_loss, cosine, positive_power, sampled_loss, softmax_loss, spread
from desireline.training.network import Network

CALIBRATION = 0.75  # t of gBCE, as its authors advise for their data
MOST_KEPT = 1 << 26  # numbers, a quarter of a gigabyte
FULL_SOFTMAX_ITEMS = 20_000  # above it `loss: auto` samples negatives


@dataclass(frozen=True)
class Negatives:
    """Where sampled negatives come from.

    seen : int32 [E], known items of the training events;  share : float32 [items], of each item among them
    """

    seen: NDArray[np.int32]
    share: Tensor

    @staticmethod
    def of(item: NDArray[np.int32], items: int) -> Negatives:
        """From the item column of the training events; `items` is the catalogue's size, all ids."""
        seen = np.asarray(item)[np.asarray(item) >= FIRST]
        share = np.bincount(seen, minlength=items) / max(1, len(seen))
        return Negatives(seen, torch.from_numpy(share.astype(np.float32)))

    def draw(self, count: int, source: str, targets: Tensor) -> tuple[Tensor, Tensor]:
        """int64 [K] item ids, and float32 [K], the logarithm of each one's probability at one draw, in main memory.

        source : `uniform` from the catalogue, `popularity` as the training events have them, `mixed` half of each, or
        `batch`: the step's own `targets` (any shape), which come as often as the events have them; K ≤ count of these
        """
        even = 1 / max(1, len(self.share) - FIRST)
        if source == "batch":
            own = targets.flatten()
            drawn = own[torch.randperm(len(own))[:count]]
            return drawn, self.share[drawn].log()
        popular = {"uniform": 0, "popularity": count, "mixed": count // 2}[source]
        seen = torch.from_numpy(self.seen[torch.randint(len(self.seen), (popular,)).numpy()].astype(np.int64))
        drawn = torch.cat([torch.randint(FIRST, len(self.share), (count - popular,)), seen])
        part = {"uniform": 0.0, "popularity": 1.0, "mixed": 0.5}[source]
        return drawn, (part * self.share[drawn] + (1 - part) * even).log()


def samples(settings: TrainSettings, items: int) -> bool:
    """Whether the item loss reads a sample of the catalogue of `items` ids, so that a step touches few rows of it."""
    return settings.loss in ("sampled", "bce", "gbce") or (settings.loss == "auto" and items > FULL_SOFTMAX_ITEMS)


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
    shares, wanted, count = weights[kept] / sums[kept, None], targets[kept].astype(np.int64), len(kept)
    if hidden.device.type != "cpu":  # so that a card may replay the loss: weightless tokens fill up few sizes
        spare = rounded(count) - count
        kept = np.pad(kept, (0, spare), mode="edge")
        shares, wanted = (np.pad(array, ((0, spare), (0, 0))) for array in (shares, wanted))
    weight, target = beside(hidden, shares), beside(hidden, wanted)
    hidden = hidden.index_select(0, beside(hidden, kept))
    low, smoothing = pays_bfloat16(settings.precision, hidden.device), settings.label_smoothing
    if not samples(settings, network.inputs.items):
        made = settings.temperature, smoothing, low
        full = network.replayed(("softmax", *made), lambda: _Softmax(network.embedding, *made))
        return full(hidden, target, weight), count
    told = negatives.draw(settings.negatives, settings.negatives_from, torch.from_numpy(wanted[shares > 0]))
    drawn, log_q = (tensor.to(hidden.device) for tensor in told)
    scaled, items = cosine(
        hidden, network.embedding.item_vectors(torch.cat([target.flatten(), drawn])), settings.temperature
    )
    picked, others = items[: target.numel()].view(*target.shape, -1), items[target.numel() :]
    if settings.loss in ("bce", "gbce"):
        if smoothing:
            raise SettingError(
                f"label_smoothing is for softmax losses, not for {settings.loss}: set it to 0, or loss to softmax."
            )
        calibration = CALIBRATION if settings.loss == "gbce" else 0.0
        power = positive_power(len(drawn), network.inputs.items - FIRST, calibration)
        return binary_loss(scaled, picked, others, target, drawn, weight, power), count
    value = sampled_loss(scaled, picked, others, target, drawn, log_q, weight, low)
    if smoothing:
        share = torch.exp(-log_q) / (len(log_q) * (network.inputs.items - FIRST))  # of the catalogue's mean
        value = value + smoothing * spread(scaled, picked, weight, share @ others)
    return value, count


class _Softmax(nn.Module):
    """Full softmax, with smoothing where wanted, of hidden [T, d] against targets [T, M] with weights [T, M]."""

    def __init__(self, embedding: EventEmbedding, temperature: float, smoothing: float, low: bool) -> None:
        super().__init__()
        self.embedding, self.temperature, self.smoothing, self.low = embedding, temperature, smoothing, low

    def forward(self, hidden: Tensor, target: Tensor, weight: Tensor) -> Tensor:
        scaled, items = F.normalize(hidden, dim=-1) / self.temperature, self.embedding.item_vectors()
        value = softmax_loss(scaled, items, target, weight, self.low)
        if self.smoothing:
            unit = F.normalize(items, dim=-1)
            value = value + self.smoothing * spread(scaled, unit[target], weight, unit[FIRST:].mean(0))
        return value


@torch.inference_mode()
def unit_items(network: Network) -> Tensor:
    """[items, d]: every item's vector at length 1; kept with the network until its weights change, unless too large."""
    made = [(p.data_ptr(), p._version) for p in network.embedding.parameters()]
    if network.kept is None or network.kept[0] != made:
        units = F.normalize(network.embedding.item_vectors(), dim=-1)
        if units.numel() > MOST_KEPT:
            return units
        network.kept = made, units
    return network.kept[1]


@torch.inference_mode()
def item_scores(network: Network, hidden: Tensor, items: Tensor | None = None) -> NDArray[np.float32]:
    """float32 [Q, items]: cosine of hidden states [Q, d] with every item, padding and unknown included.

    items : what `unit_items` gave, where it is too large to be kept
    """
    items = unit_items(network) if items is None else items
    with fast_products(hidden.device):
        return fetched(F.normalize(hidden, dim=-1) @ items.T)
