"""Log-loss, macro-F1 and calibration against scikit-learn and by hand."""

import numpy as np
import pytest
from sklearn.calibration import calibration_curve
from sklearn.metrics import confusion_matrix, f1_score
from sklearn.metrics import log_loss as sklearn_log_loss

from desireline.core.errors import DataError
from desireline.evaluation.classification import calibration_metrics, confusion, log_loss, reliability


def forecasts(questions=600, types=5, seed=0):
    rng = np.random.default_rng(seed)
    probability = np.zeros((questions, types))
    probability[:, 2:] = rng.dirichlet(np.ones(types - 2), questions)
    truth = np.array([rng.choice(types, p=p) for p in probability])
    return probability, truth, rng.integers(0, 90, questions)


def test_log_loss_equals_scikit_learn():
    probability, truth, _ = forecasts()
    assert log_loss(probability, truth).mean() == pytest.approx(sklearn_log_loss(truth, probability[:, 2:]))


def test_log_loss_is_undefined_where_nothing_known_came_and_finite_at_zero():
    found = log_loss(np.array([[0, 0, 1.0, 0]] * 4), np.array([0, 1, 2, 3]))
    assert np.isnan(found[:2]).all()
    assert found[2] == 0
    assert found[3] == pytest.approx(-np.log(1e-12))
    with pytest.raises(DataError, match="Question 0: a model gave nan"):
        log_loss(np.full((1, 4), np.nan), np.array([2]))


def test_macro_f1_equals_scikit_learn():
    probability, truth, users = forecasts()
    found = calibration_metrics(probability, truth, users, 200, 0)["macro-F1"]
    assert found.value == pytest.approx(f1_score(truth, probability.argmax(axis=1), average="macro"))
    assert found.low < found.value < found.high
    assert (confusion(probability, truth)[2:, 2:] == confusion_matrix(truth, probability.argmax(axis=1))).all()


def test_calibration_points_equal_scikit_learns_quantile_bins():
    """scikit-learn borders its bins by quantiles; the sizes of ours differ by one at most, so compare 600 / 15."""
    probability, truth, _ = forecasts()
    points = reliability(probability, truth)
    right = probability.argmax(axis=1) == truth
    share, confidence = calibration_curve(right, probability.max(axis=1), n_bins=15, strategy="quantile")
    assert [p["right"] for p in points] == pytest.approx(share, abs=0.03)
    assert [p["confidence"] for p in points] == pytest.approx(confidence, abs=0.01)
    assert [p["n"] for p in points] == [40] * 15


def test_ece_of_its_points():
    probability, truth, users = forecasts()
    points = reliability(probability, truth)
    wanted = sum(abs(p["right"] - p["confidence"]) * p["n"] for p in points) / 600
    assert calibration_metrics(probability, truth, users, 50, 0)["ECE"].value == pytest.approx(wanted)


def test_ece_of_a_constant_forecast_is_the_error_of_its_mean_in_any_order():
    """Equal confidences share a bin: otherwise the order of the questions would make up an error."""
    probability = np.tile([0, 0, 0.7, 0.3], (1000, 1))
    truth = np.repeat([2, 3], [700, 300])
    for order in (np.arange(1000), np.random.default_rng(0).permutation(1000)):
        found = calibration_metrics(probability, truth[order], np.arange(1000), 10, 0)
        assert found["ECE"].value == pytest.approx(0, abs=1e-12)
    over = np.tile([0, 0, 0.9, 0.1], (1000, 1))
    assert calibration_metrics(over, truth, np.arange(1000), 10, 0)["ECE"].value == pytest.approx(0.2)


def test_a_rare_type_may_be_missing_from_a_resample():
    probability, truth = np.tile([0, 0, 0.6, 0.4], (40, 1)), np.array([3] + [2] * 39)
    found = calibration_metrics(probability, truth, np.arange(40), 300, 0)["macro-F1"]
    assert 0 < found.low <= found.value <= found.high
    wanted = f1_score(truth, probability.argmax(axis=1), labels=[2, 3], average="macro", zero_division=0)
    assert found.value == pytest.approx(wanted)
    assert found.high > 0.9  # where the rare type is missing, the other is always right
