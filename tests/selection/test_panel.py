"""Panels: what a ranker learns from, in logs with room for many earlier cuts and for few."""

import pytest

import desireline as dl
from desireline.selection.fit import run_baseline
from desireline.selection.panel import panels
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
