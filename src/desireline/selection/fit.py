"""Fitting one row of a table: a network over seeds, or a baseline over its constants, on validation and on the test.

A network's seed is one job that depends on nothing but its arguments and the files on disk. Several run side by side,
a process and a core each: on a small processor that is faster than one training on all cores, whose threads would
wait for each other at every small product.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from torch import Tensor

from desireline.classical.neighbours import ItemKNN
from desireline.core.processes import process_pool
from desireline.core.progress import say
from desireline.evaluation.intervals import user_mean
from desireline.evaluation.queries import Histories
from desireline.graphs.spectral import spectral_vectors
from desireline.schema.model import EncoderSettings, Schema
from desireline.selection.fitted import Fitted, describe, new_network, settings_of, settled_schema, taught
from desireline.sequences.batches import Batch, batches
from desireline.sequences.prepared import open_prepared
from desireline.tasks import TASKS
from desireline.tasks.interface import Measured, Task, Teacher
from desireline.tasks.items import samples
from desireline.tasks.questions import training_histories
from desireline.tasks.stages import Stage, stages, whole_log
from desireline.training.contrast import contrast
from desireline.training.device import beside, device_of, pays_bfloat16
from desireline.training.loop import Trained, train, use_threads
from desireline.training.network import Network

Done = TypeVar("Done")

ON_A_CARD = 4  # networks that train at once on one card, which one of them keeps busy for a fifth of the time
KEPT = ("encoder_name", "epochs", "planned", "frozen", "protocol", "adapt")  # of model.json, to fit a network again


@dataclass
class Run:
    """One row before it is written: what it predicted on both stages, and what it cost.

    models, validated : what was fitted for the test and for the validation, a seed each
    """

    name: str
    kind: str
    validation: Measured | None
    test: Measured
    models: list[Fitted]
    validated: list[Fitted]
    seconds: float
    parameters: int
    seeds: list[int]
    constants: dict[str, Any]
    trained: list[Trained] = field(default_factory=list)

    @property
    def fitted(self) -> Fitted:
        """The model that stands for the row."""
        return self.models[0]


@dataclass(frozen=True)
class Job:
    """One network with one seed.

    epochs : train exactly so many and ask no validation;  frozen : a random encoder
    adapt  : how its states are used, where it learns something else first (`Task.adaptation`), a row each
    """

    folder: Path
    schema: Schema
    task: str
    protocol: str
    at: datetime
    encoder: str
    seed: int
    epochs: int | None = None
    frozen: bool = False
    adapt: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The row's name; of several that use one encoder, what they share."""
        if self.adapt:
            return f"{self.encoder} on next behaviour"
        return "random-encoder" if self.frozen else self.encoder


@dataclass(frozen=True)
class SeedRun:
    """What a job gives back; the networks as their weights, so that they may come from another process."""

    job: Job
    validation: Measured | None
    test: Measured
    weights: dict[str, Tensor]
    validated: dict[str, Tensor] | None
    stop: int
    trained: Trained
    seconds: float


