"""Training beside RecTools: `python -m benchmarks.training [--quick] [--json] [--install]`.

Transformer of width 64, two layers, two heads, dropout .2, full softmax, one thread, equal data, epochs and steps, in
turn in one run; RecTools both as it comes and with a tuned allocator. NDCG@10 and HR@10 of the held-out last items are
computed by the same code from both lists. The log has the shape of ML-1M (6,040 users, mean length 163, 3,416 items;
--users takes fewer) and is made here, with tastes and transitions to learn. RecTools lives in an environment of its
own, .bench/rectools, which --install makes; without it only ours runs. Writes benchmarks/results/training.json.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from benchmarks.ingest import show
from benchmarks.record import ROOT, measured, record

BENCH = ROOT / ".bench"
PEER = BENCH / "rectools" / "bin" / "python"
SEED = 11
USERS, ITEMS, MEAN, LENGTH, BATCH_USERS = 6_040, 3_416, 163, 200, 128
TUNED = {"MALLOC_MMAP_THRESHOLD_": "8589934592", "MALLOC_TRIM_THRESHOLD_": "17179869184"}


def made(users: int, folder: Path) -> tuple[Path, pl.DataFrame, int]:
    """A log to train on, the held-out last item of each user, and the number of training targets."""
    rng = np.random.default_rng(SEED)
    groups = rng.integers(0, 40, ITEMS)
    popularity = rng.zipf(1.6, ITEMS).astype(float).clip(max=300)
    follows = rng.integers(0, ITEMS, (ITEMS, 3))
    of_group = [np.flatnonzero(groups == g) for g in range(40)]
    share = [popularity[g] / popularity[g].sum() for g in of_group]
    rows = []
    for user in range(users):
        length = int(np.clip(rng.lognormal(np.log(MEAN) - 0.35, 0.85), 20, 1_000))
        tastes = rng.integers(0, 40, 3)
        item, seen = -1, set()
        for position in range(length):
            for _ in range(20):
                if item >= 0 and rng.random() < 0.4:
                    new = int(follows[item, rng.integers(0, 3)])
                else:
                    taste = int(tastes[rng.integers(0, 3)])
                    new = int(rng.choice(of_group[taste], p=share[taste]))
                if new not in seen:
                    break
            item = new
            seen.add(item)
            rows.append((user, position, item))
    table = pl.DataFrame(rows, schema=["user", "position", "item"], orient="row")
    last = pl.col("position") == pl.col("position").max().over("user")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"ml1m_shape_{users}.parquet"
    kept = table.filter(~last)
    kept.write_parquet(path)
    return path, table.filter(last).select("user", "item"), kept.height - users


def quality(lists: Path, truth: pl.DataFrame) -> dict[str, float]:
    """HR@10 and NDCG@10 of written lists against the held-out items."""
    found = pl.read_parquet(lists).select(user="user_id", item="item_id", rank="rank")
    hits = truth.cast(pl.Int64).join(found.cast(pl.Int64), on=["user", "item"], how="left")["rank"]
    gain = hits.map_elements(lambda rank: 1 / np.log2(1 + rank), return_dtype=pl.Float64).fill_null(0)
    return {"HR@10": round(float(hits.is_not_null().mean() or 0), 4), "NDCG@10": round(float(gain.mean() or 0), 4)}


def run(users: int, epochs: int) -> list[dict[str, Any]]:
    """The rows, each in a process of its own, in turn."""
    source, truth, targets = made(users, BENCH / "training")
    here = Path(__file__).parent / "peers"
    batch = round(BATCH_USERS * targets / users)  # as many targets a step as the peer has
    plans: dict[str, tuple[list[str], dict[str, str]]] = {
        "desireline": ([sys.executable, "-m", "benchmarks.peers.own_transformer"], {})
    }
    if PEER.exists():
        script = [str(PEER), str(here / "rectools_sasrec.py")]
        plans |= {"RecTools": (script, {}), "RecTools, tuned malloc": (script, TUNED)}
    rows = []
    for name, (words, environment) in plans.items():
        out = BENCH / "training" / "lists.parquet"
        size = batch if name == "desireline" else BATCH_USERS
        arguments = [str(source), str(out), str(epochs), str(LENGTH), str(size)]
        done = measured([*words, *arguments], {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"} | environment)
        told = json.loads(done["stdout"].strip().splitlines()[-1])
        rows.append(
            {
                "model": name,
                "targets/s": round(targets * epochs / told["fit_s"]),
                "users ranked/s": round(users / told["rank_s"]),
                "peak MiB": done["peak_mib"],
                **quality(out, truth),
            }
        )
    best = max((row["targets/s"] for row in rows[1:]), default=0)
    if best:
        rows[0]["× the better peer"] = round(rows[0]["targets/s"] / best, 1)
        for row in rows[1:]:
            row["× the better peer"] = round(row["targets/s"] / best, 1)
    return rows


def install() -> None:
    """Make the peer's environment."""
    subprocess.run([sys.executable, "-m", "venv", str(BENCH / "rectools")], check=True)
    pip = [str(PEER), "-m", "pip", "install", "-q"]
    subprocess.run([*pip, "torch==2.13.0"], check=True)
    subprocess.run([*pip, "rectools[torch]", "pyarrow<18"], check=True)


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="300 users, one epoch, nothing recorded")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--install", action="store_true", help="make the peer's environment first")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--users", type=int, default=USERS)
    options = parser.parse_args()
    if options.install:
        install()
    if not PEER.exists():
        sys.stderr.write("RecTools is not installed beside us (--install does it): only ours runs.\n")
    rows = run(300, 1) if options.quick else run(options.users, options.epochs)
    if not options.quick:
        found = {"title": "Training", "command": "python -m benchmarks.training --install", "seed": SEED, "rows": rows}
        record(
            "training",
            found | {"notes": [f"{options.users:,} users, {options.epochs} epochs, one thread, equal steps."]},
        )
    show(rows, options.json)


if __name__ == "__main__":
    main()
