"""Poison the future: whatever happens at or after the cut, every prepared byte before it stays the same."""

import hashlib
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import polars.testing
import pytest

from desireline.classical.neighbours import ItemKNN
from desireline.events.cut import cut
from desireline.graphs.spectral import spectral_vectors
from desireline.schema.model import (
    AliasSpec,
    AnomalySettings,
    ChurnSettings,
    EncoderSettings,
    EventSpec,
    FieldSpec,
    Schema,
    TimeSpec,
)
from desireline.selection.fit import run_baseline, train_network
from desireline.selection.fitted import Fitted, describe, new_network
from desireline.selection.neighbours import at_once, neighbours_settled, repeats
from desireline.selection.panel import panels
from desireline.selection.suspects import Look, look
from desireline.sequences.prepare import write_prepared
from desireline.sequences.prepared import open_prepared, prepare
from desireline.tasks import TASKS
from desireline.tasks.answers import asked_now
from desireline.tasks.churn.baselines import ChurnBaseline
from desireline.tasks.churn.definition import Definition
from desireline.tasks.churn.questions import churn_asked
from desireline.tasks.churn.season import Season
from desireline.tasks.churn.snapshots import past_rows
from desireline.tasks.churn.task import settled_at
from desireline.tasks.questions import training_histories
from desireline.tasks.stages import Stage, stages, whole_log
from desireline.workspace import Workspace, init_workspace

CUT = datetime(2024, 3, 1, tzinfo=UTC)
SCHEMA = Schema(
    user="who",
    time=TimeSpec(column="at"),
    event=EventSpec(column="what"),
    item="item",
    value="price",
    fields={
        "channel": FieldSpec(column="channel", kind="category"),
        "brand": FieldSpec(column="brand", kind="category", of="item"),
        "stay": FieldSpec(column="stay", kind="duration"),
    },
    types={"view": {"roles": ["positive", "target"]}, "buy": {"roles": ["positive", "target"]}, "alias": {}},
    alias=AliasSpec(event="alias", column="other"),
)


def log() -> pl.DataFrame:
    rows = []
    for k in range(900):
        user, item = k % 23, (k * k) % 17
        rows.append(
            {
                "who": f"u{user}",
                "at": datetime(2024, 1, 1) + timedelta(hours=2.1 * k, minutes=user),
                "what": "buy" if k % 5 == 0 else "view",
                "item": f"i{item}",
                "price": float(k % 7),
                "channel": f"c{k % 3}",
                "brand": f"b{item % 4}",
                "stay": float(k % 50),
                "other": None,
            }
        )
    rows.append({**rows[100], "what": "alias", "item": None, "other": "u5"})
    return pl.DataFrame(rows, schema_overrides={"other": pl.String})


def prepared(tmp_path: Path, name: str, rows: pl.DataFrame) -> Path:
    folder = tmp_path / name
    workspace, _ = init_workspace(folder, schema=SCHEMA)
    rows.write_parquet(tmp_path / f"{name}.parquet")
    workspace.ingest(tmp_path / f"{name}.parquet")
    return workspace.prepare(CUT).folder


def digests(folder: Path) -> dict[str, str]:
    paths = [p for p in sorted(folder.rglob("*")) if p.is_file() and "after" not in p.parts and p.name != "meta.json"]
    assert len(paths) > 15
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in paths}


FUTURE = pl.col("at") >= CUT.replace(tzinfo=None)
POISONS = {
    "deleted": lambda rows: rows.filter(~FUTURE),
    "changed": lambda rows: rows.with_columns(
        pl.when(FUTURE).then(pl.lit("i3")).otherwise("item").alias("item"),
        pl.when(FUTURE).then(pl.lit(1e9)).otherwise("price").alias("price"),
        pl.when(FUTURE).then(pl.lit("poison")).otherwise("brand").alias("brand"),
        pl.when(FUTURE).then(pl.lit("poison")).otherwise("channel").alias("channel"),
    ),
    "new users, items and times": lambda rows: pl.concat(
        [
            rows,
            rows.with_columns(
                at=CUT.replace(tzinfo=None) + pl.duration(days=pl.int_range(pl.len()) % 90),
                who=pl.col("who") + "x",
                item=pl.col("item") + "x",
            ),
        ]
    ),
    "aliases": lambda rows: pl.concat(
        [rows, rows.head(1).with_columns(at=pl.lit(CUT.replace(tzinfo=None)), what=pl.lit("alias"), other=pl.lit("u7"))]
    ),
    "a bot": lambda rows: pl.concat(
        [rows, *[rows.head(500).with_columns(at=CUT.replace(tzinfo=None) + timedelta(seconds=s)) for s in range(12)]]
    ),
}


@pytest.mark.parametrize("poison", POISONS)
def test_no_byte_before_the_cut_depends_on_what_comes_after(tmp_path, poison):
    clean = digests(prepared(tmp_path, "clean", log()))
    assert digests(prepared(tmp_path, "poisoned", POISONS[poison](log()))) == clean


