"""Anomaly: who does not behave like people who shop.

Networks learn next behaviour (`tasks/next_event.py`) and are asked here how surprised they are. Everything else is
measured off the log as it stands when it is asked, so nothing is fitted and every row of a table is as old as the log.
A log has no labels: a row is tested on attacks planted in the window after the cut (`questions.py`), with a control
that must stay at chance. Planted attacks are as good as whoever thought of them: the figures compare rows, they do not
say what share of real fraud is caught.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray
from torch import nn

from desireline.core.errors import DataError
from desireline.evaluation.binary import placements
from desireline.evaluation.detection import auroc, detection_metrics
from desireline.evaluation.result import Metric
from desireline.events.store import EventStore
from desireline.schema.model import Schema
from desireline.sequences.prepared import Prepared
from desireline.tasks.anomaly.fact import KINDS
from desireline.tasks.anomaly.facts import FACTS
from desireline.tasks.anomaly.peers import upper_tail
from desireline.tasks.anomaly.questions import NOT_PLANTED, AnomalyQuestions, anomaly_questions, surprises
from desireline.tasks.anomaly.scan import Scan
from desireline.tasks.anomaly.surprise_facts import FACTS as SURPRISES
from desireline.tasks.anomaly.surprise_facts import surprise_facts
from desireline.tasks.anomaly.suspicion import BANDS, Suspicion, suspicion
from desireline.tasks.interface import Baseline, Chunks, Measured
from desireline.tasks.next_event import NextEvent
from desireline.tasks.stages import Stage
from desireline.training.network import Network

CAPACITY = 100  # accounts that a test's people look at


class Anomaly:
    """See the module."""

    name = "anomaly"
    protocols: tuple[str, ...] = ("temporal",)
    cheapest: tuple[str, ...] = ("trivial", "facts+groups")
    encoders: tuple[str, ...] = ("gru",)
    unasked: Literal["fit", "compare"] = "fit"
    adaptation = None
    teacher = NextEvent()

    def settled(self, folder: Path, schema: Schema, at: datetime, named: bool) -> tuple[Schema, datetime]:
        """The window is as long as what the cut holds out, so that what is tested is what answers later."""
        if schema.time.column is None or schema.time.format == "position":
            raise DataError(
                "This log has an order but no times: bursts, rhythms and rings cannot be seen in it. Name the column "
                "with the time (time.column in desireline.yaml) if there is one."
            )
        if schema.anomaly.window_d is not None:
            return schema, at
        days = (EventStore(folder, schema).observed_end() - at) / timedelta(days=1)
        asked = schema.anomaly.model_copy(update={"window_d": max(days, 1 / 24)})
        return schema.model_copy(update={"anomaly": asked}), at

    def earlier_cut(self, schema: Schema, at: datetime) -> datetime | None:
        return None

    def notes(self, prepared: Prepared) -> list[str]:
        return [
            "Tested on planted attacks: the log names no fraud. Figures compare rows; they are no share of real fraud.",
            "AUROC placebo is of accounts replayed without malice: a detector that tells them from real ones reads "
            "traces of the planting.",
        ]

    def primary(self, prepared: Prepared) -> str:
        return "AUROC"

    def is_loss(self, metric: str) -> bool:
        return False

    def heads(self, prepared: Prepared, d_model: int) -> nn.Module:
        return self.teacher.heads(prepared, d_model)

    def questions(self, stage: Stage, schema: Schema) -> AnomalyQuestions:
        return anomaly_questions(stage, schema)

    def network_predictions(self, network: Network, questions: AnomalyQuestions) -> Chunks:
        """A Suspicion of all accounts."""
        if len(questions):
            yield 0, len(questions), surprised(network, questions)

    def measure(self, chunks: Chunks, questions: AnomalyQuestions, schema: Schema, masks_seen: bool) -> Measured:
        score = np.concatenate([predicted.score for _, _, predicted in chunks]) if len(questions) else np.zeros(0)
        truth = questions.truth
        arrays: dict[str, NDArray[Any]] = {
            "score": score,
            "truth": truth,
            "user": questions.user,
            "family": questions.family.to_numpy(),
        }
        return Measured(questions.user, {"AUROC": placements(score, truth)}, arrays)

    def metrics(self, measured: Measured, resamples: int, seed: int) -> dict[str, Metric]:
        score, truth, user, family = (measured.arrays[n] for n in ("score", "truth", "user", "family"))
        found = detection_metrics(score, truth, user, CAPACITY, resamples, seed, rankings(measured))
        for name in sorted(set(family) - {NOT_PLANTED}):
            here = (family == name) | (family == NOT_PLANTED)
            planted = (family[here] == name).astype(np.float64)
            found[f"AUROC {name}"] = auroc(score[here], planted, user[here], resamples, seed)
        return found

    def plots(self, measured: Measured) -> dict[str, Any]:
        return {"bands": bands(measured.arrays["score"], measured.arrays["truth"], rankings(measured))}

    def baselines(self, prepared: Prepared, schema: Schema) -> dict[str, list[dict[str, Any]]]:
        return {name: [{}] for name in RULES}

    def baseline(self, name: str, constants: dict[str, Any], schema: Schema, prepared: Prepared) -> Baseline:
        return Rule(RULES[name])


class Rule:
    """A way to read a scan that learns nothing."""

    parameters = 0

    def __init__(self, judge: Callable[[Scan], Suspicion]) -> None:
        self.judge = judge

    def fit(self, stage: Stage) -> None:
        """Nothing is learnt: what is rare is measured off the log that is asked about."""

    def predictions(self, questions: AnomalyQuestions) -> Chunks:
        """A Suspicion of all accounts."""
        if len(questions):
            yield 0, len(questions), self.judge(questions.scan)

    def state(self) -> dict[str, NDArray[Any]]:
        return {}

    def load(self, state: dict[str, NDArray[Any]]) -> None:
        """There is nothing to take back."""


def trivial(found: Scan) -> Suspicion:
    """How much an account does, and nothing else: what an honest test must not be won by."""
    judged = found.actions.judged.lazy()
    by_day = (
        judged.group_by("account", day=pl.col("time").dt.date()).len().group_by("account").agg(busiest=pl.max("len"))
    )
    plain = judged.group_by("account").agg(n=pl.len(), targets=pl.col("target").n_unique())
    counts = plain.join(by_day, on="account").collect()
    rows = found.facts.select("account").join(counts, on="account", how="left", maintain_order="left")
    least = np.min([upper_tail(rows[name].to_numpy().astype(np.float64)) for name in ("n", "targets", "busiest")], 0)
    return Suspicion(np.ones((len(found), len(KINDS))), least, {}, rows)


def by_facts(found: Scan) -> Suspicion:
    """The measures of each account alone."""
    return suspicion(found.facts, FACTS, found.activity, None, found.old)


def by_groups(found: Scan) -> Suspicion:
    """The groups alone."""
    return suspicion(found.facts, {}, found.activity, found.grouped)


def by_both(found: Scan) -> Suspicion:
    """All that is seen without a network."""
    return suspicion(found.facts, FACTS, found.activity, found.grouped, found.old)


RULES: dict[str, Callable[[Scan], Suspicion]] = {
    "trivial": trivial,
    "account-facts": by_facts,
    "groups": by_groups,
    "facts+groups": by_both,
}


def surprised(network: Network, questions: AnomalyQuestions) -> Suspicion:
    """All that is seen, the network's surprise included."""
    found = questions.scan
    measures = pl.concat([found.facts, surprise_measures(network, questions)], how="horizontal")
    return suspicion(measures, FACTS | SURPRISES, found.activity, found.grouped, found.old)


def surprise_measures(network: Network, questions: AnomalyQuestions) -> pl.DataFrame:
    """A row an account of the questions' scan, a column a fact of the network's surprise."""
    told = surprise_facts(surprises(network, questions, questions.timeline))
    users = questions.scan.users.to_frame("user")
    return users.join(told, on="user", how="left", maintain_order="left").drop("user")


def rankings(measured: Measured) -> int:
    """Of how many seeds the arrays hold the answers, one after the other."""
    return len(measured.arrays["score"]) // max(1, len(measured.user))


def bands(score: NDArray[np.float64], truth: NDArray[np.float64], rankings: int = 1) -> list[dict[str, float]]:
    """Of accounts whose score lies in each of BANDS: how many there were in the test, and how many of them planted.

    rankings : of so many seeds, whose mean is told: an account is no more of a proof for being asked about twice
    """
    found = []
    for lo, hi in itertools.pairwise([*BANDS, float("inf")]):
        here = (score >= lo) & (score < hi)
        accounts, planted = (round(float(count) / rankings) for count in (here.sum(), truth[here].sum()))
        found.append({"from": lo, "accounts": accounts, "planted": planted})
    return found
