"""The search: begins with the settings as they stand, goes on after an interruption, says what it tried."""

from __future__ import annotations

import polars as pl
import pytest

import desireline as dl
from desireline.core.errors import SettingError
from desireline.data import online_retail_ii
from desireline.selection import tune as searching
from desireline.workspace import Workspace, init_workspace

SMALL = {"d_model": "32", "layers": "1", "heads": "1", "length": "20", "epochs": "2", "bootstrap": "50"}


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Real purchases of 40 customers."""
    folder = tmp_path_factory.mktemp("retail")
    rows = pl.read_parquet(online_retail_ii())
    kept = rows["customer_id"].drop_nulls().unique().sort().gather_every(120)
    rows.filter(pl.col("customer_id").is_in(kept.implode())).write_parquet(folder / "log.parquet")
    workspace, _ = init_workspace(folder / "shop", source=folder / "log.parquet")
    workspace.ingest(folder / "log.parquet")
    return workspace


def test_a_search_begins_with_the_present_settings_and_goes_on_where_it_stopped(shop, monkeypatch):
    monkeypatch.setattr(searching.os, "cpu_count", lambda: 1)
    workspace = shop.with_settings(SMALL)
    first = workspace.tune("recommend", ["gru"], trials=2)
    assert [t["number"] for t in first.trials] == [0, 1]
    assert first.trials[0]["settings"]["encoder.d_model"] == 32
    assert first.trials[0]["settings"]["encoder.layers"] == 1
    assert first.trials[0]["settings"]["train.lr"] == pytest.approx(1.5e-3)
    again = workspace.tune("recommend", ["gru"], trials=3)
    assert again.trials[:2] == first.trials
    assert len(again.trials) == 3
    assert again.trials[2]["settings"] != again.trials[1]["settings"]
    values = [t["value"] for t in again.trials if t["state"] == "complete"]
    assert again.best["value"] == max(values)
    assert again.metric == "NDCG@10"
    everything = workspace.tune("recommend", ["gru"], trials=3)
    assert everything.trials == again.trials  # nothing is left to try


def test_a_loss_is_told_as_a_loss_and_the_lowest_is_best(shop, monkeypatch):
    monkeypatch.setattr(searching.os, "cpu_count", lambda: 1)
    found = shop.with_settings(SMALL).tune("next_event", ["gru", "rnn"], trials=2)
    assert found.metric == "log-loss"
    assert {t["encoder"] for t in found.trials} == {"gru", "rnn"}
    complete = [t["value"] for t in found.trials if t["state"] == "complete"]
    assert found.best["value"] == min(complete) > 0


def test_trials_are_sent_to_a_tracking_server_that_is_named(shop, tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/runs.db")
    monkeypatch.setattr(searching.os, "cpu_count", lambda: 1)
    found = shop.with_settings(SMALL | {"length": "10"}).tune("recommend", ["rnn"], trials=1)
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/runs.db")
    runs = mlflow.search_runs(experiment_names=["desireline"], output_format="list")
    assert [run.data.metrics["validation"] for run in runs] == [pytest.approx(found.best["value"])]
    assert runs[0].data.params["encoder"] == "rnn"


def test_no_trial_and_an_unknown_encoder_are_errors(shop):
    with pytest.raises(SettingError, match="--trials 0"):
        shop.tune("recommend", trials=0)
    with pytest.raises(SettingError, match="encoder"):
        dl.open(shop.folder).tune("recommend", ["perceptron"], trials=1)
