"""What a task is: labels, heads, loss, questions, measures, baselines and answers for one job."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from desireline.encoders import ENCODERS
from desireline.evaluation.result import Metric
from desireline.schema.model import Schema, TrainSettings
from desireline.sequences.prepared import Prepared
from desireline.sequences.ragged import Sequences
from desireline.tasks.stages import Stage
from desireline.training.network import Network

Chunks = Iterator[tuple[int, int, Any]]  # questions [lo, hi) and what is predicted for them


@dataclass(frozen=True)
class Measured:
    """What each of Q questions gave, before it is averaged.

    user   : int64 [Q];  values : name -> float64 [Q], nan where a metric is not defined for a question
    arrays : what metrics that are no means need, by the task's own names, first axis Q
    lists  : int32 [Q, 10], the items shown
    """

    user: NDArray[np.int64]
    values: dict[str, NDArray[np.float64]]
    arrays: dict[str, NDArray[Any]] = field(default_factory=dict)
    lists: NDArray[np.int32] | None = None

    @staticmethod
    def pooled(seeds: list[Measured]) -> Measured:
        """Several seeds' answers to the same questions as one: means of values, everything else side by side."""
        if len(seeds) == 1:
            return seeds[0]
        values = {name: np.mean([m.values[name] for m in seeds], axis=0) for name in seeds[0].values}
        arrays = {name: np.concatenate([m.arrays[name] for m in seeds]) for name in seeds[0].arrays}
        lists = None if seeds[0].lists is None else np.concatenate([m.lists for m in seeds if m.lists is not None])
        return Measured(seeds[0].user, values, arrays, lists)

    @staticmethod
    def joined(parts: list[Measured]) -> Measured:
        """Several parts of the questions, one after the other."""
        values = {name: np.concatenate([m.values[name] for m in parts]) for name in parts[0].values}
        arrays = {name: np.concatenate([m.arrays[name] for m in parts]) for name in parts[0].arrays}
        lists = None if parts[0].lists is None else np.concatenate([m.lists for m in parts if m.lists is not None])
        return Measured(np.concatenate([m.user for m in parts]), values, arrays, lists)


class Baseline(Protocol):
    """A rule or model without a network that answers a task's questions."""

    def fit(self, stage: Stage) -> None:
        """Learn from the stage's training part."""

    def predictions(self, questions: Any) -> Chunks:
        """As the task's `network_predictions`."""

    def state(self) -> dict[str, NDArray[Any]]:
        """What was learnt, as arrays."""

    def load(self, state: dict[str, NDArray[Any]]) -> None:
        """Take back what `state` gave."""

    @property
    def parameters(self) -> int:
        """Learnt numbers."""


class Teacher(Protocol):
    """What a network learns from, and how it is told that it has learnt enough."""

    name: str
    default_neighbours: int  # what `neighbours: auto` is where histories have an order

    def primary(self, prepared: Prepared) -> str:
        """The metric that chooses."""

    def is_loss(self, metric: str) -> bool:
        """Whether less is better."""

    def read(self, sequences: Sequences, schema: Schema) -> Sequences:
        """What of a log a network reads in training: all of it, or some events of each user."""

    def heads(self, prepared: Prepared, d_model: int) -> nn.Module:
        """What turns a hidden state into predictions."""

    def start(self, network: Network, labels: Any) -> None:
        """Set what the heads take from the training data before the first step."""

    def labels(self, train: Sequences, end_us: int | None, schema: Schema) -> Any:
        """What training asks at each event, as arrays beside the columns."""

    def count(self, labels: Any) -> int:
        """Targets of one epoch."""

    def loss(
        self, network: Network, hidden: Tensor, places: NDArray[np.int64], labels: Any, settings: TrainSettings
    ) -> tuple[Tensor, int]:
        """Summed loss at the events `places` [T] with hidden states [T, d], and the number of targets."""

    def calibrate(self, network: Network, measured: Measured) -> None:
        """Correct a network's stated uncertainty by what it gave on validation."""

    def inherit(self, network: Network, older: Network) -> None:
        """Take over the correction of the network that was validated."""

    def questions(self, stage: Stage, schema: Schema) -> Any:
        """What a stage asks."""

    def network_predictions(self, network: Network, questions: Any) -> Chunks:
        """Predictions of a network, chunk by chunk."""

    def measure(self, chunks: Chunks, questions: Any, schema: Schema, masks_seen: bool) -> Measured:
        """Hold predictions against what came."""


