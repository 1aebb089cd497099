"""The queue: in what order, who stands in it once, what verdicts and limits do to it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from desireline.core.errors import SettingError
from desireline.evaluation.result import Result, Row
from desireline.selection import alerts
from desireline.selection.alerts import Queue, alert_id, judge, precision, queue, remember_audit, verdicts
from desireline.selection.suspects import Look, labelled
from desireline.tasks.anomaly.fact import KINDS

AS_OF = datetime(2024, 3, 1, tzinfo=UTC)
WINDOW = [(AS_OF - timedelta(days=30)).isoformat(), AS_OF.isoformat()]


def look(
    p_values: dict[str, float],
    kinds: dict[str, str] | None = None,
    groups: list[tuple[list[str], float]] | None = None,
    evidence: dict[str, list[int]] | None = None,
) -> Look:
    """A look at accounts with p-values; event number n took place n hours after the window's begin."""
    users, kinds, evidence = list(p_values), kinds or {}, evidence or {}
    accounts = pl.DataFrame(
        {
            "user": users,
            "score": [-np.log10(p) for p in p_values.values()],
            "p_value": list(p_values.values()),
            "kind": [kinds.get(user, "bot") for user in users],
        }
    ).with_columns(pl.lit(0.5).alias(kind) for kind in KINDS)
    ids = sorted({event for some in evidence.values() for event in some})
    times = [AS_OF - timedelta(days=30) + timedelta(hours=n) for n in ids]
    told = {
        user: [{"kind": kinds.get(user, "bot"), "score": 1.0, "evidence": some, "reasons": ["fast"], "clears": []}]
        for user, some in evidence.items()
    }
    made = [
        {
            "users": members,
            "targets": ["t"],
            "how": ["dense block"],
            "p_value": p,
            "excess": 9.0,
            "reasons": ["together"],
            "kind": "ring",
            "event_ids": evidence.get("+".join(members), []),
        }
        for members, p in groups or []
    ]
    return Look(
        accounts,
        pl.DataFrame({"user": users, "fact": np.arange(float(len(users)))}),
        pl.DataFrame({"event_id": ids, "time": times}, schema={"event_id": pl.Int64, "time": pl.Datetime("us", "UTC")}),
        told,
        {},
        made,
        WINDOW,
        0,
    )


def many(count: int = 200) -> dict[str, float]:
    return {f"u{n}": (n + 1) / (count + 1) for n in range(count)}


def asked(found: Look, folder: Path, capacity: int = 10, audit: float = 0.0, **more: Any) -> Queue:
    return queue(found, folder, found.window[1], capacity, audit, 0, **more)


def say(found: Look, folder: Path, name: str, verdict: alerts.Verdict) -> dict[str, Any]:
    (folder / "anomaly").mkdir(exist_ok=True)
    return judge(found, folder, name, verdict, datetime(2030, 1, 1, tzinfo=UTC))


def users(found: Queue) -> list[list[str]]:
    return [alert.users for alert in found.alerts]


def test_the_least_probable_come_first_and_no_more_than_asked(tmp_path: Path) -> None:
    found = asked(look(dict(reversed(many().items()))), tmp_path, 7)
    assert users(found) == [[f"u{n}"] for n in range(7)]
    assert [alert.score for alert in found.alerts] == pytest.approx([-np.log10((n + 1) / 201) for n in range(7)])
    assert found.accounts == 200


def test_members_of_a_ring_are_one_alert_and_none_sinks_in_it(tmp_path: Path) -> None:
    p_values = many() | {"a": 1e-4, "b": 2e-9, "c": 0.4, "d": 1e-6}
    ring = {"a": "ring", "b": "ring", "c": "ring", "d": "bot"}
    found = asked(look(p_values, ring, [(["a", "b", "c", "d"], 0.4)]), tmp_path, 50)
    assert users(found)[:2] == [["a", "b", "c", "d"], ["d"]]  # d is a bot before anything else
    assert found.alerts[0].p_value == 2e-9  # where b would stand alone, although the group says little
    assert not [one for one in users(found) if one in (["a"], ["b"], ["c"])]


