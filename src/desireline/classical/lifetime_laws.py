"""Laws of customers who buy at a rate of their own until, unseen, they leave for good.

All have rates λ ~ Gamma(r, α) between customers:

bg-nbd      after each repeat purchase one leaves with probability p ~ Beta(a, b) (Fader, Hardie & Lee 2005)
mbg-nbd     so too after the first purchase (Batislam, Denizel & Filiztekin 2007): who never came back may have left
pareto-nbd  one leaves at any time, with hazard μ ~ Gamma(s, β) (Schmittlein, Morrison & Colombo 1987)

All questions are answered from one fact: given that a customer of x repeats is still there at age T, the posterior is
again of the prior's form, and λ is independent of p or μ,

    λ ~ Gamma(r + x, α + T)    p ~ Beta(a, b + x), modified Beta(a, b + x + 1)    μ ~ Gamma(s, β + T)

A law has only to tell how likely that is, against having left, and what such a customer does next. Purchases that are
each the last one with probability p thin a Poisson process: under the geometric laws a customer leaves with hazard λp.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numba
import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh_tridiagonal
from scipy.special import betaln, exprel, gammaln

from desireline.classical.repeats import Repeats
from desireline.evaluation.blocks import over_blocks

NODES = 32  # of the quadrature over p: six digits and more for spans up to some twenty times α + T
TINY = 1e-12  # a probability below is held there, so that one may divide by it: every mean over p is flat so far down
EXACT = 36.0  # −log of the error at which a continued fraction ends
DEEPEST = 5_000  # its steps at most: exact to 1e-12 where one time is 100,000 times the other, to 1e-5 at a million
LEAST = 16_384  # rows of a block: a few milliseconds, against which a thread costs nothing


class Law(Protocol):
    """How customers buy and leave; `values` are the law's parameters in the order of `names`."""

    names: ClassVar[tuple[str, ...]]
    powers: ClassVar[tuple[int, ...]]  # 1 where a parameter is a time, 0 where it has no unit

    def starts(self, rate: float) -> list[list[float]]:
        """Parameters to begin the search at, for customers with so many repeats a unit of time and about as old."""

    def log_there(self, values: NDArray[np.float64], asked: Repeats) -> NDArray[np.float64]:
        """float64 [Q]: log density of the repeats and of being still there at the moment of asking."""

    def log_odds_gone(self, values: NDArray[np.float64], asked: Repeats) -> NDArray[np.float64]:
        """float64 [Q]: log of P(left before the moment of asking) / P(still there), given the repeats."""

    def purchases(self, values: NDArray[np.float64], asked: Repeats, horizon: float) -> NDArray[np.float64]:
        """float64 [Q]: expected purchases until the horizon of who is still there."""

    def buys(self, values: NDArray[np.float64], asked: Repeats, horizon: float, gap: float) -> NDArray[np.float64]:
        """float64 [Q]: P(a purchase in (gap, gap + horizon]) of who is still there."""


@dataclass(frozen=True)
class BetaGeometric:
    """BG/NBD and, with `at_start`, MBG/NBD, which lets one leave after the first purchase too."""

    names: ClassVar[tuple[str, ...]] = ("r", "alpha", "a", "b")
    powers: ClassVar[tuple[int, ...]] = (0, 1, 0, 0)
    at_start: bool

    def starts(self, rate: float) -> list[list[float]]:
        return [[r, r / rate, a, b] for r, a, b in [(0.5, 0.8, 2.0), (2.0, 0.3, 3.0), (0.2, 2.0, 10.0)]]

    def log_there(self, values: NDArray[np.float64], asked: Repeats) -> NDArray[np.float64]:
        _, _, a, b = values
        return _log_bought(values, asked) + betaln(a, self._stays(values, asked)) - betaln(a, b)

    def log_odds_gone(self, values: NDArray[np.float64], asked: Repeats) -> NDArray[np.float64]:
        """Fader, Hardie & Lee (2005), equation 6, and Batislam et al. (2007): left at the last purchase, or not."""
        r, alpha, a, _ = values
        more = (r + asked.frequency) * np.log((alpha + asked.age) / (alpha + asked.recency))
        could = (asked.frequency > 0) | self.at_start  # without a repeat nobody has left under BG/NBD
        last = np.where(could, self._stays(values, asked) - 1, 1.0)
        return np.asarray(np.where(could, np.log(a / last) + more, -np.inf), np.float64)

    def purchases(self, values: NDArray[np.float64], asked: Repeats, horizon: float) -> NDArray[np.float64]:
        """E[(1 − e^(−λp·horizon)) / p]: Fader, Hardie & Lee's (2005) equation 10 without its singularity at a = 1."""
        shape, rate = _posterior_rate(values, asked)
        z = horizon / rate

        def given(p: NDArray[np.float64]) -> NDArray[np.float64]:
            return np.asarray(-np.expm1(-shape * np.log1p(p * z)) / p, np.float64)

        return self._mean(values, asked, given)

    def buys(self, values: NDArray[np.float64], asked: Repeats, horizon: float, gap: float) -> NDArray[np.float64]:
        """E[e^(−λp·gap) (1 − e^(−λ·horizon))]: still there after the gap, and then not waiting beyond the horizon."""
        shape, rate = _posterior_rate(values, asked)
        waits = np.exp(-shape * np.log1p(horizon / rate))
        if gap == 0:
            return np.asarray(1 - waits, np.float64)
        now, then = gap / rate, gap / (rate + horizon)

        def given(p: NDArray[np.float64]) -> NDArray[np.float64]:
            return np.asarray(np.exp(-shape * np.log1p(p * now)) - waits * np.exp(-shape * np.log1p(p * then)))

        return self._mean(values, asked, given)

    def _stays(self, values: NDArray[np.float64], asked: Repeats) -> NDArray[np.float64]:
        """float64 [Q]: second parameter of p's posterior, b and the times at which one could have left but did not."""
        return asked.frequency + (values[3] + self.at_start)

    def _mean(
        self, values: NDArray[np.float64], asked: Repeats, given: Callable[[NDArray[np.float64]], NDArray[np.float64]]
    ) -> NDArray[np.float64]:
        """float64 [Q]: mean of `given(p)` over each customer's posterior, one node of the quadrature after another."""
        stays, own = np.unique(self._stays(values, asked), return_inverse=True)
        nodes, weights = beta_quadrature(values[2], stays)
        total = np.zeros(len(asked))
        for n in range(NODES):
            total += weights[own, n] * given(nodes[own, n])
        return total


