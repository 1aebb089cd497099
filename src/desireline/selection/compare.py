"""`fit` and `compare`: every row under one protocol, the choice on validation, the confirmation on the test.

The one-standard-error rule (Breiman et al. 1984, section 3.4.3): of all rows whose validation figure is within one
standard error of the best one, the simplest is taken. The error is that of the paired difference to the best over
users, so that users whom every model finds hard do not blur the choice. Simpler means: no network before a network, one
model before several, then fewer learnt numbers.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from desireline.core.errors import DataError, SettingError
from desireline.core.progress import progress, say
from desireline.encoders import ENCODERS
from desireline.evaluation.intervals import paired_difference, user_interval
from desireline.evaluation.lists import list_statistics
from desireline.evaluation.result import Metric, Result, Row
from desireline.events.store import EventStore
from desireline.schema.model import Schema
from desireline.selection.adapted import AdaptedRun, adaptation_of, adapted_rows, run_any
from desireline.selection.analyse import analyse
from desireline.selection.fit import Job, Run, SeedRun, curves, network_row, run_baseline, run_jobs
from desireline.selection.fitted import Fitted, save, settled_schema
from desireline.selection.neighbours import neighbours_settled
from desireline.selection.panel import panels
from desireline.sequences.prepared import iso
from desireline.tasks import TASKS, Task
from desireline.tasks.stages import Stage, stages
from desireline.training.device import path_of

SIMPLEST = ("baseline", "model", "panel")


@dataclass(frozen=True)
class Compared:
    """A result and the model that stands behind its `model`."""

    result: Result
    fitted: Fitted


def fit(
    folder: Path,
    schema: Schema,
    task_name: str,
    encoder: str,
    at: datetime,
    protocol: str,
    seed: int,
    epochs: int | None,
    named: bool = True,
    adapt: str | None = None,
) -> Compared:
    """Train one encoder with one seed, beside the cheapest baselines of its task.

    adapt : how its states are used, where it is to learn something else first (`Task.adaptation`)
    named : whether the user named the cut; one that was not may be moved to where the task can be tested
    """
    begun = time.perf_counter()
    task = task_named(task_name)
    check_encoders([encoder])
    say(f"The network trains {path_of(schema.train)}.")
    if adapt is not None:
        adaptation_of(task, [adapt])
    schema, at = task.settled(folder, schema, at, named)
    both, questions = _asked(folder, schema, task, protocol, at)
    schema = neighbours_settled(schema, task.teacher, both[0])
    rows = []
    for name in task.cheapest:
        grid = task.baselines(both[0].prepared, schema)[name][:1]
        rows.append(_row(task, run_baseline(task, name, grid, schema, both, questions), both[1], schema, seed))
    job = Job(folder, schema, task.name, protocol, at, encoder, seed, epochs, adapt=() if adapt is None else (adapt,))
    done = run_any(job)
    run = adapted_rows([done], both, schema)[0] if isinstance(done, AdaptedRun) else network_row([done], both, schema)
    rows.append(_row(task, run, both[1], schema, seed))
    result = _result(task, both[1], run.fitted.id, rows, seed, begun)
    return Compared(replace(result, training=done.trained.summary()), run.fitted)


def compare(
    folder: Path,
    schema: Schema,
    task_name: str,
    encoders: Sequence[str] | None,
    at: datetime,
    protocol: str,
    seed: int,
    named: bool = True,
) -> Compared:
    """Train all, baselines included, with equal budgets; choose on validation, confirm on the test.

    encoders : None: those that the task trains unasked;  named : as in `fit`
    """
    begun = time.perf_counter()
    task = task_named(task_name)
    encoders = task.encoders if encoders is None else encoders
    check_encoders(encoders)
    say(f"Networks train {path_of(schema.train)}.")
    schema, at = task.settled(folder, schema, at, named)
    both, questions = _asked(folder, schema, task, protocol, at)
    schema = neighbours_settled(schema, task.teacher, both[0])
    seeds = [seed + k for k in range(schema.evaluate.seeds)]
    grids = task.baselines(both[0].prepared, schema)
    runs: list[Run] = []
    jobs = [Job(folder, schema, task.name, protocol, at, encoder, s) for encoder in encoders for s in seeds]
    jobs.append(Job(folder, schema, task.name, protocol, at, encoders[0], seeds[0], frozen=True))
    if task.adaptation is not None:
        uses = tuple(task.adaptation.rows)
        jobs += [Job(folder, schema, task.name, protocol, at, encoders[0], s, adapt=uses) for s in seeds]
    tries = sum(len(grid) for grid in grids.values())
    with progress(f"comparing for {task.name}", tries + len(jobs), "rows") as advance:
        for name, grid in grids.items():
            runs.append(run_baseline(task, name, grid, schema, both, questions, advance))
        finished: dict[str, list[SeedRun]] = {}
        adapted: list[AdaptedRun] = []
        for done in run_jobs(jobs, run_any):
            if isinstance(done, AdaptedRun):
                adapted.append(done)
            else:
                finished.setdefault(done.job.name, []).append(done)
            advance(1, f"{done.job.name}, seed {done.job.seed}")
    runs += [network_row(seeds_of, both, schema) for seeds_of in finished.values()]
    runs += adapted_rows(adapted, both, schema) if adapted else []
    runs += panels(task, runs, both, folder, schema, seed)
    chosen, why = choose(task, runs, both, schema, seed)
    rows = [_row(task, run, both[1], schema, seed) for run in runs]
    for run in runs:
        if run.kind == "model" or run.name == chosen.name:
            save(run.fitted, folder / "models")
    result = _result(task, both[1], chosen.fitted.id, rows, seed, begun)
    groups = analyse(
        chosen.test,
        questions[1],
        both[1],
        task.primary(both[1].prepared),
        schema.evaluate.bootstrap,
        seed,
    )
    told = replace(result, chosen=chosen.name, why=why, notes=[*result.notes, *_warnings(runs)], analysis=groups)
    return Compared(told, chosen.fitted)


def evaluate(folder: Path, schema: Schema, fitted: Fitted, protocol: str, seed: int) -> Result:
    """Ask a saved model the test questions of a protocol."""
    begun = time.perf_counter()
    schema = settled_schema(fitted.info, schema)
    at = fitted.prepared.cut
    if protocol == "temporal" and at > EventStore(folder, schema).span()[1]:
        raise DataError(
            f"Model {fitted.id} has learned from the whole log, so nothing is left to ask it. `desireline models "
            f"{folder}` lists the one that it was made from, with its cut."
        )
    test = stages(folder, schema, protocol, at, fitted.task.earlier_cut(schema, at))[1]
    if test.prepared.folder != fitted.prepared.folder:
        raise DataError(
            f"Model {fitted.id} was fitted on {fitted.prepared.folder.name}, but protocol {protocol} asks "
            f"{test.prepared.folder.name}: it was fitted under another protocol, or the log or the schema has changed "
            "since. Fit it again."
        )
    questions = fitted.task.questions(test, schema)
    measured = fitted.task.measure(fitted.predictions(questions), questions, schema, test.masks_seen)
    metrics = fitted.task.metrics(measured, schema.evaluate.bootstrap, seed)
    row = Row(fitted.name, str(fitted.info["kind"]), metrics, round(time.perf_counter() - begun, 3), fitted.parameters)
    return _result(fitted.task, test, fitted.id, [row], seed, begun)


def task_named(name: str) -> Task:
    """The task of a name. Raises SettingError for an unknown one."""
    if name not in TASKS:
        raise SettingError(f"There is no task {name!r}; this version has {', '.join(TASKS)}.")
    return TASKS[name]


def check_encoders(names: Sequence[str]) -> None:
    """Raise SettingError for a name that is no encoder."""
    wrong = [name for name in names if name not in ENCODERS]
    if wrong or not names:
        raise SettingError(
            f"There is no encoder {', '.join(map(repr, wrong)) or 'named'}; this version has {', '.join(ENCODERS)}."
        )


def choose(task: Task, runs: list[Run], both: tuple[Stage, Stage], schema: Schema, seed: int) -> tuple[Run, str]:
    """The run to use, and why, in words."""
    primary = task.primary(both[0].prepared)
    sign = -1.0 if task.is_loss(primary) else 1.0
    measured = {
        run.name: run.validation for run in runs if run.validation is not None and primary in run.validation.values
    }
    value = {name: user_interval(m.values[primary], m.user, 50, seed).value * sign for name, m in measured.items()}
    value = {name: v for name, v in value.items() if np.isfinite(v)}
    if not value:
        raise DataError(
            "The validation slice asks nothing, so no model can be chosen: name an earlier --cut, or a longer "
            "horizon (--set horizon=0.2)."
        )
    candidates = [run for run in runs if run.name in value and not run.fitted.info.get("frozen")]
    best = max(candidates, key=lambda run: value[run.name])
    within = []
    for run in candidates:
        other, first = measured[run.name], measured[best.name]
        difference = paired_difference(
            first.values[primary], other.values[primary], first.user, schema.evaluate.bootstrap, seed
        )
        error = (difference.high - difference.low) / (2 * 1.96)
        if run is best or difference.value * sign <= error:
            within.append(run)
    chosen = min(within, key=lambda run: (SIMPLEST.index(run.kind), run.parameters, -value[run.name]))
    if chosen is best and len(within) == 1:
        reason = "no other row comes within one standard error of it"
    elif chosen is best:
        reason = f"it is also the simplest of those within one standard error ({', '.join(r.name for r in within)})"
    else:
        reason = (
            f"{best.name} is best there ({abs(value[best.name]):.4f}), but not by more than one standard error, "
            f"and {chosen.name} is simpler"
        )
    on_test = user_interval(chosen.test.values[primary], chosen.test.user, schema.evaluate.bootstrap, seed)
    why = (
        f"{chosen.name}: {primary} {abs(value[chosen.name]):.4f} on validation; {reason}. "
        f"Confirmed once on the test: {on_test.value:.4f} [{on_test.low:.4f}, {on_test.high:.4f}]."
    )
    if chosen.kind == "baseline":
        why += " A simple method wins here: no network is needed for this log."
    return chosen, why


def _asked(
    folder: Path, schema: Schema, task: Task, protocol: str, at: datetime
) -> tuple[tuple[Stage, Stage], tuple[Any, Any]]:
    """Both stages of a protocol, and what the task asks of each."""
    if protocol not in ("temporal", "leave-one-out"):
        raise SettingError(f"There is no protocol {protocol!r}; this version has temporal, leave-one-out.")
    if protocol not in task.protocols:
        raise SettingError(f"{task.name} cannot be tested under {protocol}: use --protocol {task.protocols[0]}.")
    both = stages(folder, schema, protocol, at, task.earlier_cut(schema, at))
    questions = task.questions(both[0], schema), task.questions(both[1], schema)
    if len(questions[1]) == 0:
        raise DataError(
            f"After the cut {iso(both[1].prepared.cut)} no user with a history has an event to ask for: name an "
            "earlier --cut, or another target type in desireline.yaml."
        )
    return both, questions


def _row(task: Task, run: Run, test: Stage, schema: Schema, seed: int) -> Row:
    metrics = task.metrics(run.test, schema.evaluate.bootstrap, seed)
    primary = task.primary(test.prepared)
    validation = None
    if run.validation is not None:
        validation = user_interval(run.validation.values[primary], run.validation.user, schema.evaluate.bootstrap, seed)
    if run.test.lists is not None and len(run.test.lists):
        metrics |= {name: Metric(v, v, v) for name, v in _lists(run, test).items()}
    settings = run.constants or {"encoder": run.fitted.info.get("encoder"), "train": run.fitted.info.get("train")}
    return Row(
        run.name,
        run.kind,
        metrics,
        round(run.seconds, 3),
        run.parameters,
        settings,
        run.seeds,
        validation,
        [],
        curves(run),
        task.plots(run.test),
    )


def _lists(run: Run, test: Stage) -> dict[str, float]:
    counts = np.bincount(np.asarray(test.train["item"]), minlength=len(test.prepared.vocabularies["item"]))
    assert run.test.lists is not None
    return list_statistics(run.test.lists, counts)


def _warnings(runs: list[Run]) -> list[str]:
    found = []
    for run in runs:
        lists = run.test.lists
        if run.kind == "model" and lists is not None and len(lists) > 10:
            same = len(lists) - len(np.unique(lists, axis=0))
            if same > 0.5 * len(lists):
                found.append(
                    f"{run.name} shows the same list to many: {same:,} of {len(lists):,} lists repeat another one."
                )
    return found


def _result(task: Task, test: Stage, model: str, rows: list[Row], seed: int, begun: float) -> Result:
    return Result(
        task.name,
        model,
        test.protocol,
        iso(test.prepared.cut),
        seed,
        rows,
        round(time.perf_counter() - begun, 3),
        peak_rss_mib(),
        task.primary(test.prepared),
        notes=task.notes(test.prepared),
    )


def peak_rss_mib() -> float:
    """The most memory this process has held, in MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / 1024 / (1024 if sys.platform == "darwin" else 1), 1)
