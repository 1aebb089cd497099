"""What a person reads of a suspicion: measured facts against peers, the events behind them, what would clear it.

A card says what was measured and how rare it is among accounts that are equally active; it does not say that somebody
is guilty.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from desireline.core.words import duration
from desireline.tasks.anomaly.fact import KINDS, Evidence, Fact
from desireline.tasks.anomaly.suspicion import Suspicion

REASONS = 5  # on a card
TELLING = 0.05  # a fact as rare as that among peers is a reason
EVIDENCE = 50  # events on a card
TOGETHER = 3  # facts on the card of an account of which none is telling
ALL_TOGETHER = "no single measure stands out; all together do"
NORMAL = 0.3  # p-value from which an account counts as a normal case
DIFFERS = 3  # facts in which a suspect differs from the nearest normal case
MOST_NORMAL = 2_000  # normal accounts that a suspect is held against: of more, every so-manieth
LARGE = 1e9  # counts above it are no figure to read


@dataclass(frozen=True)
class KindScore:
    """One suspicion of one account. score : −log10 of its p-value;  evidence : event ids in the log."""

    kind: str
    score: float
    evidence: list[int]
    reasons: list[str] = field(default_factory=list)
    clears: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Nearest:
    """The normal account that is most like the suspect in all else, and what the two differ in."""

    user: str
    differs: list[str]


@dataclass(frozen=True)
class AnomalyAnswer:
    """The answer of the task `anomaly` for one user.

    score : −log10 of `p_value`, the share of accounts that stand out as much;  kinds : the most suspicious first
    window : the first moment that was judged, and the one after the last
    """

    user: str
    as_of: str
    score: float
    p_value: float
    kinds: list[KindScore]
    window: list[str]


def kind_scores(
    found: Suspicion, row: int, known: Mapping[str, Fact], evidence: Evidence, extra: Mapping[str, Sequence[str]]
) -> list[KindScore]:
    """Every kind's score of one account, the most suspicious first; facts and events where one is telling.

    A kind is made of all its measures together, so one may be suspected where no fact is telling: the likeliest kind of
    such an account then names the rarest of all its facts.

    extra : kind -> reasons from elsewhere (groups), which come first
    """
    told = []
    for column, kind in enumerate(KINDS):
        p = float(found.kinds[row, column])
        names = telling(found, row, kind, known) if p < TELLING else []
        reasons = [*extra.get(kind, []), *(in_words(found, row, name, known[name]) for name in names)]
        ids = [event for name in names for event in evidence(row, name)]
        if not reasons and column == found.kinds[row].argmin() and found.p_value[row] < TELLING:
            names = together(found, row)
            reasons = [f"{ALL_TOGETHER}. The rarest:" if names else ALL_TOGETHER]
            reasons += [in_words(found, row, name, known[name]) for name in names]
            ids = [event for name in names for event in evidence(row, name)]
        clears = list(dict.fromkeys(known[name].clears for name in names))
        told.append(
            KindScore(kind, 0.0 - np.log10(p).item(), list(dict.fromkeys(ids))[:EVIDENCE], reasons[:REASONS], clears)
        )
    return sorted(told, key=lambda k: -k.score)


def telling(found: Suspicion, row: int, kind: str, known: Mapping[str, Fact]) -> list[str]:
    """The facts that speak for a kind, the rarest first."""
    own = {name: float(p[row]) for name, p in found.rarities.items() if kind in known[name].kinds}
    rare = [name for name, p in own.items() if p < TELLING]
    return sorted(rare, key=lambda name: own[name])[:REASONS]


def together(found: Suspicion, row: int) -> list[str]:
    """Of an account of which no fact is telling the rarest facts of all kinds, none that every third peer has."""
    rare = sorted((float(p[row]), name) for name, p in found.rarities.items() if p[row] < NORMAL)
    return [name for _, name in rare[:TOGETHER]]


def in_words(found: Suspicion, row: int, name: str, fact: Fact) -> str:
    """A fact of an account, and how many of its peers have the like."""
    value = float(found.measures[name][row])
    others, known = 1 / float(found.rarities[name][row]), int(np.isfinite(found.rarities[name]).sum())
    rare = f"1 in {others:,.0f}" if others >= 10 else f"1 in {others:.1f}"
    if others > known:  # so far out that no rank tells it
        rare = f"fewer than 1 in {known:,}"
    return f"{fact.words.format(value=written(value, fact))} ({rare} of accounts as active)"


def written(value: float, fact: Fact) -> str:
    """A fact's value with its unit."""
    if fact.form == "count":
        return f"{value:,.0f}" if value < LARGE else f"more than {LARGE:,.0f}"
    if fact.form == "share":
        return f"{value:.0%}" if value >= 0.1 or value == 0 else f"{value:.1%}"
    if fact.form == "seconds":
        return duration(value)
    return f"{value:,.2f}" if abs(value) < 10 else f"{value:,.0f}"


@dataclass(frozen=True)
class Normal:
    """Accounts that nothing speaks against, to hold suspects against.

    rows : int64 [N], of the suspicion;  rare : float64 [N, F], surprisal of each fact among peers, so that none counts
    by its unit
    """

    found: Suspicion
    rows: NDArray[np.int64]
    rare: NDArray[np.float64]

    @staticmethod
    def of(found: Suspicion) -> Normal:
        """The normal accounts of a suspicion, at most MOST_NORMAL."""
        rows = np.flatnonzero(found.p_value >= NORMAL)
        rows = rows[:: max(1, -(-len(rows) // MOST_NORMAL))]
        return Normal(found, rows, _surprisal(found, rows))

    def nearest(
        self, row: int, names: Sequence[str], known: Mapping[str, Fact], users: Sequence[str]
    ) -> Nearest | None:
        """The one most like an account in all facts but the `names` it is suspected for; None where all stand out."""
        rest = [place for place, name in enumerate(self.found.rarities) if name not in names]
        if len(self.rows) == 0 or not rest:
            return None
        own = _surprisal(self.found, np.array([row]))
        near = int(self.rows[np.argmin(((self.rare[:, rest] - own[:, rest]) ** 2).sum(axis=1))])
        differs = []
        for name in names[:DIFFERS]:
            value = self.found.measures[name][near]
            if value is not None:
                differs.append(known[name].words.format(value=written(float(value), known[name])))
        return Nearest(users[near], differs)


def _surprisal(found: Suspicion, rows: NDArray[np.int64]) -> NDArray[np.float64]:
    """float64 [R, F]; 1, what is usual, where a fact is not defined."""
    if not found.rarities:
        return np.zeros((len(rows), 0))
    return np.nan_to_num(-np.log(np.stack([p[rows] for p in found.rarities.values()], axis=1)), nan=1.0)
