"""Sampled negatives come as often as their stated probabilities say."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from desireline.core.errors import SettingError
from desireline.encoders.embedding import Inputs
from desireline.schema.model import EncoderSettings, TrainSettings
from desireline.sequences.vocabulary import FIRST
from desireline.tasks.items import Negatives, item_loss
from desireline.training.network import Network

EVENTS = np.repeat(np.arange(FIRST, FIRST + 5), [1, 2, 3, 4, 90]).astype(np.int32)


@pytest.mark.parametrize("source", ["uniform", "popularity", "mixed", "batch"])
def test_negatives_come_as_often_as_their_probabilities_say(source):
    torch.manual_seed(0)
    negatives = Negatives.of(EVENTS, FIRST + 6)  # one item of the catalogue was never seen
    targets = torch.from_numpy(EVENTS[np.random.default_rng(1).integers(len(EVENTS), size=60_000)].astype(np.int64))
    drawn, log_q = negatives.draw(40_000, source, targets)
    assert len(drawn) == 40_000
    for item in drawn.unique().tolist():
        came = float((drawn == item).double().mean())
        assert came == pytest.approx(float(log_q[drawn == item][0].exp()), abs=0.01)
    assert ((FIRST + 5) in drawn.tolist()) == (source in ("uniform", "mixed"))


def test_a_small_step_gives_as_many_in_batch_negatives_as_it_has_targets():
    drawn, _ = Negatives.of(EVENTS, FIRST + 5).draw(100, "batch", torch.tensor([[2, 3], [4, 6]]))
    assert sorted(drawn.tolist()) == [2, 3, 4, 6]


@pytest.fixture
def network() -> Network:
    torch.manual_seed(0)
    return Network(Inputs(60, 3), "gru", EncoderSettings(d_model=8, layers=1, heads=1, dropout=0.0), nn.Identity())


def smoothed(network: Network, settings: TrainSettings) -> tuple[float, float]:
    """The loss of 40 tokens, and that of PyTorch's cross-entropy with the same smoothing over all items."""
    torch.manual_seed(1)
    hidden, target = torch.randn(40, 8), torch.randint(FIRST, 60, (40, 1))
    every = np.arange(FIRST, 60, dtype=np.int32)
    negatives = Negatives.of(every, 60)
    ours, count = item_loss(
        network, hidden, target.numpy().astype(np.int32), np.ones((40, 1), np.float32), negatives, settings
    )
    scores = F.normalize(hidden, dim=-1) @ F.normalize(network.embedding.item_vectors()[FIRST:], dim=-1).T
    plain = F.cross_entropy(
        scores / settings.temperature, target[:, 0] - FIRST, label_smoothing=settings.label_smoothing, reduction="sum"
    )
    assert count == 40
    return float(ours.detach()), float(plain.detach())


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_label_smoothing_equals_that_of_pytorch(network, smoothing):
    settings = TrainSettings(loss="softmax", precision="float32", label_smoothing=smoothing, temperature=0.2)
    ours, plain = smoothed(network, settings)
    assert ours == pytest.approx(plain, rel=1e-5)


def test_label_smoothing_by_a_sample_is_that_of_the_catalogue_in_the_mean(network):
    settings = TrainSettings(
        loss="sampled", negatives=20_000, negatives_from="uniform", precision="float32", label_smoothing=0.3
    ).model_copy(update={"temperature": 1.0})
    ours, plain = smoothed(network, settings)
    assert ours == pytest.approx(plain, rel=2e-3)


def test_label_smoothing_of_a_binary_loss_is_refused(network):
    with pytest.raises(SettingError, match="label_smoothing"):
        smoothed(network, TrainSettings(loss="bce", label_smoothing=0.1))
