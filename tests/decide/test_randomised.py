"""A draw passes; a choice is found out, whether trees see it, a mean shows it or only the calendar."""

from __future__ import annotations

import numpy as np
from sklearn.metrics import roc_auc_score

from desireline.decide.randomised import auroc_interval, check_randomised, differences


def users(seed: int, n: int = 600) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray], np.random.Generator]:
    generator = np.random.default_rng(seed)
    columns = np.exp(generator.normal(size=(n, 5))).astype(np.float32)
    return columns, generator.integers(0, 5, n), {"recency": columns[:, 0].astype(float)}, generator


def test_a_draw_passes_whatever_its_share() -> None:
    for seed, share in enumerate((0.5, 0.2, 0.8)):
        columns, fold, main, generator = users(seed)
        check = check_randomised(columns, generator.random(len(fold)) < share, fold, main, 0)
        assert check.is_random, check.why
        assert check.low < 0.5


def test_treating_the_risky_is_refused_with_the_number_that_tells() -> None:
    columns, fold, main, generator = users(7)
    treated = generator.random(len(fold)) < 1 / (1 + np.exp(-np.log(columns[:, 0])))
    check = check_randomised(columns, treated, fold, main, 0)
    assert not check.is_random
    assert "recency differs" in check.why
    assert "AUROC" in check.why


def test_what_no_mean_shows_the_trees_see() -> None:
    columns, fold, main, generator = users(8, 1500)
    middle = (columns[:, 0] > 0.5) & (columns[:, 0] < 1.6)
    check = check_randomised(columns, generator.random(len(fold)) < np.where(middle, 0.8, 0.2), fold, {}, 0)
    assert not check.is_random
    assert check.low > 0.5
    assert main.keys() == {"recency"}


def test_the_auroc_is_that_of_scikit_learn_and_its_interval_that_of_resampling() -> None:
    generator = np.random.default_rng(0)
    label = generator.random(400) < 0.4
    score = np.round(generator.normal(size=400) + 0.5 * label, 1)  # with ties
    auroc, low, high = auroc_interval(score, label, 0.95)
    assert abs(auroc - roc_auc_score(label, score)) < 1e-12
    drawn = [generator.integers(0, 400, 400) for _ in range(500)]
    resampled = np.std([roc_auc_score(label[rows], score[rows]) for rows in drawn])
    assert abs((high - low) / (2 * 1.96) - resampled) < 0.15 * resampled


def test_a_standardised_difference_is_means_by_pooled_deviation() -> None:
    values = np.array([1.0, 3.0, 2.0, 6.0, np.nan])
    found = differences({"a": values, "constant": np.ones(5)}, np.array([True, True, False, False, True]))
    assert [d.name for d in found] == ["a"]
    assert found[0].standardised == (2 - 4) / np.sqrt((2 + 8) / 2)
