"""Answers for users of the log, for strangers with a history, and for everybody at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from desireline.core.errors import UnknownUserError
from desireline.events.cut import cut
from desireline.events.histories import behaviour, histories_before
from desireline.events.store import EventStore
from desireline.selection.fitted import Fitted, Panel, thoughts
from desireline.selection.leaving import leaving, leaving_all
from desireline.selection.lists import item_vectors, lists
from desireline.selection.strangers import FALLBACK, said_of
from desireline.selection.suspects import answer_of, answer_once, answers_of, look
from desireline.sequences.encode import encode_events, encode_with_ids
from desireline.sequences.prepared import iso, to_us
from desireline.sequences.vocabulary import FIRST
from desireline.tasks.anomaly.cards import AnomalyAnswer
from desireline.tasks.anomaly.task import Anomaly
from desireline.tasks.answers import (
    NextEventAnswer,
    Recommendation,
    Wishes,
    asked_by_nobody,
    asked_now,
    barred,
    item_lists,
    next_event_answer,
    recommendation,
)
from desireline.tasks.churn.answers import ChurnAnswer
from desireline.tasks.churn.task import Churn
from desireline.tasks.questions import Questions, item_histories, without_known_item
from desireline.tasks.reasons import Own, Reason, reasons
from desireline.tasks.recommend import Recommend

FAR = 100  # a place beyond it says nothing for an item

Answer = Recommendation | NextEventAnswer | ChurnAnswer | AnomalyAnswer


def answer(
    fitted: Fitted, events: pl.DataFrame, user: str, as_of: datetime, wishes: Wishes, stranger: bool = False
) -> Answer:
    """The answer for one user from an event frame of that user.

    stranger : not a user of the log, so that recommend answers without any event too. Raises UnknownUserError when no
    event lies before `as_of` otherwise.
    """
    history = behaviour(cut(events, as_of)[0], fitted.prepared.schema)
    if fitted.task.name == Churn.name:
        told = leaving(fitted, history, as_of)
        if told is None:
            raise no_history(user, as_of)
        return told
    if fitted.task.name == Anomaly.name:
        if history.height == 0:
            raise no_history(user, as_of)
        if stranger:
            return answer_once(fitted, history, user, as_of)
        found = look(fitted.prepared.workspace, fitted, as_of)
        return answer_of(found, str(history["user"][0]), as_of)
    sequences, event_ids = encode_with_ids(history, fitted.prepared)
    questions = asked_now(sequences, to_us(as_of))
    if len(questions) == 0 and stranger and fitted.task.name == Recommend.name:
        questions = asked_by_nobody(sequences, user, to_us(as_of))
    if len(questions) == 0:
        raise no_history(user, as_of)
    if fitted.task.name == "next_event":
        _, _, predicted = next(fitted.predictions(questions))
        return next_event_answer(user, to_us(as_of), predicted, 0, wishes.k, fitted.prepared, _timed(fitted))
    panel, thought = fitted.predictor, None
    if isinstance(panel, Panel) and not without_known_item(questions)[0]:
        ((_, _, thought),) = thoughts(panel.sources, questions)  # asked once, for the scores and for the reasons
        asked, predicted = item_histories(questions), panel.judge(thought, item_histories(questions))
        ids, scores = item_lists(
            predicted, asked, wishes, barred(wishes, fitted.prepared), item_vectors(fitted, wishes)
        )
    else:
        ((_, _, ids, scores),) = lists(fitted, questions, wishes)
    there = ids[0] > 0
    facts, sources = explained(fitted, questions, event_ids, ids[0, there], thought)
    return recommendation(user, to_us(as_of), ids[0, there], scores[0, there], facts, sources, fitted.prepared)


def no_history(user: str, as_of: datetime) -> UnknownUserError:
    """The error for a user of whom nothing can be read."""
    return UnknownUserError(
        f"User {user!r} has no event before {iso(as_of)} that cleaning leaves: there is no history to answer "
        "from. Give one with --history FILE."
    )


def explained(
    fitted: Fitted,
    questions: Questions,
    event_ids: NDArray[np.int64],
    ids: NDArray[np.int32],
    thought: Sequence[NDArray[np.float32]] | None,
) -> tuple[list[list[Reason]], list[str]]:
    """For each item of one question's list what speaks for it, and the source that thinks most of it.

    event_ids : int64 [N], the ids in the log of the question's events
    thought : float32 [1, items] each, what a panel's sources think of every item
    """
    facts = reasons(ids.tolist(), Own.of(questions, 0, event_ids), fitted.prepared, _timed(fitted))
    if without_known_item(questions)[0]:
        return [[Reason(said_of(questions), []), *found] for found in facts], [FALLBACK] * len(ids)
    if thought is None or not isinstance(fitted.predictor, Panel):
        return facts, [fitted.name] * len(ids)
    sources, places = thought_most([source.name for source in fitted.predictor.sources], thought, ids)
    return [[*found, Reason(place, [])] for found, place in zip(facts, places, strict=True)], sources


def thought_most(
    names: Sequence[str], thought: Sequence[NDArray[np.float32]], ids: NDArray[np.int32]
) -> tuple[list[str], list[str]]:
    """For each item of one question's list the source that thinks most of it; its place there and at the next."""
    places = np.stack([(logs[0, FIRST:] > logs[0, ids][:, None]).sum(axis=1) + 1 for logs in thought], axis=1)
    sources, words = [], []
    for row in places:
        first, *second = np.argsort(row, kind="stable")[:2].tolist()
        also = "".join(f", {names[s]} at {row[s]}" for s in second if row[s] <= FAR)
        sources.append(names[first])
        words.append(f"{names[first]} has it at place {row[first]}{also}")
    return sources, words


