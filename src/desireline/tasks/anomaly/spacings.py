"""Whether an account's events come too evenly or too much in bursts for their forecast: the 3S statistic.

Under a right forecast the spacings of events on the forecast's own clock (−log of the share of the wait that was still
to come) are drawn from Exp(1), whatever the history. 3S (Shchur et al. 2021, "Detecting anomalous event sequences with
temporal point processes", NeurIPS, section 4) is ψ = (1/V) Σ w² over the spacings w that fill the observed length V,
the last of them cut off by the end of observation: near 2 for a right forecast, half of that for a clock, large for
bursts.

The paper draws the number of events with the spacings, so that ψ answers to too many events as well. Here the number of
spacings and V are taken as given: a forecast whose level is wrong by a factor, as every learnt one is for some
accounts, would show as irregular and the more so the longer the account is; and who has no event in a window is not
looked at. Given both, the spacings over V are Dirichlet(1, …, 1) and ψ / V is Greenwood's statistic, however the last
spacing ended. That events are too many is a measure of its own.

Cost: the reference is drawn once a process, in about a second; afterwards a few passes over the spacings.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

DRAWS = 40_000  # of each size
SIZES = np.unique(np.round(2 ** np.arange(1.0, 10.01, 0.5)).astype(np.int64))  # 2 … 1024
SCORES = np.linspace(-3, 3, 25)  # normal scores at which a reference is kept
MOST_AT_ONCE = 1 << 22  # numbers drawn together


@dataclass(frozen=True)
class Reference:
    """How a statistic is distributed under chance, by the size of its sample.

    sizes : int64 [S], ascending;  quantiles : float64 [S, SCORES], ascending in each row
    """

    sizes: Ints
    quantiles: Floats

    @staticmethod
    def drawn(draw: Callable[[np.random.Generator, int, int], Floats], sizes: Ints) -> Reference:
        """From draw(rng, draws, size), float64 [draws]: the same draws whoever asks."""
        rows = []
        for size in sizes.tolist():
            rng, at_once = np.random.default_rng(size), max(1, MOST_AT_ONCE // size)
            parts = [draw(rng, min(at_once, DRAWS - lo), size) for lo in range(0, DRAWS, at_once)]
            rows.append(np.quantile(np.concatenate(parts), ndtr(SCORES)))
        return Reference(sizes, np.array(rows))

    def scores(self, value: Floats, size: Ints) -> Floats:
        """Normal scores [A] of values [A] in samples of `size` [A]: standard normal under chance.

        Between two sizes by the logarithm of the size. Above ±3 a score follows the line of the last step: it ranks, as
        a probability it is a guess. Below the smallest size: nan.
        """
        high = np.clip(np.searchsorted(self.sizes, size), 1, len(self.sizes) - 1)
        logs = np.log(self.sizes)
        share = np.clip((np.log(np.maximum(size, 1)) - logs[high - 1]) / (logs[high] - logs[high - 1]), 0, 1)
        found = np.full(len(value), np.nan)
        for upper in np.unique(high).tolist():
            rows = np.flatnonzero(high == upper)
            low, top = (_read(self.quantiles[place], value[rows]) for place in (upper - 1, upper))
            found[rows] = low + share[rows] * (top - low)
        found[size < self.sizes[0]] = np.nan
        return found


def _read(quantiles: Floats, value: Floats) -> Floats:
    """Normal scores of values by one row of quantiles, its ends drawn on as straight lines."""
    place = np.clip(np.searchsorted(quantiles, value), 1, len(quantiles) - 1)
    left, right = quantiles[place - 1], quantiles[place]
    step = SCORES[1] - SCORES[0]
    return np.asarray(SCORES[place - 1] + step * (value - left) / np.maximum(right - left, 1e-12))


@dataclass(frozen=True)
class Spacings:
    """The test of A accounts, float64 [A] each, nan where there are fewer than two spacings.

    statistic : ψ of the paper, about 2 where the model is right
    z : standard normal where the model is right; negative: too even, positive: in bursts
    p : of the two sides together
    """

    statistic: Floats
    z: Floats
    p: Floats


def squared_spacings(spacing: Floats, offsets: Ints) -> Spacings:
    """The 3S test of accounts whose spacings, the cut-off last one too, are spacing[offsets[a] : offsets[a + 1]].

    >>> even = squared_spacings(np.full(30, 0.7), np.array([0, 30]))
    >>> bool(even.z[0] < -3), round(float(even.statistic[0]), 2)
    (True, 0.7)
    """
    account, count = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets)), np.diff(offsets)
    length = np.bincount(account, spacing, len(count))
    squares = np.bincount(account, spacing * spacing, len(count))
    known = (count >= 2) & (length > 0)
    whole = np.where(known, length, 1.0)
    # about 0 in the mean and of about the same spread at every size
    value = np.sqrt(count) * np.log(np.maximum(squares, 1e-300) / whole**2 * (count + 1) / 2)
    z = np.where(known, even_reference().scores(value, count.astype(np.int64)), np.nan)
    return Spacings(np.where(known, squares / whole, np.nan), z, 2 * ndtr(-np.abs(z)))


@cache
def even_reference() -> Reference:
    """√m log(Σ D² (m + 1) / 2) for m shares D of a whole that chance cuts up."""

    def draw(rng: np.random.Generator, draws: int, size: int) -> Floats:
        shares = rng.standard_exponential((draws, size))
        greenwood = (shares * shares).sum(1) / shares.sum(1) ** 2
        return np.asarray(np.sqrt(size) * np.log(greenwood * (size + 1) / 2))

    return Reference.drawn(draw, SIZES)


@cache
def change_reference() -> Reference:
    """The logarithm of max |S_t − (t / m) S_m| / √m over t for sums S of m standard normal numbers."""

    def draw(rng: np.random.Generator, draws: int, size: int) -> Floats:
        sums = rng.standard_normal((draws, size)).cumsum(1)
        bridge = sums - np.arange(1, size + 1) / size * sums[:, -1:]
        return np.asarray(np.log(np.abs(bridge).max(1) / np.sqrt(size)))

    return Reference.drawn(draw, SIZES)


def changes(value: Floats, offsets: Ints) -> tuple[Floats, Ints]:
    """Whether the level of an account's values moves within its sequence, a CUSUM that ends where it began.

    value : float64 [O], of variance 1;  offsets : int64 [A + 1]

    Returns z [A], signed as the move (positive: higher afterwards), whose absolute value is that of a standard normal
    number where nothing moves, and at [A], how many values come before the move; nan and 0 below two values.
    """
    count = np.diff(offsets)
    z, at = np.full(len(count), np.nan), np.zeros(len(count), np.int64)
    some = np.flatnonzero(count >= 2)
    if not len(some):
        return z, at
    account = np.repeat(np.arange(len(count)), count)
    sums = np.concatenate([[0.0], np.cumsum(value)])
    number = np.arange(1, len(value) + 1) - offsets[account]
    whole = (sums[offsets[1:]] - sums[offsets[:-1]])[account]
    bridge = sums[1:] - sums[offsets[:-1]][account] - number / np.maximum(count[account], 1) * whole
    order = np.lexsort((np.abs(bridge), account))
    top = order[offsets[1:][some] - 1]  # the account's largest
    size = count[some].astype(np.int64)
    against = np.log(np.maximum(np.abs(bridge[top]), 1e-300) / np.sqrt(size))
    one_sided = change_reference().scores(against, size)
    z[some] = -np.sign(bridge[top]) * -ndtri(ndtr(-one_sided) / 2)
    at[some] = number[top]
    return z, at
