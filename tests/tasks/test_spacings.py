"""The 3S test: uniform under chance, and far from it for clocks and bursts."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import kstest

from desireline.tasks.anomaly.spacings import changes, squared_spacings


def ragged(sizes: np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)


@pytest.mark.parametrize("size", [2, 3, 5, 13, 100, 1500])
def test_p_values_are_uniform_where_the_model_is_right(size):
    rng = np.random.default_rng(size)
    accounts = 3_000 if size < 1_000 else 600
    tested = squared_spacings(rng.exponential(size=accounts * size), ragged(np.full(accounts, size)))
    assert kstest(tested.p, "uniform").pvalue > 0.01
    assert kstest(tested.z, "norm").pvalue > 0.01
    if size == 1500:
        assert tested.statistic.mean() == pytest.approx(2, abs=0.05)


def test_p_values_are_uniform_for_a_window_of_fixed_length_whose_last_spacing_is_cut_off():
    rng = np.random.default_rng(0)
    spacings, sizes = [], []
    for _ in range(3_000):
        moments = np.cumsum(rng.exponential(size=60))
        inside = moments[moments < 8]
        if len(inside):
            spacings.append(np.diff(np.concatenate([[0], inside, [8]])))
            sizes.append(len(inside) + 1)
    tested = squared_spacings(np.concatenate(spacings), ragged(np.array(sizes)))
    assert kstest(tested.p, "uniform").pvalue > 0.01


@pytest.mark.parametrize(
    "level", [0.02, 1.0, 40.0]
)  # a forecast that is wrong by a factor throughout says nothing here
def test_a_clock_is_too_even_and_a_burst_too_uneven_whatever_the_forecasts_level(level):
    rng = np.random.default_rng(0)
    clock = level * (1 + 0.1 * rng.standard_normal(30))
    bursts = level * np.where(np.arange(30) % 10 == 0, 10.0, 0.05)
    chance = level * rng.exponential(size=30)
    tested = squared_spacings(np.concatenate([clock, bursts, chance]), ragged(np.array([30, 30, 30])))
    assert tested.z[0] < -4
    assert tested.z[1] > 4
    assert abs(tested.z[2]) < 2.5
    assert (tested.p[:2] < 1e-4).all()
    if level == 1.0:
        assert tested.statistic[0] == pytest.approx((clock**2).sum() / clock.sum())


def test_one_spacing_or_no_length_says_nothing():
    tested = squared_spacings(np.array([1.0, 0.0, 0.0]), np.array([0, 0, 1, 3]))
    assert np.isnan(tested.z).all()
    assert np.isnan(tested.p).all()


def test_a_move_of_the_level_is_found_where_it_is_and_chance_gives_normal_scores():
    rng = np.random.default_rng(1)
    sizes = rng.integers(4, 200, 2_000)
    value = rng.standard_normal(sizes.sum())
    offsets = ragged(sizes)
    z, _ = changes(value, offsets)
    assert kstest(z, "norm").pvalue > 0.01
    assert abs(np.corrcoef(np.abs(z), np.log(sizes))[0, 1]) < 0.06
    for sign in (1, -1):
        moved = np.concatenate([np.zeros(30), np.full(20, 2.0 * sign)]) + 0.5 * rng.standard_normal(50)
        found, at = changes(moved, np.array([0, 50]))
        assert sign * found[0] > 4
        assert abs(at[0] - 30) <= 2
