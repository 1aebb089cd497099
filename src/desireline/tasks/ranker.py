"""A learned ranker over what several sources propose: LambdaRank (Burges 2010) by LightGBM.

It sees what every source thinks of a proposal, how often and how lately this user had the item, how the item fares, and
what kind of user asks. All of it is as of the question's moment, the item's counts as of the cut.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numba
import numpy as np
from numpy.typing import NDArray

from desireline.classical.arrays import DAY_US, age_days
from desireline.classical.trees import lightgbm_module, tree_threads
from desireline.core.progress import progress
from desireline.evaluation.blocks import over_blocks, over_lines
from desireline.evaluation.queries import Histories
from desireline.sequences.vocabulary import FIRST
from desireline.tasks.questions import ItemQuestions, item_histories
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
    "days had",
    "share of the user's days",
)
USER = ("events", "items", "days with events", "days since the last event", "days between days", "events a day")
TREND = (
    "events",
    *(f"events in {days} days" for days in TREND_DAYS),
    "users in 30 days",
    "days since the first event",
    "days since the last event",
)
STALE = ("days since the item was counted",)
ROUNDS = 200  # trees, at most
UNWANTED = 60  # proposals that did not come, a question, of which a ranker learns; more of them cost time only
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
    """How items fare at a cut.

    table : float32 [items, TREND], nan for what never was;  at_us : the cut, in microseconds
    """

    table: NDArray[np.float32]
    at_us: int

    @staticmethod
    def of(train: Histories, items: int, at_us: int) -> Trends:
        """From the training histories, whose `as_of` is the cut."""
        age, rows, late = age_days(train), train.rows(), age_days(train) <= 30
        some = [train.item, *(train.item[age <= days] for days in TREND_DAYS)]
        counts = [np.bincount(item, minlength=items) for item in some]
        users = np.unique(rows[late] * items + train.item[late]) % items
        first, last = np.full((2, items), np.nan)
        np.fmax.at(first, train.item, age)
        np.fmin.at(last, train.item, age)
        columns = [*counts, np.bincount(users, minlength=items), first, last]
        return Trends(np.stack(columns, axis=1).astype(np.float32), at_us)


def features(candidates: Candidates, asked: Histories, trends: Trends) -> NDArray[np.float32]:
    """float32 [Q, K, F]: sources' opinions and places, OWN, TREND, USER, STALE."""
    own = np.full((*candidates.ids.shape, len(OWN)), np.nan, np.float32)
    user = np.full((len(candidates.ids), len(USER)), np.nan, np.float32)
    history = (asked.offsets, asked.item, asked.time, asked.as_of)
    over_blocks(len(own), lambda lo, hi: _fill(candidates.ids, *history, own, user, lo, hi))
    places = places_of(candidates)
    stale = ((asked.as_of - trends.at_us) / DAY_US).astype(np.float32)
    question = np.column_stack([user, stale])
    of_question = np.broadcast_to(question[:, None], (*candidates.ids.shape, question.shape[1]))
    return np.concatenate([candidates.scores, places, own, trends.table[candidates.ids], of_question], axis=2)


