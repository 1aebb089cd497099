"""docs/results.md, and the figures in the READMEs, from benchmarks/results/*.json; nothing is typed by hand.

python -m benchmarks.tables [--check]
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from benchmarks.record import RESULTS, ROOT
from benchmarks.tables_anomaly import anomaly, opinions
from desireline.evaluation.result import SCREEN

PAGE = ROOT / "docs" / "results.md"
BEGIN, END = "<!-- results -->", "<!-- end of results -->"
NAMES = {
    "quality-online-retail-ii": "Online Retail II",
    "quality-taobao": "Taobao user behaviour, sample",
    "quality-beauty": "Amazon Beauty, 5-core",
    "quality-beauty-all": "Amazon Beauty, 5-core, all encoders",
}
INTRODUCTION = """# Results

Written by `python -m benchmarks.tables` from the files in `benchmarks/results/`, each of which a command writes:
`python -m benchmarks.quality` the quality of models and baselines, `python -m benchmarks.ingest`, `.prepare` and
`.training` the speed. Quality: every row under the same protocol, tuned on validation; networks are means of three
seeds; intervals are 95 %, by bootstrap over users. `new` ranks among the items that the user has not had, `repeat`
asks only for those that were. **Bold**: the row that `compare` chose on validation, before it saw the test.
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
    settings = ", ".join(f"{key} {value}" for key, value in found.get("settings", {}).items())
    lines = [f"## {NAMES.get(name, name)}", "", footer(found) + (f" Settings: {settings}." if settings else "")]
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


def rolling(found: dict[str, Any]) -> str:
    """The chapter of rolling cuts: means over the cuts, then each cut."""
    cuts = found["cuts"]
    columns = ["NDCG@10", "NDCG@10 new", "seconds", "ms a question"]
    head = ["| row | " + " | ".join(columns) + " |", "|---|" + "---:|" * len(columns)]
    by_row: dict[str, list[list[float]]] = {}
    for cut in cuts.values():
        for row in cut["rows"]:
            figures = [row["metrics"][m]["value"] for m in columns[:2]] + [row[c] for c in columns[2:]]
            by_row.setdefault(row["name"], []).append(figures)
    means = {
        name: [sum(column) / len(cuts) for column in zip(*of_cuts, strict=True)]
        for name, of_cuts in by_row.items()
        if len(of_cuts) == len(cuts)
    }
    lines = [f"## {found['title']}", "", f"`{found['command']}`", "", *(f"- {note}" for note in found["notes"])]
    lines += ["", f"### Mean over the cuts {', '.join(cuts)}", "", *head]
    for name, (whole, new, seconds, ms) in sorted(means.items(), key=lambda one: -one[1][0]):
        lines.append(f"| {name} | {whole:.4f} | {new:.4f} | {seconds:,.0f} | {ms:.3f} |")
    for day, cut in cuts.items():
        asked, with_new = (cut["rows"][0]["metrics"][m]["customers"] for m in columns[:2])
        told = f"{asked:,} customers, {with_new:,} of them with something new; {cut['wall_s']:,.0f} s in all, at most "
        told += f"{cut['peak_mib']:,} MiB a process, load before {cut['load before']}. {footer(cut)}"
        lines += ["", f"### Cut {day}", "", told, "", *head]
        for row in sorted(cut["rows"], key=lambda r: -r["metrics"]["NDCG@10"]["value"]):
            mark = "**" if row["name"] == cut["chosen"] else ""
            cells = [cell(row["metrics"][m], True) for m in columns[:2]]
            cells += [f"{row['seconds']:,.0f}", f"{row['ms a question']:.3f}"]
            lines.append(f"| {mark}{row['name']}{mark} | " + " | ".join(cells) + " |")
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


def grid(columns: list[str], lines: list[list[str]]) -> list[str]:
    """A table, its first column to the left."""
    head = ["| " + " | ".join(columns) + " |", "|---|" + "---:|" * (len(columns) - 1)]
    return [*head, *("| " + " | ".join(line) + " |" for line in lines), ""]


def churn(found: dict[str, Any]) -> str:
    """The chapter of churn: a few tables a log, then published fits and costs."""
    lines = [f"## {found['title']}", "", footer(found), "", f"`{found['command']}`", ""]
    for name in dict.fromkeys(date["set"] for date in found["dates"]):
        lines += churn_set(name, [date for date in found["dates"] if date["set"] == name])
    for title, rows in (("Published fits of CDNOW", found["fits"]), ("Cost of answers", found["scoring"])):
        if rows:
            body = [["–" if v is None else v if isinstance(v, str) else f"{v:,}" for v in row.values()] for row in rows]
            lines += [f"### {title}", "", *grid(list(rows[0]), body)]
    lines += [f"- {note}" for note in found["notes"]]
    return "\n".join(lines).rstrip() + "\n"


