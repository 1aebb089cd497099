"""The section on a few users: their latest events, and what the models expect of them next to it."""

from __future__ import annotations

from collections import Counter
from html import escape
from typing import Any

from desireline.core.words import duration
from desireline.report import charts
from desireline.report.body import Body, columns
from desireline.report.gather import Example, Report

LISTED = 5  # moments told in words, the latest first
NAMED = 3  # items of a moment that are named
TYPES = 4  # event types whose probability is drawn


def examples(body: Body, report: Report) -> None:
    """Write it; nothing for a log without users."""
    if not report.examples:
        return
    count = {1: "One user", 2: "Two users", 3: "Three users"}[len(report.examples)]
    answered = any(example.answers for example in report.examples)
    body.section("examples", f"{count}, and what the models expect" if answered else count)
    body.add(
        '<p class="soft">Users with a history of middling length, drawn by a hash of their ids: always the same.</p>'
    )
    for example in report.examples:
        body.add(f'<article class="example"><h3>{escape(example.user)}</h3>')
        events = int(example.moments["count"].sum())
        ahead = " and what is expected" if report.timed and example.answers.get("next_event", {}).get("events") else ""
        chart = body.figure(
            charts.timeline(example, report), f"The latest {events:,} events{ahead}", "", _said(example, report)
        )
        body.add(columns([f"<div>{chart}{_latest(example, report)}</div>", f"<div>{_answers(example, report)}</div>"]))
        body.add("</article>")


def _said(example: Example, report: Report) -> str:
    types = Counter[str]()
    for event, count in example.moments.select("event", "count").iter_rows():
        types[event] += count
    counts = ", ".join(f"{count:,} {event}" for event, count in types.most_common())
    span = f" between {_when(example, report, 0)} and {_when(example, report, -1)}" if report.timed else ""
    return f"The latest events of {example.user}{span}: {counts}."


def _when(example: Example, report: Report, row: int) -> str:
    moments = example.moments["time"].dt.convert_time_zone(report.zone)
    return f"{moments[row]:%Y-%m-%d %H:%M}"


def _latest(example: Example, report: Report) -> str:
    """The last moments, newest first."""
    lines = []
    for row in range(example.moments.height - 1, max(-1, example.moments.height - 1 - LISTED), -1):
        event, count, items = example.moments.select("event", "count", "items").row(row)
        names = [report.titles.get(item, item) for item in dict.fromkeys(items)]
        more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
        what = f"{event} ×\u00a0{count:,}" if count > 1 else event
        day, _, hour = _when(example, report, row).partition(" ")
        first = (
            f'{day}<span class="interval">{hour}</span>' if report.timed else _back(example.moments.height - 1 - row)
        )
        about = escape(", ".join(names[:NAMED]) + more)
        lines.append(
            f'<tr><th scope="row" class="when">{first}</th><td class="text">{escape(what)}</td>'
            f'<td class="text">{about}</td></tr>'
        )
    head = "".join(f'<th scope="col" class="text">{name}</th>' for name in ("when", "event", "about"))
    return (
        f'<div class="scroll"><table><caption>The last of them</caption><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def _back(places: int) -> str:
    return f"{places} back" if places else "last"


def _answers(example: Example, report: Report) -> str:
    if not example.answers:
        return '<p class="soft small">No model answers yet.</p>'
    html = ""
    for task, answer in example.answers.items():
        if "error" in answer:
            html += f'<h4>{escape(task)}</h4><p class="soft small">{escape(answer["error"])}</p>'
        elif task == "next_event":
            html += f"<h4>Comes next</h4>{_shares(answer)}{_wait(answer)}{_items(answer, report, 'most likely about')}"
        elif task == "churn":
            html += f"<h4>Leaves?</h4>{_leaving(answer)}"
        else:
            html += f"<h4>To show next</h4>{_items(answer, report, '')}"
    return html


def _leaving(answer: dict[str, Any]) -> str:
    told = [*answer["reasons"], *([answer["unnamed"]] if answer["unnamed"] else [])]
    reasons = "".join(f"<li>{escape(reason)}</li>" for reason in told)
    away, likely = duration(answer["horizon_s"]), f"<strong>{answer['probability']:.0%}</strong>"
    return (
        f'<p class="small">Stays away for {away} with {likely}; {escape(answer["segment"])}.</p>'
        f'<ul class="items">{reasons}</ul><p class="soft small">{escape(answer["level"])}</p>'
    )


def _shares(answer: dict[str, Any]) -> str:
    lines = "".join(
        f'<span>{escape(e["event"])}</span><i><b style="width:{100 * e["probability"]:.1f}%"></b></i>'
        f"<span>{e['probability']:.1%}</span>"
        for e in answer["events"][:TYPES]
    )
    return f'<div class="shares">{lines}</div>'


def _wait(answer: dict[str, Any]) -> str:
    wait = answer["time_to_next"]
    if wait["median_s"] is None:
        return ""
    return (
        f'<p class="small">In <strong>{duration(wait["median_s"])}</strong> from the log\'s end; eight times in ten '
        f"between {duration(wait['p10_s'])} and {duration(wait['p90_s'])}.</p>"
    )


def _items(answer: dict[str, Any], report: Report, intro: str) -> str:
    lines = []
    for item in answer.get("items", []):
        title = report.titles.get(item["item"], "")
        details = "; ".join([*([item["item"]] if title else []), *item.get("reasons", [])])
        lines.append(
            f'<li>{escape(title or item["item"])} <span class="soft">{escape(details)}</span></li>'
            if details
            else f"<li>{escape(item['item'])}</li>"
        )
    if not lines:
        return ""
    return (f'<p class="small soft">{intro}</p>' if intro else "") + f'<ol class="items">{"".join(lines)}</ol>'
