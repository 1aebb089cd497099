"""Sessions against a plain loop."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from desireline.events.sessions import with_sessions

START = datetime(2024, 3, 1, tzinfo=UTC)
SCHEMA = {"user": pl.String, "time": pl.Datetime("us", "UTC")}


def by_loop(users: list[str], times: list[datetime], gap: timedelta) -> list[int]:
    sessions: list[int] = []
    for i, (user, time) in enumerate(zip(users, times, strict=True)):
        if i == 0 or user != users[i - 1]:
            sessions.append(0)
        else:
            sessions.append(sessions[-1] + (time - times[i - 1] > gap))
    return sessions


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 40)), max_size=60), st.integers(0, 10))
def test_sessions_equal_a_plain_loop(rows: list[tuple[str, int]], gap: int) -> None:
    rows = sorted(rows)
    users, times = [u for u, _ in rows], [START + timedelta(seconds=s) for _, s in rows]
    frame = with_sessions(pl.DataFrame({"user": users, "time": times}, schema=SCHEMA), gap)
    assert frame["session"].to_list() == by_loop(users, times, timedelta(seconds=gap))
    assert frame["session"].dtype == pl.Int32


def test_a_silence_of_exactly_the_gap_stays_in_the_session() -> None:
    times = [START, START + timedelta(seconds=1800), START + timedelta(seconds=3600, microseconds=1)]
    frame = with_sessions(pl.DataFrame({"user": ["u"] * 3, "time": times}, schema=SCHEMA), 1800)
    assert frame["session"].to_list() == [0, 0, 1]
