"""The models that answer: the chosen one, fitted once more on the whole log, and those of earlier moments beside it.

What was chosen and confirmed before the cut learns, with the same settings, constants and epochs, from all events up to
now; it has no test of its own. Questions as of an earlier moment go to the evaluated model, so that no answer is given
by a model that has seen what came after. For moments before its cut too, models of earlier cuts stand beside it, each
for the time from its own cut to the next one's; such a model had less to learn from and never answers for now.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from desireline.core.errors import DataError, DesirelineError, UnknownModelError
from desireline.core.files import read_json
from desireline.core.processes import process_pool
from desireline.core.progress import say
from desireline.events.store import EventStore
from desireline.schema.model import Schema
from desireline.selection.answering import ids_of, put_roles, roles_of
from desireline.selection.fit import fitted_again, side_by_side
from desireline.selection.fitted import Fitted, Panel, check_settled, load, save, settled_schema
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


def take_up(folder: Path, schema: Schema, evaluated: Fitted, *, named: bool, refits: bool) -> bool:
    """Let a model that was just evaluated answer: from now on, or for the time of its cut where that is an earlier one.

    named : whether the user named the cut;  refits : whether it is fitted on the whole log to answer for now
    Returns whether it answers from now on.
    """
    if not _is_earlier(folder, schema, evaluated, named):
        if refits:
            say("Fitting it on the whole log, to answer from now on.")
        deploy(folder, evaluated, refit(folder, schema, evaluated) if refits else None)
        return True
    roles, at = roles_of(folder)[evaluated.task.name], evaluated.prepared.cut
    save(evaluated, folder / "models")
    cuts = _cuts(folder, [roles["evaluated"], *roles.get("earlier", [])])
    beside = [name for name, cut in cuts.items() if name != roles["evaluated"] and cut != at]
    put_roles(folder, evaluated.task.name, roles | {"earlier": [*beside, evaluated.id]})
    until = min(cut for cut in cuts.values() if cut > at)
    say(
        f"{roles['evaluated']}, of a later cut ({iso(cuts[roles['evaluated']])}), goes on answering for now; "
        f"{evaluated.id} answers as of moments from {iso(at)} up to {iso(until)}."
    )
    return False


def deploy(folder: Path, evaluated: Fitted, live: Fitted | None) -> None:
    """Name the models that answer for a task: `live` from the log's end on, `evaluated` for moments before it.

    Those that answered stay for the time before the cut of `evaluated`, where their own is earlier.
    """
    save(evaluated, folder / "models")
    if live is not None:
        save(live, folder / "models")
    roles = roles_of(folder).get(evaluated.task.name, {})
    cuts = _cuts(folder, [*roles.get("earlier", []), roles.get("evaluated")])
    earlier = [name for name, cut in cuts.items() if cut < evaluated.prepared.cut]
    pair = {"evaluated": evaluated.id, "live": None if live is None else live.id}
    put_roles(folder, evaluated.task.name, pair | {"earlier": earlier})


def current(folder: Path, schema: Schema, task: str, as_of: datetime | None) -> Fitted:
    """The model that answers for a task as of a moment (None: now): of those not fitted on later events the newest.

    Raises UnknownModelError when none was fitted, DataError when every one has learned from events after `as_of`.
    """
    roles = roles_of(folder).get(task)
    if roles is None:
        raise UnknownModelError(f"No model answers for {task} yet: run `desireline compare {folder} --task {task}`.")
    names = ids_of(roles)
    cuts = _cuts(folder, names)
    if as_of is None or not cuts:
        return load(folder, schema, names[0])
    allowed = [name for name, cut in cuts.items() if cut <= as_of]
    if allowed:
        return load(folder, schema, max(allowed, key=lambda name: cuts[name]))
    raise DataError(
        f"As of {iso(as_of)} no model may answer: all have learned from later events, the earliest up "
        f"to {iso(min(cuts.values()))}. "
        f"Run `desireline compare {folder} --task {task} --cut {iso(as_of)}` first."
    )


def is_answered(folder: Path, task: str) -> bool:
    """Whether a model answers for the task."""
    return task in roles_of(folder)


def _is_earlier(folder: Path, schema: Schema, evaluated: Fitted, named: bool) -> bool:
    """Whether a model's cut lies before that of the one that answers, so that it must not take its place.

    Where the user named no cut, the present model has to be able to answer still: after a change of the schema, or of
    what the answers mean, the usual cut may lie before its own, and nothing else would ever answer again.
    """
    present = roles_of(folder).get(evaluated.task.name, {}).get("evaluated")
    cut = _cuts(folder, [present]).get(present)
    if cut is None:
        return False
    if not str(_info(folder, present)["protocol"]).startswith("temporal"):  # it knows no cut: it has read the whole log
        cut = min(cut, EventStore(folder, schema).default_cut()) if named else evaluated.prepared.cut
    if evaluated.prepared.cut >= cut:
        return False
    return named or _can_answer(folder, schema, present)


def _can_answer(folder: Path, schema: Schema, name: str) -> bool:
    try:
        check_settled(schema, load(folder, schema, name))
    except DesirelineError:
        return False
    return True


def _cuts(folder: Path, names: Sequence[str | None]) -> dict[str, datetime]:
    """The cuts of those models that are still there."""
    there = [name for name in names if name and (folder / "models" / name / "model.json").exists()]
    return {name: datetime.fromisoformat(_info(folder, name)["cut"]) for name in there}


def _info(folder: Path, name: str) -> dict[str, Any]:
    return dict(read_json(folder / "models" / name / "model.json"))
