"""Every encoder alone, with equal budgets, and what is left of it when histories are shuffled.

    python -m benchmarks.encoders [SET...] [--encoders NAME...] [--seeds N] [--epochs N] [--set KEY=VALUE...]
                                [--jobs N] [--quick] [--json]

Sets as in benchmarks.quality, guessed and ingested as a user would; task recommend: beauty, which has no times,
leave-one-out, the others under one cut. All encoders have the same settings (the defaults but for the epochs at most
and beauty's window of 50; neighbours stay away unless --set asks for them), stop early on validation, and run on a CUDA
card where there is one.

The shuffle test (after Klenitskiy et al. 2024, arXiv 2408.12008): a network learns from histories whose events are
shuffled within each user, and is asked with such histories. What it then loses is what the order was worth; a log where
it loses nothing gives a sequence model nothing to find. Under one cut only events before it are shuffled: what comes
after it is asked for one by one, and keeps its order. Writes benchmarks/results/encoders.json after each network: first
come the first seed of all encoders and their shuffled networks, so that a run that is ended leaves a table of fewer
seeds.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.ingest import show
from benchmarks.quality import DATA, LOGS, ROOT, SETS
from benchmarks.record import RESULTS, machine, record
from desireline.core.processes import process_pool
from desireline.encoders import ENCODERS
from desireline.schema.model import Schema
from desireline.selection.fit import asked_of, side_by_side, train_network
from desireline.sequences.batches import places_within
from desireline.sequences.ragged import Sequences
from desireline.tasks.recommend import Recommend
from desireline.tasks.stages import Stage, stages
from desireline.training.device import device_of
from desireline.training.loop import use_threads
from desireline.workspace import init_workspace

SEEDS, SHUFFLE = 3, 0
ALONE = {"neighbours": "0"}  # what an encoder learns by itself, without the graph that any of them may be lent
SETTINGS = {  # the shop's epochs have six times the steps of the others'
    "beauty": {"epochs": "10", "length": "50"},
    "taobao": {"epochs": "10"},
    "online-retail-ii": {"epochs": "4"},
}
QUICK = {"d_model": "32", "layers": "1"}
PUBLISHED = {  # HR@10 and NDCG@10 on beauty, leave-one-out, as eSASRec's authors report them (arXiv 2508.06450)
    ("beauty", "transformer"): "SASRec, sampled softmax: .0921 / .0531",
    ("beauty", "hstu"): "HSTU: .0788 / .0439",
}


@dataclass(frozen=True)
class Fit:
    """One network to train and to ask."""

    name: str
    folder: Path
    schema: Schema
    protocol: str
    at: datetime
    encoder: str
    seed: int
    shuffled: bool


def shuffled(sequences: Sequences, until: NDArray[np.int64], seed: int) -> Sequences:
    """The same events in an order drawn anew within each user's history up to the place `until` [U]; times stay."""
    rng = np.random.default_rng(seed)
    begin, counts = sequences.offsets[:-1], np.maximum(until - sequences.offsets[:-1], 0)
    row = np.repeat(np.arange(len(begin)), counts)
    places = np.repeat(begin, counts) + places_within(counts)
    order = np.arange(sequences.events)
    order[places] = places[np.lexsort((rng.random(len(places)), row))]
    moved = {name: column[order] for name, column in sequences.columns.items() if name != "time"}
    return replace(sequences, columns={"time": sequences["time"], **moved})


def without_order(stage: Stage, seed: int) -> Stage:
    """The stage with shuffled histories: all that is learnt from, and of the timeline what was not asked for."""
    ends = stage.timeline.offsets[1:].copy()
    rows, asked = stage.timeline.rows(), np.flatnonzero(stage.asked)
    np.minimum.at(ends, rows[asked], asked)  # up to the first event that is asked for
    train = shuffled(stage.train, stage.train.offsets[1:], seed)
    return replace(stage, train=train, timeline=shuffled(stage.timeline, ends, seed + 1))