def answer_all(folder: Path, fitted: Fitted, as_of: datetime, wishes: Wishes) -> Iterator[pl.DataFrame]:
    """The answers for every user with an event before `as_of`, a frame for each range of buckets; bounded memory."""
    if fitted.task.name == Churn.name:
        yield from leaving_all(folder, fitted, as_of)
        return
    if fitted.task.name == Anomaly.name:
        yield answers_of(folder, look(folder, fitted, as_of), fitted, as_of)
        return
    store = EventStore(folder, fitted.prepared.schema)
    for history in histories_before(store, as_of, f"{fitted.task.name}: answering"):
        questions = asked_now(encode_events(history, fitted.prepared), to_us(as_of))
        if len(questions):
            yield from _frames(fitted, questions, wishes)


def _frames(fitted: Fitted, questions: Questions, wishes: Wishes) -> Iterator[pl.DataFrame]:
    users = questions.timeline.users.gather(questions.user)
    items = fitted.prepared.vocabularies["item"].values
    if fitted.task.name == "next_event":
        for lo, hi, predicted in fitted.predictions(questions):
            yield _next_events(fitted, predicted, users[lo:hi], wishes)
        return
    for lo, hi, ids, scores in lists(fitted, questions, wishes):
        there = ids > 0
        rank = np.broadcast_to(np.arange(1, ids.shape[1] + 1, dtype=np.int32), ids.shape)
        yield pl.DataFrame(
            {
                "user": users[lo:hi].gather(np.repeat(np.arange(hi - lo), there.sum(axis=1))),
                "rank": rank[there],
                "item": items.gather(ids[there] - 2),
                "score": scores[there].astype(np.float64),
            }
        )


def _next_events(fitted: Fitted, predicted: Any, users: pl.Series, wishes: Wishes) -> pl.DataFrame:
    as_rows = [
        next_event_answer(str(user), 0, predicted, row, wishes.k, fitted.prepared, _timed(fitted))
        for row, user in enumerate(users)
    ]
    return pl.DataFrame(
        {
            "user": users,
            "events": [[{"event": e.event, "probability": e.probability} for e in a.events] for a in as_rows],
            "items": [[{"item": i.item, "score": i.score} for i in a.items] for a in as_rows],
            "median_s": [a.time_to_next.median_s for a in as_rows],
            "p10_s": [a.time_to_next.p10_s for a in as_rows],
            "p90_s": [a.time_to_next.p90_s for a in as_rows],
        },
        schema_overrides={
            "events": pl.List(pl.Struct({"event": pl.String, "probability": pl.Float64})),
            "items": pl.List(pl.Struct({"item": pl.String, "score": pl.Float64})),
            "median_s": pl.Float64,
            "p10_s": pl.Float64,
            "p90_s": pl.Float64,
        },
    )


def _timed(fitted: Fitted) -> bool:
    time = fitted.prepared.schema.time
    return time.column is not None and time.format != "position"