def places_of(candidates: Candidates) -> NDArray[np.float32]:
    """float32 [Q, K, S]: each proposal's place, from 0, in what a source thinks of all proposals."""
    scores = np.where((candidates.ids >= FIRST)[..., None], candidates.scores, -np.inf)
    return np.argsort(np.argsort(-scores, axis=1, kind="stable"), axis=1).astype(np.float32)


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
    """Questions [lo, hi) of OWN [Q, K, 11] and USER [Q, 6]; each row of ids descends."""
    held = np.empty(ids.shape[1], np.int64)  # the day when each proposal was last had
    for q in range(lo, hi):
        begin, end = offsets[q], offsets[q + 1]
        count, days, distinct = end - begin, 0, len(np.unique(item[begin:end]))
        for k in range(ids.shape[1]):
            if ids[q, k] >= FIRST:
                own[q, k, :4] = 0
                own[q, k, 8:] = 0
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
            if row[0] == 0 or day != held[low]:
                row[9] += 1
            held[low] = day
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
                row[8], row[10] = row[0] / count, row[9] / days
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
        worst = np.min(values, axis=1, keepdims=True, where=there, initial=0)
        out = np.empty_like(thought[0])

        def unproposed(lo: int, hi: int) -> None:
            """Between one and two under the lowest proposal, as the sources think on average."""
            rest = thought[0][lo:hi].copy()
            for logs in thought[1:]:
                rest += logs[lo:hi]
            lowest, highest = (f(rest[:, FIRST:], axis=1, keepdims=True) for f in (np.min, np.max))
            rest -= lowest
            rest /= np.maximum(highest - lowest, np.float32(1e-9))
            np.add(rest, worst[lo:hi] - 2, out=out[lo:hi])

        over_lines(out.shape, unproposed)
        np.put_along_axis(out, candidates.ids, values, axis=1)  # id 0, where nothing stands, is no item
        return out

    def at(self, train: Histories, items: int, at_us: int) -> Ranker:
        return Ranker(self.boosters, Trends.of(train, items, at_us), self.only_new)

    def told(self, source: int) -> float:
        """Share of the trees' gain that the source's opinion and place bring."""
        gain = np.sum([booster.feature_importance("gain") for booster in self.boosters], axis=0)
        sources = (len(gain) - len((*OWN, *USER, *TREND, *STALE))) // 2
        return round(float(gain[source] + gain[sources + source]) / max(float(gain.sum()), 1e-9), 4)

    def state(self) -> dict[str, NDArray[Any]]:
        texts = [booster.model_to_string().encode() for booster in self.boosters]
        facts = {
            "trends": self.trends.table,
            "at_us": np.array([self.trends.at_us]),
            "only_new": np.array([self.only_new]),
        }
        return facts | {f"booster_{k}": np.frombuffer(text, np.uint8) for k, text in enumerate(texts)}

    @classmethod
    def load(cls, state: dict[str, NDArray[Any]]) -> Ranker:
        lightgbm = lightgbm_module()
        texts = [state[f"booster_{k}"].tobytes().decode() for k in range(len(state) - 3)]
        boosters = [lightgbm.Booster(model_str=text) for text in texts]
        return cls(boosters, Trends(state["trends"], int(state["at_us"][0])), bool(state["only_new"][0]))

    @property
    def parameters(self) -> int:
        return sum(2 * booster.num_trees() * PARAMETERS["num_leaves"] for booster in self.boosters)


