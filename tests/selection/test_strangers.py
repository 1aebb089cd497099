"""Somebody without a history is answered, by what everybody does of late, and is told so."""

from __future__ import annotations

import json
from collections import Counter
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from desireline.core.errors import DataError, UnknownUserError
from desireline.events.frame import empty
from desireline.events.history import read_history
from desireline.schema.model import EventSpec, Schema, TimeSpec
from desireline.selection.fit import run_baseline
from desireline.selection.fitted import Panel
from desireline.selection.panel import panels
from desireline.selection.predict import answer
from desireline.tasks import TASKS
from desireline.tasks.answers import Wishes
from desireline.tasks.stages import stages
from desireline.workspace import init_workspace

TINY = {"d_model": "8", "layers": "1", "heads": "1", "length": "8", "bootstrap": "50"}
START = datetime(2024, 1, 1, tzinfo=UTC)
SCHEMA = Schema(
    user="user",
    time=TimeSpec(column="time"),
    event=EventSpec(column="event"),
    item="item",
    types={"login": {}, "view": {"roles": ["positive", "target"]}},
)


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """Forty users and twelve items; of the last days i3 comes most, then i4; before, i9 came far more often."""
    rng, rows = np.random.default_rng(0), []
    for k in range(900):
        item = [3, 4, 3, 7, 4, 3][k % 6] if k >= 780 else rng.choice([9, 9, 9, *range(12)])
        rows.append((f"u{k % 40}", START + timedelta(hours=2 * k), "view", f"i{item}"))
    rows += [("visitor", START + timedelta(days=d), "login", None) for d in (70, 71, 72)]
    rows.append(("latest", START + timedelta(hours=1800), "view", "i3"))
    folder = tmp_path_factory.mktemp("strangers")
    naive = [(user, time.replace(tzinfo=None), event, item) for user, time, event, item in rows]
    pl.DataFrame(naive, schema=["user", "time", "event", "item"], orient="row").write_parquet(folder / "log.parquet")
    workspace, _ = init_workspace(folder / "shop", schema=SCHEMA)
    workspace.ingest(folder / "log.parquet")
    workspace = workspace.with_settings(TINY)
    workspace.fit("recommend", "gru", epochs=1)
    return workspace


@pytest.fixture
def history(tmp_path):
    def written(*events):
        path = tmp_path / "history.jsonl"
        path.write_text("".join(json.dumps(event) + "\n" for event in events))
        return path

    return written


def test_no_event_at_all_gets_what_everybody_does_of_late(shop, history):
    found = shop.predict("recommend", history=history(), k=5)
    assert [i.item for i in found.items][:2] == ["i3", "i4"]
    assert len(found.items) == 5
    for item in found.items:
        assert item.reasons[0] == "no history: answered by recent-popularity"
        assert item.source == "recent-popularity"
        assert item.evidence == []
    assert "events of others are about it" in found.items[0].reasons[1]


def test_a_strangers_list_keeps_to_the_wishes_and_holds_no_more_than_the_catalogue(shop, history):
    nobody = history()
    shown = [i.item for i in shop.predict("recommend", history=nobody, k=50).items]
    assert Counter(shown) == Counter(f"i{n}" for n in range(12))
    assert "i3" not in [i.item for i in shop.predict("recommend", history=nobody, deny=["i3"]).items]
    stocked = shop.predict("recommend", history=nobody, stock=["i9", "i0", "never heard of"], only_new=True)
    assert {i.item for i in stocked.items} == {"i9", "i0"}


def test_a_history_of_unknown_items_alone_says_so(shop, history):
    event = {"event": "view", "item": "never heard of", "time": "2024-03-16T12:00:00Z"}
    found = shop.predict("recommend", history=history(event), k=5)
    assert [i.item for i in found.items][:2] == ["i3", "i4"]
    assert {i.reasons[0] for i in found.items} == {"no item of this history is known: answered by recent-popularity"}
    known = shop.predict("recommend", history=history(event, event | {"item": "i5"}), k=12)
    assert not any("answered by" in reason for i in known.items for reason in i.reasons)
    assert {i.source for i in known.items} == {"gru"}
    assert next(i.evidence for i in known.items if i.item == "i5") == [2]  # the second event of the file


