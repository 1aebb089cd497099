"""Churn from the log to the answer, on every tenth customer of two real years."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from desireline.core.errors import DataError, SettingError
from desireline.evaluation.result import Result
from desireline.features.definitions import definitions
from desireline.tasks.churn.answers import ChurnAnswer
from desireline.tasks.churn.snapshots import OWN
from desireline.workspace import Workspace


@pytest.fixture(scope="module")
def shop(retail_slice: Callable[[int], Workspace]) -> Workspace:
    """Every tenth customer of two real years, compared for churn at a cut whose horizon the log holds."""
    workspace = retail_slice(10)
    quick = {"seeds": "1", "epochs": "1", "d_model": "16", "layers": "1", "bootstrap": "50"}
    workspace.with_settings(quick).compare("churn", cut="2011-08-01")
    return workspace


@pytest.fixture(scope="module")
def regular(shop: Workspace) -> str:
    """The customer with most events before the cut."""
    counts = shop.store.read_bucket(0, 64).filter(pl.col("time").dt.date() < pl.date(2011, 7, 1))["user"].value_counts()
    return str(counts.sort("count", "user")["user"][-1])


def result(shop: Workspace) -> Result:
    return next(r for r in shop.results() if r.task == "churn")


def test_a_comparison_holds_the_rules_the_laws_the_trees_and_a_network(shop: Workspace) -> None:
    rows = {row.name: row.metrics for row in result(shop).rows}
    assert {"recency", "rfm", "bg-nbd", "aggregates+lightgbm", "gru", "random-encoder"} <= set(rows)
    assert {"embedding+lightgbm", "fused+lightgbm"} <= set(rows)
    assert rows["aggregates+lightgbm"]["AUROC"].value > rows["recency"]["AUROC"].value + 0.05
    assert rows["aggregates+lightgbm"]["Brier"].value < rows["recency"]["Brier"].value
    assert all(0.5 < row["AUROC"].value < 1 for row in rows.values())


def test_an_answer_says_why_and_names_events_of_the_user(shop: Workspace, regular: str) -> None:
    user = regular
    answer = shop.predict("churn", user)
    assert isinstance(answer, ChurnAnswer)
    assert 0 < answer.probability < 1
    assert answer.horizon_s == 90 * 86_400
    assert answer.reasons
    own = set(shop.store.users_events(user)["event_id"])
    assert all(set(events) <= own for events in answer.evidence)
    raw = set(definitions(shop.schema)) | set(OWN)
    assert not any(name in reason.split() for reason in answer.reasons for name in raw if "_" in name)


def test_one_and_all_are_the_same_answer(shop: Workspace, tmp_path: Path) -> None:
    shop.predict_all("churn", tmp_path / "all.parquet")
    table = pl.read_parquet(tmp_path / "all.parquet")
    assert table.columns == ["user", "as_of", "horizon_s", "probability", "segment"]
    for user in table["user"].gather_every(150):
        answer = shop.predict("churn", user)
        row = table.row(by_predicate=pl.col("user") == user, named=True)
        assert isinstance(answer, ChurnAnswer)
        assert answer.probability == row["probability"]
        assert answer.segment == row["segment"]


def test_an_explanation_holds_every_number_of_the_snapshot(shop: Workspace, regular: str) -> None:
    told = shop.explain("churn", regular)
    assert told.model in {m["id"] for m in shop.models() if m["answers"]}
    assert [reason["text"] for reason in told.reasons] == shop.predict("churn", regular).reasons
    assert {n["name"] for n in told.numbers} == set(definitions(shop.schema)) | set(OWN)


def test_the_model_of_an_earlier_moment_has_not_seen_what_came_later(shop: Workspace, regular: str) -> None:
    answer = shop.predict("churn", regular, as_of="2011-08-01")
    assert isinstance(answer, ChurnAnswer)
    assert answer.as_of.startswith("2011-08-01")
    with pytest.raises(DataError, match="no model may answer"):
        shop.predict("churn", regular, as_of="2011-07-01")


def test_a_cut_whose_horizon_passes_the_logs_end_is_refused(shop: Workspace) -> None:
    with pytest.raises(DataError, match="passes the log's last event"):
        shop.fit("churn", cut="2011-11-20")


def test_leave_one_out_knows_no_horizon(shop: Workspace) -> None:
    with pytest.raises(SettingError, match="cannot be tested under leave-one-out"):
        shop.fit("churn", cut="2011-08-01", protocol="leave-one-out")


def test_a_network_with_a_weibull_law_learns_saves_and_answers(shop: Workspace, regular: str) -> None:
    quick = {"seeds": "1", "epochs": "1", "d_model": "16", "layers": "1", "bootstrap": "50", "hazard": "weibull"}
    model = shop.with_settings(quick).fit("churn", "gru", cut="2011-06-01")
    row = next(row for row in model.result.rows if row.name == "gru")
    assert 0.6 < row.metrics["AUROC"].value < 1
    answer = shop.predict("churn", regular, model=model.id)  # under the settings that it was made with
    assert isinstance(answer, ChurnAnswer)
    assert 0 < answer.probability < 1


def test_the_list_keeps_the_budget(shop: Workspace) -> None:
    found = shop.decide(50, 2)
    assert found.spent <= 50
    assert len(found.contacts) == 25
    assert [c.profit for c in found.contacts] == sorted((c.profit for c in found.contacts), reverse=True)


def test_a_definition_that_the_model_was_not_made_with_is_refused(shop: Workspace, regular: str) -> None:
    with pytest.raises(SettingError, match=r"churn\.gap_d is 14.*was made with 0"):
        shop.with_settings({"churn.gap_d": "14"}).predict("churn", regular)
    assert shop.with_settings({"churn.horizon_d": "90"}).predict("churn", regular)


def test_a_cut_after_which_all_stay_is_refused_and_the_model_stays(shop: Workspace) -> None:
    before = [m["id"] for m in shop.models() if m["answers"]]
    with pytest.raises(DataError, match=r"nothing to tell apart|three horizons"):
        shop.compare("churn", cut="2009-12-05")
    assert [m["id"] for m in shop.models() if m["answers"]] == before