def churn_set(name: str, dates: list[dict[str, Any]]) -> list[str]:
    """One log: the chosen row, every row beside it, calibration and season, a line or a column each date."""
    lines = [f"### {NAMES.get(f'quality-{name}', name.upper())}", ""]
    metrics = [{row["row"]: row["metrics"] for row in date["rows"]} for date in dates]
    shown, body = ["AUROC", "AUPRC", "lift@5%", "lift@10%", "Brier", "ECE"], []
    for date, of in zip(dates, metrics, strict=True):
        what = [date["as of"], f"{date['horizon_d']:g} d", f"{date['users']:,}", f"{date['left']:.3f}", date["chosen"]]
        cost = [f"{date['seconds']:,.0f}", f"{date['CPU seconds']:,.0f}", f"{date['peak MiB']:,}"]
        body.append([*what, *(cell(of[date["chosen"]][metric], True) for metric in shown), *cost])
    head = ["as of", "horizon", "users", "left", "chosen", *shown, "seconds", "CPU seconds", "peak MiB"]
    lines += grid(head, body)
    body = []
    for row in dict.fromkeys(row for of in metrics for row in of):
        marks = ["**" if row == date["chosen"] else "" for date in dates]
        pairs = [
            f"{of[row]['AUROC']['value']:.4f} · {of[row]['ECE']['value']:.4f}" if row in of else "–" for of in metrics
        ]
        body.append([row, *(f"{mark}{pair}{mark}" for mark, pair in zip(marks, pairs, strict=True))])
    for key in (key for key in dates[0] if " minus " in key):
        body.append([key, *(cell(date[key], True) for date in dates)])
    lines += grid(["AUROC · ECE", *(date["as of"] for date in dates)], body)
    body = []
    for date in dates:
        season, ece = date["season"], date["calibration"]
        year = "yes" if season["knows a year"] else "no"
        error = "–" if season["error"] is None else f"{season['error']:.3f}"
        worst = date["segments"][0] if date["segments"] else None
        told = [worst["segment"], f"{worst['users']:,}"] if worst else ["–", "–"]
        told += [f"{worst[key]:.4f}" for key in ("ECE", "by chance", "at most")] if worst else ["–"] * 3
        whole = [f"{ece[key]:.4f}" for key in ("ECE", "by chance", "at most", "level known")]
        body.append(
            [date["as of"], *whole, *told, f"{season['forecast']:+.3f}", error, year, f"{season['missed by']:+.3f}"]
        )
    head = ["as of", "ECE", "by chance", "at most", "level known", "worst segment", "users", "its ECE", "by chance"]
    return lines + grid([*head, "at most", "level forecast", "± error", "from a year ago", "missed by"], body)


def summary(found: dict[str, Any], chinese: bool) -> str:
    """The demo's figures in a few lines: the chosen row, the next best, popularity, the best network."""
    lines = []
    for task, result in found["tables"].items():
        primary = result["primary"]
        ranked = sorted(result["rows"], key=lambda r: -order(result, r))
        networks = [r["name"] for r in ranked if r["kind"] == "model"][:1]
        wanted = {result["chosen"], *(r["name"] for r in ranked[:3]), *networks, "popularity"}
        lines += [f"| {task}: {primary} | |", "|---|---|"] if not lines else [f"| **{task}: {primary}** | |"]
        for row in ranked:
            if row["name"] in wanted:
                mark = "**" if row["name"] == result["chosen"] else ""
                lines.append(f"| {mark}{row['name']}{mark} | {cell(row['metrics'].get(primary), True)} |")
    m = found["machine"]
    wall = found["wall_s"] / 60
    if chinese:
        said = f"`make demo` 用时 {wall:.1f} 分钟（{m['cores']} 核，{m['processor']}）；"
        said += "粗体：`compare` 在验证集上选中的一行。"
    else:
        said = f"{wall:.1f} minutes on {m['cores']} cores ({m['processor']}); bold: what `compare` chose on validation."
    return "\n".join([*lines, "", said])


def filled(page: Path, block: str) -> str:
    """The page with the block between its markers."""
    whole = page.read_text(encoding="utf-8")
    before, _, rest = whole.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{block}\n{END}{after}"


def pages() -> dict[Path, str]:
    """Every page that holds figures, as it should be."""
    made = {PAGE: text()}
    demo = RESULTS / "quality-online-retail-ii.json"
    if demo.exists():
        found = json.loads(demo.read_text(encoding="utf-8"))
        for name in ("README.md", "README.zh.md", "docs/index.md"):
            path = ROOT / name
            if BEGIN in path.read_text(encoding="utf-8"):
                made[path] = filled(path, summary(found, name.endswith("zh.md")))
    return made


def text() -> str:
    """The whole page."""
    chapters = [INTRODUCTION]
    files = sorted(
        RESULTS.glob("*.json"),
        key=lambda p: (not p.stem.startswith(("quality", "rolling")), p.stem != "quality-online-retail-ii", p.stem),
    )
    for path in files:
        found = json.loads(path.read_text(encoding="utf-8"))
        chapters.append(chapter(path.stem, found))
    return "\n".join(chapters)


def chapter(name: str, found: dict[str, Any]) -> str:
    """One file's chapter, by the shape of what it holds."""
    if "dates" in found:
        return churn(found)
    if "sets" in found:
        return anomaly(found, footer(found), grid)
    if name == "opinions":
        return opinions(found, footer(found), grid)
    if "cuts" in found:
        return rolling(found)
    return quality(name, found) if "tables" in found else speed(name, found)


def main() -> None:
    """Write the pages, or with --check fail when one is not what the files say."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    for path, wanted in pages().items():
        if check and (not path.exists() or path.read_text(encoding="utf-8") != wanted):
            sys.exit(
                f"{path.relative_to(ROOT)} is not what benchmarks/results/ says: run `python -m benchmarks.tables`."
            )
        if not check:
            path.write_text(wanted, encoding="utf-8")
            sys.stdout.write(f"Wrote {path.relative_to(ROOT)}.\n")


if __name__ == "__main__":
    main()
