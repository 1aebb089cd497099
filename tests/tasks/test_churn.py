"""Churn: definition, labels, questions and answers on real purchases, and on logs where there is little to say."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from desireline.schema.model import ChurnSettings, EventSpec, EventType, Schema
from desireline.sequences.ragged import POSITIVE, TARGET, Sequences
from desireline.tasks import TASKS
from desireline.tasks.churn.definition import DAY_US, Definition, one_an_occasion
from desireline.tasks.churn.snapshots import past_moments, snapshot, with_labels

DAY = timedelta(days=1)
START = datetime(2011, 1, 1, tzinfo=UTC)


def of(**changed: object) -> Definition:
    return replace(Definition("purchase", 30 * DAY_US, 0, 60 * DAY_US, None), **changed)


def labels(days: list[float], definition: Definition, horizon_d: float = 30) -> float:
    """The label at day 0 of a user with purchases at some days."""
    rows = pl.DataFrame({"user": ["u"], "as_of": [START], "horizon_us": [round(horizon_d * DAY_US)]})
    rows = rows.with_columns(pl.col("as_of").cast(pl.Datetime("us", "UTC")))
    back = pl.DataFrame(
        {"user": ["u"] * len(days), "time": [START + d * DAY for d in days]},
        schema={"user": pl.String, "time": pl.Datetime("us", "UTC")},
    )
    return float(with_labels(rows, back, definition)["churned"][0])


@pytest.mark.parametrize(
    ("days", "gone"),
    [
        ([], 1.0),
        ([-3.0], 1.0),  # what was before says nothing
        ([0.0], 0.0),  # the horizon holds its beginning
        ([29.99], 0.0),
        ([30.0], 1.0),  # and not its end
        ([-1.0, 200.0], 1.0),
    ],
)
def test_gone_is_who_has_no_purchase_in_the_horizon(days: list[float], gone: float) -> None:
    assert labels(days, of()) == gone


def test_a_gap_is_time_to_act_in_which_nothing_counts() -> None:
    assert labels([3.0], of(gap_us=7 * DAY_US)) == 1.0
    assert labels([36.0], of(gap_us=7 * DAY_US)) == 0.0


def test_past_moments_end_before_the_cut_and_reach_the_same_season_a_year_earlier() -> None:
    definition, cut = of(horizon_us=90 * DAY_US), datetime(2011, 9, 1, tzinfo=UTC)
    found = past_moments(definition, datetime(2009, 12, 1, tzinfo=UTC), cut, 9)
    assert all(moment + definition.span <= cut for moment in found)
    assert found[0] == cut - definition.span
    assert any(abs(moment - (cut - timedelta(days=365))) <= 8 * DAY for moment in found)
    assert past_moments(definition, cut - 100 * DAY, cut, 9) == []


def test_a_snapshot_tells_days_gaps_and_last_years_season() -> None:
    schema = Schema(
        user="u",
        item="i",
        value="v",
        event=EventSpec(column="e"),
        types={"buy": EventType(roles=["target", "positive"])},
    )
    days = [0, 10, 40, 330, 400]
    events = pl.DataFrame(
        {
            "event_id": range(5),
            "user": ["u"] * 5,
            "time": [START + d * DAY for d in days],
            "event": ["buy"] * 5,
            "item": ["a"] * 5,
            "value": [1.0, 2.0, 4.0, 8.0, 16.0],
            "order": [0] * 5,
            "bucket": [0] * 5,
        },
        schema_overrides={"time": pl.Datetime("us", "UTC"), "bucket": pl.Int16},
    )
    as_of = START + 405 * DAY  # a year before it: day 40
    row = snapshot(events, as_of, START, schema, of()).row(0, named=True)
    assert row["returns"] == 5
    assert row["returns_365d"] == 3
    assert row["returns_180d"] == 2
    assert row["days_since_return"] == 5
    assert row["days_since_first_return"] == 405
    assert row["return_gap_median_d"] == 50  # of 10, 30, 290, 70
    assert row["return_gap_longest_d"] == 290
    assert row["overdue"] == pytest.approx(0.1)
    assert row["value_365d"] == 28
    assert row["returns_year_ago"] == 1  # day 40 opens it, day 70 ends it
    young = snapshot(events, as_of, as_of - 300 * DAY, schema, of()).row(0, named=True)
    assert young["returns_year_ago"] is None  # nobody could be seen then


def test_settings_of_churn_do_not_make_a_prepared_log_another() -> None:
    from desireline.sequences.prepared import schema_digest

    schema = Schema(event=EventSpec(constant="buy"), types={"buy": EventType(roles=["target"])})
    other = schema.model_copy(update={"churn": ChurnSettings(horizon_d=3)})
    assert schema_digest(schema) == schema_digest(other)


def test_a_purchase_stands_for_its_day_whatever_was_looked_at_after_it() -> None:
    hours = [0, 1, 2, 48, 49, 120]  # view, purchase, view · view, view · purchase
    columns = {
        "time": np.array(hours, np.int64) * 3_600_000_000,
        "role": np.array([POSITIVE, TARGET, POSITIVE, POSITIVE, POSITIVE, TARGET], np.uint8),
    }
    whole = Sequences(pl.Series("user", ["u"]), np.array([0, 6]), columns)
    assert one_an_occasion(whole, of()).tolist() == [False, True, False, False, True, True]
    schema = Schema(
        event=EventSpec(column="e"),
        types={"buy": EventType(roles=["target"]), "view": EventType(roles=["positive"])},
        churn=ChurnSettings(by="purchase", horizon_d=30, active_d=60),
    )
    task = TASKS["churn"]
    labels = task.labels(task.read(whole, schema), 200 * 3_600_000_000, schema)
    assert labels.wait_d.tolist() == pytest.approx([119 / 24, 71 / 24, 80 / 24])
    assert labels.ended.tolist() == [True, True, False]
