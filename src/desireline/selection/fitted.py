"""A fitted model, alone or as a panel of several, in memory and as a folder of JSON and safetensors."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file as load_arrays
from safetensors.numpy import save_file as save_arrays

from desireline.core.errors import ModelError, SettingError, UnknownModelError
from desireline.core.files import new_folder, read_json, write_json
from desireline.schema.model import AnomalySettings, ChurnSettings, EncoderSettings, Schema, TrainSettings
from desireline.selection.indexed import index_of
from desireline.sequences.prepared import Prepared, iso, open_prepared, schema_digest
from desireline.tasks import TASKS, Task
from desireline.tasks.interface import Baseline, Chunks, Teacher
from desireline.tasks.judges import JUDGES, Judge
from desireline.tasks.nearest import Nearest
from desireline.tasks.questions import Questions, item_histories
from desireline.tasks.recommend import Recommend
from desireline.tasks.sources import mean_log_shares
from desireline.training.device import device_of, fetched
from desireline.training.network import Network, inputs_of

SETTLED = {"churn": ChurnSettings, "anomaly": AnomalySettings}  # settings that a task reads off the log
FIXED = {  # those of them that say what a model's answers mean, and in words what that is
    "churn": (("by", "horizon_d", "gap_d", "active_d", "own_gaps"), "what leaving means"),
    "anomaly": (("window_d", "orders", "seller", "rating", "text"), "what is judged"),
}


@dataclass(frozen=True)
class Fitted:
    """A model of one task, with the prepared log whose ids it speaks.

    name : the row's name: an encoder or a baseline;  info : what `model.json` holds
    """

    task: Task
    name: str
    prepared: Prepared
    predictor: Network | Baseline | Panel
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

    @property
    def parameters(self) -> int:
        """Learnt numbers."""
        predictor = self.predictor
        return predictor.parameters_count if isinstance(predictor, Network) else predictor.parameters

    @property
    def temperature(self) -> float | None:
        """Of a network's cosines; None for a model that has none."""
        return self.predictor.temperature if isinstance(self.predictor, Network) else None

    @cached_property
    def nearest(self) -> Nearest | None:
        """The index that lists of items come from; None: every item is looked at."""
        if self.task.name != Recommend.name or not isinstance(self.predictor, Network):
            return None
        return index_of(self.predictor, self.prepared, self.prepared.workspace / "models" / self.id)


@dataclass(frozen=True)
class Source:
    """The models of one row, a seed each, as one opinion on every item."""

    name: str
    models: list[Fitted]

    def thoughts(self, questions: Questions) -> Iterator[tuple[int, int, NDArray[np.float32]]]:
        """Questions [lo, hi) and the mean of the models' log shares, float32 [hi − lo, items]."""
        for chunks in zip(*(model.predictions(questions) for model in self.models), strict=True):
            lo, hi, _ = chunks[0]
            yield lo, hi, mean_log_shares([scores for _, _, scores in chunks], [m.temperature for m in self.models])


def thoughts(
    sources: Sequence[Source], questions: Questions, spent: dict[str, float] | None = None
) -> Iterator[tuple[int, int, list[NDArray[np.float32]]]]:
    """Questions [lo, hi) and what each source thinks of every item, float32 [hi − lo, items] each.

    spent : gains the seconds that each source took
    """
    streams = [source.thoughts(questions) for source in sources]
    while True:
        chunks = []
        for source, stream in zip(sources, streams, strict=True):
            begun = time.perf_counter()
            chunks += [chunk for chunk in [next(stream, None)] if chunk is not None]
            if spent is not None:
                spent[source.name] = spent.get(source.name, 0.0) + time.perf_counter() - begun
        if not chunks:
            return
        yield chunks[0][0], chunks[0][1], [thought for _, _, thought in chunks]


@dataclass(frozen=True)
class Panel:
    """Sources, and the judge that makes one score of what they think."""

    sources: list[Source]
    judge: Judge

    def predictions(self, questions: Questions) -> Chunks:
        """Scores [hi − lo, items] of questions [lo, hi)."""
        for lo, hi, thought in thoughts(self.sources, questions):
            yield lo, hi, self.judge(thought, item_histories(questions, lo, hi))

    def models(self) -> list[Fitted]:
        """All models of all sources."""
        return [model for source in self.sources for model in source.models]

    @property
    def parameters(self) -> int:
        """Learnt numbers of all models and of the judge."""
        return sum(model.parameters for model in self.models()) + self.judge.parameters


