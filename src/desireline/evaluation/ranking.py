"""Ranking metrics over the whole catalogue, with ties broken fairly.

Items with equal scores stand in a random order: each metric is its exact expectation over that order, so that a
constant score ranks as random and no item gains by its id. Only the targets' places are counted, never a whole
catalogue sorted: a question costs targets × items comparisons (about 2 · 10⁹ a second and core) and no memory.

    HR@k      1 if any target stands among the first k (equals Recall@k for one target)
    Recall@k  share of the targets among the first k
    NDCG@k    Σ over targets of 1 / log2(1 + place) up to k, over the best that min(k, targets) could give
    MRR@k     1 / place of the first target, 0 beyond k

Each also for targets that the history does not hold (` new`: the history's items are masked) and for those it holds
(` repeat`: ranked over all items). A target unknown before the cut (id 1) can't be hit and counts as missed, and so
does one with the score −∞ (a filter's) or, where seen items are masked, one that the history holds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numba
import numpy as np
from numpy.typing import NDArray

from desireline.core.errors import DataError
from desireline.evaluation.blocks import over_blocks
from desireline.evaluation.queries import Histories, Targets

Floats: TypeAlias = NDArray[np.float64]
Scores: TypeAlias = NDArray[np.float32]
Ints: TypeAlias = NDArray[np.int64]
Items: TypeAlias = NDArray[np.int32]

FIRST = 2  # ids 0 (padding) and 1 (unknown) are never ranked
PLAIN, NEW, REPEAT = 0, 1, 2
SUFFIX = {PLAIN: "", NEW: " new", REPEAT: " repeat"}
NAMES = ("HR", "Recall", "NDCG", "MRR")
BAD_SCORE, BAD_TARGET, TWICE = 1, 2, 3  # what a kernel may find wrong with a question


def ranking_metrics(
    scores: NDArray[np.float32],
    asked: Histories,
    targets: Targets,
    k: Sequence[int] = (5, 10, 20),
    mask_seen: bool = False,
) -> dict[str, NDArray[np.float64]]:
    """Every metric at every k for Q questions; nan where it is not defined.

    Parameters
    ----------
    scores : float32 [Q, items], higher is better; columns 0 and 1 are not read
    asked : the histories, which tell seen items from new ones
    targets : what came; a question without a target has nan everywhere
    k : depths of the lists
    mask_seen : items of the history take no place, as in leave-one-out; ` new` and ` repeat` are then left out

    Returns
    -------
    `"NDCG@10"`, `"NDCG@10 new"`, … → float64 [Q]

    Raises
    ------
    DataError when a score is nan, a target's id is outside the catalogue or stands twice in a question.
    """
    depths = np.asarray(sorted(k), np.int64)
    cumulated = np.concatenate([[0.0], np.cumsum(1 / np.log2(2 + np.arange(depths[-1])))])
    out = np.full((3, len(NAMES), len(depths), len(scores)), np.nan)
    wrong = np.zeros(len(scores), np.int64)
    history, at = asked.item, asked.offsets

    def run(lo: int, hi: int) -> None:
        _rank(scores, history, at, targets.item, targets.offsets, depths, cumulated, mask_seen, out, wrong, lo, hi)

    over_blocks(len(scores), run)
    if wrong.any():
        raise DataError(_complaint(wrong))
    return {
        f"{name}@{depth}{SUFFIX[kind]}": out[kind, n, d]
        for kind in ((PLAIN,) if mask_seen else (PLAIN, NEW, REPEAT))
        for n, name in enumerate(NAMES)
        for d, depth in enumerate(depths)
    }


def _complaint(wrong: NDArray[np.int64]) -> str:
    question = int(np.flatnonzero(wrong)[0])
    return {
        BAD_SCORE: f"Question {question}: a model gave nan as a score. Lower its learning rate, or look for nan among "
        "its inputs.",
        BAD_TARGET: f"Question {question}: a target is no item of this catalogue. Prepare again, so that model and "
        "questions share one vocabulary.",
        TWICE: f"Question {question}: an item stands twice among its targets. Give each once.",
    }[int(wrong[question])]


@numba.njit(cache=True, nogil=True)
def _rank(
    scores: Scores,
    history: Items,
    history_at: Ints,
    target: Items,
    target_at: Ints,
    depths: Ints,
    cumulated: Floats,
    mask_seen: bool,
    out: Floats,
    wrong: Ints,
    lo: int,
    hi: int,
) -> None:  # pragma: no cover
    """Questions [lo, hi) into out [kind, metric, depth, question]."""
    items = scores.shape[1]
    for q in range(lo, hi):
        line = scores[q]
        nans = 0
        for j in range(FIRST, items):
            nans += line[j] != line[j]
        if nans > 0:
            wrong[q] = BAD_SCORE
            continue
        asked = np.sort(target[target_at[q] : target_at[q + 1]])
        count = len(asked)
        if count == 0:
            continue
        if asked[0] < 1 or asked[-1] >= items:
            wrong[q] = BAD_TARGET
            continue
        for t in range(1, count):
            if asked[t] >= FIRST and asked[t] == asked[t - 1]:
                wrong[q] = TWICE
        seen = np.unique(history[history_at[q] : history_at[q + 1]])
        seen = seen[np.searchsorted(seen, FIRST) :]
        above = np.zeros(count, np.int64)  # items strictly above the target
        tied = np.zeros(count, np.int64)  # items with the target's score, itself included; 0: it can't be ranked
        above_new, tied_new = np.zeros(count, np.int64), np.zeros(count, np.int64)  # among items new to the user
        old = np.zeros(count, np.bool_)
        for t in range(count):
            item = asked[t]
            if item < FIRST:
                continue
            place = np.searchsorted(seen, item)
            old[t] = place < len(seen) and seen[place] == item
            if line[item] == -np.inf:
                continue
            above[t], tied[t] = _count(line, line[item])
            if not old[t]:
                above_new[t], tied_new[t] = above[t], tied[t]
                for s in seen:
                    above_new[t] -= line[s] > line[item]
                    tied_new[t] -= line[s] == line[item]
        if mask_seen:
            _metrics(above_new, tied_new, count, depths, cumulated, out[PLAIN, :, :, q])
            continue
        _metrics(above, tied, count, depths, cumulated, out[PLAIN, :, :, q])
        if not old.all():
            _metrics(above_new[~old], tied_new[~old], (~old).sum(), depths, cumulated, out[NEW, :, :, q])
        if old.any():
            _metrics(above[old], tied[old], old.sum(), depths, cumulated, out[REPEAT, :, :, q])


@numba.njit(cache=True, nogil=True)
def _count(line: Scores, score: float) -> tuple[int, int]:  # pragma: no cover
    """How many items have a higher and how many the same score."""
    above, tied = 0, 0
    for lo in range(FIRST, len(line), 32_768):
        # 32-bit sums over short stretches: twice as many lanes of a vector register
        greater: Any = np.int32(0)
        equal: Any = np.int32(0)
        for j in range(lo, min(lo + 32_768, len(line))):
            greater = np.int32(greater + np.int32(line[j] > score))
            equal = np.int32(equal + np.int32(line[j] == score))
        above += greater
        tied += equal
    return above, tied


@numba.njit(cache=True, nogil=True)
def _metrics(
    above: Ints, tied: Ints, count: int, depths: Ints, cumulated: Floats, out: Floats
) -> None:  # pragma: no cover
    """Fill out [4, depths] for one question with `count` targets; cumulated[n]: the discounts of the first n places."""
    first = -1  # a target of the group of ties that stands first
    for t in range(count):
        if tied[t] > 0 and (first < 0 or above[t] < above[first]):
            first = t
    rivals = 0  # targets in that group
    for t in range(count):
        rivals += tied[t] > 0 and above[t] == above[first]
    for d in range(len(depths)):
        k = depths[d]
        gain, found, hit, reciprocal = 0.0, 0.0, 0.0, 0.0
        for t in range(count):
            if tied[t] > 0 and above[t] < k:
                end = min(above[t] + tied[t], k)
                found += (end - above[t]) / tied[t]
                gain += (cumulated[end] - cumulated[above[t]]) / tied[t]
        if first >= 0:
            # The first of m targets among e random places stands at place i with probability
            # C(e − 1 − i, m − 1) / C(e, m). A group that is cut by k leaves no place to later groups, one within k
            # holds a hit for sure: the first group alone decides HR and MRR.
            left, group = 1.0, tied[first]
            for i in range(min(group - rivals + 1, k - above[first])):
                here = left * rivals / (group - i)
                hit += here
                reciprocal += here / (above[first] + i + 1)
                left -= here
        out[0, d], out[1, d] = min(hit, 1.0), found / count
        out[2, d], out[3, d] = gain / cumulated[min(k, count)], reciprocal


def top_k(
    scores: NDArray[np.float32], k: int, seen: Histories | None = None
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """The k best items of each question, best first: ids int32 [Q, k] and scores float32 [Q, k].

    seen : items that may not come;  items with the score −∞ do not come either. Where fewer are left, ids are 0 and
    scores −∞. Equal scores go by id: the same at every run. Raises DataError when a score is nan.
    """
    ids, values = np.zeros((len(scores), k), np.int32), np.full((len(scores), k), -np.inf, np.float32)
    wrong = np.zeros(len(scores), np.int64)
    offsets = np.zeros(len(scores) + 1, np.int64) if seen is None else seen.offsets
    banned = np.empty(0, np.int32) if seen is None else seen.item
    over_blocks(len(scores), lambda lo, hi: _top(scores, banned, offsets, ids, values, wrong, lo, hi))
    if wrong.any():
        raise DataError(_complaint(wrong))
    return ids, values


@numba.njit(cache=True, nogil=True)
def _top(
    scores: Scores, banned: Items, banned_at: Ints, ids: Items, values: Scores, wrong: Ints, lo: int, hi: int
) -> None:  # pragma: no cover
    """Insertion into a sorted list of k: after the first hundreds of items nearly all fail the first comparison."""
    k = ids.shape[1]
    for q in range(lo, hi):
        line = scores[q]
        never = np.sort(banned[banned_at[q] : banned_at[q + 1]])
        held = 0
        for item in range(FIRST, len(line)):
            score = line[item]
            if held == k and score <= values[q, k - 1]:
                continue
            if score != score:
                wrong[q] = BAD_SCORE
                break
            if score == -np.inf:
                continue
            place = np.searchsorted(never, item)
            if place < len(never) and never[place] == item:
                continue
            at = held if held < k else k - 1
            while at > 0 and values[q, at - 1] < score:
                values[q, at], ids[q, at] = values[q, at - 1], ids[q, at - 1]
                at -= 1
            values[q, at], ids[q, at] = score, item
            held = min(held + 1, k)
