"""Metrics of a predicted waiting time, right-censored where observation ended first.

A forecast is given by its quantiles at LEVELS. Between them its distribution is taken as linear; it rises from 0 at the
moment of the question, and above the last quantile up to 1 at twice that quantile. The CRPS of this approximation is
within .4 % of the closed form for exponential waits and within 1 % for log-normal ones (σ = 1), the far tail included.
"""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray

from desireline.core.errors import DataError
from desireline.evaluation.blocks import over_blocks

LEVELS = np.arange(1, 100) / 100
DAY_S = 86_400.0
LOW, HIGH = 9, 89  # places of the 10 % and the 90 % quantile


def waiting_metrics(
    quantiles: NDArray[np.float64],
    wait_s: NDArray[np.float64],
    censored: NDArray[np.bool_],
    horizon_s: NDArray[np.float64],
    seed: int = 0,
) -> dict[str, NDArray[np.float64]]:
    """CRPS, PIT and the hit of the 80 % interval for Q questions.

    Parameters
    ----------
    quantiles : float64 [Q, LEVELS] in seconds, ascending
    wait_s : float64 [Q], seconds until the event came, or those observed where `censored`
    horizon_s : float64 [Q], seconds until observation ends
    seed : of the draws within jumps and beyond censoring

    Returns
    -------
    CRPS : threshold-weighted (Gneiting & Ranjan 2011, equation 10): ∫ from 0 to the end of observation of
        (F(t) − 1{t ≥ wait})² dt, in days, which stays proper under censoring
    PIT : F(wait), drawn uniformly from a jump of F at the wait, and from [F(wait), 1] for a censored one, so that a
        right forecast stays uniform
    coverage 80% : 1 where the wait lies between the 10 % and the 90 % quantile, 0 where not, nan where a censored wait
        leaves it open

    Raises
    ------
    DataError when quantiles are nan or not ascending.
    """
    if not (np.diff(quantiles, axis=1) >= 0).all():
        raise DataError("A forecast's quantiles must be numbers and ascend with their level: sort them.")
    drawn = np.random.default_rng(seed).uniform(size=len(wait_s))
    crps, pit = np.empty(len(wait_s)), np.empty(len(wait_s))
    over_blocks(len(wait_s), lambda a, b: _forecasts(quantiles, wait_s, censored, horizon_s, drawn, crps, pit, a, b))
    low, high = quantiles[:, LOW], quantiles[:, HIGH]
    inside = ((wait_s >= low) & (wait_s <= high)).astype(np.float64)
    inside[censored & (wait_s <= high)] = np.nan
    return {"CRPS": crps / DAY_S, "PIT": pit, "coverage 80%": inside}


@numba.njit(cache=True, nogil=True)
def _forecasts(
    quantiles: NDArray[np.float64],
    wait_s: NDArray[np.float64],
    censored: NDArray[np.bool_],
    horizon_s: NDArray[np.float64],
    drawn: NDArray[np.float64],
    crps: NDArray[np.float64],
    pit: NDArray[np.float64],
    lo: int,
    hi: int,
) -> None:  # pragma: no cover
    """CRPS in seconds and PIT of questions [lo, hi): one pass over the linear pieces of F."""
    levels = quantiles.shape[1]
    for q in range(lo, hi):
        end = max(horizon_s[q], 0.0)
        wait = np.inf if censored[q] else wait_s[q]
        reached = wait_s[q]
        below, upto = 0.0, 0.0  # F just before and at the wait
        left, left_level, total = 0.0, 0.0, 0.0
        for n in range(levels + 2):
            if n < levels:
                right, right_level = quantiles[q, n], (n + 1) / (levels + 1)
            elif n == levels:
                right, right_level = 2 * quantiles[q, levels - 1], 1.0
            else:
                right, right_level = max(end, left), 1.0
            if right <= reached:
                upto = right_level
            elif left <= reached:
                upto = max(upto, left_level + (right_level - left_level) * (reached - left) / (right - left))
            if right < reached:
                below = right_level
            elif left < reached:
                below = left_level + (right_level - left_level) * (reached - left) / (right - left)
            if right > left:
                slope = (right_level - left_level) / (right - left)
                stop = min(right, end)
                middle = min(max(wait, left), stop)  # before it 1{t ≥ wait} is 0, after it 1
                at_middle = left_level + slope * (middle - left)
                if middle > left:
                    total += (middle - left) * _mean_square(left_level, at_middle)
                if stop > middle and stop > left:
                    total += (stop - middle) * _mean_square(at_middle - 1, left_level + slope * (stop - left) - 1)
            left, left_level = right, right_level
        crps[q] = total
        if censored[q]:
            below, upto = upto, 1.0
        pit[q] = below + drawn[q] * (upto - below)


@numba.njit(cache=True, nogil=True)
def _mean_square(a: float, b: float) -> float:  # pragma: no cover
    """The mean of the square of a line from a to b."""
    return (a * a + a * b + b * b) / 3
