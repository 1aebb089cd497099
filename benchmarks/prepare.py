"""Prepare beside pandas and NumPy offsets: `python -m benchmarks.prepare [--quick] [--full] [--json]`.

pandas does ids, order and five features (count, recency, purchase frequency, active days, mean gap) straight from the
Parquet file; ours does order, cleaning, sessions, all features, vocabularies and the ragged columns from the event
store. pandas is no dependency: where it is missing only ours runs. Writes benchmarks/results/prepare.json.
"""

from __future__ import annotations

import argparse
import importlib.util
import shutil
import sys
from typing import Any

from benchmarks import clickstream
from benchmarks.ingest import show
from benchmarks.record import ROOT, measured, record

BENCH = ROOT / ".bench" / "prepare"
PANDAS = """
import sys, numpy as np, pandas as pd
d = pd.read_parquet(sys.argv[1])
d["user"] = pd.factorize(d["user_id"])[0]
d["item"] = pd.factorize(d["item_id"])[0]
d["event"] = pd.factorize(d["event_type"])[0]
d = d.sort_values(["user", "timestamp"], kind="stable")
user, time = d["user"].to_numpy(), d["timestamp"].to_numpy()
offsets = np.concatenate([[0], np.flatnonzero(np.diff(user)) + 1, [len(user)]])
count = np.diff(offsets)
end = time.max()
recency = end - time[offsets[1:] - 1]
purchases = np.add.reduceat((d["event_type"] == "purchase").to_numpy().astype(np.int64), offsets[:-1])
frequency = purchases / np.maximum(1, time[offsets[1:] - 1] - time[offsets[:-1]])
day = time // 86_400
new = np.concatenate([[True], (np.diff(day) != 0) | (np.diff(user) != 0)])
days = np.add.reduceat(new.astype(np.int64), offsets[:-1])
gap = (time[offsets[1:] - 1] - time[offsets[:-1]]) / np.maximum(1, count - 1)
np.savez(sys.argv[2], offsets=offsets, item=d["item"].to_numpy(), event=d["event"].to_numpy(), time=time, count=count,
         recency=recency, frequency=frequency, days=days, gap=gap)
"""
INGEST = "import sys, desireline as dl; dl.open(sys.argv[1]).ingest(sys.argv[2])"
OURS = "import sys, desireline as dl; dl.open(sys.argv[1]).prepare(sys.argv[2])"
CUT = "2023-12-12"


def run(sizes: list[int]) -> list[dict[str, Any]]:
    """Both at each size, in turn."""
    rows = []
    for size in sizes:
        source = clickstream.write(BENCH / f"clicks_{size}.parquet", size)
        shop = BENCH / "shop"
        shutil.rmtree(shop, ignore_errors=True)
        shop.mkdir(parents=True)
        (shop / "desireline.yaml").write_text(clickstream.SCHEMA)
        python = [sys.executable, "-c"]
        measured([*python, INGEST, str(shop), str(source)])
        ours = measured([*python, OURS, str(shop), CUT])
        row = {"events": size, "desireline s": ours["wall_s"], "largest process MiB": ours["peak_mib"]}
        if importlib.util.find_spec("pandas"):
            bare = measured([*python, PANDAS, str(source), str(BENCH / "pandas.npz")])
            row |= {
                "pandas s": bare["wall_s"],
                "pandas MiB": bare["peak_mib"],
                "ratio": round(ours["wall_s"] / bare["wall_s"], 2),
            }
        rows.append(row)
    return rows


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="200 k events, nothing recorded")
    parser.add_argument("--full", action="store_true", help="50 M events too")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    sizes = [200_000] if options.quick else [1_000_000, 10_000_000] + ([50_000_000] if options.full else [])
    rows = run(sizes)
    if not options.quick:
        record(
            "prepare",
            {
                "title": "Prepare",
                "command": "python -m benchmarks.prepare --full",
                "seed": clickstream.SEED,
                "rows": rows,
            },
        )
    show(rows, options.json)


if __name__ == "__main__":
    main()
