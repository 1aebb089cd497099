"""Averages over users and their intervals by bootstrap over users.

Questions of one user are not independent, so a figure is the mean over users of the user's own mean, and users are what
is drawn with replacement (arXiv 2305.02461 on why no rank test at these sizes: effect size and interval instead).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from desireline.evaluation.result import Metric


def _by_user(values: NDArray[np.float64], users: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Each user's mean over its defined questions [U], 0 without one, and 1.0 where it has one [U]."""
    names, row = np.unique(users, return_inverse=True)
    defined = np.isfinite(values)
    counts = np.bincount(row[defined], minlength=len(names))
    sums = np.bincount(row[defined], weights=values[defined], minlength=len(names))
    return sums / np.maximum(counts, 1), (counts > 0).astype(np.float64)


def user_mean(values: NDArray[np.float64], users: NDArray[np.int64]) -> float:
    """The mean over users of the user's mean over its defined (finite) questions; nan when nothing is defined."""
    means, has = _by_user(values, users)
    return float(means.sum() / has.sum()) if has.any() else float("nan")


def user_interval(values: NDArray[np.float64], users: NDArray[np.int64], resamples: int, seed: int) -> Metric:
    """`user_mean` with its 95 % percentile interval by bootstrap over users.

    values : float64 [Q], nan where the metric is not defined for a question;  users : int64 [Q]
    """
    means, has = _by_user(values, users)
    if not has.any():
        return Metric(float("nan"), float("nan"), float("nan"))
    drawn = _draws(len(means), resamples, seed)
    held = drawn @ has
    figures = (drawn @ means)[held > 0] / held[held > 0]
    low, high = np.quantile(figures, [0.025, 0.975])
    return Metric(float(means.sum() / has.sum()), float(low), float(high))


def paired_difference(
    one: NDArray[np.float64], other: NDArray[np.float64], users: NDArray[np.int64], resamples: int, seed: int
) -> Metric:
    """The mean over users of `one − other` on the questions where both are defined, with its interval."""
    return user_interval(one - other, users, resamples, seed)


def bootstrap(
    statistic: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    sums: NDArray[np.float64],
    resamples: int,
    seed: int,
) -> Metric:
    """The interval of a statistic that is no mean but follows from sums over users.

    statistic : from totals [B, S] to figures [B];  sums : float64 [U, S], one row a user
    """
    value = statistic(sums.sum(axis=0)[None])[0]
    figures = statistic(_draws(len(sums), resamples, seed) @ sums)
    low, high = np.quantile(figures, [0.025, 0.975])
    return Metric(float(value), float(low), float(high))


@lru_cache(maxsize=4)
def _draws(users: int, resamples: int, seed: int) -> NDArray[np.float32]:
    """float32 [resamples, users]: how often each user is drawn. The same for all rows and metrics of a table."""
    rng = np.random.default_rng(seed)
    drawn = np.empty((resamples, users), np.float32)
    for row in range(resamples):
        drawn[row] = np.bincount(rng.integers(0, users, users), minlength=users)
    return drawn
