"""What is left of detection where the log that was learnt from holds attacks too.

    python -m benchmarks.contaminated [SET...] [--json]

As benchmarks.anomaly, whose logs, networks and detectors these are. Into a copy of each log, in the window as long as
the judged one and right before it, every family is planted (middle intensity, the usual share of accounts each); a
network is trained on that copy, and its accounts' pasts hold the attacks. Then each family is planted into the judged
window of both logs, the same draws, and every detector is asked. Writes benchmarks/results/contaminated.json.
"""

from __future__ import annotations

import argparse
from datetime import timedelta
from typing import Any

import numpy as np

from benchmarks.anomaly import (
    BENCH,
    CAPACITY,
    DRAWS,
    NAMES,
    NETWORK,
    SHARE,
    Base,
    base_in,
    base_of,
    learned,
    questions_of,
    scores_of,
    suspicions_of,
)
from benchmarks.ingest import show
from benchmarks.record import machine, record
from desireline.core.progress import say
from desireline.evaluation.detection import detection_metrics
from desireline.tasks.anomaly.attacks import FAMILIES, missing
from desireline.tasks.anomaly.questions import PLACEBO, TUNED
from desireline.workspace import open_workspace

SEED = 77  # of what is planted before the window
SHOWN = ("facts+groups", "gru", "surprise")


def contaminated(base: Base) -> Base:
    """The same log with every family planted into the window before the judged one, learnt from as it is."""
    folder = BENCH / f"{base.name}-contaminated"
    if not (folder / "desireline.yaml").exists():
        families = [name for name in able(base) if name != PLACEBO]
        earlier = base.begin - (base.end - base.begin) + timedelta(microseconds=base.step_us)
        base.workspace.inject(folder, families=families, share=SHARE, seed=SEED, begin=earlier, end=base.begin)
    workspace = open_workspace(folder).with_settings(NETWORK)
    return base_in(base.name, workspace, *learned(workspace, base.begin))


def able(base: Base) -> list[str]:
    """The families that the log allows."""
    refused = missing(base.material)
    return [name for name in FAMILIES if name not in refused]


def rows_of(name: str) -> list[dict[str, Any]]:
    """A row a family and detector: AUPRC, means over draws, on the clean and on the contaminated log."""
    clean = base_of(name, False)
    both, rows = {"clean": clean, "contaminated": contaminated(clean)}, []
    for family in (one for one in able(clean) if one != PLACEBO):
        found: dict[str, dict[str, list[float]]] = {detector: {} for detector in SHOWN}
        for log, base in both.items():
            for draw in range(DRAWS["middle"]):
                questions = questions_of(base, [family, PLACEBO], "middle", SHARE, draw)
                scores = scores_of(suspicions_of(base, questions), questions, False)
                for detector in SHOWN:
                    users = np.arange(len(questions.truth))
                    told = detection_metrics(scores[detector], questions.truth, users, CAPACITY, 50, 0)
                    found[detector].setdefault(log, []).append(told["AUPRC"].value)
        held = "" if family in TUNED else " (held out)"
        for detector, of in found.items():
            means = {log: round(float(np.mean(values)), 3) for log, values in of.items()}
            rows.append({"set": name, "family": family + held, "detector": detector, **means})
        say(f"{name}: {family}")
    return rows


def main() -> None:
    """Run the named sets, all by default."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="*", choices=[*NAMES, []], default=[])
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    begun, rows = machine(), []
    for name in options.sets or NAMES:
        rows += rows_of(name)
    notes = [
        f"AUPRC, middle intensity, means of {DRAWS['middle']} draws, the same on both logs. `contaminated`: every "
        f"family ({SHARE:.0%} of the active accounts each) stands in the window before the judged one too, so that "
        "what was learnt and the past of targets hold it.",
    ]
    command = " ".join(["python -m benchmarks.contaminated", *options.sets])
    told = {"title": "Attacks in what was learnt from", "command": command, "rows": rows, "notes": notes}
    record("contaminated", {"machine": begun, **told})
    show(rows, options.json)


if __name__ == "__main__":
    main()
