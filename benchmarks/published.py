"""What papers report of a public log, beside what ours finds there."""

from __future__ import annotations

import time
from datetime import datetime
from typing import Any

import numpy as np
import polars as pl

from benchmarks.quality import DATA
from desireline.classical.buy_till_you_die import BuyTillYouDie
from desireline.classical.repeats import count_repeats

PUBLISHED = {  # Fader, Hardie & Lee (2005), table 2; weeks, days with a purchase up to 1997-09-30
    "bg-nbd": {"r": 0.2426, "alpha": 4.4136, "a": 0.7930, "b": 2.4262, "log-likelihood": -9582.4},
    "pareto-nbd": {"r": 0.553, "alpha": 10.578, "s": 0.606, "beta": 11.669, "log-likelihood": -9595.0},
}


def published_fits() -> list[dict[str, Any]]:
    """Buy-till-you-die parameters of the published tenth of CDNOW beside those of the papers."""
    log = pl.read_parquet(DATA / "cdnow" / "cdnow_master.parquet").filter(pl.col("date") <= pl.date(1997, 9, 30))
    log = log.join(pl.read_parquet(DATA / "cdnow" / "sample_ids.parquet"), on="customer_id")
    log = log.sort("customer_id", "date").with_columns(day=pl.col("date").cast(pl.Int32).cast(pl.Int64))
    held = log.group_by("customer_id", maintain_order=True).len()["len"].cast(pl.Int64).to_numpy()
    end = np.full(len(held), (datetime(1997, 9, 30) - datetime(1970, 1, 1)).days, np.int64)
    shop = count_repeats(np.append(0, np.cumsum(held)), log["day"].to_numpy(), end, unit_days=7.0)
    rows = []
    for law, published in PUBLISHED.items():
        begun, model = time.perf_counter(), BuyTillYouDie(law)
        model.fit(shop)
        seconds = round(time.perf_counter() - begun, 2)
        found = model.named | {"log-likelihood": float(model.log_likelihood(shop).sum())}
        rows += [
            {"law": law, "parameter": key, "ours": round(found[key], 4), "published": value}
            | {"difference %": round(100 * abs(found[key] / value - 1), 3), "seconds": seconds}
            for key, value in published.items()
        ]
    return rows
