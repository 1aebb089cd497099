"""The report as one HTML file that needs nothing from the network; every text that comes from the log is escaped."""

from __future__ import annotations

import json
from html import escape
from importlib.resources import files

from desireline.core.errors import SettingError
from desireline.report import charts
from desireline.report.body import Body, number
from desireline.report.churn_section import churn_section, defined
from desireline.report.examples import examples
from desireline.report.gather import Report
from desireline.report.log_section import log_section
from desireline.report.result_section import TITLES, others_section, result_section
from desireline.tasks import TASKS
from desireline.version import __version__

# The browser itself then refuses whatever would leave the page. Vega compiles its expressions, hence unsafe-eval.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline' 'unsafe-eval'; img-src data:"


def page(report: Report) -> str:
    """The whole page as HTML text. Raises SettingError when the extra `report` is not installed."""
    try:
        from vl_convert import javascript_bundle
    except ImportError as error:
        raise SettingError("The report needs an extra: pip install 'desireline[report]'.") from error
    charts.altair()
    body = Body()
    log_section(body, report)
    _results(body, report)
    _missing(body, report)
    others_section(body, report.others)
    examples(body, report)
    bundle: str = javascript_bundle()  # type: ignore[call-arg]  # the stub wants a snippet, the function does not
    bundle = bundle.replace("</script", "<\\/script")
    here = files("desireline.report")
    style, draw = (here.joinpath(name).read_text(encoding="utf-8") for name in ("style.css", "draw.js"))
    links = "".join(f'<a href="#{anchor}">{escape(title)}</a>' for anchor, title in body.sections)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(report.name)} · desireline</title><style>{style}</style></head><body>"
        f'{_header(report)}<nav aria-label="Sections">{links}</nav><main>{"".join(body.parts)}</main>'
        f'<footer class="soft small">Written by desireline {__version__}. The page names users and their events: treat '
        "it like the log itself.</footer><noscript><p>The charts need JavaScript; the tables do not.</p></noscript>"
        f'<script type="application/json" id="specs">{as_script(body.specs)}</script>'
        f"<script>{bundle}</script><script>{draw}</script></body></html>\n"
    )


def as_script(value: object) -> str:
    """JSON that may stand inside a script element whatever it holds: no `<`, `>` or `&` is left to be read as markup.

    Raises ValueError for a number that is not finite: JSON has none, and a browser would refuse the whole text.

    Examples
    --------
    >>> as_script({"item": "</script><!--"})
    '{"item": "\\\\u003c/script\\\\u003e\\\\u003c!--"}'
    """
    text = json.dumps(value, allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _header(report: Report) -> str:
    health = report.health
    span = "In order, without times"
    if report.timed and report.first is not None and report.last is not None:
        span = f"{report.first:%-d %B %Y} to {report.last:%-d %B %Y}"
    counts = f"{number(health['events'])} events of {number(health['users'])} users"
    counts += f" on {number(health['items'])} items" if health["items"] else ""
    return f'<header><h1>{escape(report.name)}</h1><p class="lead">{span} · {counts}</p></header>'


def _results(body: Body, report: Report) -> None:
    """A section a table; the first on churn is a chapter of its own, which also stands where no table was kept."""
    leaving, told = report.leaving, False
    for result in report.results:
        if result.task != "churn" or told:
            result_section(body, result)
            continue
        result_section(body, result, defined(leaving) if leaving else "")
        churn_section(body, leaving, result)
        told = True
    if leaving is not None and not told:
        body.section("churn", f"{TITLES['churn']}: churn")
        body.add(defined(leaving))
        churn_section(body, leaving, None)


def _missing(body: Body, report: Report) -> None:
    """Which command makes the tables that are not there."""
    there = {result.task for result in [*report.results, *report.others]}
    needs = {"recommend": bool(report.health["items"]), "churn": report.timed, "anomaly": report.timed}
    missing = [task for task in TASKS if task not in there and needs.get(task, True)]
    if not missing:
        return
    if not there:
        body.section("models", "Models")
        body.add("<p>No model was compared yet. To see which one is worth using on this log, run</p>")
    else:
        body.add(f'<p class="soft">Not compared yet: {escape(", ".join(missing))}. Run</p>')
    lines = "\n".join(f"desireline compare {report.name} --task {task}" for task in missing)
    body.add(f'<pre><code>{escape(lines)}</code></pre><p class="soft">and write the report again.</p>')
