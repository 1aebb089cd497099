"""Tables: a row stands alone, the choice follows the rule, models come back from disk, figures stay."""

import json
from datetime import UTC, datetime
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest

import desireline as dl
from desireline.core.errors import DataError, ModelError, SettingError, UnknownModelError, UnknownUserError
from desireline.evaluation.result import Result
from desireline.schema.model import EncoderSettings, EventSpec, EventType, Schema, TrainSettings
from desireline.selection.analyse import _groupings
from desireline.selection.compare import choose
from desireline.selection.deploy import refit
from desireline.selection.fit import Run, run_baseline
from desireline.selection.fitted import load, save, settings_of
from desireline.selection.neighbours import neighbours_settled
from desireline.selection.panel import panels
from desireline.sequences.ragged import POSITIVE, TARGET, Sequences
from desireline.tasks import TASKS
from desireline.tasks.interface import Measured
from desireline.tasks.stages import stages
from desireline.workspace import Workspace, init_workspace

SMALL = {"d_model": "8", "layers": "1", "heads": "1", "length": "20", "epochs": "1", "seeds": "1", "bootstrap": "50"}


@pytest.fixture(scope="session")
def slice_of_retail(retail_slice):
    """Real purchases of 120 customers, ingested once."""
    return retail_slice(40).folder


@pytest.fixture(scope="session")
def compared(slice_of_retail):
    workspace = dl.open(slice_of_retail).with_settings(SMALL)
    return workspace, {task: workspace.compare(task, ["gru"]) for task in TASKS}


def test_every_row_has_metrics_with_intervals_and_baselines_are_there(compared):
    _, models = compared
    names = {row.name for row in models["recommend"].result.rows}
    assert names >= {
        "popularity",
        "recent-popularity",
        "repeat-last",
        "own-frequency",
        "tifu-knn",
        "markov",
        "item-knn",
        "session-knn",
        "ease",
        "gru",
        "random-encoder",
    }
    assert {row.name for row in models["next_event"].result.rows} >= {"popularity", "markov", "median-gap", "gru"}
    for model in models.values():
        for row in model.result.rows:
            assert {"value", "low", "high"} == set(row.metrics[model.result.primary].__dict__)
            for name, metric in row.metrics.items():
                if name != "ECE":  # an absolute error, which resampling can only raise
                    assert metric.low <= metric.value <= metric.high, (row.name, name)


def test_a_row_does_not_depend_on_the_other_rows(compared):
    workspace, models = compared
    for name in ("popularity", "markov"):
        alone = workspace.fit("recommend", "gru", epochs=1).result
        both = [next(r for r in result.rows if r.name == name) for result in (alone, models["recommend"].result)]
        assert both[0].metrics["NDCG@10"] == both[1].metrics["NDCG@10"]


def test_a_saved_model_gives_the_figures_that_its_table_has(compared):
    workspace, models = compared
    for task, model in models.items():
        again = workspace.evaluate(model.id).rows[0]
        row = next(r for r in model.result.rows if r.name == model.chosen)
        assert again.metrics[model.result.primary].value == pytest.approx(row.metrics[model.result.primary].value), task