def new_network(
    teacher: Teacher, encoder: str, settings: EncoderSettings, train: TrainSettings, prepared: Prepared, seed: int
) -> Network:
    """A network with the weights that follow from the seed, on the device that the settings name."""
    torch.manual_seed(seed)
    heads = teacher.heads(prepared, settings.d_model)
    return Network(inputs_of(prepared), encoder, settings, heads, train.temperature).to(device_of(train))


def settings_of(info: dict[str, Any], schema: Schema) -> tuple[EncoderSettings, TrainSettings]:
    """What a network was made with; where it runs is a matter of the present settings."""
    encoder = {"neighbours": 0} | info["encoder"]  # models from before that setting had none
    return EncoderSettings(**encoder), TrainSettings(**info["train"], device=schema.train.device)


def taught(task: Task, info: dict[str, Any]) -> Teacher:
    """What the network of a model learned from, by its `model.json`."""
    return task.adaptation.teacher if task.adaptation is not None and "adapt" in info else task.teacher


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
    settings: dict[str, Any] = {}
    if kind == "model":
        settings = {"encoder": schema.encoder.model_dump(), "train": schema.train.model_dump(exclude={"device"})}
    what = {
        "task": task.name,
        "name": name,
        "kind": kind,
        "prepared": prepared.folder.name,
        "seed": seed,
        "constants": constants,
        **settings,
        **({task.name: getattr(schema, task.name).model_dump()} if task.name in SETTLED else {}),
    }
    digest = hashlib.sha256(json.dumps(what | more, sort_keys=True, default=str).encode()).hexdigest()[:8]
    return (
        {"id": f"{task.name}-{name}-{digest}", "cut": iso(prepared.cut), "digest": schema_digest(schema)} | what | more
    )


def settled_schema(info: dict[str, Any], schema: Schema) -> Schema:
    """The schema with what a model's task had read off the log when the model was fitted."""
    return schema.model_copy(update={name: made(**info[name]) for name, made in SETTLED.items() if name in info})


def check_settled(schema: Schema, fitted: Fitted) -> None:
    """Raise SettingError where settings say that answers mean something else than when the model was made."""
    task = fitted.task.name
    if task not in FIXED:
        return
    made, asked, plain = fitted.info[task], getattr(schema, task), SETTLED[task]()
    names, meaning = FIXED[task]
    for name in names:
        wanted = getattr(asked, name)
        if wanted != getattr(plain, name) and wanted != made[name]:
            raise SettingError(
                f"{task}.{name} is {wanted}, but {fitted.id} was made with {made[name]}: {meaning} is fixed when a "
                "model is made. Fit or compare again with it."
            )


def save(fitted: Fitted, models: Path) -> None:
    """Write a model into its folder under `models/`, whole or not at all."""
    predictor = fitted.predictor
    arrays: dict[str, NDArray[Any]]
    if isinstance(predictor, Network):
        arrays = {name: fetched(t.contiguous()) for name, t in predictor.state_dict().items()}
    elif isinstance(predictor, Panel):
        for model in predictor.models():
            save(model, models)
        arrays = predictor.judge.state()
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
    schema = settled_schema(info, schema)
    task, prepared = TASKS[info["task"]], open_prepared(prepared_at, schema)
    sources = [
        Source(source["name"], [load(workspace, schema, model) for model in source["models"]])
        for source in info.get("sources", [])
    ]
    try:
        arrays = load_arrays(folder / "model.safetensors")
        if sources:
            return Fitted(task, info["name"], prepared, Panel(sources, JUDGES[info["name"]].load(arrays)), info)
        if info["kind"] == "model":
            network = new_network(
                taught(task, info),
                info["encoder_name"],
                *settings_of(info, schema),
                prepared,
                0,
            )
            if task.adaptation is not None and "adapt" in info:
                reader = task.adaptation.readers([info["adapt"]], network, schema)[info["adapt"]]
                reader.load(arrays)
                return Fitted(task, info["name"], prepared, reader, info)
            network.load_state_dict({key: torch.from_numpy(array) for key, array in arrays.items()})
            return Fitted(task, info["name"], prepared, network.eval(), info)
        baseline = task.baseline(info["name"], info["constants"], schema, prepared)
        baseline.load(arrays)
        return Fitted(task, info["name"], prepared, baseline, info)
    except (SafetensorError, OSError, RuntimeError, KeyError) as error:
        raise ModelError(f"Model {name} is damaged ({error}): fit it again.") from error
