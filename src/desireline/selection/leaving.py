"""Who leaves, of one user and of all: the answers of the task `churn`, with reasons, and what is at stake."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from desireline.core.errors import DataError, SettingError
from desireline.events.clean import Limits, clean
from desireline.schema.model import ChurnSettings
from desireline.selection.everybody import behaviour, histories_before
from desireline.selection.fitted import Fitted
from desireline.tasks.churn.answers import (
    GROUPS,
    ChurnAnswer,
    Explanation,
    churn_answer,
    churn_asked,
    explained,
    reasons,
    segments,
    value_edges_at,
)
from desireline.tasks.churn.baselines import ChurnBaseline
from desireline.tasks.churn.definition import Definition
from desireline.tasks.churn.questions import ChurnQuestions
from desireline.tasks.churn.snapshots import first_moment, snapshot
from desireline.tasks.churn.trial import behaviour_only

READ_BY_NETWORKS = ("recency", "frequency", "tenure", "breadth", "rhythm")


def check_definition(asked: ChurnSettings, fitted: Fitted) -> None:
    """Raise SettingError where settings ask for another definition of leaving than the model was made with."""
    made, plain = fitted.info["churn"], ChurnSettings()
    for name in ("by", "horizon_d", "gap_d", "active_d", "own_gaps"):
        wanted = getattr(asked, name)
        if wanted != getattr(plain, name) and wanted != made[name]:
            raise SettingError(
                f"churn.{name} is {wanted}, but {fitted.id} was made with {made[name]}: what leaving means is fixed "
                "when a model is made. Compare again with it."
            )


def leaving(fitted: Fitted, history: pl.DataFrame, as_of: datetime) -> ChurnAnswer | None:
    """The answer for the one user of a history before `as_of`; None when cleaning leaves no event of it."""
    questions = churn_asked(history, fitted.prepared, as_of)
    return _answer(fitted, questions, history) if len(questions) else None


def explanation(fitted: Fitted, events: pl.DataFrame, as_of: datetime) -> Explanation | None:
    """The answer for one user with every number behind it; None when cleaning leaves no event before `as_of`."""
    schema = fitted.prepared.schema
    history = behaviour(events, as_of, schema)
    questions = churn_asked(history, fitted.prepared, as_of)
    if len(questions) == 0:
        return None
    row, shares = questions.rows.row(0, named=True), _shares(fitted, questions)
    why = reasons(row, shares, history, schema, questions.of, _looks_at(fitted))
    return explained(_answer(fitted, questions, history), fitted.id, row, shares, why, schema)


def leaving_all(folder: Path, fitted: Fitted, as_of: datetime) -> Iterator[pl.DataFrame]:
    """`user, as_of, horizon_s, probability, segment` of every user with an event before `as_of`."""
    for questions in _questions(folder, fitted, as_of):
        yield pl.DataFrame(
            {
                "user": questions.rows["user"],
                "as_of": questions.rows["as_of"],
                "horizon_s": (questions.horizon_us + questions.of.gap_us) / 1e6,
                "probability": 1 / (1 + np.exp(-_log_odds(fitted, questions))),
                "segment": pl.Series(_segments(fitted, questions.rows), dtype=pl.String),
            }
        )


def effects(
    folder: Path, fitted: Fitted, as_of: datetime, treatment: str, effect: Callable[[pl.DataFrame], NDArray[np.float64]]
) -> pl.DataFrame:
    """Every user's `user, uplift`: the effect on a snapshot that, as in the experiment, sees no assignment."""
    schema, prepared = fitted.prepared.schema, fitted.prepared
    limits, of, begin = Limits.from_json(prepared.counts["limits"]), Definition.of(schema.churn), first_moment(prepared)
    parts = [pl.DataFrame(schema={"user": pl.String, "uplift": pl.Float64})]
    for history in histories_before(folder, schema, as_of, "churn: uplift"):
        rows = snapshot(
            clean(behaviour_only(history, treatment), schema.clean, limits).events, as_of, begin, schema, of
        )
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
    parts = []
    for questions in _questions(folder, fitted, as_of):
        known = questions.rows.select("user", value=pl.col("value_365d").fill_null(0.0).clip(0.0))
        probability = 1 / (1 + np.exp(-_log_odds(fitted, questions)))
        segment = pl.Series("segment", _segments(fitted, questions.rows), dtype=pl.String)
        parts.append(known.with_columns(pl.Series("probability", probability), segment))
    found = pl.concat(parts) if parts else pl.DataFrame()
    if found.height == 0 or not (found["value"] > 0).any():
        raise DataError(
            "No event of the last year has a value, so nobody knows what a user is worth: declare `value` in "
            "desireline.yaml."
        )
    return found


def _questions(folder: Path, fitted: Fitted, as_of: datetime) -> Iterator[ChurnQuestions]:
    for history in histories_before(folder, fitted.prepared.schema, as_of, "churn: answering"):
        questions = churn_asked(history, fitted.prepared, as_of)
        if len(questions):
            yield questions


def _answer(fitted: Fitted, questions: ChurnQuestions, history: pl.DataFrame) -> ChurnAnswer:
    row = questions.rows.row(0, named=True)
    schema, shares = fitted.prepared.schema, _shares(fitted, questions)
    why = reasons(row, shares, history, schema, questions.of, _looks_at(fitted))
    log_odds = float(_log_odds(fitted, questions)[0])
    return churn_answer(questions, 0, log_odds, _segments(fitted, questions.rows)[0], why)


def _log_odds(fitted: Fitted, questions: ChurnQuestions) -> NDArray[np.float64]:
    return np.concatenate([predicted for _, _, predicted in fitted.predictions(questions)])


def _shares(fitted: Fitted, questions: ChurnQuestions) -> dict[str, float] | None:
    return fitted.predictor.shares(questions.rows[:1]) if isinstance(fitted.predictor, ChurnBaseline) else None


def _looks_at(fitted: Fitted) -> tuple[str, ...]:
    if isinstance(fitted.predictor, ChurnBaseline):
        return fitted.predictor.scorer.looks_at or tuple(GROUPS)
    return READ_BY_NETWORKS


def _segments(fitted: Fitted, rows: pl.DataFrame) -> list[str]:
    """The segment of each row of a snapshot, by the values of those asked about at the model's cut."""
    of = Definition.of(fitted.prepared.schema.churn)
    return segments(rows, of, value_edges_at(fitted.prepared, of))
