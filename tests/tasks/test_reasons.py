"""Facts that are told beside an item: they are those of the log, and of the time before the cut alone."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeAlias

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from desireline.events.cut import cut
from desireline.schema.model import EventSpec, FieldSpec, Schema, TimeSpec
from desireline.sequences.encode import encode_with_ids
from desireline.sequences.prepared import Prepared, to_us
from desireline.sequences.ragged import POSITIVE, Sequences
from desireline.tasks.answers import asked_now
from desireline.tasks.reasons import Own, Reason, counted_users, reasons, usual_span
from desireline.workspace import Workspace, init_workspace

START = datetime(2024, 1, 1, tzinfo=UTC)
NOW = START + timedelta(days=200)
SCHEMA = Schema(
    user="user",
    time=TimeSpec(column="time"),
    event=EventSpec(column="event"),
    item="item",
    types={
        "view": {"roles": ["positive"]},
        "purchase": {"roles": ["positive", "target"]},
        "return": {"roles": ["negative"]},
    },
)
Rows: TypeAlias = list[tuple[str, float, str, str]]  # user, day, event, item


@pytest.fixture
def log(tmp_path: Path) -> Callable[[Rows], tuple[Workspace, Prepared]]:
    def made(rows: Rows) -> tuple[Workspace, Prepared]:
        rows = [*rows, ("filler", 0, "purchase", "bead")]
        timed = [(u, (START + timedelta(days=d)).replace(tzinfo=None), e, i) for u, d, e, i in rows]
        pl.DataFrame(timed, schema=["user", "time", "event", "item"], orient="row").write_parquet(
            tmp_path / "l.parquet"
        )
        workspace, _ = init_workspace(tmp_path / "w", schema=SCHEMA)
        workspace.ingest(tmp_path / "l.parquet")
        return workspace, workspace.prepare(NOW)

    return made


def told(workspace: Workspace, prepared: Prepared, user: str, item: str) -> list[Reason]:
    events = cut(workspace.store.users_events(user), NOW)[0]
    sequences, ids = encode_with_ids(events, prepared)
    questions = asked_now(sequences, to_us(NOW))
    own = Own.of(questions, 0, ids)
    return reasons([prepared.vocabularies["item"].id_of(item)], own, prepared, timed=True)[0]


def ids_of(workspace: Workspace, user: str, item: str, event: str) -> list[int]:
    events = workspace.store.users_events(user)
    return events.filter(pl.col("item") == item, pl.col("event") == event)["event_id"].to_list()


def test_an_item_had_in_a_rhythm_is_told_with_it_and_is_due(log):
    days = [12, 43, 74, 105, 136, 167]
    workspace, prepared = log([("u", d, "purchase", "soap") for d in days] + [("u", 199, "view", "lamp")])
    (reason,) = told(workspace, prepared, "u", "soap")
    assert reason.fact == "purchase × 6, every 31 days; last 33 days ago: due"
    assert reason.evidence == ids_of(workspace, "u", "soap", "purchase")
    (reason,) = told(workspace, prepared, "u", "lamp")
    assert reason.fact == "view × 1; last 1 day ago"


def test_an_item_is_not_due_long_before_its_usual_gap_is_over(log):
    workspace, prepared = log([("u", d, "purchase", "soap") for d in (60, 90, 120, 150, 180)])
    assert told(workspace, prepared, "u", "soap")[0].fact == "purchase × 5, every 30 days; last 20 days ago"


def test_two_days_make_no_rhythm_and_each_event_type_is_told_by_its_own(log):
    rows = [("u", 100, "purchase", "soap"), ("u", 100.1, "purchase", "soap"), ("u", 150, "purchase", "soap")]
    rows += [("u", d, "view", "soap") for d in (10, 20, 30, 199.8)] + [("u", 160, "return", "soap")]
    workspace, prepared = log(rows)
    bought, viewed = told(workspace, prepared, "u", "soap")
    assert bought.fact == "purchase × 3; last 50 days ago"
    assert viewed.fact == "view × 4, every 10 days; last less than a day ago"
    assert viewed.evidence == ids_of(workspace, "u", "soap", "view")


def associated(extra: Rows = ()) -> Rows:
    """Of 20 who had a pot 12 have a lid three days later; of 100 others 3 do. Everybody takes a bag after anything."""
    rows: Rows = [(f"p{n}", 50 + n, "purchase", "pot") for n in range(20)]
    rows += [(f"p{n}", 53 + n, "purchase", "lid") for n in range(12)]
    rows += [(f"q{n}", 20 + n, "purchase", "cup") for n in range(100)]
    rows += [(f"q{n}", 22 + n, "purchase", "lid") for n in range(3)]
    rows += [(f"{u}{n}", 150, "purchase", "cup") for u, m in (("p", 20), ("q", 100)) for n in range(m)]
    rows += [(f"{u}{n}", 151, "purchase", "bag") for u, m in (("p", 20), ("q", 100)) for n in range(m)]
    return [*rows, ("u", 180, "view", "pot"), ("u", 181, "purchase", "pot"), ("u", 182, "purchase", "cup"), *extra]


def test_a_new_item_is_told_by_what_it_follows_with_the_users_own_events(log):
    workspace, prepared = log(associated())
    (reason,) = told(workspace, prepared, "u", "lid")
    # 15 of all 122 users (those, u and the filler) had a lid within the span of anything: .123; .571 / .123 = 4.6
    assert reason.fact == (
        "those who had pot then had this within 7 days: 57 % (12 of 21 users), 4.6 times as often as all users"
    )
    own = ids_of(workspace, "u", "pot", "view") + ids_of(workspace, "u", "pot", "purchase")
    assert reason.evidence == own


def test_what_everybody_comes_to_follows_from_nothing(log):
    workspace, prepared = log(associated())
    (reason,) = told(workspace, prepared, "u", "bag")
    assert reason.fact == "new to this user; 120 events of others are about it, the last on 2024-05-31"
    assert reason.evidence == []


def test_an_item_that_follows_nothing_is_told_by_the_rarest_category_that_it_shares(tmp_path):
    rows = [("u", "lamp", "light", "red"), ("u", "cup", "table", "red"), ("u", "bowl", None, None)]
    rows += [("v", "torch", "light", "red"), ("v", "rose", None, "red"), ("v", "fork", "metal", None)]
    pl.DataFrame(
        [(user, datetime(2024, 1, 1 + n), *rest) for n, (user, *rest) in enumerate(rows)],
        schema=["user", "time", "item", "kind", "colour"],
        orient="row",
    ).write_parquet(tmp_path / "log.parquet")
    fields = {name: FieldSpec(column=name, kind="category", of="item") for name in ("colour", "kind")}
    schema = SCHEMA.model_copy(update={"fields": fields, "event": EventSpec(constant="view")})
    workspace, _ = init_workspace(tmp_path / "w", schema=schema)
    workspace.ingest(tmp_path / "log.parquet")
    prepared = workspace.prepare(NOW)
    torch, also = told(workspace, prepared, "u", "torch"), ids_of(workspace, "u", "lamp", "view")
    assert torch[0] == Reason("kind light, as 1 of this user's 3 events", also)
    assert torch[1].fact.startswith("new to this user; 1 event of others is about it")
    both = also + ids_of(workspace, "u", "cup", "view")
    assert told(workspace, prepared, "u", "rose")[0] == Reason("colour red, as 2 of this user's 3 events", both)
    assert len(told(workspace, prepared, "u", "fork")) == 1


def test_fewer_than_three_users_are_no_association(log):
    workspace, prepared = log(associated([("p1", 60, "purchase", "gem"), ("p2", 60, "purchase", "gem")]))
    assert told(workspace, prepared, "u", "gem")[0].fact.startswith("new to this user; 2 events")


def test_what_comes_after_the_cut_moves_no_reason(log, tmp_path):
    workspace, prepared = log(associated())
    before = told(workspace, prepared, "u", "lid")
    later = [(f"q{n}", 201 + k, "purchase", i) for n in range(90) for k, i in enumerate(("pot", "lid"))]
    timed = [(u, (START + timedelta(days=d)).replace(tzinfo=None), e, i) for u, d, e, i in later]
    pl.DataFrame(timed, schema=["user", "time", "event", "item"], orient="row").write_parquet(tmp_path / "m.parquet")
    assert workspace.ingest(tmp_path / "m.parquet").stored == len(later)
    assert told(workspace, workspace.prepare(NOW), "u", "lid") == before


def test_a_log_of_positions_is_told_by_events_and_not_by_days(tmp_path):
    rows = [(f"u{n}", item) for n in range(20) for item in ("pot", "lid")] + [(f"v{n}", "cup") for n in range(80)]
    rows += [("u", "pot"), ("u", "pot"), ("u", "cup")]
    pl.DataFrame(rows, schema=["user", "item"], orient="row").write_parquet(tmp_path / "log.parquet")
    schema = SCHEMA.model_copy(update={"time": TimeSpec(), "event": EventSpec(constant="view")})
    workspace, _ = init_workspace(tmp_path / "w", schema=schema)
    workspace.ingest(tmp_path / "log.parquet")
    prepared = workspace.prepare(workspace.store.span()[1] + timedelta(seconds=1))
    sequences, ids = encode_with_ids(workspace.store.users_events("u"), prepared)
    own = Own.of(asked_now(sequences, to_us(NOW)), 0, ids)
    items = [prepared.vocabularies["item"].id_of(item) for item in ("pot", "cup", "lid")]
    said = [reason.fact for (reason,) in reasons(items, own, prepared, timed=False)]
    assert said[:2] == ["view × 2; last 2 events ago", "view × 1; last 1 event ago"]
    assert said[2] == (
        "those who had pot then had this within 10 events: 95 % (20 of 21 users), 4.8 times as often as all users"
    )


def sequences(rng: np.random.Generator, users: int, items: int) -> Sequences:
    lengths = rng.integers(0, 12, users)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    time = np.concatenate([np.sort(rng.integers(0, 40, n)) for n in lengths] or [[]]).astype(np.int64) * 86_400_000_000
    session = np.concatenate([np.cumsum(np.diff(t, prepend=t[:1]) > 0) for t in np.split(time, offsets[1:-1])])
    columns = {
        "time": time,
        "session": session.astype(np.int32),
        "item": rng.integers(0, items, len(time)).astype(np.int32),
        "role": rng.choice([0, POSITIVE, POSITIVE | 2], len(time)).astype(np.uint8),
    }
    return Sequences(pl.Series("user", [f"u{n}" for n in range(users)]), offsets, columns)


@given(seed=st.integers(0, 999), timed=st.booleans())
def test_users_are_counted_as_by_hand(seed, timed):
    rng = np.random.default_rng(seed)
    log, catalogue = sequences(rng, 30, 9), 9
    sources, shown = np.array([4, 2, 7], np.int32), np.array([3, 5], np.int32)
    until = 30 * 86_400_000_000
    counted = counted_users(log, sources, shown, catalogue, until, timed)
    span = usual_span(log)[1] if timed else 10
    users, ever, both = {s: set() for s in sources}, {b: set() for b in shown}, {}
    everybody = set()
    for u in range(30):
        events = []
        for n in range(log.offsets[u], log.offsets[u + 1]):
            good = log["role"][n] & POSITIVE and log["item"][n] >= 2
            if good and not (timed and log["time"][n] >= until):
                events.append((log["time"][n] if timed else n, log["item"][n]))
        everybody |= {u} if events else set()
        for when, item in events:
            if item in users:
                users[item].add(u)
            for later, other in events:
                if other in ever and when < later <= when + span:
                    ever[other].add(u)
                    both.setdefault((item, other), set()).add(u)
    assert counted.users.tolist() == [len(users[a]) for a in sources]
    assert counted.ever.tolist() == [len(ever[b]) for b in shown]
    assert counted.both.tolist() == [[len(both.get((a, b), ())) for b in shown] for a in sources]
    assert counted.all_users == len(everybody)


def test_the_span_is_the_shortest_that_holds_half_of_the_returns():
    day = 86_400_000_000
    time = np.array([0, 1, 3 * day, 3 * day + 5, 9 * day, 100 * day, 0, 50 * day])
    session = np.array([0, 0, 1, 1, 2, 3, 0, 1])
    columns = {"time": time, "session": session}
    log = Sequences(pl.Series("user", ["a", "b"]), np.array([0, 6, 8]), columns)
    assert usual_span(log) == ("30 days", 30 * day)  # returns after 3, 6, 91 and 50 days
    assert usual_span(Sequences(log.users[:1], np.array([0, 3]), {n: c[:3] for n, c in columns.items()}))[0] == "7 days"
