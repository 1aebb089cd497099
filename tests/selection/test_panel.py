"""Panels: what a ranker learns from, in logs with room for many earlier cuts and for few."""

import numpy as np
import pytest

import desireline as dl
from desireline.selection.fit import run_baseline
from desireline.selection.fitted import Source
from desireline.selection.panel import Fitting, lesson_of, panels
from desireline.tasks import TASKS
from desireline.tasks.stages import rolled, stages


@pytest.mark.parametrize("cuts", [0, 1, 2, 3])
def test_a_ranker_learns_from_as_many_earlier_cuts_as_there_are(retail_slice, monkeypatch, cuts):
    workspace = dl.open(retail_slice(40).folder)
    task, schema, folder = TASKS["recommend"], workspace.schema, workspace.folder
    both = stages(folder, schema, "temporal", workspace.store.default_cut())
    earlier = rolled(folder, schema, both[0], cuts)
    borders = [stage.prepared.cut for stage in (*earlier, *both)]
    assert len(earlier) == cuts
    assert borders == sorted(set(borders))
    for stage, border in zip(earlier, borders[1:], strict=False):
        assert stage.timeline["time"].max() < border.timestamp() * 1e6
        assert stage.train["time"].max() < stage.from_us
    monkeypatch.setattr("desireline.selection.panel.ROLLED", cuts)
    names = ("item-knn", "own-frequency", "recent-popularity")
    grids = task.baselines(both[0].prepared, schema)
    questions = task.questions(both[0], schema), task.questions(both[1], schema)
    rows = panels(
        task, [run_baseline(task, n, grids[n][:1], schema, both, questions) for n in names], both, folder, schema, 0
    )
    assert [row.name for row in rows] == ["blend", "ranker"]
    assert rows[1].constants["sources"].keys() == set(names)


def test_nobody_is_blended_by_weights_that_were_found_with_him(retail_slice, monkeypatch):
    workspace = dl.open(retail_slice(40).folder)
    task, schema = TASKS["recommend"], workspace.schema
    both = stages(workspace.folder, schema, "temporal", workspace.store.default_cut())
    names = ("item-knn", "own-frequency", "tifu-knn")
    grids = task.baselines(both[0].prepared, schema)
    questions = task.questions(both[0], schema), task.questions(both[1], schema)
    runs = [run_baseline(task, n, grids[n][:1], schema, both, questions) for n in names]
    sources = [Source(run.name, run.validated) for run in runs]
    few, candidates, lesson = lesson_of(task, sources, both[0], schema, 0, 400)
    learned_from = []

    def spied(candidates, targets, user):
        """Weights that name, by their last digits, which call found them."""
        learned_from.append(set(user.tolist()))
        return np.array([1, 0.5, len(learned_from)], np.float32), np.zeros(len(set(user.tolist())))

    monkeypatch.setattr("desireline.selection.panel.forward_weights", spied)
    judged = Fitting(runs, few, candidates, lesson, [], both[0], 0).blend()
    asked = few.part(np.arange(40))
    marks = [np.zeros((40, 5), np.float32), np.zeros((40, 5), np.float32), np.ones((40, 5), np.float32)]
    calls = judged.validating(marks, asked)[:, 0].astype(int)  # what only the third source says tells the call
    assert len(set(calls.tolist())) > 1
    for call, user in zip(calls.tolist(), asked.user.tolist(), strict=True):
        assert user not in learned_from[call - 1]