class Pareto:
    """Pareto/NBD; formulas in the form of Fader & Hardie's (2005) note."""

    names: ClassVar[tuple[str, ...]] = ("r", "alpha", "s", "beta")
    powers: ClassVar[tuple[int, ...]] = (0, 1, 0, 1)

    def starts(self, rate: float) -> list[list[float]]:
        return [[r, r / rate, s, beta] for r, s, beta in [(0.5, 0.5, 0.5), (2.0, 1.0, 3.0), (0.2, 2.0, 1.0)]]

    def log_there(self, values: NDArray[np.float64], asked: Repeats) -> NDArray[np.float64]:
        _, _, s, beta = values
        return np.asarray(_log_bought(values, asked) - s * np.log1p(asked.age / beta), np.float64)

    def log_odds_gone(self, values: NDArray[np.float64], asked: Repeats) -> NDArray[np.float64]:
        """s ∫ from t_x to T of (α + y)^−(r + x) (β + y)^−(s + 1) dy, over its like of who is still there at T."""
        r, alpha, s, beta = values
        shape = r + asked.frequency
        since = log_tail(shape, s + 1, alpha + asked.recency, beta + asked.recency)
        later = log_tail(shape, s + 1, alpha + asked.age, beta + asked.age)
        with np.errstate(divide="ignore"):  # who bought on the day of asking has not left: log 0
            between = since + np.log(-np.expm1(np.minimum(later - since, 0)))
        return np.asarray(np.log(s) + between + shape * np.log(alpha + asked.age) + s * np.log(beta + asked.age))

    def purchases(self, values: NDArray[np.float64], asked: Repeats, horizon: float) -> NDArray[np.float64]:
        """Fader & Hardie (2005), equation 41, written so that s = 1 is a value like any other."""
        shape, rate = _posterior_rate(values, asked)
        _, _, s, beta = values
        longer = np.log1p(horizon / (beta + asked.age))
        return np.asarray(shape / rate * (beta + asked.age) * longer * exprel((1 - s) * longer), np.float64)

    def buys(self, values: NDArray[np.float64], asked: Repeats, horizon: float, gap: float) -> NDArray[np.float64]:
        """E[e^(−μ·gap) λ/(λ + μ) (1 − e^(−(λ + μ)·horizon))]: the first purchase after the gap comes before the end.

        With the gammas integrated out, an integral over the time y from the gap to that purchase:
        (r + x) (α + T)^(r + x) (β + T)^s ∫ from 0 to the horizon of (α + T + y)^−(r + x + 1) (β + T + gap + y)^−s dy.
        """
        shape, rate = _posterior_rate(values, asked)
        _, _, s, beta = values
        there = beta + asked.age
        whole = np.log(shape) + shape * np.log(rate) + s * np.log(there)
        ever = whole + log_tail(shape + 1, s, rate, there + gap)
        late = whole + log_tail(shape + 1, s, rate + horizon, there + gap + horizon)
        return np.asarray(np.exp(ever) - np.exp(late), np.float64)


LAWS: dict[str, Law] = {
    "bg-nbd": BetaGeometric(at_start=False),
    "mbg-nbd": BetaGeometric(at_start=True),
    "pareto-nbd": Pareto(),
}


