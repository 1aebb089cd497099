"""Metrics of a predicted event type: log-loss, macro-F1, calibration.

Calibration looks at the most probable type of each question (Guo et al. 2017), in bins of equal mass: borders are taken
so that each bin holds about as many questions, and equal confidences never part, so that a constant forecast has one
bin and its error is that of its mean.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from desireline.core.errors import DataError
from desireline.evaluation.intervals import bootstrap
from desireline.evaluation.result import Metric

FIRST = 2  # ids 0 (padding) and 1 (unknown) are no types
BINS = 15
SMALLEST = 1e-12  # a probability of 0 for what came costs −log of this, not infinity


def log_loss(probability: NDArray[np.float64], truth: NDArray[np.int64]) -> NDArray[np.float64]:
    """float64 [Q]: −log of the probability [Q, types] given to what came; nan where nothing known came (truth < 2).

    Raises DataError when a probability is nan.
    """
    _check(probability)
    given = probability[np.arange(len(truth)), np.maximum(truth, 0)]
    return np.where(truth >= FIRST, -np.log(np.maximum(given, SMALLEST)), np.nan)


def confusion(probability: NDArray[np.float64], truth: NDArray[np.int64]) -> NDArray[np.int64]:
    """int64 [types, types]: questions by what came (row) and the most probable type (column)."""
    types = probability.shape[1]
    return np.bincount(truth * types + probability.argmax(axis=1), minlength=types * types).reshape(types, types)


def calibration_metrics(
    probability: NDArray[np.float64], truth: NDArray[np.int64], user: NDArray[np.int64], resamples: int, seed: int
) -> dict[str, Metric]:
    """macro-F1 over the types that came, and ECE of the most probable type, each question counting once.

    probability : float64 [Q, types];  truth : int64 [Q], the type that came;  user : int64 [Q]

    macro-F1: the mean over the types that came of 2 · right / (guessed + came), the guess being the most probable type.
    ECE: Σ over bins of equal mass of |mean confidence − share right| × share of questions (Naeini et al. 2015); every
    resample has the bins of the whole sample. Intervals by bootstrap over users. Raises DataError when a probability is
    nan.
    """
    _check(probability)
    _, row = np.unique(user, return_inverse=True)
    users, types = int(row.max()) + 1, probability.shape[1]
    guess = probability.argmax(axis=1)
    right = guess == truth
    tables = [_table(row[right], truth[right], users, types), _table(row, guess, users, types)]
    by_type = np.stack([*tables, _table(row, truth, users, types)], axis=1)  # [users, (right, guessed, came), types]
    by_type = by_type[:, :, by_type[:, 2].sum(axis=0) > 0]

    def macro_f1(totals: NDArray[np.float64]) -> NDArray[np.float64]:
        found, guessed, came = np.moveaxis(totals.reshape(len(totals), 3, -1), 1, 0)
        f1 = np.divide(2 * found, guessed + came, out=np.zeros_like(came), where=came > 0)
        held = (came > 0).sum(axis=1)  # a rare type may be missing in a resample
        return np.divide(f1.sum(axis=1), held, out=np.full(len(held), np.nan), where=held > 0)

    confidence = probability.max(axis=1)
    bins = mass_bins(confidence)
    weights = (confidence, right.astype(np.float64), np.ones(len(row)))
    by_bin = np.stack([_table(row, bins, users, BINS, weight) for weight in weights], axis=1)

    def ece(totals: NDArray[np.float64]) -> NDArray[np.float64]:
        expected, correct, held = np.moveaxis(totals.reshape(len(totals), 3, BINS), 1, 0)
        return np.asarray(np.abs(expected - correct).sum(axis=1) / held.sum(axis=1), np.float64)

    return {
        "macro-F1": bootstrap(macro_f1, by_type.reshape(users, -1), resamples, seed),
        "ECE": bootstrap(ece, by_bin.reshape(users, -1), resamples, seed),
    }


def reliability(probability: NDArray[np.float64], truth: NDArray[np.int64]) -> list[dict[str, float]]:
    """Points of the reliability plot, a bin of equal mass each: mean confidence, share right, number of questions."""
    return reliability_points(probability.max(axis=1), probability.argmax(axis=1) == truth)


def reliability_points(confidence: NDArray[np.float64], right: NDArray[Any]) -> list[dict[str, float]]:
    """As `reliability`, of any forecast [Q] of what came [Q] or not."""
    bins = mass_bins(confidence)
    held = np.bincount(bins, minlength=BINS)
    mean = np.bincount(bins, weights=confidence, minlength=BINS) / np.maximum(held, 1)
    share = np.bincount(bins, weights=right, minlength=BINS) / np.maximum(held, 1)
    return [
        {"confidence": float(mean[b]), "right": float(share[b]), "n": int(held[b])} for b in np.flatnonzero(held > 0)
    ]


def _check(probability: NDArray[np.float64]) -> None:
    if np.isnan(probability).any():
        row = int(np.flatnonzero(np.isnan(probability).any(axis=1))[0])
        raise DataError(f"Question {row}: a model gave nan as a probability. Lower its learning rate.")


def _table(
    row: NDArray[np.int64],
    column: NDArray[np.int64],
    rows: int,
    columns: int,
    weight: NDArray[np.float64] | None = None,
) -> NDArray[np.float64]:
    """float64 [rows, columns]: how often, or with what sum of weights, each pair stands there."""
    held = np.bincount(row * columns + column, weights=weight, minlength=rows * columns)
    return held.reshape(rows, columns).astype(np.float64)


def mass_bins(confidence: NDArray[np.float64], bins: int = BINS) -> NDArray[np.int64]:
    """int64 [Q]: the bin of each question, by the number of questions with a lower confidence."""
    _, value, counts = np.unique(confidence, return_inverse=True, return_counts=True)
    lower = np.cumsum(counts) - counts
    return np.asarray(lower[value] * bins // max(1, len(confidence)), np.int64)
