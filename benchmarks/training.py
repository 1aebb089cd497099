"""Training beside RecTools and RePlay: `python -m benchmarks.training [--quick] [--json] [--install]`.

A transformer of width 64 (two layers, two heads, dropout .2) on equal data for equal epochs, ours and the peers' in
turn, each in a process of its own: RecTools' SASRecModel and its flat network (fast_transformers), RePlay's SasRec; the
peers both as they come and with a tuned allocator. Full softmax, and on Amazon Beauty 256 negatives too. Ours once with
the peers' learning rate and number of steps, once with our own. Each user's last item is held out; NDCG@10 and HR@10
over the whole catalogue, seen items masked, come from the written lists by the same code. Rates count real targets, no
padding. What each column means: benchmarks/README.md.

The peers live in environments of their own under .bench, which --install makes; one that is not there does not run.
Amazon Beauty is read from DESIRELINE_DATA or `shared/data` beside the repository; without it only the made log runs.
Writes benchmarks/results/training.json.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from benchmarks.ingest import show
from benchmarks.interactions import SEED, beauty, beauty_file, ml1m_shape
from benchmarks.peers.pace import WARM
from benchmarks.record import RESULTS, ROOT, machine, measured, record

BENCH = ROOT / ".bench"
BATCH_USERS = 128  # RecTools' default
FEW_BATCH_USERS = 16  # in the quick form
TUNED = {"MALLOC_MMAP_THRESHOLD_": "8589934592", "MALLOC_TRIM_THRESHOLD_": "17179869184"}
TUNED_SUFFIX = ", tuned malloc"
OURS, OURS_OWN = "desireline", "desireline, own settings"
PEERS = {  # name: its environment under .bench, its driver, and further words to that
    "RecTools": ("rectools", "rectools_sasrec.py", []),
    "RecTools, flat": ("rectools", "rectools_flat.py", []),
    "RePlay": ("replay", "replay_sasrec.py", []),
    "RePlay, LogInCE": ("replay", "replay_sasrec.py", ["login"]),  # the full softmax at real places only
}
PACKAGES = {"rectools": ["rectools[torch]", "pyarrow<18"], "replay": ["replay-rec[torch]", "lightning", "pyarrow"]}
SHOWN = (
    *("log", "threads", "users a step", "loss", "model", "targets/s", "whole fit", "× stock", "× tuned"),
    *("peak MiB", "NDCG@10", "± SE", "users ranked/s", "users", "epochs", "load before"),
)


@dataclass(frozen=True)
class Log:
    """A log to train on. `users`: how many of them (None: all), in the full and in the quick form.

    negatives : by how many negatives it is learnt; 0: by the full softmax
    """

    made: Callable[[int | None], pl.DataFrame]
    length: int
    users: int | None
    few: int
    negatives: tuple[int, ...] = (0,)


LOGS = {
    "ML-1M's shape": Log(lambda users: ml1m_shape() if users is None else ml1m_shape(users), 200, None, 300),
    "Amazon Beauty": Log(beauty, 50, 4_000, 1_000, (0, 256)),  # they have 10,099 of its 12,101 items
}


def halves(table: pl.DataFrame, path: Path) -> pl.DataFrame:
    """Write all but each user's last event to `path`; returns the last ones."""
    last = pl.col("position") == pl.col("position").max().over("user")
    path.parent.mkdir(parents=True, exist_ok=True)
    table.filter(~last).write_parquet(path)
    return table.filter(last).select("user", "item")


def quality(lists: pl.DataFrame, truth: pl.DataFrame) -> dict[str, float]:
    """HR@10, NDCG@10 and its standard error of lists (user, item, rank from 1) against one item a user."""
    ids = [pl.col("user", "item").cast(pl.Int64)]
    rank = truth.with_columns(ids).join(lists.with_columns(ids), on=["user", "item"], how="left")["rank"]
    place = rank.cast(pl.Float64).fill_null(float("inf")).to_numpy()
    gain = 1 / np.log2(1 + place)  # one item is sought: the ideal gain is 1
    return {
        "NDCG@10": round(float(gain.mean()), 4),
        "± SE": round(float(gain.std(ddof=1)) / len(gain) ** 0.5, 4),
        "HR@10": round(float(np.isfinite(place).mean()), 4),
    }


def python_of(environment: str) -> Path:
    """The interpreter of a peer's environment."""
    return BENCH / environment / "bin" / "python"


def plans(
    arguments: list[str], targets_a_step: int, users_a_step: int, negatives: int
) -> dict[str, tuple[list[str], dict[str, str]]]:
    """Row name to command and environment; a step holds as many targets in ours as the peers' users have."""
    own = [sys.executable, "-m", "benchmarks.peers.own_transformer", *arguments]
    found: dict[str, tuple[list[str], dict[str, str]]] = {
        OURS: ([*own, str(targets_a_step), str(negatives)], {}),
        OURS_OWN: ([*own, "0", str(negatives)], {}),
    }
    for name, (environment, driver, more) in PEERS.items():
        if not python_of(environment).exists() or (more and negatives):
            continue
        script = [str(python_of(environment)), str(Path(__file__).parent / "peers" / driver)]
        words = [*script, *arguments, str(users_a_step), str(negatives), *more]
        found |= {name: (words, {}), name + TUNED_SUFFIX: (words, TUNED)}
    return found