@dataclass(frozen=True)
class Lesson:
    """What a ranker learns from: Q questions, what was proposed for them, and what came.

    columns : float32 [Q, K, F], the features;  came : bool [Q, K];  user : int64 [Q], whose question it is
    """

    candidates: Candidates
    columns: NDArray[np.float32]
    came: NDArray[np.bool_]
    user: NDArray[np.int64]

    @staticmethod
    def of(candidates: Candidates, questions: ItemQuestions, trends: Trends) -> Lesson:
        """What came of what sources propose for questions."""
        columns = features(candidates, item_histories(questions), trends)
        return Lesson(candidates, columns, candidates.came(questions.targets), questions.user)

    @staticmethod
    def joined(parts: Sequence[Lesson]) -> Lesson:
        """Several lessons, one after the other."""
        candidates = Candidates.joined([part.candidates for part in parts])
        wide = [(0, candidates.ids.shape[1] - part.came.shape[1]) for part in parts]
        columns = [np.pad(part.columns, ((0, 0), w, (0, 0))) for part, w in zip(parts, wide, strict=True)]
        came = [np.pad(part.came, ((0, 0), w)) for part, w in zip(parts, wide, strict=True)]
        return Lesson(
            candidates, np.concatenate(columns), np.concatenate(came), np.concatenate([part.user for part in parts])
        )

    def __len__(self) -> int:
        return len(self.came)

    def part(self, rows: NDArray[np.int64]) -> Lesson:
        """Some of the questions."""
        return Lesson(self.candidates.part(rows), self.columns[rows], self.came[rows], self.user[rows])

    def thinned(self, seed: int) -> Lesson:
        """With no more than UNWANTED proposals a question that did not come, drawn at random."""
        ids = self.candidates.ids
        draw = np.random.default_rng(seed).random(ids.shape)
        draw[self.came], draw[ids < FIRST] = -1, 2
        width = min(ids.shape[1], UNWANTED + int(self.came.sum(axis=1).max(initial=0)))
        kept = np.sort(np.argpartition(draw, width - 1, axis=1)[:, :width], axis=1)
        by_place = np.argsort(np.argsort(np.take_along_axis(draw, kept, axis=1), axis=1), axis=1)
        few = by_place < (UNWANTED + self.came.sum(axis=1))[:, None]

        def of(values: NDArray[Any]) -> NDArray[Any]:
            return np.take_along_axis(values, kept if values.ndim == 2 else kept[..., None], axis=1)

        by = None if self.candidates.by is None else of(self.candidates.by)
        candidates = Candidates(np.where(few, of(ids), 0), of(self.candidates.scores), by)
        return Lesson(candidates, of(self.columns), of(self.came), self.user)

    def without(self, source: int) -> Lesson:
        """As if one source had never been asked."""
        rest = self.candidates.without(source)
        told = 2 * self.candidates.scores.shape[2]  # columns of opinions and places
        columns = np.concatenate([rest.scores, places_of(rest), self.columns[..., told:]], axis=2)
        return Lesson(rest, columns, self.came & (rest.ids >= FIRST), self.user)


def trained(lesson: Lesson, rounds: int, seed: int) -> Any:
    """A booster of so many trees."""
    return lightgbm_module().train(_settings(seed), _dataset(lesson, np.ones(len(lesson), np.bool_)), rounds)


def held_out(lesson: Lesson, fold: NDArray[np.int64], seed: int) -> tuple[list[Any], int]:
    """For each fold a booster that never saw its questions, and the number of trees that is best over all folds.

    fold : int64 [Q], from 0
    """
    found, curves, lightgbm = [], [], lightgbm_module()
    parts = int(fold.max()) + 1
    with progress("learning to rank", parts * ROUNDS, "trees") as advance:
        for part in range(parts):
            inside = _dataset(lesson, np.not_equal(fold, part))
            told: dict[str, dict[str, list[float]]] = {}
            outside = _dataset(lesson, np.equal(fold, part), inside)
            seen = [lightgbm.record_evaluation(told), lambda _: advance(1)]
            found.append(lightgbm.train(_settings(seed), inside, ROUNDS, valid_sets=[outside], callbacks=seen))
            curves.append(told["valid_0"]["ndcg@10"])
    rounds = int(np.argmax(np.mean(curves, axis=0))) + 1
    for booster in found:
        booster.best_iteration = rounds  # it predicts and is written with so many
    return found, rounds


def predicted(booster: Any, lesson: Lesson) -> NDArray[np.float32]:
    """float32 [Q, K]: what a booster thinks of the proposals; −∞ where nothing stands."""
    there = lesson.candidates.ids >= FIRST
    values = np.full(there.shape, -np.inf, np.float32)
    if there.any():
        values[there] = booster.predict(lesson.columns[there])
    return values


def _settings(seed: int) -> dict[str, Any]:
    return PARAMETERS | {"seed": seed, "num_threads": tree_threads()}


def _dataset(lesson: Lesson, rows: NDArray[np.bool_], reference: Any = None) -> Any:
    rows = rows & lesson.came.any(axis=1)  # a question of which nothing was proposed teaches no order
    there = lesson.candidates.ids[rows] >= FIRST
    gain = lesson.came[rows][there].astype(np.int8)
    return lightgbm_module().Dataset(lesson.columns[rows][there], gain, group=there.sum(axis=1), reference=reference)
