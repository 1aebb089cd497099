"""Anomaly from the log to the queue, on every fourth customer of two real years."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from desireline.core.errors import DataError, SettingError
from desireline.selection import deploy
from desireline.selection.suspects import labelled, look
from desireline.tasks import TASKS
from desireline.tasks.anomaly.cards import AnomalyAnswer
from desireline.tasks.anomaly.fact import KINDS
from desireline.tasks.anomaly.learned import LEAST_CONFIRMED
from desireline.tasks.anomaly.questions import PLACEBO
from desireline.tasks.stages import stages
from desireline.workspace import Workspace, init_workspace, open_workspace

QUICK = {"seeds": "1", "epochs": "1", "d_model": "16", "layers": "1", "bootstrap": "50"}


@pytest.fixture(scope="module")
def shop(retail_slice: Callable[[int], Workspace]) -> Workspace:
    """Every fourth customer of two real years, with a model that answers for anomaly."""
    workspace = retail_slice(4).with_settings(QUICK)
    workspace.fit("anomaly", "gru")
    return workspace


@pytest.fixture(scope="module")
def attacked(shop: Workspace, tmp_path_factory: pytest.TempPathFactory) -> tuple[Workspace, pl.DataFrame]:
    """The same shop with a ring in its last weeks, fitted anew, and who the ring's accounts are."""
    folder = tmp_path_factory.mktemp("attacked") / "shop"
    shop.inject(folder, families=["ring"], intensity="middle", share=0.02, seed=3)
    workspace = open_workspace(folder).with_settings(QUICK)
    workspace.fit("anomaly", "gru")
    return workspace, pl.read_parquet(folder / "truth" / "planted.parquet")


def test_a_fit_is_tested_on_planted_attacks_beside_what_needs_no_network(shop: Workspace) -> None:
    result = next(r for r in shop.results() if r.task == "anomaly")
    rows = {row.name: row.metrics for row in result.rows}
    assert {"trivial", "facts+groups", "gru"} <= set(rows)
    assert {"AUROC", "AUPRC", "precision@100", "recall@1%", "AUROC placebo", "AUROC ring"} <= set(rows["gru"])
    assert rows["facts+groups"]["AUROC"].value > rows["trivial"]["AUROC"].value
    assert any("planted" in note for note in result.notes)


def test_the_queue_has_cards_with_events_of_the_window(shop: Workspace) -> None:
    found = shop.alerts(20)
    assert 0 < len(found.alerts) <= 20
    assert len({alert.id for alert in found.alerts}) == len(found.alerts)
    begin, end = (datetime.fromisoformat(moment) for moment in found.window)
    scores = [alert.score for alert in found.alerts if not alert.audit]
    assert scores == sorted(scores, reverse=True)
    assert sum(alert.audit for alert in found.alerts) == 1  # a twentieth
    for alert in found.alerts:
        assert alert.kind in KINDS
        assert alert.reasons
        assert not any("_" in reason for reason in alert.reasons)
        events = pl.concat([shop.store.users_events(user) for user in alert.users])
        theirs = events.filter(pl.col("time") >= begin, pl.col("time") < end)
        assert set(alert.evidence) <= set(theirs["event_id"])
    assert any(alert.evidence and alert.clears and alert.nearest for alert in found.alerts)


def test_one_answer_and_all_are_the_same(shop: Workspace, tmp_path: Path) -> None:
    shop.predict_all("anomaly", tmp_path / "all.parquet")
    table = pl.read_parquet(tmp_path / "all.parquet")
    assert table.columns == ["user", "score", "p_value", "kind"]
    users = shop.store.scan(["user"]).unique().collect()["user"]
    assert sorted(table["user"]) == sorted(users)
    for row in table.gather_every(150).iter_rows(named=True):
        answer = shop.predict("anomaly", row["user"])
        assert isinstance(answer, AnomalyAnswer)
        assert (answer.score, answer.p_value) == (row["score"], row["p_value"])
        assert row["kind"] in (None, *KINDS)
        assert {kind.kind for kind in answer.kinds} == set(KINDS)
        assert row["kind"] is not None or answer.p_value == 1
    assert table["kind"].null_count() > 0  # who was quiet in the window