def test_a_group_that_stands_for_nobody_counts_as_one_account_of_all(tmp_path: Path) -> None:
    p_values = many(998) | {"a": 1e-8, "b": 1e-8}
    found = asked(look(p_values, groups=[(["a", "b"], 0.01)]), tmp_path, 3)
    assert users(found) == [["a"], ["b"], ["a", "b"]] or users(found) == [["b"], ["a"], ["a", "b"]]
    assert found.alerts[2].p_value == pytest.approx(0.01 / 1000)
    assert found.alerts[2].kind == "ring"


def test_a_share_is_drawn_at_random_among_all_who_are_not_shown(tmp_path: Path) -> None:
    p_values, drawn = many(60) | {"x": 0.9, "y": 0.95}, set()
    found = look(p_values, {"x": "ring", "y": "ring"}, [(["x", "y"], 0.5)])
    for day in range(60):
        on = replace(found, window=[WINDOW[0], (AS_OF + timedelta(days=day)).isoformat()])
        one = asked(on, tmp_path, 20, 0.2)
        audits = [alert for alert in one.alerts if alert.audit]
        assert [alert.audit for alert in one.alerts] == [False] * 16 + [True] * 4
        assert not {a.users[0] for a in audits} & {f"u{n}" for n in range(16)}
        assert len({a.users[0] for a in audits}) == 4
        drawn |= {alert.users[0] for alert in audits}
    assert drawn == {*(f"u{n}" for n in range(16, 60)), "x", "y"}  # who stands behind a group out of sight as well


def test_a_queue_of_one_is_the_most_suspicious(tmp_path: Path) -> None:
    found = asked(look(many()), tmp_path, 1, 0.05)
    assert users(found) == [["u0"]]
    assert not found.alerts[0].audit


def test_who_was_drawn_stays_drawn_as_others_are_judged(tmp_path: Path) -> None:
    found = look(many())
    before = [alert for alert in asked(found, tmp_path, 20, 0.25).alerts if alert.audit]
    say(found, tmp_path, before[0].id, "dismissed")
    after = [alert for alert in asked(found, tmp_path, 20, 0.25).alerts if alert.audit]
    assert {a.id for a in before[1:]} < {a.id for a in after}
    assert before[0].id not in {a.id for a in after}


def test_a_p_value_and_a_false_discovery_rate_limit_the_queue(tmp_path: Path) -> None:
    found = look(many(95) | {f"bad{n}": 1e-5 * (n + 1) for n in range(5)})
    assert len(asked(found, tmp_path, 50, p_value=2e-5).alerts) == 2
    some = asked(found, tmp_path, 50, fdr=0.001)
    assert {alert.users[0] for alert in some.alerts} == {f"bad{n}" for n in range(5)}
    assert [alert.fdr for alert in some.alerts] == pytest.approx([100 * 5e-5 / 5] * 5)  # 100 p-values, five at once
    assert len(asked(found, tmp_path, 50).alerts) == 50


def test_a_judged_alert_comes_back_when_an_event_since_speaks_for_it(tmp_path: Path) -> None:
    found = look(many() | {"a": 1e-6}, evidence={"a": [10, 11]})
    said = say(found, tmp_path, alert_id("bot", ["a"]), "dismissed")
    assert (said["users"], said["verdict"]) == (["a"], "dismissed")
    assert ["a"] not in users(asked(found, tmp_path))
    older = look(many() | {"a": 1e-6}, evidence={"a": [9, 11]})  # evidence now, but it was there all along
    assert ["a"] not in users(asked(older, tmp_path))
    newer = look(many() | {"a": 1e-6}, evidence={"a": [11, 24 * 30]})  # at the very moment as of which it was judged
    assert users(asked(newer, tmp_path))[0] == ["a"]
    say(replace(newer, window=[WINDOW[0], (AS_OF + timedelta(days=1)).isoformat()]), tmp_path, said["id"], "confirmed")
    assert ["a"] not in users(asked(newer, tmp_path))
    assert (asked(newer, tmp_path).confirmed, asked(newer, tmp_path).dismissed) == (1, 0)


