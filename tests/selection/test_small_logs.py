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
    tmp_path.mkdir(exist_ok=True)
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


DAY = 86_400


def visits(user: str, days: list[int], event: str = "view") -> list[tuple[str, int, str, str]]:
    return [(user, 1_700_000_000 + DAY * day + 60 * k, event, f"i{k % 3}") for k, day in enumerate(days)]


def test_a_log_without_purchases_is_asked_for_any_activity(tmp_path):
    rows = [
        row for k in range(60) for row in visits(f"u{k}", [k % 9 + j * (1 + k % 7) for j in range(2 + k % 20)], "login")
    ]
    workspace = made(tmp_path, rows)
    model = workspace.compare("churn")
    assert model.fitted.info["churn"]["by"] == "activity"
    assert 0 < workspace.predict("churn", "u3").probability < 1


def test_churn_of_one_customer_is_one_clear_error(tmp_path):
    workspace = made(tmp_path, visits("only", list(range(0, 300, 3))))
    with pytest.raises(DataError, match=r"nothing to tell apart|no moment"):
        workspace.compare("churn")


def test_where_all_stay_or_all_leave_there_is_one_clear_error(tmp_path):
    always = [row for k in range(30) for row in visits(f"u{k}", list(range(k % 3, 300, 3)))]
    workspace = made(tmp_path, always).with_settings({"churn.horizon_d": "14"})
    with pytest.raises(DataError, match=r"came back within the horizon.*shorter"):
        workspace.compare("churn")
    left = [row for k in range(30) for row in visits(f"u{k}", [3 * k, 3 * k])]
    workspace = made(tmp_path / "left", left).with_settings({"churn.horizon_d": "14"})
    with pytest.raises(DataError, match=r"left within the horizon.*longer"):
        workspace.compare("churn")


def test_nobody_with_a_second_day_needs_a_horizon_by_hand(tmp_path):
    workspace = made(tmp_path, [row for k in range(200) for row in visits(f"u{k}", [k])])
    with pytest.raises(DataError, match=r"set churn\.horizon_d"):
        workspace.compare("churn")
