"""Fitting one row of a table: a network over seeds, or a baseline over its constants, on validation and on the test."""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from desireline.core.progress import say
from desireline.evaluation.intervals import user_interval
from desireline.evaluation.result import Metric
from desireline.schema.model import Schema
from desireline.selection.fitted import Fitted, describe, new_network
from desireline.sequences.batches import batches
from desireline.tasks.interface import Measured, Task
from desireline.tasks.stages import Stage
from desireline.training.loop import Trained, train
from desireline.training.network import Network


@dataclass
class Run:
    """One row before it is written: what it predicted on both stages, and what it cost."""

    name: str
    kind: str
    validation: Measured | None
    test: Measured
    fitted: Fitted
    seconds: float
    parameters: int
    seeds: list[int]
    constants: dict[str, Any]
    trained: list[Trained] = field(default_factory=list)
    validations: list[float] = field(default_factory=list)  # the primary metric, a seed or set of constants each


def train_network(
    task: Task,
    encoder: str,
    schema: Schema,
    stage: Stage,
    seed: int,
    *,
    stop_after: int | None,
    asks: Any = None,
    frozen: bool = False,
    checkpoints: Path | None = None,
    planned: int | None = None,
) -> tuple[Network, Trained]:
    """Train a network on a stage; with `asks` (the stage's questions) it stops early by the task's primary metric."""
    network = new_network(task, encoder, schema.encoder, stage.prepared, seed)
    labels = task.labels(stage.train, stage.end_us, schema)
    task.start(network, labels)
    if frozen:
        for parameter in network.encoder.parameters():
            parameter.requires_grad = False
    settings = schema.train
    primary = task.primary(stage.prepared)
    checkpoint = None
    if checkpoints is not None:
        key = [
            task.name,
            encoder,
            frozen,
            stage.name,
            stage.protocol,
            stage.prepared.folder.name,
            seed,
            stop_after,
            planned,
            schema.model_dump(),
        ]
        name = hashlib.sha256(json.dumps(key, sort_keys=True, default=str).encode()).hexdigest()[:16]
        checkpoint = checkpoints / f"{name}.safetensors"
        if checkpoint.exists():
            say(f"Going on with an unfinished training of {encoder} for {task.name} (seed {seed}).")

    def validate() -> float:
        measured = task.measure(task.network_predictions(network, asks), asks, schema, stage.masks_seen)
        return _directed(task, primary, measured)

    trained = train(
        network,
        lambda batch: task.loss(network, *network(stage.train, batch), labels, settings),
        lambda epoch: batches(
            stage.train, network.encoder.layout, schema.encoder.length, settings.batch_targets, seed, epoch
        ),
        task.count(labels),
        settings,
        seed,
        planned=planned or settings.epochs,
        stop_after=stop_after,
        validate=validate if asks is not None and len(asks) else None,
        checkpoint=checkpoint,
        label=f"{task.name} {encoder} {stage.name} seed {seed}",
    )
    return network, trained


def run_network(
    task: Task,
    encoder: str,
    schema: Schema,
    stages: tuple[Stage, Stage],
    seeds: list[int],
    *,
    epochs: int | None = None,
    frozen: bool = False,
    folder: Path,
) -> Run:
    """A network's row: early stopping on validation fixes the epochs, then it learns anew from all before the test cut.

    With `epochs` exactly so many are trained and validation is not asked. Under leave-one-out both stages learn from
    the same events, so that the validated network itself is tested, as papers do.
    """
    begun = time.perf_counter()
    validation, test = stages
    asked, asks = task.questions(test, schema), None
    same = validation.prepared.folder == test.prepared.folder
    tests, validated, trained, scores = [], [], [], []
    fitted: Fitted | None = None
    name = "random-encoder" if frozen else encoder
    for seed in seeds:
        stop, network = epochs, None
        if epochs is None:
            asks = asks if asks is not None else task.questions(validation, schema)
            network, first = train_network(
                task,
                encoder,
                schema,
                validation,
                seed,
                stop_after=None,
                asks=asks,
                frozen=frozen,
                checkpoints=folder / "training",
            )
            measured = task.measure(task.network_predictions(network, asks), asks, schema, validation.masks_seen)
            validated.append(measured)
            scores.append(_plain(task, task.primary(validation.prepared), measured))
            stop = max(1, first.best_epoch)
            trained.append(first)
        if network is None or not same:
            planned = epochs or schema.train.epochs  # the learning rate walks the same path as in validation
            network, second = train_network(
                task,
                encoder,
                schema,
                test,
                seed,
                stop_after=stop,
                frozen=frozen,
                checkpoints=folder / "training",
                planned=planned,
            )
            if epochs is not None:
                trained.append(second)
        tests.append(task.measure(task.network_predictions(network, asked), asked, schema, test.masks_seen))
        if fitted is None:  # the first seed's network is the one that is kept
            info = describe(
                task,
                name,
                "model",
                test.prepared,
                schema,
                seed,
                {},
                encoder_name=encoder,
                epochs=stop,
                planned=epochs or schema.train.epochs,
                protocol=test.protocol,
            )
            fitted = Fitted(task, name, test.prepared, network, info)
    assert fitted is not None
    count = fitted.predictor.parameters_count if isinstance(fitted.predictor, Network) else 0
    return Run(
        name,
        "baseline" if frozen else "model",
        Measured.pooled(validated) if validated else None,
        Measured.pooled(tests),
        fitted,
        time.perf_counter() - begun,
        count,
        seeds,
        {},
        trained,
        scores,
    )


def run_baseline(task: Task, name: str, grid: list[dict[str, Any]], schema: Schema, stages: tuple[Stage, Stage]) -> Run:
    """A baseline's row: each set of constants is tried on validation, the best learns from all before the test cut."""
    begun = time.perf_counter()
    validation, test = stages
    primary = task.primary(validation.prepared)
    asks, asked = task.questions(validation, schema), task.questions(test, schema)
    best, best_score, best_measured, scores = grid[0], -float("inf"), None, []
    for constants in grid:
        model = task.baseline(name, constants, schema, validation.prepared)
        model.fit(validation)
        measured = task.measure(model.predictions(asks), asks, schema, validation.masks_seen)
        score = _directed(task, primary, measured)
        scores.append(_plain(task, primary, measured))
        if score > best_score:
            best, best_score, best_measured = constants, score, measured
    model = task.baseline(name, best, schema, test.prepared)
    model.fit(test)
    measured = task.measure(model.predictions(asked), asked, schema, test.masks_seen)
    info = describe(task, name, "baseline", test.prepared, schema, 0, best, protocol=test.protocol)
    fitted = Fitted(task, name, test.prepared, model, info)
    return Run(
        name,
        "baseline",
        best_measured,
        measured,
        fitted,
        time.perf_counter() - begun,
        model.parameters,
        [],
        best,
        [],
        scores,
    )


def _plain(task: Task, primary: str, measured: Measured) -> float:
    metric: Metric = user_interval(measured.values[primary], measured.user, 50, 0)
    return metric.value


def _directed(task: Task, primary: str, measured: Measured) -> float:
    value = _plain(task, primary, measured)
    if value != value:  # nothing was asked
        return -float("inf")
    return -value if task.is_loss(primary) else value


def curves(run: Run) -> list[dict[str, Any]]:
    """A run's learning curves, a seed each."""
    return [asdict(trained) for trained in run.trained]
