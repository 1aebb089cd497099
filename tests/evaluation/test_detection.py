"""Figures of a queue, against scikit-learn and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from desireline.evaluation.detection import auroc, detection_metrics


def made(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    truth = (generator.uniform(size=2000) < 0.03).astype(float)
    return generator.exponential(size=2000) + 1.5 * truth, truth, np.arange(2000)


def test_ranking_figures_are_scikit_learns():
    score, truth, user = made()
    found = detection_metrics(score, truth, user, 100, 50, 0)
    assert found["AUROC"].value == pytest.approx(roc_auc_score(truth, score))
    assert found["AUPRC"].value == pytest.approx(average_precision_score(truth, score))
    assert auroc(score, truth, user, 50, 0).value == pytest.approx(roc_auc_score(truth, score))
    assert found["AUROC"].low < found["AUROC"].value < found["AUROC"].high


def test_precision_and_recall_are_counted():
    score, truth, user = made(1)
    order = np.argsort(-score)
    found = detection_metrics(score, truth, user, 100, 50, 0)
    assert found["precision@100"].value == pytest.approx(truth[order[:100]].mean())
    assert found["recall@1%"].value == pytest.approx(truth[order[:20]].sum() / truth.sum())


def test_a_constant_score_is_worth_what_chance_is():
    _, truth, user = made(2)
    found = detection_metrics(np.zeros(2000), truth, user, 100, 50, 0)
    assert found["AUROC"].value == pytest.approx(0.5)
    assert found["precision@100"].value == pytest.approx(truth.mean())
    assert found["recall@1%"].value == pytest.approx(0.01)


def test_very_high_scores_keep_their_order():
    score = np.array([300.0, 299.0, 40.0, 39.0, 1.0, 0.0])
    truth = np.array([1.0, 0.0, 1.0, 0.0, 0.0, 0.0])
    found = detection_metrics(score, truth, np.arange(6), 2, 50, 0)
    assert found["AUROC"].value == pytest.approx(roc_auc_score(truth, score))


def test_nobody_false_and_fewer_accounts_than_capacity():
    found = detection_metrics(np.arange(5.0), np.zeros(5), np.arange(5), 100, 50, 0)
    assert found["precision@100"].value == 0
    assert np.isnan(found["recall@1%"].value)
    whole = detection_metrics(np.arange(5.0), np.array([0.0, 0, 0, 1, 1]), np.arange(5), 100, 50, 0)
    assert whole["precision@100"].value == pytest.approx(0.4)


def test_rankings_of_several_seeds_are_each_looked_at_as_far():
    generator = np.random.default_rng(5)
    truth = (generator.random(400) < 0.2).astype(float)
    score, user = generator.normal(size=400) + 2 * truth, np.arange(400)
    alone = detection_metrics(score, truth, user, 50, 0, 0)
    thrice = detection_metrics(np.tile(score, 3), np.tile(truth, 3), np.tile(user, 3), 50, 0, 0, rankings=3)
    for name, metric in alone.items():
        assert thrice[name].value == pytest.approx(metric.value), name
