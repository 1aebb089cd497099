"""The health of a log against what was put into it."""

from __future__ import annotations

import json
import math
import random
from collections import Counter
from datetime import UTC, datetime, timedelta
from io import StringIO
from typing import Any

import numpy as np
import polars as pl
import pytest
from rich.console import Console
from sklearn.metrics import log_loss as reference_log_loss

from desireline.core.errors import DataError
from desireline.events.frame import ORDER, bucket_expression, frame_schema
from desireline.events.health import Health, health
from desireline.events.health_screen import notes, sparkline
from desireline.events.order import hit_rate, log_loss, order_strength
from desireline.schema.model import AliasSpec, EventSpec, EventType, FieldSpec, Schema, TimeSpec

SCHEMA = Schema(
    time=TimeSpec(zone="Asia/Shanghai"),
    event=EventSpec(column="event"),
    item="item",
    types={"view": EventType(), "buy": EventType(roles=["target", "positive"])},
    fields={"shelf": FieldSpec(column="shelf", kind="category")},
    alias=AliasSpec(column="other"),
)
START = datetime(2024, 3, 1, tzinfo=UTC)
NOW = datetime(2025, 1, 1, tzinfo=UTC)


class Kept:
    """An event store in memory."""

    def __init__(self, events: pl.DataFrame) -> None:
        self.events = events

    def scan(self, columns: list[str] | None = None) -> pl.LazyFrame:
        return self.events.lazy().select(columns or pl.all())

    def read_bucket(self, lo: int, hi: int) -> pl.DataFrame:
        return self.events.filter(pl.col("bucket").is_between(lo, hi, closed="left"))

    def count(self) -> int:
        return self.events.height


def frame(rows: list[dict[str, Any]]) -> pl.DataFrame:
    blank = dict.fromkeys(frame_schema(SCHEMA)) | {"order": 0}
    whole = [blank | {"event_id": i, "event": "view"} | row for i, row in enumerate(rows)]
    events = pl.DataFrame(whole, schema=frame_schema(SCHEMA), orient="row")
    return events.with_columns(bucket=bucket_expression(pl.col("user"))).sort("bucket", *ORDER)


def people(days: int = 20, users: int = 80, night_utc: int = 19, seed: int = 5) -> list[dict[str, Any]]:
    """Visits by day, nobody between `night_utc` and five hours later (19 UTC is 3 o'clock in Shanghai)."""
    draw = random.Random(seed)
    rows = []
    for _ in range(users * 30):
        hour = (night_utc + 5 + draw.triangular(0, 19, 9)) % 24
        time = START + timedelta(days=draw.randrange(days), hours=hour, milliseconds=draw.randrange(1000))
        kind, item = draw.choice(["view", "view", "buy"]), f"i{draw.randrange(40)}"
        rows.append({"user": f"u{draw.randrange(users)}", "time": time, "event": kind, "item": item})
    return rows


def examine(rows: list[dict[str, Any]], **settings: Any) -> Health:
    return health(Kept(frame(rows)), SCHEMA, NOW, **settings)


def test_counts_are_those_of_a_plain_loop() -> None:
    rows = people()
    for row in rows[::4]:
        row["shelf"] = "s"
    found = examine(rows, quarantine={"no user": 7})
    assert found.events == len(rows)
    assert found.users == len({row["user"] for row in rows})
    assert found.items == len({row["item"] for row in rows})
    assert found.types == dict(Counter(row["event"] for row in rows))
    assert found.first == min(row["time"] for row in rows).isoformat()
    assert found.last == max(row["time"] for row in rows).isoformat()
    assert found.quarantine == {"no user": 7}
    assert found.missing["shelf"] == pytest.approx(0.75, abs=0.001)
    assert (found.missing["value"], found.missing["item"]) == (1, 0)
    assert sum(n for _, n in found.activity) == sum(found.hours) == len(rows)
    by_hour = Counter((row["time"] + timedelta(hours=8)).hour for row in rows)
    assert found.hours == [by_hour[h] for h in range(24)]
    assert sum(found.removed.values()) == 0
    lengths = sorted(Counter(row["user"] for row in rows).values())
    assert found.lengths["0.5"] == lengths[math.ceil(len(lengths) / 2) - 1]
    assert (found.lengths["0"], found.lengths["1"]) == (lengths[0], lengths[-1])


def test_the_share_of_repeats_is_that_of_a_plain_loop() -> None:
    rows = people()
    bought = sorted((row for row in rows if row["event"] == "buy"), key=lambda row: row["time"])
    seen: dict[tuple[str, str], datetime] = {}
    again = sum(seen.setdefault((row["user"], row["item"]), row["time"]) < row["time"] for row in bought)
    found = examine(rows)
    assert found.targets == len(bought)
    assert found.repeat_share == pytest.approx(again / len(bought))


def test_faults_are_found_counted_and_told() -> None:
    rows = people()
    rows += [{"user": "u1", "time": START - timedelta(days=200), "item": "i1"}] * 2
    rows += [{"user": "u2", "time": NOW + timedelta(days=d), "item": "i1"} for d in (2, 3)]
    rows += [{"user": "u3", "time": START + timedelta(hours=5, milliseconds=3), "item": "i1"}] * 2
    rows += [{"user": "timer", "time": START + timedelta(minutes=10 * i, milliseconds=1)} for i in range(300)]
    rows += [{"user": "u4", "event": "alias", "alias": "old", "time": START}]
    found = examine(rows)
    assert found.outside["before"] == found.removed["impossible_time"] == 2
    assert found.clock["future"] == 2
    assert found.removed["duplicate"] == 1
    assert found.removed["bot_regular"] == 300
    assert found.bots == {"timer": 300}
    assert found.events == len(rows) - 1  # an alias is no behaviour
    told = "\n".join(notes(found))
    for words in ("2 events lie in the future", "2 events before the window", "rule bot_regular"):
        assert words in told


