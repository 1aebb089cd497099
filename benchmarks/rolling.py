"""Rolling cuts: a customer's next shopping day, asked once as of each of several cuts through a year.

    python -m benchmarks.rolling [--quick] [--json] [--cuts DATE...]

Online Retail II (carried by the package). At each cut every baseline, a small transformer (that of `desireline demo`,
one seed) and both panels are fitted as under temporal/1: constants are chosen on the validation before the cut, then
all learn from everything before it. Only what is asked differs, on purpose: it is what a shop asks that writes to all
customers on one day, and what the prototype's figures were measured by.

Asked is every customer with an event before the cut who buys within 30 days from it; read is what lies before the cut;
sought are the distinct items of the first day (UTC) with a purchase. Items unknown before the cut are as under
temporal/1: those of a day are together one target, which nobody can hit and which is new to the customer. `NDCG@10 new`
masks what the customer had, seeks the rest, and leaves out whom nothing new came to.

Each cut runs in a process of its own. Without --cuts those of the four run that are not recorded under this commit yet;
cuts that do not run stay as they were recorded. Writes benchmarks/results/rolling.json.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from benchmarks.ingest import show
from benchmarks.record import RESULTS, ROOT, machine, measured, record
from desireline.data import online_retail_ii
from desireline.schema.model import Schema
from desireline.schema.moment import parse_moment
from desireline.selection.compare import choose
from desireline.selection.fit import Job, Run, network_row, run_baseline, run_jobs, run_seed
from desireline.selection.neighbours import neighbours_settled
from desireline.selection.panel import panels
from desireline.sequences.prepared import iso
from desireline.tasks.answers import asked_now
from desireline.tasks.questions import DAY_US, ItemQuestions, item_questions
from desireline.tasks.recommend import Recommend
from desireline.tasks.stages import Stage, stages
from desireline.workspace import init_workspace, open_workspace

CUTS = ("2011-06-01", "2011-08-01", "2011-09-01", "2011-10-01")
DAYS = 30  # within which a shopping day is sought
SEED = 0
ENCODER = "transformer"
SETTINGS = {"d_model": "32", "layers": "1", "length": "50", "epochs": "2", "batch_targets": "1024"}  # the demo's
METRICS = ("NDCG@10", "NDCG@10 new")
ONE_CUT = "import sys; from benchmarks.rolling import tell; tell(*sys.argv[1:])"
NOTES = (
    "Asked once a customer, as of the cut: which items come on the first day with a purchase within 30 days? All rows "
    "are fitted as under temporal/1; the transformer has one seed. Intervals: 95 %, by bootstrap over customers.",
    "Beside, from the prototype at 2011-06-01, NDCG@10 of all items and of new ones: a LightGBM ranker .352 and "
    ".140, own-frequency .309 (decay of 90 days) to .319 (365), EASE .211 and .073, popularity .085 and .032.",
    "`seconds`: to choose constants on validation, to fit, and to ask both stages; a panel's hold those of its sources "
    "and of the earlier cuts it learns from. `ms a question`: scores of the whole catalogue, all customers at once.",
    "Only what is named (--cuts), or not recorded under the commit yet, runs; each cut says where it was measured. "
    "`load before`: processes that wanted a core just before; above 0 something else ran beside it.",
)


def within(stage: Stage, days: int) -> Stage:
    """The stage, asked only about so many days from its cut on."""
    return replace(stage, asked=stage.asked & (stage.timeline["time"] < stage.from_us + days * DAY_US))


def next_days(stage: Stage) -> ItemQuestions:
    """One question a customer with a history, as of the cut: what comes on the first day that holds a target?"""
    visits = item_questions(stage, "day")  # a customer's in order of time, each asked as of itself
    now = asked_now(stage.timeline, stage.from_us)
    users, first = np.unique(visits.user, return_index=True)
    asked = visits.part(first[np.isin(users, now.user)])
    place = now.place[np.searchsorted(now.user, asked.user)]
    return replace(asked, place=place, as_of=np.full(len(asked), stage.from_us, np.int64))


def at_cut(folder: Path, schema: Schema, at: datetime, encoders: Sequence[str]) -> dict[str, Any]:
    """All rows at one cut, and which of them `compare` would choose on the validation."""
    task = Recommend()
    validation, test = stages(folder, schema, "temporal", at)
    schema = neighbours_settled(schema, task, validation)
    both = validation, within(test, DAYS)
    questions = task.questions(both[0], schema), task.questions(both[1], schema)
    runs = [
        run_baseline(task, n, grid, schema, both, questions)
        for n, grid in task.baselines(test.prepared, schema).items()
    ]
    jobs = [Job(folder, schema, task.name, "temporal", at, encoder, SEED) for encoder in encoders]
    runs += [network_row([done], both, schema) for done in run_jobs(jobs, run_seed)]
    runs += panels(task, runs, both, folder, schema, SEED)
    asked = next_days(both[1])
    return {
        "validation from": iso(validation.prepared.cut),
        "items": len(test.prepared.vocabularies["item"]),
        "chosen": choose(task, runs, both, schema, SEED)[0].name,
        "rows": [asked_row(one, task, asked, schema) for one in runs],
    }


def asked_row(one: Run, task: Recommend, asked: ItemQuestions, schema: Schema) -> dict[str, Any]:
    """What a fitted row answers, and what it costs."""
    begun = time.perf_counter()
    chunks = list(one.fitted.predictions(asked))
    spent = time.perf_counter() - begun
    given = task.measure(iter(chunks), asked, schema, masks_seen=False)
    found = task.metrics(given, schema.evaluate.bootstrap, SEED)
    defined = {name: int(np.isfinite(given.values[name]).sum()) for name in METRICS}
    return {
        "name": one.name,
        "kind": one.kind,
        "metrics": {name: asdict(found[name]) | {"customers": defined[name]} for name in METRICS},
        "seconds": round(one.seconds, 1),
        "ms a question": round(1000 * spent / len(asked), 3),
        "parameters": one.parameters,
        "settings": one.constants,
    }


def tell(folder: str, cut: str, *encoders: str) -> None:
    """One cut's rows to stdout, as JSON: what the process of a cut runs."""
    workspace = open_workspace(folder).with_settings(SETTINGS)
    sys.stdout.write(json.dumps(at_cut(workspace.folder, workspace.schema, parse_moment(cut), encoders)))


