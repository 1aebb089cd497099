"""Metrics of a predicted waiting time, right-censored where observation ended first.

A forecast is given by its quantiles at LEVELS. Between them its distribution is taken as linear; it rises from 0 at the
moment of the question, and above the last quantile up to 1 at twice that quantile.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

LEVELS = np.arange(1, 100) / 100
DAY_S = 86_400.0


def waiting_metrics(
    quantiles: NDArray[np.float64],
    wait_s: NDArray[np.float64],
    censored: NDArray[np.bool_],
    horizon_s: NDArray[np.float64],
) -> dict[str, NDArray[np.float64]]:
    """CRPS, PIT and the hit of the 80 % interval for Q questions.

    quantiles : float64 [Q, LEVELS] in seconds, ascending;  wait_s [Q] : what came, or the time observed where `censored`
    horizon_s [Q] : seconds until observation ends

    CRPS is threshold-weighted (Gneiting & Ranjan 2011, equation 10): ∫ from 0 to the end of observation of
    (F(t) − 1{t ≥ wait})² dt, in days, which stays proper under censoring. PIT of a censored wait is drawn uniformly from
    [F(wait), 1] (seeded), so that a right forecast stays uniform. The interval from the 10 % to the 90 % quantile is
    judged where the truth is known: nan when a censored wait is shorter than its upper end.
    """
    crps = np.empty(len(wait_s))
    for q in range(len(wait_s)):
        wait = np.inf if censored[q] else wait_s[q]
        crps[q] = _crps(quantiles[q], wait, horizon_s[q]) / DAY_S
    below = _cdf(quantiles, wait_s)
    drawn = np.random.default_rng(0).uniform(size=len(wait_s))
    low, high = quantiles[:, 9], quantiles[:, 89]
    inside = ((wait_s >= low) & (wait_s <= high)).astype(float)
    inside[censored & (wait_s > high)] = 0
    inside[censored & (wait_s <= high)] = np.nan
    return {"CRPS": crps, "PIT": np.where(censored, below + drawn * (1 - below), below), "coverage 80%": inside}


def _cdf(quantiles: NDArray[np.float64], at: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.array([np.interp(t, *_knots(q)) for q, t in zip(quantiles, at, strict=True)])


def _knots(quantiles: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Moments and the distribution at them, ends included."""
    return np.concatenate([[0], quantiles, [2 * quantiles[-1]]]), np.concatenate([[0], LEVELS, [1]])


def _crps(quantiles: NDArray[np.float64], wait: float, end: float) -> float:
    """∫_0^end (F − 1{t ≥ wait})² dt, exact for the piecewise linear F."""
    points, levels = _knots(quantiles)
    knots = np.unique(np.clip(np.append(points, [min(wait, end), end]), 0, end))
    if len(knots) < 2:
        return 0.0
    height = np.interp(knots, points, levels)
    left, right = height[:-1], height[1:]
    after = (knots[:-1] >= wait).astype(float)
    a, b = left - after, right - after
    return float((np.diff(knots) * (a * a + a * b + b * b) / 3).sum())
