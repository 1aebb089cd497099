"""The chapters of docs/results.md about fraud: planted attacks, and false texts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

OURS = ("trivial", "account-facts", "groups", "surprise", "facts+groups", "gru")
LOGS = {"online-retail-ii": "Online Retail II", "taobao": "Taobao user behaviour, sample"}
Grid = Callable[[list[str], list[list[str]]], list[str]]


def anomaly(found: dict[str, Any], footer: str, grid: Grid) -> str:
    """Planted attacks: family × intensity × detector, all held-out families at once, events to detection."""
    lines = [f"## {found['title']}", "", footer, "", f"`{found['command']}`", "", *(f"- {n}" for n in found["notes"])]
    for one in found["sets"]:
        lines += ["", f"### Anomaly: {LOGS[one['set']]}", ""]
        told = f"Window {one['window'][0][:16]} to {one['window'][1][:16]}, {one['accounts']:,} accounts active."
        refused = [f"{family} ({why})" for family, why in one["not planted"].items()]
        lines += [told + (f" Not planted: {'; '.join(refused)}." if refused else ""), ""]
        for metric in ("AUPRC", "precision@100", "recall@1%", "AUROC"):
            lines += [f"{metric}:", "", *grid(*_by_family(one["tables"], metric))]
        lines += ["AUROC placebo (a detector must not tell these from real accounts):", ""]
        lines += grid(*_by_family(one["tables"], "AUROC placebo"))
        if all("named" in held for held in one["tables"]):
            lines += [
                "Of the planted accounts among the 100 most suspicious, those named rightly (by their own kind):",
                "",
                *grid(*_by_name(one["tables"])),
            ]
        together = one["together"]
        lines += [
            f"All held-out families at once ({', '.join(together['families'])}), middle intensity, "
            f"{together['planted']} planted:",
            "",
        ]
        names = ["precision@100", "AUPRC", "recall@1%", "AUROC", "AUROC placebo"]
        body = [[row["detector"], *(_cell(row["metrics"][name], True) for name in names)] for row in together["rows"]]
        lines += grid(["detector", *names], body)
        if "placebo" in one:
            control = one["placebo"]
            lines += [f"Placebos alone, {control['draws']} draws of {control['accounts']} accounts, AUROC:", ""]
            body = [[row["detector"], _cell(row["AUROC"], True)] for row in control["rows"]]
            lines += grid(["detector", "AUROC, 95 % by the spread of draws"], body)
        if one.get("detection"):
            lines += ["Events to detection, middle intensity: acts done when an account was first among the 1 %:", ""]
            body = [
                [
                    family["family"],
                    row["detector"],
                    f"{row['found']} of {family['planted']}",
                    _number(row["median acts"]),
                ]
                for family in one["detection"]
                for row in family["rows"]
            ]
            lines += grid(["family", "detector", "found", "median acts"], body)
    return "\n".join(lines).rstrip() + "\n"


def _by_family(tables: list[dict[str, Any]], metric: str) -> tuple[list[str], list[list[str]]]:
    body = []
    for held in tables:
        rows = {row["detector"]: row["metrics"][metric] for row in held["rows"]}
        peers = {name: value for name, value in rows.items() if name not in OURS}
        family = held["family"] + (" (held out)" if held["held out"] else "")
        line = [f"{family}, {held['intensity']}", f"{held['planted']}", *(_cell(rows[name], False) for name in OURS)]
        if peers:
            best = max(peers, key=lambda name: peers[name]["value"])
            line.append(f"{_cell(peers[best], False)} ({best.removeprefix('PyOD ')})")
        body.append(line)
    extra = ["best PyOD"] if body and len(body[0]) > len(OURS) + 2 else []
    return ["family, intensity", "planted", *OURS, *extra], body


def _by_name(tables: list[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """A line a family and intensity, a column a detector that names kinds."""
    detectors = list(tables[0]["named"])
    body = []
    for held in tables:
        family = held["family"] + (" (held out)" if held["held out"] else "")
        told = [held["named"][detector] for detector in detectors]
        shares = [_named(one["kind named"], one["own kind"]) for one in told]
        counts = [", ".join(f"{kind} {n}" for kind, n in one["kinds"].items() if n) or "–" for one in told]
        body.append(
            [f"{family}, {held['intensity']}", *(cell for pair in zip(shares, counts, strict=True) for cell in pair)]
        )
    return ["family, intensity", *(name for one in detectors for name in (one, f"{one}: kinds"))], body


def _named(right: dict[str, float | None], own: dict[str, float | None]) -> str:
    if right["value"] is None:
        return "–"
    return f"{right['value']:.2f} [{right['low']:.2f}, {right['high']:.2f}] ({own['value']:.2f})"


def _cell(metric: dict[str, float], interval: bool) -> str:
    if not interval:
        return f"{metric['value']:.3f}"
    return f"{metric['value']:.3f} [{metric['low']:.3f}, {metric['high']:.3f}]"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:g}"


def opinions(found: dict[str, Any], footer: str, grid: Grid) -> str:
    """Deceptive opinion spam by text alone, over the five published folds."""
    lines = ["## Deceptive opinion spam, by text alone", "", footer, "", "`python -m benchmarks.opinions`", ""]
    body = []
    for name, row in found["rows"].items():
        if "accuracy" not in row:
            continue
        low, high = row.get("accuracy, 95 % over hotels", ("", ""))
        folds = " ".join(f"{value:.3f}" for value in row.get("accuracy by fold", []))
        more = [f"{row[key][0]:.3f}" if key in row else "–" for key in ("AUROC", "ECE")]
        body.append([name, f"{row['reviews']:,}", f"{row['accuracy']:.3f} [{low:.3f}, {high:.3f}]", folds, *more])
    lines += grid(["row", "reviews", "accuracy, 95 % over hotels", "by fold", "AUROC", "ECE"], body)
    return "\n".join(lines).rstrip() + "\n"