def test_the_comparison_can_fail(tmp_path):
    clean = digests(prepared(tmp_path, "clean", log()))
    changed = log().with_columns(
        pl.when(pl.int_range(pl.len()) == 3).then(pl.lit("i1")).otherwise("item").alias("item")
    )
    assert digests(prepared(tmp_path, "changed", changed)) != clean


def test_the_validation_cut_does_not_move_with_the_future(tmp_path):
    cuts = []
    for name, rows in {"clean": log(), "poisoned": POISONS["new users, items and times"](log())}.items():
        folder = prepared(tmp_path, name, rows)
        workspace = Workspace(folder.parent.parent, SCHEMA)
        cuts.append(workspace.store.default_cut(CUT))
    assert cuts[0] == cuts[1] < CUT


def test_the_number_of_workers_and_parts_changes_no_byte(tmp_path, monkeypatch):
    first = prepared(tmp_path, "clean", log())
    monkeypatch.setattr("desireline.sequences.prepare.PART_EVENTS", 50)
    workspace = Workspace(first.parent.parent, SCHEMA)
    again = tmp_path / "parts"
    again.mkdir()
    write_prepared(workspace.folder, SCHEMA, CUT, None, again)
    assert digests(first) == digests(again)


@pytest.mark.parametrize("poison", POISONS)
def test_the_item_graph_sees_only_what_lies_before_the_cut(tmp_path, poison):
    vectors, near, most, shares = [], [], [], []
    for name, rows in {"clean": log(), "poisoned": POISONS[poison](log())}.items():
        held = open_prepared(prepared(tmp_path, name, rows), SCHEMA)
        histories, items = training_histories(held.before, held.cut_us), len(held.vocabularies["item"])
        vectors.append(spectral_vectors(histories, items, 4, 0))
        counted = ItemKNN()
        counted.fit(histories, items)
        near.append(np.stack(counted.followers(3)))
        learnt_from = whole_log(held, masks_seen=True)
        most.append(neighbours_settled(SCHEMA, TASKS["recommend"], learnt_from).encoder.neighbours)
        shares.append((repeats(histories), at_once(histories, SCHEMA)))
    assert np.isfinite(vectors[0]).any()
    assert near[0].any()
    np.testing.assert_array_equal(*vectors)
    np.testing.assert_array_equal(*near)
    assert most == [10, 10]
    assert shares[0] == shares[1]


def panels_at_the_cut(tmp_path: Path, name: str, rows: pl.DataFrame) -> dict[str, np.ndarray]:
    """What blend and ranker learnt, what they gave on validation, and how they score everybody at the cut."""
    folder = prepared(tmp_path, name, rows).parent.parent
    task, schema = TASKS["recommend"], SCHEMA.model_copy(deep=True)
    both = stages(folder, schema, "temporal", CUT)
    names = ("item-knn", "own-frequency", "recent-ease", "recent-popularity", "content")
    grids = task.baselines(both[0].prepared, schema)
    questions = task.questions(both[0], schema), task.questions(both[1], schema)
    runs = [run_baseline(task, n, grids[n][:1], schema, both, questions) for n in names]
    found = {}
    for row in panels(task, runs, both, folder, schema, 0):
        found |= {f"{row.name} {key}": array for key, array in row.fitted.predictor.judge.state().items()}
        found[f"{row.name} on validation"] = row.validation.values["NDCG@10"]
        asked = asked_now(row.fitted.prepared.before, row.fitted.prepared.cut_us)
        found[f"{row.name} scores"] = np.concatenate([s for _, _, s in row.fitted.predictions(asked)])
    assert {"blend scores", "ranker scores", "ranker booster_0"} <= found.keys()
    return found


@pytest.mark.parametrize("poison", ["changed", "new users, items and times", "a bot"])
def test_candidates_features_and_ranker_see_only_what_lies_before_the_cut(tmp_path, poison):
    clean = panels_at_the_cut(tmp_path, "clean", log())
    poisoned = panels_at_the_cut(tmp_path, "poisoned", POISONS[poison](log()))
    assert clean.keys() == poisoned.keys()
    for name, array in clean.items():
        np.testing.assert_array_equal(array, poisoned[name], err_msg=name)


def churn_at_the_cut(tmp_path: Path, name: str, rows: pl.DataFrame) -> dict[str, np.ndarray]:
    """What churn models learnt from the past, the season's levels, and everybody's log odds at the cut."""
    folder = prepared(tmp_path, name, rows).parent.parent
    task = TASKS["churn"]
    schema = settled_at(folder, SCHEMA.model_copy(update={"churn": ChurnSettings(horizon_d=1.5)}), CUT)
    stage = whole_log(prepare(folder, schema, CUT), masks_seen=False)
    of = Definition.of(schema.churn)
    past, season = past_rows(stage.prepared, of, 9), Season.of(stage.prepared, of, 9)
    assert past["churned"].n_unique() == 2
    found = {f"past {column.name}": column.to_numpy() for column in past} | {"levels": season.levels}
    events = Workspace(folder, schema).store.read_bucket(0, 64, before=CUT)
    history = cut(events, CUT)[0].filter(pl.col("event") != "alias")
    asked = churn_asked(history, stage.prepared, CUT)
    for row in ("recency", "rfm", "bg-nbd", "aggregates+lightgbm"):
        model = task.baseline(row, {}, schema, stage.prepared)
        model.fit(stage)
        found |= {f"{row} {key}": array for key, array in model.state().items()}
        found[f"{row} log odds"] = np.concatenate([odds for _, _, odds in model.predictions(asked)])
    for row, model in adapted(stage, schema).items():
        found |= {f"{row} {key}": array for key, array in model.state().items()}
        found[f"{row} log odds"] = np.concatenate([odds for _, _, odds in model.predictions(asked)])
    return found


