"""Lists for everybody: `python -m benchmarks.answers [ROW...] [--quick] [--json]`.

A made-up log of 100,000 users and 100,000 items, 20 events a user, is ingested; then for each kind of model, in a
process of its own: what `desireline predict --task recommend --all --k 10` takes for all users against the whole
catalogue, and one user's answer. Figures are of speed and memory alone: the log has nothing to learn. Of rows that are
not named the last figures are kept. Writes benchmarks/results/answers.json.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from benchmarks.ingest import show
from benchmarks.record import RESULTS, machine, measured, record

USERS, ITEMS, EVENTS = 100_000, 100_000, 20
FEW_USERS, FEW_ITEMS = 2_000, 2_000
SEED = 7
SETTINGS = {"d_model": "64", "layers": "1", "epochs": "1", "dropout": "0", "items": "random"}
ROWS = ("recent-popularity", "own-frequency", "item-knn", "tifu-knn", "gru", "blend", "ranker")
SOURCES = {
    "blend": ("item-knn", "gru"),
    "ranker": ("gru", "item-knn", "own-frequency", "tifu-knn", "recent-popularity"),
}
TREES, TAUGHT = 200, 6_000  # of the ranker, and the questions that it learns from
ASKED_ALONE = 20


def log(path: Path, users: int, items: int) -> Path:
    """Write the log: every item is had at least once in expectation, popularity falls as 1 / (10 + rank)."""
    rng = np.random.default_rng(SEED)
    share = 1 / (10 + np.arange(items))
    rows = users * EVENTS
    popular = rng.choice(items, rows, p=share / share.sum())
    table = pl.DataFrame(
        {
            "user_id": np.repeat(np.arange(users), EVENTS),
            "item_id": np.where(rng.random(rows) < 0.5, rng.integers(0, items, rows), popular),
            "event_type": pl.Series(["view"]).new_from_index(0, rows),
            "timestamp": 1_700_000_000 + rng.integers(0, 90 * 86_400, rows),
        }
    )
    table.write_parquet(path)
    return path


def fit(folder: Path, row: str) -> dict[str, Any]:
    """Fit one row on the whole log and save it; returns its id and the seconds."""
    from desireline.selection.deploy import deploy
    from desireline.selection.fit import fitted_again, train_network
    from desireline.selection.fitted import Fitted, Panel, Source, describe, load, save
    from desireline.selection.neighbours import neighbours_settled
    from desireline.selection.panel import fitted_panel, lesson_of
    from desireline.sequences.prepared import prepare
    from desireline.tasks import TASKS
    from desireline.tasks.judges import Blend, Judge
    from desireline.tasks.questions import training_histories
    from desireline.tasks.ranker import Ranker, Trends, trained
    from desireline.tasks.stages import stages, whole_log
    from desireline.workspace import open_workspace

    workspace = open_workspace(folder).with_settings(SETTINGS)
    schema, task = workspace.schema, TASKS["recommend"]
    stage = whole_log(prepare(folder, schema, workspace.store.span()[1] + timedelta(microseconds=1)), masks_seen=False)
    begun = time.perf_counter()
    if row in SOURCES:
        ids = json.loads((folder / "ids.json").read_text(encoding="utf-8"))
        sources = [Source(name, [load(folder, schema, ids[name])]) for name in SOURCES[row]]
        judge: Judge = Blend(np.ones(len(sources), np.float32))
        if row == "ranker":
            asked = stages(folder, schema, "leave-one-out", stage.prepared.cut)[1]
            _, _, lesson = lesson_of(task, sources, asked, schema, SEED, TAUGHT)
            counted = training_histories(stage.train, stage.from_us)
            trends = Trends.of(counted, len(stage.prepared.vocabularies["item"]), stage.from_us)
            judge = Ranker([trained(lesson, TREES, SEED)], trends, only_new=False)
        fitted = fitted_panel(task, Panel(sources, judge), stage, schema, "none", SEED)
    elif row == "gru":
        schema = neighbours_settled(schema, task, stage)
        network, _, _ = train_network(task, row, schema, stage, SEED, planned=1, stop_after=1, checkpoints=None)
        info = describe(
            task,
            row,
            "model",
            stage.prepared,
            schema,
            SEED,
            {},
            encoder_name=row,
            epochs=1,
            planned=1,
            frozen=False,
            protocol="none",
        )
        fitted = Fitted(task, row, stage.prepared, network.eval(), info)
    else:
        constants = task.baselines(stage.prepared, schema)[row][0]
        info = {"name": row, "kind": "baseline", "constants": constants, "protocol": "none"}
        fitted = fitted_again(task, info, schema, stage, None)
    save(fitted, folder / "models")
    deploy(folder, fitted, None)
    return {"id": fitted.id, "fit s": round(time.perf_counter() - begun, 1)}


def alone(folder: Path) -> dict[str, Any]:
    """Milliseconds of one user's answer by the Python API, the model loaded: the median of some users."""
    from desireline.selection.fitted import load
    from desireline.selection.predict import answer
    from desireline.tasks.answers import Wishes
    from desireline.workspace import open_workspace

    workspace = open_workspace(folder)
    current = json.loads((folder / "models" / "current.json").read_text(encoding="utf-8"))["recommend"]["evaluated"]
    fitted, at = load(folder, workspace.schema, current), workspace.store.span()[1] + timedelta(microseconds=1)
    taken = []
    for user in range(ASKED_ALONE):
        events = workspace.store.users_events(str(user))
        begun = time.perf_counter()
        answer(fitted, events, str(user), at, Wishes(k=10))
        taken.append(time.perf_counter() - begun)
    return {"ms an answer": round(1000 * float(np.median(taken)), 1)}