def run(fit: Fit) -> dict[str, Any]:
    """Train as a comparison does, by validation for its epochs, then anew before the test; ask the test."""
    use_threads(fit.schema.train)
    task, begun = Recommend(), time.perf_counter()
    both = stages(fit.folder, fit.schema, fit.protocol, fit.at)
    validation, test = (without_order(stage, fit.seed) for stage in both) if fit.shuffled else both
    asks = task.questions(validation, fit.schema)
    common: dict[str, Any] = {"planned": fit.schema.train.epochs, "checkpoints": None}
    network, trained, _ = train_network(
        task, fit.encoder, fit.schema, validation, fit.seed, stop_after=None, asks=asks, **common
    )
    if both[0].prepared.folder != both[1].prepared.folder:
        stop = max(1, trained.best_epoch)
        network, _, _ = train_network(task, fit.encoder, fit.schema, test, fit.seed, stop_after=stop, **common)
    measured = asked_of(task, network, test, fit.schema)
    metrics = task.metrics(measured, fit.schema.evaluate.bootstrap, fit.seed)
    return {
        **{key: getattr(fit, key) for key in ("name", "encoder", "seed", "shuffled")},
        "metrics": {name: asdict(metrics[name]) for name in ("NDCG@10", "HR@10")},
        "questions": len(measured.user),
        "epochs": trained.best_epoch,
        "targets/s": trained.summary()["targets_per_s"],
        "parameters": network.parameters_count,
        "on": torch.cuda.get_device_name() if device_of(fit.schema.train).type == "cuda" else "processor",
        "seconds": round(time.perf_counter() - begun, 1),
    }


def fits(name: str, encoders: list[str], seeds: int, settings: dict[str, str]) -> Iterator[Fit]:
    """All networks of one set, a seed of all encoders at a time; its log is ingested and prepared before."""
    folder, plan = ROOT / ".bench" / "encoders" / name, SETS[name]
    shutil.rmtree(folder, ignore_errors=True)
    workspace, _ = init_workspace(folder, source=plan["source"]())
    workspace.ingest(plan["source"]())
    schema = workspace.with_settings(ALONE | SETTINGS[name] | settings).schema
    schema.train.threads = 1
    at, protocol = workspace.store.default_cut(), plan.get("protocol", "temporal")
    stages(folder, schema, protocol, at)
    for seed, mixed in [(0, False), (SHUFFLE, True), *((seed, False) for seed in range(1, seeds))]:
        yield from (Fit(name, folder, schema, protocol, at, encoder, seed, mixed) for encoder in encoders)


