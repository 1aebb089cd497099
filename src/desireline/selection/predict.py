"""Answers for users of the log, for strangers with a history, and for everybody at once."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from desireline.core.errors import DataError, UnknownUserError
from desireline.core.progress import progress
from desireline.events.cut import cut
from desireline.events.frame import BUCKETS
from desireline.events.store import EventStore
from desireline.selection.fitted import Fitted, Panel, thoughts
from desireline.sequences.encode import encode_events
from desireline.sequences.prepared import iso, to_us
from desireline.sequences.vocabulary import FIRST
from desireline.tasks.answers import (
    NextEventAnswer,
    Recommendation,
    Wishes,
    asked_now,
    barred,
    item_lists,
    next_event_answer,
    recommendation,
)
from desireline.tasks.churn.answers import (
    ChurnAnswer,
    Explanation,
    Reason,
    churn_answer,
    churn_asked,
    explained,
    reasons,
    segments,
    value_edges,
    yearly_value,
)
from desireline.tasks.churn.baselines import ChurnBaseline
from desireline.tasks.churn.definition import Definition
from desireline.tasks.churn.questions import ChurnQuestions
from desireline.tasks.churn.snapshots import is_asked, present_rows
from desireline.tasks.churn.task import Churn
from desireline.tasks.questions import Questions, item_histories
from desireline.training.network import Network

Answer = Recommendation | NextEventAnswer | ChurnAnswer


def answer(fitted: Fitted, events: pl.DataFrame, user: str, as_of: datetime, wishes: Wishes) -> Answer:
    """The answer for one user from an event frame of that user.

    Raises UnknownUserError when no event lies before `as_of`.
    """
    history = cut(events, as_of)[0]
    if fitted.prepared.schema.alias:
        history = history.filter(pl.col("event") != fitted.prepared.schema.alias.event)
    questions = _asked(fitted, history, as_of)
    if len(questions) == 0:
        raise UnknownUserError(
            f"User {user!r} has no event before {iso(as_of)} that cleaning leaves: there is no history to answer "
            "from. Give one with --history FILE."
        )
    for lo, _, predicted in fitted.predictions(questions):
        if isinstance(questions, ChurnQuestions):
            segment = churn_segments(fitted, questions.rows)[0]
            why = reasons_of(fitted, questions, history)
            return churn_answer(questions, 0, float(predicted[0]), segment, why)
        if fitted.task.name == "next_event":
            return next_event_answer(user, to_us(as_of), predicted, lo, wishes.k, fitted.prepared, _timed(fitted))
        ids, scores = item_lists(
            predicted, item_histories(questions), wishes, barred(wishes, fitted.prepared), item_vectors(fitted, wishes)
        )
        return recommendation(
            user, questions, 0, ids[0], scores[0], fitted.prepared, opinions(fitted, questions, ids[0])
        )
    raise AssertionError("a question was asked and not answered")


def _asked(fitted: Fitted, events: pl.DataFrame, as_of: datetime) -> Questions:
    """One question a user of an event frame of whole users, all before `as_of`."""
    if fitted.task.name == Churn.name:
        return churn_asked(events, fitted.prepared, as_of)
    return asked_now(encode_events(events, fitted.prepared), to_us(as_of))


def churn_segments(fitted: Fitted, rows: pl.DataFrame) -> list[str]:
    """The segment of each row of a snapshot, by the values of those asked about at the model's cut."""
    of = Definition.of(fitted.prepared.schema.churn)
    return segments(rows, of, value_edges(present_rows(fitted.prepared, of).filter(is_asked(of))))


def reasons_of(fitted: Fitted, questions: ChurnQuestions, history: pl.DataFrame) -> list[Reason]:
    """Why the first question's user is likely to leave or to stay."""
    schema, shares = fitted.prepared.schema, None
    if isinstance(fitted.predictor, ChurnBaseline):
        shares = fitted.predictor.shares(questions.rows[:1])
    return reasons(questions.rows.row(0, named=True), shares, history, schema, Definition.of(schema.churn))


def explanation(fitted: Fitted, events: pl.DataFrame, user: str, as_of: datetime) -> Explanation:
    """The answer for a user with every number behind it. Raises UnknownUserError as `answer` does."""
    history, schema = cut(events, as_of)[0], fitted.prepared.schema
    told = answer(fitted, events, user, as_of, Wishes())
    assert isinstance(told, ChurnAnswer)
    questions = churn_asked(history, fitted.prepared, as_of)
    shares = fitted.predictor.shares(questions.rows[:1]) if isinstance(fitted.predictor, ChurnBaseline) else None
    row, of = questions.rows.row(0, named=True), Definition.of(schema.churn)
    return explained(told, fitted.id, row, shares, reasons(row, shares, history, schema, of), schema)


