"""The two logs that models are trained on beside peers: one made here with ML-1M's shape, and Amazon Beauty.

Both are frames `user, position, item` (Int64), items and users counted from 0, a user's rows in order.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from benchmarks.record import ROOT

SEED = 11
USERS, ITEMS, MEAN_EVENTS = 6_040, 3_416, 163  # of ML-1M, as papers filter it
TASTES, TASTES_A_USER, FOLLOWERS = 40, 3, 3
FOLLOWS = 0.4  # share of events that follow from the one before
ATTEMPTS = 20  # draws until an item is new to the user


def beauty_file() -> Path:
    """Where Amazon Beauty is looked for: DESIRELINE_DATA, or `shared/data` beside the repository."""
    data = Path(os.environ.get("DESIRELINE_DATA", ROOT.parent / "shared" / "data"))
    return data / "amazon_beauty_5core" / "sequences.parquet"


def beauty(users: int | None = None) -> pl.DataFrame:
    """Amazon Beauty, 5-core (22,363 users), or its first `users`, whose items are then the catalogue."""
    table = pl.read_parquet(beauty_file()).sort("user", "position")
    if users is not None:
        table = table.filter(pl.col("user").rank("dense") <= users)
    return table.select("position", *((pl.col(name).rank("dense") - 1).cast(pl.Int64) for name in ("user", "item")))


def ml1m_shape(users: int = USERS) -> pl.DataFrame:
    """A made log of ML-1M's shape with something to learn.

    Each item has a taste group and three likely followers, each user three groups. An event is a follower of the one
    before, or else an item of one of the user's groups by popularity (a Zipf law); an item comes once a user. All
    users are drawn side by side, a position at a time.
    """
    rng = np.random.default_rng(SEED)
    group = rng.integers(0, TASTES, ITEMS)
    popularity = rng.zipf(1.6, ITEMS).astype(float).clip(max=300)
    followers = rng.integers(0, ITEMS, (ITEMS, FOLLOWERS))
    by_group = np.argsort(group, kind="stable")
    ends = np.cumsum(np.bincount(group, minlength=TASTES))
    mass = np.concatenate([[0], np.cumsum(popularity[by_group])])
    lengths = np.clip(rng.lognormal(0, 0.85, USERS) * MEAN_EVENTS / 1.4, 20, 1_000)
    lengths = np.rint(lengths * (MEAN_EVENTS / lengths.mean())).astype(np.int64)[:users]
    tastes = rng.integers(0, TASTES, (users, TASTES_A_USER))
    seen = np.zeros((users, ITEMS), bool)
    last = np.full(users, -1)
    parts: list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]] = []
    for position in range(int(lengths.max())):
        active = np.flatnonzero(lengths > position)
        new = np.zeros(len(active), np.int64)
        open_rows = np.arange(len(active))
        for _ in range(ATTEMPTS):
            user = active[open_rows]
            taste = tastes[user, rng.integers(0, TASTES_A_USER, len(user))]
            begin, end = mass[np.concatenate([[0], ends])[taste]], mass[ends[taste]]
            place = np.searchsorted(mass, begin + (end - begin) * rng.random(len(user)), side="right") - 1
            follows = (rng.random(len(user)) < FOLLOWS) & (last[user] >= 0)
            follower = followers[last[user], rng.integers(0, FOLLOWERS, len(user))]
            new[open_rows] = np.where(follows, follower, by_group[np.minimum(place, ITEMS - 1)])
            open_rows = open_rows[seen[user, new[open_rows]]]
            if len(open_rows) == 0:
                break
        seen[active, new] = True
        last[active] = new
        parts.append((active, np.full(len(active), position), new))
    columns = (np.concatenate(column) for column in zip(*parts, strict=True))
    table = pl.DataFrame(dict(zip(("user", "position", "item"), columns, strict=True))).sort("user", "position")
    return table.unique(["user", "item"], keep="first", maintain_order=True)  # one in a thousand found nothing new
