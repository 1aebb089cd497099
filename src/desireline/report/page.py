"""The report as one HTML file that needs nothing from the network; every text that comes from the log is escaped."""

from __future__ import annotations

import json
from html import escape
from typing import Any

from desireline.core.errors import SettingError
from desireline.evaluation.result import SCREEN, Result
from desireline.report import charts
from desireline.report.gather import Example, Report
from desireline.version import __version__

STYLE = """
:root { color-scheme: light dark; --ink: #1f2328; --soft: #57606a; --line: #d0d7de; --ground: #ffffff; --card: #f6f8fa; --accent: #b85c00; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --soft: #9198a1; --line: #30363d; --ground: #0d1117; --card: #151b23; --accent: #f0883e; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink); font: 16px/1.55 system-ui, -apple-system, "Segoe UI", sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 2.2rem 1.2rem 4rem; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .3rem; letter-spacing: -.02em; }
h2 { font-size: 1.3rem; margin: 2.8rem 0 .6rem; padding-top: 1.2rem; border-top: 1px solid var(--line); letter-spacing: -.01em; }
h3 { font-size: 1rem; margin: 1.6rem 0 .4rem; }
p.lead, .soft { color: var(--soft); }
.facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(135px, 1fr)); gap: .7rem; margin: 1.4rem 0 0; padding: 0; }
.facts div { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: .7rem .9rem; }
.facts dt { color: var(--soft); font-size: .8rem; } .facts dd { margin: 0; font-size: 1.35rem; font-variant-numeric: tabular-nums; }
.why { background: var(--card); border-left: 4px solid var(--accent); border-radius: 0 10px 10px 0; padding: .8rem 1.1rem; margin: 1rem 0; }
.two { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(430px, 100%), 1fr)); gap: 1.2rem; }
figure { margin: .6rem 0 1rem; min-width: 0; overflow-x: auto; } figcaption { color: var(--soft); font-size: .85rem; }
.chart { width: 100%; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .86rem; font-variant-numeric: tabular-nums; width: 100%; }
th, td { text-align: right; padding: .3rem .6rem; border-bottom: 1px solid var(--line); white-space: nowrap; }
th:first-child, td:first-child { text-align: left; } thead th { color: var(--soft); font-weight: 600; }
tr.chosen td { color: var(--accent); font-weight: 600; } tr.baseline td { color: var(--soft); }
td .interval { color: var(--soft); font-size: .78rem; font-weight: 400; }
ul.notes li { margin: .15rem 0; } code { background: var(--card); padding: .1rem .35rem; border-radius: 5px; }
.answers { font-size: .9rem; } .answers li { margin: .2rem 0; }
"""

DRAW = """
window.addEventListener("error", e => document.documentElement.dataset.errors = (document.documentElement.dataset.errors || "") + e.message);
const specs = JSON.parse(document.getElementById("specs").textContent);
Promise.all(Object.entries(specs).map(([id, spec]) => vegaEmbed("#" + id, spec, {actions: false, renderer: "svg"})))
  .then(() => document.documentElement.dataset.drawn = Object.keys(specs).length)
  .catch(e => document.documentElement.dataset.errors = String(e));
"""


class _Page:
    """The body as it grows, and the charts that it holds."""

    def __init__(self) -> None:
        self.parts: list[str] = []
        self.specs: dict[str, dict[str, Any]] = {}

    def add(self, html: str) -> None:
        self.parts.append(html)

    def chart(self, spec: dict[str, Any] | None, caption: str) -> str:
        """A figure with a chart; "" for a chart that has nothing to show."""
        if spec is None:
            return ""
        name = f"chart-{len(self.specs) + 1}"
        self.specs[name] = spec
        return f'<figure><div id="{name}" class="chart" role="img" aria-label="{escape(caption)}"></div><figcaption>{escape(caption)}</figcaption></figure>'


def page(report: Report) -> str:
    """The whole page. Raises SettingError when the extra `report` is not installed."""
    try:
        from vl_convert import javascript_bundle
    except ImportError as error:
        raise SettingError("The report needs an extra: pip install 'desireline[report]'.") from error
    body = _Page()
    _log(body, report)
    if not report.results:
        body.add(
            "<h2>Models</h2><p>No model was compared yet: run <code>desireline compare DIR --task recommend</code>.</p>"
        )
    for result in report.results:
        _result(body, result)
    _examples(body, report)
    specs = json.dumps(body.specs).replace("</", "<\\/").replace("<!--", "<\\!--")
    bundle: str = javascript_bundle()  # type: ignore[call-arg]  # the stub wants a snippet, the function does not
    script = bundle.replace("</script", "<\\/script")
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(report.name)} · desireline</title><style>{STYLE}</style></head><body><main>"
        + "".join(body.parts)
        + f'<p class="soft">desireline {__version__}</p></main><script type="application/json" id="specs">{specs}</script>'
        + f"<script>{script}</script><script>{DRAW}</script></body></html>\n"
    )


