"""What the surprises of an account's events say about the account, in numbers that do not grow with its length.

The lines of one moment are one occasion: their numbers are averaged first, and what an occasion's mean scatters by,
a + b / lines, is read off the accounts themselves. A mean over n occasions scatters by σ / √n where the model is right.
It never is: accounts differ for good, by τ, and a mean divided by σ / √n alone would grow with √n · τ and find the
busy. So each is set against √(τ² + σ² / n), with the centre and τ of all accounts, those far off held at FAR standard
errors so that some false accounts do not move them (the random-effects funnel of Spiegelhalter 2005, "Handling
over-dispersion of performance indicators").

Assumed is that τ is the same whatever the length, and that an occasion's surprise does not depend on the one before
beyond what the model saw. It cannot hold for three kinds, which are to be compared among accounts of like activity:
`_expected` are means in nats and fall as the model gets to know an account; `wait_pace` answers to the number of events
itself; `_unlikely`, and `_excess` of types that hardly vary, are near 0 for whoever had one or two occasions, where
hardly anything rare can have come.

Cost: some passes over the scored events; about a microsecond an event.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.special import ndtri

from desireline.core.errors import SettingError
from desireline.tasks.anomaly.fact import Fact
from desireline.tasks.anomaly.spacings import changes, squared_spacings
from desireline.tasks.anomaly.surprise import HEADS, Surprises

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

UNLIKELY = 0.01
LEAST_ACCOUNTS = 20  # with fewer there is nothing to compare with: the model's word counts, τ is 0
LEAST_TO_CHANGE = 4  # occasions within which a change can be seen
FAR = 2.5  # standard errors; an account further off counts as one there when all are measured
WITHIN = 0.9776  # mean of min(z², FAR²) for a standard normal z
LEAST_MEAN = 1e-6  # events foretold
NARROW = 1e-7  # a p-value is kept within this of 0 and 1: float32 holds no more
SAID = {"type": "what it does next", "item": "which items it takes", "wait": "when it comes"}
PERSON = "a person's own rhythm: other days of the week, breaks at night"
MOVED = "the customer says so: moved, a gift, a new interest; the same device and address as before"


def _facts() -> dict[str, Fact]:
    facts = {}
    for head, said in SAID.items():
        facts[f"{head}_excess"] = Fact(
            ("takeover", "bot"),
            "both",
            f"{said} surprises the model by {{value}} standard errors more than that of other accounts",
            "ratio",
            "a special occasion, as a season's gifts or a move, that others nearby show as well",
        )
        facts[f"{head}_expected"] = Fact(
            ("bot",),
            "low",
            f"{said} is open by only {{value}} nats to who knows its past",
            "nats",
            PERSON if head == "wait" else "a standing order or a narrow need, as one product bought again and again",
        )
        facts[f"{head}_change"] = Fact(
            ("takeover",),
            "both",
            f"{said} changes its nature inside the window, by {{value}} standard errors",
            "ratio",
            MOVED,
        )
        facts[f"{head}_shift"] = Fact(
            ("takeover",),
            "high",
            f"{said} surprises {{value}} standard errors more than it did before the window",
            "ratio",
            MOVED,
        )
    for head in ("type", "item"):
        facts[f"{head}_likelihood"] = Fact(
            ("takeover", "bot"),
            "both",
            f"{SAID[head]} is likelier than that of other accounts by {{value}} standard errors",
            "ratio",
            "a wide or a narrow taste that the account always had",
        )
        facts[f"{head}_unlikely"] = Fact(
            ("takeover", "brushing"),
            "high",
            f"{SAID[head]} is among the model's least likely 1 % oftener than elsewhere, by {{value}} standard errors",
            "ratio",
            "the items are new, on offer or advertised, so that many came to them from nowhere",
        )
    facts["wait_pace"] = Fact(
        ("bot", "brushing", "takeover"),
        "both",
        "it comes more often than its past foretells by {value} standard errors",
        "ratio",
        "a sale or a season that others answer to as well",
    )
    facts["wait_rhythm"] = Fact(
        ("bot", "brushing"),
        "both",
        "its events are spaced by {value} standard errors away from chance: below 0 like a clock, above 0 in bursts",
        "ratio",
        PERSON,
    )
    return facts


FACTS: dict[str, Fact] = _facts()


@dataclass(frozen=True)
class Occasions:
    """One head's numbers by occasion, in the order of the log.

    user, place : int64 [O], row of the account, place of the occasion's first scored event
    inside : bool [O], in the judged window;  lines : float64 [O], events that count
    excess, expected, score : float64 [O], means over the lines; `score` of −Φ⁻¹(p), above 0: unlikely, of a wait: soon
    least : float64 [O], the smallest p-value of the lines, allowed for their number: uniform where the model is right
    """

    user: Ints
    place: Ints
    inside: NDArray[np.bool_]
    lines: Floats
    excess: Floats
    expected: Floats
    score: Floats
    least: Floats

    def part(self, rows: NDArray[np.bool_]) -> Occasions:
        """Some of them."""
        return Occasions(**{name: array[rows] for name, array in vars(self).items()})


def occasions_of(surprises: Surprises, head: str) -> Occasions:
    """The occasions about which a head says something."""
    of, time = surprises.heads[head], surprises.sequences["time"]
    place = np.flatnonzero(np.isfinite(of.p))
    user = np.searchsorted(surprises.sequences.offsets, place, side="right") - 1
    moment = np.asarray(time[place])
    new = np.ones(len(place), bool)
    new[1:] = (user[1:] != user[:-1]) | (moment[1:] != moment[:-1])
    first = np.flatnonzero(new)
    lines = np.diff(np.append(first, len(place))).astype(np.float64)
    p = np.clip(of.p[place].astype(np.float64), NARROW, 1 - NARROW)

    def mean(value: Floats) -> Floats:
        return np.add.reduceat(value, first) / lines if len(first) else value

    lowest = np.minimum.reduceat(p, first) if len(first) else p
    return Occasions(
        user[first],
        place[first],
        moment[first] >= surprises.begin_us,
        lines,
        mean(of.excess[place].astype(np.float64)),
        mean(of.expected[place].astype(np.float64)),
        mean(-ndtri(p)),
        -np.expm1(lines * np.log1p(-lowest)),
    )


def scatter(user: Ints, value: Floats, lines: Floats) -> Floats:
    """float64 [O]: variance of each occasion's value within its account, a + b / lines.

    By least squares over accounts with two occasions or more, each square at most 25 times their mean.
    """
    _, row = np.unique(user, return_inverse=True)
    count = np.bincount(row)
    own = (np.bincount(row, value) / np.maximum(count, 1))[row]
    several = count[row] > 1
    square = np.where(several, (value - own) ** 2 * count[row] / np.maximum(count[row] - 1, 1), 0.0)[several]
    if len(square) < 2:
        return np.ones(len(value))
    square = np.minimum(square, 25 * square.mean())
    inverse = 1 / lines[several]
    mean, spread = square.mean(), ((inverse - inverse.mean()) ** 2).sum()
    slope = ((inverse - inverse.mean()) * square).sum() / spread if spread > 0 else 0.0
    slope = min(max(slope, 0.0), mean / inverse.mean())  # neither part below 0
    return np.maximum(mean - slope * inverse.mean() + slope / lines, 1e-12)


def against_others(value: Floats, variance: Floats, wide: Floats | float = 1.0) -> Floats:
    """How many standard errors each account's value [A] lies from those of all: see the module.

    wide : what τ² counts times in the variance of each account
    """
    if len(value) < LEAST_ACCOUNTS:
        return np.asarray(value / np.sqrt(variance))
    between, centre = 0.0, float(np.median(value))
    for _ in range(10):
        error = np.sqrt(variance + between * wide)
        near = np.clip((value - centre) / error, -FAR, FAR)
        centre += float((near / error).sum() / (1 / error**2).sum())
        between = _between(np.square(value - centre), variance, wide)
    return np.asarray((value - centre) / np.sqrt(variance + between * wide))


def _between(square: Floats, variance: Floats, wide: Floats | float) -> float:
    """τ² at which squared distances [A] from the centre are in the mean those of a normal distribution."""

    def is_too_narrow(between: float) -> bool:
        return bool(np.minimum(square / (variance + between * wide), FAR**2).mean() > WITHIN)

    if not is_too_narrow(0.0):
        return 0.0
    low, high = 0.0, float((square / wide).max()) / WITHIN
    for _ in range(40):
        between = (low + high) / 2
        low, high = (between, high) if is_too_narrow(between) else (low, between)
    return high


def surprise_facts(surprises: Surprises) -> pl.DataFrame:
    """One row an account with an event in the judged window: `user` and the columns of FACTS, null: not defined."""
    inside = np.asarray(surprises.sequences["time"]) >= surprises.begin_us
    several = np.concatenate([[0], np.cumsum(inside)])[surprises.sequences.offsets]
    judged = np.diff(several) > 0
    found = {name: np.full(len(judged), np.nan) for name in FACTS}
    for head in HEADS:
        every = occasions_of(surprises, head)
        now = every.part(every.inside)
        if len(now.user) == 0:
            continue
        rows, mean, variance = _means(now.user, now.excess, now.lines)
        found[f"{head}_excess"][rows] = against_others(mean, variance)
        rows, mean, _ = _means(now.user, now.expected, now.lines)
        found[f"{head}_expected"][rows] = mean
        rows, z = _changed(now)
        found[f"{head}_change"][rows] = z
        rows, z = _shifted(every)
        found[f"{head}_shift"][rows] = z
        if head != "wait":
            rows, mean, variance = _means(now.user, now.score, now.lines)
            found[f"{head}_likelihood"][rows] = -against_others(mean, variance)
            rows, z = _unlikely(now)
            found[f"{head}_unlikely"][rows] = z
    rows, pace, rhythm = _spaced(surprises)
    found["wait_pace"][rows], found["wait_rhythm"][rows] = pace, rhythm
    columns = {name: pl.Series(name, value[judged]).fill_nan(None) for name, value in found.items()}
    return pl.DataFrame({"user": surprises.sequences.users.filter(pl.Series(judged)), **columns})


def _means(user: Ints, value: Floats, lines: Floats) -> tuple[Ints, Floats, Floats]:
    """Accounts with a known value, the mean over their occasions, and its variance."""
    known = np.isfinite(value)
    user, value, lines = user[known], value[known], lines[known]
    rows, row = np.unique(user, return_inverse=True)
    count = np.bincount(row, minlength=len(rows))
    variance = np.bincount(row, scatter(user, value, lines), len(rows)) / np.maximum(count, 1) ** 2
    return rows, np.bincount(row, value, len(rows)) / np.maximum(count, 1), variance


def _sequence(of: Occasions) -> tuple[Ints, Ints, Floats]:
    """Accounts [A], offsets [A + 1] of their occasions, and the scores [O] at variance 1 within an account."""
    rows, first = np.unique(of.user, return_index=True)
    return rows, np.append(first, len(of.user)), of.score / np.sqrt(scatter(of.user, of.score, of.lines))


def _changed(of: Occasions) -> tuple[Ints, Floats]:
    rows, offsets, score = _sequence(of)
    z, _ = changes(score, offsets)
    z[np.diff(offsets) < LEAST_TO_CHANGE] = np.nan
    return rows, z


def _shifted(every: Occasions) -> tuple[Ints, Floats]:
    now, past = (_means(of.user, of.excess, of.lines) for of in (every.part(every.inside), every.part(~every.inside)))
    rows, here, there = np.intersect1d(now[0], past[0], return_indices=True)
    if not len(rows):
        return rows, np.empty(0)
    return rows, against_others(now[1][here] - past[1][there], now[2][here] + past[2][there])


def _unlikely(of: Occasions) -> tuple[Ints, Floats]:
    """Normal score of the number of unlikely occasions, by their share in the log and what accounts differ by."""
    from scipy.stats import binom

    rows, row = np.unique(of.user, return_inverse=True)
    count = np.bincount(row).astype(np.float64)
    times = np.bincount(row, of.least <= UNLIKELY)
    share = times.sum() / count.sum()
    if share in (0.0, 1.0):
        return rows, np.full(len(rows), np.nan)
    half = binom.pmf(times, count, share) / 2
    z = _middle_scores(binom.cdf(times - 1, count, share) + half, binom.sf(times, count, share) + half)
    # intraclass correlation ρ by moments: the variance of the number is n q (1 − q) (1 + (n − 1) ρ)
    plain = share * (1 - share)
    square = np.minimum((times - count * share) ** 2, 25 * count * plain)
    pairs = (count * (count - 1)).sum() * plain
    alike = max(0.0, (square - count * plain).sum() / pairs) if pairs > 0 else 0.0
    return rows, z / np.sqrt(1 + (count - 1) * alike)


def _spaced(surprises: Surprises) -> tuple[Ints, Floats, Floats]:
    """Pace and rhythm of the accounts with a wait that ended in the window."""
    inside = np.asarray(surprises.sequences["time"]) >= surprises.begin_us
    place = np.flatnonzero(np.isfinite(surprises.spacing) & inside)
    user = np.searchsorted(surprises.sequences.offsets, place, side="right") - 1
    rows = np.unique(user)
    if not len(rows):
        return rows, np.empty(0), np.empty(0)
    silent = rows[np.isfinite(surprises.open[rows])]
    order = np.argsort(np.concatenate([user, silent]), kind="stable")  # each account's silence after its waits
    spacing = np.concatenate([surprises.spacing[place], surprises.open[silent]]).astype(np.float64)[order]
    account = np.concatenate([user, silent])[order]
    offsets = np.append(np.searchsorted(account, rows), len(account))
    came = np.bincount(np.searchsorted(rows, user), minlength=len(rows))
    foretold = np.add.reduceat(spacing, offsets[:-1])
    return rows, _pace(came.astype(np.float64), foretold), squared_spacings(spacing, offsets).z


def _pace(came: Floats, foretold: Floats) -> Floats:
    """Normal scores of counts [A], 1 or more, that a right forecast draws from Poisson(foretold).

    An account without an event is not asked, so Poisson's law without 0 counts. The forecast's level is moved until
    counts are in the mean what it says, and what accounts differ by widens a score by 1 + τ² · foretold.
    """
    mean = foretold
    if len(came) >= LEAST_ACCOUNTS:
        low, high = -5.0, 5.0
        for _ in range(30):
            middle = (low + high) / 2
            mean = np.maximum(np.exp(middle) * foretold, LEAST_MEAN)
            ratio = np.minimum(came / (mean / -np.expm1(-mean)), FAR**2).mean()
            low, high = (middle, high) if ratio > 1 else (low, middle)
    return against_others(_counted(came, mean), np.ones(len(came)), mean)


def _counted(came: Floats, mean: Floats) -> Floats:
    """Normal scores, in the middle of each count's jump, of counts by Poisson's law without 0."""
    from scipy.stats import poisson

    mean = np.maximum(mean, LEAST_MEAN)
    some = -np.expm1(-mean)
    half = poisson.pmf(came, mean) / 2
    above = (poisson.sf(came, mean) + half) / some
    below = (poisson.cdf(came - 1, mean) - np.exp(-mean) + half) / some
    return _middle_scores(below, above)


def _middle_scores(below: Floats, above: Floats) -> Floats:
    """Normal scores from the probabilities of both sides, by the smaller one, which is the exact one."""
    return np.where(below < above, ndtri(np.maximum(below, 1e-300)), -ndtri(np.maximum(above, 1e-300)))


def evidence(surprises: Surprises, user_row: int, fact: str, value: float, most: int = 5) -> Ints:
    """Places of the events of an account that bear a fact most, at most so many, the most telling first.

    user_row : row of the account in the sequences;  value : the account's value of the fact, whose side counts

    Raises SettingError when there is no such fact.
    """
    if fact not in FACTS:
        raise SettingError(f"There is no fact {fact!r}; known are: {', '.join(FACTS)}.")
    head, _, measure = fact.partition("_")
    begin, end = surprises.sequences.offsets[user_row : user_row + 2]
    time = np.asarray(surprises.sequences["time"][begin:end])
    of = surprises.heads[head]
    sign, weight = 1.0 if value >= 0 else -1.0, of.excess[begin:end].astype(np.float64)
    if measure == "expected":
        sign, weight = -1.0, of.expected[begin:end].astype(np.float64)
    elif measure in ("likelihood", "unlikely"):
        sign = -sign if measure == "unlikely" else sign
        weight = of.p[begin:end].astype(np.float64)
    elif measure == "pace":
        sign, weight = -sign, surprises.spacing[begin:end].astype(np.float64)
    elif measure == "rhythm":
        weight = surprises.spacing[begin:end].astype(np.float64)
        middle = np.nanmedian(np.where(time >= surprises.begin_us, weight, np.nan))
        weight = np.abs(
            np.log(np.maximum(weight, 1e-9) / max(middle, 1e-9))
        )  # of bursts the most, of a clock the least
    elif measure == "change":
        weight, known = _after_change(surprises, user_row, head, begin, end)
        weight = np.where(known, weight, np.nan)
    told = np.where((time >= surprises.begin_us) & np.isfinite(weight), sign * weight, -np.inf)
    order = np.argsort(-told, kind="stable")[:most]
    return np.asarray(begin + order[np.isfinite(told[order])], np.int64)


def _after_change(
    surprises: Surprises, user_row: int, head: str, begin: int, end: int
) -> tuple[Floats, NDArray[np.bool_]]:
    """Scores of an account's events, and which come after its change in the window."""
    p = np.clip(surprises.heads[head].p[begin:end].astype(np.float64), NARROW, 1 - NARROW)
    time = np.asarray(surprises.sequences["time"][begin:end])
    here = np.flatnonzero(np.isfinite(p) & (time >= surprises.begin_us))
    moments, row = np.unique(time[here], return_inverse=True)
    mean = np.bincount(row, -ndtri(p[here])) / np.maximum(np.bincount(row), 1)
    _, at = changes(mean, np.array([0, len(mean)], np.int64))
    since = moments[at[0]] if at[0] < len(moments) else end
    return -ndtri(p), time >= since
