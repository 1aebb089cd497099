"""Ten million events judged: `python -m benchmarks.anomaly_speed [--quick] [--json]`.

Twelve copies of Online Retail II, each with customers and invoices of its own and seven minutes later than the one
before, are ingested; a gru of width 64 learns one epoch of what lies before the default cut; then `predict --all` is
timed in a process of its own: measures, groups, surprise and the reasons of all who stand out. Writes
benchmarks/results/anomaly-speed.json.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import polars as pl

from benchmarks.ingest import show
from benchmarks.record import ROOT, measured, record
from desireline.data import online_retail_ii
from desireline.workspace import Workspace, init_workspace

BENCH = ROOT / ".bench" / "anomaly-speed"
COPIES = 12
NETWORK = {"d_model": "64", "layers": "1"}
PREDICT = """
import sys
from desireline.workspace import open_workspace
if __name__ == "__main__":
    open_workspace(sys.argv[1]).predict_all("anomaly", sys.argv[2])
"""


def shop(folder: Path, copies: int) -> Workspace:
    """A workspace of so many copies of the shop."""
    rows = pl.read_parquet(online_retail_ii()).filter(pl.col("customer_id").is_not_null())
    named = (pl.col("customer_id").cast(pl.String), pl.col("invoice").cast(pl.String))
    parts = [
        rows.with_columns(
            *(name + f"-{copy}" for name in named), pl.col("invoice_date") + pl.duration(minutes=7 * copy)
        )
        for copy in range(copies)
    ]
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    pl.concat(parts).write_parquet(folder / "log.parquet")
    workspace, _ = init_workspace(folder / "shop", source=folder / "log.parquet")
    workspace.ingest(folder / "log.parquet")
    return workspace


def run(copies: int) -> dict[str, Any]:
    """Fit, then the time and memory of all answers."""
    workspace = shop(BENCH, copies).with_settings(NETWORK)
    begun = time.perf_counter()
    workspace.fit("anomaly", "gru", epochs=1)
    fitted = time.perf_counter() - begun
    done = measured([sys.executable, "-c", PREDICT, str(workspace.folder), str(BENCH / "scores.parquet")])
    events, answers = workspace.store.count(), pl.read_parquet(BENCH / "scores.parquet")
    return {
        "events": events,
        "accounts": answers.height,
        "judged": int(answers["kind"].is_not_null().sum()),
        "fit s": round(fitted, 1),
        "all answers s": done["wall_s"],
        "CPU s": done["cpu_s"],
        "events/s": round(events / done["wall_s"]),
        "peak MiB": done["peak_mib"],
    }


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one copy; nothing recorded")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rows = [run(1 if options.quick else COPIES)]
    if not options.quick:
        notes = [
            "All answers: one process, from the log on disk to the file of scores, reasons included.",
            "Judged are the accounts active in the window after the cut; the rest of the log is their past.",
        ]
        title = "Ten million events judged"
        record(
            "anomaly-speed",
            {"title": title, "command": "python -m benchmarks.anomaly_speed", "rows": rows, "notes": notes},
        )
    show(rows, options.json)


if __name__ == "__main__":
    main()
