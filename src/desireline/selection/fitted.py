"""A fitted model, in memory and as a folder of JSON and safetensors."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file as load_arrays
from safetensors.numpy import save_file as save_arrays

from desireline.core.errors import ModelError, UnknownModelError
from desireline.core.files import new_folder, read_json, write_json
from desireline.schema.model import EncoderSettings, Schema
from desireline.sequences.prepared import Prepared, iso, open_prepared, schema_digest
from desireline.tasks import TASKS, Task
from desireline.tasks.interface import Baseline, Chunks
from desireline.tasks.questions import Questions
from desireline.training.network import Network, inputs_of


@dataclass(frozen=True)
class Fitted:
    """A model of one task, with the prepared log whose ids it speaks.

    name : the row's name: an encoder or a baseline;  info : what `model.json` holds
    """

    task: Task
    name: str
    prepared: Prepared
    predictor: Network | Baseline
    info: dict[str, Any]

    @property
    def id(self) -> str:
        """The model's name in the workspace."""
        return str(self.info["id"])

    def predictions(self, questions: Questions) -> Chunks:
        """What the task predicts for each question."""
        if isinstance(self.predictor, Network):
            return self.task.network_predictions(self.predictor, questions)
        return self.predictor.predictions(questions)


def new_network(task: Task, encoder: str, settings: EncoderSettings, prepared: Prepared, seed: int) -> Network:
    """A network with the weights that follow from the seed."""
    torch.manual_seed(seed)
    return Network(inputs_of(prepared), encoder, settings, task.heads(prepared, settings.d_model))


def describe(
    task: Task,
    name: str,
    kind: str,
    prepared: Prepared,
    schema: Schema,
    seed: int,
    constants: dict[str, Any],
    **more: Any,
) -> dict[str, Any]:
    """The `model.json` of a model about to be saved; its id follows from what it was made of."""
    settings = {"encoder": schema.encoder.model_dump(), "train": schema.train.model_dump()} if kind == "model" else {}
    what = {
        "task": task.name,
        "name": name,
        "kind": kind,
        "prepared": prepared.folder.name,
        "seed": seed,
        "constants": constants,
        **settings,
    }
    digest = hashlib.sha256(json.dumps(what | more, sort_keys=True, default=str).encode()).hexdigest()[:8]
    return (
        {"id": f"{task.name}-{name}-{digest}", "cut": iso(prepared.cut), "digest": schema_digest(schema)} | what | more
    )


def save(fitted: Fitted, models: Path) -> None:
    """Write a model into its folder under `models/`, whole or not at all."""
    predictor = fitted.predictor
    arrays: dict[str, NDArray[Any]]
    if isinstance(predictor, Network):
        arrays = {name: t.detach().contiguous().numpy() for name, t in predictor.state_dict().items()}
    else:
        arrays = {name: np.ascontiguousarray(a) for name, a in predictor.state().items()}
    with new_folder(models / fitted.id) as folder:
        save_arrays(arrays, folder / "model.safetensors")
        write_json(folder / "model.json", fitted.info)


def load(workspace: Path, schema: Schema, name: str) -> Fitted:
    """Open a saved model.

    Raises UnknownModelError when there is none of that name, ModelError when it was made under another schema or its
    files are damaged.
    """
    folder = workspace / "models" / name
    if not (folder / "model.json").exists():
        known = (
            ", ".join(sorted(p.name for p in (workspace / "models").glob("*") if (p / "model.json").exists()))
            or "none yet"
        )
        raise UnknownModelError(f"There is no model {name!r} in {workspace}; known are: {known}.")
    info = read_json(folder / "model.json")
    if info["digest"] != schema_digest(schema):
        raise ModelError(
            f"Model {name} was made under another schema than the present desireline.yaml: fit it again, or put "
            "the schema back."
        )
    prepared_at = workspace / "prepared" / info["prepared"]
    if not (prepared_at / "meta.json").exists():
        raise ModelError(f"Model {name} belongs to the prepared log {info['prepared']}, which is gone: fit it again.")
    task, prepared = TASKS[info["task"]], open_prepared(prepared_at, schema)
    try:
        arrays = load_arrays(folder / "model.safetensors")
        if info["kind"] == "model":
            network = new_network(task, info["encoder_name"], EncoderSettings(**info["encoder"]), prepared, 0)
            network.load_state_dict({key: torch.from_numpy(array) for key, array in arrays.items()})
            return Fitted(task, info["name"], prepared, network.eval(), info)
        baseline = task.baseline(info["name"], info["constants"], schema, prepared)
        baseline.load(arrays)
        return Fitted(task, info["name"], prepared, baseline, info)
    except (SafetensorError, OSError, RuntimeError, KeyError) as error:
        raise ModelError(f"Model {name} is damaged ({error}): fit it again.") from error
