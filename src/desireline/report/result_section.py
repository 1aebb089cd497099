"""The section on one result: what was chosen and why, the figures, and how far to believe them."""

from __future__ import annotations

import math
from html import escape

from desireline.evaluation.result import SCREEN, Metric, Result, Row
from desireline.report import result_charts as charts
from desireline.report.body import Body, columns

TITLES = {
    "churn": "Who is leaving",
    "recommend": "What to show next",
    "next_event": "What comes next, and when",
    "anomaly": "Who is not what it seems",
}


def result_section(body: Body, result: Result, begin: str = "") -> None:
    """Write it. `begin` : HTML that stands first."""
    title = TITLES.get(result.task, result.task)
    body.section(f"{result.task}-{len(body.sections)}", f"{title}: {result.task}")
    body.add(begin + _protocol(result))
    if result.why:
        body.add(f'<p class="why">{escape(result.why)}</p>')
    _notes(body, result)
    figures = [
        body.figure(
            charts.intervals(result, metric),
            metric,
            _direction(result, metric),
            f"{metric} of each row, {_direction(result, metric)}: {_said(result, metric)}.",
        )
        for metric in charts.drawn_metrics(result)
    ]
    body.add(columns(figures))
    chosen = ", the chosen row in orange" if result.chosen else ""
    body.add(
        f'<p class="small soft">Dots are figures on the test, lines their 95 % intervals over users; ◆ networks, '
        f"● baselines{chosen}. All charts keep the order of {escape(result.primary)}.</p>"
    )
    body.add(_table(result))
    body.add(_all_metrics(result))
    if result.analysis:
        body.add(f"<h3>Where {escape(result.chosen or 'it')} is right, and where it fails</h3>" + _analysis(result))
    reliability = body.figure(
        charts.reliability(result), "Reliability", "on the dashed line a probability means what it says"
    )
    pits = [
        body.figure(spec, f"PIT of the waiting time, {name}", "flat at 1 is right") for name, spec in charts.pit(result)
    ]
    if reliability or pits:
        body.add("<h3>Can its probabilities be believed?</h3>")
        body.add(columns([reliability, f"<div>{''.join(pits)}</div>" if pits else ""]))
    loss = body.figure(charts.curves(result, "losses"), "Training loss", "a line a seed")
    validation = body.figure(
        charts.curves(result, "validations"),
        f"{result.primary} on validation",
        "a line a seed; large dot: the epoch kept",
    )
    if loss or validation:
        body.add("<h3>Learning curves</h3>" + columns([loss, validation]))


def others_section(body: Body, results: list[Result]) -> None:
    """The kept tables of single fits, folded away."""
    if not results:
        return
    body.section("others", "Other kept tables")
    for result in results:
        body.add(f"<details><summary>{escape(result.task)}: {escape(result.model)}</summary>{_protocol(result)}")
        _notes(body, result)
        body.add(_table(result) + _all_metrics(result) + "</details>")


def _protocol(result: Result) -> str:
    return (
        f'<p class="soft">Protocol {escape(result.protocol)}, cut {escape(result.cut[:16].replace("T", " "))}, seed '
        f"{result.seed}; {result.seconds:,.0f} s and {result.peak_rss_mib:,.0f} MiB in all.</p>"
    )


def _notes(body: Body, result: Result) -> None:
    notes = [*result.notes, *(f"{row.name}: {note}" for row in result.rows for note in row.notes)]
    if notes:
        body.add(f'<ul class="small soft">{"".join(f"<li>{escape(note)}</li>" for note in notes)}</ul>')


def _direction(result: Result, metric: str) -> str:
    return "less is better" if charts.is_loss(result.task, metric) else "more is better"


def _said(result: Result, metric: str) -> str:
    """The figures of a chart, in words."""
    return "; ".join(f"{row.name} {_figure(row.metrics.get(metric))}" for row in charts.ranked(result))


def _figure(metric: Metric | None) -> str:
    return f"{metric.value:.4f}" if metric is not None and math.isfinite(metric.value) else "–"


def _cell(metric: Metric | None) -> str:
    if metric is None or not math.isfinite(metric.value):
        return "<td>–</td>"
    between = f'<span class="interval">{metric.low:.4f} to {metric.high:.4f}</span>' if metric.low < metric.high else ""
    return f"<td>{metric.value:.4f}{between}</td>"


def _table(result: Result) -> str:
    """The metrics of the task's screen, a row a model, best first."""
    there = {name for row in result.rows for name in row.metrics}
    names = [result.primary, *(n for n in SCREEN.get(result.task, ()) if n in there and n != result.primary)]
    validated = any(row.validation is not None for row in result.rows)
    head = [*names, *([f"{result.primary} on validation"] if validated else []), "seconds", "parameters"]

    def cells(row: Row) -> str:
        metrics = [row.metrics.get(name) for name in names] + ([row.validation] if validated else [])
        return "".join(map(_cell, metrics)) + f"<td>{row.seconds:,.1f}</td><td>{row.parameters:,}</td>"

    lines = "".join(
        f'<tr{_mark(row, result)}><th scope="row">{_name(row, result)}</th>{cells(row)}</tr>'
        for row in charts.ranked(result)
    )
    titles = "".join(f'<th scope="col">{escape(name)}</th>' for name in ["row", *head])
    return _scrolling(f"{result.task}: every row on the test, with 95 % intervals over users", titles, lines)


def _all_metrics(result: Result) -> str:
    """Every metric, a line each, folded away."""
    rows = charts.ranked(result)
    names = list(dict.fromkeys(name for row in rows for name in row.metrics))
    lines = "".join(
        f'<tr><th scope="row">{escape(name)}</th>{"".join(_cell(row.metrics.get(name)) for row in rows)}</tr>'
        for name in names
    )
    titles = "".join(f'<th scope="col">{escape(name)}</th>' for name in ["metric", *(row.name for row in rows)])
    table = _scrolling(f"{result.task}: all metrics", titles, lines)
    return f"<details><summary>All {len(names)} metrics</summary>{table}</details>"


def _analysis(result: Result) -> str:
    """The chosen row's primary metric in groups of questions; of churn also how far its probabilities hold in each."""
    extra = {"probability": "mean probability", "left": "share that left", "ECE": "ECE"}
    shown = [name for name in extra if any(name in g for g in result.analysis)]
    lines = "".join(
        f'<tr><th scope="row">{escape(str(g["by"]))}: {escape(str(g["group"]))}</th><td>{g["questions"]:,}</td>'
        f"{_cell(Metric(g['value'], g['low'], g['high']))}"
        + "".join(f"<td>{g[name]:.3f}</td>" if name in g else "<td></td>" for name in shown)
        + "</tr>"
        for g in result.analysis
    )
    head = ["group", "questions", result.primary, *(extra[name] for name in shown)]
    titles = "".join(f'<th scope="col">{escape(name)}</th>' for name in head)
    return _scrolling(f"{result.task}: {result.primary} of the chosen row by group", titles, lines)


def _mark(row: Row, result: Result) -> str:
    return ' class="chosen"' if row.name == result.chosen else ""


def _name(row: Row, result: Result) -> str:
    what = "chosen" if row.name == result.chosen else "network" if row.kind == "model" else ""
    return escape(row.name) + (f'<span class="interval">{what}</span>' if what else "")


def _scrolling(caption: str, titles: str, lines: str) -> str:
    """A wide table that scrolls on its own, reachable by keyboard."""
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(caption)}"><table class="figures">'
        f"<caption>{escape(caption)}</caption><thead><tr>{titles}</tr></thead><tbody>{lines}</tbody></table></div>"
    )
