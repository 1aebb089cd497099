"""From many measures to one p-value a suspicion, and to one for the account; nothing is learnt, nothing is guessed.

Of each kind the surprisals −ln p of its RAREST measures are summed: an attack shows in few measures and is drowned by
the rest. The sum is held against the sums of all accounts, by the same rule as a measure against peers
(`peers.upper_tail`): by construction one account in a hundred has a p-value below .01, whatever the log, until some
behave so unlike the rest that the tail places them further out. A group's p-value, which comes from a null of its own,
joins the suspicion `ring`. The account's p-value is the least of its kinds', corrected for having looked at so many
(Šidák 1967).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import polars as pl
from numpy.typing import NDArray

from desireline.tasks.anomaly.fact import KINDS, Fact
from desireline.tasks.anomaly.peers import upper_tail

Floats: TypeAlias = NDArray[np.float64]

RAREST = 3  # on validation windows of two logs 2 to 5 do as well, all or one alone worse
LEAST = 1e-300  # a p-value that JSON and logarithms still hold


@dataclass(frozen=True)
class Suspicion:
    """Of A accounts: a p-value for each kind, and for the account.

    kinds : float64 [A, KINDS], in the order of KINDS; 1 where nothing speaks for it
    p_value : float64 [A];  rarities : fact -> float64 [A], what the kinds are made of
    measures : frame [A], the facts' values
    """

    kinds: Floats
    p_value: Floats
    rarities: Mapping[str, Floats]
    measures: pl.DataFrame

    @property
    def score(self) -> Floats:
        """float64 [A]: −log10 of the p-value; 2 is one account in a hundred."""
        return np.asarray(-np.log10(self.p_value), np.float64)


def suspicion(
    rarities: Mapping[str, Floats],
    known: Mapping[str, Fact],
    ring: Floats | None,
    measures: pl.DataFrame,
    old: NDArray[np.bool_] | None = None,
) -> Suspicion:
    """What the measures of A accounts speak for.

    rarities : fact -> float64 [A], nan where it is not defined
    ring : float64 [A], p-value of the group that an account is in, 1 for none; None: nobody looked for groups
    measures : frame [A], the facts' values
    old : bool [A], accounts with a past, which alone can have been taken over; None: all
    """
    kinds = np.ones((measures.height, len(KINDS)))
    for column, kind in enumerate(KINDS):
        named = [name for name in rarities if kind in known[name].kinds]
        if named:
            kinds[:, column] = upper_tail(rarest([rarities[name] for name in named]))
    if old is not None:
        kinds[~old, list(KINDS).index("takeover")] = 1.0
    if ring is not None:
        column = list(KINDS).index("ring")
        kinds[:, column] = least_of(np.stack([kinds[:, column], ring], axis=1))
    return Suspicion(np.maximum(kinds, LEAST), np.maximum(least_of(kinds), LEAST), dict(rarities), measures)


def rarest(rarities: Sequence[Floats]) -> Floats:
    """float64 [A]: Σ −ln p over the RAREST measures of each account; one that is not defined counts as a median."""
    surprisal = -np.log(np.stack(rarities, axis=1))
    known = np.where(np.isnan(surprisal), np.log(2), surprisal)
    return np.asarray(-np.sort(-known, axis=1)[:, :RAREST].sum(axis=1), np.float64)


def least_of(p_values: Floats) -> Floats:
    """float64 [A]: 1 − (1 − min p)^k over k p-values [A, k] (Šidák 1967); those that are 1 were no look."""
    looked = np.maximum(1, (p_values < 1).any(axis=0).sum())
    return np.asarray(-np.expm1(looked * np.log1p(-np.minimum(p_values.min(axis=1), 1 - 1e-12))), np.float64)


def false_discoveries(p_values: Floats) -> Floats:
    """float64 [n]: the least false-discovery rate at which each would be let in (Benjamini & Hochberg 1995)."""
    n = len(p_values)
    order = np.argsort(p_values, kind="stable")
    adjusted = p_values[order] * n / np.arange(1, n + 1)
    found = np.empty(n)
    found[order] = np.minimum.accumulate(adjusted[::-1])[::-1]
    return np.minimum(found, 1.0)
