"""Quality on real logs: every encoder and baseline under one protocol, three seeds, intervals over users.

    python -m benchmarks.quality [SET...] [--quick] [--json]

Sets: online-retail-ii (carried by the package), taobao and beauty (research use, not shipped: read from
DESIRELINE_DATA or the folder `shared/data` beside the repository). Each is guessed, ingested and compared as a user
would; online-retail-ii is `desireline demo` itself. beauty has an order but no times, so that it is asked
leave-one-out: with the README's command and no setting, and as beauty-all with all seven encoders (hours), shorter
windows and fewer epochs. Writes benchmarks/results/quality-SET.json.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.record import machine, measured, record
from desireline.data import online_retail_ii
from desireline.workspace import init_workspace

ROOT = Path(__file__).resolve().parents[1]
DATA = Path(os.environ.get("DESIRELINE_DATA", ROOT.parent / "shared" / "data"))
SETS: dict[str, dict[str, Any]] = {
    "online-retail-ii": {"source": online_retail_ii},
    "taobao": {
        "source": lambda: DATA / "taobao_userbehavior_sample" / "userbehavior_head.parquet",
        "tasks": ["recommend", "next_event"],
        "encoders": ["gru", "transformer"],
        "protocol": "temporal",
        "settings": {"epochs": "8"},
    },
    "beauty": {
        "source": lambda: DATA / "amazon_beauty_5core" / "sequences.parquet",
        "tasks": ["recommend"],
        "encoders": ["gru", "transformer"],
        "protocol": "leave-one-out",
        "settings": {},
    },
    "beauty-all": {
        "source": lambda: DATA / "amazon_beauty_5core" / "sequences.parquet",
        "tasks": ["recommend"],
        "protocol": "leave-one-out",
        "settings": {"epochs": "6", "length": "50"},
    },
}
LOGS = ("online-retail-ii", "taobao", "beauty")  # each once
QUICK = {"seeds": "1", "epochs": "2", "d_model": "32", "layers": "1"}


def run(name: str, quick: bool) -> dict[str, Any]:
    """The tables of one set, as the contract's JSON."""
    plan = SETS[name]
    folder = ROOT / ".bench" / "quality" / name
    shutil.rmtree(folder, ignore_errors=True)
    if "tasks" not in plan:
        return demo(name, folder, quick)
    workspace, _ = init_workspace(folder, source=plan["source"]())
    workspace.ingest(plan["source"]())
    workspace = workspace.with_settings(QUICK if quick else plan["settings"])
    tables = {}
    for task in plan["tasks"]:
        model = workspace.compare(task, plan.get("encoders"), protocol=plan["protocol"])
        Console(stderr=True).print(model.result)
        tables[task] = model.result.to_json()
    return {"set": name, "quick": quick, "settings": plan["settings"], "tables": tables}


def demo(name: str, folder: Path, quick: bool) -> dict[str, Any]:
    """What `desireline demo` prints, and how long it took from the first second to the report."""
    words = [
        sys.executable,
        "-c",
        "from desireline.cli.app import main; main()",
        "demo",
        "--out",
        str(folder),
        "--json",
    ]
    done = measured(words + (["--quick"] if quick else []))
    tables = {result["task"]: result for result in json.loads(done["stdout"])["results"]}
    return {"set": name, "quick": quick, "command": "desireline demo", "wall_s": done["wall_s"], "tables": tables}


def main() -> None:
    """Run the named sets, all by default."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="*", choices=[*SETS, []], help="default: all")
    parser.add_argument("--quick", action="store_true", help="one seed, two epochs, a small network")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found = []
    for name in options.sets or SETS:
        if not SETS[name]["source"]().exists():
            sys.stderr.write(f"{name}: its data are not at {DATA}; DESIRELINE_DATA names another folder. Skipped.\n")
            continue
        begun = machine()  # before the run: the commit may move on while it lasts
        found.append({"machine": begun} | run(name, options.quick))
        if not options.quick:
            record(f"quality-{name}", found[-1])
    if options.json:
        sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
