"""Metrics of a predicted event type: log-loss, macro-F1, calibration."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from desireline.evaluation.intervals import bootstrap
from desireline.evaluation.result import Metric

BINS = 15
SMALLEST = 1e-12  # a probability of 0 for what came costs −log of this, not infinity


def log_loss(probability: NDArray[np.float64], truth: NDArray[np.int64]) -> NDArray[np.float64]:
    """float64 [Q]: −log of the probability [Q, types] given to what came; nan where nothing known came (truth < 2)."""
    given = probability[np.arange(len(truth)), np.maximum(truth, 0)]
    return np.where(truth >= 2, -np.log(np.maximum(given, SMALLEST)), np.nan)


def calibration_metrics(
    probability: NDArray[np.float64], truth: NDArray[np.int64], user: NDArray[np.int64], resamples: int, seed: int
) -> dict[str, Metric]:
    """macro-F1 over the types that came, and ECE of the most probable type, each question counting once.

    ECE: Σ over bins of equal mass of |mean confidence − share right| × share of questions (Naeini et al. 2015).
    """
    _, row = np.unique(user, return_inverse=True)
    users, types = int(row.max()) + 1, probability.shape[1]
    guess = probability.argmax(axis=1)
    confusion = np.zeros((users, 3, types))  # of each user: right, guessed, came
    np.add.at(confusion, (row[guess == truth], 0, truth[guess == truth]), 1)
    np.add.at(confusion, (row, 1, guess), 1)
    np.add.at(confusion, (row, 2, truth), 1)
    came = confusion[:, 2].sum(axis=0) > 0

    def macro_f1(totals: NDArray[np.float64]) -> NDArray[np.float64]:
        right, guessed, present = np.moveaxis(totals.reshape(-1, 3, types)[:, :, came], 1, 0)
        whole = guessed + present
        f1 = np.divide(2 * right, whole, out=np.zeros_like(whole), where=whole > 0)
        return np.asarray(f1.mean(axis=1), np.float64)

    confidence = probability.max(axis=1)
    bins = _mass_bins(confidence)
    sums = np.zeros((users, 3, BINS))  # of each user and bin: confidence, right, questions
    np.add.at(sums, (row, 0, bins), confidence)
    np.add.at(sums, (row, 1, bins), guess == truth)
    np.add.at(sums, (row, 2, bins), 1)

    def ece(totals: NDArray[np.float64]) -> NDArray[np.float64]:
        expected, right, held = np.moveaxis(totals.reshape(-1, 3, BINS), 1, 0)
        return np.asarray(np.abs(expected - right).sum(axis=1) / held.sum(axis=1), np.float64)

    return {
        "macro-F1": bootstrap(macro_f1, confusion.reshape(users, -1), resamples, seed),
        "ECE": bootstrap(ece, sums.reshape(users, -1), resamples, seed),
    }


def reliability(probability: NDArray[np.float64], truth: NDArray[np.int64]) -> list[dict[str, float]]:
    """Points of the reliability plot, a bin of equal mass each: mean confidence, share right, number of questions."""
    confidence, right = probability.max(axis=1), probability.argmax(axis=1) == truth
    bins = _mass_bins(confidence)
    return [
        {
            "confidence": float(confidence[bins == b].mean()),
            "right": float(right[bins == b].mean()),
            "n": int((bins == b).sum()),
        }
        for b in range(BINS)
        if (bins == b).any()
    ]


def _mass_bins(confidence: NDArray[np.float64]) -> NDArray[np.int64]:
    rank = np.empty(len(confidence), np.int64)
    rank[np.argsort(confidence, kind="stable")] = np.arange(len(confidence))
    return rank * BINS // max(1, len(confidence))
