"""From a log with an experiment in it to a list by uplift; and from one that only looks like it to a refusal."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from desireline.cli.app import main
from desireline.schema.model import ChurnSettings, EventSpec, EventType, FieldSpec, Schema, TimeSpec
from desireline.workspace import Workspace, init_workspace

START, USERS, ASSIGNED = datetime(2024, 1, 1, tzinfo=UTC), 900, 70
SCHEMA = Schema(
    user="user",
    time=TimeSpec(column="time"),
    event=EventSpec(column="event"),
    item="item",
    value="value",
    fields={name: FieldSpec(column=name, kind="category") for name in ("arm", "chosen")},
    types={"buy": EventType(roles=["target", "positive"]), "contact": EventType()},
    churn=ChurnSettings(horizon_d=20, dates=2, treatment="arm", treated="yes"),
)
TINY = {"epochs": "1", "d_model": "8", "layers": "1", "heads": "1", "bootstrap": "50"}


def log() -> pl.DataFrame:
    """Buyers of one item or of many; half leave when assigned, but a contact keeps most of those with one item.

    `arm` was drawn; `chosen` is another field of the same event, set for those who had bought less.
    """
    generator, found = np.random.default_rng(0), []
    for user in range(USERS):
        one_item, gap = user % 2 == 0, generator.uniform(3, 9)
        day, days = generator.uniform(0, 15), []
        while day < 120:
            days.append(day)
            day += gap * generator.uniform(0.5, 1.5)
        assigned = ASSIGNED + generator.integers(0, 3) + 0.5
        treated = generator.random() < 0.5
        leaves = generator.random() < (0.1 if treated and one_item else 0.5)
        chosen = sum(day < assigned for day in days) < 9
        if generator.random() < 0.2:
            days = [day for day in days if day < 28]  # was gone long before, and is not asked about
        for day in days:
            if day < assigned or not leaves:
                item = "i0" if one_item else f"i{generator.integers(0, 9)}"
                value = float(np.round(generator.gamma(2, 10), 2))
                found.append((f"u{user}", START + timedelta(days=day), "buy", item, value, None, None))
        arms = ["yes" if yes else "no" for yes in (treated, chosen)]
        found.append((f"u{user}", START + timedelta(days=float(assigned)), "contact", None, None, *arms))
    names = ["user", "time", "event", "item", "value", "arm", "chosen"]
    return pl.DataFrame(found, schema=names, orient="row", infer_schema_length=None)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    folder: Path = tmp_path_factory.mktemp("experiment")
    log().write_parquet(folder / "log.parquet")
    workspace, _ = init_workspace(folder / "shop", schema=SCHEMA)
    workspace.ingest(folder / "log.parquet")
    workspace.with_settings(TINY).fit("churn", cut="2024-04-05")
    return workspace


def test_the_list_goes_to_those_whom_a_contact_changes(
    shop: Workspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["desireline", "decide", str(shop.folder), "churn", "--budget", "30", "--cost", "1"]
    monkeypatch.setattr(sys, "argv", [*words, "--json"])
    with pytest.raises(SystemExit, match="0"):
        main()
    told = json.loads(capsys.readouterr().out)
    assert told["uplift"].startswith("estimated by the dr-learner")
    measured = told["measured"]
    assert measured["check"]["is_random"]
    assert measured["users"] + sum(measured["dropped"].values()) == USERS
    average = measured["evaluation"]["average"]
    assert average["low"] < 0.2 < average["high"]  # .4 of one half, none of the other
    half = measured["evaluation"]["policies"][-1]
    assert half["verdict"] == "uplift gains more"
    assert half["uplift"]["low"] < 0.2 < half["uplift"]["high"]
    assert all(c["uplift"] <= c["probability"] for c in told["contacts"])
    assert not any(swing["assumption"] == "accept" for swing in told["sensitivity"])

    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit, match="0"):
        main()
    said = capsys.readouterr().out
    assert "uplift less risk" in said
    assert "assumption" not in said


def test_a_chosen_arm_is_no_experiment(shop: Workspace) -> None:
    found = shop.with_settings({"churn.treatment": "chosen"}).decide(30, 1)
    assert found.uplift.startswith("not estimated")
    assert "not drawn at random" in found.uplift
    assert found.measured is not None
    assert not found.measured.check.is_random
    assert found.measured.evaluation is None
    assert found.contacts
    assert all(contact.uplift is None for contact in found.contacts)
    plain = shop.with_settings({"churn.treatment": "null", "churn.treated": "null"}).decide(30, 1)
    assert plain.measured is None
    assert plain.contacts == found.contacts
