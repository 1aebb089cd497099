"""Several rows as one: sources chosen among the rows of a comparison, and a judge of what they think.

A blend is fitted on the validation, and there each user is judged by weights that were found without him. A ranker
learns from cuts before the validation's, each with sources fitted anew as of it and features as of it: on the
validation it is asked what it has not seen, by time as by user. For the test it learns from the validation too, and the
sources are those that learned from all before the test cut. Under leave-one-out, and in a log too short for earlier
cuts, it learns from the validation itself, and there each question is judged by trees that never saw its user.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from desireline.core.progress import progress, say
from desireline.evaluation.queries import Histories
from desireline.schema.model import Schema
from desireline.selection.fit import Run, directed, fitted_at
from desireline.selection.fitted import Fitted, Panel, Source, describe, thoughts
from desireline.tasks.interface import Measured, Task
from desireline.tasks.judges import Blend, Judge
from desireline.tasks.questions import ItemQuestions, item_histories, training_histories
from desireline.tasks.ranker import Lesson, Ranker, Trends, held_out, predicted, trained
from desireline.tasks.recommend import Recommend
from desireline.tasks.sources import Candidates, forward_weights, gains, propose
from desireline.tasks.stages import Stage, rolled

NETWORKS = 2  # the best so many rows of networks are sources
BASELINES = ("item-knn", "own-frequency", "tifu-knn", "ease", "recent-ease", "recent-popularity", "content")
LEARNT = 24_000  # questions, at most, of the validation and of the cuts before it together, on which judges are fitted
TRIED = 6_000  # of those, at most, on which weights are tried and sources left out
PIECE = 2_000  # questions whose features are held at once for all that was proposed
ROLLED = 3  # cuts before the validation's, at most
FOLDS = 3  # parts of the users, where what is learned of some is asked of others

Opinion: TypeAlias = Callable[[list[NDArray[np.float32]], ItemQuestions], NDArray[np.float32]]


@dataclass(frozen=True)
class Judged:
    """A fitted judge.

    validating : what speaks on the validation;  judge : what speaks from then on;  used : its sources, by number
    without    : what NDCG@10 on validation, a mean over users, loses when a source is left out (all of it, where there
                 is one alone), and the standard error of that
    """

    validating: Opinion
    judge: Judge
    used: list[int]
    without: dict[str, tuple[float, float]]
    seconds: float


def panels(
    task: Task, runs: Sequence[Run], both: tuple[Stage, Stage], folder: Path, schema: Schema, seed: int
) -> list[Run]:
    """The rows of panels beside those of single models; none for a task whose predictions are no item scores."""
    if not isinstance(task, Recommend):
        return []
    sources = sources_of(task, runs, task.primary(both[0].prepared))
    if len(sources) < 2:
        return []
    begun = time.perf_counter()
    validation, test = both
    asked = [Source(run.name, run.validated) for run in sources]
    before = [s for s in rolled(folder, schema, validation, ROLLED) if len(task.questions(s, schema))]
    most = LEARNT // (1 + len(before))
    few, candidates, lesson = lesson_of(task, asked, validation, schema, seed, most)
    preparing = time.perf_counter() - begun
    earlier = rolled_lessons(task, sources, before, folder, schema, seed, most)
    rolling = time.perf_counter() - begun - preparing
    fitting = Fitting(sources, few, candidates, lesson, earlier, validation, seed)
    judges = [judged for judged in (fitting.blend(), fitting.ranker()) if judged is not None]
    before_asking, spent = time.perf_counter(), (dict[str, float](), dict[str, float]())
    on_validation = measured(task, asked, [j.validating for j in judges], validation, schema, spent[0])
    live = [Source(run.name, run.models) for run in sources]
    later = [j.judge.at(*_learned(test)) for j in judges]
    speaking = [_opinion(judge, j.used) for judge, j in zip(later, judges, strict=True)]
    on_test = measured(task, live, speaking, test, schema, spent[1])
    of_source = {run.name: spent[0][run.name] + spent[1][run.name] for run in sources}
    judging = (time.perf_counter() - before_asking - sum(of_source.values())) / len(judges)
    rows = []
    for j, judge, validated, tested in zip(judges, later, on_validation, on_test, strict=True):
        used = [live[s] for s in j.used]
        fitted = fitted_panel(task, Panel(used, judge), test, schema, test.protocol, seed)
        seconds = preparing + j.seconds + judging + sum(sources[s].seconds + of_source[sources[s].name] for s in j.used)
        seconds += rolling if judge.name == Ranker.name else 0.0
        told = {
            source.name: {
                "weight" if judge.name == Blend.name else "share": judge.told(k),
                "adds": j.without[source.name][0],
                "± SE": j.without[source.name][1],
                "ms a question": round(1000 * spent[1][source.name] / max(1, len(tested.user)), 3),
            }
            for k, source in enumerate(used)
        }
        seeds = sorted({s for n in j.used for s in sources[n].seeds})
        # no panel is a source of another: nothing is kept of it as validated
        rows.append(
            Run(
                judge.name,
                "panel",
                validated,
                tested,
                [fitted],
                [],
                seconds,
                fitted.parameters,
                seeds,
                {"sources": told},
            )
        )
    return rows


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


def lesson_of(
    task: Recommend, sources: Sequence[Source], stage: Stage, schema: Schema, seed: int, most: int
) -> tuple[ItemQuestions, Candidates, Lesson]:
    """Up to `most` questions of a stage in random order, what the sources propose for them, and what that teaches."""
    asks = task.questions(stage, schema)
    order = np.random.default_rng(seed).permutation(len(asks)).astype(np.int64)
    few, parts = asks.part(order[:most]), []
    with progress(f"asking every source, {stage.name}", len(few), "questions") as advance:
        for lo, hi, thought in thoughts(sources, few):
            parts.append(propose(thought, item_histories(few, lo, hi), stage.masks_seen, told=True))
            advance(hi - lo)
    candidates, trends = Candidates.joined(parts), Trends.of(*_learned(stage))
    pieces = [np.arange(lo, min(lo + PIECE, len(few)), dtype=np.int64) for lo in range(0, len(few), PIECE)]
    taught = [Lesson.of(candidates.part(rows), few.part(rows), trends).thinned(seed) for rows in pieces]
    return few, candidates, Lesson.joined(taught)


def rolled_lessons(
    task: Recommend, sources: Sequence[Run], before: Sequence[Stage], folder: Path, schema: Schema, seed: int, most: int
) -> list[Lesson]:
    """A lesson of each cut before the validation's, the oldest first; sources are fitted at each, one seed of them."""
    models = fitted_at(folder, schema, [run.validated[0] for run in sources], before)
    lessons = []
    for stage, fitted in zip(before, models, strict=True):
        asked = [Source(run.name, [model]) for run, model in zip(sources, fitted, strict=True)]
        lessons.append(lesson_of(task, asked, stage, schema, seed, most)[2])
    return [lesson for lesson in lessons if lesson.came.any()]


