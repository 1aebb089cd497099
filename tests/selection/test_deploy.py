"""Which model answers: never one that has seen the future, never one of another task, for now never an older one."""

import json
import random
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from desireline.core.errors import DataError, ModelError, SettingError, UnknownUserError
from desireline.schema.model import EventSpec, Schema, TimeSpec
from desireline.selection import deploy
from desireline.sequences.prepared import iso
from desireline.workspace import init_workspace

TINY = {"d_model": "8", "layers": "1", "heads": "1", "length": "8", "epochs": "1", "seeds": "1", "bootstrap": "50"}
BEGIN = datetime(2024, 3, 1, tzinfo=UTC)
OLD, MIDDLE, USUAL, LATE = (BEGIN + timedelta(days=days) for days in (4, 8, 16, 20))


@pytest.fixture
def shop(tmp_path):
    """Thirty users over about three weeks, all seen on the first day."""
    rng, rows = random.Random(1), []
    for user in range(30):
        when = BEGIN.timestamp() + user * 60
        while when < BEGIN.timestamp() + 21 * 86_400:
            rows.append((f"u{user:02}", int(when), rng.choice(["view", "buy"]), f"i{rng.randrange(9)}"))
            when += rng.expovariate(1 / 90_000)
    table = pl.DataFrame(rows, schema=["user", "time", "event", "item"], orient="row")
    table.write_parquet(tmp_path / "log.parquet")
    schema = Schema(
        user="user",
        time=TimeSpec(column="time", format="epoch_s"),
        event=EventSpec(column="event"),
        item="item",
        types={"view": {"roles": ["positive"]}, "buy": {"roles": ["positive", "target"]}},
    )
    workspace, _ = init_workspace(tmp_path / "shop", schema=schema)
    workspace.ingest(tmp_path / "log.parquet")
    return workspace.with_settings(TINY)


def roles(shop, task="next_event"):
    return json.loads((shop.folder / "models" / "current.json").read_text(encoding="utf-8"))[task]


def answering(shop, as_of):
    return deploy.current(shop.folder, shop.schema, "next_event", as_of).id


def test_a_named_model_does_not_answer_for_a_moment_before_what_it_learned(shop):
    model = shop.fit("next_event", cut=MIDDLE)
    for ask in (
        lambda at: shop.predict("next_event", "u00", as_of=at, model=model.id),
        lambda at: shop.predict_all("next_event", shop.folder / "all.parquet", as_of=at, model=model.id),
    ):
        with pytest.raises(DataError, match=r"has learned from events up to 2024-03-09.*--cut 2024-03-08T23:59:59Z"):
            ask(MIDDLE - timedelta(seconds=1))
    assert shop.predict("next_event", "u00", as_of=MIDDLE, model=model.id).as_of == iso(MIDDLE)
    assert shop.predict("next_event", "u00", model=model.id)


def test_a_named_model_of_another_task_is_refused(shop):
    model = shop.fit("next_event", cut=USUAL)
    with pytest.raises(ModelError, match="is of task next_event, asked was recommend"):
        shop.predict("recommend", "u00", model=model.id)
    with pytest.raises(ModelError, match="is of task next_event, asked was churn"):
        shop.decide(10, 1, model=model.id)


def test_a_comparison_at_an_earlier_cut_leaves_what_answers_now(shop, capsys):
    usual = shop.fit("next_event", cut=USUAL)
    assert deploy.take_up(shop.folder, shop.schema, usual.fitted, named=True, refits=True)
    before = roles(shop)
    now = shop.predict("next_event", "u00")
    capsys.readouterr()
    old = shop.compare("next_event", ["gru"], cut=OLD)
    said = capsys.readouterr().err
    assert f"{old.id} answers as of moments from {iso(OLD)} up to {iso(USUAL)}" in " ".join(said.split())
    assert "whole log" not in said
    assert roles(shop) == before | {"earlier": [old.id]}
    assert shop.predict("next_event", "u00") == now
    assert answering(shop, None) == before["live"]
    assert answering(shop, USUAL) == usual.id
    assert answering(shop, USUAL - timedelta(seconds=1)) == answering(shop, OLD) == old.id
    assert shop.predict("next_event", "u00", as_of=OLD).as_of == iso(OLD)
    with pytest.raises(DataError, match="no model may answer"):
        answering(shop, OLD - timedelta(seconds=1))
    assert {m["id"] for m in shop.models() if m["answers"]} == {before["live"], usual.id, old.id}


