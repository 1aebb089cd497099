"""Averages over users and their intervals by bootstrap over users.

Questions of one user are not independent, so a figure is the mean over users of the user's own mean, and users are what
is drawn with replacement (arXiv 2305.02461 on why no rank test at these sizes: effect size and interval instead).

Which users a resample draws follows from the seed and the number of users alone, by a counter-based generator: rows of
a table see the same resamples, none depends on another, and nothing of size resamples × users is kept.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from desireline.evaluation.blocks import over_blocks
from desireline.evaluation.result import Metric

LOW, HIGH = 0.025, 0.975


def _by_user(values: NDArray[np.float64], users: NDArray[np.int64]) -> NDArray[np.float64]:
    """[U, 2]: each user's mean over its defined questions (0 without one), and 1 where it has one."""
    names, row = np.unique(users, return_inverse=True)
    defined = np.isfinite(values)
    counts = np.bincount(row[defined], minlength=len(names))
    sums = np.bincount(row[defined], weights=values[defined], minlength=len(names))
    return np.stack([sums / np.maximum(counts, 1), counts > 0], axis=1)


def user_mean(values: NDArray[np.float64], users: NDArray[np.int64]) -> float:
    """The mean over users of the user's mean over its defined (finite) questions; nan when nothing is defined."""
    total, having = _by_user(values, users).sum(axis=0)
    return float(total / having) if having else float("nan")


def user_interval(values: NDArray[np.float64], users: NDArray[np.int64], resamples: int, seed: int) -> Metric:
    """`user_mean` with its 95 % percentile interval by bootstrap over users; nan when nothing is defined.

    values : float64 [Q], nan where the metric is not defined for a question;  users : int64 [Q], whose question it is

    A user without a defined question counts for nothing, but may be drawn.
    """
    means = _by_user(values, users)
    if not means[:, 1].any():
        return Metric(float("nan"), float("nan"), float("nan"))
    return bootstrap(_ratio, means, resamples, seed)


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
    """The interval of any statistic that follows from sums over users.

    statistic : from totals [B, S] to figures [B], nan where a resample does not define it
    sums : float64 [U, S], one row a user
    """
    value = float(statistic(sums.sum(axis=0)[None])[0])
    totals = np.zeros((resamples, sums.shape[1]))
    rows = np.ascontiguousarray(sums, np.float64)
    over_blocks(resamples, lambda lo, hi: _resample(rows, np.uint64(seed % 2**64), totals, lo, hi))
    figures = statistic(totals)
    figures = figures[np.isfinite(figures)]
    low, high = np.quantile(figures, [LOW, HIGH]) if len(figures) else (np.nan, np.nan)
    return Metric(value, float(low), float(high))


def weighted(
    figures: Callable[[NDArray[np.float64]], dict[str, float]], users: NDArray[np.int64], resamples: int, seed: int
) -> dict[str, Metric]:
    """Intervals of figures that are no function of sums over users, as those of a ranking.

    figures : from how many times each question counts, float64 [Q], to figures by name; one that is nan in a resample
        is left out of its interval
    users : int64 [Q], whose question it is
    """
    names, row = np.unique(users, return_inverse=True)
    generator, whole = np.random.default_rng(seed), figures(np.ones(len(row)))
    drawn: dict[str, list[float]] = {name: [] for name in whole}
    for _ in range(resamples):
        times = np.bincount(generator.integers(0, len(names), len(names)), minlength=len(names)).astype(np.float64)
        for name, value in figures(times[row]).items():
            drawn[name].append(value)
    found = {}
    for name, value in whole.items():
        kept = np.array([figure for figure in drawn[name] if np.isfinite(figure)])
        low, high = np.quantile(kept, [LOW, HIGH]) if len(kept) else (np.nan, np.nan)
        found[name] = Metric(value, float(low), float(high))
    return found


def _ratio(totals: NDArray[np.float64]) -> NDArray[np.float64]:
    held = totals[:, 1]
    return np.divide(totals[:, 0], held, out=np.full(len(held), np.nan), where=held > 0)


@numba.njit(cache=True, nogil=True)
def _resample(
    rows: NDArray[np.float64], seed: np.uint64, totals: NDArray[np.float64], lo: int, hi: int
) -> None:  # pragma: no cover
    """Add up the users drawn in resamples [lo, hi): number i of resample r comes from hashing (seed, r, i)."""
    users, columns = rows.shape
    step: Any = np.uint64(0x9E3779B97F4A7C15)
    for r in range(lo, hi):
        state: Any = _mix(_mix(np.uint64(seed) + step) + np.uint64(r))
        for _ in range(users):
            state += step
            user = np.int64(((_mix(state) >> np.uint64(32)) * np.uint64(users)) >> np.uint64(32))
            for c in range(columns):
                totals[r, c] += rows[user, c]


@numba.njit(cache=True, nogil=True)
def _mix(x: Any) -> Any:  # pragma: no cover
    """SplitMix64's finaliser (Steele, Lea & Flood 2014)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