def train_network(
    teacher: Teacher,
    encoder: str,
    schema: Schema,
    stage: Stage,
    seed: int,
    *,
    planned: int,
    stop_after: int | None,
    asks: Any = None,
    frozen: bool = False,
    checkpoints: Path | None,
    watch: Callable[[int, float], None] = lambda epoch, value: None,
) -> tuple[Network, Trained, Measured | None]:
    """Train a network on a stage; with `asks` (the teacher's questions of the stage) it stops early by its
    primary metric.

    Returns the network with its best weights and what it predicted with them (None without questions, and where an
    earlier process trained the best epoch).

    checkpoints : a folder for exact resume;  watch : told each epoch's number and validation figure, to be maximised
    """
    if schema.encoder.neighbours == "auto":
        raise ValueError("neighbours is auto: neighbours_settled says how many, before a network is made")
    network = new_network(teacher, encoder, schema.encoder, schema.train, stage.prepared, seed)
    train_on = teacher.read(stage.train, schema)
    labels = teacher.labels(train_on, stage.end_us, schema)
    teacher.start(network, labels)
    if schema.encoder.items == "spectral" or network.embedding.neighbours is not None:
        _start_items(network, training_histories(train_on, stage.from_us), schema.encoder, seed)
    if frozen:
        for parameter in network.encoder.parameters():
            parameter.requires_grad = False
    settings, primary = schema.train, teacher.primary(stage.prepared)
    network.low = pays_bfloat16(settings.precision, device_of(settings))
    network.embedding.items.sparse = samples(settings, network.inputs.items)
    key = [
        teacher.name,
        encoder,
        frozen,
        stage.name,
        stage.protocol,
        stage.prepared.folder.name,
        seed,
        stop_after,
        planned,
    ]
    digest = hashlib.sha256(json.dumps([*key, schema.model_dump()], sort_keys=True, default=str).encode()).hexdigest()
    checkpoint = None if checkpoints is None else checkpoints / f"{digest[:16]}.safetensors"
    if checkpoint is not None and checkpoint.exists():
        say(f"Going on with an unfinished training of {encoder} for {teacher.name} (seed {seed}).")

    prefixes = settings.positions == "last"

    def loss(batch: Batch) -> tuple[Tensor, int]:
        hidden, places = network(train_on, batch)
        if prefixes:
            ends = np.flatnonzero(batch.last[batch.valid].numpy())
            hidden, places = hidden.index_select(0, beside(hidden, ends)), places[ends]
        value, targets = teacher.loss(network, hidden, places, labels, settings)
        if settings.contrastive and targets:
            value = value + settings.contrastive * targets * contrast(network, train_on, batch, settings.temperature)
        return value, targets

    figures: list[float] = []
    best: Measured | None = None

    def validate() -> float:
        nonlocal best
        measured = teacher.measure(teacher.network_predictions(network, asks), asks, schema, stage.masks_seen)
        figure = directed(teacher, primary, measured)
        if figure > max(figures, default=-float("inf")):
            best = measured
        figures.append(figure)
        watch(len(figures), figure)
        return figure

    with network.products(settings.batch_targets):
        trained = train(
            network,
            loss,
            lambda epoch: batches(
                train_on,
                network.encoder.layout,
                schema.encoder.length,
                settings.batch_targets,
                seed,
                epoch,
                each_prefix=prefixes,
            ),
            teacher.count(labels),
            settings,
            seed,
            planned=planned,
            stop_after=stop_after,
            validate=validate if asks is not None and len(asks) else None,
            checkpoint=checkpoint,
            label=f"{teacher.name} {encoder} {stage.name} seed {seed}",
        )
    network.release()
    return network, trained, best if len(figures) == trained.epochs else None


def run_seed(job: Job) -> SeedRun:
    """Early stopping on validation fixes the epochs, then the network learns anew from all before the test cut.

    Under leave-one-out both stages learn from the same events, so that the validated network itself is tested, as
    papers do.
    """
    begun = time.perf_counter()
    use_threads(job.schema.train)
    task, schema = TASKS[job.task], job.schema
    teacher = task.teacher
    validation, test = stages(job.folder, schema, job.protocol, job.at, task.earlier_cut(schema, job.at))
    planned = job.epochs or schema.train.epochs  # the learning rate walks the same path on both stages
    common: dict[str, Any] = {"planned": planned, "frozen": job.frozen, "checkpoints": job.folder / "training"}
    network, measured, taught, trained, stop, validated = None, None, None, None, job.epochs, None
    if job.epochs is None:
        asks = teacher.questions(validation, schema)
        network, trained, taught = train_network(
            teacher, job.encoder, schema, validation, job.seed, stop_after=None, asks=asks, **common
        )
        if taught is None:
            taught = teacher.measure(teacher.network_predictions(network, asks), asks, schema, validation.masks_seen)
        stop = max(1, trained.best_epoch)
        teacher.calibrate(network, taught)
        validated = _weights(network)
        measured = taught if teacher.name == task.name else asked_of(task, network, validation, schema)
    if network is None or validation.prepared.folder != test.prepared.folder:
        network, again, _ = train_network(teacher, job.encoder, schema, test, job.seed, stop_after=stop, **common)
        trained = trained or again
        if taught is not None:
            teacher.calibrate(network, taught)
    tested = asked_of(task, network, test, schema)
    assert trained is not None
    assert stop is not None
    return SeedRun(job, measured, tested, _weights(network), validated, stop, trained, time.perf_counter() - begun)


def asked_of(task: Task, network: Network, stage: Stage, schema: Schema) -> Measured:
    """What a network gives to a task's questions of a stage."""
    questions = task.questions(stage, schema)
    return task.measure(task.network_predictions(network, questions), questions, schema, stage.masks_seen)


