"""Gap distributions against published Kaplan-Meier figures, SciPy, and laws known in closed form."""

import numpy as np
import pytest
from scipy.stats import CensoredData, ecdf, expon

from desireline.classical.gaps import kaplan_meier, moments, observed_gaps, own_passed, remaining, tail_hazard
from desireline.evaluation.waiting import LEVELS

S = 1_000_000  # microseconds
FRESH = np.zeros(1, np.int64)


def test_gaps_end_at_the_next_event_or_with_observation():
    time = np.array([0, 5, 9, 3]) * S
    gap, censored = observed_gaps(time, np.array([0, 3, 3, 4]), 20 * S)
    assert gap.tolist() == [5, 4, 11, 17]
    assert censored.tolist() == [False, False, True, True]


def test_kaplan_meier_of_the_classical_example():
    """Freireich et al. 1963, 6-MP group: weeks in remission, the published survival after 6, 7, 10, 13, 16, 22, 23."""
    came = [6, 6, 6, 7, 10, 13, 16, 22, 23]
    cut = [6, 9, 10, 11, 17, 19, 20, 25, 32, 32, 34, 35]
    gap = np.array(came + cut, float)
    censored = np.array([False] * len(came) + [True] * len(cut))
    found = 1 - kaplan_meier(gap, censored, np.array([5.9, 6, 7, 10, 13, 16, 22, 23, 40]))
    published = [1, 0.857, 0.807, 0.753, 0.690, 0.627, 0.538, 0.448, 0.448]
    assert found == pytest.approx(published, abs=5e-4)


def test_kaplan_meier_equals_scipys():
    rng = np.random.default_rng(0)
    gap, limit = rng.integers(0, 30, 300).astype(float), rng.integers(0, 40, 300).astype(float)
    censored = gap > limit
    seen = np.minimum(gap, limit)
    wanted = ecdf(CensoredData(uncensored=seen[~censored], right=seen[censored])).cdf
    points = np.arange(0, 30.0)
    assert kaplan_meier(seen, censored, points) == pytest.approx(wanted.evaluate(points), abs=1e-12)


def test_without_a_gap_nothing_has_passed():
    assert kaplan_meier(np.empty(0), np.empty(0, bool), np.arange(3.0)).tolist() == [0, 0, 0]


def test_a_memoryless_gap_is_memoryless_also_beyond_all_that_was_seen():
    """Whatever the silence, an exponential gap has the same quantiles left."""
    rng = np.random.default_rng(1)
    gap, limit = rng.exponential(1000, 200_000), rng.uniform(0, 4000, 200_000)
    seen, censored = np.minimum(gap, limit), gap > limit
    points = moments(seen)
    passed, hazard = kaplan_meier(seen, censored, points), tail_hazard(seen, censored)
    elapsed = np.array([0.0, 300.0, 1500.0, 50_000.0])
    found = remaining(passed[None], np.zeros(4, np.int64), points, hazard, elapsed)
    wanted = expon(scale=1000).ppf(LEVELS)
    for n, tolerance in enumerate([0.03, 0.03, 0.06, 0.1]):
        np.testing.assert_allclose(found[n, 9:90], wanted[9:90], rtol=tolerance)


def test_ignoring_that_gaps_were_cut_off_would_say_too_soon():
    """Half of the gaps are unfinished: the median of the finished ones is far below the true one."""
    rng = np.random.default_rng(2)
    gap, limit = rng.exponential(1000, 20_000), rng.uniform(0, 2000, 20_000)
    seen, censored = np.minimum(gap, limit), gap > limit
    points = moments(seen)
    median = remaining(kaplan_meier(seen, censored, points)[None], FRESH, points, 1e-3, np.zeros(1))[0, 49]
    assert median == pytest.approx(1000 * np.log(2), rel=0.05)
    assert np.median(seen[~censored]) < 0.7 * median


def test_events_at_once_are_expected_at_once_and_ruled_out_by_any_silence():
    gap = np.array([0.0] * 60 + [100.0] * 40)
    points = moments(gap)
    passed = kaplan_meier(gap, np.zeros(100, bool), points)
    now, later = remaining(passed[None], np.zeros(2, np.int64), points, 1e-3, np.array([0.0, 1.0]))
    assert (now[:59] == 0).all()
    assert now[70:].min() > 90
    assert later.min() > 80


def test_quantiles_ascend_whatever_was_seen():
    rng = np.random.default_rng(3)
    for _ in range(50):
        gap = np.round(rng.exponential(10.0 ** rng.integers(0, 7), rng.integers(0, 20)), rng.integers(0, 3))
        censored = rng.random(len(gap)) < 0.5
        points = moments(gap)
        passed, hazard = kaplan_meier(gap, censored, points), tail_hazard(gap, censored)
        elapsed = np.append(rng.exponential(points[-1], 20), [0, points[-1]])
        found = remaining(passed[None], np.zeros(22, np.int64), points, hazard, elapsed)
        assert np.isfinite(found).all()
        assert (found >= 0).all()
        assert (np.diff(found, axis=1) >= -1e-9 * points[-1]).all()


def test_own_gaps_lean_on_those_of_all():
    points = np.array([0.0, 1.0, 2.0, 4.0])
    time = np.array([0, 1, 3, 103, 7]) * S  # gaps 1, 2, 100; then a history of one event
    found = own_passed(time, np.array([0, 4, 5]), points, np.array([0.0, 0.5, 0.5, 1.0]), 2.0)
    assert found[0] == pytest.approx([0, (1 + 1) / 5, (2 + 1) / 5, (2 + 2) / 5])
    assert found[1] == pytest.approx([0, 0.5, 0.5, 1])
