"""How far a measure lies from those of equally active accounts, and how rare that is; no share has to be guessed.

Heavy users do more of everything, so an account is held against its peers alone: those of the same fifth by activity,
or fewer groups where accounts are few. `deviations` say how far each measure lies from the peers' median, `surprisals`
how improbable that is. `apart` says how far an account lies from all others over many of these at once: over surprisals
it makes the score, over deviations, less what the other measures foretell (`beyond`), the kinds. `rarities` say how
rare each measure is by itself among peers, for people and trees to read, down to FLOOR.

`upper_tail` makes a probability of any number. Up to the 95 % quantile (a lower one among few) it is the share of those
with as much or more (ties counted half). Beyond it ranks cannot tell the tenth from the wildest, so the tail is taken
as exponential, its scale from the median exceedance, which a few wild ones do not move.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TypeAlias

import numpy as np
import polars as pl
from numpy.typing import NDArray

from desireline.tasks.anomaly.fact import Fact

Floats: TypeAlias = NDArray[np.float64]

GROUPS = 5  # of peers, by activity
LEAST_PEERS = 100  # accounts in a group of peers
TAIL = 0.05  # share beyond which ranks are not enough
LEAST_TAIL, MOST_TAIL = 10, 0.2  # accounts in the tail, to know its scale, and their largest share
FLOOR = 1e-5  # of one measure's rarity
LEAST = 1e-300  # of a p-value: JSON and logarithms still hold it
RIDGE = 0.3  # added to the variance of each column of `apart`: deviations, or surprisals in bans


def peer_groups(activity: Floats, most: int = GROUPS) -> NDArray[np.int64]:
    """int64 [A]: the group of peers of each account, by its activity (occasions in the window) [A].

    So many of about equal size; equally active accounts stay together, and a group of fewer than LEAST_PEERS is joined
    by the one above it, or joins the one below it where none is.
    """
    n = len(activity)
    rank = np.searchsorted(np.sort(activity), activity, side="left")
    group = rank * max(1, min(most, n // LEAST_PEERS)) // max(1, n)
    sizes = np.bincount(group, minlength=1)
    joined, held = np.zeros(len(sizes), np.int64), 0
    for one, size in enumerate(sizes.tolist()):
        small = sizes[one:].sum() < LEAST_PEERS  # what is left above would be too few to stand alone
        joined[one] = joined[one - 1] if one and (small or held < LEAST_PEERS) else one
        held = held + size if one and joined[one] == joined[one - 1] else size
    return joined[group]


def spread(values: Floats, fact: Fact) -> Floats:
    """float64 [A]: the measure on a scale on which tails are alike: counts, ratios and durations by their logarithm."""
    return np.sign(values) * np.log1p(np.abs(values)) if fact.form in ("count", "ratio", "seconds") else values


def deviations(measures: pl.DataFrame, known: Mapping[str, Fact], activity: Floats) -> dict[str, Floats]:
    """Fact -> float64 [A]: how far each account lies from its peers' median on the suspicious side, in deviations.

    A deviation is that of all accounts that the measure is defined for. 0 on the other side, and where it is not; facts
    that do not vary, or are defined for fewer than LEAST_TAIL accounts, are left out.
    """
    peers, found = peer_groups(activity), {}
    for name, fact in known.items():
        values = spread(measures[name].to_numpy().astype(np.float64), fact)
        there = np.isfinite(values)
        away = np.zeros(len(values))
        for group in np.unique(peers):
            here = there & (peers == group)
            if here.any():
                away[here] = values[here] - np.median(values[here])
        size = float(away[there].std()) if there.sum() >= LEAST_TAIL else 0.0  # of those that it is defined for
        if size > 0:
            side = {"high": (0.0, np.inf), "low": (-np.inf, 0.0), "both": (-np.inf, np.inf)}[fact.side]
            found[name] = np.clip(away / size, *side)
    return found


def surprisals(away: Floats) -> Floats:
    """float64 [A]: −log10 of the probability of a deviation [A] as far on the suspicious side; 0 for none.

    Among all accounts, also those that the measure is not defined for, which lie at 0: what few do at all says
    something too. There is no floor: a single trait beyond all others' must be able to raise the alarm by itself.
    """
    far = np.abs(away)
    return np.where(far > 0, -np.log10(upper_tail(far)), 0.0)


def apart(columns: Sequence[Floats]) -> Floats:
    """float64 [A]: squared Mahalanobis distance from the mean account over columns [A] each.

    Measures that say the same count once, and what is rare together counts more than what is rare alone. The covariance
    is drawn to the identity by RIDGE, so that few accounts have one too.
    """
    rows = np.stack(columns, axis=1)
    rows = rows - rows.mean(axis=0)
    covariance = rows.T @ rows / max(1, len(rows)) + RIDGE * np.eye(rows.shape[1])
    return np.asarray((rows * np.linalg.solve(covariance, rows.T).T).sum(axis=1), np.float64)


def beyond(away: Mapping[str, Floats], own: Collection[str]) -> Floats:
    """float64 [A]: how much farther an account lies apart by all measures than by those alone that are not `own`.

    away : what `deviations` found, by name

    Twice what the log likelihood gains where the own measures may have shifted and the others have not, were they
    normal: T² in parts as by Mason, Young & Tracy (1995, "Decomposition of T² for multivariate control chart
    interpretation"). What the others foretell of the own ones is taken off.
    """
    others = [column for name, column in away.items() if name not in own]
    return apart(list(away.values())) - (apart(others) if others else 0.0)


def rarity(values: Floats, fact: Fact, peers: NDArray[np.int64]) -> Floats:
    """float64 [A]: probability that a peer's measure speaks as much for a suspicion; nan where the measure is."""
    scaled = spread(values, fact)
    found = np.full(len(values), np.nan)
    for group in np.unique(peers):
        here = (peers == group) & np.isfinite(scaled)
        own = scaled[here]
        high = upper_tail(own) if fact.side != "low" else None
        low = upper_tail(-own) if fact.side != "high" else None
        if high is not None and low is not None:
            found[here] = np.minimum(1.0, 2 * np.minimum(high, low))
        else:
            found[here] = high if high is not None else low
    return np.where(np.isnan(found), np.nan, np.maximum(found, FLOOR))


def upper_tail(values: Floats) -> Floats:
    """float64 [n]: for each of n values the probability of one as great, by rank and, beyond 95 %, by the tail.

    Above 0, however far out a value lies.
    """
    n = len(values)
    if n == 0:
        return np.zeros(0)
    order = np.sort(values)
    above = n - np.searchsorted(order, values, side="right")
    equal = np.searchsorted(order, values, side="right") - np.searchsorted(order, values, side="left")
    by_rank = (above + 0.5 * equal + 0.5) / (n + 1)
    border = order[int((1 - max(TAIL, min(LEAST_TAIL / n, MOST_TAIL))) * (n - 1))]
    excess = order[order > border] - border
    if len(excess) < LEAST_TAIL // 2:
        return np.asarray(by_rank, np.float64)
    scale = float(np.median(excess)) / np.log(2)
    by_tail = len(excess) / n * np.exp(-np.maximum(values - border, 0.0) / scale)
    return np.where(values > border, np.clip(by_tail, LEAST, by_rank.max()), by_rank)


def rarities(facts: pl.DataFrame, known: Mapping[str, Fact], activity: Floats) -> dict[str, Floats]:
    """Fact's name -> float64 [A], for the facts that are defined for anybody."""
    peers = peer_groups(activity)
    found = {}
    for name in known:
        values = facts[name].to_numpy().astype(np.float64)
        if np.isfinite(values).any():
            found[name] = rarity(values, known[name], peers)
    return found
