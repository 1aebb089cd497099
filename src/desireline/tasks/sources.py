"""Several models as one recommender: what each proposes, what each thinks of all proposals, and what came of them.

A source's scores become logarithms of shares, so that those of different kinds can be added: a network's cosines by a
softmax over the catalogue, anything else divided by its sum, with a floor below which nobody's opinion counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from desireline.evaluation.blocks import over_lines
from desireline.evaluation.queries import Histories, Targets
from desireline.evaluation.ranking import top_k
from desireline.sequences.vocabulary import FIRST

Floats: TypeAlias = NDArray[np.float64]

FLOOR = np.float32(1e-4)  # added to a share before its logarithm
PROPOSED = 40  # items that each source proposes for a question
WEIGHTS = (0.1, 0.2, 0.35, 0.5, 0.7, 1.0, 1.4, 2.0, 3.0)  # of a source beside the first one's 1


def mean_log_shares(scores: Sequence[NDArray[np.float32]], temperatures: Sequence[float | None]) -> NDArray[np.float32]:
    """float32 [Q, items]: the mean of the log shares of several models' scores, [Q, items] each.

    A few rows at a time, in the processor's cache.
    """
    out = np.empty_like(scores[0])

    def run(lo: int, hi: int) -> None:
        line = log_shares(scores[0][lo:hi], temperatures[0])
        for more, temperature in zip(scores[1:], temperatures[1:], strict=True):
            line += log_shares(more[lo:hi], temperature)
        np.divide(line, np.float32(len(scores)), out=out[lo:hi])

    over_lines(out.shape, run)
    return out


def log_shares(scores: NDArray[np.float32], temperature: float | None) -> NDArray[np.float32]:
    """float32 [Q, items]: scores [Q, items] as log shares of the catalogue.

    temperature : of a network's cosines; None: scores that are 0 or more where they mean something
    """
    if temperature is None:
        shares = np.maximum(scores, 0)
        shares[:, :FIRST] = 0
        shares /= np.maximum(shares.sum(axis=1, keepdims=True), np.float32(1e-30))
        shares += FLOOR
        return np.log(shares, out=shares)
    scaled = scores / np.float32(temperature)
    peak = scaled[:, FIRST:].max(axis=1, keepdims=True)
    scaled -= peak
    scaled -= np.log(np.exp(scaled[:, FIRST:]).sum(axis=1, keepdims=True))
    return scaled


@dataclass(frozen=True)
class Candidates:
    """What S sources propose for Q questions.

    ids    : int32 [Q, K], each item once a question, 0 where nothing stands
    scores : float32 [Q, K, S], what each source thinks of each proposal, its own or another's
    by     : bool [Q, K, S], which sources proposed it; None where nobody asked
    """

    ids: NDArray[np.int32]
    scores: NDArray[np.float32]
    by: NDArray[np.bool_] | None = None

    @staticmethod
    def joined(parts: Sequence[Candidates]) -> Candidates:
        """Of several chunks of questions, one after the other."""
        width = max(part.ids.shape[1] for part in parts)
        wide = [(0, width - part.ids.shape[1]) for part in parts]
        by = [part.by for part in parts if part.by is not None]
        return Candidates(
            np.concatenate([np.pad(part.ids, ((0, 0), w)) for part, w in zip(parts, wide, strict=True)]),
            np.concatenate([np.pad(part.scores, ((0, 0), w, (0, 0))) for part, w in zip(parts, wide, strict=True)]),
            np.concatenate([np.pad(b, ((0, 0), w, (0, 0))) for b, w in zip(by, wide, strict=True)]) if by else None,
        )

    def part(self, rows: NDArray[np.int64]) -> Candidates:
        """Those of some of the questions."""
        return Candidates(self.ids[rows], self.scores[rows], None if self.by is None else self.by[rows])

    def without(self, source: int) -> Candidates:
        """As if one source had never been asked: its opinions gone, and what it alone proposed."""
        assert self.by is not None
        by = np.delete(self.by, source, axis=2)
        ids = np.where(by.any(axis=2), self.ids, 0)
        return Candidates(ids, np.delete(self.scores, source, axis=2), by)

    def came(self, targets: Targets) -> NDArray[np.bool_]:
        """bool [Q, K]: whether the proposal came."""
        rows = np.repeat(np.arange(len(targets)), np.diff(targets.offsets))
        catalogue = int(max(self.ids.max(initial=0), targets.item.max(initial=0))) + 1
        proposed = np.arange(len(self.ids))[:, None] * catalogue + self.ids
        return np.isin(proposed, rows * catalogue + targets.item) & (self.ids >= FIRST)


def gains(values: NDArray[np.float32], came: NDArray[np.bool_], wanted: NDArray[np.int64], k: int = 10) -> Floats:
    """NDCG@k [Q] of proposals ranked by `values` [Q, K], of which `came` [Q, K] did; −∞ stands nowhere.

    wanted : int64 [Q], targets of each question; one that nobody proposed is missed
    """
    k = min(k, values.shape[1])
    some = np.argpartition(-values, k - 1, axis=1)[:, :k]
    best = np.take_along_axis(some, np.argsort(-np.take_along_axis(values, some, axis=1), axis=1), axis=1)
    discount = 1 / np.log2(2 + np.arange(k))
    gained = (np.take_along_axis(came, best, axis=1) * discount).sum(axis=1)
    return np.asarray(gained / np.cumsum(discount)[np.clip(wanted, 1, k) - 1], np.float64)


def propose(
    thought: Sequence[NDArray[np.float32]],
    asked: Histories,
    only_new: bool,
    each: int = PROPOSED,
    told: bool = False,
) -> Candidates:
    """The candidates of Q questions from what S sources think, [Q, items] each; each row's ids descend.

    A source proposes its best items that the history does not hold and, but for `only_new`, its best of all.

    told : say by whom
    """
    kinds = (asked,) if only_new else (asked, None)
    best = [np.concatenate([top_k(scores, each, seen)[0] for seen in kinds], axis=1) for scores in thought]
    ids = -np.sort(-np.concatenate(best, axis=1), axis=1)
    ids[:, 1:][ids[:, 1:] == ids[:, :-1]] = 0
    ids = -np.sort(-ids, axis=1)
    ids = np.ascontiguousarray(ids[:, : max(1, int((ids > 0).sum(axis=1).max(initial=1)))])
    scores = np.stack([np.take_along_axis(scores, ids, axis=1) for scores in thought], axis=2)
    rows = np.arange(len(ids), dtype=np.int64)[:, None] * thought[0].shape[1]
    by = [np.isin(rows + ids, rows + own) & (ids >= FIRST) for own in best] if told else []
    return Candidates(ids, scores, np.stack(by, axis=2) if told else None)


def forward_weights(
    candidates: Candidates, targets: Targets, user: NDArray[np.int64]
) -> tuple[NDArray[np.float32], Floats]:
    """Weights [S] of a log-linear mixture by forward selection, and the NDCG@10 [U] that it gives each user.

    Begins with the source that is best alone, at weight 1. The source and weight that bring most join, until the best
    of them brings less than one standard error of the difference, paired over users; then each weight but the first
    is tried anew.

    user : int64 [Q], whose question it is; a user counts once, however many there are
    """
    came, wanted = candidates.came(targets), np.diff(targets.offsets)
    row = np.unique(user, return_inverse=True)[1]
    asked = np.bincount(row)

    def tried(weights: NDArray[np.float32]) -> Floats:
        mixed = np.where(candidates.ids >= FIRST, candidates.scores @ weights, -np.inf)
        return np.asarray(np.bincount(row, gains(mixed, came, wanted)) / asked, np.float64)

    sources = candidates.scores.shape[2]
    alone = [tried(weights) for weights in np.eye(sources, dtype=np.float32)]
    first = int(np.argmax([found.mean() for found in alone]))
    weights, gained = np.eye(sources, dtype=np.float32)[first], alone[first]
    while True:
        steps = [_with(weights, int(source), w) for source in np.flatnonzero(weights == 0) for w in WEIGHTS]
        found = [(tried(step), step) for step in steps]
        better, step = max(found, key=lambda pair: float(pair[0].mean()), default=(gained, weights))
        difference = better - gained
        if difference.mean() <= difference.std() / np.sqrt(max(1, len(difference))):
            break
        weights, gained = step, better
    for source in np.flatnonzero(weights):
        for w in WEIGHTS if source != first else ():
            step = _with(weights, int(source), w)
            better = tried(step)
            if better.mean() > gained.mean():
                weights, gained = step, better
    return weights, gained


def _with(weights: NDArray[np.float32], source: int, weight: float) -> NDArray[np.float32]:
    changed = weights.copy()
    changed[source] = weight
    return changed
