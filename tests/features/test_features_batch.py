"""The batch features against a plain reading of their definitions, one user at a time."""

from __future__ import annotations

import math
import random
import statistics as plain
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

import polars as pl
import pytest
from scipy.stats import entropy

from desireline.core.errors import DataError
from desireline.events.frame import ORDER, frame_schema
from desireline.features.batch import batch_features
from desireline.features.definitions import DEFINITIONS, definitions
from desireline.schema.model import EventSpec, EventType, FieldSpec, Schema, TimeSpec

ZONE = "Europe/London"
SCHEMA = Schema(
    time=TimeSpec(zone=ZONE),
    event=EventSpec(column="event"),
    item="item",
    types={
        "view": EventType(),
        "cart": EventType(roles=["positive"]),
        "buy": EventType(roles=["positive", "target"]),
        "cancel": EventType(roles=["negative"]),
    },
    fields={
        "country": FieldSpec(column="country", kind="category"),
        "shelf": FieldSpec(column="shelf", kind="category", of="item"),
        "length": FieldSpec(column="length", kind="number"),
    },
)
NOW = datetime(2024, 6, 1, 12, tzinfo=UTC)


def frame(rows: list[dict[str, Any]], schema: Schema = SCHEMA) -> pl.DataFrame:
    blank = dict.fromkeys(frame_schema(schema)) | {"order": 0, "bucket": 0}
    whole = [blank | {"event_id": i, "user": "u", "event": "view"} | row for i, row in enumerate(rows)]
    return pl.DataFrame(whole, schema=frame_schema(schema), orient="row").sort(ORDER)


def shop(users: int, seed: int = 1) -> pl.DataFrame:
    """Visits of a few minutes over half a year, the change to summer time within."""
    draw = random.Random(seed)
    rows = []
    for u in range(users):
        for _ in range(draw.randrange(1, 15)):
            time = NOW - timedelta(days=draw.uniform(0.1, 180))
            for _ in range(draw.randrange(1, 12)):
                time = min(time + timedelta(seconds=draw.choice([0, 5, 60, 1800])), NOW - timedelta(microseconds=1))
                rows.append(
                    {
                        "user": f"u{u}",
                        "time": time,
                        "event": draw.choice(["view", "view", "cart", "buy", "cancel"]),
                        "item": draw.choice([None, *"abcdef"]),
                        "value": draw.choice([None, 0.0, round(draw.lognormvariate(2, 1), 2)]),
                        "country": draw.choice([None, "fr", "de"]),
                        "shelf": draw.choice("xyz"),
                    }
                )
    return frame(rows)


