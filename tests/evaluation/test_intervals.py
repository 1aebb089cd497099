"""Means over users and their intervals against the normal approximation, SciPy's bootstrap and plain loops."""

import numpy as np
import pytest
from scipy.stats import bootstrap as scipy_bootstrap

from desireline.evaluation.intervals import bootstrap, paired_difference, user_interval, user_mean


def test_every_user_counts_once_whatever_its_questions():
    values = np.array([1.0, 0.0, 0.0, 0.0, np.nan, np.nan])
    users = np.array([7, 3, 3, 3, 3, 9])
    assert user_mean(values, users) == 0.5
    assert user_interval(values, users, 200, 0).value == 0.5
    assert np.isnan(user_mean(np.array([np.nan]), np.array([1])))
    assert np.isnan(user_interval(np.array([np.nan]), np.array([1]), 10, 0).low)


def test_the_interval_is_that_of_users_not_of_questions():
    """Fifty questions a user that all say the same are no more evidence than one."""
    rng = np.random.default_rng(0)
    own = rng.normal(size=300)
    one = user_interval(own, np.arange(300), 2000, 1)
    fifty = user_interval(np.repeat(own, 50), np.repeat(np.arange(300), 50), 2000, 1)
    assert (one.low, one.high) == pytest.approx((fifty.low, fifty.high))
    half = 1.96 * own.std() / np.sqrt(300)
    assert one.low == pytest.approx(own.mean() - half, abs=0.1 * half)
    assert one.high == pytest.approx(own.mean() + half, abs=0.1 * half)


def test_the_interval_equals_scipys_percentile_bootstrap():
    own = np.random.default_rng(3).exponential(size=80)
    found = user_interval(own, np.arange(80), 20_000, 5)
    wanted = scipy_bootstrap((own,), np.mean, n_resamples=20_000, method="percentile", rng=1).confidence_interval
    assert found.low == pytest.approx(wanted.low, abs=0.01)
    assert found.high == pytest.approx(wanted.high, abs=0.01)


def test_ninety_five_of_a_hundred_intervals_hold_the_truth():
    rng = np.random.default_rng(8)
    held = 0
    for trial in range(200):
        found = user_interval(rng.binomial(1, 0.3, 150).astype(float), np.arange(150), 400, trial)
        held += found.low <= 0.3 <= found.high
    assert 180 <= held <= 199


def test_the_same_seed_gives_the_same_interval_and_another_a_near_one():
    values, users = np.random.default_rng(2).random(500), np.arange(500)
    first, again, other = (user_interval(values, users, 500, seed) for seed in (1, 1, 2))
    assert first == again
    assert first.low != other.low
    assert first.low == pytest.approx(other.low, abs=0.01)


def test_resamples_are_shared_by_all_rows():
    """Two rows that differ by a constant have intervals that differ by it: they saw the same users."""
    values, users = np.random.default_rng(2).random(400), np.arange(400)
    low, high = user_interval(values, users, 300, 4), user_interval(values + 1, users, 300, 4)
    assert high.low - low.low == pytest.approx(1, abs=1e-12)


def test_a_paired_difference_is_narrower_than_two_intervals():
    rng = np.random.default_rng(6)
    hard = rng.normal(size=1000)
    one, other = hard + 0.05 + 0.02 * rng.normal(size=1000), hard
    found = paired_difference(one, other, np.arange(1000), 1000, 0)
    assert 0.045 < found.low < found.high < 0.055
    alone = user_interval(one, np.arange(1000), 1000, 0)
    assert found.high - found.low < 0.1 * (alone.high - alone.low)
    one[3] = np.nan
    assert paired_difference(one, other, np.arange(1000), 100, 0).value == pytest.approx(
        np.delete(one - other, 3).mean()
    )


def test_a_statistic_of_sums_is_bootstrapped_over_users():
    """A ratio of sums has the delta method's spread."""
    rng = np.random.default_rng(0)
    below = rng.uniform(1, 3, 400)
    above = 0.5 * below + 0.1 * rng.normal(size=400)
    found = bootstrap(lambda totals: totals[:, 0] / totals[:, 1], np.stack([above, below], axis=1), 3000, 0)
    assert found.value == pytest.approx(above.sum() / below.sum())
    spread = (above - found.value * below).std() / below.mean() / np.sqrt(400)
    assert (found.high - found.low) / (2 * 1.96) == pytest.approx(spread, rel=0.05)
