"""Sampled negatives come as often as their stated probabilities say."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from desireline.sequences.vocabulary import FIRST
from desireline.tasks.items import Negatives

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
