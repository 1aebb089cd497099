"""Prepare beside pandas and NumPy offsets: `python -m benchmarks.prepare [--quick] [--full] [--json] [--install]`.

pandas does ids, order and five features (count, recency, purchase frequency, active days, mean gap) straight from a
Parquet file of made clicks; ours does order, cleaning, sessions, all features, vocabularies, the item table and the
ragged columns from the event store of the same clicks. Each in a process of its own, in turn; medians of three, of
50 M events (--full) one. pandas lives in an environment of its own, .bench/pandas, which --install makes; without it
only ours runs. What each column means: benchmarks/README.md. Writes benchmarks/results/prepare.json.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks import clickstream
from benchmarks.ingest import show
from benchmarks.record import ROOT, measured, record

BENCH = ROOT / ".bench" / "prepare"
PEER = ROOT / ".bench" / "pandas" / "bin" / "python"
INGEST = "import sys, desireline as dl; dl.open(sys.argv[1]).ingest(sys.argv[2])"
OURS = "import sys, desireline as dl; dl.open(sys.argv[1]).prepare(sys.argv[2])"
CUT = "2023-12-12"  # two days before the clicks end
LARGE = 50_000_000


def run(sizes: list[int], repeats: int) -> list[dict[str, Any]]:
    """A row a size: both, in turn."""
    rows: list[dict[str, Any]] = []
    for size in sizes:
        source = clickstream.write(BENCH / f"clicks_{size}.parquet", size)
        shop = BENCH / "shop"
        shutil.rmtree(shop, ignore_errors=True)
        shop.mkdir(parents=True)
        (shop / "desireline.yaml").write_text(clickstream.SCHEMA)
        python = [sys.executable, "-c"]
        measured([*python, INGEST, str(shop), str(source)])
        load = os.getloadavg()[0]
        ours, peer = [], []
        for _ in range(1 if size >= LARGE else repeats):
            shutil.rmtree(shop / "prepared", ignore_errors=True)  # else there is nothing to do
            ours.append(measured([*python, OURS, str(shop), CUT], whole_tree=True))
            if PEER.exists():
                script = Path(__file__).parent / "peers" / "pandas_offsets.py"
                words = [str(PEER), str(script), str(source), str(BENCH / "pandas.npz")]
                peer.append(measured(words, whole_tree=True))
        row: dict[str, Any] = {"events": size, **columns("desireline", ours, size)}
        if peer:
            row |= columns("pandas", peer, size)
            row["× pandas"] = round(row["desireline s"] / row["pandas s"], 2)
            row["× CPU"] = round(row["desireline CPU s"] / row["pandas CPU s"], 2)
        rows.append(row | {"load before": round(load, 1)})
        sys.stderr.write(f"{rows[-1]}\n")
        shutil.rmtree(shop)
    return rows


def columns(name: str, found: list[dict[str, Any]], events: int) -> dict[str, Any]:
    """One side's figures: median seconds, peak memory of all processes together."""
    seconds = statistics.median(one["wall_s"] for one in found)
    return {
        f"{name} s": round(seconds, 2),
        f"{name} CPU s": round(statistics.median(one["cpu_s"] for one in found), 2),
        f"{name} s/M": round(seconds / (events / 1e6), 2),
        f"{name} MiB": max(one["tree_mib"] for one in found),
    }


def install() -> None:
    """Make the peer's environment."""
    subprocess.run([sys.executable, "-m", "venv", str(PEER.parents[1])], check=True)
    subprocess.run([str(PEER), "-m", "pip", "install", "-q", "pandas", "pyarrow"], check=True)


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="200 k events, once, nothing recorded")
    parser.add_argument("--full", action="store_true", help="50 M events too")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--install", action="store_true", help="make the peer's environment first")
    options = parser.parse_args()
    if options.install:
        install()
    if not PEER.exists():
        sys.stderr.write("pandas is not installed beside us (--install does it): only ours runs.\n")
    sizes = [200_000] if options.quick else [1_000_000, 10_000_000] + ([LARGE] if options.full else [])
    rows = run(sizes, 1 if options.quick else 3)
    if not options.quick:
        notes = [
            "Memory: all processes together; ours maps the columns that it writes, and mapped pages count.",
            "`load before`: processes that wanted a core just before; above 0 something else ran beside it.",
        ]
        command = "python -m benchmarks.prepare --full --install"
        found = {"title": "Prepare", "command": command, "seed": clickstream.SEED, "rows": rows, "notes": notes}
        record("prepare", found)
    show(rows, options.json)


if __name__ == "__main__":
    main()
