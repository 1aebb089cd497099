"""What the report counts, held against counts made by hand in plain Python."""

from collections import Counter
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import polars as pl
import pytest

from desireline.core.errors import DataError
from desireline.evaluation.result import Metric, Result, Row
from desireline.report import gather
from desireline.schema.model import AliasSpec, EventSpec, Schema, TimeSpec
from desireline.workspace import init_workspace

DAY = 86_400
START = 1_699_920_000  # 2023-11-14 00:00 UTC


def opened(folder, rows, results=(), **changes):
    """A workspace with a log, as what `gather` asks for; the kept tables are given."""
    plain = {
        "user": "user",
        "time": TimeSpec(column="time", format="epoch_s"),
        "event": EventSpec(column="event"),
        "item": "item",
        "types": {"view": {"roles": ["target"]}, "cart": {"roles": []}, "buy": {"roles": ["positive", "target"]}},
    }
    workspace, _ = init_workspace(folder / "shop", schema=Schema(**plain | changes))
    pl.DataFrame(rows).write_parquet(folder / "log.parquet")
    workspace.ingest(folder / "log.parquet")
    return SimpleNamespace(
        folder=workspace.folder,
        schema=workspace.schema,
        store=workspace.store,
        check=workspace.check,
        results=lambda: list(results),
        answered_tasks=lambda: [],
        predict=None,
    )


def shop_rows(days=30, silent=(10, 11, 12)):
    return [
        {"user": f"u{k % 7}", "time": START + day * DAY + 3_600 * k, "event": event, "item": f"i{k % 5}"}
        for day in range(days)
        if day not in silent
        for k in range(14)
        for event in (["view", "buy"] if k % 3 == 0 else ["view"])
    ]


def test_activity_counts_every_day_and_shows_silence_as_zero(tmp_path):
    rows = shop_rows()
    report = gather(opened(tmp_path, rows))
    expected = Counter((datetime.fromtimestamp(r["time"], UTC).date(), r["event"]) for r in rows)
    found = {(start.date(), event): n for start, _, event, n in report.activity.iter_rows()}
    assert report.period == "day"
    assert {key: n for key, n in found.items() if n} == expected
    assert len(found) == 30 * 2  # each day with each type that occurs, the three silent days too
    silent = datetime.fromtimestamp(START + 11 * DAY, UTC).date()
    assert [found[silent, event] for event in ("view", "buy")] == [0, 0]


def test_days_are_those_of_the_wall_clock(tmp_path):
    rows = shop_rows()
    zone = TimeSpec(column="time", format="epoch_s", zone="America/Phoenix")  # seven hours behind, always
    report = gather(opened(tmp_path, rows, time=zone))
    expected = Counter((datetime.fromtimestamp(r["time"], UTC) - timedelta(hours=7)).date() for r in rows)
    found = report.activity.group_by(pl.col("start").dt.date()).agg(pl.col("events").sum()).filter(pl.col("events") > 0)
    assert dict(found.iter_rows()) == expected


def test_the_funnel_has_every_declared_type_in_order_with_its_users(tmp_path):
    rows = shop_rows()
    report = gather(opened(tmp_path, rows))
    expected = [(t, len({r["user"] for r in rows if r["event"] == t})) for t in ("view", "cart", "buy")]
    assert expected[1] == ("cart", 0)  # declared and never seen
    assert report.funnel.rows() == expected


def test_merged_users_are_one_user_and_aliases_are_no_events(tmp_path):
    alias = {"user": "u0", "time": START + DAY, "event": "alias", "item": None, "other": "u3"}
    rows = [r | {"other": None} for r in shop_rows()]
    report = gather(opened(tmp_path, [alias, *rows], alias=AliasSpec(event="alias", column="other")))
    whose = [(r["event"], "u0" if r["user"] == "u3" else r["user"]) for r in rows]
    expected = [(t, len({user for event, user in whose if event == t})) for t in ("view", "cart", "buy")]
    assert report.funnel.rows() == expected
    assert "u3" not in {example.user for example in report.examples}
    assert report.activity["events"].sum() == len(rows)
    assert "alias" not in report.activity["event"]


def test_impossible_times_do_not_stretch_the_picture(tmp_path):
    rows = shop_rows(silent=())
    wild = [{"user": "u1", "time": 1_000_000_000, "event": "view", "item": "i1"}]
    report = gather(opened(tmp_path, rows + wild))
    assert report.health["outside"]["before"] == 1  # else this test shows nothing
    assert report.first == datetime.fromtimestamp(START, UTC)
    assert report.activity["events"].sum() == len(rows)


def test_a_log_of_positions_has_no_days(tmp_path):
    rows = [{"user": f"u{u}", "place": p, "event": "view", "item": f"i{p % 3}"} for u in range(5) for p in range(100)]
    report = gather(opened(tmp_path, rows, time=TimeSpec(column="place", format="position")))
    assert not report.timed
    assert report.period == ""
    first = report.activity.filter(pl.col("event") == "view").row(0, named=True)
    assert first["events"] == 5 * (first["end"] - first["start"])  # five users have each position once
    assert report.activity["events"].sum() == 500


def test_examples_are_the_same_each_time_and_have_a_history(tmp_path):
    late = START + 30 * DAY
    passing = [{"user": f"once {k}", "time": late, "event": "view", "item": "i1"} for k in range(5)]
    workspace = opened(tmp_path, shop_rows() + passing)
    once, again = gather(workspace), gather(workspace)
    assert [e.user for e in once.examples] == [e.user for e in again.examples]
    assert len({e.user for e in once.examples}) == 3
    assert all(e.moments.height > 10 for e in once.examples)


def test_many_types_are_drawn_as_few(tmp_path):
    types = {f"t{n:02}": {"roles": ["target"]} for n in range(30)}
    rows = [r | {"event": f"t{k % 30:02}"} for k, r in enumerate(shop_rows())]
    report = gather(opened(tmp_path, rows, types=types))
    assert report.activity["event"].n_unique() == 6
    assert report.activity["events"].sum() == len(rows)
    assert report.funnel.height == 15


def test_a_comparison_comes_in_full_and_a_single_fit_of_its_task_is_kept_beside_it(tmp_path):
    def result(task, model, chosen):
        row = Row("gru", "model", {"NDCG@10": Metric(float("nan"), 0.0, 0.0)}, 1.0, 1)
        return Result(task, model, "temporal/1", "2023-11-20", 0, [row], 1.0, 1.0, "NDCG@10", chosen)

    kept = [result("recommend", "a", "gru"), result("recommend", "b", None), result("next_event", "c", None)]
    report = gather(opened(tmp_path, shop_rows(), kept))
    assert [r.model for r in report.results] == ["a", "c"]
    assert [r.model for r in report.others] == ["b"]


def test_nothing_ingested_says_what_to_do(tmp_path):
    workspace, _ = init_workspace(
        tmp_path / "shop", schema=Schema(user="user", event=EventSpec(constant="view"), types={"view": {}})
    )
    with pytest.raises(DataError, match="desireline ingest"):
        gather(workspace)
