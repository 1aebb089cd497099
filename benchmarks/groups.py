"""Groups that act together: `python -m benchmarks.groups [--quick] [--json]`.

A made-up graph of a million distinct (account, target) pairs with heavy tails on both sides, spread over 30 days in
sessions, with planted rings of two kinds: slow ones (20 accounts, 4 cold targets, whenever) and tight ones (the same
within five minutes), all with ten ordinary pairs an account. What each part of `find_groups` takes, and how much of the
rings it finds. Kernels are compiled before the clock starts. Writes benchmarks/results/groups.json.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from benchmarks.ingest import show
from benchmarks.record import record
from desireline.tasks.anomaly import groups
from desireline.tasks.anomaly.actions import COLUMNS, Actions

PAIRS, ACCOUNTS, TARGETS = 1_000_000, 100_000, 50_000
FEW = 20  # times fewer with --quick
RINGS, MEMBERS, SHARED, CAMOUFLAGE = 5, 20, 4, 10  # of each kind
BEGIN, DAYS, SEED = datetime(2025, 5, 1, tzinfo=UTC), 30, 7
SECONDS = DAYS * 86_400


def made(pairs: int, accounts: int, targets: int) -> tuple[Actions, list[NDArray[np.int64]]]:
    """The log, and the members of each ring, slow ones first."""
    rng = np.random.default_rng(SEED)
    share = 1 / (10 + np.arange(targets)) ** 0.8
    busy = rng.pareto(1.5, accounts) + 0.3
    drawn = int(pairs * 1.15)
    account = rng.choice(accounts, drawn, p=busy / busy.sum())
    target = rng.choice(targets, drawn, p=share / share.sum())
    once = np.unique(account * np.int64(targets) + target)
    once = np.sort(rng.choice(once, min(pairs, len(once)), replace=False))
    account, target = once // targets, once % targets
    begun = rng.integers(0, SECONDS - 3600, (accounts, 8))  # eight sessions an account
    second = begun[account, rng.integers(0, 8, len(account))] + rng.integers(0, 1500, len(account))
    parts, members = [(account, target, second)], []
    for ring in range(2 * RINGS):
        mine = accounts + ring * MEMBERS + np.arange(MEMBERS)
        cold = rng.choice(np.arange(targets // 2, targets), SHARED, replace=False)
        at = rng.integers(0, SECONDS - 600, SHARED)
        spread = (
            rng.integers(0, SECONDS, (MEMBERS, SHARED)) if ring < RINGS else at + rng.integers(0, 240, (MEMBERS, 1))
        )
        parts.append((np.repeat(mine, SHARED), np.tile(cold, MEMBERS), spread.ravel()))
        usual = rng.choice(targets, MEMBERS * CAMOUFLAGE, p=share / share.sum())
        parts.append((np.repeat(mine, CAMOUFLAGE), usual, rng.integers(0, SECONDS, len(usual))))
        members.append(mine)
    account, target, second = (np.concatenate([part[n] for part in parts]) for n in range(3))
    frame = pl.DataFrame({"account": account, "target": target, "second": second}).sort("account", "second")
    blank = {name: pl.lit(None, kind).alias(name) for name, kind in COLUMNS.items()}
    events = frame.select(
        **blank
        | {
            "account": pl.col("account").cast(pl.UInt32),
            "item": pl.col("target").cast(pl.UInt32),
            "target": pl.col("target").cast(pl.UInt32),
            "time": (pl.lit(BEGIN) + pl.duration(seconds="second")).cast(COLUMNS["time"]),
            "type": pl.lit(0, pl.UInt16),
            "order": pl.lit(True),
            "returned": pl.lit(False),
            "review": pl.lit(False),
            "event_id": pl.int_range(pl.len(), dtype=pl.Int64),
            "inside": pl.lit(True),
        }
    )
    users = pl.Series([f"a{n}" for n in range(accounts + 2 * RINGS * MEMBERS)])
    items = pl.Series([f"t{n}" for n in range(targets)])
    end = BEGIN + timedelta(days=DAYS)
    return Actions(events, users, items, items, ["buy"], BEGIN, end, 1_000_000), members


def timed(name: str, call: Callable[[], Any]) -> tuple[dict[str, Any], Any]:
    """A row with the seconds of a call, by the clock and of both cores; what it returned."""
    begun, used = time.perf_counter(), time.process_time()
    result = call()
    wall, cpu = time.perf_counter() - begun, time.process_time() - used
    return {"part": name, "s": round(wall, 2), "cpu s": round(cpu, 2)}, result


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="50,000 pairs, nothing recorded")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    size = (PAIRS, ACCOUNTS, TARGETS)
    groups.find_groups(made(*(n // FEW for n in size))[0])
    actions, members = made(*(n // FEW for n in size)) if options.quick else made(*size)
    judged = actions.judged
    habits = groups._habits(actions, judged)
    parts = [
        ("dense blocks", lambda: groups._blocks(actions, judged, habits, "events", 0)),
        ("lock-step", lambda: groups._rings(actions, judged, "events", 0)),
        ("coattails", lambda: groups._coattails(actions, judged)),
        ("find_groups, whole", lambda: groups.find_groups(actions)),
    ]
    rows, found = [], []
    for name, call in parts:
        row, found = timed(name, call)
        rows.append({**row, "events": judged.height, "groups": len(found)})
        sys.stderr.write(f"{rows[-1]}\n")
    told = np.unique(np.concatenate([group.accounts for group in found])) if found else np.empty(0, np.int64)
    for kind, rings in (("slow rings", members[:RINGS]), ("tight rings", members[RINGS:])):
        planted = np.concatenate(rings)
        recall = round(len(np.intersect1d(planted, told)) / len(planted), 3)
        rows.append({"part": kind, "members": len(planted), "recall": recall})
    precision = len(np.intersect1d(np.concatenate(members), told)) / max(len(told), 1)
    rows.append({"part": "all told", "members": len(told), "precision": round(precision, 3)})
    columns = list(dict.fromkeys(key for row in rows for key in row))
    rows = [{key: row.get(key, "") for key in columns} for row in rows]
    show(rows, options.json)
    if not options.quick:
        notes = [
            f"{RINGS} rings of each kind: {MEMBERS} accounts, {SHARED} cold targets, {CAMOUFLAGE} ordinary pairs each.",
            "Compiled before; the last of the parts does all of them once more.",
        ]
        title = "Groups that act together"
        record("groups", {"title": title, "command": "python -m benchmarks.groups", "rows": rows, "notes": notes})


if __name__ == "__main__":
    main()
