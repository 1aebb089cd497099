"""`tune`: settings of an encoder by Bayesian search on validation (Optuna's TPE, Bergstra et al. 2011, median pruning).

The test is not looked at. The first trial is the settings as they stand, so that tuning never ends below them. Trials
are kept in `DIR/tuning/`, one journal a task, encoder, protocol, prepared log and settings as they stand: a search that
was interrupted goes on where it stopped, and several processes share it.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, wait
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState
from rich.table import Table

from desireline.core.errors import DataError, SettingError
from desireline.core.processes import process_pool
from desireline.core.progress import progress, say
from desireline.schema.model import Schema, with_settings
from desireline.selection.compare import check_encoders, peak_rss_mib, task_named
from desireline.selection.fit import side_by_side, train_network
from desireline.selection.neighbours import neighbours_settled
from desireline.selection.tracking import check_tracking, log_run
from desireline.sequences.prepared import iso
from desireline.tasks import TASKS
from desireline.tasks.stages import Stage, stages

SPACE: dict[str, list[Any]] = {  # the present value is always among them
    "encoder.d_model": [32, 64, 128],
    "encoder.layers": [1, 2, 3],
    "encoder.dropout": [0.1, 0.2, 0.3, 0.4, 0.5],
    "encoder.neighbours": [0, 10],
    "train.batch_targets": [256, 512, 1024],
    "train.next_items": [1, 3],
    "train.temperature": [0.05, 0.07, 0.1],
}
RATES = 5e-4, 1e-2  # learning rates, on a logarithmic scale
WARM_UP = 5  # trials before the first is pruned
FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)
LOOK_S = 0.5  # between two looks at how far other processes are


@dataclass(frozen=True)
class Search:
    """One study: an encoder for a task. Depends on nothing but its members and the files on disk."""

    folder: Path
    schema: Schema
    task: str
    encoder: str
    protocol: str
    at: datetime
    seed: int

    def validation(self) -> Stage:
        """What trials learn from and are asked."""
        earlier = TASKS[self.task].earlier_cut(self.schema, self.at)
        return stages(self.folder, self.schema, self.protocol, self.at, earlier)[0]

    def study(self, validation: Stage) -> optuna.Study:
        """The study, opened or made."""
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        (self.folder / "tuning").mkdir(exist_ok=True)
        digest = hashlib.sha256(self.schema.model_dump_json().encode()).hexdigest()[:8]
        name = f"{self.task}-{self.encoder}-{self.protocol}-{validation.prepared.folder.name}-{digest}"
        return optuna.create_study(
            study_name=name,
            storage=JournalStorage(JournalFileBackend(str(self.folder / "tuning" / f"{name}.log"))),
            pruner=optuna.pruners.MedianPruner(n_startup_trials=WARM_UP, n_warmup_steps=1),
            direction="maximize",
            load_if_exists=True,
        )


@dataclass(frozen=True)
class Tuned:
    """What a search found: its best settings and their validation figure, and every trial."""

    task: str
    metric: str
    protocol: str
    cut: str
    seed: int
    best: dict[str, Any]
    trials: list[dict[str, Any]]
    seconds: float
    peak_rss_mib: float

    def to_json(self) -> dict[str, Any]:
        """As the command prints it."""
        return asdict(self)

    def __rich__(self) -> Table:
        title = f"{self.task} · {self.protocol} · cut {self.cut} · {self.metric} on validation"
        caption = f"Use it: --encoder {self.best['encoder']} " + " ".join(
            f"--set {key}={value}" for key, value in self.best["settings"].items()
        )
        table = Table(title=title, caption=caption, title_justify="left", caption_justify="left", box=None)
        for name in ("encoder", "trial", "", self.metric, "settings", "seconds"):
            table.add_column(name, justify="left" if name in ("encoder", "settings") else "right")
        for t in self.trials:
            best = t["encoder"] == self.best["encoder"] and t["number"] == self.best["number"]
            value = "" if t["value"] is None else f"{t['value']:.4f}"
            told = " ".join(f"{key.split('.')[-1]}={v:g}" for key, v in t["settings"].items())
            cells = t["encoder"], str(t["number"]), t["state"], value, told, f"{t['seconds']:.0f}"
            table.add_row(*cells, style="bold green" if best else "")
        return table


def tune(
    folder: Path,
    schema: Schema,
    task_name: str,
    encoders: list[str],
    at: datetime,
    protocol: str,
    trials: int,
    minutes: float | None,
    seed: int,
    named: bool = True,
) -> Tuned:
    """Search the settings of each encoder with as many trials; those of an earlier run count.

    named : whether the user named the cut; one that was not may be moved to where the task can be tested

    Raises SettingError for no trial, an unknown task or an unknown encoder.
    """
    if trials < 1:
        raise SettingError(f"--trials {trials}: try at least one.")
    task = task_named(task_name)
    check_encoders(encoders)
    check_tracking()
    schema, at = task.settled(folder, schema, at, named)
    begun = time.time()
    learnt_from = Search(folder, schema, task_name, encoders[0], protocol, at, seed).validation()
    schema = neighbours_settled(schema, task.teacher, learnt_from)
    found: list[dict[str, Any]] = []
    for place, encoder in enumerate(encoders):
        search = Search(folder, schema, task_name, encoder, protocol, at, seed)
        validation = search.validation()
        if len(task.teacher.questions(validation, schema)) == 0:
            raise DataError(
                "The validation slice asks nothing, so no settings can be chosen: name an earlier --cut, or a longer "
                "horizon (--set horizon=0.2)."
            )
        study = search.study(validation)
        if not study.get_trials(deepcopy=False):
            study.enqueue_trial(_as_they_stand(schema))
        done = _finished(study)
        if done:
            say(f"{encoder}: going on after {done} trials.")
        left_s = None if minutes is None else begun + 60 * minutes * (place + 1) / len(encoders) - time.time()
        _run(search, study, max(0, trials - done), left_s, f"tuning {encoder}")
        metric = task.teacher.primary(validation.prepared)
        found += [_told(encoder, trial, task.teacher.is_loss(metric)) for trial in study.get_trials(states=FINISHED)]
    complete = [t for t in found if t["state"] == "complete"]
    if not complete:
        raise SettingError("No trial ended in time: give more --minutes.")
    sign = -1.0 if task.teacher.is_loss(metric) else 1.0
    best = max(complete, key=lambda t: sign * t["value"])
    seconds = round(time.time() - begun, 3)
    return Tuned(task_name, metric, protocol, iso(at), seed, best, found, seconds, peak_rss_mib())


def _run(search: Search, study: optuna.Study, left: int, left_s: float | None, label: str) -> None:
    """Run `left` trials, shared out among as many processes as networks may train at once."""
    workers = min(left, side_by_side(search.schema))
    with progress(label, left, "trials") as advance:
        if workers <= 1:
            run_trials(search, left, left_s, 0, advance)
            return
        before = _finished(study)
        shares = [len(range(k, left, workers)) for k in range(workers)]
        with process_pool(workers) as pool:
            running = {pool.submit(run_trials, search, share, left_s, k) for k, share in enumerate(shares)}
            while running:
                ended, running = wait(running, timeout=LOOK_S, return_when=FIRST_EXCEPTION)
                now = _finished(study)
                advance(now - before)
                before = now
                for future in ended:
                    future.result()


def run_trials(
    search: Search, trials: int, left_s: float | None, worker: int, advance: Callable[[float], None] = lambda n: None
) -> None:
    """Run so many trials of a study, in any process; none begins after `left_s` seconds."""
    if trials == 0 or (left_s is not None and left_s <= 0):
        return
    teacher, validation = task_named(search.task).teacher, search.validation()
    asks, study = teacher.questions(validation, search.schema), search.study(validation)
    # what goes on after an interruption, or beside another process, must not draw the same again
    tried = len(study.get_trials(deepcopy=False))
    study.sampler = optuna.samplers.TPESampler(seed=search.seed + 1_000 * worker + tried)

    def objective(trial: optuna.Trial) -> float:
        chosen = suggested(trial, search.schema)
        schema = with_settings(search.schema, {key: str(value) for key, value in chosen.items()})
        schema.train.threads = schema.train.threads or 1

        def watch(epoch: int, value: float) -> None:
            trial.report(value, epoch)
            if trial.should_prune():
                raise optuna.TrialPruned

        _, trained, _ = train_network(
            teacher,
            search.encoder,
            schema,
            validation,
            search.seed,
            planned=schema.train.epochs,
            stop_after=None,
            asks=asks,
            checkpoints=None,
            watch=watch,
        )
        value = max(trained.validations)
        trial.set_user_attr("epochs", trained.best_epoch)
        log_run(
            f"{search.task}-{search.encoder}-{trial.number}",
            {"task": search.task, "encoder": search.encoder, "seed": search.seed, **chosen},
            {"validation": value, "seconds": trained.seconds},
        )
        return value

    study.optimize(objective, n_trials=trials, timeout=left_s, callbacks=[lambda *_: advance(1)])


def suggested(trial: optuna.Trial, schema: Schema) -> dict[str, Any]:
    """The trial's settings, by their dotted names."""
    now = _as_they_stand(schema)
    chosen = {key: trial.suggest_categorical(key, sorted({*values, now[key]})) for key, values in SPACE.items()}
    rate = now["train.lr"]
    return chosen | {"train.lr": trial.suggest_float("train.lr", min(RATES[0], rate), max(RATES[1], rate), log=True)}


def _as_they_stand(schema: Schema) -> dict[str, Any]:
    """The present settings, by the names of the space."""
    parts = {"encoder": schema.encoder.model_dump(), "train": schema.train.model_dump()}
    return {key: parts[key.split(".")[0]][key.split(".")[1]] for key in (*SPACE, "train.lr")}


def _finished(study: optuna.Study) -> int:
    return len(study.get_trials(deepcopy=False, states=FINISHED))


def _told(encoder: str, trial: optuna.trial.FrozenTrial, is_loss: bool) -> dict[str, Any]:
    value = trial.value if trial.state == TrialState.COMPLETE else None
    seconds = trial.duration.total_seconds() if trial.duration else 0.0
    return {
        "encoder": encoder,
        "number": trial.number,
        "state": trial.state.name.lower(),
        "value": None if value is None else -value if is_loss else value,
        "epochs": trial.user_attrs.get("epochs"),
        "settings": dict(trial.params),
        "seconds": round(seconds, 1),
    }
