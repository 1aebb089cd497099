"""How strong order is: does shuffling a history hurt?

For every event that has one before it, a first-order Markov predictor is asked twice: once knowing the event just
before, once knowing one drawn at random from the whole history before it, as if that had been shuffled. Both are
fitted on other users, each on pairs of its own kind, and are asked for the same events, so the difference is what the
order of events is worth to the simplest model that can see it. Where it is worth nothing, counts will do as well as a
sequence model.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

LONGEST = 200  # events of one user, the latest
TOP = 10
LEAST_TARGETS = 200  # fewer say nothing

Integers = NDArray[np.int64]
Score = Callable[[Integers, Integers, Integers, Integers], NDArray[np.float64]]


@dataclass(frozen=True)
class Comparison:
    """One figure with the true and with a shuffled history, and their difference (95 %, by users)."""

    true: float
    shuffled: float
    difference: float
    low: float
    high: float
    targets: int


@dataclass(frozen=True)
class Order:
    """What order is worth for the next item (HR@10) and the next event type (log-loss); None: too few events."""

    item: Comparison | None
    type: Comparison | None
    users: int


def order_strength(events: pl.DataFrame, seed: int) -> Order:
    """Compare true with shuffled histories.

    Parameters
    ----------
    events
        Event frame of a sample of whole users in the order of ORDER.
    seed
        Of the shuffle and of the split of users into two thirds to fit on and one third to ask.

    Returns
    -------
    Order
        Item: higher is better, a positive difference means that order helps. Type: log-loss, lower is better, and the
        difference is taken so that positive again means that order helps.
    """
    late = events.select("user", "event", "item").filter(pl.int_range(pl.len()).reverse().over("user") < LONGEST)
    about = late.filter(pl.col("item").is_not_null())
    generator = np.random.default_rng(seed)
    return Order(
        _compare(about, "item", generator, hit_rate),
        _compare(late, "event", generator, log_loss) if late["event"].n_unique() > 1 else None,
        events["user"].n_unique(),
    )


def _compare(events: pl.DataFrame, column: str, generator: np.random.Generator, score: Score) -> Comparison | None:
    if events.height < 2 * LEAST_TARGETS:
        return None
    user = events["user"].rle_id().to_numpy().astype(np.int64)
    _, value = np.unique(events[column].cast(pl.Categorical).to_physical().to_numpy(), return_inverse=True)
    start = np.flatnonzero(np.diff(user, prepend=-1))
    place = np.arange(len(user)) - np.repeat(start, np.diff(start, append=len(user)))
    target = np.flatnonzero(place > 0)
    shuffled = target - 1 - (generator.random(len(target)) * place[target]).astype(np.int64)  # any earlier event
    train = (generator.random(len(start)) < 2 / 3)[user[target]]
    if min(train.sum(), (~train).sum()) < LEAST_TARGETS:
        return None
    known, hidden = target[train], target[~train]
    true, other = (
        score(value[before[train]], value[known], value[before[~train]], value[hidden])
        for before in (target - 1, shuffled)
    )
    gain = true - other if score is hit_rate else other - true
    mean, half = float(gain.mean()), 1.96 * _error_by_users(gain, user[hidden])
    return Comparison(float(true.mean()), float(other.mean()), mean, mean - half, mean + half, len(hidden))


def hit_rate(before: Integers, after: Integers, asked: Integers, truth: Integers) -> NDArray[np.float64]:
    """Whether the truth is among the ten commonest successors in the pairs (before, after), popular ones after them."""
    size = int(max(v.max() for v in (before, after, asked, truth))) + 1
    pairs, counts = np.unique(before * size + after, return_counts=True)
    pairs = pairs[np.lexsort((-counts, pairs // size))]
    head = pairs // size
    first = np.flatnonzero(np.diff(head, prepend=-1))
    rank = np.arange(len(pairs)) - np.repeat(first, np.diff(first, append=len(pairs)))
    best = pairs[rank < TOP]
    found = np.isin(asked * size + truth, best)
    free = TOP - np.bincount(best // size, minlength=size)[asked]  # places that popularity fills
    place = np.empty(size, dtype=np.int64)
    place[np.argsort(-np.bincount(after, minlength=size), kind="stable")] = np.arange(size)
    return (found | (place[truth] < free)).astype(np.float64)


def log_loss(before: Integers, after: Integers, asked: Integers, truth: Integers) -> NDArray[np.float64]:
    """-ln P(truth | asked) under the transitions (before, after), one added to each."""
    size = int(max(v.max() for v in (before, after, asked, truth))) + 1
    counts = np.bincount(before * size + after, minlength=size * size).reshape(size, size) + 1.0
    chance = counts / counts.sum(axis=1, keepdims=True)
    return np.asarray(-np.log(chance[asked, truth]))


def _error_by_users(values: NDArray[np.float64], user: Integers) -> float:
    """Standard error of a mean over events whose users were drawn, not the events."""
    _, index = np.unique(user, return_inverse=True)
    centred = np.bincount(index, weights=values - values.mean())
    users = len(centred)
    return math.sqrt(float((centred**2).sum()) * users / max(users - 1, 1)) / len(values)