def told(function: str, *words: str) -> dict[str, Any]:
    """Call one of the functions above in a process of its own; what it returned, and its peak memory."""
    code = (
        f"import sys, json, pathlib; from benchmarks.answers import {function}; "
        f"print(json.dumps({function}(pathlib.Path(sys.argv[1]), *sys.argv[2:])))"
    )
    done = measured([sys.executable, "-c", code, *words])
    return json.loads(done["stdout"].strip().splitlines()[-1]) | {"peak MiB": done["peak_mib"]}


def recorded() -> list[dict[str, Any]]:
    """The rows of the last run, each with the commit that it was measured at."""
    path = RESULTS / "answers.json"
    if not path.exists():
        return []
    last = json.loads(path.read_text(encoding="utf-8"))
    return [{**row, "commit": row.get("commit", last["machine"]["commit"])} for row in last["rows"]]


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="*", choices=[*ROWS, []], help="default: all")
    parser.add_argument("--quick", action="store_true", help="2,000 users and items, nothing recorded")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    users, items = (FEW_USERS, FEW_ITEMS) if options.quick else (USERS, ITEMS)
    named = options.rows or ROWS
    folder, here = Path(tempfile.mkdtemp(prefix="answers-")), machine()
    rows, ids = [], {}
    try:
        source = log(folder / "log.parquet", users, items)
        command = [sys.executable, "-c", "from desireline.cli.app import main; main()"]
        shop = folder / "shop"
        subprocess.run([*command, "init", str(shop), "--from", str(source)], check=True, capture_output=True)
        subprocess.run([*command, "ingest", str(shop), str(source)], check=True, capture_output=True)
        for name in ROWS:
            if name not in named and not any(name in SOURCES.get(row, ()) for row in named):
                rows += [row for row in recorded() if row["row"] == name]
                continue
            made = told("fit", str(shop), name)
            ids[name] = made["id"]
            (shop / "ids.json").write_text(json.dumps(ids), encoding="utf-8")
            if name not in named:
                rows += [row for row in recorded() if row["row"] == name]
                continue
            out = folder / f"{name}.parquet"
            done = measured(
                [*command, "predict", str(shop), "--task", "recommend", "--all", "--out", str(out), "--k", "10"]
            )
            assert pl.scan_parquet(out).select(pl.len()).collect().item() == users * 10, f"{name} left lists short"
            rows.append(
                {
                    "row": name,
                    "users": users,
                    "items": items,
                    "fit s": made["fit s"],
                    "all s": done["wall_s"],
                    "users/s": round(users / done["wall_s"]),
                    "peak MiB": done["peak_mib"],
                    "file MiB": round(out.stat().st_size / 2**20, 1),
                    **{key: value for key, value in told("alone", str(shop)).items() if key != "peak MiB"},
                    "commit": here["commit"],
                }
            )
            sys.stderr.write(f"{rows[-1]}\n")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    show(rows, options.json)
    if not options.quick:
        notes = [
            "`all s`: the whole command `predict --all`, its start included; `peak MiB`: of its process.",
            "`ms an answer`: one user's list with reasons, the model loaded, the user's events read before.",
            f"gru: width {SETTINGS['d_model']}, one epoch; blend: of {' and '.join(SOURCES['blend'])}, equal weights.",
            f"ranker: {TREES} trees over {', '.join(SOURCES['ranker'])}.",
        ]
        record(
            "answers",
            {"title": "Lists for everybody", "command": "python -m benchmarks.answers", "rows": rows, "notes": notes},
        )


if __name__ == "__main__":
    main()
