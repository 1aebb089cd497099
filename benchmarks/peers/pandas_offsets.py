"""pandas and NumPy offsets on a clickstream: ids, order and five features; run by an interpreter that has pandas.

python pandas_offsets.py CLICKS.parquet OUT.npz
"""

from __future__ import annotations

import sys

import numpy as np
import pandas as pd

DAY_S = 86_400


def main() -> None:
    """Read, encode, sort, cut into users, compute, write."""
    table = pd.read_parquet(sys.argv[1])
    is_purchase = (table["event_type"] == "purchase").to_numpy()
    names = {"user": "user_id", "item": "item_id", "event": "event_type"}
    table = table.assign(**{name: pd.factorize(table[column])[0] for name, column in names.items()}, bought=is_purchase)
    table = table[["user", "item", "event", "timestamp", "bought"]].sort_values(["user", "timestamp"], kind="stable")
    user, time = table["user"].to_numpy(), table["timestamp"].to_numpy()
    starts = np.concatenate([[0], np.flatnonzero(np.diff(user)) + 1])
    offsets = np.append(starts, len(user))
    first, last = time[starts], time[offsets[1:] - 1]
    count = np.diff(offsets)
    day = time // DAY_S
    is_new_day = np.concatenate([[True], (np.diff(day) != 0) | (np.diff(user) != 0)])
    features = {
        "count": count,
        "recency": time.max() - last,
        "frequency": np.add.reduceat(table["bought"].to_numpy().astype(np.int64), starts) / np.maximum(1, last - first),
        "active_days": np.add.reduceat(is_new_day.astype(np.int64), starts),
        "mean_gap": (last - first) / np.maximum(1, count - 1),
    }
    columns = {name: table[name].to_numpy() for name in ("item", "event")}
    np.savez(sys.argv[2], offsets=offsets, time=time, **columns, **features)


if __name__ == "__main__":
    main()
