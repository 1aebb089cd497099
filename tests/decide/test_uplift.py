"""Effects that are known because they were drawn: what the learners find of them, and what a policy is said to gain."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from desireline.decide.uplift import LEARNERS, SAME, Experiment, crossfitted, evaluate, top
from desireline.evaluation.result import Metric

USERS, FOLDS = 2000, 5


def drawn(effect: Callable[[np.ndarray], np.ndarray], seed: int, share: float = 0.5) -> tuple[Experiment, np.ndarray]:
    """An experiment whose first number tells who leaves anyway and whose second may tell whom a contact changes."""
    generator = np.random.default_rng(seed)
    columns = generator.normal(size=(USERS, 4)).astype(np.float32)
    stays = 0.25 + 0.5 / (1 + np.exp(-1.5 * columns[:, 0]))
    true = effect(columns)
    treated = generator.random(USERS) < share
    outcome = (generator.random(USERS) < stays + treated * true).astype(float)
    fold = generator.integers(0, FOLDS, USERS)
    return Experiment(columns, treated, outcome, fold, float(treated.mean())), true


def persuadable(columns: np.ndarray) -> np.ndarray:
    return np.where(columns[:, 1] > 0, 0.24, 0.0)


def sleeping_dogs(columns: np.ndarray) -> np.ndarray:
    return np.where(columns[:, 1] > 0, 0.2, -0.2)


def holds(metric: Metric, value: float) -> bool:
    return metric.low <= value <= metric.high


def test_the_pseudo_outcome_is_the_sum_written_out() -> None:
    fold = np.zeros(2, np.int64)
    e = Experiment(np.zeros((2, 1), np.float32), np.array([True, False]), np.array([1.0, 0.0]), fold, 0.25)
    # .7 − .4 + (1 − .7) / .25 and .6 − .5 − (0 − .5) / .75
    np.testing.assert_allclose(e.pseudo_outcome(np.array([0.4, 0.5]), np.array([0.7, 0.6])), [1.5, 0.1 + 0.5 / 0.75])


def test_the_average_effect_lies_in_its_interval_about_as_often_as_promised() -> None:
    inside = 0
    for seed in range(5):
        e, true = drawn(lambda columns: np.full(len(columns), 0.1), seed, share=0.3)
        average = evaluate(e, np.zeros(USERS), seed).average
        inside += holds(average, true.mean())
        assert 0.02 < average.high - average.low < 0.12
    assert inside >= 4


@pytest.mark.parametrize(
    ("learner", "effect"), [*((learner, persuadable) for learner in LEARNERS), ("dr", sleeping_dogs)]
)
def test_who_is_changed_is_found_and_worth_more_than_who_leaves(
    learner: str, effect: Callable[[np.ndarray], np.ndarray]
) -> None:
    e, true = drawn(effect, 3)
    found = crossfitted(learner, e, 0)
    assert effect is not sleeping_dogs or (np.sign(found) == np.sign(true)).mean() > 0.85
    assert np.corrcoef(found, true)[0, 1] > 0.5
    policy = next(p for p in evaluate(e, found, 0).policies if p.share == 0.3)
    assert holds(policy.uplift, float((top(found, e.fold, 0.3) * true).mean()))
    assert holds(policy.random, 0.3 * true.mean())
    assert policy.verdict == "uplift gains more"


def test_one_effect_for_all_is_not_told_apart_from_risk() -> None:
    told_apart = 0  # one in twenty may be
    for seed, effect in enumerate((0.0, 0.1, 0.0, -0.1), 1):
        e, _ = drawn(lambda columns, effect=effect: np.full(len(columns), effect), seed)
        found = crossfitted("dr", e, 0)
        assert found.std() < 0.04
        told_apart += any(policy.verdict != SAME for policy in evaluate(e, found, 0).policies)
    assert told_apart <= 1


def test_no_outcome_takes_part_in_its_own_effect() -> None:
    e, _ = drawn(persuadable, 2)
    held = e.fold == 0
    poisoned = Experiment(e.columns, e.treated, np.where(held, 1 - e.outcome, e.outcome), e.fold, e.share)
    np.testing.assert_array_equal(crossfitted("dr", e, 0)[held], crossfitted("dr", poisoned, 0)[held])


def test_equal_scores_share_the_last_places_and_folds_do_not_compete() -> None:
    one = np.zeros(4, np.int64)
    np.testing.assert_allclose(top(np.array([3.0, 1.0, 1.0, 0.0]), one, 0.5), [1.0, 0.5, 0.5, 0.0])
    np.testing.assert_allclose(top(np.array([9.0, 9.0, 1.0, 1.0]), np.array([0, 0, 1, 1]), 0.5), 0.5)
