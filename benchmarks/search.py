"""What a search of settings brings: every trial of `tune`, failures too, and what its best gives on the test.

    python -m benchmarks.search [SET] [--encoder NAME] [--trials N] [--seeds N] [--quick] [--json]

Set as in benchmarks.quality, ingested as a user would; task recommend, the protocol and settings of
benchmarks.encoders. The search chooses on validation alone; then the settings as they stand and the best ones learn
anew with several seeds (0: not at all) and are asked the test. Trials are kept in .bench/search: the same command goes
on where it was ended. Writes benchmarks/results/search.json.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from typing import Any

from benchmarks.encoders import QUICK, SETTINGS, Fit, run
from benchmarks.ingest import show
from benchmarks.quality import DATA, LOGS, ROOT, SETS
from benchmarks.record import machine, record
from desireline.core.processes import process_pool
from desireline.encoders import ENCODERS
from desireline.selection.fit import side_by_side
from desireline.workspace import init_workspace, open_workspace


def searched(name: str, encoder: str, trials: int, seeds: int, settings: dict[str, str]) -> list[dict[str, Any]]:
    """A row a trial, the best first, then those that did not end; the first settings and the best ones with their test.

    settings : beside those of the set
    """
    folder, plan = ROOT / ".bench" / "search" / name, SETS[name]
    made = (folder / "desireline.yaml").exists()
    workspace = open_workspace(folder) if made else init_workspace(folder, source=plan["source"]())[0]
    workspace.ingest(plan["source"]())
    workspace = workspace.with_settings(SETTINGS[name] | settings)
    at, protocol = workspace.cut(), plan.get("protocol", "temporal")
    found = workspace.tune("recommend", [encoder], trials=trials, protocol=protocol)
    ended = [t for t in found.trials if t["state"] == "complete"]
    first = next((t for t in ended if t["number"] == 0), found.best)
    asked = {t["number"]: t for t in (first, found.best)}
    fits = []
    for trial in asked.values():
        schema = workspace.with_settings({key: str(value) for key, value in trial["settings"].items()}).schema
        schema.train.threads = 1
        fits += [Fit(name, folder, schema, protocol, at, encoder, seed, False) for seed in range(seeds)]
    with process_pool(max(1, min(side_by_side(workspace.schema), len(fits)))) as pool:
        done = list(pool.map(run, fits))
    tested = dict(zip(asked, (done[k * seeds : (k + 1) * seeds] for k in range(len(asked))), strict=True))
    ranked = sorted(found.trials, key=lambda t: -(t["value"] or 0.0))
    return [row_of(name, trial, tested.get(trial["number"], [])) for trial in ranked]


def row_of(name: str, trial: dict[str, Any], tested: list[dict[str, Any]]) -> dict[str, Any]:
    """One trial on one line."""
    row: dict[str, Any] = {"set": name, "encoder": trial["encoder"], "trial": trial["number"], "": trial["state"]}
    row["validation NDCG@10"] = "–" if trial["value"] is None else round(trial["value"], 4)
    row |= {key.split(".")[1]: f"{value:.4g}" for key, value in trial["settings"].items()}
    row |= {"epochs": trial["epochs"] or "–", "seconds": round(trial["seconds"])}
    for metric in ("HR@10", "NDCG@10"):
        values = [one["metrics"][metric]["value"] for one in tested]
        deviation = f" ± {statistics.stdev(values):.4f}" if len(values) > 1 else ""
        row[f"test {metric}"] = f"{statistics.mean(values):.4f}{deviation}" if values else "–"
    return row


def main() -> None:
    """Search and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("set", nargs="?", choices=LOGS, default="beauty")
    parser.add_argument("--encoder", choices=list(ENCODERS), default="gru")
    parser.add_argument("--trials", type=int, default=24)
    parser.add_argument("--seeds", type=int, default=3, help="on the test")
    parser.add_argument("--quick", action="store_true", help="a small network, three trials, one seed; not recorded")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if not SETS[options.set]["source"]().exists():
        sys.exit(f"{options.set}: its data are not at {DATA}; DESIRELINE_DATA names another folder.")
    begun = machine()
    if options.quick:
        show(searched(options.set, options.encoder, 3, 1, QUICK | {"epochs": "2"}), options.json)
        return
    rows = searched(options.set, options.encoder, options.trials, options.seeds, {})
    notes = [
        f"Trials of seed 0, the settings as they stand first; the rest: {json.dumps(SETTINGS[options.set])} and the "
        "defaults. A pruned trial fell below the median of the earlier ones at the same epoch.",
        f"Test: mean and deviation over {options.seeds} seeds, asked once, after the search."
        if options.seeds
        else "The test was not asked.",
    ]
    command = " ".join(["python -m benchmarks.search", *sys.argv[1:]])
    record(
        "search", {"machine": begun, "title": "A search of settings", "command": command, "rows": rows, "notes": notes}
    )
    show(rows, options.json)


if __name__ == "__main__":  # by its own name, so that other processes find its functions
    from benchmarks.search import main as named

    named()