def _log(body: _Page, report: Report) -> None:
    health = report.health
    span = (
        f"{health['first'][:10]} to {health['last'][:10]}"
        if report.timed and "first" in health
        else "order only, no times"
    )
    body.add(
        f"<h1>{escape(report.name)}</h1><p class='lead'>{escape(span)} · what users did, what they will do, and how far to trust it</p>"
    )
    facts = {
        "events": health.get("events"),
        "users": health.get("users"),
        "items": health.get("items"),
        "event types": report.funnel.height,
        "quarantined rows": sum(health.get("quarantine", {}).values()),
    }
    cells = "".join(f"<div><dt>{escape(k)}</dt><dd>{v:,}</dd></div>" for k, v in facts.items() if isinstance(v, int))
    body.add(f'<dl class="facts">{cells}</dl>')
    body.add("<h2>The log</h2><div class='two'>")
    body.add(body.chart(charts.activity(report), "Events over time, by type"))
    body.add(body.chart(charts.funnel(report), "Users who had each event type"))
    body.add("</div>")
    if report.notes:
        body.add(
            "<h3>Worth a look</h3><ul class='notes'>"
            + "".join(f"<li>{escape(note)}</li>" for note in report.notes)
            + "</ul>"
        )


def _result(body: _Page, result: Result) -> None:
    title = {"recommend": "What to show next", "next_event": "What comes next, and when"}.get(result.task, result.task)
    body.add(f"<h2>{escape(title)} <span class='soft'>· {escape(result.task)}</span></h2>")
    body.add(
        f"<p class='soft'>Protocol {escape(result.protocol)}, cut {escape(result.cut)}, seed {result.seed}; intervals: 95 %, bootstrap over users.</p>"
    )
    if result.why:
        body.add(f"<p class='why'>{escape(result.why)}</p>")
    for note in result.notes:
        body.add(f"<p class='soft'>{escape(note)}</p>")
    others = [
        m for m in SCREEN.get(result.task, ()) if m != result.primary and any(m in r.metrics for r in result.rows)
    ]
    shown = [result.primary, *others[:3]]
    figures = "".join(
        body.chart(charts.intervals(result, metric), f"{metric} of each row with its interval") for metric in shown
    )
    body.add(f"<div class='two'>{figures}</div>")
    body.add(_table(result, [result.primary, *others]))
    plots = body.chart(charts.reliability(result), "Reliability: on the dashed line a probability means what it says")
    plots += body.chart(charts.pit(result), "Waiting time: a right forecast is flat at 1")
    body.add(f"<div class='two'>{plots}</div>" if plots else "")
    body.add(body.chart(charts.curves(result), "Learning curves, a line a seed"))


def _table(result: Result, metrics: list[str]) -> str:
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in ["row", *metrics, "seconds", "parameters"])
    rows = []
    for row in result.rows:
        cells = []
        for name in metrics:
            m = row.metrics.get(name)
            interval = (
                "" if m is None or m.low == m.high else f' <span class="interval">{m.low:.3f}–{m.high:.3f}</span>'
            )
            cells.append("<td>–</td>" if m is None else f"<td>{m.value:.4f}{interval}</td>")
        kind = "chosen" if row.name == result.chosen else row.kind
        rows.append(
            f'<tr class="{kind}"><td>{escape(row.name)}</td>{"".join(cells)}<td>{row.seconds:,.1f}</td><td>{row.parameters:,}</td></tr>'
        )
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'


def _examples(body: _Page, report: Report) -> None:
    if not any(example.answers for example in report.examples):
        return
    body.add("<h2>Three users, and what the models expect of them</h2>")
    for example in report.examples:
        body.add(f"<h3>{escape(example.user)}</h3>")
        body.add(
            body.chart(
                charts.timeline(example, report.timed), f"The latest {example.events.height} events of {example.user}"
            )
        )
        body.add(f"<div class='answers two'>{_answers(example, report)}</div>")


def _answers(example: Example, report: Report) -> str:
    html = ""
    for task, answer in example.answers.items():
        if "error" in answer:
            html += f"<div><p class='soft'>{escape(task)}: {escape(answer['error'])}</p></div>"
            continue
        lines = [f"<li>{escape(e['event'])}: {e['probability']:.1%}</li>" for e in answer.get("events", [])]
        wait = answer.get("time_to_next") or {}
        if wait.get("median_s") is not None:
            lines.append(
                f"<li>in {_span(wait['median_s'])}; eight times in ten {_span(wait['p10_s'])} to {_span(wait['p90_s'])}</li>"
            )
        for item in answer.get("items", []):
            title = report.titles.get(item["item"], "")
            why = "; ".join(item.get("reasons", []))
            lines.append(
                f"<li><strong>{escape(title or item['item'])}</strong> <span class='soft'>{escape(item['item'] if title else '')} {escape(why)}</span></li>"
            )
        html += f"<div><p class='soft'>{escape(task)}</p><ul>{''.join(lines)}</ul></div>"
    return html


def _span(seconds: float) -> str:
    for unit, size in (("days", 86_400.0), ("hours", 3_600.0), ("minutes", 60.0)):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} seconds"
