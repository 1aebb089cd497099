"""The hazard head against what is known of exponential waits, and against sums written out."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from desireline.training.hazard import Hazard, Pieces, Weibull, weibull


def waits(n: int, rate: float, end: float, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Exponential waits, cut off where observation ends."""
    drawn = np.random.default_rng(seed).exponential(1 / rate, n)
    return torch.tensor(np.minimum(drawn, end)), torch.tensor(drawn < end)


@pytest.mark.parametrize("law", [Pieces, Weibull])
def test_before_any_step_it_tells_the_survival_of_the_data(law: Callable[[int], Hazard]) -> None:
    times, ended = waits(20_000, 0.1, 30.0)
    head = law(4)
    head.fit(times, ended)
    hidden, asked = torch.zeros(3, 4), torch.tensor([2.0, 10.0, 25.0], dtype=torch.float64)
    survival = torch.exp(-head.cumulative(hidden, asked))
    np.testing.assert_allclose(survival.detach(), np.exp(-0.1 * asked.numpy()), atol=0.015)


@pytest.mark.parametrize("law", [Pieces, Weibull])
def test_who_was_silent_is_asked_from_there_on(law: Callable[[int], Hazard]) -> None:
    times, ended = waits(20_000, 0.1, 30.0)
    head = law(4)
    head.fit(times, ended)
    silent, until = torch.tensor([5.0], dtype=torch.float64), torch.tensor([15.0], dtype=torch.float64)
    away = torch.sigmoid(head.log_odds_away(torch.zeros(1, 4), silent, until))
    assert float(away.detach()) == pytest.approx(np.exp(-1.0), abs=0.015)  # exponential waits have no memory


def test_the_loss_is_minus_the_log_likelihood() -> None:
    head = Pieces(2, pieces=3)
    head.edges.copy_(torch.tensor([0.0, 2.0, 5.0]))
    with torch.no_grad():
        head.out.bias.copy_(torch.log(torch.tensor([0.5, 0.25, 0.1])))
    # ends at 3: .25 · exp(−(2 · .5 + 1 · .25)); still away at 6: exp(−(2 · .5 + 3 · .25 + 1 · .1))
    loss = head.loss(torch.zeros(2, 2), torch.tensor([3.0, 6.0]), torch.tensor([True, False]))
    assert float(loss.detach()) == pytest.approx(-np.log(0.25) + 1.25 + 1.85, abs=1e-5)


@pytest.mark.parametrize("law", [Pieces, Weibull])
def test_equal_waits_and_none_at_all_leave_it_whole(law: Callable[[int], Hazard]) -> None:
    head = law(2)
    head.fit(torch.full((50,), 7.0), torch.ones(50, dtype=torch.bool))
    if isinstance(head, Pieces):
        assert (head.edges.diff() > 0).all()
    head.fit(torch.tensor([3.0]), torch.tensor([False]))
    assert torch.isfinite(head.loss(torch.zeros(1, 2), torch.tensor([3.0]), torch.tensor([False])))
    head.fit(torch.tensor([0.0, 3.0]), torch.tensor([True, True]))
    value = head.loss(torch.zeros(2, 2), torch.tensor([0.0, 3.0]), torch.tensor([True, True]))
    value.backward()
    assert torch.isfinite(value)
    assert torch.isfinite(head.out.bias.grad).all()


@pytest.mark.parametrize(("scale", "shape"), [(10.0, 0.6), (3.0, 1.0), (200.0, 2.5)])
def test_a_weibull_law_is_found_again_from_waits_of_which_some_go_on(scale: float, shape: float) -> None:
    drawn = scale * np.random.default_rng(1).weibull(shape, 40_000)
    end = np.quantile(drawn, 0.7)
    found = weibull(np.minimum(drawn, end), drawn < end)
    assert found == (pytest.approx(scale, rel=0.03), pytest.approx(shape, rel=0.03))


def test_the_weibull_loss_is_minus_the_log_likelihood() -> None:
    head = Weibull(2)
    with torch.no_grad():
        head.out.bias.copy_(torch.tensor([np.log(4.0), np.log(0.5)]))
    # density at 3 with λ 4, k .5: (.5 / 4) (3 / 4)^−.5 exp(−(3 / 4)^.5); still away at 6: exp(−(6 / 4)^.5)
    loss = head.loss(torch.zeros(2, 2), torch.tensor([3.0, 6.0]), torch.tensor([True, False]))
    wanted = -np.log(0.5 / 4 * 0.75**-0.5) + 0.75**0.5 + 1.5**0.5
    assert float(loss.detach()) == pytest.approx(wanted, abs=1e-5)


def test_a_weibull_head_learns_that_states_wait_differently() -> None:
    generator = np.random.default_rng(2)
    state = generator.integers(0, 2, 4_000)
    drawn = torch.tensor(np.where(state == 0, 2.0, 50.0) * generator.weibull(0.7, 4_000))
    hidden = torch.nn.functional.one_hot(torch.tensor(state), 2).float()
    ended = drawn < 60
    times, head = drawn.clamp(max=60.0), Weibull(2)
    head.fit(times, ended)
    optimiser = torch.optim.Adam(head.parameters(), lr=0.1)
    for _ in range(200):
        optimiser.zero_grad()
        (head.loss(hidden, times, ended) / len(times)).backward()
        optimiser.step()
    away = torch.exp(-head.cumulative(torch.eye(2), torch.tensor([5.0, 5.0], dtype=torch.float64)))
    np.testing.assert_allclose(away.detach(), np.exp(-((5 / np.array([2.0, 50.0])) ** 0.7)), atol=0.03)