def test_a_missing_week_is_a_gap() -> None:
    rows = [r for r in people(days=40) if not 10 <= (r["time"] + timedelta(hours=8) - START).days < 17]
    found = examine(rows)
    assert found.silent_days == 7
    assert found.gaps == [{"after": "2024-03-10", "before": "2024-03-18", "days": 7}]
    assert "No event for 7 days after 2024-03-10" in "\n".join(notes(found))


@pytest.mark.parametrize(("night_utc", "told"), [(18, False), (2, True), (10, True)])
def test_a_night_by_day_betrays_a_wrong_zone(night_utc: int, told: bool) -> None:
    found = examine(people(night_utc=night_utc))
    assert found.clock["quietest_from"] in {(night_utc + 8 + shift) % 24 for shift in (-1, 0, 1)}
    assert ("check time.zone" in "\n".join(notes(found))) is told


def chain(strength: float, seed: int = 0) -> pl.DataFrame:
    """Users on a walk over 60 items that goes to the next item with a chance of `strength`, else anywhere."""
    draw = random.Random(seed)
    rows = []
    for user in range(120):
        item = draw.randrange(60)
        for step in range(40):
            rows.append({"user": f"u{user:03d}", "time": START + timedelta(minutes=step), "item": f"i{item}"})
            item = (item + 1) % 60 if draw.random() < strength else draw.randrange(60)
    return frame(rows)


def test_order_helps_where_the_next_item_follows_from_the_last() -> None:
    item = order_strength(chain(0.7), seed=1).item
    assert item is not None
    assert item.true > 0.7  # the walk's own chance, and some of the rest by popularity
    assert item.shuffled < 0.45
    assert 0 < item.low < item.difference < item.high


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_order_does_not_help_where_items_are_drawn_at_random(seed: int) -> None:
    item = order_strength(chain(0.0, seed), seed).item
    assert item is not None
    assert abs(item.difference) < 0.03
    assert item.low - 0.01 < 0 < item.high + 0.01


def test_too_few_events_say_nothing_of_order() -> None:
    assert order_strength(frame(people(users=2)[:20]), seed=0).item is None


def test_hits_equal_a_plain_predictor() -> None:
    draw = np.random.default_rng(0)
    before, after, asked, truth = (draw.zipf(1.5, n) % 30 for n in (500, 500, 200, 200))
    popular = [v for v, _ in sorted(Counter(after.tolist()).items(), key=lambda p: (-p[1], p[0]))]
    popular += [v for v in range(30) if v not in popular]
    expected = []
    for now, true in zip(asked.tolist(), truth.tolist(), strict=True):
        follow = Counter(after[before == now].tolist())
        best = [v for v, _ in sorted(follow.items(), key=lambda p: (-p[1], p[0]))][:10]
        expected.append(true in best or true in popular[: 10 - len(best)])
    assert hit_rate(before, after, asked, truth).astype(bool).tolist() == expected


def test_log_loss_equals_scikit_learns() -> None:
    draw = np.random.default_rng(0)
    before, after, asked, truth = (draw.integers(0, 4, n) for n in (500, 500, 200, 200))
    table = np.ones((4, 4))
    np.add.at(table, (before, after), 1)
    chance = (table / table.sum(axis=1, keepdims=True))[asked]
    assert log_loss(before, after, asked, truth).mean() == pytest.approx(
        reference_log_loss(truth, chance, labels=range(4))
    )


def test_it_prints_on_one_screen_and_as_json() -> None:
    found = examine(people())
    written = StringIO()
    Console(file=written, width=120).print(found)
    lines = written.getvalue().splitlines()
    assert len(lines) <= 40
    assert "2,400 events" in written.getvalue()
    raw = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert raw["events"] == 2400
    assert all(raw[step]["formula"] for step in ("prepare", "epoch"))
    assert isinstance(raw["notes"], list)


def test_seeds_alone_decide_the_sample() -> None:
    rows = people()
    assert examine(rows, seed=3).to_json() == examine(rows, seed=3).to_json()


def test_positions_have_no_clock() -> None:
    origin = datetime(1970, 1, 1, tzinfo=UTC)
    rows = [
        {"user": f"u{u}", "time": origin + timedelta(seconds=i), "item": f"i{i}"} for u in range(9) for i in range(30)
    ]
    found = examine(rows)
    assert found.clock["has_times"] is False
    assert "positions" in notes(found)[0]
    assert (found.silent_days, found.gaps) == (0, [])


def test_an_empty_log_says_what_to_do() -> None:
    with pytest.raises(DataError, match="desireline ingest"):
        examine([])


def test_a_sparkline_sums_what_does_not_fit() -> None:
    assert sparkline([0, 1, 4, 8]) == " ▁▄█"
    assert sparkline([1, 3, 8, 0, 2, 6], width=3) == "▄██"
    assert sparkline([]) == ""
