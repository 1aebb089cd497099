"""Who leaves, of one user and of all: the answers of the task `churn`, with reasons, and what is at stake."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from desireline.core.errors import DataError
from desireline.events.cut import cut
from desireline.events.histories import behaviour, histories_before
from desireline.events.store import EventStore
from desireline.selection.fitted import Fitted
from desireline.sequences.encode import cleaned
from desireline.tasks.churn.answers import (
    GROUPS,
    ChurnAnswer,
    Explanation,
    Reason,
    churn_answer,
    explained,
    reasons,
    segments,
    value_edges_at,
)
from desireline.tasks.churn.baselines import ChurnBaseline
from desireline.tasks.churn.definition import Definition
from desireline.tasks.churn.models import SEQUENCE
from desireline.tasks.churn.questions import ChurnQuestions, churn_asked
from desireline.tasks.churn.snapshots import snapshot
from desireline.tasks.churn.trial import behaviour_only

READ_BY_NETWORKS = ("recency", "frequency", "tenure", "breadth", "rhythm")


def leaving(fitted: Fitted, history: pl.DataFrame, as_of: datetime) -> ChurnAnswer | None:
    """The answer for the one user of a history before `as_of`; None when cleaning leaves no event of it."""
    questions = churn_asked(history, fitted.prepared, as_of)
    if len(questions) == 0:
        return None
    shares = _shares(fitted, questions)
    return _answer(fitted, questions, shares, _why(fitted, questions, shares, history))


def explanation(fitted: Fitted, events: pl.DataFrame, as_of: datetime) -> Explanation | None:
    """The answer for one user with every number behind it; None when cleaning leaves no event before `as_of`."""
    schema = fitted.prepared.schema
    history = behaviour(cut(events, as_of)[0], schema)
    questions = churn_asked(history, fitted.prepared, as_of)
    if len(questions) == 0:
        return None
    shares = _shares(fitted, questions)
    why = _why(fitted, questions, shares, history)
    row = questions.rows.row(0, named=True)
    return explained(_answer(fitted, questions, shares, why), fitted.id, row, shares, why, schema)


def leaving_all(folder: Path, fitted: Fitted, as_of: datetime) -> Iterator[pl.DataFrame]:
    """`user, as_of, horizon_s, probability, segment` of every user with an event before `as_of`."""
    for questions in _questions(folder, fitted, as_of):
        yield questions.rows.select(
            "user",
            "as_of",
            horizon_s=(pl.col("horizon_us") + questions.of.gap_us) / 1e6,
            probability=pl.Series(_probability(fitted, questions)),
            segment=pl.Series(_segments(fitted, questions.rows), dtype=pl.String),
        )


def effects(
    folder: Path, fitted: Fitted, as_of: datetime, treatment: str, effect: Callable[[pl.DataFrame], NDArray[np.float64]]
) -> pl.DataFrame:
    """Every user's `user, uplift`: the effect on a snapshot that, as in the experiment, sees no assignment."""
    prepared = fitted.prepared
    of = Definition.of(prepared.schema.churn)
    parts = [pl.DataFrame(schema={"user": pl.String, "uplift": pl.Float64})]
    for history in histories_before(EventStore(folder, prepared.schema), as_of, "churn: uplift"):
        events = cleaned(behaviour_only(history, treatment), prepared)
        rows = snapshot(events, as_of, prepared.begin, prepared.schema, of)
        parts.append(rows.select("user", uplift=pl.Series(effect(rows), dtype=pl.Float64)))
    return pl.concat(parts)


def risks(folder: Path, fitted: Fitted, as_of: datetime) -> pl.DataFrame:
    """Every user's `user`, `value` of the last year, `probability` and `segment`.

    Raises DataError for a log without values, and where horizons are not the same for all.
    """
    if Definition.of(fitted.prepared.schema.churn).own_gaps is not None:
        raise DataError(
            "With churn.own_gaps everybody has a horizon of their own, and being away for one is no loss of a year: "
            "compare without it before you decide."
        )
    parts = [
        questions.rows.select(
            "user",
            value=pl.col("value_365d").fill_null(0.0).clip(0.0),
            probability=pl.Series(_probability(fitted, questions)),
            segment=pl.Series(_segments(fitted, questions.rows), dtype=pl.String),
        )
        for questions in _questions(folder, fitted, as_of)
    ]
    found = pl.concat(parts) if parts else pl.DataFrame()
    if found.height == 0 or not (found["value"] > 0).any():
        raise DataError(
            "No event of the last year has a value, so nobody knows what a user is worth: declare `value` in "
            "desireline.yaml."
        )
    return found


def _questions(folder: Path, fitted: Fitted, as_of: datetime) -> Iterator[ChurnQuestions]:
    for history in histories_before(EventStore(folder, fitted.prepared.schema), as_of, "churn: answering"):
        questions = churn_asked(history, fitted.prepared, as_of)
        if len(questions):
            yield questions


def _answer(
    fitted: Fitted, questions: ChurnQuestions, shares: dict[str, float] | None, why: list[Reason]
) -> ChurnAnswer:
    log_odds, unnamed = float(_log_odds(fitted, questions)[0]), (shares or {}).get(SEQUENCE)
    return churn_answer(questions, 0, log_odds, _segments(fitted, questions.rows)[0], why, unnamed)


def _why(
    fitted: Fitted, questions: ChurnQuestions, shares: dict[str, float] | None, history: pl.DataFrame
) -> list[Reason]:
    row, predictor = questions.rows.row(0, named=True), fitted.predictor
    known = predictor.scorer.looks_at or tuple(GROUPS) if isinstance(predictor, ChurnBaseline) else READ_BY_NETWORKS
    return reasons(row, shares, history, fitted.prepared.schema, questions.of, known)


def _log_odds(fitted: Fitted, questions: ChurnQuestions) -> NDArray[np.float64]:
    return np.concatenate([predicted for _, _, predicted in fitted.predictions(questions)])


def _probability(fitted: Fitted, questions: ChurnQuestions) -> NDArray[np.float64]:
    return np.asarray(1 / (1 + np.exp(-_log_odds(fitted, questions))), np.float64)


def _shares(fitted: Fitted, questions: ChurnQuestions) -> dict[str, float] | None:
    return fitted.predictor.shares(questions) if isinstance(fitted.predictor, ChurnBaseline) else None


def _segments(fitted: Fitted, rows: pl.DataFrame) -> list[str]:
    """The segment of each row of a snapshot, by the values of those asked about at the model's cut."""
    of = Definition.of(fitted.prepared.schema.churn)
    return segments(rows, of, value_edges_at(fitted.prepared, of))