def log_likelihood(law: Law, values: NDArray[np.float64], asked: Repeats) -> NDArray[np.float64]:
    """float64 [Q]: log density of each customer's repeats, still there or not."""
    return np.asarray(law.log_there(values, asked) + np.logaddexp(0, law.log_odds_gone(values, asked)), np.float64)


def beta_quadrature(
    a: float, b: NDArray[np.float64], nodes: int = NODES
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Gauss's quadrature of the laws Beta(a, b[n]): points and weights, float64 [N, nodes] each, weights of sum 1.

    Exact for polynomials of degree below 2 · nodes. From the eigenvalues of the Jacobi matrix (Golub & Welsch 1969) of
    the polynomials orthogonal to (1 − u)^(b − 1) (1 + u)^(a − 1), and u = 2p − 1. Unlike a hypergeometric series it
    neither overflows nor cancels, whatever a, b and the number of repeats.
    """
    n = np.arange(nodes, dtype=np.float64)
    left, right = a - 1, b[:, None] - 1
    both = left + right
    middle = np.empty((len(b), nodes))
    middle[:, :1] = (left - right) / (both + 2)
    middle[:, 1:] = (left**2 - right**2) / ((2 * n[1:] + both) * (2 * n[1:] + both + 2))
    beside = np.empty((len(b), nodes - 1))
    beside[:, :1] = 4 * (1 + left) * (1 + right) / ((2 + both) ** 2 * (3 + both))
    k = n[2:]
    beside[:, 1:] = 4 * k * (k + left) * (k + right) * (k + both) / ((2 * k + both) ** 2 * ((2 * k + both) ** 2 - 1))
    points, weights = np.empty((len(b), nodes)), np.empty((len(b), nodes))
    for row in range(len(b)):  # QL steps of a tenth of a millisecond, where a dense eigh waits for its threads
        points[row], vectors = eigh_tridiagonal(middle[row], np.sqrt(beside[row]), lapack_driver="stev")
        weights[row] = vectors[0] ** 2
    return np.clip((1 + points) / 2, TINY, 1), weights


def _posterior_rate(values: NDArray[np.float64], asked: Repeats) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Shape and rate of λ's gamma law, of who is still there: float64 [Q] each."""
    return values[0] + asked.frequency, values[1] + asked.age


def _log_bought(values: NDArray[np.float64], asked: Repeats) -> NDArray[np.float64]:
    """float64 [Q]: log density of x purchases when they were and none more until T, by who did not leave."""
    r, alpha, _, _ = values
    shape, rate = _posterior_rate(values, asked)
    return np.asarray(gammaln(shape) - gammaln(r) + r * np.log(alpha) - shape * np.log(rate), np.float64)


def log_tail(
    p: NDArray[np.float64], q: NDArray[np.float64] | float, c: NDArray[np.float64], d: NDArray[np.float64]
) -> NDArray[np.float64]:
    """float64 [Q]: log of ∫ from 0 to ∞ of (c + y)^−p (d + y)^−q dy.

    Fader & Hardie's (2005) A_0 after Euler's transformation of its hypergeometric function. What is left of that stays
    between 1 and max(c, d) / min(c, d), where theirs overflows for customers of many repeats.
    """
    small, large = np.minimum(c, d), np.maximum(c, d)
    of_large = np.where(c >= d, p, q)
    of_small = p + q - of_large
    series = np.empty(len(p))
    ratio, both = small / large, p + q
    over_blocks(len(p), lambda lo, hi: _gauss(of_large, both, ratio, series, lo, hi), least=LEAST)
    return np.asarray(
        np.log(series / (both - 1)) - of_large * np.log(large) + (1 - of_small) * np.log(small), np.float64
    )


@numba.njit(cache=True, nogil=True)
def _gauss(
    b: NDArray[np.float64],
    c: NDArray[np.float64],
    ratio: NDArray[np.float64],
    out: NDArray[np.float64],
    lo: int,
    hi: int,
) -> None:  # pragma: no cover
    """The hypergeometric function of 1, b; c and z = 1 − ratio, by Gauss's continued fraction from its end.

    For c > b > 0 the fraction's parts all have one sign, so that nothing cancels; SciPy's series yields nan or worse
    where c is some hundred. Far down, a step of the fraction brings the error down by (1 − √(1 − z)) / (1 + √(1 − z)).
    """
    for q in range(lo, hi):
        z, root = 1 - ratio[q], np.sqrt(max(ratio[q], 1e-20))
        steps = 4
        if root < 1:
            steps += int(min(EXACT / np.log((1 + root) / (1 - root)), DEEPEST))
        part = (1 + root) / 2  # to which it tends
        for n in range(steps, 0, -1):
            k = n // 2
            if n % 2 == 1:
                over = (b[q] + k) * (c[q] - 1 + k)
                under = (c[q] + 2 * k - 1) * (c[q] + 2 * k)
            else:
                over = k * (c[q] - b[q] - 1 + k)
                under = (c[q] + 2 * k - 2) * (c[q] + 2 * k - 1)
            part = 1 - z * over / (under * part)
        out[q] = 1 / part