@pytest.mark.parametrize(
    ("task", "asked", "moments", "most", "tie_break"),
    [
        ("recommend", "auto", [1, 2, 3, 4, 4, 5], 10, "event"),  # users of three events each
        ("recommend", "auto", [4, 4, 4, 4, 4, 5], 0, "event"),
        ("recommend", "auto", [4, 4, 5, 5, 5, 6], 10, "event"),
        ("recommend", "auto", [4, 4, 4, 5, 5, 6], 0, "event"),  # a user's first event follows nothing
        ("recommend", "auto", [4, 4, 4, 4, 4, 5], 10, "line"),  # a column orders what shares a moment
        ("recommend", "auto", [], 0, "event"),
        ("recommend", 3, [4, 4, 4, 4, 4, 4], 3, "event"),
        ("next_event", "auto", [1, 2, 3, 4, 5, 6], 0, "event"),
    ],
)
def test_neighbours_are_read_where_histories_have_an_order(task, asked, moments, most, tie_break):
    offsets = np.array([0, len(moments) // 2, len(moments)])
    columns = {  # each beside something at the same moment that is no part of a history
        "time": np.array([[m, m] for m in moments], np.int64).ravel(),
        "item": np.array([[k + 2, 3] for k in range(len(moments))], np.int32).ravel(),
        "role": np.array([[POSITIVE | TARGET, 0] for _ in moments], np.uint8).ravel(),
    }
    train = Sequences(pl.Series(["a", "b"]), 2 * offsets, columns)
    types = {"buy": EventType(roles=["positive", "target"])}
    settings = EncoderSettings(neighbours=asked)
    schema = Schema(event=EventSpec(constant="buy"), types=types, encoder=settings, tie_break=tie_break)
    settled = neighbours_settled(
        schema, TASKS[task].teacher, SimpleNamespace(train=train, from_us=99, masks_seen=False)
    )
    assert settled.encoder.neighbours == most
    assert schema.encoder.neighbours == asked


@pytest.mark.parametrize(("repeated", "masks_seen", "most"), [(2, False, 10), (3, False, 0), (9, True, 10)])
def test_neighbours_are_read_where_what_is_asked_is_new(repeated, masks_seen, most):
    """Two users of ten events with the same ten items, the second of whom repeats one of them."""
    item = np.concatenate([np.arange(2, 12), np.arange(2, 12)]).astype(np.int32)
    item[19 - repeated :] = item[19]
    columns = {"time": np.arange(20), "item": item, "role": np.full(20, POSITIVE | TARGET, np.uint8)}
    train = Sequences(pl.Series(["a", "b"]), np.array([0, 10, 20]), columns)
    schema = Schema(event=EventSpec(constant="buy"), types={"buy": EventType(roles=["positive", "target"])})
    stage = SimpleNamespace(train=train, from_us=99, masks_seen=masks_seen)
    assert neighbours_settled(schema, TASKS["recommend"], stage).encoder.neighbours == most


def test_what_the_log_said_of_neighbours_stays_with_the_model(tmp_path):
    rng = np.random.default_rng(0)
    rows = [(f"u{u}", k, f"i{rng.integers(12)}") for u in range(60) for k in range(8)]
    pl.DataFrame(rows, schema=["user", "position", "item"], orient="row").write_csv(tmp_path / "log.csv")
    workspace, _ = init_workspace(tmp_path / "w", source=tmp_path / "log.csv")
    workspace.ingest(tmp_path / "log.csv")
    model = workspace.with_settings(SMALL).fit("recommend", "gru", protocol="leave-one-out")
    assert workspace.schema.encoder.neighbours == "auto"
    assert model.fitted.info["encoder"]["neighbours"] == 10
    row = next(row for row in model.result.rows if row.name == "gru")
    assert workspace.evaluate(model.id).rows[0].metrics["NDCG@10"].value == row.metrics["NDCG@10"].value


def test_models_from_before_neighbours_read_none():
    train, encoder = TrainSettings().model_dump(), EncoderSettings().model_dump()
    older = {"encoder": {name: value for name, value in encoder.items() if name != "neighbours"}, "train": train}
    del older["train"]["device"]
    types = {"buy": EventType(roles=["positive", "target"])}
    assert settings_of(older, Schema(event=EventSpec(constant="buy"), types=types))[0].neighbours == 0


def test_a_model_that_reads_neighbours_keeps_them(retail_slice):
    workspace = retail_slice(80).with_settings(SMALL | {"neighbours": "3"})
    model = workspace.fit("recommend", "gnn")
    row = next(row for row in model.result.rows if row.name == "gnn")
    assert workspace.evaluate(model.id).rows[0].metrics["NDCG@10"] == row.metrics["NDCG@10"]
    assert model.fitted.predictor.embedding.neighbours.ids.any()


def test_the_last_positions_of_prefixes_are_as_many_targets(retail_slice):
    workspace = retail_slice(80).with_settings(SMALL)
    every, last = (workspace.with_settings({"positions": p}).fit("recommend", "gru") for p in ("every", "last"))
    rows = [next(row for row in model.result.rows if row.name == "gru") for model in (every, last)]
    assert rows[0].metrics["NDCG@10"] != rows[1].metrics["NDCG@10"]
    assert every.result.training["targets"] == last.result.training["targets"]


def test_a_result_comes_back_from_its_json(compared):
    _, models = compared
    for model in models.values():
        raw = json.loads(json.dumps(model.result.to_json()))
        assert Result.from_json(raw) == model.result
        assert model.table().height == len(model.result.rows)
        assert model.table().columns[2] == model.result.primary
        assert "<table>" in model._repr_html_()


def test_answers_hold_to_their_filters(compared):
    workspace, models = compared
    name = models["recommend"].id
    user = workspace.store.scan(["user"]).collect()["user"].value_counts().sort("count")["user"][-1]
    had = set(workspace.store.users_events(user)["item"])
    items = [i.item for i in workspace.predict("recommend", user, k=20, model=name).items]
    assert len(items) == len(set(items)) == 20
    new = [i.item for i in workspace.predict("recommend", user, k=20, model=name, only_new=True).items]
    assert not had & set(new)
    assert items[0] not in [
        i.item for i in workspace.predict("recommend", user, k=20, model=name, deny=[items[0]]).items
    ]
    assert {i.item for i in workspace.predict("recommend", user, k=20, model=name, stock=items[3:5]).items} == set(
        items[3:5]
    )
    diverse = workspace.with_settings({"diversity": "0.7"}).predict("recommend", user, k=20, model=name)
    assert {i.item for i in diverse.items} != set(items)


def test_items_that_no_model_knows_are_told_and_a_stock_of_them_alone_is_refused(compared, capsys, tmp_path):
    workspace, models = compared
    asked = {"history": tmp_path / "nobody.jsonl", "model": models["recommend"].id}
    asked["history"].write_text("")
    known = [item.item for item in workspace.predict("recommend", **asked).items]
    told = workspace.predict("recommend", **asked, stock=[known[0], "a shoe"], deny=["a sock"])
    assert [item.item for item in told.items] == known[:1]
    said = capsys.readouterr().err
    assert "1 of 2 items" in said
    assert "a shoe" in said
    assert "a sock" in said
    for stock in (["a shoe"], []):
        with pytest.raises(SettingError, match="The stock"):
            workspace.predict("recommend", **asked, stock=stock)
    with pytest.raises(SettingError, match="The stock"):
        workspace.predict_all("recommend", tmp_path / "lists.parquet", stock=["a shoe"])


def test_arguments_of_another_kind_are_refused_and_numbers_are_names(compared):
    workspace, models = compared
    user = workspace.store.scan(["user"]).collect()["user"][0]
    assert user.isdigit()
    name = models["recommend"].id
    assert workspace.predict("recommend", int(user), model=name) == workspace.predict("recommend", user, model=name)
    for wrong in ({"deny": "85123A"}, {"stock": "stock.txt"}, {"k": 2.5}):
        with pytest.raises(SettingError):
            workspace.predict("recommend", user, model=name, **wrong)
    with pytest.raises(SettingError, match="list of names"):
        workspace.compare("recommend", "gru,transformer")


def test_a_model_of_the_whole_log_has_no_test_and_says_where_to_look(compared):
    workspace, _ = compared
    newest = workspace.store.span()[1].isoformat()
    live = next(m["id"] for m in workspace.models() if m["task"] == "recommend" and m["cut"] > newest)
    with pytest.raises(DataError, match="nothing is left to ask it"):
        workspace.evaluate(live)


def test_one_answer_and_the_answer_for_all_are_the_same(compared, tmp_path):
    workspace, _ = compared
    for task in ("next_event", "recommend"):  # churn: test_churn_flow.py
        workspace.predict_all(task, tmp_path / f"{task}.parquet", k=5)
        table = pl.read_parquet(tmp_path / f"{task}.parquet")
        for user in table["user"].unique().sort()[:5]:
            one, rows = workspace.predict(task, user, k=5), table.filter(pl.col("user") == user)
            if task == "recommend":
                assert [i.item for i in one.items] == rows.sort("rank")["item"].to_list()
                np.testing.assert_allclose([i.score for i in one.items], rows.sort("rank")["score"], rtol=1e-4)
            else:
                assert one.time_to_next.median_s == pytest.approx(rows["median_s"][0], rel=1e-3)
                assert sum(e["probability"] for e in rows["events"][0]) == pytest.approx(1, abs=1e-6)


def test_the_waiting_time_grows_with_the_silence(compared):
    workspace, _ = compared
    user = workspace.store.scan(["user"]).collect()["user"].value_counts().sort("count")["user"][-1]
    last = workspace.store.users_events(user)["time"].max()
    soon = workspace.predict("next_event", user, as_of=last.replace(microsecond=1))
    later = workspace.predict("next_event", user, as_of=datetime(2012, 6, 1, tzinfo=UTC))
    assert 0 <= soon.time_to_next.p10_s <= soon.time_to_next.median_s <= soon.time_to_next.p90_s
    assert later.time_to_next.median_s > soon.time_to_next.median_s


def test_no_model_answers_for_a_moment_before_what_it_learned(compared):
    workspace, models = compared
    user = workspace.store.scan(["user"]).collect()["user"][0]
    with pytest.raises(DataError, match="learned from later events"):
        workspace.predict("recommend", user, as_of="2010-01-01")
    cut = models["recommend"].result.cut
    assert workspace.predict("recommend", user, as_of=cut).as_of == cut


def test_wrong_names_are_clear_errors(compared):
    workspace, _ = compared
    with pytest.raises(UnknownUserError, match="nobody"):
        workspace.predict("recommend", "nobody")
    with pytest.raises(UnknownModelError, match="known are"):
        workspace.evaluate("no-such-model")
    with pytest.raises(SettingError, match="no task"):
        workspace.fit("astrology")
    with pytest.raises(SettingError, match="no encoder"):
        workspace.fit("recommend", "abacus")
    with pytest.raises(SettingError, match="no setting"):
        workspace.with_settings({"speed": "9"})
    for cut in ("2009-01-01", "2031-01-01"):
        with pytest.raises(DataError, match="cut"):
            workspace.fit("recommend", "gru", cut=cut)


def test_a_model_of_another_schema_is_refused(compared):
    workspace, models = compared
    other = workspace.schema.model_copy(deep=True)
    other.prepare.session_gap_s = 60
    with pytest.raises(ModelError, match="another schema"):
        Workspace(workspace.folder, other).evaluate(models["recommend"].id)


def test_the_split_of_a_user_says_what_each_stage_sees(compared):
    workspace, _ = compared
    user = workspace.store.scan(["user"]).collect()["user"].value_counts().sort("count")["user"][-1]
    events = workspace.show_split(user).events
    cut = workspace.cut()
    for event in events:
        late = datetime.fromisoformat(event["time"]) >= cut
        assert event["test"] == ("asked" if late else "learned")
        assert (event["validation"] == "hidden") == late
    assert any(event["validation"] == "asked" for event in events)
    left_out = workspace.show_split(user, "leave-one-out").events
    assert [e["test"] for e in left_out].count("asked") == 1
    assert [e["validation"] for e in left_out].count("hidden") >= 1


def run_of(name: str, kind: str, parameters: int, values: list[float]) -> Run:
    measured = Measured(np.arange(len(values)), {"NDCG@10": np.array(values)})

    return Run(name, kind, measured, measured, [SimpleNamespace(info={})], [], 0.0, parameters, [], {})


def test_the_simplest_row_within_one_standard_error_is_chosen(compared):
    workspace, _ = compared
    both = stages(workspace.folder, workspace.schema, "temporal", workspace.cut())
    rng = np.random.default_rng(0)
    base = rng.random(400)
    close = base + rng.normal(0, 0.3, 400)
    close += base.mean() - close.mean() - 0.005  # a little worse than the best, well within one error
    worse = base - 0.2
    rows = [run_of("big", "model", 9_000, base.tolist()), run_of("plain", "baseline", 10, close.tolist())]
    chosen, why = choose(
        TASKS["recommend"], [*rows, run_of("bad", "baseline", 1, worse.tolist())], both, workspace.schema, 0
    )
    assert chosen.name == "plain"
    assert "simpler" in why
    chosen, why = choose(
        TASKS["recommend"], [rows[0], run_of("bad", "baseline", 1, worse.tolist())], both, workspace.schema, 0
    )
    assert chosen.name == "big"
    assert "no other row" in why


def test_the_chosen_row_is_analysed_by_groups_that_hold_every_question(compared):
    _, models = compared
    for task, by in (("recommend", "item frequency"), ("next_event", "event type")):
        groups = models[task].result.analysis
        assert {"activity", "recency", by} <= {g["by"] for g in groups}
        for g in groups:
            assert g["questions"] >= 10
            assert g["low"] <= g["value"] <= g["high"]
    back = Result.from_json(json.loads(json.dumps(models["recommend"].result.to_json())))
    assert back.analysis == models["recommend"].result.analysis


def test_groups_of_a_grouping_share_out_the_questions(compared):
    workspace, models = compared
    test = stages(workspace.folder, workspace.schema, "temporal", models["recommend"].fitted.prepared.cut)[1]
    questions = TASKS["recommend"].questions(test, workspace.schema)
    for _, names, group in _groupings(questions, test):
        assert len(group) == len(questions)
        assert group.min() >= -1
        assert group.max() < len(names)
    so_far = questions.place - questions.timeline.offsets[questions.user] + 1
    activity = next(group for by, _, group in _groupings(questions, test) if by == "activity")
    assert (activity[so_far > 100] == 4).all()
    assert (activity[so_far == 1] == 0).all()


def test_a_panel_names_its_sources_and_beats_or_equals_each_of_them_on_validation(compared):
    _, models = compared
    rows = {row.name: row for row in models["recommend"].result.rows}
    assert {"blend", "ranker"} <= rows.keys()
    assert "blend" not in {row.name for row in models["next_event"].result.rows}
    sources = rows["blend"].settings["sources"]
    assert set(sources) <= rows.keys()
    assert min(told["weight"] for told in sources.values()) > 0
    best = max(rows[name].validation.value for name in sources)
    assert rows["blend"].validation.value >= best - 0.005  # weights are fitted on proposals, the row is of all items


def test_a_row_of_a_panel_says_what_each_source_adds_and_costs(compared):
    _, models = compared
    rows = {row.name: row for row in models["recommend"].result.rows}
    assert rows["ranker"].settings["sources"].keys() > {"gru", "item-knn", "own-frequency", "recent-ease"}
    for told in (*rows["ranker"].settings["sources"].values(), *rows["blend"].settings["sources"].values()):
        assert told["± SE"] >= 0
        assert -1 < told["adds"] < 1
        assert told["ms a question"] > 0


@pytest.fixture(scope="module")
def ranked(compared):
    """The id of a saved ranker over three baselines."""
    workspace, _ = compared
    task, schema, folder = TASKS["recommend"], workspace.schema, workspace.folder
    both = stages(folder, schema, "temporal", workspace.store.default_cut())
    questions = task.questions(both[0], schema), task.questions(both[1], schema)
    grids = task.baselines(both[0].prepared, schema)
    names = ("item-knn", "own-frequency", "tifu-knn")
    runs = [run_baseline(task, name, grids[name][:1], schema, both, questions) for name in names]
    row = next(row for row in panels(task, runs, both, folder, schema, 0) if row.name == "ranker")
    save(row.fitted, folder / "models")
    return row.fitted.id


def test_a_panel_is_fitted_anew_on_the_whole_log_with_all_its_models(compared, ranked):
    workspace, _ = compared
    earlier = load(workspace.folder, workspace.schema, ranked)
    live = refit(workspace.folder, workspace.schema, earlier)
    assert live.info["protocol"] == earlier.info["protocol"] == "temporal/1"
    assert [s.name for s in live.predictor.sources] == [s.name for s in earlier.predictor.sources]
    newest = workspace.store.span()[1]
    assert all(model.prepared.cut > newest for model in live.predictor.models())
    assert all(model.prepared.cut == earlier.prepared.cut < newest for model in earlier.predictor.models())


def test_an_answer_says_which_sources_think_most_of_an_item(compared, ranked):
    workspace, _ = compared
    user = workspace.store.scan(["user"]).collect()["user"].value_counts().sort("count")["user"][-1]
    for shown in workspace.predict("recommend", user, k=3, model=ranked).items:
        assert f"{shown.source} has it at place" in shown.reasons[-1]
        assert shown.source in ("item-knn", "own-frequency", "tifu-knn")