def test_an_account_of_nobody_is_judged_among_all_others(shop: Workspace, tmp_path: Path) -> None:
    last = shop.store.observed_end()
    items = shop.store.scan(["item"]).unique().collect()["item"].drop_nulls().sort().head(400).to_list()
    bot = [
        {"event": "purchase", "item": item, "time": (last - timedelta(minutes=5 * n)).isoformat(), "value": 1.0}
        for n, item in enumerate(items)
    ]
    path = tmp_path / "bot.jsonl"
    pl.DataFrame(bot).write_ndjson(path)
    answer = shop.predict("anomaly", history=path)
    assert isinstance(answer, AnomalyAnswer)
    assert answer.p_value < 0.01
    assert answer.kinds[0].kind == "bot"
    assert answer.kinds[0].reasons


def test_a_planted_ring_stands_at_the_top_as_one_alert(attacked: tuple[Workspace, pl.DataFrame]) -> None:
    workspace, truth = attacked
    ring = set(truth.filter(pl.col("family") == "ring")["user"])
    first = workspace.alerts(10).alerts
    caught = [alert for alert in first if len(ring & set(alert.users)) >= len(ring) / 2]
    assert len(ring) >= 12
    assert caught
    assert caught[0].kind == "ring"
    assert len(ring & set(caught[0].users)) / len(caught[0].users) > 0.7
    assert set(caught[0].evidence) <= set(workspace.store.ids().tolist())


def test_detectors_never_see_who_was_planted(shop: Workspace) -> None:
    task, fitted = TASKS["anomaly"], deploy.current(shop.folder, shop.schema, "anomaly", None)
    schema, at = task.settled(shop.folder, shop.schema, fitted.prepared.cut, True)
    questions = task.questions(stages(shop.folder, schema, "temporal", at)[1], schema)
    assert PLACEBO in set(questions.family)
    ((_, _, plain),) = fitted.predictions(questions)
    for family in (questions.family.shuffle(seed=1), pl.Series("family", ["ring"] * len(questions))):
        ((_, _, blind),) = fitted.predictions(replace(questions, family=family))
        np.testing.assert_array_equal(plain.p_value, blind.p_value)


def test_the_truth_beside_a_log_is_never_read(attacked: tuple[Workspace, pl.DataFrame]) -> None:
    workspace, _ = attacked
    fitted = deploy.current(workspace.folder, workspace.schema, "anomaly", None)
    as_of = workspace.store.observed_end()
    before = look(workspace.folder, fitted, as_of).accounts
    for path in (workspace.folder / "truth").iterdir():
        path.write_bytes(b"")
    for path in (workspace.folder / "anomaly").glob("look-*/look.json"):
        path.unlink()
    assert look(workspace.folder, fitted, as_of).accounts.equals(before)


def test_verdicts_are_kept_and_end_an_alert(shop: Workspace) -> None:
    first = [alert for alert in shop.alerts(8).alerts if not alert.audit]
    shop.judge_alert(first[0].id, "confirmed")
    shop.judge_alert(first[1].id, "dismissed")
    found = shop.alerts(8)
    assert not {first[0].id, first[1].id} & {alert.id for alert in found.alerts}
    assert (found.confirmed, found.dismissed) == (1, 1)
    assert set(labelled(shop.folder)["user"]) == {*first[0].users, *first[1].users}
    shop.judge_alert(first[1].id, "confirmed")  # a change of mind replaces
    assert shop.alerts(8).confirmed == 2
    with pytest.raises(SettingError, match="no alert 'nothing'"):
        shop.judge_alert("nothing", "confirmed")