def adapted(stage: Stage, schema: Schema) -> dict[str, ChurnBaseline]:
    """The rows on an encoder that learned next behaviour for one epoch."""
    adaptation = TASKS["churn"].adaptation
    small = schema.model_copy(update={"encoder": EncoderSettings(d_model=8, layers=1, neighbours=0)})
    known = adaptation.stage(stage, small)
    network, _, _ = train_network(adaptation.teacher, "gru", small, known, 0, planned=1, stop_after=1, checkpoints=None)
    readers = adaptation.readers(list(adaptation.rows), network, small)
    made = {row: readers[adapt] for adapt, row in adaptation.rows.items()}
    for model in made.values():
        model.fit(stage)
    return made


@pytest.mark.parametrize("poison", ["deleted", "changed", "new users, items and times", "a bot"])
def test_every_score_of_leaving_sees_only_what_lies_before_the_cut(tmp_path, poison):
    clean = churn_at_the_cut(tmp_path, "clean", log())
    poisoned = churn_at_the_cut(tmp_path, "poisoned", POISONS[poison](log()))
    assert clean.keys() == poisoned.keys()
    for name, array in clean.items():
        np.testing.assert_array_equal(array, poisoned[name], err_msg=name)


def ring() -> pl.DataFrame:
    """Nine accounts that take the same four targets in the days before the cut."""
    rows = [
        {
            **log().row(0, named=True),
            "who": f"r{member}",
            "at": CUT.replace(tzinfo=None) - timedelta(days=3, hours=5 * target, minutes=member),
            "what": "buy",
            "item": f"i{3 + 4 * target}",
        }
        for member in range(9)
        for target in range(4)
    ]
    return pl.DataFrame(rows, schema=log().schema)


def look_at_the_cut(tmp_path: Path, name: str, rows: pl.DataFrame) -> Look:
    """Everything that is found of everybody as of the cut, a network's surprise and groups included."""
    folder = prepared(tmp_path, name, rows).parent.parent
    task, schema = TASKS["anomaly"], SCHEMA.model_copy(update={"anomaly": AnomalySettings(window_d=20)})
    stage = whole_log(prepare(folder, schema, CUT), masks_seen=False)
    network = new_network(task.teacher, "gru", schema.encoder, schema.train, stage.prepared, 0).eval()
    info = describe(task, "gru", "model", stage.prepared, schema, 0, {}, encoder_name="gru")
    return look(folder, Fitted(task, "gru", stage.prepared, network, info), CUT)


@pytest.mark.parametrize("poison", POISONS)
def test_a_look_at_everybody_sees_only_what_lies_before_its_moment(tmp_path, poison):
    rows = pl.concat([log(), ring()])
    clean = look_at_the_cut(tmp_path, "clean", rows)
    poisoned = look_at_the_cut(tmp_path, "poisoned", POISONS[poison](rows))
    assert clean.groups
    assert any(kind["evidence"] for kinds in clean.told.values() for kind in kinds)
    assert clean.nearest
    for name in ("accounts", "features"):
        pl.testing.assert_frame_equal(getattr(clean, name), getattr(poisoned, name), check_exact=True)
    assert clean.evidence.sort("event_id").equals(poisoned.evidence.sort("event_id"))
    for name in ("told", "nearest", "groups", "window"):
        assert getattr(clean, name) == getattr(poisoned, name)


def test_a_look_moves_with_what_lies_before_its_moment(tmp_path):
    rows = pl.concat([log(), ring()])
    clean = look_at_the_cut(tmp_path, "clean", rows)
    last = pl.col("at") == rows.filter(~FUTURE)["at"].max()
    other = look_at_the_cut(tmp_path, "changed", rows.with_columns(item=pl.when(last).then(None).otherwise("item")))
    assert not clean.features.equals(other.features)


def test_who_is_merged_later_is_somebody_else_yet(tmp_path):
    folder = prepared(tmp_path, "poisoned", POISONS["aliases"](log())).parent.parent
    store = Workspace(folder, SCHEMA).store
    clean = Workspace(prepared(tmp_path, "clean", log()).parent.parent, SCHEMA).store
    assert store.users_events("u7")["user"].unique().item() == "u0"
    assert (
        store.users_events("u7", before=CUT)
        .filter(~(pl.col("time") >= CUT))
        .equals(clean.users_events("u7").filter(~(pl.col("time") >= CUT)))
    )
