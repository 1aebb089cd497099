"""The loops over events of the surprise of items and waits: each row of scores, each mixture is read once.

A row of scores gives its sums in blocks that stay in the cache. The
functions write rows [lo, hi) of `out` and are called side by side by `evaluation.blocks.over_blocks`.
"""

from __future__ import annotations

import math

import numba
import numpy as np
from numpy.typing import NDArray

from desireline.encoders.bits import raised

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]

BLOCK = 2_048  # scores that stay in the cache
NODES, SHARES = (a.astype(np.float64) for a in np.polynomial.hermite.hermgauss(16))  # of ∫ exp(−x²) f(x) dx
LEAST_SURVIVAL = 1e-300


@numba.njit(cache=True, nogil=True, fastmath=True)
def _sums(
    row: Floats, raised_row: Floats, weight: Floats, own: np.float32
) -> tuple[np.float32, np.float32, np.float32]:  # pragma: no cover
    """Σ w·e, Σ w·e·s and Σ w·e over the s below `own`, for scores s and their exponentials e."""
    total, moment, below = np.float32(0), np.float32(0), np.float32(0)
    for n in range(len(row)):
        share = weight[n] * raised_row[n]
        total += share
        moment += share * row[n]
        below += share if row[n] < own else np.float32(0)
    return total, moment, below


@numba.njit(cache=True, nogil=True, fastmath=True)
def _highest(row: Floats, start: np.float32) -> np.float32:  # pragma: no cover
    for n in range(len(row)):
        start = max(start, row[n])
    return start


@numba.njit(cache=True, nogil=True)
def item_rows(
    scores: Floats,
    own: Floats,
    place: Ints,
    drawn: NDArray[np.float64],
    weight: Floats,
    out: Floats,
    lo: int,
    hi: int,
) -> None:  # pragma: no cover
    """Surprise, expected surprise and p-value [T, 3] of rows [lo, hi) from scores [T, K]; the target's own is apart."""
    held = np.empty(BLOCK, np.float32)
    for t in range(lo, hi):
        row, mine = scores[t], own[t]
        top = _highest(row, mine)
        itself = math.exp(mine - top)
        total, moment, below = float(itself), float(itself * mine), 0.0
        for first in range(0, len(row), BLOCK):
            part = row[first : first + BLOCK]
            some = held[: len(part)]
            some[:] = part
            raised(some, top)
            if place[t] >= first and place[t] < first + len(part):
                some[place[t] - first] = np.float32(0)
            more = _sums(part, some, weight[first : first + len(part)], mine)
            total += float(more[0])
            moment += float(more[1])
            below += float(more[2])
        log_total = math.log(total) + top
        out[t, 0] = log_total - mine
        out[t, 1] = log_total - moment / total
        out[t, 2] = min(1.0, (below + drawn[t] * itself) / total)


@numba.njit(cache=True, nogil=True)
def _survival(parts: NDArray[np.float64], seconds: float, centre: float, scale: float) -> float:  # pragma: no cover
    """Probability that a later gap exceeds so many seconds under a mixture [3, parts]; never 0."""
    y, total = (math.log1p(max(seconds, 0.0)) - centre) / scale, 0.0
    for k in range(parts.shape[1]):
        z = (y - parts[1, k]) * math.exp(-parts[2, k])
        total += math.exp(parts[0, k]) * 0.5 * math.erfc(z * math.sqrt(0.5))
    return max(total, LEAST_SURVIVAL)


@numba.njit(cache=True, nogil=True)
def _spread(of: NDArray[np.float64], powers: Floats) -> float:  # pragma: no cover
    """Mean of −log Σ_j π_j / s_j · exp(−z_j² / 2) under the mixture, by Gauss and Hermite's rule for each part."""
    count, nodes, n = of.shape[1], len(NODES), 0
    for k in range(count):
        deviation = math.exp(of[2, k]) * math.sqrt(2.0)
        for q in range(nodes):
            y = of[1, k] + deviation * NODES[q]
            for j in range(count):
                z = (y - of[1, j]) * math.exp(-of[2, j])
                powers[n] = of[0, j] - of[2, j] - 0.5 * z * z
                n += 1
    raised(powers, np.float32(0))
    total, n = 0.0, 0
    for k in range(count):
        inner = 0.0
        for q in range(nodes):
            density = np.float32(0)
            for _ in range(count):
                density += powers[n]
                n += 1
            inner -= SHARES[q] * math.log(density)
        total += math.exp(of[0, k]) * inner
    return total / math.sqrt(math.pi)


@numba.njit(cache=True, nogil=True)
def wait_rows(
    parts: NDArray[np.float64],
    row: Ints,
    gap_s: NDArray[np.float64],
    known_s: NDArray[np.float64],
    half_s: float,
    drawn: NDArray[np.float64],
    centre: float,
    scale: float,
    out: Floats,
    lo: int,
    hi: int,
) -> None:  # pragma: no cover
    """nats, expected, p and spacing [T, 4] of the waits [lo, hi), whose forecasts are the rows `row` of `parts`."""
    count = parts.shape[2]
    powers = np.empty(count * len(NODES) * count, np.float32)
    constant = 0.5 * math.log(2 * math.pi) + math.log(scale)
    for t in range(lo, hi):
        of = parts[row[t]]
        y, density = (math.log1p(gap_s[t]) - centre) / scale, 0.0
        for k in range(count):
            z = (y - of[1, k]) * math.exp(-of[2, k])
            density += math.exp(of[0, k] - of[2, k] - 0.5 * z * z)
        before = _survival(of, max(gap_s[t] - half_s, known_s[t]), centre, scale)
        upto = before if half_s == 0 else _survival(of, gap_s[t] + half_s, centre, scale)
        left = upto + (1 - drawn[t]) * (before - upto)
        share = left / _survival(of, known_s[t], centre, scale)
        if known_s[t] > 0:
            out[t, 0], out[t, 1] = np.nan, np.nan  # a cut forecast's entropy is not known
        else:
            out[t, 0] = constant - math.log(max(density, LEAST_SURVIVAL))
            out[t, 1] = constant + _spread(of, powers)
        out[t, 2] = min(1.0, max(0.0, 1 - share))
        out[t, 3] = max(0.0, -math.log(max(share, LEAST_SURVIVAL)))


@numba.njit(cache=True, nogil=True)
def silences(
    parts: NDArray[np.float64],
    row: Ints,
    known_s: NDArray[np.float64],
    silent_s: NDArray[np.float64],
    centre: float,
    scale: float,
    out: Floats,
) -> None:  # pragma: no cover
    for t in range(len(row)):
        of = parts[row[t]]
        left = _survival(of, silent_s[t], centre, scale) / _survival(of, known_s[t], centre, scale)
        out[t] = max(0.0, -math.log(max(left, LEAST_SURVIVAL)))