def slow(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Features of one user's rows in order, as their definitions read."""
    local = [row["time"].astimezone(ZoneInfo(ZONE)) for row in rows]
    sessions, out = [0], {}
    for a, b in pairwise(rows):
        sessions.append(sessions[-1] + (b["time"] - a["time"] > timedelta(seconds=1800)))
    for name, days in {"_1d": 1, "_7d": 7, "_30d": 30, "_90d": 90, "": 10_000}.items():
        inside = [i for i, row in enumerate(rows) if row["time"] >= NOW - timedelta(days=days)]
        bought = [rows[i] for i in inside if rows[i]["event"] == "buy"]
        out[f"events{name}"] = len(inside)
        out[f"active_days{name}"] = len({local[i].date() for i in inside})
        out[f"sessions{name}"] = len({sessions[i] for i in inside})
        out[f"targets{name}"] = len(bought)
        if name in ("_30d", "_90d", ""):
            out[f"money{name}"] = sum(row["value"] or 0 for row in bought)

    def since(kept: list[dict[str, Any]], at: int = -1) -> float:
        return (NOW - kept[at]["time"]).total_seconds() / 86400 if kept else math.nan

    targets = [row for row in rows if row["event"] == "buy"]
    out["days_since_first"], out["days_since_last"] = since(rows, 0), since(rows)
    out["days_since_positive"] = since([row for row in rows if row["event"] in ("buy", "cart")])
    out["days_since_target"] = since(targets)
    gaps = [(b["time"] - a["time"]).total_seconds() for a, b in pairwise(rows)]
    dwell = [gap for gap, a, b in zip(gaps, sessions, sessions[1:], strict=False) if a == b]
    out["dwell_mean_s"] = plain.fmean(dwell) if dwell else math.nan
    out["dwell_censored_share"] = 1 - len(dwell) / len(rows)
    count = sessions[-1] + 1
    ends = [[row["time"] for row, s in zip(rows, sessions, strict=True) if s == k] for k in range(count)]
    out["session_length_mean_s"] = plain.fmean((end[-1] - end[0]).total_seconds() for end in ends)
    out["session_events_mean"] = plain.fmean(len(end) for end in ends)
    days = sorted({time.date() for time, row in zip(local, rows, strict=True) if row["event"] == "buy"})
    target_gaps = [(b - a).days for a, b in pairwise(days)]
    out["target_days"] = len(days)
    out["target_gap_mean_d"] = plain.fmean(target_gaps) if target_gaps else math.nan
    out["target_gap_std_d"] = plain.pstdev(target_gaps) if target_gaps else math.nan
    out["target_gap_last_d"] = target_gaps[-1] if target_gaps else math.nan
    valued = [row["value"] for row in targets if row["value"] is not None]
    out["money_mean"] = plain.fmean(valued) if valued else math.nan
    out["money_trend"] = out["money_30d"] / 30 - (out["money_90d"] - out["money_30d"]) / 60
    out["money_negative"] = sum(abs(row["value"] or 0) for row in rows if row["event"] == "cancel")
    for i, hours in enumerate(["00_04", "04_08", "08_12", "12_16", "16_20", "20_24"]):
        out[f"hour_{hours}"] = plain.fmean(time.hour // 4 == i for time in local)
    for i, day in enumerate(["mon", "tue", "wed", "thu", "fri", "sat", "sun"]):
        out[f"weekday_{day}"] = plain.fmean(time.weekday() == i for time in local)
    about = [row for row in targets if row["item"] is not None]
    again = [any(o["item"] == row["item"] and o["time"] < row["time"] for o in about) for row in about]
    out["repeat_ratio"] = plain.fmean(again) if again else math.nan
    cancels = sum(row["event"] == "cancel" for row in rows)
    out["cancel_ratio"] = cancels / len(targets) if targets else math.nan
    for column in ("item", "country", "shelf"):
        values = [row[column] for row in rows if row[column] is not None]
        counts = [values.count(value) for value in set(values)]
        out[f"distinct_{column}"] = len(counts)
        out[f"entropy_{column}"] = float(entropy(counts)) if counts else math.nan
    for kind in ("view", "cart", "buy", "cancel"):
        out[f"share_of_{kind}"] = plain.fmean(row["event"] == kind for row in rows)
    return out


def test_every_feature_equals_its_plain_definition() -> None:
    events = shop(60)
    features = batch_features(events, NOW, SCHEMA)
    assert features["user"].to_list() == events["user"].unique(maintain_order=True).to_list()
    for row in features.iter_rows(named=True):
        expected = slow(events.filter(user=row.pop("user")).to_dicts())
        assert set(expected) == set(row)
        for name, value in row.items():
            got = math.nan if value is None else value
            assert got == pytest.approx(expected[name], rel=1e-9, abs=1e-8, nan_ok=True), name


def test_every_feature_is_declared_and_each_declaration_computed() -> None:
    table = definitions(SCHEMA)
    assert batch_features(shop(2), NOW, SCHEMA).columns == ["user", *table]
    assert batch_features(frame([]), NOW, SCHEMA).columns == ["user", *table]
    assert all(f.name == name and f.meaning and f.unit and f.group for name, f in table.items())
    assert set(DEFINITIONS) < set(table)


def test_an_event_at_the_moment_or_after_it_is_refused() -> None:
    events = frame([{"time": NOW - timedelta(days=1)}, {"time": NOW}])
    with pytest.raises(DataError, match="the 1 events at that moment"):
        batch_features(events, NOW, SCHEMA)
    assert batch_features(events, NOW + timedelta(microseconds=1), SCHEMA)["events_1d"].item() == 1


def test_a_window_holds_its_first_moment() -> None:
    events = frame([{"time": NOW - timedelta(days=7)}, {"time": NOW - timedelta(days=7, microseconds=1)}])
    assert batch_features(events, NOW, SCHEMA)["events_7d"].item() == 1


def test_torn_or_unsorted_users_are_refused() -> None:
    events = frame([{"user": u, "time": NOW - timedelta(days=d)} for u in "ab" for d in (1, 2)])
    for wrong in (events[[0, 2, 1, 3]], events[[1, 0, 2, 3]]):
        with pytest.raises(DataError, match="sort the frame"):
            batch_features(wrong, NOW, SCHEMA)


def test_a_positive_expression_decides_what_is_a_target() -> None:
    raw = SCHEMA.model_dump() | {"positive": "length >= 4"}
    schema = Schema.model_validate(raw)
    rows = [{"event": "buy", "time": NOW - timedelta(days=3 - i), "length": x} for i, x in enumerate([5.0, 3.0, None])]
    features = batch_features(frame(rows, schema), NOW, schema)
    assert features["targets"].item() == 1
    assert features["days_since_positive"].item() == 3


def test_sums_of_money_neither_drift_nor_overflow() -> None:
    cents = frame([{"event": "buy", "value": 0.1, "time": NOW - timedelta(seconds=i + 1)} for i in range(1000)])
    assert batch_features(cents, NOW, SCHEMA)["money"].item() == 100.0
    huge = frame([{"event": "buy", "value": 4e11, "time": NOW - timedelta(seconds=i + 1)} for i in range(100)])
    assert batch_features(huge, NOW, SCHEMA)["money"].item() == 4e13


def test_clocks_set_back_at_midnight_do_not_make_a_day_twice() -> None:
    # St. John's, 2010-11-07: at 00:01 back to 23:01 of the sixth
    zone = "America/St_Johns"
    schema = Schema.model_validate(SCHEMA.model_dump() | {"time": {"zone": zone}})
    back = datetime(2010, 11, 7, 2, 31, tzinfo=UTC)
    times = [back + timedelta(seconds=s) for s in (-90, -30, 30, 7200)]
    assert [t.astimezone(ZoneInfo(zone)).day for t in times] == [6, 7, 6, 7]
    events = frame([{"time": t, "event": "buy"} for t in times], schema)
    features = batch_features(events, NOW, schema)
    assert features["active_days"].item() == features["target_days"].item() == 2
