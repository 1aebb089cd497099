"""Ranking metrics over the whole catalogue, with ties broken fairly.

Items with equal scores stand in a random order: each metric is its exact expectation over that order, so that a constant
score ranks as random and no item gains by its id. Only the targets' places are counted, never a whole catalogue sorted:
a question costs targets × items comparisons and no memory.

    HR@k      1 if any target stands among the first k (equals Recall@k for one target)
    Recall@k  share of the targets among the first k
    NDCG@k    Σ over targets of 1 / log2(1 + place) up to k, over the best that min(k, targets) could give
    MRR@k     1 / place of the first target, 0 beyond k

Each also for targets that the history does not hold (` new`: the history's items are masked) and for those it holds
(` repeat`: ranked over all items). A target unknown before the cut (id 1) can't be hit and counts as missed.
"""

from __future__ import annotations

from collections.abc import Sequence

import numba
import numpy as np
from numpy.typing import NDArray

from desireline.core.errors import DataError
from desireline.evaluation.queries import Histories, Targets

FIRST = 2  # ids 0 (padding) and 1 (unknown) are never ranked
PLAIN, NEW, REPEAT = 0, 1, 2
SUFFIX = {PLAIN: "", NEW: " new", REPEAT: " repeat"}
NAMES = ("HR", "Recall", "NDCG", "MRR")


def ranking_metrics(
    scores: NDArray[np.float32],
    asked: Histories,
    targets: Targets,
    k: Sequence[int] = (5, 10, 20),
    mask_seen: bool = False,
) -> dict[str, NDArray[np.float64]]:
    """Every metric at every k for Q questions; nan where it is not defined.

    scores : float32 [Q, items], higher is better;  mask_seen : items of the history take no place (leave-one-out)

    Raises DataError when a score is nan.
    """
    if np.isnan(scores).any():
        raise DataError("A model gave nan as a score: lower its learning rate, or look for nan among its inputs.")
    depths = np.asarray(sorted(k), np.int64)
    out = np.full((3, len(NAMES), len(depths), len(scores)), np.nan)
    ordered, offsets = _sorted_sets(asked)
    _rank_all(np.ascontiguousarray(scores), ordered, offsets, targets.item, targets.offsets, depths, mask_seen, out)
    return {
        f"{name}@{depth}{SUFFIX[kind]}": out[kind, n, d]
        for kind in ((PLAIN,) if mask_seen else (PLAIN, NEW, REPEAT))
        for n, name in enumerate(NAMES)
        for d, depth in enumerate(depths)
    }


def _sorted_sets(asked: Histories) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Each history's items once, ascending."""
    key = asked.rows() << 32 | asked.item.astype(np.int64)
    unique = np.unique(key)
    offsets = np.searchsorted(unique, np.arange(len(asked) + 1, dtype=np.int64) << 32)
    return (unique & 0xFFFFFFFF).astype(np.int32), offsets


@numba.njit(cache=True, nogil=True)
def _rank_all(scores, history, history_at, target, target_at, depths, mask_seen, out):  # type: ignore[no-untyped-def]  # noqa: ANN001  # pragma: no cover
    for q in range(scores.shape[0]):
        seen = history[history_at[q] : history_at[q + 1]]
        asked = target[target_at[q] : target_at[q + 1]]
        if len(asked) == 0:
            continue
        old = np.empty(len(asked), np.bool_)
        for t in range(len(asked)):
            place = np.searchsorted(seen, asked[t])
            old[t] = place < len(seen) and seen[place] == asked[t]
        _metrics(scores[q], seen, asked, np.ones(len(asked), np.bool_), mask_seen, depths, out[0, :, :, q])
        if not mask_seen:
            if not old.all():
                _metrics(scores[q], seen, asked, ~old, True, depths, out[1, :, :, q])
            if old.any():
                _metrics(scores[q], seen, asked, old, False, depths, out[2, :, :, q])


