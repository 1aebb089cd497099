"""Several rows as one: sources chosen among the rows of a comparison, and a judge fitted on validation.

Everything is fitted with the models that were validated, on the validation's questions; for the test the judge stays
and the sources are those that learned from all before the test cut.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from desireline.core.progress import progress
from desireline.evaluation.queries import Histories
from desireline.schema.model import Schema
from desireline.selection.fit import Run, directed
from desireline.selection.fitted import Fitted, Panel, Source, describe, thoughts
from desireline.tasks.interface import Chunks, Task
from desireline.tasks.judges import Blend, Judge
from desireline.tasks.questions import ItemQuestions, item_histories, training_histories
from desireline.tasks.ranker import FOLDS, Ranker, Trends, features, fit_ranker
from desireline.tasks.recommend import Recommend
from desireline.tasks.sources import Candidates, forward_weights, gains, propose
from desireline.tasks.stages import Stage

NETWORKS = 2  # the best so many rows of networks are sources
BASELINES = ("item-knn", "own-frequency", "tifu-knn", "ease", "recent-popularity")
BLENDED, LEARNT = 8_000, 3_000  # questions of the validation, at most, on which a blend and a ranker are fitted


def panels(task: Task, runs: Sequence[Run], both: tuple[Stage, Stage], schema: Schema, seed: int) -> list[Run]:
    """The rows of panels beside those of single models; none for a task whose predictions are no item scores."""
    sources = sources_of(task, runs, task.primary(both[0].prepared))
    if not isinstance(task, Recommend) or len(sources) < 2:
        return []
    begun = time.perf_counter()
    fitting = Fitting.of(task, sources, both, schema, seed)
    asking = time.perf_counter() - begun
    return [blend_row(fitting, asking), ranker_row(fitting, asking)]


def sources_of(task: Task, runs: Sequence[Run], primary: str) -> list[Run]:
    """The rows whose opinions are asked: the best networks, and baselines of different kinds."""
    networks = {
        run.name: directed(task, primary, run.validation)
        for run in runs
        if run.kind == "model" and run.validation is not None
    }
    best = sorted(networks, key=lambda name: -networks[name])[:NETWORKS]
    named = {run.name: run for run in runs if run.validated}
    return [named[name] for name in (*best, *BASELINES) if name in named]


def validated(runs: Sequence[Run]) -> list[Source]:
    """The rows as sources, with the models that were validated."""
    return [Source(run.name, run.validated) for run in runs]


@dataclass(frozen=True)
class Fitting:
    """What judges are fitted on: questions of the validation in random order, and what the sources propose for them."""

    task: Recommend
    sources: list[Run]
    both: tuple[Stage, Stage]
    schema: Schema
    seed: int
    asks: ItemQuestions  # all of the validation
    questions: ItemQuestions
    proposed: Candidates

    @staticmethod
    def of(task: Recommend, sources: list[Run], both: tuple[Stage, Stage], schema: Schema, seed: int) -> Fitting:
        """Ask every source of the validation."""
        asks = task.questions(both[0], schema)
        order = np.random.default_rng(seed).permutation(len(asks)).astype(np.int64)
        few = asks.part(order[:BLENDED])
        asked, parts = validated(sources), []
        with progress("asking every source", len(few), "questions") as advance:
            for lo, hi, thought in thoughts(asked, few):
                parts.append(propose(thought, item_histories(few, lo, hi), both[0].masks_seen))
                advance(hi - lo)
        return Fitting(task, sources, both, schema, seed, asks, few, Candidates.joined(parts))


def blend_row(fitting: Fitting, seconds: float) -> Run:
    """The log-linear mixture of those of the sources that bring something."""
    begun = time.perf_counter()
    proposed, questions = fitting.proposed, fitting.questions
    came = proposed.came(questions.targets)
    alone = [float(gains(logs, came, questions.wanted).mean()) for logs in np.moveaxis(proposed.scores, 2, 0)]
    weights, _ = forward_weights(proposed, questions.targets, int(np.argmax(alone)))
    used = np.flatnonzero(weights).tolist()
    judge, sources = Blend(weights[used]), [fitting.sources[s] for s in used]
    panel = Panel(validated(sources), judge)
    seconds += time.perf_counter() - begun
    return _row(fitting, panel.predictions(fitting.asks), judge, sources, seconds)


def ranker_row(fitting: Fitting, seconds: float) -> Run:
    """The learned ranker over all sources; on validation a question is judged by trees that never saw its user."""
    begun = time.perf_counter()
    validation, asks = fitting.both[0], fitting.asks
    learnt = np.arange(min(LEARNT, len(fitting.questions)))
    questions = fitting.questions.part(learnt)
    proposed = Candidates(fitting.proposed.ids[learnt], fitting.proposed.scores[learnt])
    trends = Trends.of(*_learned(validation))
    fold = np.random.default_rng(fitting.seed).integers(0, FOLDS, len(validation.timeline))  # of each user
    columns, came = features(proposed, item_histories(questions), trends), proposed.came(questions.targets)
    whole, held_out = fit_ranker(columns, proposed, came, fold[questions.user], fitting.seed)
    others = Ranker(held_out, trends, validation.masks_seen)

    def unseen() -> Chunks:
        for lo, hi, thought in thoughts(validated(fitting.sources), asks):
            yield lo, hi, others(thought, item_histories(asks, lo, hi), fold[asks.user[lo:hi]])

    seconds += time.perf_counter() - begun
    return _row(fitting, unseen(), Ranker([whole], trends, validation.masks_seen), fitting.sources, seconds)


def _row(fitting: Fitting, on_validation: Chunks, judge: Judge, sources: Sequence[Run], seconds: float) -> Run:
    """A panel's row: what it predicted on validation, and the same judge over the sources of the test."""
    begun = time.perf_counter()
    task, schema, (validation, test) = fitting.task, fitting.schema, fitting.both
    asked = task.questions(test, schema)
    panel = Panel([Source(run.name, run.models) for run in sources], judge.at(*_learned(test)))
    fitted = fitted_panel(task, panel, test, schema, test.protocol)
    return Run(
        judge.name,
        "panel",
        task.measure(on_validation, fitting.asks, schema, validation.masks_seen),
        task.measure(panel.predictions(asked), asked, schema, test.masks_seen),
        [fitted],
        [],  # no panel is a source of another
        seconds + time.perf_counter() - begun + sum(run.seconds for run in sources),
        fitted.parameters,
        sorted({s for run in sources for s in run.seeds}),
        {"sources": {run.name: judge.told(k) for k, run in enumerate(sources)}},
    )


