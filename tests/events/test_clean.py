"""What cleaning leaves out, what it must not, and that its counts add up."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import pytest

from desireline.core.errors import DataError
from desireline.events.clean import RULES, Limits, clean, fit_limits, reasons
from desireline.events.frame import ORDER, frame_schema
from desireline.schema.model import CleanSettings, EventSpec, EventType, FieldSpec, Schema

SCHEMA = Schema(
    event=EventSpec(column="event"),
    types={"view": EventType(), "buy": EventType(roles=["target"])},
    fields={"page": FieldSpec(column="page", kind="category")},
)
START = datetime(2024, 3, 1, 8, 0, 0, 137_000, tzinfo=UTC)  # off the second: a clock of milliseconds
ON = CleanSettings()


def frame(rows: list[dict[str, Any]]) -> pl.DataFrame:
    """An event frame of rows that name what matters; the rest is filled in."""
    whole = [
        {"event_id": i, "user": "u", "event": "view", "item": "x", "value": None, "order": 0, "bucket": 0, "page": None}
        | row
        for i, row in enumerate(rows)
    ]
    return pl.DataFrame(whole, schema=frame_schema(SCHEMA), orient="row").sort(ORDER)


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def ordinary(users: int = 40, events: int = 50, days: float = 9, seed: int = 3) -> list[dict[str, Any]]:
    """People who come and go over nine days."""
    draw = random.Random(seed)
    return [
        {"user": f"p{u}", "time": at(round(draw.uniform(0, days * 86400), 3)), "item": f"i{draw.randrange(500)}"}
        for u in range(users)
        for _ in range(events)
    ]


def cleaned(rows: list[dict[str, Any]], settings: CleanSettings = ON) -> dict[str, int]:
    events = frame(rows)
    result = clean(events, settings, fit_limits(events.lazy(), settings))
    assert result.events.height + result.removed.height == events.height
    assert set(result.events["event_id"]) | set(result.removed["event_id"]) == set(events["event_id"])
    assert sum(result.counts().values()) == result.removed.height
    return {rule: n for rule, n in result.counts().items() if n}


def test_ordinary_people_lose_nothing() -> None:
    assert cleaned(ordinary()) == {}


def test_rows_months_before_the_window_go() -> None:
    strays = [{"user": "p1", "time": at(-days * 86400)} for days in (75, 74, 30)]
    assert cleaned(ordinary() + strays) == {"impossible_time": 3}


def test_rows_sprinkled_thinly_before_the_beginning_go() -> None:
    strays = [{"user": "p1", "time": at(-days * 86400 + i)} for days in range(2, 12) for i in (0, 7)]
    assert cleaned(ordinary(users=60, events=100) + strays) == {"impossible_time": 20}


def test_a_log_that_grew_slowly_keeps_its_first_days() -> None:
    draw = random.Random(1)
    # doubling every month for two years: the first year holds one event in four thousand
    months = [24 - draw.expovariate(0.693) for _ in range(20_000)]
    rows = [{"user": f"p{i}", "time": at(m * 30 * 86400)} for i, m in enumerate(months) if m > 0]
    assert cleaned(rows) == {}


@pytest.mark.parametrize("n", [1, 2, 5, 60])
def test_a_short_log_loses_nothing(n: int) -> None:
    assert cleaned(ordinary(users=1, events=n, days=400)) == {}


def test_a_short_log_loses_its_1970() -> None:
    rows = ordinary(users=3, events=15, days=90)
    assert cleaned([*rows, {"user": "p0", "time": datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC)}]) == {"impossible_time": 1}


def test_what_comes_after_the_cut_is_kept_but_2038_is_not() -> None:
    events = frame(ordinary())
    limits = fit_limits(events.lazy(), ON)
    years_later = frame([{"time": at(days * 86400)} for days in (10, 300, 1500, 5100)])
    result = clean(years_later, ON, limits)
    assert result.removed["event_id"].to_list() == [3]


def test_a_tracker_that_fires_twice_counts_once() -> None:
    twice = [{"user": "p1", "time": at(50), "item": "i1"}] * 2
    assert cleaned(ordinary() + twice) == {"duplicate": 1}
    other_value = [{"user": "p1", "time": at(50), "value": v} for v in (1.0, 2.0)]
    other_field = [{"user": "p1", "time": at(50), "page": p} for p in "ab"]
    assert cleaned(ordinary() + other_value + other_field) == {}


def test_equal_lines_of_an_invoice_stay_where_the_clock_shows_minutes() -> None:
    minutes = [row | {"time": row["time"].replace(second=0, microsecond=0)} for row in ordinary()]
    line = {"user": "p1", "time": at(0).replace(microsecond=0), "item": "i1", "value": 1.25}
    assert cleaned([*minutes, line, line]) == {}


def test_a_double_click_counts_once_and_a_return_twice() -> None:
    click = {"user": "p1", "item": "i1"}
    between = {"user": "p1", "item": "other", "time": at(50.5)}
    rows = [*ordinary(), click | {"time": at(50)}, between, click | {"time": at(50.9)}, click | {"time": at(53)}]
    assert cleaned(rows) == {"near_duplicate": 1}
    assert cleaned(rows, CleanSettings(near_duplicate_s=None)) == {}
    assert cleaned(rows, CleanSettings(near_duplicate_s=2.5)) == {"near_duplicate": 2}


def test_positions_are_no_times() -> None:
    origin = datetime(1970, 1, 1, tzinfo=UTC)
    for step in (timedelta(microseconds=1), timedelta(seconds=1)):
        rows = [{"user": f"p{u}", "time": origin + i * step} for u in range(3) for i in range(6000)]
        assert cleaned(rows) == {}


def test_a_scraper_goes_and_a_busy_person_stays() -> None:
    draw = random.Random(2)
    busy = [
        {"user": "busy", "time": at(h * 900 + draw.uniform(0, 300)), "item": f"i{h}-{k}"}
        for h in range(40)
        for k in range(12)
    ]
    scraper = [{"user": "scraper", "time": at(draw.uniform(0, 40_000)), "item": f"i{i}"} for i in range(900)]
    assert cleaned(ordinary() + busy + scraper, CleanSettings(max_events_per_day=800)) == {"bot_rate": 900}


def test_a_timer_goes_whatever_its_jitter_and_a_quick_clicker_stays() -> None:
    draw = random.Random(4)
    timer = [{"user": "timer", "time": at(60 * i + draw.uniform(-0.2, 0.2)), "item": f"i{i}"} for i in range(300)]
    assert cleaned(ordinary() + timer) == {"bot_regular": 300}
    seconds = [row | {"time": row["time"].replace(microsecond=0)} for row in ordinary()]
    clock, quick = at(0).replace(microsecond=0), []
    for i in range(400):  # between one and three seconds apart, on a clock of seconds
        clock += timedelta(seconds=draw.choice([1, 2, 2, 2, 3]))
        quick.append({"user": "quick", "time": clock, "item": f"i{i}"})
    assert cleaned(seconds + quick) == {}


def test_extreme_values_are_clipped_by_type_and_counted() -> None:
    draw = random.Random(5)
    rows = [row | {"event": "buy", "value": round(draw.lognormvariate(2, 1), 2)} for row in ordinary()]
    rows += [{"event": "buy", "user": "p1", "time": at(9), "value": v} for v in (1e9, -1e9)]
    rows += [{"event": "view", "user": "p1", "time": at(10), "value": 1e9}]  # no fence: nothing is known of its values
    events = frame(rows)
    limits = fit_limits(events.lazy(), ON)
    logs = sorted(pl.Series([abs(r["value"]) for r in rows if r.get("event") == "buy"]).log())
    low, high = logs[len(logs) // 4], logs[3 * len(logs) // 4]
    assert pl.Series([limits.fences["buy"]]).log().item() == pytest.approx(high + 3 * (high - low), abs=0.25)
    result = clean(events, ON, limits)
    assert result.clipped == 2
    assert result.events["value"].max() == 1e9
    buys = result.events.filter(pl.col("event") == "buy")["value"]
    assert (buys.max(), buys.min()) == (limits.fences["buy"], -limits.fences["buy"])
    assert clean(events, CleanSettings(extreme_values=False), limits).events.equals(events)


def test_one_value_for_all_is_no_fence() -> None:
    rows = [row | {"value": 9.99} for row in ordinary()]
    assert fit_limits(frame(rows).lazy(), ON).fences == {}


def test_buckets_can_be_cleaned_apart() -> None:
    rows = ordinary() + [{"user": "p1", "time": at(50)}] * 2 + [{"user": "p2", "time": at(-1e7)}]
    rows += [{"user": "timer", "time": at(60 * i)} for i in range(300)]
    events = frame(rows)
    limits = fit_limits(events.lazy(), ON)
    whole = clean(events, ON, limits)
    parts = [clean(part, ON, limits) for _, part in events.group_by("user", maintain_order=True)]
    assert pl.concat([p.events for p in parts]).equals(whole.events)
    assert sorted(pl.concat([p.removed for p in parts]).iter_rows()) == sorted(whole.removed.iter_rows())


def test_limits_survive_json_and_reasons_name_them() -> None:
    limits = fit_limits(frame(ordinary()).lazy(), ON)
    assert Limits.from_json(limits.to_json()) == limits
    assert set(reasons(ON, limits)) == set(RULES)
    assert "5000 events" in reasons(ON, limits)["bot_rate"]
    assert "bot_rate" not in reasons(CleanSettings(bots=False), limits)


def test_an_empty_log_has_no_limits() -> None:
    nothing = frame([])
    assert fit_limits(nothing.lazy(), ON) == Limits()
    assert clean(nothing, ON, Limits()).events.height == 0


def test_unsorted_users_are_refused() -> None:
    events = frame([{"time": at(1)}, {"time": at(2)}, {"user": "v", "time": at(1)}])
    for torn in (events.reverse()[[1, 0, 2]], events[[0, 2, 1]], events[[1, 0, 2]]):
        with pytest.raises(DataError, match="sort the frame"):
            clean(torn, ON, Limits())
