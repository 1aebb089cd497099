"""The model that answers: the chosen one, fitted once more on the whole log.

What was chosen and confirmed before the cut learns, with the same settings, constants and epochs, from all events up to
now; it has no test of its own. Questions as of an earlier moment go to the evaluated model, so that no answer is given
by a model that has seen what came after.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

from desireline.core.errors import DataError, UnknownModelError
from desireline.core.files import read_json, write_json
from desireline.core.processes import process_pool
from desireline.events.store import EventStore
from desireline.schema.model import Schema
from desireline.selection.fit import fitted_again, side_by_side
from desireline.selection.fitted import Fitted, Panel, load, save, settled_schema
from desireline.selection.panel import refitted_panel
from desireline.sequences.prepared import iso, prepare
from desireline.tasks.stages import whole_log
from desireline.training.network import Network


def refit(folder: Path, schema: Schema, fitted: Fitted) -> Fitted:
    """The same model fitted on the whole log as it stands."""
    last, schema = EventStore(folder, schema).observed_end(), settled_schema(fitted.info, schema)
    prepared = prepare(folder, schema, last + timedelta(microseconds=1))
    stage = whole_log(prepared, masks_seen="leave-one-out" in str(fitted.info["protocol"]))
    if isinstance(fitted.predictor, Panel):
        save(fitted, folder / "models")
        ids = [model.id for model in fitted.predictor.models()]
        with process_pool(min(len(ids), side_by_side(schema))) as pool:
            live = list(pool.map(_refit_saved, [folder] * len(ids), [schema] * len(ids), ids))
        return refitted_panel(fitted, [load(folder, schema, name) for name in live], stage, schema)
    again = fitted_again(fitted.task, fitted.info, schema, stage, folder / "training")
    if isinstance(fitted.predictor, Network) and isinstance(again.predictor, Network):
        fitted.task.teacher.inherit(again.predictor, fitted.predictor)
    return again


def _refit_saved(folder: Path, schema: Schema, name: str) -> str:
    done = refit(folder, schema, load(folder, schema, name))
    save(done, folder / "models")
    return done.id


def deploy(folder: Path, evaluated: Fitted, live: Fitted | None) -> None:
    """Name the models that answer for a task: `live` from the log's end on, `evaluated` for moments before it."""
    path = folder / "models" / "current.json"
    current = read_json(path) if path.exists() else {}
    save(evaluated, folder / "models")
    current[evaluated.task.name] = {"evaluated": evaluated.id, "live": None}
    if live is not None:
        save(live, folder / "models")
        current[evaluated.task.name]["live"] = live.id
    write_json(path, current)


def current(folder: Path, schema: Schema, task: str, as_of: datetime | None) -> Fitted:
    """The model that answers for a task as of a moment (None: now).

    Raises UnknownModelError when none was fitted, DataError when every one has learned from events after `as_of`.
    """
    named = read_json(folder / "models" / "current.json").get(task) if is_answered(folder, task) else None
    if named is None:
        raise UnknownModelError(f"No model answers for {task} yet: run `desireline compare {folder} --task {task}`.")
    candidates = [load(folder, schema, name) for name in (named["live"], named["evaluated"]) if name]
    for fitted in candidates:
        if as_of is None or fitted.prepared.cut <= as_of:
            return fitted
    earliest = min(f.prepared.cut for f in candidates)
    raise DataError(
        f"As of {iso(as_of or earliest)} no model may answer: all have learned from later events, the earliest up "
        f"to {iso(earliest)}. "
        f"Run `desireline compare {folder} --task {task} --cut {iso(as_of or earliest)}` first."
    )


def is_answered(folder: Path, task: str) -> bool:
    """Whether a model answers for the task."""
    path = folder / "models" / "current.json"
    return path.exists() and task in read_json(path)