def churn_risks(folder: Path, fitted: Fitted, as_of: datetime) -> pl.DataFrame:
    """Every user's `user, probability, segment` and yearly `value`. Raises DataError for a log without values."""
    parts = []
    for frame, questions in _answers(folder, fitted, as_of, Wishes()):
        assert isinstance(questions, ChurnQuestions)
        known = questions.rows.select(
            value_365d=pl.col("value_365d").fill_null(0.0), known=pl.col("days_since_first_return").fill_null(0.0)
        )
        parts.append(pl.concat([frame.select("user", "probability", "segment"), known], how="horizontal"))
    risks = pl.concat(parts) if parts else pl.DataFrame()
    if risks.height == 0 or not (risks["value_365d"] != 0).any():
        raise DataError(
            "No event of the last year has a value, so nobody knows what a user is worth: declare `value` in "
            "desireline.yaml."
        )
    value = yearly_value(risks["value_365d"].to_numpy(), risks["known"].to_numpy())
    return risks.select("user", "probability", "segment").with_columns(value=pl.Series(value))


def opinions(fitted: Fitted, questions: Questions, ids: NDArray[np.int32]) -> list[str]:
    """For each item of one question's list, the two sources of a panel that think most of it, and its place there."""
    if not isinstance(fitted.predictor, Panel):
        return []
    ((_, _, thought),) = thoughts(fitted.predictor.sources, questions)
    places = np.stack([(logs[0, FIRST:] > logs[0, ids][:, None]).sum(axis=1) + 1 for logs in thought], axis=1)
    names = [source.name for source in fitted.predictor.sources]
    told = []
    for row in places:
        first, *second = np.argsort(row, kind="stable")[:2].tolist()
        also = "".join(f", {names[s]} at {row[s]}" for s in second)
        told.append(f"{names[first]} has it at place {row[first]}{also}")
    return told


def answer_all(folder: Path, fitted: Fitted, as_of: datetime, wishes: Wishes) -> Iterator[pl.DataFrame]:
    """The answers for every user with an event before `as_of`, a frame for each range of buckets; bounded memory."""
    yield from (frame for frame, _ in _answers(folder, fitted, as_of, wishes))


def _answers(folder: Path, fitted: Fitted, as_of: datetime, wishes: Wishes) -> Iterator[tuple[pl.DataFrame, Questions]]:
    """Frames of answers, each with the questions that it answers some or all of."""
    store = EventStore(folder, fitted.prepared.schema)
    width = max(1, min(BUCKETS, int(BUCKETS * 200_000 / max(1, store.count()))))
    with progress(f"{fitted.task.name}: answering", store.count()) as advance:
        for bucket in range(0, BUCKETS, width):
            events = store.read_bucket(bucket, min(bucket + width, BUCKETS), before=as_of)
            read = events.height
            events = cut(events, as_of)[0]
            if fitted.prepared.schema.alias:
                events = events.filter(pl.col("event") != fitted.prepared.schema.alias.event)
            if events.height:
                questions = _asked(fitted, events, as_of)
                if len(questions):
                    yield from ((frame, questions) for frame in _frames(fitted, questions, wishes))
            advance(read)


def _frames(fitted: Fitted, questions: Questions, wishes: Wishes) -> Iterator[pl.DataFrame]:
    users = questions.timeline.users.gather(questions.user)
    if isinstance(questions, ChurnQuestions):
        odds = np.concatenate([predicted for _, _, predicted in fitted.predictions(questions)])
        yield pl.DataFrame(
            {
                "user": users,
                "as_of": questions.rows["as_of"],
                "horizon_s": (questions.horizon_us + questions.of.gap_us) / 1e6,
                "probability": 1 / (1 + np.exp(-odds)),
                "segment": pl.Series(churn_segments(fitted, questions.rows), dtype=pl.String),
            }
        )
        return
    out, vectors, items = (
        barred(wishes, fitted.prepared),
        item_vectors(fitted, wishes),
        fitted.prepared.vocabularies["item"].values,
    )
    for lo, hi, predicted in fitted.predictions(questions):
        if fitted.task.name == "next_event":
            yield _next_events(fitted, predicted, users[lo:hi], wishes)
            continue
        ids, scores = item_lists(predicted, item_histories(questions, lo, hi), wishes, out, vectors)
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


def item_vectors(fitted: Fitted, wishes: Wishes) -> NDArray[np.float32] | None:
    """Item vectors for diversity: a network's own table, else how users' histories overlap, as a truncated SVD."""
    if wishes.diversity == 0:
        return None
    if isinstance(fitted.predictor, Network):
        return np.asarray(fitted.predictor.embedding.item_vectors().detach().numpy(), np.float32)
    from scipy.sparse import csr_array
    from scipy.sparse.linalg import svds

    before = fitted.prepared.before
    item, rows = np.asarray(before["item"]), before.rows()
    shape = (len(fitted.prepared.vocabularies["item"]), len(before))
    had = csr_array((np.ones(int((item > 1).sum()), np.float32), (item[item > 1], rows[item > 1])), shape=shape)
    rank = min(64, min(shape) - 1)
    if rank < 1:
        raise DataError("A log of one user or one item has no similarities: set diversity to 0.")
    left, strength, _ = svds(had, k=rank, random_state=0)
    return np.asarray(left * strength, np.float32)


def _timed(fitted: Fitted) -> bool:
    time = fitted.prepared.schema.time
    return time.column is not None and time.format != "position"
