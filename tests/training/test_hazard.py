"""The hazard head against what is known of exponential waits, and against sums written out."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from desireline.training.hazard import Hazard


def waits(n: int, rate: float, end: float, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Exponential waits, cut off where observation ends."""
    drawn = np.random.default_rng(seed).exponential(1 / rate, n)
    return torch.tensor(np.minimum(drawn, end)), torch.tensor(drawn < end)


def test_before_any_step_it_tells_the_survival_of_the_data() -> None:
    times, ended = waits(20_000, 0.1, 30.0)
    head = Hazard(4)
    head.fit(times, ended)
    hidden, asked = torch.zeros(3, 4), torch.tensor([2.0, 10.0, 25.0], dtype=torch.float64)
    survival = torch.exp(-head.cumulative(hidden, asked))
    np.testing.assert_allclose(survival.detach(), np.exp(-0.1 * asked.numpy()), atol=0.015)


def test_who_was_silent_is_asked_from_there_on() -> None:
    times, ended = waits(20_000, 0.1, 30.0)
    head = Hazard(4)
    head.fit(times, ended)
    silent, until = torch.tensor([5.0], dtype=torch.float64), torch.tensor([15.0], dtype=torch.float64)
    away = torch.sigmoid(head.log_odds_away(torch.zeros(1, 4), silent, until))
    assert float(away.detach()) == pytest.approx(np.exp(-1.0), abs=0.015)  # exponential waits have no memory


def test_the_loss_is_minus_the_log_likelihood() -> None:
    head = Hazard(2, pieces=3)
    head.edges.copy_(torch.tensor([0.0, 2.0, 5.0]))
    with torch.no_grad():
        head.out.bias.copy_(torch.log(torch.tensor([0.5, 0.25, 0.1])))
    # ends at 3: .25 · exp(−(2 · .5 + 1 · .25)); still away at 6: exp(−(2 · .5 + 3 · .25 + 1 · .1))
    loss = head.loss(torch.zeros(2, 2), torch.tensor([3.0, 6.0]), torch.tensor([True, False]))
    assert float(loss.detach()) == pytest.approx(-np.log(0.25) + 1.25 + 1.85, abs=1e-5)


def test_equal_waits_and_none_at_all_leave_it_whole() -> None:
    head = Hazard(2)
    head.fit(torch.full((50,), 7.0), torch.ones(50, dtype=torch.bool))
    assert (head.edges.diff() > 0).all()
    head.fit(torch.tensor([3.0]), torch.tensor([False]))
    assert torch.isfinite(head.loss(torch.zeros(1, 2), torch.tensor([3.0]), torch.tensor([False])))
