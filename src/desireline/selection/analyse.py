"""Where a model is right and where it fails: its primary metric by activity, recency, item frequency and event type."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from desireline.evaluation.binary import expected_calibration_error
from desireline.evaluation.intervals import user_interval
from desireline.sequences.vocabulary import FIRST
from desireline.tasks.churn.answers import segments, value_edges
from desireline.tasks.churn.definition import Definition
from desireline.tasks.churn.questions import ChurnQuestions
from desireline.tasks.interface import Measured
from desireline.tasks.questions import EventQuestions, ItemQuestions, Questions
from desireline.tasks.stages import Stage

HOUR_US = 3_600_000_000
ACTIVITY = {"1 event": 1, "2 to 5": 2, "6 to 20": 6, "21 to 100": 21, "more than 100": 101}  # least events so far
RECENCY = {"within the hour": 0, "within the day": 1, "within the week": 24, "within 30 days": 168, "later": 720}
FREQUENCY = {"never seen": 0, "1 to 5 times": 1, "6 to 50 times": 6, "more often": 51}  # least events before the cut
FILLED = 40  # questions to a bin of a calibration error: with fewer chance is all that it tells
LEAST = 10  # questions that a group needs to be told


def analyse(
    measured: Measured, questions: Questions, stage: Stage, primary: str, resamples: int, seed: int
) -> list[dict[str, Any]]:
    """Groups of questions: `by`, `group`, `questions`, and the primary metric's `value`, `low`, `high` over users.

    by : "activity", events of the user so far; "recency", time since the last one; "item frequency", of the target
    items before the cut, their median; "event type", what came; of churn "segment", tenure and value, with each one's
    mean `probability`, the share that `left`, and `ECE`
    """
    values, found = measured.values.get(primary), []
    if values is None:
        return []
    for by, names, group in _groupings(questions, stage):
        for number, name in enumerate(names):
            inside = (group == number) & np.isfinite(values)
            if inside.sum() >= LEAST:
                figure = user_interval(values[inside], measured.user[inside], resamples, seed)
                found.append(
                    {"by": by, "group": name, "questions": int(inside.sum())}
                    | {"value": figure.value, "low": figure.low, "high": figure.high}
                    | (_calibration(measured, inside) if by == "segment" else {})
                )
    return found


def _calibration(measured: Measured, inside: NDArray[np.bool_]) -> dict[str, float]:
    probability, truth = measured.arrays["probability"][inside], measured.arrays["truth"][inside]
    ece = expected_calibration_error(probability, truth, max(1, min(15, len(truth) // FILLED)))
    return {"probability": float(probability.mean()), "left": float(truth.mean()), "ECE": ece}


def _groupings(questions: Questions, stage: Stage) -> list[tuple[str, list[str], NDArray[np.int64]]]:
    """Name, groups, and each question's group (−1: none)."""
    timeline, schema = questions.timeline, stage.prepared.schema
    so_far = questions.place - timeline.offsets[questions.user] + 1
    found = [("activity", list(ACTIVITY), _binned(so_far, ACTIVITY, 1))]
    if schema.time.column is not None and schema.time.format != "position":
        since = questions.as_of - timeline["time"][questions.place]
        found.append(("recency", list(RECENCY), _binned(since, RECENCY, HOUR_US)))
    seen = np.bincount(np.asarray(stage.train["item"]), minlength=len(stage.prepared.vocabularies["item"]))
    if isinstance(questions, ChurnQuestions):
        told = segments(questions.rows, Definition.of(schema.churn), value_edges(questions.rows))
        names = sorted(set(told))
        found.append(("segment", names, np.array([names.index(name) for name in told], np.int64)))
    if isinstance(questions, ItemQuestions):
        offsets, counts = questions.targets.offsets, seen[questions.targets.item]
        counts[questions.targets.item == 1] = 0  # unknown before the cut
        middle = np.array([np.median(counts[lo:hi]) if hi > lo else -1 for lo, hi in pairwise(offsets)])
        found.append(("item frequency", list(FREQUENCY), _binned(middle, FREQUENCY, 1)))
    if isinstance(questions, EventQuestions):
        types = stage.prepared.vocabularies["event"]
        came = np.maximum(questions.event.astype(np.int64) - FIRST, -1)  # none, and a type unknown before the cut: −1
        found.append(("event type", types.values.to_list(), came))
    return found


def _binned(values: NDArray[Any], least: dict[str, int], unit: int) -> NDArray[np.int64]:
    edges = np.array(list(least.values())) * unit
    return np.asarray(np.searchsorted(edges, values, side="right") - 1, np.int64)
