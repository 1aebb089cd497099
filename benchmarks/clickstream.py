"""A made-up clickstream for benchmarks of speed: users and items with heavy tails, four event types, thirty days."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

SEED = 7
TYPES = ["view", "cart", "purchase", "wish"]


def write(path: Path, rows: int) -> Path:
    """Write `rows` events as Parquet, in chunks, unless they stand there already; returns the path.

    user_id Int64 (rows / 50 users), item_id Int64 (Zipf, at most a million), event_type, timestamp in epoch seconds.
    """
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(SEED)
    users = max(1, rows // 50)
    table = pl.DataFrame(
        {
            "user_id": (users * rng.random(rows, np.float32) ** 1.5).astype(np.int64),
            "item_id": np.minimum(rng.zipf(1.3, rows), 1_000_000),
            "event_type": pl.Series(rng.choice(4, rows, p=[0.85, 0.08, 0.03, 0.04]).astype(np.uint8)).replace_strict(
                dict(enumerate(TYPES)), return_dtype=pl.String
            ),
            "timestamp": 1_700_000_000 + np.sort(rng.integers(0, 30 * 86_400, rows)),
        }
    )
    table.write_parquet(path)
    return path


SCHEMA = """
version: 1
user: user_id
time: {column: timestamp, format: epoch_s}
event: {column: event_type}
item: item_id
types:
  view: {roles: [positive, target]}
  cart: {roles: [positive, target]}
  purchase: {roles: [positive, target]}
  wish: {roles: [positive, target]}
"""