class Adaptation(Protocol):
    """Rows on the states of an encoder that learned something else first and is then left as it is."""

    @property
    def teacher(self) -> Teacher:
        """What the encoder learns from."""

    @property
    def rows(self) -> Mapping[str, str]:
        """How the states are used ("frozen": alone, "fused": beside what is known anyway) -> the row's name."""

    def stage(self, stage: Stage, schema: Schema) -> Stage:
        """What of a stage the encoder learns from and is asked about."""

    def readers(self, adapt: Sequence[str], network: Network, schema: Schema) -> dict[str, Baseline]:
        """For each use what reads the states of a trained network, not yet fitted; several read a history once.

        The network is a part of what each saves.
        """


class Task(Protocol):
    """One job over the sequence model; every member works on arrays of events, none on a column's name."""

    name: str
    protocols: tuple[str, ...]  # under which it can be tested
    cheapest: tuple[str, ...]  # baselines beside a single fit, so that no result stands alone
    encoders: tuple[str, ...]  # that a comparison trains unasked
    unasked: Literal["fit", "compare"]  # what is run where a model must answer and none was made

    @property
    def teacher(self) -> Teacher:
        """What its networks learn from: most tasks teach themselves."""

    @property
    def adaptation(self) -> Adaptation | None:
        """Rows on an encoder that learned something else; None: the task has none."""

    def settled(self, folder: Path, schema: Schema, at: datetime, named: bool) -> tuple[Schema, datetime]:
        """The schema with what the task reads off the log before the cut `at`, and the cut, moved unless `named`."""

    def earlier_cut(self, schema: Schema, at: datetime) -> datetime | None:
        """The validation's cut before the test's; None: the one that holds out the usual share of the log."""

    def notes(self, prepared: Prepared) -> list[str]:
        """What a reader of this task's table must know of it, a sentence each."""

    def primary(self, prepared: Prepared) -> str:
        """The metric that chooses."""

    def is_loss(self, metric: str) -> bool:
        """Whether less is better."""

    def questions(self, stage: Stage, schema: Schema) -> Any:
        """What a stage asks."""

    def network_predictions(self, network: Network, questions: Any) -> Chunks:
        """Predictions of a network, chunk by chunk."""

    def measure(self, chunks: Chunks, questions: Any, schema: Schema, masks_seen: bool) -> Measured:
        """Hold predictions against what came."""

    def metrics(self, measured: Measured, resamples: int, seed: int) -> dict[str, Metric]:
        """Averages with intervals over users."""

    def plots(self, measured: Measured) -> dict[str, Any]:
        """Points that a report draws: of reliability, of the waiting time's PIT; {} for a task without."""

    def baselines(self, prepared: Prepared, schema: Schema) -> dict[str, list[dict[str, Any]]]:
        """Row name -> sets of constants to choose among on validation."""

    def baseline(self, name: str, constants: dict[str, Any], schema: Schema, prepared: Prepared) -> Baseline:
        """A baseline, not yet fitted."""


class EventByEvent:
    """What a task has that reads every event, under any protocol, and takes the log's usual cuts."""

    protocols: tuple[str, ...] = ("temporal", "leave-one-out")
    cheapest: tuple[str, ...] = ("popularity", "markov")
    encoders: tuple[str, ...] = tuple(ENCODERS)
    unasked: Literal["fit", "compare"] = "fit"
    adaptation: Adaptation | None = None
    default_neighbours: int = 0

    def settled(self, folder: Path, schema: Schema, at: datetime, named: bool) -> tuple[Schema, datetime]:
        return schema, at

    def earlier_cut(self, schema: Schema, at: datetime) -> datetime | None:
        return None

    def notes(self, prepared: Prepared) -> list[str]:
        return []

    def read(self, sequences: Sequences, schema: Schema) -> Sequences:
        return sequences