def run(
    name: str,
    threads: int,
    epochs: int,
    users: int | None,
    batch_users: int,
    negatives: int,
    leave: Callable[[str], bool] = lambda model: False,
) -> list[dict[str, Any]]:
    """The rows of one log with one number of threads, one size of steps and one loss, in turn, but for models to leave
    out."""
    log = LOGS[name]
    source = BENCH / "training" / f"{name.split()[-1].lower()}.parquet"
    truth = halves(log.made(users), source)
    counts = pl.read_parquet(source).group_by("user").len()["len"]
    targets = int((counts.clip(upper_bound=log.length) - 1).sum())
    rows = []
    out = BENCH / "training" / "lists.parquet"
    arguments = [str(source), str(out), str(epochs), str(log.length)]
    for model, (words, environment) in plans(
        arguments, round(batch_users * targets / len(counts)), batch_users, negatives
    ).items():
        if leave(model):
            continue
        out.unlink(missing_ok=True)
        limits = {"OMP_NUM_THREADS": str(threads), "NUMBA_NUM_THREADS": str(threads)}
        load = os.getloadavg()[0]
        done = measured(words, limits | environment)
        told = json.loads(done["stdout"].strip().splitlines()[-1])
        if told["targets"] != targets * epochs:
            raise RuntimeError(f"{model} learnt {told['targets']} targets, not {targets} an epoch: the data differ")
        rows.append(
            {
                "log": name,
                "threads": threads,
                "users a step": batch_users,
                "loss": f"{negatives} negatives" if negatives else "full softmax",
                "model": model,
                "targets/s": round(told["steady"]),
                "whole fit": round(targets * epochs / told["fit_s"]),
                "whole fit, CPU": round(targets * epochs / told["fit_cpu_s"]),
                "× stock": None,
                "× tuned": None,
                "peak MiB": done["peak_mib"],
                **quality(pl.read_parquet(out), truth),
                "users ranked/s": round(len(counts) / told["rank_s"]),
                "users": len(counts),
                "epochs": epochs,
                "targets": targets,
                "parameters": told["parameters"],
                "fit s": round(told["fit_s"], 1),
                "load before": round(load, 1),
            }
        )
        sys.stderr.write(f"{json.dumps(rows[-1])}\n")
    for column, suffix in (("× stock", ""), ("× tuned", TUNED_SUFFIX)):
        best = max((row["targets/s"] for row in rows if row["model"] in {p + suffix for p in PEERS}), default=None)
        for row in rows if best else []:
            row[column] = round(row["targets/s"] / best, 1)
    return rows


def with_older(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows, and those recorded earlier of logs and numbers of threads that did not run now."""
    commit = machine()["commit"]
    rows = [row | {"commit": commit} for row in rows]
    path = RESULTS / "training.json"
    recorded = json.loads(path.read_text(encoding="utf-8"))["details"] if path.exists() else []
    older = [row for row in recorded if row.keys() >= set(SHOWN)]  # not those of an earlier form of the table

    def key(row: dict[str, Any]) -> tuple[int, int, int, bool]:
        return list(LOGS).index(row["log"]), row["threads"], -row["users a step"], row["loss"] != "full softmax"

    ran = set(map(key, rows))
    return sorted([*rows, *(row for row in older if key(row) not in ran)], key=key)


def install() -> None:
    """Make the peers' environments. torch goes in first: the resolver would take any newer release."""
    for environment, packages in PACKAGES.items():
        subprocess.run([sys.executable, "-m", "venv", str(BENCH / environment)], check=True)
        for names in (["torch==2.13.0"], packages):
            subprocess.run([str(python_of(environment)), "-m", "pip", "install", "-q", *names], check=True)


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="some users, one epoch, one thread, nothing recorded")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--install", action="store_true", help="make the peers' environments first")
    parser.add_argument("--logs", nargs="+", choices=list(LOGS), default=list(LOGS))
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument(
        "--batch-users", type=int, help=f"of the peers' step, {BATCH_USERS} else; ours holds as many targets"
    )
    parser.add_argument("--users", type=int, help="of each log, instead of what it is meant for")
    options = parser.parse_args()
    if options.install:
        install()
    for name, (environment, *_) in PEERS.items():
        if not python_of(environment).exists():
            sys.stderr.write(f"{name} is not installed beside us (--install does it): it does not run.\n")
    rows: list[dict[str, Any]] = []
    for name in options.logs:
        if name == "Amazon Beauty" and not beauty_file().exists():
            sys.stderr.write("Amazon Beauty is not there; DESIRELINE_DATA names the folder of data. Skipped.\n")
            continue
        log = LOGS[name]
        for threads in [1] if options.quick else options.threads:
            users = options.users or (log.few if options.quick else log.users)
            for negatives in log.negatives:
                epochs = 1 if options.quick else options.epochs
                batch_users = options.batch_users or (FEW_BATCH_USERS if options.quick else BATCH_USERS)
                rows += run(name, threads, epochs, users, batch_users, negatives)
    if not options.quick:
        rows = with_older(rows)
        notes = [
            f"Real targets a second, no padding counted, from step {WARM + 1} on: kernels are compiled and caches "
            "filled by then, on every side; `whole fit` counts that too. Each row a process of its own, in turn.",
            "Equal data, epochs and steps (`users a step` of the peers, ours as many targets; learning rate .001); "
            "`own settings`: our own defaults for both.",
            "`× stock`, `× tuned`: targets/s by those of the fastest peer, as it comes and with a tuned allocator.",
            "256 negatives: the same for a whole step in ours (corrected by logQ) and RePlay, others for each position "
            "in RecTools.",
            "Only what is named runs (--logs, --threads, --batch-users …); other rows stay as they were recorded.",
            "`load before`: processes that wanted a core just before the row; above 0 something else ran beside it.",
        ]
        found = {
            "title": "Training",
            "command": "python -m benchmarks.training --install",
            "seed": SEED,
            "rows": [{column: row[column] for column in SHOWN} for row in rows],
            "details": rows,
            "notes": notes,
        }
        record("training", found)
    show(rows if options.json else [{c: row[c] for c in SHOWN} for row in rows], options.json)


if __name__ == "__main__":
    main()
