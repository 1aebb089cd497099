"""Rows on the states of an encoder that learned something else first: one training, and a row for each use of it.

As with every network, early stopping on validation fixes the epochs, here by what the encoder itself is taught; then it
learns anew from all before the test cut. What reads the states is fitted on either stage's own past.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from desireline.core.errors import SettingError
from desireline.schema.model import Schema
from desireline.selection.fit import Job, Run, SeedRun, described, run_seed, train_network
from desireline.selection.fitted import Fitted, new_network, taught
from desireline.tasks import TASKS
from desireline.tasks.interface import Adaptation, Baseline, Measured, Task
from desireline.tasks.stages import Stage, stages
from desireline.training.loop import Trained, use_threads


@dataclass(frozen=True)
class Read:
    """What one use of the states gave: on a stage, as arrays that make the model, and the seconds it took.

    The first use's seconds hold the reading of histories.
    """

    measured: Measured
    arrays: dict[str, NDArray[Any]]
    seconds: float


@dataclass(frozen=True)
class AdaptedRun:
    """What a job gives back; `validation` and `test` hold each use of the states by its name.

    seconds : of the encoder alone
    """

    job: Job
    validation: dict[str, Read]
    test: dict[str, Read]
    stop: int
    trained: Trained
    seconds: float


def adaptation_of(task: Task, adapt: Sequence[str] = ()) -> Adaptation:
    """A task's adaptation. Raises SettingError where it has none, or not the named uses."""
    known = task.adaptation
    wrong = [name for name in adapt if known is None or name not in known.rows]
    if known is None or wrong:
        there = "none" if known is None else ", ".join(known.rows)
        raise SettingError(f"{task.name} does not know --adapt {', '.join(wrong) or 'at all'}; it knows {there}.")
    return known


def run_any(job: Job) -> SeedRun | AdaptedRun:
    """A job of either kind."""
    return run_adapted(job) if job.adapt else run_seed(job)


def run_adapted(job: Job) -> AdaptedRun:
    """Train the encoder on both stages and fit what reads its states."""
    begun = time.perf_counter()
    use_threads(job.schema.train)
    task, schema = TASKS[job.task], job.schema
    adaptation = adaptation_of(task, job.adapt)
    validation, test = stages(job.folder, schema, job.protocol, job.at, task.earlier_cut(schema, job.at))
    common: dict[str, Any] = {
        "planned": job.epochs or schema.train.epochs,
        "checkpoints": job.folder / "training",
    }
    trained, stop, validated = None, job.epochs, {}
    if stop is None:
        known = adaptation.stage(validation, schema)
        asks = adaptation.teacher.questions(known, schema)
        network, trained, _ = train_network(
            adaptation.teacher, job.encoder, schema, known, job.seed, stop_after=None, asks=asks, **common
        )
        stop = max(1, trained.best_epoch)
        validated = _read(task, adaptation.readers(job.adapt, network, schema), validation, schema)
    network, again, _ = train_network(
        adaptation.teacher, job.encoder, schema, adaptation.stage(test, schema), job.seed, stop_after=stop, **common
    )
    tested = _read(task, adaptation.readers(job.adapt, network, schema), test, schema)
    reading = sum(read.seconds for read in (*validated.values(), *tested.values()))
    seconds = time.perf_counter() - begun - reading
    return AdaptedRun(job, validated, tested, stop, trained or again, seconds)


def _read(task: Task, readers: Mapping[str, Baseline], stage: Stage, schema: Schema) -> dict[str, Read]:
    found = {}
    questions = task.questions(stage, schema)
    for adapt, reader in readers.items():  # the first reads the histories, the others what it remembers
        begun = time.perf_counter()
        reader.fit(stage)
        measured = task.measure(reader.predictions(questions), questions, schema, stage.masks_seen)
        found[adapt] = Read(measured, reader.state(), time.perf_counter() - begun)
    return found


def adapted_rows(done: Sequence[AdaptedRun], both: tuple[Stage, Stage], schema: Schema) -> list[Run]:
    """The rows of one encoder from its seeds, a row for each use of its states; the first seed's model is kept."""
    first, found = done[0], []
    adaptation = adaptation_of(TASKS[first.job.task])
    for adapt in first.job.adapt:
        validated = [run.validation[adapt] for run in done if run.validation]
        tested = [run.test[adapt] for run in done]
        fitted = [_of_seed(run, adapt, read, both[1], schema) for run, read in zip(done, tested, strict=True)]
        found.append(
            Run(
                adaptation.rows[adapt],
                "model",
                Measured.pooled([read.measured for read in validated]) if validated else None,
                Measured.pooled([read.measured for read in tested]),
                fitted,
                [_of_seed(run, adapt, run.validation[adapt], both[0], schema) for run in done if run.validation],
                sum(run.seconds for run in done) + sum(read.seconds for read in (*validated, *tested)),
                fitted[0].parameters,
                [run.job.seed for run in done],
                {},
                [run.trained for run in done],
            )
        )
    return found


def _of_seed(run: AdaptedRun, adapt: str, read: Read, stage: Stage, schema: Schema) -> Fitted:
    job, task = run.job, TASKS[run.job.task]
    adaptation = adaptation_of(task)
    info = described(job, adaptation.rows[adapt], run.stop, stage, schema, adapt=adapt)
    network = new_network(taught(task, info), job.encoder, schema.encoder, schema.train, stage.prepared, job.seed)
    reader = adaptation.readers([adapt], network, schema)[adapt]
    reader.load(read.arrays)
    return Fitted(task, adaptation.rows[adapt], stage.prepared, reader, info)