def test_a_history_that_begins_later_than_the_question_is_none(shop, history):
    late = history({"event": "view", "item": "i5", "time": "2024-06-01T00:00:00Z"})
    found = shop.predict("recommend", history=late, as_of="2024-03-20")
    assert found.items[0].reasons[0] == "no history: answered by recent-popularity"


def test_the_next_event_of_nobody_is_not_guessed(shop, history):
    shop.fit("next_event", "gru", epochs=1)
    with pytest.raises(DataError, match="holds no event"):
        shop.predict("next_event", history=history())


def test_a_user_who_is_not_in_the_log_stays_an_error(shop):
    with pytest.raises(UnknownUserError, match="not in the log"):
        shop.predict("recommend", "nobody")


def test_a_user_of_the_log_without_an_item_gets_the_same_list_alone_and_among_all(shop, tmp_path):
    alone = shop.predict("recommend", "visitor", k=4)
    assert alone.items[0].reasons[0] == "no item of this history is known: answered by recent-popularity"
    shop.predict_all("recommend", tmp_path / "all.parquet", k=4)
    everybody = pl.read_parquet(tmp_path / "all.parquet")
    assert everybody.filter(pl.col("user") == "visitor")["item"].to_list() == [i.item for i in alone.items]
    known = shop.predict("recommend", "u7", k=4)
    assert everybody.filter(pl.col("user") == "u7")["item"].to_list() == [i.item for i in known.items]


def test_a_panel_answers_a_stranger_with_its_own_half_life_and_names_its_sources_otherwise(shop):
    task, schema, folder = TASKS["recommend"], shop.schema, shop.folder
    both = stages(folder, schema, "temporal", shop.store.default_cut())
    grids = task.baselines(both[0].prepared, schema)
    assert "content" not in grids  # nothing is said of these items
    names = ("item-knn", "own-frequency", "recent-popularity")
    questions = task.questions(both[0], schema), task.questions(both[1], schema)
    runs = [run_baseline(task, n, grids[n], schema, both, questions) for n in names]
    fitted = panels(task, runs, both, folder, schema, 0)[-1].fitted
    assert isinstance(fitted.predictor, Panel)
    asked = both[1].prepared.cut
    stranger = answer(fitted, empty(schema), "history", asked, Wishes(), stranger=True)
    own = next(run.fitted for run in runs if run.name == "recent-popularity")
    scores = own.predictor.model.scores
    best = [both[1].prepared.vocabularies["item"].value_of(int(i)) for i in np.argsort(-scores)[:3]]
    assert [i.item for i in stranger.items][:3] == best
    found = answer(fitted, shop.store.users_events("u7"), "u7", asked, Wishes())
    assert {i.source for i in found.items} <= set(names)
    assert all(i.reasons[-1].startswith(f"{i.source} has it at place ") for i in found.items)
    ids = set(shop.store.users_events("u7")["event_id"])
    assert any(i.evidence for i in found.items)
    assert all(set(i.evidence) <= ids for i in found.items)


def test_events_without_a_time_are_the_last_before_the_question(tmp_path):
    path, at = tmp_path / "visitor.jsonl", datetime(2011, 5, 1, tzinfo=UTC)
    path.write_text('{"event": "view", "item": "a"}\n{"event": "view", "item": "b"}\n', encoding="utf-8")
    events = read_history(path, SCHEMA, at)
    assert events["item"].to_list() == ["a", "b"]
    assert events["time"].is_sorted()
    assert at - timedelta(seconds=1) < events["time"][0] < events["time"][1] < at