def test_what_people_confirm_moves_the_ranking(shop: Workspace) -> None:
    fitted = deploy.current(shop.folder, shop.schema, "anomaly", None)
    as_of = shop.store.observed_end() + timedelta(microseconds=1)
    before = look(shop.folder, fitted, as_of)
    assert before.taught < LEAST_CONFIRMED
    standing = sorted((shop.folder / "anomaly").glob("look-*"))
    for alert in shop.alerts(60).alerts:
        shop.judge_alert(alert.id, "confirmed" if alert.users[0] < "15000" else "dismissed")
    assert sorted((shop.folder / "anomaly").glob("look-*")) == standing  # a verdict waits for no look
    said = labelled(shop.folder)
    right, wrong = (said.filter(pl.col("confirmed") == verdict)["user"].unique() for verdict in (True, False))
    assert min(len(right), len(wrong)) > LEAST_CONFIRMED
    after = look(shop.folder, fitted, as_of)
    assert after.taught == len(right)
    ratio = before.accounts.join(after.accounts, on="user").with_columns(r=pl.col("p_value_right") / pl.col("p_value"))
    up, down = (ratio.filter(pl.col("user").is_in(some.implode()))["r"].median() for some in (right, wrong))
    assert up < down


def test_settings_that_a_model_was_not_made_with_are_refused(shop: Workspace) -> None:
    with pytest.raises(SettingError, match=r"anomaly\.window_d is 3.*Fit or compare again"):
        shop.with_settings({"anomaly.window_d": "3"}).alerts(3)
    assert len(shop.with_settings({"anomaly.capacity": "3"}).alerts().alerts) == 3


def test_a_false_discovery_rate_lets_in_less(shop: Workspace) -> None:
    every, some = shop.alerts(200), shop.alerts(200, fdr=0.2)
    assert len([a for a in some.alerts if not a.audit]) < len([a for a in every.alerts if not a.audit])
    assert all(alert.fdr <= 0.2 for alert in some.alerts if not alert.audit)
    for wrong in (lambda: shop.alerts(0), lambda: shop.alerts(fdr=1.5), lambda: shop.alerts(p_value=0.0)):
        with pytest.raises(SettingError):
            wrong()


ROWS = {
    "one user": pl.DataFrame({"user_id": ["a"] * 60, "item_id": [f"i{k % 9}" for k in range(60)]}),
    "identical rows": pl.DataFrame({"user_id": ["a"] * 1000, "item_id": ["i"] * 1000}),
}


@pytest.mark.parametrize("name", [*ROWS, "equal times"])
def test_strange_logs_get_a_clear_answer(tmp_path: Path, name: str) -> None:
    rows = ROWS.get(name, pl.DataFrame({"user_id": [f"u{k % 40}" for k in range(800)], "item_id": ["x"] * 800}))
    moments = [
        datetime(2024, 1, 1) + timedelta(hours=7 * (0 if name in ("equal times", "identical rows") else k))
        for k in range(rows.height)
    ]
    rows.with_columns(timestamp=pl.Series(moments)).write_parquet(tmp_path / "log.parquet")
    workspace, _ = init_workspace(tmp_path / "shop", source=tmp_path / "log.parquet")
    workspace.ingest(tmp_path / "log.parquet")
    with pytest.raises(DataError) as error:
        workspace.with_settings(QUICK).fit("anomaly", "gru")
    assert len(str(error.value)) > 40


def test_a_log_without_items_is_judged_by_its_rhythm(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    start, rows = datetime(2024, 1, 1), []
    for user in range(60):
        hours = np.cumsum(generator.exponential(20.0, 40))
        rows += [{"user_id": f"u{user}", "event_type": "view", "timestamp": start + timedelta(hours=h)} for h in hours]
    last = max(row["timestamp"] for row in rows)
    rows += [
        {"user_id": "clock", "event_type": "view", "timestamp": last - timedelta(minutes=6 * n)} for n in range(60)
    ]
    pl.DataFrame(rows).write_parquet(tmp_path / "log.parquet")
    workspace, _ = init_workspace(tmp_path / "shop", source=tmp_path / "log.parquet")
    workspace.ingest(tmp_path / "log.parquet")
    found = workspace.with_settings(QUICK).alerts(5)
    assert found.alerts[0].users == ["clock"]
