"""Distributions of the gap between two events, on a grid of moments, and what of it is left after a silence.

Estimated by Kaplan and Meier (1958), so that each user's last, unfinished gap counts for what it is: longer than
observed. Between the grid's points the distribution is linear, at 0 it may jump (events of one basket), and beyond the
longest gap it goes on at the hazard of long gaps, so that somebody silent for longer than anybody before still gets an
answer.
"""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray

from desireline.evaluation.blocks import over_blocks
from desireline.evaluation.waiting import LEVELS

POINTS = 256  # spread evenly in log(1 + seconds): over twenty years, cells of 8 %
SPENT = 1e-4  # once fewer are left, the grid tells nothing more of them and the tail's hazard does
LONG = 0.1  # share of the gaps, the longest, that tells the hazard beyond all


def observed_gaps(
    time: NDArray[np.int64], offsets: NDArray[np.int64], end_us: int
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """From each event the seconds to the user's next one, or to the end of observation; True where none came."""
    last = np.zeros(len(time), bool)
    last[offsets[1:][np.diff(offsets) > 0] - 1] = True
    after = np.minimum(np.arange(1, len(time) + 1), max(0, len(time) - 1))
    gap = np.where(last, end_us - time, time[after] - time)
    return np.maximum(gap / 1e6, 0.0), last


def moments(gap_s: NDArray[np.float64]) -> NDArray[np.float64]:
    """Moments in seconds from 0 to the longest gap."""
    longest = max(float(gap_s.max(initial=1.0)), 1.0)
    points = np.expm1(np.linspace(0, np.log1p(longest), POINTS))
    points[-1] = longest  # exp and log do not quite cancel
    return points


def kaplan_meier(
    gap_s: NDArray[np.float64], censored: NDArray[np.bool_], points: NDArray[np.float64]
) -> NDArray[np.float64]:
    """P(gap ≤ point) at ascending points, from gaps of which some are censored; 0 without any gap."""
    if not len(gap_s):
        return np.zeros(len(points))
    order = np.lexsort((censored, gap_s))  # at equal times what came stands before what was cut off
    gap, came = gap_s[order], ~censored[order]
    at_risk = len(gap) - np.arange(len(gap))
    survival = np.append(1.0, np.cumprod(np.where(came, (at_risk - 1) / at_risk, 1.0)))
    return np.asarray(1 - survival[np.searchsorted(gap, points, side="right")], np.float64)


def tail_hazard(gap_s: NDArray[np.float64], censored: NDArray[np.bool_]) -> float:
    """Events a second among those who have waited longer than nine in ten: events over time waited since."""
    if not len(gap_s):
        return 1.0
    since = gap_s - np.quantile(gap_s, 1 - LONG)
    waited = float(since[since > 0].sum())
    came = int((~censored & (since > 0)).sum()) + 1
    return came / max(waited, 1.0)


def remaining(
    passed: NDArray[np.float64],
    row: NDArray[np.int64],
    points: NDArray[np.float64],
    hazard: float,
    elapsed_s: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Quantiles of gap − elapsed given that the gap is longer than elapsed: float64 [Q, LEVELS], seconds.

    passed [R, points] : P(gap ≤ point), question q has row `row[q]`;  hazard : beyond the last point, a second

    At the moment of the last event itself (elapsed 0) a gap of 0 may still come.
    """
    out = np.empty((len(elapsed_s), len(LEVELS)))
    over_blocks(len(out), lambda lo, hi: _remaining(passed, row, points, hazard, elapsed_s, out, lo, hi))
    return out


@numba.njit(cache=True, nogil=True)
def _remaining(
    passed: NDArray[np.float64],
    row: NDArray[np.int64],
    points: NDArray[np.float64],
    hazard: float,
    elapsed_s: NDArray[np.float64],
    out: NDArray[np.float64],
    lo: int,
    hi: int,
) -> None:  # pragma: no cover
    last = len(points) - 1
    for q in range(lo, hi):
        line, elapsed = passed[row[q]], elapsed_s[q]
        left = max(1 - line[last], SPENT)
        gone = 0.0
        if elapsed > 0:
            n = np.searchsorted(points, elapsed)
            if n <= last:
                share = (elapsed - points[n - 1]) / (points[n] - points[n - 1])
                gone = line[n - 1] + share * (line[n] - line[n - 1])
            if n > last or 1 - gone <= left:  # out on the tail, where the past does not matter
                for v in range(out.shape[1]):
                    out[q, v] = -np.log1p(-(v + 1) / (out.shape[1] + 1)) / hazard
                continue
        n = 0
        for v in range(out.shape[1]):
            level = gone + (v + 1) / (out.shape[1] + 1) * (1 - gone)
            while n <= last and line[n] < level:
                n += 1
            if n > last:
                moment = points[last] + np.log(max(left / (1 - level), 1.0)) / hazard
            elif n == 0:
                moment = points[0]
            else:
                moment = points[n - 1] + (level - line[n - 1]) / (line[n] - line[n - 1]) * (points[n] - points[n - 1])
            out[q, v] = max(moment - elapsed, 0.0)


def own_passed(
    time: NDArray[np.int64],
    offsets: NDArray[np.int64],
    points: NDArray[np.float64],
    prior: NDArray[np.float64],
    weight: float,
) -> NDArray[np.float64]:
    """float64 [Q, points]: each history's own gaps, leaning on `prior` [points] as if on `weight` further gaps."""
    out = np.empty((len(offsets) - 1, len(points)))
    over_blocks(len(out), lambda lo, hi: _own(time, offsets, points, prior, weight, out, lo, hi))
    return out


@numba.njit(cache=True, nogil=True)
def _own(
    time: NDArray[np.int64],
    offsets: NDArray[np.int64],
    points: NDArray[np.float64],
    prior: NDArray[np.float64],
    weight: float,
    out: NDArray[np.float64],
    lo: int,
    hi: int,
) -> None:  # pragma: no cover
    for q in range(lo, hi):
        out[q] = 0
        for n in range(offsets[q] + 1, offsets[q + 1]):
            at = np.searchsorted(points, (time[n] - time[n - 1]) / 1e6)
            if at < len(points):
                out[q, at] += 1
        count, total = max(offsets[q + 1] - offsets[q] - 1, 0), 0.0
        for p in range(len(points)):
            total += out[q, p]
            out[q, p] = (total + weight * prior[p]) / (count + weight)
