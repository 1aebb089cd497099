"""From many measures to one p-value a suspicion, and to one for the account; nothing is learnt, nothing is guessed.

An account is as suspicious as it lies apart from all others over all measures at once (`peers.apart`), each by how
improbable it is on its suspicious side against equally active accounts (`peers.surprisals`). A kind is as suspicious as
its own measures' deviations take the account farther out than all others foretell (`peers.beyond`): whatever an account
does moves measures of several kinds, and what they share speaks for none of them. Distances are held against those of
all accounts (`peers.upper_tail`): by construction one account in a hundred has a p-value below .01, whatever the log,
until some behave so unlike the rest that the tail places them further out. A group's p-value, which comes from a null
of its own, joins the suspicion `ring` or `review` and the account's p-value, corrected for the looks (Šidák 1967); no
account is a ring by itself.

For the account, distances of the deviations themselves were worse: the wildest measure of an honest account outweighs
all that a false one does. AUPRC of brushing, ring and script with groups, middle intensity, means of six draws on
Taobao: .69, .97 and .13 instead of .84, .98 and .14; of three draws on Online Retail II: .17, .81 and .20 instead of
.17, .81 and .27.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import polars as pl
from numpy.typing import NDArray

from desireline.tasks.anomaly.fact import KINDS, Fact
from desireline.tasks.anomaly.peers import LEAST, apart, beyond, deviations, rarities, surprisals, upper_tail

Floats: TypeAlias = NDArray[np.float64]

BANDS = (0.0, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0)  # of scores, by their lower ends: how often alerts of each are right


@dataclass(frozen=True)
class Suspicion:
    """Of A accounts: a p-value for each kind, and for the account.

    kinds : float64 [A, KINDS], in the order of KINDS; 1 for a kind that nothing measures
    p_value : float64 [A];  rarities : fact -> float64 [A], of each measure alone among peers: what cards and trees read
    measures : frame [A], the facts' values
    """

    kinds: Floats
    p_value: Floats
    rarities: Mapping[str, Floats]
    measures: pl.DataFrame

    @property
    def score(self) -> Floats:
        """float64 [A]: −log10 of the p-value; 2 is one account in a hundred."""
        return np.asarray(0.0 - np.log10(self.p_value), np.float64)

    @property
    def likeliest(self) -> NDArray[np.str_]:
        """[A]: the kind with the least p-value, which an account is named after."""
        return np.array(list(KINDS))[self.kinds.argmin(axis=1)]


def suspicion(
    measures: pl.DataFrame,
    known: Mapping[str, Fact],
    activity: Floats,
    grouped: Mapping[str, Floats] | None,
    old: NDArray[np.bool_] | None = None,
) -> Suspicion:
    """What the measures of A accounts speak for.

    measures : frame [A], the values of the facts `known`;  activity : float64 [A], by which accounts are peers
    grouped : kind -> float64 [A], p-value of the group that an account is in, 1 for none; None: nobody looked
    old : bool [A], accounts with a past, which alone can have been taken over; None: all
    """
    away = deviations(measures, known, activity)
    kinds = np.ones((measures.height, len(KINDS)))
    for column, kind in enumerate(KINDS):
        own = [name for name in away if kind in known[name].kinds]
        if own:
            kinds[:, column] = upper_tail(beyond(away, own))
    if old is not None:
        kinds[~old, list(KINDS).index("takeover")] = 1.0
    looks = [upper_tail(apart([surprisals(column) for column in away.values()]))] if away else []
    for kind, p_group in (grouped or {}).items():
        column = list(KINDS).index(kind)
        kinds[:, column] = least_of(np.stack([kinds[:, column], p_group], axis=1))
        looks.append(p_group)
    p_value = least_of(np.stack(looks, axis=1)) if looks else np.ones(measures.height)
    rare = rarities(measures, known, activity)
    return Suspicion(np.maximum(kinds, LEAST), np.maximum(p_value, LEAST), rare, measures)


def least_of(p_values: Floats) -> Floats:
    """float64 [A]: 1 − (1 − min p)^k over k p-values [A, k] (Šidák 1967); one that is 1 for everybody was no look."""
    looked = np.maximum(1, (p_values < 1).any(axis=0).sum())
    return np.asarray(-np.expm1(looked * np.log1p(-np.minimum(p_values.min(axis=1), 1 - 1e-12))), np.float64)


def false_discoveries(p_values: Floats) -> Floats:
    """float64 [n]: the least false-discovery rate at which each would be let in (Benjamini & Hochberg 1995)."""
    from scipy.stats import false_discovery_control

    return np.asarray(false_discovery_control(p_values), np.float64) if len(p_values) else np.zeros(0)