def _learned(stage: Stage) -> tuple[Histories, int]:
    """What a judge takes from a stage: the training histories, and the catalogue's size."""
    return training_histories(stage.train, stage.from_us), len(stage.prepared.vocabularies["item"])


def fitted_panel(task: Task, panel: Panel, stage: Stage, schema: Schema, protocol: str) -> Fitted:
    """A panel as a model that can be saved; `protocol` is the one that it was evaluated under."""
    sources = [{"name": s.name, "models": [model.id for model in s.models]} for s in panel.sources]
    told = {source.name: panel.judge.told(k) for k, source in enumerate(panel.sources)}
    name = panel.judge.name
    info = describe(task, name, "panel", stage.prepared, schema, 0, told, sources=sources, protocol=protocol)
    return Fitted(task, name, stage.prepared, panel, info)


def refitted_panel(fitted: Fitted, models: Sequence[Fitted], stage: Stage, schema: Schema) -> Fitted:
    """The fitted panel with `models`, in its order, in the place of its own, and its judge as of `stage`."""
    panel = fitted.predictor
    assert isinstance(panel, Panel)
    left, sources = list(models), []
    for source in panel.sources:
        sources.append(Source(source.name, left[: len(source.models)]))
        left = left[len(source.models) :]
    later = Panel(sources, panel.judge.at(*_learned(stage)))
    return fitted_panel(fitted.task, later, stage, schema, str(fitted.info["protocol"]))
