"""docs/results.md from benchmarks/results/*.json: `python -m benchmarks.tables [--check]`. Nothing is typed by hand."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from benchmarks.record import RESULTS, ROOT
from desireline.evaluation.result import SCREEN

PAGE = ROOT / "docs" / "results.md"
NAMES = {
    "quality-online-retail-ii": "Online Retail II",
    "quality-taobao": "Taobao user behaviour, sample",
    "quality-beauty": "Amazon Beauty, 5-core",
}
INTRODUCTION = """# Results

Written by `python -m benchmarks.tables` from the files in `benchmarks/results/`, each of which a command writes:
`python -m benchmarks.quality` the quality of models and baselines, `python -m benchmarks.ingest`, `.prepare` and
`.training` the speed. Quality: every row under the same protocol, tuned on validation; networks are means of three
seeds; intervals are 95 %, by bootstrap over users. `new` ranks among the items that the user has not had, `repeat` asks only
for those that were. **Bold**: the row that `compare` chose on validation, before it saw the test.
"""


def cell(metric: dict[str, float] | None, interval: bool) -> str:
    """A figure for the table."""
    if metric is None:
        return "–"
    return (
        f"{metric['value']:.4f} [{metric['low']:.4f}, {metric['high']:.4f}]" if interval else f"{metric['value']:.4f}"
    )


def quality(name: str, found: dict[str, Any]) -> str:
    """One data set's chapter."""
    lines = [f"## {NAMES.get(name, name)}", "", footer(found)]
    for task, result in found["tables"].items():
        there = {metric for row in result["rows"] for metric in row["metrics"]}
        shown = [result["primary"], *(m for m in SCREEN[task] if m in there and m != result["primary"])]
        lines += ["", f"### {task}, {result['protocol']}, cut {result['cut'][:10]}", ""]
        lines += ["| row | " + " | ".join(shown) + " | seconds |", "|---|" + "---:|" * (len(shown) + 1)]
        for row in sorted(result["rows"], key=lambda r: -order(result, r)):
            mark = "**" if row["name"] == result["chosen"] else ""
            cells = [cell(row["metrics"].get(m), m == result["primary"]) for m in shown]
            lines.append(f"| {mark}{row['name']}{mark} | " + " | ".join(cells) + f" | {row['seconds']:,.0f} |")
        lines += ["", f"Why: {result['why']}"]
    return "\n".join(lines) + "\n"


def order(result: dict[str, Any], row: dict[str, Any]) -> float:
    """Best first."""
    value = row["metrics"].get(result["primary"], {}).get("value", float("nan"))
    sign = -1.0 if result["primary"] in ("log-loss", "CRPS") else 1.0
    return float(sign * value) if value == value else -1e9


def footer(found: dict[str, Any]) -> str:
    """On what machine, under which versions."""
    m = found["machine"]
    versions = ", ".join(f"{name} {number}" for name, number in m["versions"].items() if name in ("torch", "polars"))
    return f"{m['processor']}, {m['cores']} cores; {versions}; commit {m['commit']}, {m['date']}."


def speed(name: str, found: dict[str, Any]) -> str:
    """A speed benchmark's chapter: its table as the benchmark wrote it."""
    lines = [f"## {found.get('title', name)}", "", footer(found), "", f"`{found['command']}`", ""]
    columns = list(found["rows"][0])
    lines += ["| " + " | ".join(columns) + " |", "|---|" + "---:|" * (len(columns) - 1)]
    lines += ["| " + " | ".join(str(row.get(c, "–")) for c in columns) + " |" for row in found["rows"]]
    lines += ["", *(f"- {note}" for note in found.get("notes", []))]
    return "\n".join(lines).rstrip() + "\n"


def text() -> str:
    """The whole page."""
    chapters = [INTRODUCTION]
    files = sorted(
        RESULTS.glob("*.json"),
        key=lambda p: (not p.stem.startswith("quality"), p.stem != "quality-online-retail-ii", p.stem),
    )
    for path in files:
        found = json.loads(path.read_text(encoding="utf-8"))
        chapters.append(quality(path.stem, found) if "tables" in found else speed(path.stem, found))
    return "\n".join(chapters)


def main() -> None:
    """Write the page, or with --check fail when it is not what the files say."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    if parser.parse_args().check:
        if not PAGE.exists() or PAGE.read_text(encoding="utf-8") != text():
            sys.exit("docs/results.md is not what benchmarks/results/ says: run `python -m benchmarks.tables`.")
        return
    PAGE.write_text(text(), encoding="utf-8")
    sys.stdout.write(f"Wrote {Path(PAGE).relative_to(ROOT)}.\n")


if __name__ == "__main__":
    main()
