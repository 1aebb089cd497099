"""The next-event task: which event type comes next, on which item, and when.

Labels: the following event of the same user; a user's last event is censored, its waiting time is only known to exceed
what was observed. Each head's loss is divided by what a model without any history would lose, so that none drowns the
others.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from desireline.classical import RECOMMENDERS
from desireline.classical.gaps import remaining
from desireline.classical.interface import Recommender
from desireline.classical.next_event import NEXT_EVENT, EventHistories, NextEventBaseline
from desireline.evaluation.classification import calibration_metrics, log_loss, reliability
from desireline.evaluation.intervals import user_interval
from desireline.evaluation.ranking import ranking_metrics, top_k
from desireline.evaluation.result import Metric
from desireline.evaluation.waiting import LEVELS, waiting_metrics
from desireline.schema.model import Schema, TrainSettings
from desireline.sequences.prepared import Prepared
from desireline.sequences.ragged import Sequences
from desireline.sequences.vocabulary import FIRST
from desireline.tasks.interface import Baseline, Chunks, EventByEvent, Measured
from desireline.tasks.items import Negatives, item_loss, item_scores, unit_items
from desireline.tasks.questions import EventQuestions, Questions, event_questions, item_histories, training_histories
from desireline.tasks.recommend import SHOWN, chunked
from desireline.tasks.stages import Stage
from desireline.training.device import beside, fetched
from desireline.training.losses import WaitingTime
from desireline.training.network import Network

LEAST_ENTROPY = 0.3  # nats; a head with next to nothing to learn must not be blown up
NORMAL_ENTROPY = 1.419  # nats of a standard normal: what the waiting time costs without a history
LONGEST_S = 20 * 365.25 * 86_400.0
GRID = 256  # points of the waiting time's distribution that quantiles are read from
ITEMS_OF = {"popularity": "popularity", "markov": "markov", "repeat-last": "repeat-last", "median-gap": "own-frequency"}


@dataclass(frozen=True)
class EventLabels:
    """What follows each of N events.

    event : int16 [N] and item : int32 [N], ids of the next event, 0: none
    gap_s : float32 [N], seconds to it, or to the end of observation where `censored`; nan: not known
    type_scale, item_scale : nats that a model without history loses a target
    """

    event: NDArray[np.int16]
    item: NDArray[np.int32]
    gap_s: NDArray[np.float32]
    censored: NDArray[np.bool_]
    negatives: Negatives
    type_scale: float
    item_scale: float


@dataclass(frozen=True)
class EventPrediction:
    """For Q questions: types float64 [Q, types], scores float32 [Q, items] and waits float64 [Q, LEVELS] in seconds."""

    types: NDArray[np.float64]
    scores: NDArray[np.float32]
    waits: NDArray[np.float64]


class NextEvent(EventByEvent):
    """See the module."""

    name = "next_event"

    @property
    def teacher(self) -> NextEvent:
        return self

    def primary(self, prepared: Prepared) -> str:
        types = np.bincount(np.asarray(prepared.before["event"]), minlength=len(prepared.vocabularies["event"]))
        if (types > 0).sum() > 1:
            return "log-loss"
        return "NDCG@10" if len(prepared.vocabularies["item"]) > FIRST else "CRPS"

    def is_loss(self, metric: str) -> bool:
        return metric in ("log-loss", "CRPS", "ECE")

    def heads(self, prepared: Prepared, d_model: int) -> nn.Module:
        item = nn.Linear(d_model, d_model)
        nn.init.eye_(item.weight)  # begins as the hidden state itself, which the event's own item goes into
        nn.init.zeros_(item.bias)
        event_type = nn.Linear(d_model, len(prepared.vocabularies["event"]))
        return nn.ModuleDict({"event_type": event_type, "item": item, "wait": WaitingTime(d_model)})

    def start(self, network: Network, labels: EventLabels) -> None:
        known = labels.gap_s[~labels.censored & np.isfinite(labels.gap_s)]
        if len(known):
            _head(network, "wait").fit(torch.from_numpy(known))

    def labels(self, train: Sequences, end_us: int | None, schema: Schema) -> EventLabels:
        time, n = np.asarray(train["time"]), train.events
        last = np.zeros(n, bool)
        last[train.offsets[1:][np.diff(train.offsets) > 0] - 1] = True
        after = np.minimum(np.arange(1, n + 1), max(0, n - 1))
        event = np.where(last, 0, train["event"][after]).astype(np.int16)
        item = np.where(last, 0, train["item"][after]).astype(np.int32)
        gap = np.where(last, np.nan if end_us is None else ((end_us or 0) - time) / 1e6, (time[after] - time) / 1e6)
        seen = np.bincount(event[event >= FIRST], minlength=1).astype(np.float64)
        about = np.bincount(item[item >= FIRST], minlength=1).astype(np.float64)
        negatives = Negatives.of(np.asarray(train["item"]), int(np.asarray(train["item"]).max(initial=1)) + 1)
        return EventLabels(
            event,
            item,
            gap.astype(np.float32),
            last,
            negatives,
            max(_entropy(seen), LEAST_ENTROPY),
            max(_entropy(about), LEAST_ENTROPY),
        )

    def count(self, labels: EventLabels) -> int:
        return int((labels.event > 0).sum())

    def loss(
        self, network: Network, hidden: Tensor, places: NDArray[np.int64], labels: EventLabels, settings: TrainSettings
    ) -> tuple[Tensor, int]:
        event = labels.event[places].astype(np.int64)
        known = np.flatnonzero(event >= FIRST)
        logits = masked_types(_head(network, "event_type")(hidden.index_select(0, beside(hidden, known))))
        total = F.cross_entropy(logits, beside(hidden, event[known]), reduction="sum") / labels.type_scale
        item = labels.item[places]
        if (item >= FIRST).any():
            value, _ = item_loss(
                network,
                _head(network, "item")(hidden),
                item[:, None],
                np.ones((len(item), 1), np.float32),
                labels.negatives,
                settings,
            )
            total = total + value / labels.item_scale
        if network.inputs.timed:
            gap = labels.gap_s[places]
            timed = np.flatnonzero(np.isfinite(gap))
            value = _head(network, "wait").loss(
                hidden.index_select(0, beside(hidden, timed)),
                beside(hidden, gap[timed]),
                beside(hidden, labels.censored[places][timed]),
            )
            total = total + value / NORMAL_ENTROPY
        return total, int((event > 0).sum())

    def calibrate(self, network: Network, measured: Measured) -> None:
        if "pit" in measured.arrays:
            pit = measured.arrays["pit"]
            _head(network, "wait").calibrate(torch.from_numpy(pit[np.isfinite(pit)]))

    def inherit(self, network: Network, older: Network) -> None:
        _head(network, "wait").levels.copy_(_head(older, "wait").levels)

    def questions(self, stage: Stage, schema: Schema) -> EventQuestions:
        return event_questions(stage)

    def network_predictions(self, network: Network, questions: Questions) -> Chunks:
        hidden = network.encode(questions.timeline, questions.place)
        elapsed, items = elapsed_s(questions), unit_items(network)
        with torch.inference_mode():
            for lo, hi in chunked(len(questions), network.inputs.items):
                types = fetched(masked_types(_head(network, "event_type")(hidden[lo:hi])).double().softmax(-1))
                waits = wait_quantiles(network, hidden[lo:hi], elapsed[lo:hi])
                scores = item_scores(network, _head(network, "item")(hidden[lo:hi]), items)
                yield lo, hi, EventPrediction(types, scores, waits)

    def measure(self, chunks: Chunks, questions: EventQuestions, schema: Schema, masks_seen: bool) -> Measured:
        parts: dict[str, list[NDArray[Any]]] = {}
        arrays: dict[str, list[NDArray[Any]]] = {"types": [], "truth": [], "user": [], "pit": []}
        lists = []
        targets = questions.item_targets()
        timed = schema.time.column is not None and schema.time.format != "position"
        for lo, hi, predicted in chunks:
            truth = questions.event[lo:hi].astype(np.int64)
            values = {"log-loss": log_loss(predicted.types, truth)}
            values |= ranking_metrics(
                predicted.scores, item_histories(questions, lo, hi), targets.part(lo, hi), schema.evaluate.k, False
            )
            if timed:
                waited = waiting_metrics(
                    predicted.waits, questions.wait_s[lo:hi], questions.censored[lo:hi], questions.horizon_s[lo:hi]
                )
                arrays["pit"].append(waited.pop("PIT"))
                values |= waited
            for name, array in values.items():
                parts.setdefault(name, []).append(array)
            arrays["types"].append(predicted.types)
            arrays["truth"].append(truth)
            arrays["user"].append(questions.user[lo:hi])
            lists.append(top_k(predicted.scores, SHOWN, None)[0])
        joined = {name: np.concatenate(part) for name, part in parts.items()}
        held = {name: np.concatenate(part) for name, part in arrays.items() if part}
        return Measured(questions.user, joined, held, np.concatenate(lists) if lists else None)

    def metrics(self, measured: Measured, resamples: int, seed: int) -> dict[str, Metric]:
        plain = {
            n: user_interval(a, measured.user, resamples, seed)
            for n, a in measured.values.items()
            if np.isfinite(a).any()
        }
        observed = measured.arrays["truth"] >= FIRST
        types, truth, user = (measured.arrays[name][observed] for name in ("types", "truth", "user"))
        return plain | (calibration_metrics(types, truth, user, resamples, seed) if len(truth) else {})

    def plots(self, measured: Measured) -> dict[str, Any]:
        observed = measured.arrays["truth"] >= FIRST
        found: dict[str, Any] = {}
        if observed.any():
            types, truth = measured.arrays["types"][observed], measured.arrays["truth"][observed]
            found["reliability"] = reliability(types, truth)
        if "pit" in measured.arrays:
            pit = measured.arrays["pit"]
            heights, _ = np.histogram(pit[np.isfinite(pit)], bins=20, range=(0, 1), density=True)
            found["pit"] = heights.tolist()
        return found

    def baselines(self, prepared: Prepared, schema: Schema) -> dict[str, list[dict[str, Any]]]:
        return {name: kind.grid for name, kind in NEXT_EVENT.items()}

    def baseline(self, name: str, constants: dict[str, Any], schema: Schema, prepared: Prepared) -> Baseline:
        items = RECOMMENDERS[ITEMS_OF[name]]()
        return EventBaseline(
            NEXT_EVENT[name](**constants),
            items,
            len(prepared.vocabularies["event"]),
            len(prepared.vocabularies["item"]),
        )


class EventBaseline:
    """Type and waiting time by a rule of `classical.next_event`, the item by a recommender."""

    def __init__(self, rule: NextEventBaseline, items: Recommender, types: int, catalogue: int) -> None:
        self.rule, self.items, self.types, self.catalogue = rule, items, types, catalogue

    def fit(self, stage: Stage) -> None:
        train = stage.train
        self.rule.fit(np.asarray(train["event"]), np.asarray(train["time"]), train.offsets, self.types, stage.from_us)
        self.items.fit(training_histories(train, stage.from_us), self.catalogue)

    def predictions(self, questions: Questions) -> Chunks:
        for lo, hi in chunked(len(questions), self.catalogue):
            asked = event_histories(questions, lo, hi)
            scores = self.items.score(item_histories(questions, lo, hi))
            yield lo, hi, EventPrediction(self.rule.types_probability(asked), scores, self.rule.gap_quantiles(asked))

    def state(self) -> dict[str, NDArray[Any]]:
        return {f"rule/{n}": a for n, a in self.rule.state().items()} | {
            f"items/{n}": a for n, a in self.items.state().items()
        }

    def load(self, state: dict[str, NDArray[Any]]) -> None:
        self.rule.load({n.removeprefix("rule/"): a for n, a in state.items() if n.startswith("rule/")})
        self.items.load({n.removeprefix("items/"): a for n, a in state.items() if n.startswith("items/")})

    @property
    def parameters(self) -> int:
        return self.rule.parameters + self.items.parameters


def event_histories(questions: Questions, lo: int, hi: int) -> EventHistories:
    """All events that questions [lo, hi) may look at."""
    begin, end = questions.timeline.offsets[questions.user[lo:hi]], questions.place[lo:hi] + 1
    offsets = np.concatenate([[0], np.cumsum(end - begin)]).astype(np.int64)
    places = np.arange(offsets[-1]) + np.repeat(begin - offsets[:-1], end - begin)
    timeline = questions.timeline
    return EventHistories(
        offsets, np.asarray(timeline["event"])[places], np.asarray(timeline["time"])[places], questions.as_of[lo:hi]
    )


def elapsed_s(questions: Questions) -> NDArray[np.float64]:
    """float64 [Q]: seconds between the last event and the question."""
    return np.asarray((questions.as_of - questions.timeline["time"][questions.place]) / 1e6, np.float64)


def masked_types(logits: Tensor) -> Tensor:
    """Logits [Q, types] in which padding and unknown cannot come."""
    masked = logits.clone()
    masked[:, :FIRST] = -torch.inf
    return masked


def wait_quantiles(network: Network, hidden: Tensor, elapsed: NDArray[np.float64]) -> NDArray[np.float64]:
    """float64 [Q, LEVELS]: quantiles in seconds of the time still to wait, given that nothing came for `elapsed` [Q].

    Read off the distribution on a grid of GRID points, evenly spaced in log(1 + seconds) up to twenty years.
    """
    grid = torch.expm1(torch.linspace(0, float(np.log1p(LONGEST_S)), GRID))
    passed = fetched(_head(network, "wait").cdf(hidden, grid.to(hidden.device)).double())  # [Q, GRID]
    passed = np.maximum.accumulate(passed, axis=1)
    points = grid.double().numpy()
    waits = remaining(passed, np.arange(len(hidden)), points, 1 / LONGEST_S, np.maximum(elapsed, 0.0))
    read_at = np.interp(LEVELS, np.linspace(0, 1, 101), fetched(_head(network, "wait").levels))
    place = np.clip((read_at - LEVELS[0]) / (LEVELS[1] - LEVELS[0]), 0, len(LEVELS) - 1)
    low = np.minimum(place.astype(np.int64), len(LEVELS) - 2)
    return np.asarray(waits[:, low] + (place - low) * (waits[:, low + 1] - waits[:, low]), np.float64)


def _head(network: Network, name: str) -> Any:
    return cast(nn.ModuleDict, network.heads)[name]


def _entropy(counts: NDArray[np.float64]) -> float:
    share = counts[counts > 0] / max(1.0, counts.sum())
    return float(-(share * np.log(share)).sum())
