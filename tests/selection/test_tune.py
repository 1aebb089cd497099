"""The search: begins with the settings as they stand, goes on after an interruption, says what it tried."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import desireline as dl
from desireline.core.errors import SettingError
from desireline.schema.model import EventSpec, EventType, Schema
from desireline.selection import fit
from desireline.selection import tune as searching
from desireline.workspace import Workspace

SMALL = {"d_model": "32", "layers": "1", "heads": "1", "length": "20", "epochs": "2", "bootstrap": "50"}


@pytest.fixture(scope="module")
def shop(retail_slice: Callable[[int], Workspace]) -> Workspace:
    """Real purchases of 40 customers."""
    return retail_slice(120)


def test_a_search_begins_with_the_present_settings_and_goes_on_where_it_stopped(shop, monkeypatch):
    monkeypatch.setattr(fit.os, "cpu_count", lambda: 1)
    workspace = shop.with_settings(SMALL)
    first = workspace.tune("recommend", ["gru"], trials=2)
    assert [t["number"] for t in first.trials] == [0, 1]
    now = workspace.schema
    assert first.trials[0]["settings"] == {
        "encoder.d_model": 32,
        "encoder.layers": 1,
        "encoder.dropout": now.encoder.dropout,
        "encoder.neighbours": 0,  # what auto is in a shop of baskets
        "train.batch_targets": now.train.batch_targets,
        "train.next_items": now.train.next_items,
        "train.temperature": now.train.temperature,
        "train.lr": pytest.approx(now.train.lr),
    }
    again = workspace.tune("recommend", ["gru"], trials=3)
    assert again.trials[:2] == first.trials
    assert len(again.trials) == 3
    assert again.trials[2]["settings"] != again.trials[1]["settings"]
    values = [t["value"] for t in again.trials if t["state"] == "complete"]
    assert again.best["value"] == max(values)
    assert again.metric == "NDCG@10"
    everything = workspace.tune("recommend", ["gru"], trials=3)
    assert everything.trials == again.trials  # nothing is left to try


def test_settings_that_the_space_lacks_are_tried_first_too_and_have_a_search_of_their_own(shop, monkeypatch):
    monkeypatch.setattr(fit.os, "cpu_count", lambda: 1)
    odd = shop.with_settings(SMALL | {"d_model": "24", "dropout": "0.15", "lr": "0.02"}).tune("recommend", trials=1)
    assert [t["number"] for t in odd.trials] == [0]  # those of other settings do not count
    tried = odd.trials[0]["settings"]
    assert (tried["encoder.d_model"], tried["encoder.dropout"]) == (24, 0.15)
    assert tried["train.lr"] == pytest.approx(0.02)


def test_processes_share_a_search_and_make_no_trial_too_many(shop, monkeypatch):
    monkeypatch.setattr(fit.os, "cpu_count", lambda: 2)
    found = shop.with_settings(SMALL | {"epochs": "1"}).tune("recommend", ["rnn"], trials=3)
    assert sorted(t["number"] for t in found.trials) == [0, 1, 2]
    assert len({str(t["settings"]) for t in found.trials}) == 3


class FullError(Exception):
    """Raised in a pool's place."""


def test_few_networks_share_a_card_however_many_cores_there_are(monkeypatch):
    asked = []

    def pool(workers):
        asked.append(workers)
        raise FullError

    monkeypatch.setattr(fit.os, "cpu_count", lambda: 16)
    schema, at = (
        Schema(event=EventSpec(constant="buy"), types={"buy": EventType(roles=["target"])}),
        datetime(2024, 1, 1, tzinfo=UTC),
    )
    jobs = [fit.Job(Path(), schema, "recommend", "temporal", at, "gru", seed) for seed in range(12)]
    search = searching.Search(Path(), schema, "recommend", "gru", "temporal", at, 0)
    study = SimpleNamespace(get_trials=lambda **_: [])
    for module in (fit, searching):
        monkeypatch.setattr(module, "process_pool", pool)
    for device in ("cuda", "cpu"):
        monkeypatch.setattr(fit, "device_of", lambda settings, device=device: torch.device(device))
        with pytest.raises(FullError):
            searching._run(search, study, 12, None, "tuning")
        with pytest.raises(FullError):
            list(fit.run_jobs(jobs, fit.run_seed))
    assert asked == [fit.ON_A_CARD, fit.ON_A_CARD, 12, 12]


def test_a_search_without_time_says_what_to_do(shop):
    with pytest.raises(SettingError, match="--minutes"):
        shop.with_settings(SMALL).tune("recommend", ["lstm"], trials=2, minutes=0.0)


def test_a_loss_is_told_as_a_loss_and_the_lowest_is_best(shop, monkeypatch):
    monkeypatch.setattr(fit.os, "cpu_count", lambda: 1)
    found = shop.with_settings(SMALL).tune("next_event", ["gru", "rnn"], trials=2)
    assert found.metric == "log-loss"
    assert {t["encoder"] for t in found.trials} == {"gru", "rnn"}
    complete = [t["value"] for t in found.trials if t["state"] == "complete"]
    assert found.best["value"] == min(complete) > 0


def test_trials_are_sent_to_a_tracking_server_that_is_named(shop, tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/runs.db")
    monkeypatch.setattr(fit.os, "cpu_count", lambda: 1)
    found = shop.with_settings(SMALL | {"length": "10"}).tune("recommend", ["rnn"], trials=1)
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/runs.db")
    runs = mlflow.search_runs(experiment_names=["desireline"], output_format="list")
    assert [run.data.metrics["validation"] for run in runs] == [pytest.approx(found.best["value"])]
    assert runs[0].data.params["encoder"] == "rnn"


def test_no_trial_an_unknown_encoder_and_a_missing_library_are_errors(shop, monkeypatch):
    with pytest.raises(SettingError, match="--trials 0"):
        shop.tune("recommend", trials=0)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setattr("desireline.selection.tracking.find_spec", lambda name: None)
    with pytest.raises(SettingError, match="mlflow"):
        shop.tune("recommend", trials=1)
    with pytest.raises(SettingError, match="encoder"):
        dl.open(shop.folder).tune("recommend", ["perceptron"], trials=1)
