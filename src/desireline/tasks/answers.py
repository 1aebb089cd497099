"""Answers: what a person or a program is told. `predict` and, later, the live service call the same functions.

An answer is computed from a history under a model's ids (`Questions`: the history's last event and the moment of the
question) and the model's prediction for it; nothing else goes in.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
from numpy.typing import NDArray

from desireline.core.errors import SettingError
from desireline.core.progress import say
from desireline.evaluation.queries import Histories
from desireline.evaluation.ranking import top_k
from desireline.evaluation.waiting import LEVELS
from desireline.sequences.prepared import Prepared, iso
from desireline.sequences.ragged import Sequences
from desireline.sequences.vocabulary import FIRST
from desireline.tasks.next_event import EventPrediction
from desireline.tasks.questions import Questions
from desireline.tasks.reasons import Reason, told


@dataclass(frozen=True)
class Wishes:
    """What a list of items must keep to.

    k : its length;  only_new : nothing that the user already had;  deny : items never shown;  stock : show these only
    diversity : 0 to 1, the share of an item's standing that is given to being unlike the items above it
    """

    k: int = 10
    only_new: bool = False
    deny: Collection[str] = ()
    stock: Collection[str] | None = None
    diversity: float = 0.0


def asked_now(sequences: Sequences, as_of_us: int) -> Questions:
    """One question a user with an event before `as_of`: what comes after all of them?"""
    time = np.asarray(sequences["time"])
    seen = np.concatenate([[0], np.cumsum(time < as_of_us)])[sequences.offsets]
    counts = np.diff(seen)
    user = np.flatnonzero(counts > 0)
    place = sequences.offsets[user] + counts[user] - 1
    return Questions(sequences, user.astype(np.int64), place, np.full(len(user), as_of_us, np.int64))


def asked_by_nobody(sequences: Sequences, user: str, as_of_us: int) -> Questions:
    """The question of somebody without any event; `sequences` lends its columns."""
    nothing = {name: column[:0] for name, column in sequences.columns.items()}
    timeline = Sequences(pl.Series("user", [user]), np.zeros(2, np.int64), nothing)
    return Questions(timeline, np.zeros(1, np.int64), np.full(1, -1, np.int64), np.full(1, as_of_us, np.int64))


def check_wishes(wishes: Wishes, prepared: Prepared) -> None:
    """Say how many named items the model does not know. Raises SettingError where it knows none of the stock."""
    known = prepared.vocabularies["item"]
    for name, items in (("stock", wishes.stock), ("deny", wishes.deny)):
        unknown = [item for item in items or () if known.id_of(item) < FIRST]
        if name == "stock" and items is not None and len(unknown) == len(items):
            what = f"holds none that the model knows, such as {unknown[0]!r}" if unknown else "is empty"
            raise SettingError(f"The stock {what}: nothing could be shown. It takes ids of items, one a line.")
        if unknown:
            count = f"{len(unknown):,} of {len(items or ()):,} items"
            say(f"{name}: the model does not know {count}, such as {unknown[0]!r}; it never shows them.")


def barred(wishes: Wishes, prepared: Prepared) -> NDArray[np.bool_]:
    """bool [items]: items that no list may hold."""
    vocabulary = prepared.vocabularies["item"]
    out = np.zeros(len(vocabulary), bool)
    if wishes.stock is not None:
        out[:] = True
        out[[vocabulary.id_of(item) for item in wishes.stock]] = False
    out[[vocabulary.id_of(item) for item in wishes.deny]] = True
    out[:FIRST] = True
    return out


def item_lists(
    scores: NDArray[np.float32],
    asked: Histories,
    wishes: Wishes,
    out: NDArray[np.bool_],
    vectors: NDArray[np.float32] | None,
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """The lists of Q questions: ids int32 [Q, k], 0 where nothing is left, and their scores.

    vectors : float32 [items, d], item vectors for diversity (maximal marginal relevance, Carbonell & Goldstein 1998)
    """
    allowed = scores.copy()
    allowed[:, out] = -np.inf
    ids, values = top_k(allowed, pool(wishes), asked if wishes.only_new else None)
    return unlike(ids, values, wishes, vectors)


def left_of(
    found: NDArray[np.int32], scores: NDArray[np.float32], asked: Histories, wishes: Wishes, out: NDArray[np.bool_]
) -> tuple[NDArray[np.int32], NDArray[np.float32], NDArray[np.int64]]:
    """What lists may be chosen from, of candidates [Q, C], best first: ids [Q, pool], and scores, −∞ where none is.

    Also int64 [Q]: how many of the candidates the wishes left.
    """
    gone = out[found]
    if wishes.only_new:
        row = np.arange(len(found), dtype=np.int64)[:, None] * len(out)
        gone |= np.isin(row + found, np.repeat(row[:, 0], np.diff(asked.offsets)) + asked.item)
    order, left = np.argsort(gone, axis=1, kind="stable")[:, : pool(wishes)], (~gone).sum(axis=1)
    gone = np.take_along_axis(gone, order, 1)
    ids, values = np.take_along_axis(found, order, 1), np.take_along_axis(scores, order, 1)
    return np.where(gone, 0, ids), np.where(gone, -np.inf, values).astype(np.float32), left


def pool(wishes: Wishes) -> int:
    """How many of the best items a list is chosen from."""
    return wishes.k * (5 if wishes.diversity else 1)


def unlike(
    ids: NDArray[np.int32], values: NDArray[np.float32], wishes: Wishes, vectors: NDArray[np.float32] | None
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Lists [Q, k] of what they may be chosen from, ids and scores [Q, pool], best first; with `vectors` unlike."""
    if vectors is None:
        return ids[:, : wishes.k], values[:, : wishes.k]
    chosen_ids, chosen_values = (
        np.zeros((len(ids), wishes.k), np.int32),
        np.full((len(ids), wishes.k), -np.inf, np.float32),
    )
    for row in range(len(ids)):
        pick = _diverse(values[row], vectors[ids[row]], ids[row] > 0, wishes)
        chosen_ids[row, : len(pick)], chosen_values[row, : len(pick)] = ids[row, pick], values[row, pick]
    return chosen_ids, chosen_values


