"""Ingest beside a bare Polars scan, sort and write of the same file: `python -m benchmarks.ingest [--quick] [--json]`.

10 M events of a made-up clickstream (Parquet). Each step in a process of its own, the bare one and ours in turn; ours
validates, deduplicates by id and commits to the Delta table. Writes benchmarks/results/ingest.json.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks import clickstream
from benchmarks.record import ROOT, measured, record

BENCH = ROOT / ".bench" / "ingest"
BARE = """
import sys, polars as pl
pl.scan_parquet(sys.argv[1]).sort("user_id", "timestamp").collect().write_parquet(sys.argv[2], compression="zstd")
"""
OURS = """
import sys, desireline as dl
print(dl.open(sys.argv[1]).ingest(sys.argv[2]).to_json())
"""
START = """
import sys, desireline as dl
dl.open(sys.argv[1])
"""
ERASE = """
import sys, desireline as dl
print(dl.open(sys.argv[1]).store.delete_user(sys.argv[2]))
"""


def run(rows: int, rounds: int) -> list[dict[str, Any]]:
    """The table's rows: medians over the rounds, the ratio to the bare Polars of the same round."""
    source = clickstream.write(BENCH / f"clicks_{rows}.parquet", rows)
    names = ("bare Polars", "first ingest", "second ingest", "one user deleted", "start, part of each of ours")
    steps: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    for _ in range(rounds):
        shop = BENCH / "shop"
        shutil.rmtree(shop, ignore_errors=True)
        shop.mkdir(parents=True)
        (shop / "desireline.yaml").write_text(clickstream.SCHEMA)
        python = [sys.executable, "-c"]
        steps["bare Polars"].append(measured([*python, BARE, str(source), str(BENCH / "bare.parquet")]))
        steps["first ingest"].append(measured([*python, OURS, str(shop), str(source)]))
        steps["second ingest"].append(measured([*python, OURS, str(shop), str(source)]))
        steps["one user deleted"].append(measured([*python, ERASE, str(shop), "7"]))
        steps["start, part of each of ours"].append(measured([*python, START, str(shop)]))
    bare = [one["wall_s"] for one in steps["bare Polars"]]
    return [
        {
            "step": name,
            "events": rows,
            "seconds": round(statistics.median(one["wall_s"] for one in found), 2),
            "× bare Polars": round(statistics.median(one["wall_s"] / b for one, b in zip(found, bare, strict=True)), 2),
            "CPU seconds": round(statistics.median(one["cpu_s"] for one in found), 2),
            "peak MiB": max(one["peak_mib"] for one in found),
        }
        for name, found in steps.items()
    ]


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="1 M events, once, nothing recorded")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rows", type=int, default=10_000_000)
    options = parser.parse_args()
    rows = run(1_000_000 if options.quick else options.rows, 1 if options.quick else 3)
    if not options.quick:
        record(
            "ingest",
            {"title": "Ingest", "command": "python -m benchmarks.ingest", "seed": clickstream.SEED, "rows": rows},
        )
    show(rows, options.json)


def show(rows: list[dict[str, Any]], as_json: bool) -> None:
    """Print a table for people or machines."""
    if as_json:
        sys.stdout.write(json.dumps(rows) + "\n")
        return
    table = Table(*rows[0], box=None)
    for row in rows:
        table.add_row(*(f"{v:,}" if isinstance(v, (int, float)) else str(v) for v in row.values()))
    Console().print(table)


if __name__ == "__main__":
    main()
