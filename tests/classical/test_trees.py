"""Trees: what they add up to, what an offset takes off them, and that a saved model is the same model."""

from __future__ import annotations

import numpy as np
import pytest

from desireline.classical.trees import FOLDS, MeanTrees, Trees


def cases(seed: int, n: int = 2000) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Two numbers of which the first tells, one of them sometimes missing; label, fold and a season of 0 or 3."""
    generator = np.random.default_rng(seed)
    columns = generator.normal(size=(n, 2)).astype(np.float32)
    season = np.where(np.arange(n) % 2 == 0, 0.0, 3.0)
    label = (generator.random(n) < 1 / (1 + np.exp(-(2 * columns[:, 0] + season - 1.5)))).astype(float)
    columns[::7, 1] = np.nan
    return columns, label, generator.integers(0, FOLDS, n), season


@pytest.fixture(scope="module")
def fitted() -> Trees:
    columns, label, fold, _ = cases(0)
    trees = Trees(["tells", "noise"])
    trees.fit(columns, label, fold, 0)
    return trees


def test_shares_and_a_common_start_add_up_to_the_log_odds(fitted: Trees) -> None:
    columns = cases(1, 50)[0]
    rest = fitted.log_odds(columns) - fitted.shares(columns).sum(axis=1)
    np.testing.assert_allclose(rest, rest[0], atol=1e-6)
    assert np.abs(fitted.shares(columns)).mean(axis=0)[0] > 3 * np.abs(fitted.shares(columns)).mean(axis=0)[1]


def test_a_saved_model_is_the_same_model(fitted: Trees) -> None:
    again, columns = Trees(), cases(1, 50)[0]
    again.load(fitted.state())
    assert again.names == ["tells", "noise"]
    np.testing.assert_array_equal(again.log_odds(columns), fitted.log_odds(columns))
    assert again.parameters == fitted.parameters > 0


def test_rows_are_scored_by_boosters_that_never_saw_their_fold() -> None:
    columns, _, fold, _ = cases(2)
    label = np.random.default_rng(3).integers(0, 2, len(fold)).astype(float)  # nothing to learn
    outside = Trees(["tells", "noise"]).fit(columns, label, fold, 0)
    assert abs(np.corrcoef(outside, label)[0, 1]) < 0.08  # by boosters that saw them it would be far above


def test_an_offset_is_no_business_of_the_trees() -> None:
    columns, label, fold, season = cases(4)
    trees = Trees(["tells", "noise", "season"])
    told = np.column_stack([columns, season]).astype(np.float32)  # a column that gives the season away
    trees.fit(told, label, fold, 0, season - season.mean())
    low, high = told.copy(), told.copy()
    low[:, 2], high[:, 2] = 0, 3
    assert abs((trees.log_odds(high) - trees.log_odds(low)).mean()) < 0.6  # without the offset: about 3
    plain = Trees(["tells", "noise", "season"])
    plain.fit(told, label, fold, 0)
    assert (plain.log_odds(high) - plain.log_odds(low)).mean() > 1.5


def test_a_mean_is_learnt_where_it_differs_and_none_made_up_where_not() -> None:
    columns, _, fold, _ = cases(5)
    noise = np.random.default_rng(6).normal(size=len(fold))
    there, nothing = MeanTrees(), MeanTrees()
    outside = there.fit(columns, np.sin(columns[:, 0]) + noise, fold, 0)
    assert np.corrcoef(outside, np.sin(columns[:, 0]))[0, 1] > 0.9
    assert np.corrcoef(there.means(columns), np.sin(columns[:, 0]))[0, 1] > 0.9
    nothing.fit(columns, noise, fold, 0)
    assert nothing.rounds == 0
    np.testing.assert_allclose(nothing.means(columns), noise.mean(), atol=0.01)


def test_a_row_s_mean_comes_from_boosters_that_never_saw_its_fold() -> None:
    columns, _, fold, _ = cases(7)
    target = columns[:, 0].astype(float)
    held = fold == 2
    for shift in (0.0, 0.01):  # so little that no other number of trees becomes best
        moved = np.where(held, target + shift, target)
        found = MeanTrees().fit(columns, moved, fold, 0)[held]
        if shift == 0:
            kept = found
    np.testing.assert_array_equal(kept, found)
