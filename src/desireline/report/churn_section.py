"""The chapter on churn, around its table: what leaving means, who would be caught, the season, whom to contact."""

from __future__ import annotations

import math
from html import escape

from desireline.core.words import duration
from desireline.decide.retention import Decision
from desireline.evaluation.result import Result
from desireline.report import churn_charts as charts
from desireline.report.body import Body, columns, number, small_table
from desireline.report.leaving import COST, Leaving
from desireline.tasks.churn.definition import COVERED

SHOWN = 20  # users of the list
TOLD = 0.1  # share of users contacted that is told in words


def defined(leaving: Leaving) -> str:
    """What leaving means here, in words, and how it was chosen."""
    of, word = leaving.definition, escape(leaving.word)
    sooner = f", or for {of.own_gaps:g} of the user's own median gaps if that is sooner" if of.own_gaps else ""
    begin = f", counted from {duration(of.gap_us / 1e6)} after the question on" if of.gap_us else ""
    said = (
        f"<strong>Gone is who has no {word} for {duration(of.horizon_us / 1e6)}{sooner}{begin};</strong> asked about "
        f"is who had an event in the last {duration(of.active_us / 1e6)} and {_a(word)} ever. "
        if of.by == "purchase"
        else f"<strong>Gone is who has no event of any type for {duration(of.horizon_us / 1e6)}{sooner}{begin};"
        f"</strong> asked about is who had one in the last {duration(of.active_us / 1e6)}. "
    )
    if leaving.is_chosen:
        said += (
            f"The horizon was read off the log before the cut: the shortest usual span that {COVERED:.0%} of the gaps "
            "between two occasions of a user do not exceed, as far as the log is long enough."
        )
    else:
        said += "The horizon was set by hand (<code>churn.horizon_d</code>)."
    return f"<p>{said}</p>"


def churn_section(body: Body, leaving: Leaving | None, result: Result | None) -> None:
    """Write what follows the table; `leaving` is None where no model answers, `result` where no table was kept."""
    if leaving is not None:
        _coming_back(body, leaving)
    if result is not None:
        _caught(body, result)
    if leaving is not None:
        _season(body, leaving)
        _list(body, leaving)


def _coming_back(body: Body, leaving: Leaving) -> None:
    what = f"{leaving.occasion} with {_a(leaving.word)}"
    body.add("<h3>When do people come back?</h3>")
    horizon = duration(leaving.definition.horizon_us / 1e6)
    rows = [
        (duration(step["horizon_d"] * 86_400), f"{step['gaps_covered']:.0%}", f"{step['away']:.0%}")
        for step in leaving.ladder
    ]
    groups = leaving.survival.unique("group", keep="first", maintain_order=True)
    counts = ", ".join(f"{name} {count:,}" for name, count in groups.select("group", "occasions").iter_rows())
    away = next((step["away"] for step in leaving.ladder if _is_horizon(step, leaving)), float("nan"))
    chart = body.figure(
        charts.survival(leaving),
        f"Not back yet, by days since {_a(what)}",
        f"Kaplan and Meier; dashed: the horizon of {horizon}",
        f"Share of users not back by days since {_a(what)}: after {horizon} {away:.0%} of all.",
    )
    thirds = " Thirds are of the value that a user had brought in the year until then." if groups.height > 1 else ""
    table = small_table(
        "The horizon and its neighbours", ["horizon", "of closed gaps are no longer", "not back by then"], rows
    )
    note = (
        f'<p class="small soft">Begun by each {escape(what)} ({escape(counts)}), ended by the next one or by the '
        f"log&#x27;s end, which counts as not known.{thirds}</p>"
    )
    body.add(columns([chart, f"<div>{table}{note}</div>"]))


def _is_horizon(step: dict[str, float], leaving: Leaving) -> bool:
    return round(step["horizon_d"] * 86_400e6) == leaving.definition.horizon_us


def _caught(body: Body, result: Result) -> None:
    rows = charts.caught_rows(result)
    figures = "; ".join(f"{row.name} {charts.caught_at(row, TOLD):.0%}" for row in rows)
    chart = body.figure(
        charts.gains(result),
        "Leavers caught by users contacted",
        "on the test, likeliest first; dashed: contacts at random",
        f"Share of those who left among the {TOLD:.0%} likeliest of the test: {figures}.",
    )
    if chart:
        words = f"Among the {TOLD:.0%} likeliest of the test stand, of all who left: {figures}."
        note = (
            '<p class="soft">Who is likeliest to leave is not who is likeliest to be kept: see the experiment below '
            "the list.</p>"
        )
        body.add(f"<h3>Who would be caught?</h3>{columns([chart, f'<div><p>{escape(words)}</p>{note}</div>'])}")


