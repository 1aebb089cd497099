"""A learned ranker over what several sources propose: LambdaRank (Burges 2010) by LightGBM.

It sees what every source thinks of a proposal, how often and how lately this user had the item, how the item fares, and
what kind of user asks. All of it is as of the question's moment, the item's counts as of the cut.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any, ClassVar

import numba
import numpy as np
from numpy.typing import NDArray

from desireline.classical.arrays import DAY_US, age_days
from desireline.core.errors import SettingError
from desireline.evaluation.blocks import over_blocks
from desireline.evaluation.queries import Histories
from desireline.sequences.vocabulary import FIRST
from desireline.tasks.sources import Candidates, propose

TREND_DAYS = (7, 30, 90, 365)
DECAY_DAYS = (30, 90, 365)
OWN = (
    "times had",
    *(f"times had, fading over {days} days" for days in DECAY_DAYS),
    "days since last had",
    "days between two times",
    "days since last had, in its usual gaps",
    "events since last had",
    "share of the user's events",
)
USER = ("events", "items", "days with events", "days since the last event", "days between days", "events a day")
ROUNDS, PATIENCE, FOLDS = 300, 30, 3
PARAMETERS: dict[str, Any] = {
    "objective": "lambdarank",
    "metric": "ndcg",
    "eval_at": [10],
    "lambdarank_truncation_level": 20,
    "learning_rate": 0.05,
    "num_leaves": 31,
    "min_data_in_leaf": 50,
    "feature_fraction": 0.8,
    "bagging_fraction": 0.8,
    "bagging_freq": 1,
    "deterministic": True,
    "verbosity": -1,
}


@dataclass(frozen=True)
class Trends:
    """How items fare at a cut: float32 [items, 1 + len(TREND_DAYS)], events ever and in the last so many days."""

    counts: NDArray[np.float32]

    @staticmethod
    def of(train: Histories, items: int) -> Trends:
        """From the training histories, whose `as_of` is the cut."""
        age = age_days(train)
        some = [train.item, *(train.item[age <= days] for days in TREND_DAYS)]
        counts = [np.bincount(item, minlength=items) for item in some]
        return Trends(np.stack(counts, axis=1).astype(np.float32))


def features(candidates: Candidates, asked: Histories, trends: Trends) -> NDArray[np.float32]:
    """float32 [Q, K, F]: sources' opinions and places, OWN, the item's trends, USER."""
    own = np.full((*candidates.ids.shape, len(OWN)), np.nan, np.float32)
    user = np.full((len(candidates.ids), len(USER)), np.nan, np.float32)
    history = (asked.offsets, asked.item, asked.time, asked.as_of)
    over_blocks(len(own), lambda lo, hi: _fill(candidates.ids, *history, own, user, lo, hi))
    scores = np.where((candidates.ids >= FIRST)[..., None], candidates.scores, -np.inf)
    places = np.argsort(np.argsort(-scores, axis=1, kind="stable"), axis=1).astype(np.float32)
    of_user = np.broadcast_to(user[:, None], (*candidates.ids.shape, len(USER)))
    return np.concatenate([candidates.scores, places, own, trends.counts[candidates.ids], of_user], axis=2)


@numba.njit(cache=True, nogil=True)
def _fill(
    ids: NDArray[np.int32],
    offsets: NDArray[np.int64],
    item: NDArray[np.int32],
    time: NDArray[np.int64],
    as_of: NDArray[np.int64],
    own: NDArray[np.float32],
    user: NDArray[np.float32],
    lo: int,
    hi: int,
) -> None:  # pragma: no cover
    """Questions [lo, hi) of OWN [Q, K, 9] and USER [Q, 6]; each row of ids descends."""
    for q in range(lo, hi):
        begin, end = offsets[q], offsets[q + 1]
        count, days, distinct = end - begin, 0, len(np.unique(item[begin:end]))
        for k in range(ids.shape[1]):
            if ids[q, k] >= FIRST:
                own[q, k, :4] = 0
                own[q, k, 8] = 0
        for n in range(begin, end):
            day = time[n] // DAY_US
            if n == begin or day != time[n - 1] // DAY_US:
                days += 1
            low, high = 0, ids.shape[1]
            while low < high:  # the first place whose id is not larger
                middle = (low + high) // 2
                if ids[q, middle] > item[n]:
                    low = middle + 1
                else:
                    high = middle
            if low == ids.shape[1] or ids[q, low] != item[n]:
                continue
            row = own[q, low]
            age = (as_of[q] - time[n]) / DAY_US
            if row[0] == 0:
                row[5] = age  # of the first time, for now
            row[0] += 1
            for d in range(len(DECAY_DAYS)):
                row[1 + d] += np.exp(-age / DECAY_DAYS[d])
            row[4] = age
            row[7] = end - 1 - n
        for k in range(ids.shape[1]):
            row = own[q, k]
            if row[0] > 0:
                row[8] = row[0] / count
                gap = (row[5] - row[4]) / max(row[0] - 1, 1)
                row[5] = gap if row[0] > 1 else np.nan
                row[6] = row[4] / max(gap, 0.5) if row[0] > 1 else np.nan
        user[q, 0], user[q, 1], user[q, 2] = count, distinct, days
        if count > 0:
            user[q, 3] = (as_of[q] - time[end - 1]) / DAY_US
            user[q, 4] = (time[end - 1] - time[begin]) / DAY_US / max(days - 1, 1)
            user[q, 5] = count / days


class Ranker:
    """The judge; with several boosters, `part` says which one judges a question.

    only_new : sources propose nothing that the history holds, as where seen items are masked
    """

    name: ClassVar[str] = "ranker"

    def __init__(self, boosters: Sequence[Any], trends: Trends, only_new: bool) -> None:
        self.boosters, self.trends, self.only_new = list(boosters), trends, only_new

    def __call__(
        self, thought: Sequence[NDArray[np.float32]], asked: Histories, part: NDArray[np.int64] | None = None
    ) -> NDArray[np.float32]:
        candidates = propose(thought, asked, self.only_new)
        columns = features(candidates, asked, self.trends)
        there = candidates.ids >= FIRST
        values = np.zeros(there.shape, np.float32)
        part = np.zeros(len(there), np.int64) if part is None else part
        for k, booster in enumerate(self.boosters):
            chosen = there & (part == k)[:, None]
            if chosen.any():
                values[chosen] = booster.predict(columns[chosen])
        # what nobody proposes stands between one and two under the lowest proposal, as the sources think on average
        rest = np.asarray(np.mean(thought, axis=0), np.float32)
        lowest, highest = (f(rest[:, FIRST:], axis=1, keepdims=True) for f in (np.min, np.max))
        worst = np.min(values, axis=1, keepdims=True, where=there, initial=0)
        out = worst - 2 + (rest - lowest) / np.maximum(highest - lowest, np.float32(1e-9))
        np.put_along_axis(out, candidates.ids, values, axis=1)  # id 0, where nothing stands, is no item
        return out

    def at(self, train: Histories, items: int) -> Ranker:
        return Ranker(self.boosters, Trends.of(train, items), self.only_new)

    def told(self, source: int) -> float:
        """Share of the trees' gain that the source's opinion and place bring."""
        gain = np.sum([booster.feature_importance("gain") for booster in self.boosters], axis=0)
        sources = (len(gain) - len(OWN) - len(USER) - 1 - len(TREND_DAYS)) // 2
        return round(float(gain[source] + gain[sources + source]) / max(float(gain.sum()), 1e-9), 4)

    def state(self) -> dict[str, NDArray[Any]]:
        texts = [booster.model_to_string().encode() for booster in self.boosters]
        return {"trends": self.trends.counts, "only_new": np.array([self.only_new])} | {
            f"booster_{k}": np.frombuffer(text, np.uint8) for k, text in enumerate(texts)
        }

    @classmethod
    def load(cls, state: dict[str, NDArray[Any]]) -> Ranker:
        lightgbm = _lightgbm()
        texts = [state[f"booster_{k}"].tobytes().decode() for k in range(len(state) - 2)]
        boosters = [lightgbm.Booster(model_str=text) for text in texts]
        return cls(boosters, Trends(state["trends"]), bool(state["only_new"][0]))

    @property
    def parameters(self) -> int:
        return sum(2 * booster.num_trees() * PARAMETERS["num_leaves"] for booster in self.boosters)


def fit_ranker(
    columns: NDArray[np.float32], candidates: Candidates, came: NDArray[np.bool_], fold: NDArray[np.int64], seed: int
) -> tuple[Any, list[Any]]:
    """A booster fitted on all questions, and one for each fold fitted without that fold's questions.

    columns : float32 [Q, K, F];  came : bool [Q, K];  fold : int64 [Q]

    How many trees: as many as were best, in the mean, for the questions left out.
    """
    useful = np.asarray(came.any(axis=1))
    # threads that wait for each other on a busy machine are many times slower than one
    settings = PARAMETERS | {"seed": seed, "num_threads": max(1, (os.cpu_count() or 1) // 2)}
    held_out, rounds, lightgbm = [], [], _lightgbm()
    for part in range(FOLDS):
        inside = _dataset(columns, candidates, came, useful & np.not_equal(fold, part))
        outside = _dataset(columns, candidates, came, useful & np.equal(fold, part), inside)
        stop = lightgbm.early_stopping(PATIENCE, verbose=False)
        held_out.append(lightgbm.train(settings, inside, ROUNDS, valid_sets=[outside], callbacks=[stop]))
        rounds.append(held_out[-1].best_iteration)
    whole = lightgbm.train(settings, _dataset(columns, candidates, came, useful), max(1, round(float(np.mean(rounds)))))
    return whole, held_out


def _lightgbm() -> ModuleType:
    """The module, loaded when the first ranker is fitted or opened.

    Raises SettingError where the system lacks the OpenMP library that its wheel needs.
    """
    try:
        import lightgbm
    except OSError as error:
        raise SettingError(f"LightGBM cannot be loaded ({error}): on Debian, apt-get install libgomp1.") from error
    return lightgbm


def _dataset(
    columns: NDArray[np.float32],
    candidates: Candidates,
    came: NDArray[np.bool_],
    rows: NDArray[np.bool_],
    reference: Any = None,
) -> Any:
    there = candidates.ids[rows] >= FIRST
    gain = came[rows][there].astype(np.int8)
    return _lightgbm().Dataset(columns[rows][there], gain, group=there.sum(axis=1), reference=reference)
