"""Metrics of a probability against scikit-learn, and against definitions written out slowly."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, brier_score_loss, log_loss, roc_auc_score

from desireline.evaluation.binary import binary_metrics, expected_calibration_error, gains_points, placements
from desireline.evaluation.classification import reliability_points


def forecast(seed: int, n: int, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities on a grid of `steps`, so that many are equal, and what came."""
    generator = np.random.default_rng(seed)
    probability = generator.integers(1, steps, n) / steps
    return probability, (generator.random(n) < probability**1.3).astype(float)


@pytest.mark.parametrize(("n", "steps"), [(50, 4), (400, 1000), (3000, 37)])
def test_figures_are_those_of_scikit_learn(n: int, steps: int) -> None:
    probability, truth = forecast(1, n, steps)
    found = binary_metrics(probability, truth, np.arange(n), 60, 0)
    assert found["AUROC"].value == pytest.approx(roc_auc_score(truth, probability))
    assert found["AUPRC"].value == pytest.approx(average_precision_score(truth, probability))
    assert found["Brier"].value == pytest.approx(brier_score_loss(truth, probability))
    assert found["log-loss"].value == pytest.approx(log_loss(truth, probability))
    for name in set(found) - {"ECE"}:  # chance adds to an absolute error in every resample
        assert found[name].low <= found[name].value <= found[name].high


def test_lift_is_the_share_among_the_top_by_the_share_of_all() -> None:
    probability, truth = forecast(2, 1000, 10**6)
    top = np.argsort(-probability)[:100]
    found = binary_metrics(probability, truth, np.arange(1000), 60, 0)
    assert found["lift@10%"].value == pytest.approx(truth[top].mean() / truth.mean())


def test_a_constant_forecast_ranks_nobody() -> None:
    truth = np.array([0.0, 1.0, 1.0, 0.0, 1.0])
    found = binary_metrics(np.full(5, 0.6), truth, np.arange(5), 60, 0)
    assert found["AUROC"].value == 0.5
    assert found["lift@10%"].value == pytest.approx(1.0)
    assert found["ECE"].value == pytest.approx(0.0)


def test_where_one_class_came_nothing_is_said_of_the_order() -> None:
    found = binary_metrics(np.array([0.2, 0.9]), np.ones(2), np.arange(2), 60, 0)
    assert np.isnan(found["AUROC"].value)
    assert found["Brier"].value == pytest.approx((0.64 + 0.01) / 2)


def test_calibration_error_is_that_of_its_bins() -> None:
    probability, truth = forecast(3, 900, 10**6)
    order = np.argsort(probability)
    bins = np.array_split(order, 15)  # 900 different forecasts: 15 bins of 60
    slow = sum(len(b) / 900 * abs(probability[b].mean() - truth[b].mean()) for b in bins)
    assert expected_calibration_error(probability, truth) == pytest.approx(slow)
    points = reliability_points(probability, truth)
    assert sum(p["n"] for p in points) == 900
    assert points[3]["right"] == pytest.approx(truth[bins[3]].mean())


def test_a_users_questions_are_drawn_together() -> None:
    probability, truth = forecast(4, 200, 1000)
    twice = binary_metrics(np.tile(probability, 2), np.tile(truth, 2), np.tile(np.arange(200), 2), 300, 0)
    once = binary_metrics(probability, truth, np.arange(200), 300, 0)
    assert twice["AUROC"].high - twice["AUROC"].low == pytest.approx(once["AUROC"].high - once["AUROC"].low, rel=0.02)


def test_gains_are_the_share_found_among_the_likeliest() -> None:
    probability, truth = forecast(3, 400, 10_000)
    caught = {p["contacted"]: p["caught"] for p in gains_points(probability, truth)}
    ordered = truth[np.argsort(-probability)]
    for share in (0.05, 0.5, 1.0):
        assert caught[share] == pytest.approx(ordered[: round(share * 400)].sum() / truth.sum())


def test_gains_of_a_constant_forecast_are_the_diagonal() -> None:
    truth = forecast(3, 400, 10)[1]
    assert all(p["caught"] == pytest.approx(p["contacted"]) for p in gains_points(np.full(400, 0.3), truth))
    assert gains_points(np.full(400, 0.3), np.zeros(400)) == []
    assert gains_points(np.empty(0), np.empty(0)) == []


def test_the_mean_placement_is_the_area() -> None:
    probability, truth = forecast(5, 500, 9)
    placed = placements(probability, truth)
    for part in (truth == 1, truth == 0, truth >= 0):
        assert placed[part].mean() == pytest.approx(roc_auc_score(truth, probability))
    assert np.isnan(placements(probability, np.ones(500))).all()
    unknown = truth.copy()
    unknown[0] = np.nan
    assert np.isnan(placements(probability, unknown)[0])
