"""Folding a log event by event gives the batch features, bit for bit."""

from __future__ import annotations

import json
import math
import struct
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from desireline.core.errors import DataError
from desireline.events.frame import ORDER, frame_schema
from desireline.features.batch import batch_features
from desireline.features.live import Plan, UserState
from desireline.schema.model import EventSpec, EventType, FieldSpec, Schema, TimeSpec

START = datetime(2010, 10, 28, 22, tzinfo=UTC)  # clocks are set back within the log
BACK = (datetime(2010, 11, 7, 2, 31, tzinfo=UTC) - START) // timedelta(microseconds=1)  # in St. John's, at 00:01
WIDEST = 150 * 86400 * 1_000_000


def schema(zone: str, positive: str | None) -> Schema:
    return Schema(
        time=TimeSpec(zone=zone),
        event=EventSpec(column="event"),
        item="item",
        types={
            "view": EventType(),
            "buy": EventType(roles=["positive", "target"]),
            "cancel": EventType(roles=["negative"]),
        },
        unknown_types="keep",
        positive=positive,
        fields={
            "shelf": FieldSpec(column="shelf", kind="category", of="item"),
            "rating": FieldSpec(column="rating", kind="number"),
        },
    )


SCHEMAS = [schema("Europe/London", None), schema("UTC", None), schema("America/St_Johns", "rating >= 3")]
PLANS = [Plan.of(s) for s in SCHEMAS]

moments = st.one_of(
    st.integers(0, WIDEST),
    st.integers(0, 12).map(lambda n: n * 10_000_000),  # equal times
    st.integers(-4, 4).map(lambda n: BACK + n * 30_000_000),
    st.integers(0, 150).map(lambda n: n * 86_400_000_000),  # windows and days to the microsecond
    st.integers(0, 90).map(lambda n: n * 1_800_000_000),  # gaps of exactly a session's
)
values = st.one_of(st.none(), st.floats(-1e4, 1e4), st.sampled_from([0.0, 0.1, 1e300, -7e12, math.nan, math.inf]))
events_of_users = st.lists(
    st.fixed_dictionaries(
        {
            "user": st.sampled_from(["a", "b", "c"]),
            "micro": moments,
            "event": st.sampled_from(["view", "buy", "buy", "cancel", "other"]),
            "item": st.sampled_from([None, "x", "y", "z"]),
            "value": values,
            "shelf": st.sampled_from([None, "p", "q"]),
            "rating": st.sampled_from([None, 1.0, 5.0]),
        }
    ),
    max_size=40,
)


def frame(rows: list[dict[str, Any]], chosen: Schema) -> pl.DataFrame:
    whole = [
        {"event_id": i, "order": 0, "bucket": 0, "time": START + timedelta(microseconds=row["micro"])} | row
        for i, row in enumerate(rows)
    ]
    columns = frame_schema(chosen)
    return pl.DataFrame([{k: row[k] for k in columns} for row in whole], schema=columns, orient="row").sort(ORDER)


def bits(value: float | None) -> bytes:
    return struct.pack("<d", math.nan if value is None else value)


@settings(max_examples=200, deadline=None)
@given(events_of_users, st.integers(0, len(SCHEMAS) - 1), st.integers(1, WIDEST), st.randoms(use_true_random=False))
def test_fold_equals_batch_bit_for_bit(rows: list[dict[str, Any]], which: int, later: int, draw: Any) -> None:
    chosen, plan = SCHEMAS[which], PLANS[which]
    events = frame(rows, chosen)
    last = max((row["micro"] for row in rows), default=0)
    for as_of_us in (last + later, last + 7 * 86_400_000_000):
        as_of = START + timedelta(microseconds=as_of_us)
        batch = batch_features(events, as_of, chosen)
        for row in batch.iter_rows(named=True):
            user = row.pop("user")
            history = events.filter(user=user).to_dicts()
            history.sort(key=lambda event: (event["time"], draw.random()))  # equal times come in any order
            state = UserState(plan)
            for event in history:
                state.fold(event)
                if draw.random() < 0.1:  # the service stops and starts again
                    state = UserState.from_dict(json.loads(json.dumps(state.to_dict())), plan)
            live = state.read(as_of)
            assert list(live) == list(row)
            assert {n: v for n, v in live.items() if bits(v) != bits(row[n])} == {}, row


def test_a_late_event_and_a_look_back_are_refused() -> None:
    state = UserState(PLANS[0])
    event = {"event": "view", "item": None, "value": None, "time": START}
    state.fold(event)
    state.fold(event)
    with pytest.raises(DataError, match="rebuild this user's state"):
        state.fold(event | {"time": START - timedelta(microseconds=1)})
    with pytest.raises(DataError, match="later moment"):
        state.read(START)
    assert state.read(START + timedelta(microseconds=1))["events"] == 2


def test_what_leaves_the_windows_leaves_the_state() -> None:
    state = UserState(PLANS[0])
    for day in range(1000):
        state.fold({"event": "view", "time": START + timedelta(days=day)})
    assert len(state.recent) <= 91
    assert state.read(START + timedelta(days=999, seconds=1))["events_90d"] == 90


def test_somebody_new_has_counts_of_zero() -> None:
    features = UserState(PLANS[0]).read(START)
    assert features["events"] == features["events_7d"] == 0
    assert math.isnan(features["days_since_last"])


def test_a_state_of_another_version_is_refused() -> None:
    with pytest.raises(DataError, match="version"):
        UserState.from_dict({"version": 0}, PLANS[0])
    with pytest.raises(DataError, match="damaged"):
        UserState.from_dict(UserState(PLANS[0]).to_dict() | {"odd": 1}, PLANS[0])