def _diverse(
    values: NDArray[np.float32], vectors: NDArray[np.float32], there: NDArray[np.bool_], wishes: Wishes
) -> list[int]:
    count = int(there.sum())
    if count == 0:
        return []
    span = float(values[:count].max() - values[:count].min()) or 1.0
    standing = (values[:count] - values[:count].min()) / span
    unit = vectors[:count] / np.maximum(np.linalg.norm(vectors[:count], axis=1, keepdims=True), 1e-9)
    alike = unit @ unit.T
    picked: list[int] = []
    while len(picked) < min(wishes.k, count):
        nearest = alike[:, picked].max(axis=1) if picked else np.zeros(count)
        score = (1 - wishes.diversity) * standing - wishes.diversity * nearest
        score[picked] = -np.inf
        picked.append(int(score.argmax()))
    return picked


@dataclass(frozen=True)
class ShownItem:
    """One recommended item.

    reasons  : facts of the history or of the log, in words
    evidence : ids in the log of the user's own events behind the reasons; of a history from a file, numbers in it
    source   : the model that thinks most of the item: where several were asked, that in whose list it stands highest
    """

    item: str
    score: float
    reasons: list[str]
    evidence: list[int]
    source: str


@dataclass(frozen=True)
class Recommendation:
    """The answer of the task `recommend` for one user."""

    user: str
    as_of: str
    items: list[ShownItem]
    tags: list[str]


@dataclass(frozen=True)
class EventProbability:
    event: str
    probability: float


@dataclass(frozen=True)
class ItemScore:
    item: str
    score: float


@dataclass(frozen=True)
class TimeToNext:
    """Seconds from `as_of`, given that nothing came since the last event; None for a log without times."""

    median_s: float | None
    p10_s: float | None
    p90_s: float | None


@dataclass(frozen=True)
class NextEventAnswer:
    """The answer of the task `next_event` for one user."""

    user: str
    as_of: str
    events: list[EventProbability]
    items: list[ItemScore]
    time_to_next: TimeToNext


def recommendation(
    user: str,
    as_of_us: int,
    ids: NDArray[np.int32],
    scores: NDArray[np.float32],
    facts: Sequence[Sequence[Reason]],
    sources: Sequence[str],
    prepared: Prepared,
) -> Recommendation:
    """The answer that holds a list of known items, with what speaks for each and the source that thinks most of it."""
    name = prepared.vocabularies["item"].value_of
    items = [
        ShownItem(name(int(item)), float(score), *told(found), source)
        for item, score, found, source in zip(ids, scores, facts, sources, strict=True)
    ]
    return Recommendation(user, moment(as_of_us), items, [])


def next_event_answer(
    user: str, as_of_us: int, predicted: EventPrediction, row: int, k: int, prepared: Prepared, timed: bool
) -> NextEventAnswer:
    """The answer for row `row` of a prediction."""
    types = prepared.vocabularies["event"]
    probability = predicted.types[row, FIRST:]
    order = np.argsort(-probability, kind="stable")
    events = [EventProbability(types.value_of(int(t) + FIRST), float(probability[t])) for t in order]
    ids, scores = top_k(predicted.scores[row : row + 1], k, None)
    items = [
        ItemScore(prepared.vocabularies["item"].value_of(int(i)), float(s))
        for i, s in zip(ids[0], scores[0], strict=True)
        if i
    ]
    return NextEventAnswer(user, moment(as_of_us), events, items, waiting(predicted.waits[row], timed))


def waiting(quantiles: NDArray[np.float64], timed: bool) -> TimeToNext:
    """Median and the interval that holds the truth eight times in ten."""
    if not timed:
        return TimeToNext(None, None, None)
    p10, median, p90 = np.interp([0.1, 0.5, 0.9], LEVELS, quantiles)
    return TimeToNext(float(median), float(p10), float(p90))


def moment(time_us: int) -> str:
    """A moment in microseconds as ISO 8601."""
    return iso(datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=time_us))