def table(done: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row an encoder and set: means over seeds with their deviation, beside the shuffled network of one seed."""
    rows = []
    for what in dict.fromkeys(_row(one) for one in done):
        own = [one for one in done if _row(one) == what]
        name, encoder, settings = what
        plain, mixed = [one for one in own if not one["shuffled"]], [one for one in own if one["shuffled"]]
        row: dict[str, Any] = {"set": name, "encoder": f"{encoder}, {settings}" if settings else encoder}
        row["seeds"] = len(plain)
        for metric in ("NDCG@10", "HR@10"):
            values = [one["metrics"][metric]["value"] for one in plain]
            deviation = f" ± {statistics.stdev(values):.4f}" if len(values) > 1 else ""
            row[metric] = f"{statistics.mean(values):.4f}{deviation}"
        half = max((one["metrics"]["NDCG@10"]["high"] - one["metrics"]["NDCG@10"]["low"]) / 2 for one in plain)
        row["± users"] = round(half, 4)
        if mixed:
            value = mixed[0]["metrics"]["NDCG@10"]["value"]
            base = next(one for one in plain if one["seed"] == SHUFFLE)["metrics"]["NDCG@10"]["value"]
            row |= {"shuffled": round(value, 4), "order is worth": f"{1 - value / base:.0%}"}
        row |= {
            "epochs": round(statistics.mean(one["epochs"] for one in plain), 1),
            "targets/s": round(statistics.mean(one["targets/s"] for one in plain)),
            "seconds": round(statistics.mean(one["seconds"] for one in plain), 1),
            **{key: plain[0][key] for key in ("epochs at most", "side by side", "on", "commit")},
            "published": PUBLISHED.get((name, encoder), "–"),
        }
        rows.append(row)
    return rows


def _row(one: dict[str, Any]) -> tuple[str, str, str]:
    """Set, encoder and changed settings: what makes a row of its own."""
    return one["name"], one["encoder"], one.get("settings", "")


def write(ran: list[dict[str, Any]], begun: dict[str, Any]) -> None:
    """Record these networks in the place of their own rows, beside all others."""
    path, rows = RESULTS / "encoders.json", {_row(one) for one in ran}
    recorded = json.loads(path.read_text(encoding="utf-8"))["details"] if path.exists() else []
    details = [*(one for one in recorded if _row(one) not in rows), *ran]
    notes = [
        "Networks are trained side by side, as many as `side by side` says, whose targets/s and seconds therefore "
        "share the device; equal settings within a set, at most `epochs at most`, early stopping on validation.",
        "Without neighbours, which any encoder may be lent, but in rows that name them.",
        "NDCG@10 and HR@10: mean and deviation over seeds; `± users`: half the widest 95 % interval over users.",
        "`shuffled`: a network (seed 0) that learnt from and was asked with shuffled histories; `order is worth`: "
        "what it loses of seed 0's NDCG@10.",
        "`commit`: of a row's own run; the one above is the last run's.",
        "Published: arXiv 2508.06450, the same sequences and protocol.",
    ]
    command = " ".join(["python -m benchmarks.encoders", *sys.argv[1:]])
    result = {"title": "Encoders alone", "command": command, "rows": table(details)}
    record("encoders", {"machine": begun, **result, "details": details, "notes": notes})


def main() -> None:
    """Run the named sets, all by default."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="*", choices=[*LOGS, []], help="default: all")
    parser.add_argument("--encoders", nargs="+", choices=list(ENCODERS), default=list(ENCODERS))
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--epochs", type=int, help="at most, of all sets; default: 4 of online-retail-ii, else 10")
    parser.add_argument("--set", nargs="+", metavar="KEY=VALUE", default=[], help="other settings: rows of their own")
    parser.add_argument("--jobs", type=int, help="networks trained side by side; default: as many as a comparison")
    parser.add_argument("--quick", action="store_true", help="a small network; not recorded")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    begun, done, wanted = machine(), [], []
    settings = {"epochs": str(options.epochs)} if options.epochs else {}
    settings |= dict(change.split("=", 1) for change in options.set)
    for name in options.sets or LOGS:
        if not SETS[name]["source"]().exists():
            sys.stderr.write(f"{name}: its data are not at {DATA}; DESIRELINE_DATA names another folder. Skipped.\n")
            continue
        wanted += fits(name, options.encoders, options.seeds, settings | (QUICK if options.quick else {}))
    if not wanted:
        sys.exit("The data of none of these sets are there.")
    jobs = min(options.jobs or side_by_side(wanted[0].schema), len(wanted))
    with process_pool(jobs) as pool:
        for fit, one in zip(wanted, pool.map(run, wanted), strict=True):
            sys.stderr.write(f"{json.dumps(one)}\n")
            told = {"epochs at most": fit.schema.train.epochs, "side by side": jobs, "commit": begun["commit"]}
            done.append(one | told | {"settings": ", ".join(options.set)})
            if not options.quick:
                write(done, begun)
    show(table(done), options.json)


if __name__ == "__main__":  # by its own name, so that other processes find its functions
    from benchmarks.encoders import main as named

    named()
