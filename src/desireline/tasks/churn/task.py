"""Churn: who will not come back within the horizon.

A question is a user as of a stage's cut; its answer is known once the horizon is over. Networks learn how long it takes
until somebody comes back, from every occasion of every user (`training/hazard.py`): one model for every horizon; or
they learn next behaviour, and trees read their states (`adaptation.py`). Everything else learns from users as of past
moments (`snapshots.py`). All rows get their level from the past by the same rule (`season.py`), so that a table
compares what they know and not how they are set.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from desireline.core.errors import DataError
from desireline.core.progress import say
from desireline.evaluation.binary import binary_metrics, binary_values, gains_points, placements
from desireline.evaluation.classification import reliability_points
from desireline.evaluation.result import Metric
from desireline.events.store import EventStore
from desireline.schema.model import Schema, TrainSettings
from desireline.sequences.prepared import Prepared, iso, prepare
from desireline.sequences.ragged import Sequences
from desireline.tasks.churn.adaptation import OnNextBehaviour
from desireline.tasks.churn.baselines import SCORERS, ChurnBaseline
from desireline.tasks.churn.definition import (
    DAY_US,
    Definition,
    is_return,
    occasions_upto,
    one_an_occasion,
    settled,
    told,
)
from desireline.tasks.churn.models import logistic
from desireline.tasks.churn.questions import ChurnQuestions, churn_questions
from desireline.tasks.interface import Baseline, Chunks, Measured
from desireline.tasks.stages import Stage
from desireline.training.device import beside, fetched
from desireline.training.hazard import HAZARDS, Hazard
from desireline.training.network import Network

TRIES = 5  # to find a cut whose own horizon ends before the log does


@dataclass(frozen=True)
class ReturnLabels:
    """From the event that stands for an occasion: days until the user is back, or until observation ended.

    wait_d : float32 [N], nan at events that stand for none;  ended : bool [N], whether the user came back
    """

    wait_d: NDArray[np.float32]
    ended: NDArray[np.bool_]


class Churn:
    """See the module."""

    name = "churn"
    protocols: tuple[str, ...] = ("temporal",)
    cheapest: tuple[str, ...] = ("recency", "aggregates+lightgbm")
    encoders: tuple[str, ...] = ("gru",)  # of a few thousand users' silences the others learn no more
    unasked: Literal["fit", "compare"] = "compare"  # trees are the better guess, and only a table knows
    adaptation = OnNextBehaviour()
    default_neighbours = 0

    @property
    def teacher(self) -> Churn:
        return self

    def primary(self, prepared: Prepared) -> str:
        return "AUROC"  # by placements: no row is chosen for having guessed the season's level

    def is_loss(self, metric: str) -> bool:
        return metric in ("log-loss", "Brier", "ECE")

    def settled(self, folder: Path, schema: Schema, at: datetime, named: bool) -> tuple[Schema, datetime]:
        """The definition, read off what lies before the cut, and the newest cut whose horizon the log holds.

        named : whether the user named the cut, which then is not moved. Raises DataError when its horizon passes the
        log's end, so that nobody can be labelled.
        """
        store = EventStore(folder, schema)
        first, last = store.span()[0], store.observed_end()
        own = settled_at(folder, schema, at)
        if at > last - Definition.of(own.churn).span and named:
            raise DataError(
                f"The horizon of {_days(own)} after the cut {iso(at)} passes the log's last event ({iso(last)}): who "
                f"has left by then cannot be known. Name a cut up to {iso(last - Definition.of(own.churn).span)}, or a "
                "shorter --set churn.horizon_d."
            )
        moved = at
        for _ in range(TRIES):  # an earlier cut sees fewer events, and may so have another horizon
            if moved <= last - Definition.of(own.churn).span:
                break
            moved = max(_midnight(last - Definition.of(own.churn).span), first + timedelta(microseconds=1))
            own = settled_at(folder, schema, moved)
        if moved != at:
            say(f"The cut moves to {iso(moved)}: the horizon of {_days(own)} must end before the log does.")
        if moved < first + 3 * Definition.of(own.churn).span:
            longest = (moved - first) / timedelta(days=1) / 3
            raise DataError(
                f"The log begins {iso(first)}, and before the cut {iso(moved)} churn needs three horizons of "
                f"{_days(own)}: one of history, one to learn from, one to choose by. Set a shorter one (--set "
                f"churn.horizon_d, at most {longest:.3g} days here)."
            )
        return own, moved

    def earlier_cut(self, schema: Schema, at: datetime) -> datetime | None:
        """The validation's cut: its horizon ends at the test's."""
        return at - Definition.of(schema.churn).span

    def notes(self, prepared: Prepared) -> list[str]:
        return [told(prepared.before, prepared.schema)]

    def read(self, sequences: Sequences, schema: Schema) -> Sequences:
        """One event an occasion: when people come says more of whether they will than what lay in a basket.

        A shop's invoice of twenty lines is one event then, and the network reads a twentieth of the log.
        """
        return sequences.take(one_an_occasion(sequences, Definition.of(schema.churn)))

    def heads(self, prepared: Prepared, d_model: int) -> nn.Module:
        return nn.ModuleDict({"hazard": HAZARDS[prepared.schema.churn.hazard](d_model)})

    def start(self, network: Network, labels: ReturnLabels) -> None:
        known = np.isfinite(labels.wait_d)
        _hazard(network).fit(torch.from_numpy(labels.wait_d[known]), torch.from_numpy(labels.ended[known]))

    def labels(self, train: Sequences, end_us: int | None, schema: Schema) -> ReturnLabels:
        of = Definition.of(schema.churn)
        if end_us is None:
            raise DataError("Churn needs a cut in time: leave-one-out knows none. Use --protocol temporal.")
        time, n, owner = np.asarray(train["time"]), train.events, train.rows()
        last = one_an_occasion(train, of)
        back = np.flatnonzero(is_return(train, of.by))
        after = np.searchsorted(back, np.arange(n), side="right")
        found = np.append(back, n)[after]
        ended = np.append(owner, -1)[found] == owner
        wait = np.where(ended, np.append(time, 0)[found], end_us) - time
        return ReturnLabels(np.where(last, wait / DAY_US, np.nan).astype(np.float32), ended)

    def count(self, labels: ReturnLabels) -> int:
        return int(np.isfinite(labels.wait_d).sum())

    def loss(
        self, network: Network, hidden: Tensor, places: NDArray[np.int64], labels: ReturnLabels, settings: TrainSettings
    ) -> tuple[Tensor, int]:
        wait = labels.wait_d[places]
        kept = np.isfinite(wait)
        if not kept.any():
            return hidden.sum() * 0.0, 0
        value = _hazard(network).loss(
            hidden.index_select(0, beside(hidden, np.flatnonzero(kept))),
            beside(hidden, wait[kept]),
            beside(hidden, labels.ended[places][kept]),
        )
        return value, int(kept.sum())

    def calibrate(self, network: Network, measured: Measured) -> None:
        known = np.isfinite(measured.arrays["truth"])
        if len(np.unique(measured.arrays["truth"][known])) < 2:
            return
        odds, level = measured.arrays["log odds"][known], measured.arrays["level"][known]
        shift, scale = logistic(odds[:, None], measured.arrays["truth"][known], offset=level)
        hazard = _hazard(network)  # its own shift and scale are 0 and 1 until now
        hazard.shift.fill_(float(shift))
        hazard.scale.fill_(max(float(scale), 0.1))

    def inherit(self, network: Network, older: Network) -> None:
        _hazard(network).scale.copy_(_hazard(older).scale)
        _hazard(network).shift.copy_(_hazard(older).shift)

    def questions(self, stage: Stage, schema: Schema) -> ChurnQuestions:
        return churn_questions(stage, Definition.of(schema.churn), schema.churn.dates)

    def network_predictions(self, network: Network, questions: ChurnQuestions) -> Chunks:
        read, newest = occasions_upto(questions.timeline, questions.user, questions.place, questions.of)
        hidden = network.encode(read, newest)
        silent = (questions.as_of - read["time"][newest]) / DAY_US
        until = silent + (questions.of.gap_us + questions.horizon_us) / DAY_US
        hazard = _hazard(network)
        with torch.inference_mode():
            odds = hazard.log_odds_away(hidden, beside(hidden, silent), beside(hidden, until))
        yield 0, len(questions), questions.level.log_odds + fetched(hazard.shift + hazard.scale * odds)

    def measure(self, chunks: Chunks, questions: ChurnQuestions, schema: Schema, masks_seen: bool) -> Measured:
        odds = np.concatenate([predicted for _, _, predicted in chunks] or [np.empty(0)])
        probability = 1 / (1 + np.exp(-odds))
        values = binary_values(probability, questions.churned)
        values["AUROC"] = placements(probability, questions.churned)
        arrays = {"probability": probability, "truth": questions.churned, "user": questions.user}
        level = np.full(len(odds), questions.level.log_odds)
        arrays |= {"log odds": odds - level, "level": level}
        return Measured(questions.user, values, arrays)

    def metrics(self, measured: Measured, resamples: int, seed: int) -> dict[str, Metric]:
        known = np.isfinite(measured.arrays["truth"])
        held = [measured.arrays[name][known] for name in ("probability", "truth", "user")]
        return binary_metrics(held[0], held[1], held[2], resamples, seed) if known.any() else {}

    def plots(self, measured: Measured) -> dict[str, Any]:
        known = np.isfinite(measured.arrays["truth"])
        if not known.any():
            return {}
        probability, truth = measured.arrays["probability"][known], measured.arrays["truth"][known]
        return {"reliability": reliability_points(probability, truth), "gains": gains_points(probability, truth)}

    def baselines(self, prepared: Prepared, schema: Schema) -> dict[str, list[dict[str, Any]]]:
        return {name: [{}] for name in SCORERS}

    def baseline(self, name: str, constants: dict[str, Any], schema: Schema, prepared: Prepared) -> Baseline:
        of = Definition.of(schema.churn)
        return ChurnBaseline(SCORERS[name](of), of, schema.churn.dates)


def settled_at(folder: Path, schema: Schema, at: datetime) -> Schema:
    """The schema with the definition of churn filled in from the events before `at`."""
    own = settled(schema.churn, prepare(folder, schema, at).before)
    return schema.model_copy(update={"churn": own})


def _days(schema: Schema) -> str:
    return f"{(schema.churn.horizon_d or 0) + schema.churn.gap_d:g} days"


def _midnight(moment: datetime) -> datetime:
    return moment.replace(hour=0, minute=0, second=0, microsecond=0)


def _hazard(network: Network) -> Hazard:
    return cast(Hazard, cast(nn.ModuleDict, network.heads)["hazard"])
