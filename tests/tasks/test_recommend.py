"""The row `content`: offered where items have fields, and the only one that brings up what nobody had yet."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl

from desireline.schema.model import EventSpec, FieldSpec, Schema, TimeSpec
from desireline.tasks.answers import asked_now
from desireline.tasks.recommend import Recommend
from desireline.tasks.stages import whole_log
from desireline.workspace import init_workspace

START = datetime(2024, 1, 1, tzinfo=UTC)
SCHEMA = Schema(
    user="user",
    time=TimeSpec(column="time"),
    event=EventSpec(column="event"),
    item="item",
    fields={"kind": FieldSpec(column="kind", kind="category", of="item")},
    types={"buy": {"roles": ["positive", "target"]}, "return": {"roles": ["negative"]}},
)


def test_an_item_that_was_only_returned_so_far_is_brought_up_by_its_kind_alone(tmp_path):
    lamps, cups = [f"lamp{n}" for n in range(6)], [f"cup{n}" for n in range(14)]
    rows = [
        (f"u{n}", n + k, "buy", item) for n in range(30) for k, item in enumerate((cups[n % 14], cups[(n + 1) % 14]))
    ]
    rows += [(f"v{n}", n, "buy", lamp) for n, lamp in enumerate(lamps)] + [("w", 50, "return", "new lamp")]
    rows += [("asking", 40, "buy", "lamp2")]
    table = [
        (u, (START + timedelta(days=d)).replace(tzinfo=None), e, i, i.split()[-1].strip("0123456789"))
        for u, d, e, i in rows
    ]
    pl.DataFrame(table, schema=["user", "time", "event", "item", "kind"], orient="row").write_parquet(
        tmp_path / "l.parquet"
    )
    workspace, _ = init_workspace(tmp_path / "w", schema=SCHEMA)
    workspace.ingest(tmp_path / "l.parquet")
    prepared, task = workspace.prepare(START + timedelta(days=60)), Recommend()
    questions = asked_now(prepared.before, prepared.cut_us)
    row = int(np.flatnonzero(questions.user == prepared.user_row("asking"))[0])
    places = {}
    for name, grid in task.baselines(prepared, SCHEMA).items():
        model = task.baseline(name, grid[0], SCHEMA, prepared)
        model.fit(whole_log(prepared, masks_seen=False))
        scores = next(model.predictions(questions))[2][row]
        places[name] = int((scores[2:] > scores[prepared.vocabularies["item"].id_of("new lamp")]).sum())
    assert places.pop("content") < len(lamps) + 1
    assert min(places.values()) >= len(lamps) + 1
    plain = SCHEMA.model_copy(update={"fields": {}})
    assert "content" not in task.baselines(prepared, plain)