def _season(body: Body, leaving: Leaving) -> None:
    chart = charts.season(leaving)
    if chart is None:
        return
    low, level, high = leaving.season.select("low", "level", "high").row(-1)
    ground = (
        "It rests on the same season a year earlier and on what has changed since."
        if leaving.knows_year
        else "The log holds no same season a year earlier, so it is drawn from the newest known level towards the mean."
    )
    words = (
        f"The same user is likelier to stay away at one moment than at another. Levels of past moments are known; the "
        f"present one is a forecast: {level:+.2f} in log odds, between {low:+.2f} and {high:+.2f} two times in three. "
        f"Who would leave with 50% at the usual level leaves with {_share(low):.0%} to {_share(high):.0%} now. {ground}"
    )
    figure = body.figure(
        chart,
        "Level of leaving at past moments, and now",
        "0 is the mean; above it people stay away more than usual; orange: forecast, with its standard error",
        f"Levels of {leaving.season.height - 1} past moments; now {level:+.2f} is expected.",
    )
    body.add(f"<h3>The season</h3>{columns([figure, f'<div><p>{escape(words)}</p></div>'])}")


def _share(log_odds: float) -> float:
    """The share that log odds stand for."""
    return 1 / (1 + math.exp(-log_odds))


def _list(body: Body, leaving: Leaving) -> None:
    body.add("<h3>Whom would it pay to contact?</h3>")
    found = leaving.decision
    if found is None:
        body.add(f'<p class="soft">{escape(leaving.undecided)}</p>')
        return
    a = found.assumptions
    body.add(
        f"<p>Nobody has told what a contact costs or achieves, so this is assumed: a contact costs {_money(a.cost)} "
        f"({COST:.0%} of the mean yearly value of a user, rounded), keeps {a.accept:.0%} of those who would leave, "
        f"makes no offer, and all value is profit; the budget is {_money(found.budget)}. With your own figures: "
        f"<code>desireline decide DIR churn --budget … --cost … --accept … --margin …</code></p>"
    )
    everybody = _money(found.curve[-1]["profit"])
    chart = body.figure(
        charts.profit(found),
        "Expected profit by users contacted",
        "best first, 95 % interval over users; dashed: where the list ends",
        f"Expected profit of the list {_money(found.profit)}, of contacting everybody {everybody}.",
    )
    changed = [
        (f"{told['assumption']} {told['value']:g}", f"{told['contacts']:,}", _money(told["profit"]))
        for told in found.sensitivity
    ]
    swings = small_table("If one assumption is wrong", ["if", "contacts", "expected profit"], changed)
    body.add(columns([chart, f"<div>{_expected(found)}{swings}</div>"]))
    rows = [
        (c.user, f"{c.probability:.0%}", c.segment, _money(c.value), _money(c.profit)) for c in found.contacts[:SHOWN]
    ]
    shown = f"the first {len(rows)} of {len(found.contacts):,}" if len(rows) < len(found.contacts) else "all of it"
    head = ["user", "leaves", "segment", "value of a year", "expected profit"]
    body.add(small_table(f"The list, {shown}", head, rows))
    if needed := found.experiment["users_per_arm"]:
        plan = f"{needed:,} users an arm; {found.experiment['how']}"
        short = (
            " The list is shorter than that: take several rounds together." if 2 * needed > len(found.contacts) else ""
        )
        body.add(f'<p class="soft">To measure what a contact achieves: {escape(plan)}.{short}</p>')


def _expected(found: Decision) -> str:
    beside = ", ".join(
        f"{'at' if name == 'random' else 'by'} {name} {_money(gain)}" for name, gain in found.others.items()
    )
    words = (
        f"{number(len(found.contacts))} of {number(found.users)} users: expected profit {_money(found.profit)} "
        f"[{_money(found.low)}, {_money(found.high)}] for {_money(found.spent)}; the same budget {beside}."
    )
    caution = (
        f"The interval tells how much hangs on few users, not whether the assumptions hold. Uplift: {found.uplift}."
    )
    return f'<p>{escape(words)}</p><p class="small soft">{escape(caution)}</p>'


def _a(word: str) -> str:
    """With its article, as far as the first letter tells."""
    return f"{'an' if word.startswith(('a', 'e', 'i', 'o', 'hour')) else 'a'} {word}"


def _money(value: float) -> str:
    """In the log's unit of value."""
    return f"{value:,.0f}" if abs(value) >= 100 or value == round(value) else f"{value:,.2f}"
