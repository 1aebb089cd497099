"""CRPS against closed forms and a sum over a fine grid; PIT and coverage of right and wrong forecasts."""

import numpy as np
import pytest
from scipy.stats import expon, kstest, lognorm, norm

from desireline.core.errors import DataError
from desireline.evaluation.waiting import LEVELS, waiting_metrics

DAY = 86_400.0
FAR = 1e9  # observation that never ends, beside these waits


def measured(law, waits, end=FAR, censored=None):
    waits = np.asarray(waits, float)
    quantiles = np.tile(law.ppf(LEVELS), (len(waits), 1))
    cut = np.zeros(len(waits), bool) if censored is None else censored
    return waiting_metrics(quantiles, waits, cut, np.broadcast_to(np.asarray(end, float), waits.shape))


def test_crps_of_an_exponential_wait_equals_the_closed_form():
    """Jordan, Krüger & Lerch 2019: y − 2 F(y) / λ + 1 / (2 λ)."""
    for days in (0.01, 0.3, 1.0, 4.0, 9.0):
        found = measured(expon(scale=DAY), [days * DAY])["CRPS"][0]
        wanted = days - 2 * (1 - np.exp(-days)) + 0.5
        assert found == pytest.approx(wanted, rel=0.004, abs=0.001)


def test_crps_of_a_log_normal_wait_equals_the_closed_form():
    """Baran & Lerch 2015: y (2 F(y) − 1) − 2 exp(μ + σ²/2) (Φ((ln y − μ − σ²) / σ) + Φ(σ/√2) − 1)."""
    s = 1.0
    for days in (0.1, 0.8, 3.0, 20.0):
        found = measured(lognorm(s, scale=DAY), [days * DAY])["CRPS"][0]
        below = norm.cdf(np.log(days) / s)
        bracket = norm.cdf(np.log(days) / s - s) + norm.cdf(s / np.sqrt(2)) - 1
        wanted = days * (2 * below - 1) - 2 * np.exp(s**2 / 2) * bracket
        assert found == pytest.approx(wanted, rel=0.01, abs=0.004)


def test_crps_until_observation_ends_equals_a_fine_sum():
    rng = np.random.default_rng(0)
    for censored in (False, True):
        quantiles = np.sort(rng.integers(0, 60, 99) * DAY / 10.0)
        end = 4 * DAY
        wait = end if censored else 1.37 * DAY
        found = waiting_metrics(quantiles[None], np.array([wait]), np.array([censored]), np.array([end]))["CRPS"][0]
        moments = (np.arange(400_000) + 0.5) * end / 400_000
        levels = np.interp(moments, np.r_[0, quantiles, 2 * quantiles[-1]], np.r_[0, LEVELS, 1])
        came = 0.0 if censored else (moments >= wait)
        assert found == pytest.approx(((levels - came) ** 2).mean() * end / DAY, abs=1e-5)


def test_under_censoring_the_truth_has_the_best_crps():
    rng = np.random.default_rng(1)
    waits, ends = rng.exponential(DAY, 20_000), rng.uniform(0.2 * DAY, 2 * DAY, 20_000)
    cut = waits > ends
    seen = np.minimum(waits, ends)
    score = {m: measured(expon(scale=m * DAY), seen, ends, cut)["CRPS"].mean() for m in (0.5, 0.8, 1.0, 1.25, 2.0)}
    assert min(score, key=score.get) == 1.0


def test_pit_of_a_right_forecast_is_uniform_also_under_censoring():
    rng = np.random.default_rng(2)
    waits, ends = rng.exponential(DAY, 3000), rng.uniform(0.2 * DAY, 2 * DAY, 3000)
    cut = waits > ends
    found = measured(expon(scale=DAY), np.minimum(waits, ends), ends, cut)["PIT"]
    assert kstest(found, "uniform").pvalue > 0.01
    wrong = measured(expon(scale=3 * DAY), np.minimum(waits, ends), ends, cut)["PIT"]
    assert kstest(wrong, "uniform").pvalue < 1e-6


def test_pit_in_a_jump_of_the_forecast_is_spread_over_it():
    """Half of all events follow at once: a forecast that says so is right, and its PIT must be uniform."""
    rng = np.random.default_rng(3)
    waits = np.where(rng.random(4000) < 0.5, 0, rng.uniform(0, DAY, 4000))
    quantiles = np.tile(np.maximum(0, 2 * LEVELS - 1) * DAY, (4000, 1))
    found = waiting_metrics(quantiles, waits, np.zeros(4000, bool), np.full(4000, FAR))["PIT"]
    assert kstest(found, "uniform").pvalue > 0.01


def test_the_interval_holds_the_truth_eight_times_in_ten():
    waits = np.random.default_rng(4).exponential(DAY, 20_000)
    assert measured(expon(scale=DAY), waits)["coverage 80%"].mean() == pytest.approx(0.8, abs=0.01)


def test_coverage_is_open_while_a_censored_wait_may_still_end_inside():
    law, cut = expon(scale=DAY), np.array([True, True, False])
    upper = law.ppf(0.9)
    found = measured(law, [upper * 0.5, upper * 1.5, upper * 0.5], FAR, cut)["coverage 80%"]
    assert np.isnan(found[0])
    assert found[1:].tolist() == [0, 1]


def test_quantiles_that_fall_are_refused():
    with pytest.raises(DataError, match="ascend"):
        waiting_metrics(np.tile(LEVELS[::-1], (1, 1)), np.ones(1), np.zeros(1, bool), np.ones(1))