def _weights(network: Network) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu() for name, tensor in network.state_dict().items()}


def _start_items(network: Network, histories: Histories, settings: EncoderSettings, seed: int) -> None:
    """What the histories tell of items: where their vectors begin, and what follows each."""
    items = network.inputs.items
    if settings.items == "spectral":
        network.embedding.start_items(spectral_vectors(histories, items, settings.d_model, seed))
    if network.embedding.neighbours is not None:
        counted = ItemKNN()
        counted.fit(histories, items)
        network.embedding.neighbours.start(*counted.followers(network.embedding.neighbours.most))


def run_jobs(jobs: Sequence[Job], run: Callable[[Job], Done]) -> Iterator[Done]:
    """Run jobs side by side, as many as `side_by_side` says; in this process when that or the jobs are one."""
    workers = min(len(jobs), side_by_side(jobs[0].schema)) if jobs else 0
    if workers <= 1:
        yield from map(run, jobs)
        return
    alone = [_single_threaded(job) for job in jobs]
    with process_pool(workers) as pool:
        yield from pool.map(run, alone)


def side_by_side(schema: Schema) -> int:
    """How many networks may be trained at once: a core each, at most ON_A_CARD where they share one."""
    cores = os.cpu_count() or 1
    return min(cores, ON_A_CARD) if device_of(schema.train).type == "cuda" else cores


def _single_threaded(job: Job) -> Job:
    one = job.schema.model_copy(deep=True)
    one.train.threads = 1
    return Job(**{**job.__dict__, "schema": one})


def network_row(done: Sequence[SeedRun], both: tuple[Stage, Stage], schema: Schema) -> Run:
    """The row of one network from its seeds; the first seed's network is the one that is kept."""
    first = done[0]
    validated = [run.validation for run in done if run.validation is not None]
    fitted = [_of_seed(run, run.weights, both[1], schema) for run in done]
    return Run(
        first.job.name,
        "baseline" if first.job.frozen else "model",
        Measured.pooled(validated) if validated else None,
        Measured.pooled([run.test for run in done]),
        fitted,
        [_of_seed(run, run.validated, both[0], schema) for run in done if run.validated is not None],
        sum(run.seconds for run in done),
        fitted[0].parameters,
        [run.job.seed for run in done],
        {},
        [run.trained for run in done],
    )


def _of_seed(run: SeedRun, weights: dict[str, Tensor], stage: Stage, schema: Schema) -> Fitted:
    task, job = TASKS[run.job.task], run.job
    network = new_network(task.teacher, job.encoder, schema.encoder, schema.train, stage.prepared, job.seed)
    network.load_state_dict(weights)
    info = described(job, job.name, run.stop, stage, schema)
    return Fitted(task, job.name, stage.prepared, network.eval(), info)


def described(job: Job, name: str, stop: int, stage: Stage, schema: Schema, **more: Any) -> dict[str, Any]:
    """The `model.json` of a job's model that was trained for `stop` epochs on a stage."""
    return describe(
        TASKS[job.task],
        name,
        "model",
        stage.prepared,
        schema,
        job.seed,
        {},
        encoder_name=job.encoder,
        epochs=stop,
        planned=job.epochs or schema.train.epochs,
        frozen=job.frozen,
        protocol=stage.protocol,
        **more,
    )


def fitted_again(task: Task, info: dict[str, Any], schema: Schema, stage: Stage, checkpoints: Path | None) -> Fitted:
    """The single model of `info` (its model.json) with the same settings, constants and epochs, learnt from a stage."""
    name, protocol, schema = str(info["name"]), info["protocol"], settled_schema(info, schema)
    if info["kind"] != "model":
        baseline = task.baseline(name, info["constants"], schema, stage.prepared)
        baseline.fit(stage)
        told = describe(task, name, "baseline", stage.prepared, schema, 0, info["constants"], protocol=protocol)
        return Fitted(task, name, stage.prepared, baseline, told)
    encoder, settings = settings_of(info, schema)
    own, seed = schema.model_copy(update={"encoder": encoder, "train": settings}), int(info["seed"])
    kept = {key: info[key] for key in KEPT if key in info}
    adaptation = task.adaptation if "adapt" in info else None
    network, _, _ = train_network(
        taught(task, info),
        kept["encoder_name"],
        own,
        stage if adaptation is None else adaptation.stage(stage, schema),
        seed,
        stop_after=int(kept["epochs"]),
        planned=int(kept["planned"]),
        frozen=bool(kept["frozen"]),
        checkpoints=checkpoints,
    )
    told = describe(task, name, "model", stage.prepared, own, seed, {}, **kept)
    if adaptation is None:
        return Fitted(task, name, stage.prepared, network, told)
    reader = adaptation.readers([info["adapt"]], network, schema)[info["adapt"]]
    reader.fit(stage)
    return Fitted(task, name, stage.prepared, reader, told)