def test_models_of_several_cuts_each_answer_for_their_own_time(shop):
    usual, old, middle = (shop.fit("next_event", cut=cut).id for cut in (USUAL, OLD, MIDDLE))
    assert roles(shop) == {"evaluated": usual, "live": None, "earlier": [old, middle]}
    assert sorted(result.cut for result in shop.results()) == [iso(OLD), iso(MIDDLE), iso(USUAL)]  # all tables are kept
    again = shop.fit("next_event", cut=OLD, seed=1).id
    assert [answering(shop, cut) for cut in (OLD, MIDDLE, USUAL, None)] == [again, middle, usual, usual]
    late = shop.fit("next_event", cut=LATE).id
    assert [answering(shop, cut) for cut in (OLD, MIDDLE, USUAL, LATE, None)] == [again, middle, usual, late, late]
    anew = shop.fit("next_event", cut=LATE, seed=1).id
    assert roles(shop) == {"evaluated": anew, "live": None, "earlier": [middle, again, usual]}
    assert late not in {m["id"] for m in shop.models() if m["answers"]}


def test_names_of_before_there_were_earlier_models_are_read(shop):
    usual = shop.fit("next_event", cut=USUAL).id
    path = shop.folder / "models" / "current.json"
    path.write_text(json.dumps({"next_event": {"evaluated": usual, "live": None}}), encoding="utf-8")
    assert answering(shop, None) == answering(shop, USUAL) == usual
    assert [m["answers"] for m in shop.models()] == [True]
    old = shop.fit("next_event", cut=OLD).id
    assert answering(shop, OLD) == old
    assert answering(shop, None) == usual


def test_a_model_that_may_not_answer_any_more_is_replaced_at_the_usual_cut(shop):
    shop.fit("next_event", cut=LATE)
    shop.schema.prepare.session_gap_s = 60  # another schema: its model is of no use
    shop.prepare(MIDDLE)
    anew = shop.fit("next_event").id
    assert answering(shop, None) == anew


def test_leave_one_out_has_read_the_whole_log_and_still_gives_way_to_a_comparison_in_time(shop):
    middle = shop.fit("next_event", cut=MIDDLE).id
    whole = shop.fit("next_event", protocol="leave-one-out").id
    assert roles(shop) == {"evaluated": whole, "live": None, "earlier": [middle]}
    old = shop.fit("next_event", cut=OLD).id
    assert answering(shop, None) == whole
    usual = shop.fit("next_event").id
    assert roles(shop) == {"evaluated": usual, "live": None, "earlier": [middle, old]}


def test_a_cut_before_the_log_begins_is_said_to_be_that(shop):
    for task in ("next_event", "recommend", "anomaly"):
        with pytest.raises(DataError, match=r"cut 2010-01-01T00:00:00Z lies at or before .* \(2024-03-01T00:00:00Z\)"):
            shop.compare(task, ["gru"], cut="2010-01-01")
    with pytest.raises(DataError, match="lies at or before the log's first event"):
        shop.fit("next_event", cut=BEGIN)


def test_a_question_before_the_log_begins_is_not_sent_to_a_comparison(shop):
    model = shop.fit("next_event", cut=USUAL)
    for name in (None, model.id):
        with pytest.raises(DataError, match="begins 2024-03-01T00:00:00Z") as told:
            shop.predict("next_event", "u00", as_of="2010-01-01", model=name)
        assert "--cut" not in str(told.value)


def test_nothing_is_trained_for_a_question_that_nobody_can_answer(shop, tmp_path):
    (tmp_path / "empty.jsonl").write_text("", encoding="utf-8")
    with pytest.raises(UnknownUserError, match="nobody"):
        shop.predict("next_event", "nobody")
    with pytest.raises(UnknownUserError, match="nobody"):
        shop.explain("churn", "nobody")
    with pytest.raises(DataError, match="begins"):
        shop.predict("next_event", "u00", as_of=BEGIN)
    with pytest.raises(DataError, match="holds no event"):
        shop.predict("next_event", history=tmp_path / "empty.jsonl")
    with pytest.raises(SettingError, match="k is 0"):
        shop.predict("next_event", "u00", k=0)
    assert not (shop.folder / "models").exists()


def test_an_empty_log_is_said_before_a_training_is_announced(tmp_path, shop, capsys):
    empty, _ = init_workspace(tmp_path / "empty", schema=shop.schema)
    with pytest.raises(DataError, match="ingest"):
        empty.predict("next_event", "u00")
    assert "No model answers" not in capsys.readouterr().err
