"""The section on the log: its figures, its charts, and what to know before trusting it."""

from __future__ import annotations

from html import escape
from typing import Any

from desireline.report import charts
from desireline.report.body import Body, columns, number, small_table
from desireline.report.gather import OTHER, STEPS, Report

QUANTILES = {"0": "fewest", "0.25": "a quarter has at most", "0.5": "half has at most", "0.9": "nine in ten at most"}
QUANTILES |= {"1": "most"}
REASONS = 6  # of quarantine, listed at most


def log_section(body: Body, report: Report) -> None:
    """Write it."""
    body.section("log", "The log")
    body.add(_facts(report))
    health = report.health
    if health["notes"]:
        notes = "".join(f"<li>{escape(str(note))}</li>" for note in health["notes"])
        body.add(f"<h3>Worth a look</h3><ul>{notes}</ul>")
    title = f"Events a {report.period}" if report.timed else "Events by their position"
    named = [name for name in report.activity["event"].unique(maintain_order=True) if name != OTHER]
    note = f"by type, in {report.zone}" if report.timed else "by type; the log has an order and no times"
    says = f"{title}, by type: {', '.join(named)}."
    body.add(body.figure(charts.activity(report), title, note, says))
    users = "; ".join(f"{event} {count:,}" for event, count in report.funnel.iter_rows())
    cut_off = len(report.health["types"]) > STEPS
    funnel = body.figure(
        charts.funnel(report),
        "Users who had each event type",
        f"the {STEPS} with the most users" if cut_off else "and their share of all users",
        f"Users who had each event type: {users}.",
    )
    hours = body.figure(charts.hours(report), "Events by hour of the day", f"in {report.zone}")
    body.add(columns([funnel, hours]))
    body.add("<h3>Health</h3>")
    body.add(columns([*_tables(health)], "three"))
    body.add(_expect(health))


def _facts(report: Report) -> str:
    health = report.health
    facts = {"events": number(health["events"]), "users": number(health["users"])}
    if health["items"]:
        facts["items"] = number(health["items"])
    if health["lengths"]:
        facts["events of a median user"] = number(health["lengths"]["0.5"])
    if health["repeat_share"] is not None:
        facts["repeated targets"] = f"{health['repeat_share']:.0%}"
    facts["left out by cleaning"] = number(sum(health["removed"].values()))
    facts["rows in quarantine"] = number(sum(health["quarantine"].values()))
    cells = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in facts.items())
    return f'<dl class="facts">{cells}</dl>'


def _tables(health: dict[str, Any]) -> list[str]:
    removed = [(health["rules"].get(rule, rule), number(n)) for rule, n in health["removed"].items() if n]
    if health["clipped"]:
        removed.append(("an extreme value, clipped and kept", number(health["clipped"])))
    reasons = sorted(health["quarantine"].items(), key=lambda pair: (-pair[1], pair[0]))
    missing = [(name, f"{share:.1%}") for name, share in health["missing"].items() if share]
    lengths = [(words, number(health["lengths"][q])) for q, words in QUANTILES.items() if q in health["lengths"]]
    types = [(name, f"{n:,}") for name, n in list(health["types"].items())[:STEPS]]
    gaps = [(gap["after"], f"{gap['days']:,} days") for gap in health["gaps"]]
    return [
        small_table("Events by type", ["type", "events"], types),
        small_table("Events of a user, after cleaning", ["users", "events"], lengths),
        small_table("Left out by cleaning", ["because", "events"], removed)
        or "<p class='small soft'>Cleaning leaves nothing out.</p>",
        small_table(
            "Quarantine: rows that never came in", ["reason", "rows"], [(r, number(n)) for r, n in reasons[:REASONS]]
        ),
        small_table("Empty values", ["column", "of events"], missing),
        small_table("Longest silences", ["after", "without an event"], gaps),
    ]


def _expect(health: dict[str, Any]) -> str:
    """What order is worth in this log, in words."""
    order, said = health["order"], []
    item, kind = order.get("item"), order.get("type")
    if item is not None:
        said.append(f"HR@10 of the next item is {item['true']:.3f} against {item['shuffled']:.3f}, {_verdict(item)}")
    if kind is not None:
        said.append(f"log-loss of the next type {kind['true']:.3f} against {kind['shuffled']:.3f}, {_verdict(kind)}")
    if not said:
        return ""
    return (
        "<p class='small soft'>Does order matter here? A simple Markov rule was asked with the true history and with a "
        f"shuffled one: {escape('; '.join(said))}.</p>"
    )


def _verdict(found: dict[str, Any]) -> str:
    if found["low"] > 0:
        return "so order helps"
    return "so order does not help" if found["high"] < 0 else "no clear difference"