def fitted_at(folder: Path, schema: Schema, models: Sequence[Fitted], at: Sequence[Stage]) -> list[list[Fitted]]:
    """Each of the models as it would have been fitted at each of the stages; networks side by side."""
    networks = [(model, stage) for stage in at for model in models if isinstance(model.predictor, Network)]
    found: dict[tuple[str, str], Fitted] = {}
    if networks:
        with process_pool(min(len(networks), side_by_side(schema))) as pool:
            jobs = [(model.task.name, model.info, folder, schema, stage.prepared.folder) for model, stage in networks]
            for (model, stage), weights in zip(networks, pool.map(_weights_at, *zip(*jobs, strict=True)), strict=True):
                found[model.id, stage.name] = _with_weights(model, weights, stage, schema)
    for stage in at:
        for model in models:
            if (model.id, stage.name) not in found:
                found[model.id, stage.name] = fitted_again(model.task, model.info, schema, stage, None)
    return [[found[model.id, stage.name] for model in models] for stage in at]


def _weights_at(task: str, info: dict[str, Any], folder: Path, schema: Schema, prepared: Path) -> dict[str, Tensor]:
    stage = whole_log(open_prepared(prepared, schema), masks_seen=False)
    model = fitted_again(TASKS[task], info, schema, stage, folder / "training").predictor
    assert isinstance(model, Network)
    return _weights(model)


def _with_weights(model: Fitted, weights: dict[str, Tensor], stage: Stage, schema: Schema) -> Fitted:
    info = model.info
    made = settings_of(info, schema)
    network = new_network(model.task.teacher, info["encoder_name"], *made, stage.prepared, int(info["seed"]))
    network.load_state_dict(weights)
    return Fitted(model.task, model.name, stage.prepared, network.eval(), info)


def run_baseline(
    task: Task,
    name: str,
    grid: list[dict[str, Any]],
    schema: Schema,
    both: tuple[Stage, Stage],
    questions: tuple[Any, Any],
    advance: Callable[[], None] = lambda: None,
) -> Run:
    """A baseline's row: each set of constants is tried on validation, the best learns from all before the test cut.

    questions : the task's, of both stages
    """
    begun = time.perf_counter()
    validation, test = both
    primary = task.primary(validation.prepared)
    asks, asked = questions
    best, best_score, best_measured, validated = grid[0], -float("inf"), None, None
    for constants in grid:
        model = task.baseline(name, constants, schema, validation.prepared)
        model.fit(validation)
        measured = task.measure(model.predictions(asks), asks, schema, validation.masks_seen)
        score = directed(task, primary, measured)
        if score > best_score or best_measured is None:
            best, best_score, best_measured, validated = constants, score, measured, model
        advance()
    model = task.baseline(name, best, schema, test.prepared)
    model.fit(test)
    measured = task.measure(model.predictions(asked), asked, schema, test.masks_seen)
    seconds = time.perf_counter() - begun
    assert validated is not None
    models = [
        Fitted(
            task,
            name,
            stage.prepared,
            predictor,
            describe(task, name, "baseline", stage.prepared, schema, 0, best, protocol=stage.protocol),
        )
        for stage, predictor in ((test, model), (validation, validated))
    ]
    return Run(name, "baseline", best_measured, measured, models[:1], models[1:], seconds, model.parameters, [], best)


def directed(task: Task | Teacher, primary: str, measured: Measured) -> float:
    """The primary metric, to be maximised; minus infinity when nothing was asked."""
    value = user_mean(measured.values[primary], measured.user)
    if value != value:
        return -float("inf")
    return -value if task.is_loss(primary) else value


def curves(run: Run) -> list[dict[str, Any]]:
    """A run's learning curves, a seed each."""
    return [asdict(trained) for trained in run.trained]
