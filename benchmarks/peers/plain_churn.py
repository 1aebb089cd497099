"""Churn as a data scientist would predict it in ten minutes: some thirty aggregates, LightGBM, no tuning.

Imports nothing of ours and reads the published file itself, so that neither our cleaning, nor our features, nor our
calibration can help it or stand in its way. It learns from four as-of dates whose horizons end before the date that is
asked about.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import polars as pl
from numpy.typing import NDArray

DATES = 4  # as-of dates to learn from
ROUNDS = 200
PARAMETERS: dict[str, Any] = {
    "objective": "binary",
    "learning_rate": 0.05,
    "num_leaves": 31,
    "verbosity": -1,
    "num_threads": 2,
    "seed": 0,
    "deterministic": True,
    "force_row_wise": True,
}


def online_retail(path: Path) -> pl.DataFrame:
    """Lines of invoices: whose, when, what, for how much, whether bought or taken back."""
    lines = pl.scan_parquet(path).filter(pl.col("customer_id").is_not_null(), pl.col("quantity") != 0)
    return lines.select(
        user="customer_id",
        time="invoice_date",
        item="stock_code",
        value=pl.col("quantity") * pl.col("unit_price"),
        back=pl.col("quantity") > 0,
        cancelled=pl.col("quantity") < 0,
    ).collect()


def cd_shop(path: Path) -> pl.DataFrame:
    """Purchases of CDs; the number of CDs stands for the item."""
    bought = pl.scan_parquet(path).select(
        user="customer_id",
        time=pl.col("date").cast(pl.Datetime("us")),
        item=pl.col("cds").cast(pl.String),
        value="dollars",
        back=pl.lit(True),
        cancelled=pl.lit(False),
    )
    return bought.collect()


def clicks(path: Path) -> pl.DataFrame:
    """What users of a marketplace did in the nine days that its log is about; what they bought has a value of 1."""
    acts = pl.scan_parquet(path).select(
        user=pl.col("user_id").cast(pl.String),
        time=pl.from_epoch("timestamp", "s").cast(pl.Datetime("us")),
        item=pl.col("item_id").cast(pl.String),
        value=(pl.col("behavior") == "buy").cast(pl.Float64),
        back=pl.lit(True),
        cancelled=pl.lit(False),
    )
    return acts.filter(pl.col("time").is_between(datetime(2017, 11, 24, 16), datetime(2017, 12, 3, 16))).collect()


@dataclass(frozen=True)
class Plan:
    """How the aggregates of a log are counted.

    read : the published file to `user`, `time`, `item`, `value`, `back` (what shows that a user has not left) and
    `cancelled`;  windows_d : days;  occasion : what counts as one visit;  apart : of the as-of dates learnt from
    """

    read: Callable[[Path], pl.DataFrame]
    windows_d: tuple[float, ...] = (30, 60, 90, 180, 365)
    occasion: str = "1d"
    apart: timedelta = timedelta(days=30)


PLANS = {
    "online-retail-ii": Plan(online_retail),
    "cdnow": Plan(cd_shop),
    "taobao": Plan(clicks, (0.25, 0.5, 1, 2, 4), "1h", timedelta(hours=8)),
}


def aggregates(log: pl.DataFrame, at: datetime, plan: Plan) -> pl.DataFrame:
    """One row a user with an event before `at`: `user`, `since_event` (days) and the numbers."""
    age = (pl.lit(at) - pl.col("time")).dt.total_seconds() / 86_400
    seen = log.filter(pl.col("time") < at).with_columns(age=age)
    back, windows = seen.filter("back"), plan.windows_d
    visits = back.group_by("user", occasion=pl.col("time").dt.truncate(plan.occasion)).agg(
        age=pl.col("age").min(), value=pl.col("value").sum()
    )
    gap = pl.col("age").diff().abs()
    by_visit = (
        visits.sort("user", "age")
        .group_by("user")
        .agg(
            *[(pl.col("age") <= d).sum().alias(f"visits_{d}") for d in windows],
            visits=pl.len(),
            since_last=pl.col("age").min(),
            since_first=pl.col("age").max(),
            gap_mean=gap.mean(),
            gap_std=gap.std(),
            value_mean=pl.col("value").mean(),
            value_std=pl.col("value").std(),
        )
    )
    by_line = back.group_by("user").agg(
        *[(pl.col("age") <= d).sum().alias(f"lines_{d}") for d in windows],
        *[pl.col("value").filter(pl.col("age") <= d).sum().alias(f"value_{d}") for d in windows],
        *[pl.col("item").filter(pl.col("age") <= d).n_unique().alias(f"items_{d}") for d in windows],
        items=pl.col("item").n_unique(),
    )
    events = seen.group_by("user").agg(since_event=pl.col("age").min(), cancelled=pl.col("cancelled").mean())
    return events.join(by_visit, on="user", how="left").join(by_line, on="user", how="left").sort("user")


def labelled(log: pl.DataFrame, at: datetime, horizon: timedelta, plan: Plan) -> pl.DataFrame:
    """The aggregates of the users active within two horizons before `at` who have come at all, and who was `gone`."""
    rows = aggregates(log, at, plan)
    rows = rows.filter(pl.col("since_event") <= 2 * (horizon / timedelta(days=1)), pl.col("visits") > 0)
    later = log.filter("back", pl.col("time") >= at, pl.col("time") < at + horizon)["user"].unique()
    return rows.with_columns(gone=(~pl.col("user").is_in(later.implode())).cast(pl.Float64))


def predictions(
    path: Path, at: datetime, horizon: timedelta, users: Sequence[str], plan: Plan
) -> tuple[NDArray[np.float64], dict[str, Any]]:
    """The probability of each user to be gone, float64 [U], and what was learnt from. `at` in UTC, without a zone."""
    log = plan.read(path)
    first = log["time"].min()
    assert isinstance(first, datetime)
    dates = [at - horizon - k * plan.apart for k in range(DATES)]
    dates = [date for date in dates if date >= first + horizon]
    past = pl.concat([labelled(log, date, horizon, plan) for date in dates])
    names = [name for name in past.columns if name not in ("user", "gone")]
    learnt = lightgbm.Dataset(past.select(names).to_numpy(), past["gone"].to_numpy(), feature_name=names)
    booster = lightgbm.train(PARAMETERS, learnt, ROUNDS)
    asked = pl.DataFrame({"user": users}).join(aggregates(log, at, plan), on="user", how="left", maintain_order="left")
    told = {"dates": len(dates), "rows": past.height, "numbers": len(names)}
    return np.asarray(booster.predict(asked.select(names).to_numpy()), np.float64), told
