"""A past experiment, read from a log: users as of their own assignments, and every way in which there is none."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from desireline.core.errors import DataError, SchemaError
from desireline.events.clean import Limits, fit_limits
from desireline.events.frame import ORDER
from desireline.schema.model import ChurnSettings, EventSpec, EventType, FieldSpec, Schema, TimeSpec, parse
from desireline.sequences.prepared import Prepared
from desireline.tasks.churn import trial as module
from desireline.tasks.churn.definition import DAY_US, Definition
from desireline.tasks.churn.snapshots import snapshot
from desireline.tasks.churn.trial import assigned_rows, behaviour_only, read_trial
from desireline.workspace import init_workspace

START = datetime(2024, 1, 1, tzinfo=UTC)
HORIZON = 20
SCHEMA = Schema(
    user="user",
    time=TimeSpec(column="time"),
    event=EventSpec(column="event"),
    item="item",
    value="value",
    fields={"arm": FieldSpec(column="arm", kind="category")},
    types={"buy": EventType(roles=["target", "positive"]), "contact": EventType()},
    churn=ChurnSettings(by="purchase", horizon_d=HORIZON, active_d=40, treatment="arm", treated="yes"),
)
OF = Definition.of(SCHEMA.churn)


def rows(users: int = 40) -> list[dict[str, object]]:
    """Users who buy every so many days; each is assigned at a moment of its own, half of them stay away after it."""
    found: list[dict[str, object]] = []

    def add(user: int, day: float, event: str, arm: str | None) -> None:
        buys = event == "buy"
        found.append(
            {"user": f"u{user:02}", "time": START + timedelta(days=day), "event": event}
            | {"item": f"i{user % 5}" if buys else None, "value": 3.0 + user if buys else None, "arm": arm}
        )

    for user in range(users):
        assigned = 50 + user % 7 + 0.25
        for step in range(30):
            day = 0.5 + (user % 3) + step * (3 + user % 4)
            if day < (assigned if user % 2 else 95):
                add(user, day, "buy", None)
        add(user, assigned, "contact", "yes" if user % 3 else "no")
    return found


def frame(raw: list[dict[str, object]]) -> pl.DataFrame:
    events = pl.DataFrame(raw, schema_overrides={"time": pl.Datetime("us", "UTC"), "arm": pl.String})
    events = events.with_columns(event_id=pl.int_range(pl.len()), order=pl.lit(0), bucket=pl.lit(0, pl.Int16))
    return events.sort(ORDER)


def first_of(events: pl.DataFrame) -> pl.DataFrame:
    marks = events.filter(pl.col("arm").is_not_null())
    return marks.select("user", as_of="time", treated=pl.col("arm") == "yes")


def assigned(raw: list[dict[str, object]], limits: Limits, of: Definition = OF) -> pl.DataFrame:
    events = frame(raw)
    first = first_of(events).unique("user", keep="first", maintain_order=True)
    return assigned_rows(behaviour_only(events, "arm"), first, limits, START, SCHEMA, of).sort("user")


@pytest.fixture(scope="module")
def limits() -> Limits:
    return fit_limits(frame(rows()).lazy(), SCHEMA.clean)


def test_each_user_is_as_of_its_own_assignment(limits: Limits) -> None:
    events, found = frame(rows()), assigned(rows(), limits)
    assert found["as_of"].n_unique() == 7
    for row in found.iter_rows(named=True):
        own = events.filter(pl.col("user") == row["user"], pl.col("time") < row["as_of"])
        alone = snapshot(own, row["as_of"], START, SCHEMA, OF)
        assert found.filter(pl.col("user") == row["user"]).select(alone.columns).equals(alone)
    gone = found.select("user", gone=pl.col("user").str.slice(1).cast(pl.Int64) % 2 == 1, churned="churned")
    assert gone["gone"].cast(pl.Float64).equals(gone["churned"])


def test_nothing_after_the_assignment_changes_what_is_known_before(limits: Limits) -> None:
    clean = assigned(rows(), limits)
    poison = rows()
    for user in range(40):
        for step in range(400):  # the first at that very moment; and all as regular as a machine
            moment = START + timedelta(days=50 + user % 7 + 0.25, hours=13 * step)
            poison.append(
                {"user": f"u{user:02}", "time": moment, "event": "buy", "item": "x", "value": 1e6, "arm": None}
            )
    later = assigned(poison, limits)
    assert later.drop("churned").equals(clean.drop("churned"))


def test_a_contact_is_no_sign_of_life(limits: Limits) -> None:
    by_activity = Definition("activity", HORIZON * DAY_US, 0, 40 * DAY_US, None)
    assert assigned(rows(), limits, by_activity)["churned"].sum() == 20


@pytest.fixture
def read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., module.Trial]:
    """Reads the experiment of some events through a workspace; an arm needs 10 users."""
    monkeypatch.setattr(module, "LEAST", 10)

    def through(raw: list[dict[str, object]], at: datetime = START + timedelta(days=95)) -> module.Trial:
        table = frame(raw).select("user", "time", "event", "item", "value", "arm")
        table.write_parquet(tmp_path / "log.parquet")
        workspace, _ = init_workspace(tmp_path / "shop", schema=SCHEMA)
        workspace.ingest(tmp_path / "log.parquet")
        prepared: Prepared = workspace.prepare(START + timedelta(days=60))
        return read_trial(prepared, SCHEMA.churn, at)

    return through


def test_only_first_assignments_of_users_with_a_history_count(read: Callable[..., module.Trial]) -> None:
    raw = rows()
    contact = {"event": "contact", "item": None, "value": None}
    raw.append({"user": "u00", "time": START + timedelta(days=58), "arm": "yes"} | contact)
    raw.append({"user": "new", "time": START + timedelta(days=58), "arm": "yes"} | contact)
    raw.append({"user": "u01", "time": START + timedelta(days=94), "arm": "no"} | contact)
    found = read(raw)
    assert found.rows.height == 40
    assert found.rows["treated"].sum() == 26
    assert not found.rows.filter(pl.col("user") == "u00")["treated"].item()  # its first said so
    assert found.dropped["later assignment of a user"] == 2
    assert found.dropped["without a history"] == 1


def test_a_horizon_that_is_not_over_counts_for_nothing(read: Callable[..., module.Trial]) -> None:
    with pytest.raises(DataError, match=r"0 treated users and 0 controls.*40 not over yet"):
        read(rows(), START + timedelta(days=66))


def test_some_horizons_are_over_earlier(read: Callable[..., module.Trial]) -> None:
    found = read(rows(), START + timedelta(days=75))
    assert 0 < found.dropped["not over yet"] < 40
    assert found.rows["as_of"].max() < START + timedelta(days=75 - HORIZON)


def test_an_experiment_has_two_arms(read: Callable[..., module.Trial]) -> None:
    raw = rows()
    raw[-1]["arm"] = "maybe"
    with pytest.raises(DataError, match="3 values"):
        read(raw)


def test_controls_must_be_logged(read: Callable[..., module.Trial]) -> None:
    with pytest.raises(DataError, match="controls, who must be logged too"):
        read([row | {"arm": "yes" if row["arm"] else None} for row in rows()])


def test_few_users_are_no_experiment(read: Callable[..., module.Trial]) -> None:
    with pytest.raises(DataError, match="each arm needs 10"):
        read(rows(12))


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"treatment": "nothing", "treated": "yes"}, "no category field"),
        ({"treatment": "price", "treated": "yes"}, "no category field"),
        ({"treatment": "brand", "treated": "yes"}, "describes the item"),
        ({"treatment": "arm"}, "belong together"),
    ],
)
def test_a_wrong_declaration_is_refused_where_it_stands(changed: dict[str, str], why: str) -> None:
    raw = SCHEMA.model_dump() | {"churn": changed}
    raw["fields"]["price"] = {"column": "p", "kind": "number"}
    raw["fields"]["brand"] = {"column": "b", "kind": "category", "of": "item"}
    with pytest.raises(SchemaError, match=why):
        parse(raw, "desireline.yaml")
