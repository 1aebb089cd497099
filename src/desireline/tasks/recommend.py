"""The recommendation task: which items come at a user's next occasion.

Labels: from every event, the items of the user's next occasion that holds targets, and of those after it, up to
`next_items` of them with halving weights; from a basket a random few are taken at every visit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from desireline.classical import RECOMMENDERS
from desireline.classical.content import Content
from desireline.classical.interface import Recommender
from desireline.evaluation.intervals import user_interval
from desireline.evaluation.ranking import ranking_metrics, top_k
from desireline.evaluation.result import Metric
from desireline.schema.model import Schema, TrainSettings
from desireline.sequences.prepared import Prepared
from desireline.sequences.ragged import TARGET, Sequences
from desireline.sequences.vocabulary import FIRST
from desireline.tasks.interface import Baseline, Chunks, EventByEvent, Measured
from desireline.tasks.items import Negatives, item_loss, item_scores, unit_items
from desireline.tasks.questions import (
    ItemQuestions,
    Questions,
    item_histories,
    item_questions,
    occasions,
    training_histories,
)
from desireline.tasks.stages import Stage
from desireline.training.network import Network

CELLS = 20_000_000  # scores held at once: questions of a chunk × catalogue
SHOWN = 10


@dataclass(frozen=True)
class ItemLabels:
    """Target items of the next occasions, addressed from every event.

    items : int32 [M], items of all target events in order
    first, end, size : int64 [N]; from event n, its targets stand at items[first[n]:end[n]], the first `size[n]` of them
    at the next occasion
    """

    items: NDArray[np.int32]
    first: NDArray[np.int64]
    end: NDArray[np.int64]
    size: NDArray[np.int64]
    negatives: Negatives


class Recommend(EventByEvent):
    """See the module."""

    name = "recommend"
    default_neighbours = 10

    @property
    def teacher(self) -> Recommend:
        return self

    def primary(self, prepared: Prepared) -> str:
        return "NDCG@10"

    def is_loss(self, metric: str) -> bool:
        return False

    def heads(self, prepared: Prepared, d_model: int) -> nn.Module:
        return nn.Identity()  # the item table is the head

    def start(self, network: Network, labels: ItemLabels) -> None:
        pass

    def labels(self, train: Sequences, end_us: int | None, schema: Schema) -> ItemLabels:
        item = np.asarray(train["item"])
        is_target = (train["role"] & TARGET > 0) & (item > 0)
        numbers = occasions(train, schema.evaluate.occasion)
        passed = np.concatenate([[0], np.cumsum(is_target)])
        ends = np.flatnonzero(np.diff(numbers, append=-1)) + 1  # the end of each occasion
        first = passed[ends][numbers]
        end = np.repeat(passed[train.offsets[1:]], np.diff(train.offsets))
        of_target = numbers[is_target]
        here = np.minimum(first, max(0, len(of_target) - 1))
        last = np.searchsorted(of_target, of_target[here], side="right") if len(of_target) else here
        size = np.where(first < end, last - first, 0)
        known = int(item.max(initial=1)) + 1
        return ItemLabels(item[is_target], first, end, size, Negatives.of(item, known))

    def count(self, labels: ItemLabels) -> int:
        return int((labels.first < labels.end).sum())

    def loss(
        self, network: Network, hidden: Tensor, places: NDArray[np.int64], labels: ItemLabels, settings: TrainSettings
    ) -> tuple[Tensor, int]:
        first, end, size = labels.first[places], labels.end[places], labels.size[places]
        rank = np.arange(settings.next_items)
        turn = (torch.rand(len(places)).numpy() * np.maximum(size, 1)).astype(np.int64)
        within = (turn[:, None] + rank) % np.maximum(size, 1)[:, None]  # a basket has no order: begin anywhere in it
        place = first[:, None] + np.where(rank < size[:, None], within, rank)
        weights = np.where(place < end[:, None], 0.5**rank, 0).astype(np.float32)
        targets = (
            labels.items[np.minimum(place, max(0, len(labels.items) - 1))]
            if len(labels.items)
            else np.zeros_like(place, np.int32)
        )
        return item_loss(network, hidden, targets, weights, labels.negatives, settings)

    def calibrate(self, network: Network, measured: Measured) -> None:
        pass

    def inherit(self, network: Network, older: Network) -> None:
        pass

    def questions(self, stage: Stage, schema: Schema) -> ItemQuestions:
        return item_questions(stage, schema.evaluate.occasion)

    def network_predictions(self, network: Network, questions: Questions) -> Chunks:
        hidden, items = network.encode(questions.timeline, questions.place), unit_items(network)
        for lo, hi in chunked(len(questions), network.inputs.items):
            yield lo, hi, item_scores(network, hidden[lo:hi], items)

    def measure(self, chunks: Chunks, questions: ItemQuestions, schema: Schema, masks_seen: bool) -> Measured:
        values: dict[str, list[NDArray[np.float64]]] = {}
        lists = []
        for lo, hi, scores in chunks:
            asked = item_histories(questions, lo, hi)
            targets = questions.targets.part(lo, hi)
            for name, array in ranking_metrics(scores, asked, targets, schema.evaluate.k, masks_seen).items():
                values.setdefault(name, []).append(array)
            lists.append(top_k(scores, SHOWN, asked if masks_seen else None)[0])
        joined = {name: np.concatenate(parts) for name, parts in values.items()}
        return Measured(questions.user, joined, {}, np.concatenate(lists) if lists else np.empty((0, SHOWN), np.int32))

    def metrics(self, measured: Measured, resamples: int, seed: int) -> dict[str, Metric]:
        return {
            name: user_interval(array, measured.user, resamples, seed)
            for name, array in measured.values.items()
            if np.isfinite(array).any()
        }

    def plots(self, measured: Measured) -> dict[str, Any]:
        return {}

    def baselines(self, prepared: Prepared, schema: Schema) -> dict[str, list[dict[str, Any]]]:
        described = any(item_fields(prepared, schema).values())
        return {name: kind.grid for name, kind in RECOMMENDERS.items() if described or name != Content.name}

    def baseline(self, name: str, constants: dict[str, Any], schema: Schema, prepared: Prepared) -> Baseline:
        fields = item_fields(prepared, schema) if name == Content.name else {}
        return RecommenderBaseline(RECOMMENDERS[name](**constants, **fields), len(prepared.vocabularies["item"]))


def item_fields(prepared: Prepared, schema: Schema) -> dict[str, list[pl.Series]]:
    """What is known of the items before the cut beside events, in the order of ids, as `Content` takes it."""
    of_items = {name: field.kind for name, field in schema.fields.items() if field.of == "item"}
    return {
        argument: [prepared.items[name] for name, kind in of_items.items() if kind == wanted]
        for argument, wanted in (("categories", "category"), ("texts", "text"))
    }


class RecommenderBaseline:
    """A recommender of `classical` as the task's baseline."""

    def __init__(self, model: Recommender, items: int) -> None:
        self.model, self.items = model, items

    def fit(self, stage: Stage) -> None:
        self.model.fit(training_histories(stage.train, stage.from_us), self.items)

    def predictions(self, questions: Questions) -> Chunks:
        for lo, hi in chunked(len(questions), self.items):
            yield lo, hi, self.model.score(item_histories(questions, lo, hi))

    def state(self) -> dict[str, NDArray[Any]]:
        return self.model.state()

    def load(self, state: dict[str, NDArray[Any]]) -> None:
        self.model.load(state)

    @property
    def parameters(self) -> int:
        return self.model.parameters


def chunked(questions: int, items: int) -> list[tuple[int, int]]:
    """Ranges of questions whose scores over the catalogue fit into memory."""
    size = max(1, min(2_048, CELLS // max(items, FIRST)))
    return [(lo, min(lo + size, questions)) for lo in range(0, questions, size)]