def measured(
    task: Task,
    sources: Sequence[Source],
    opinions: Sequence[Opinion],
    stage: Stage,
    schema: Schema,
    spent: dict[str, float],
) -> list[Measured]:
    """What each of several judges gives for all of a stage's questions, every source asked once.

    spent : gains the seconds that each source took
    """
    asks = task.questions(stage, schema)
    parts: list[list[Measured]] = [[] for _ in opinions]
    with progress(f"judging, {stage.name}", len(asks), "questions") as advance:
        for lo, hi, thought in thoughts(sources, asks, spent):
            some = asks.part(np.arange(lo, hi, dtype=np.int64))
            for opinion, found in zip(opinions, parts, strict=True):
                chunk = iter([(0, hi - lo, opinion(thought, some))])
                found.append(task.measure(chunk, some, schema, stage.masks_seen))
            advance(hi - lo)
    nothing = task.measure(iter([]), asks, schema, stage.masks_seen)
    return [Measured.joined(found) if found else nothing for found in parts]


def _opinion(judge: Judge, used: Sequence[int]) -> Opinion:
    return lambda thought, some: judge([thought[s] for s in used], item_histories(some))


@dataclass(frozen=True)
class Fitting:
    """What judges are fitted on.

    questions, candidates, lesson : of the validation, in random order
    earlier : lessons of the cuts before, the oldest first
    """

    sources: list[Run]
    questions: ItemQuestions
    candidates: Candidates
    lesson: Lesson
    earlier: list[Lesson]
    validation: Stage
    seed: int

    def blend(self) -> Judged:
        """The log-linear mixture of those of the sources that bring something."""
        begun = time.perf_counter()
        rows = np.arange(min(TRIED, len(self.questions)), dtype=np.int64)
        questions, candidates = self.questions.part(rows), self.candidates.part(rows)
        weights, gained = forward_weights(candidates, questions.targets, questions.user)
        used = np.flatnonzero(weights).tolist()
        without = {}
        for source in used if len(used) > 1 else ():
            _, rest = forward_weights(candidates.without(source), questions.targets, questions.user)
            without[self.sources[source].name] = _mean(gained - rest)
        if len(used) == 1:
            without[self.sources[used[0]].name] = _mean(gained)
        parts, by_part = self._parts(), []  # who is judged by weights that were found without him
        for number in range(FOLDS):
            known = rows[parts[questions.user] != number]
            some = questions.part(known)
            found = forward_weights(candidates.part(known), some.targets, some.user)[0] if len(known) else weights
            by_part.append(Blend(found))

        def validating(thought: list[NDArray[np.float32]], asked: ItemQuestions) -> NDArray[np.float32]:
            mixed = np.empty_like(thought[0])
            for number, blend in enumerate(by_part):
                here = np.flatnonzero(parts[asked.user] == number)
                mixed[here] = blend([logs[here] for logs in thought], item_histories(asked.part(here)))
            return mixed

        return Judged(validating, Blend(weights[used]), used, without, time.perf_counter() - begun)

    def _parts(self) -> NDArray[np.int64]:
        """int64 [users of the validation]: the part of each, so that nobody is judged by what was learned of him."""
        return np.random.default_rng(self.seed).integers(0, FOLDS, len(self.validation.timeline))

    def ranker(self) -> Judged | None:
        """The learned ranker over all sources; None where too little came of what they propose."""
        begun = time.perf_counter()
        stage, here, parts = self.validation, self.lesson, self._parts()
        part = parts[here.user]
        lesson = Lesson.joined(self.earlier) if self.earlier else here
        fold = np.repeat(np.arange(len(self.earlier)), [len(e) for e in self.earlier]) if self.earlier else part
        if len(self.earlier) == 1:
            fold = np.random.default_rng(self.seed).integers(0, FOLDS, int(lesson.user.max()) + 1)[lesson.user]
        if not self.earlier and stage.end_us is not None:
            say("No cut before the validation's teaches anything: the ranker learns from parts of its users.")
        taught = np.bincount(fold[lesson.came.any(axis=1)], minlength=FOLDS if len(self.earlier) < 2 else 0)
        if taught.min() == 0:
            say("Next to nothing came of what the sources propose: no ranker learns from that.")
            return None
        trends, (others, rounds) = Trends.of(*_learned(stage)), held_out(lesson, fold, self.seed)
        if self.earlier:
            judge = Ranker([trained(lesson, rounds, self.seed)], trends, stage.masks_seen)
            validating = _opinion(judge, range(len(self.sources)))
            whole, known, unseen = Lesson.joined([lesson, here]), lesson, np.arange(len(here))
        else:
            by_part = Ranker(others, trends, stage.masks_seen)
            whole, known, unseen = here, here.part(np.flatnonzero(part != 0)), np.flatnonzero(part == 0)

            def validating(thought: list[NDArray[np.float32]], some: ItemQuestions) -> NDArray[np.float32]:
                return by_part(thought, item_histories(some), parts[some.user])

        final = Ranker([trained(whole, rounds, self.seed)], trends, stage.masks_seen)
        without = self._left_out(known, unseen[:TRIED], trends, rounds)
        return Judged(validating, final, list(range(len(self.sources))), without, time.perf_counter() - begun)

    def _left_out(
        self, known: Lesson, unseen: NDArray[np.int64], trends: Trends, rounds: int
    ) -> dict[str, tuple[float, float]]:
        """What each source adds: rankers learn with and without it, from as many questions, and are asked others.

        unseen : int64 [Q], numbers of questions of the validation that `known` does not hold
        """
        some = np.random.default_rng(self.seed).permutation(len(known))[:TRIED].astype(np.int64)
        known, asked = known.part(some), self.questions.part(unseen)
        unknown, wanted = Lesson.of(self.candidates.part(unseen), asked, trends), asked.wanted

        row = np.unique(asked.user, return_inverse=True)[1]

        def gained(known: Lesson, unknown: Lesson) -> NDArray[np.float64]:
            of_question = gains(predicted(trained(known, rounds, self.seed), unknown), unknown.came, wanted)
            return np.asarray(np.bincount(row, of_question) / np.bincount(row), np.float64)

        found = {}
        with progress("leaving out each source", len(self.sources), "sources") as advance:
            all_of_them = gained(known, unknown)
            for s, source in enumerate(self.sources):
                found[source.name] = _mean(all_of_them - gained(known.without(s), unknown.without(s)))
                advance(1, source.name)
        return found


def _mean(differences: NDArray[np.float64]) -> tuple[float, float]:
    """Of differences of users [U] the mean and its standard error."""
    error = differences.std() / max(1, len(differences)) ** 0.5
    return round(float(differences.mean()), 4), round(float(error), 4)


def _learned(stage: Stage) -> tuple[Histories, int, int]:
    """What a judge takes from a stage: the training histories, the catalogue's size, the cut in microseconds."""
    return training_histories(stage.train, stage.from_us), len(stage.prepared.vocabularies["item"]), stage.from_us


def fitted_panel(task: Task, panel: Panel, stage: Stage, schema: Schema, protocol: str, seed: int) -> Fitted:
    """A panel as a model that can be saved; `protocol` is the one that it was evaluated under."""
    sources = [{"name": s.name, "models": [model.id for model in s.models]} for s in panel.sources]
    told = {source.name: panel.judge.told(k) for k, source in enumerate(panel.sources)}
    name = panel.judge.name
    info = describe(task, name, "panel", stage.prepared, schema, seed, told, sources=sources, protocol=protocol)
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
    return fitted_panel(fitted.task, later, stage, schema, str(fitted.info["protocol"]), int(fitted.info["seed"]))