def shop(quick: bool) -> Path:
    """A workspace with the log, or for a quick look with every tenth customer's part of it."""
    folder = ROOT / ".bench" / "rolling"
    shutil.rmtree(folder, ignore_errors=True)
    source = online_retail_ii()
    if quick:
        tenth = pl.col("customer_id").cast(pl.Int64, strict=False) % 10 == 0
        folder.mkdir(parents=True)
        pl.read_parquet(source).filter(tenth).write_parquet(folder / "tenth.parquet")
        source = folder / "tenth.parquet"
    workspace, _ = init_workspace(folder, source=source)
    workspace.ingest(source)
    return folder


def lines(cut: str, found: dict[str, Any]) -> list[dict[str, Any]]:
    """A cut's rows for the screen, the best first."""
    rows = sorted(found["rows"], key=lambda row: -row["metrics"][METRICS[0]]["value"])
    return [
        {
            "cut": cut,
            "row": row["name"],
            **{name: round(row["metrics"][name]["value"], 4) for name in METRICS},
            "seconds": row["seconds"],
            "ms a question": row["ms a question"],
        }
        for row in rows
    ]


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--quick", action="store_true", help="one cut, a tenth of the customers, no network, nothing recorded"
    )
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--cuts", nargs="+", type=date.fromisoformat, metavar="DATE", help="as 2011-06-01")
    options = parser.parse_args()
    path, begun = RESULTS / "rolling.json", machine()  # before the run: the commit may move on while it lasts
    cuts: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))["cuts"] if path.exists() else {}
    named = [f"{cut}" for cut in options.cuts or ()]
    wanted = named or [c for c in CUTS if c not in cuts or cuts[c]["machine"]["commit"] != begun["commit"]]
    if options.quick:
        wanted = named[:1] or [CUTS[0]]
    if not wanted:
        sys.exit("Every cut is recorded under this commit; --cuts runs one again.")
    rows: list[dict[str, Any]] = []
    folder = shop(options.quick)
    for cut in wanted:
        load = round(os.getloadavg()[0], 1)
        done = measured([sys.executable, "-c", ONE_CUT, str(folder), cut, *([] if options.quick else [ENCODER])])
        cost = {key: done[key] for key in ("wall_s", "cpu_s", "peak_mib")}
        found = {"machine": begun, "load before": load, **cost, **json.loads(done["stdout"])}
        rows += lines(cut, found)
        if not options.quick:
            cuts[cut] = found
            command, ordered = "python -m benchmarks.rolling", dict(sorted(cuts.items()))
            whole = {"title": "Rolling cuts", "command": command, "seed": SEED, "cuts": ordered, "notes": NOTES}
            record("rolling", {"machine": begun, **whole})
        sys.stderr.write(f"{cut}: {done['wall_s']:,.0f} s, at most {done['peak_mib']:,} MiB\n")
    show(rows, options.json)


if __name__ == "__main__":
    main()
