"""Logs at the edge: one item, users with one event, everything at one moment, events without items."""

import polars as pl
import pytest

from desireline.core.errors import DataError
from desireline.schema.model import EventSpec, Schema, TimeSpec
from desireline.workspace import init_workspace

TINY = {"d_model": "8", "layers": "1", "heads": "1", "length": "8", "epochs": "1", "seeds": "1", "bootstrap": "50"}
SCHEMA = Schema(
    user="user",
    time=TimeSpec(column="time", format="epoch_s"),
    event=EventSpec(column="event"),
    item="item",
    types={"view": {"roles": ["positive", "target"]}, "login": {}},
)


def made(tmp_path, rows):
    pl.DataFrame(rows, schema=["user", "time", "event", "item"], orient="row").write_parquet(tmp_path / "log.parquet")
    workspace, _ = init_workspace(tmp_path / "w", schema=SCHEMA)
    workspace.ingest(tmp_path / "log.parquet")
    return workspace.with_settings(TINY)


def test_a_catalogue_of_one_item_and_users_with_one_event(tmp_path):
    rows = [(f"u{k % 20}", 1_700_000_000 + 5_000 * k, "view", "only") for k in range(200)]
    rows += [(f"single{k}", 1_700_000_100 + 9_000 * k, "view", "only") for k in range(50)]
    workspace = made(tmp_path, rows)
    for task in ("recommend", "next_event"):
        model = workspace.compare(task, ["gru"])
        assert model.chosen
        assert [i.item for i in workspace.predict(task, "single3").items] == ["only"]
    assert workspace.predict("recommend", "single3", only_new=True).items == []


def test_events_without_items_still_have_a_next_event(tmp_path):
    rows = [(f"u{k % 20}", 1_700_000_000 + 5_000 * k, "login" if k % 3 else "view", None) for k in range(300)]
    workspace = made(tmp_path, rows)
    assert workspace.compare("next_event", ["transformer"]).chosen
    answer = workspace.predict("next_event", "u3")
    assert answer.items == []
    assert answer.time_to_next.p10_s <= answer.time_to_next.p90_s
    with pytest.raises(DataError):
        workspace.compare("recommend", ["gru"])


def test_a_log_of_one_moment_is_one_clear_error(tmp_path):
    workspace = made(tmp_path, [(f"u{k}", 1_700_000_000, "view", f"i{k % 5}") for k in range(40)])
    with pytest.raises(DataError, match="cut"):
        workspace.compare("recommend", ["gru"])


def test_everybody_asked_of_an_empty_workspace_is_one_clear_error(tmp_path):
    workspace, _ = init_workspace(tmp_path / "w", schema=SCHEMA)
    with pytest.raises(DataError, match="ingest"):
        workspace.predict("recommend", "u1")