@numba.njit(cache=True, nogil=True)
def _metrics(line, seen, asked, use, mask, depths, out):  # type: ignore[no-untyped-def]  # noqa: ANN001  # pragma: no cover
    """Fill out [4, depths] for the targets `use` of one question."""
    count = use.sum()
    above = np.empty(count, np.int64)  # items strictly above the target
    tied = np.empty(count, np.int64)  # items with the target's score, itself included; 0: it can't be ranked
    n = 0
    for t in range(len(asked)):
        if not use[t]:
            continue
        item = asked[t]
        above[n], tied[n] = 0, 0
        if item >= FIRST and np.isfinite(line[item]):
            score = line[item]
            greater, equal = 0, 0
            for j in range(FIRST, len(line)):
                greater += line[j] > score
                equal += line[j] == score
            if mask:
                for s in seen:
                    if s >= FIRST:
                        if line[s] > score:
                            greater -= 1
                        elif line[s] == score:
                            equal -= 1
                            if s == item:  # a masked target can't be ranked
                                equal = -1_000_000_000
            above[n], tied[n] = greater, max(equal, 0)
        n += 1
    for d in range(len(depths)):
        k = depths[d]
        ideal = 0.0
        for place in range(min(k, count)):
            ideal += 1 / np.log2(2.0 + place)
        gain, found = 0.0, 0.0
        best = -1  # the group of ties that stands first
        for t in range(count):
            if tied[t] == 0:
                continue
            places = min(max(k - above[t], 0), tied[t])  # of the group's places, those within k
            found += places / tied[t]
            for place in range(above[t], above[t] + places):
                gain += 1 / np.log2(2.0 + place) / tied[t]
            if best < 0 or above[t] < above[best]:
                best = t
        hit, reciprocal = 0.0, 0.0
        if best >= 0:
            # the targets of the first group: the first of m of them among e random places stands at place i with
            # probability C(e − i, m − 1) / C(e, m)
            e, m = tied[best], 0
            for t in range(count):
                m += tied[t] > 0 and above[t] == above[best]
            later = 1.0  # probability that no target stood yet
            for i in range(e - m + 1):
                if above[best] + i >= k:
                    break
                here = later * m / (e - i)
                hit += here
                reciprocal += here / (above[best] + i + 1)
                later -= here
            # a group within k holds a hit for sure; a group cut by k leaves no place to later groups
        out[0, d], out[1, d], out[2, d], out[3, d] = hit, found / count, gain / ideal, reciprocal


def top_k(
    scores: NDArray[np.float32], k: int, seen: Histories | None = None
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """The k best items of each question, best first: ids int32 [Q, k] and scores float32 [Q, k].

    seen : items that may not come;  items with the score −∞ do not come either. Where fewer are left, ids are 0 and
    scores −∞. Equal scores go by id: the same at every run.
    """
    allowed = np.array(scores, np.float32)
    allowed[:, :FIRST] = -np.inf
    if seen is not None:
        allowed[seen.rows(), seen.item] = -np.inf
    size = min(k, allowed.shape[1])
    if size < allowed.shape[1]:
        border = -np.partition(-allowed, size - 1, axis=1)[:, size - 1 : size]
        above = allowed > border
        room = size - above.sum(axis=1, keepdims=True)
        at = allowed == border
        chosen = above | (at & (np.cumsum(at, axis=1) <= room))  # of those at the border the lowest ids
        ids = np.nonzero(chosen)[1].reshape(len(allowed), size)
    else:
        ids = np.broadcast_to(np.arange(size), (len(allowed), size))
    values = np.take_along_axis(allowed, ids, axis=1)
    order = np.lexsort((ids, -values), axis=1)
    ids, values = np.take_along_axis(ids, order, axis=1), np.take_along_axis(values, order, axis=1)
    full_ids, full_values = np.zeros((len(allowed), k), np.int32), np.full((len(allowed), k), -np.inf, np.float32)
    full_ids[:, :size], full_values[:, :size] = np.where(np.isfinite(values), ids, 0), values
    return full_ids, full_values