def test_the_last_word_counts_for_what_is_learnt_too(tmp_path: Path) -> None:
    found = look(many(), {"u0": "ring", "u1": "ring"}, [(["u0", "u1"], 0.01)])
    name = alert_id("ring", ["u0", "u1"])
    say(found, tmp_path, name, "confirmed")
    say(found, tmp_path, alert_id("bot", ["u5"]), "dismissed")
    assert dict(labelled(tmp_path).select("user", "confirmed").iter_rows()) == {"u0": True, "u1": True, "u5": False}
    later = look({"u1": 0.5, "z": 0.1})  # the window has moved on: the alert is gone, and so is u0
    later = replace(later, features=pl.DataFrame({"user": ["u1", "z"], "other": [7.0, 8.0]}))
    say(later, tmp_path, name, "dismissed")
    assert labelled(tmp_path).height == 3
    kept = {row["user"]: row for row in labelled(tmp_path).iter_rows(named=True)}
    assert {user: row["confirmed"] for user, row in kept.items()} == {"u0": False, "u1": False, "u5": False}
    assert (kept["u0"]["fact"], kept["u0"]["other"]) == (0.0, None)
    assert (kept["u1"]["fact"], kept["u1"]["other"]) == (None, 7.0)  # as it stands now, in the columns of today
    assert len(verdicts(tmp_path)) == 2


def test_an_alert_of_nobody_cannot_be_judged(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="no alert 'abc'"):
        say(look(many()), tmp_path, "abc", "confirmed")
    assert verdicts(tmp_path) == {}


def test_precision_is_told_by_verdicts_of_the_band_and_by_the_test_until_there_are_enough(tmp_path: Path) -> None:
    tested = [{"from": 2.0, "accounts": 40, "planted": 30}, {"from": 3.0, "accounts": 0, "planted": 0}]
    by_test = precision(2.5, {}, tested)
    assert by_test is not None
    assert (by_test.value, by_test.low < 0.75 < by_test.high) == (0.75, True)
    assert "40 accounts" in by_test.by
    assert precision(4.0, {}, tested) is None  # nobody of the test was there
    assert precision(0.2, {}, tested) is None
    said = {str(n): {"verdict": "confirmed" if n else "dismissed", "score": 2.9, "audit": False} for n in range(4)}
    assert precision(2.5, said, tested) == by_test
    said["drawn"] = {"verdict": "dismissed", "score": 2.9, "audit": True}  # says nothing of the queue's own choice
    said["elsewhere"] = {"verdict": "dismissed", "score": 3.0, "audit": False}
    assert precision(2.5, said, tested) == by_test
    said["fifth"] = {"verdict": "confirmed", "score": 2.0, "audit": False}
    by_people = precision(2.5, said, tested)
    assert by_people is not None
    assert by_people.value == 0.8
    assert "5 verdicts" in by_people.by


def test_a_verdict_on_an_alert_drawn_at_random_is_marked(tmp_path: Path) -> None:
    found = look(many())
    shown = asked(found, tmp_path, 20, 0.1)
    (tmp_path / "anomaly").mkdir()
    remember_audit(tmp_path, shown)
    drawn, first = next(a for a in shown.alerts if a.audit), shown.alerts[0]
    assert say(found, tmp_path, drawn.id, "dismissed")["audit"]
    assert not say(found, tmp_path, first.id, "confirmed")["audit"]
    other = next(a for a in shown.alerts if a.audit and a != drawn)
    sooner = look(many() | {other.users[0]: 1e-9})  # by now it is there for its own sake
    remember_audit(tmp_path, asked(sooner, tmp_path, 20, 0.1))
    assert not say(sooner, tmp_path, other.id, "confirmed")["audit"]


def test_bands_are_those_of_the_latest_test_of_the_row() -> None:
    def result(cut: str, planted: int, name: str = "gru") -> Result:
        row = Row(name, "model", {}, 1.0, 1, plots={"bands": [{"from": 0.0, "accounts": 9, "planted": planted}]})
        return Result("anomaly", "m", "temporal/1", cut, 0, [row], 1.0, 1.0, "AUROC")

    kept = [result("2024-01-01", 1), result("2024-03-01", 2), result("2024-02-01", 3), result("2025-01-01", 4, "lstm")]
    assert alerts.bands_of(kept, "gru")[0]["planted"] == 2
    assert alerts.bands_of(kept, "nobody") == []
