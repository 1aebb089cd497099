"""The charts of churn: who would be caught, when people come back, the season's levels, the profit of a list."""

from __future__ import annotations

import math
from typing import Any

import polars as pl

from desireline.decide.retention import Decision
from desireline.evaluation.result import Result, Row
from desireline.report.charts import ACCENT, BLUE, COLOURS, SHORT, SOFT, STAMP, altair, finished
from desireline.report.leaving import Leaving
from desireline.tasks.churn.definition import DAY_US

RULES = ("recency", "rfm")  # that the chosen row is held against
GROUPS = {"all": SOFT, "low value": COLOURS[0], "middle value": COLOURS[2], "high value": COLOURS[1]}


def caught_rows(result: Result) -> list[Row]:
    """The rows of the gains chart: the chosen one (else the networks), then the rules."""
    there = [row for row in result.rows if row.plots.get("gains")]
    first = [row for row in there if row.name == result.chosen or (result.chosen is None and row.kind == "model")]
    return first + [row for row in there if row.name in RULES and row not in first]


def caught_at(row: Row, contacted: float) -> float:
    """The share of those who left among a share of the likeliest users."""
    return next(float(p["caught"]) for p in row.plots["gains"] if p["contacted"] >= contacted - 1e-9)


def gains(result: Result) -> dict[str, Any] | None:
    """The share of leavers caught by the share of users contacted, likeliest first; None without points."""
    rows = caught_rows(result)
    if not rows:
        return None
    alt = altair()
    begin = {"contacted": 0.0, "caught": 0.0}
    points = [{"row": row.name} | point for row in rows for point in [begin, *row.plots["gains"]]]
    names = [row.name for row in rows]
    others = iter([colour for colour in COLOURS if colour != ACCENT] * len(names))
    colours = [ACCENT if name == result.chosen else next(others) for name in names]
    scale = alt.Scale(domain=[0, 1], nice=False)
    x = alt.X(
        "contacted:Q", title="share of users contacted", scale=scale, axis=alt.Axis(format="%", tickCount=5, grid=False)
    )
    y = alt.Y(
        "caught:Q", title="share of leavers among them", scale=scale, axis=alt.Axis(format="%", tickCount=5, grid=True)
    )
    chance = alt.Chart(alt.Data(values=[begin, {"contacted": 1.0, "caught": 1.0}]))
    lines = alt.Chart(alt.Data(values=points)).mark_line(strokeWidth=2, point={"size": 18})
    lines = lines.encode(
        x=x,
        y=y,
        color=alt.Color("row:N", scale=alt.Scale(domain=names, range=colours), legend=alt.Legend()),
        tooltip=["row:N", *(alt.Tooltip(f"{name}:Q", format=".0%") for name in ("contacted", "caught"))],
    )
    return finished(chance.mark_line(strokeDash=[4, 4], color=SOFT).encode(x=x, y=y) + lines, 260)


def survival(leaving: Leaving) -> dict[str, Any] | None:
    """The share still away by days, a line a group, the horizon as a rule; None without an occasion."""
    if not leaving.survival["occasions"].sum():
        return None
    alt = altair()
    names = leaving.survival["group"].unique(maintain_order=True).to_list()
    scale = alt.Scale(domain=names, range=[GROUPS[name] for name in names])
    lines = alt.Chart(alt.Data(values=leaving.survival.to_dicts())).mark_line(strokeWidth=2)
    lines = lines.encode(
        x=alt.X("days:Q", title="days since", axis=alt.Axis(grid=False, tickCount=6), scale=alt.Scale(nice=False)),
        y=alt.Y("away:Q", title="not back yet", scale=alt.Scale(domain=[0, 1]), axis=alt.Axis(format="%", tickCount=5)),
        color=alt.Color("group:N", scale=scale, legend=alt.Legend() if len(names) > 1 else None),
        tooltip=["group:N", alt.Tooltip("days:Q", format=".3~g"), alt.Tooltip("away:Q", format=".1%")],
    )
    horizon = alt.Chart(alt.Data(values=[{"days": leaving.definition.horizon_us / DAY_US}]))
    return finished(horizon.mark_rule(strokeDash=[4, 4], color=SOFT).encode(x="days:Q") + lines, 240)


def season(leaving: Leaving) -> dict[str, Any] | None:
    """Levels of past moments, and the present one's forecast with its error; None where fewer than two are known."""
    if leaving.season["known"].sum() < 2:
        return None
    alt = altair()
    rows = leaving.season.with_columns(pl.col("time").dt.strftime(STAMP)).to_dicts()
    past, (now,) = [row for row in rows if row["known"]], [row for row in rows if not row["known"]]
    x = alt.X("time:T", title=None, axis=alt.Axis(grid=False, tickCount=6))
    y = alt.Y("level:Q", title="log odds by the mean", axis=alt.Axis(tickCount=5), scale=alt.Scale(zero=False))
    told = [alt.Tooltip("time:T"), alt.Tooltip("level:Q", format="+.2f")]
    line = alt.Chart(alt.Data(values=past)).mark_line(strokeWidth=2, color=BLUE, point={"size": 40, "color": BLUE})
    drawn = (
        alt.Chart(alt.Data(values=[{"level": 0}])).mark_rule(strokeDash=[4, 4], color=SOFT).encode(y=y)
        + line.encode(x=x, y=y, tooltip=told)
        + alt.Chart(alt.Data(values=[past[-1], now]))
        .mark_line(strokeWidth=1.5, strokeDash=[2, 3], color=ACCENT)
        .encode(x=x, y=y)
    )
    ahead = alt.Chart(alt.Data(values=[now]))
    if math.isfinite(now["low"]):
        drawn += ahead.mark_rule(strokeWidth=2.5, color=ACCENT).encode(x=x, y="low:Q", y2="high:Q")
    return finished(drawn + ahead.mark_point(filled=True, size=110, color=ACCENT).encode(x=x, y=y, tooltip=told), 220)


def profit(decision: Decision) -> dict[str, Any]:
    """Expected profit by the share of users contacted, best first, with its interval; a rule where the list ends."""
    alt = altair()
    x = alt.X(
        "share:Q",
        title="share of users contacted",
        axis=alt.Axis(format="%", tickCount=6, grid=False),
        scale=alt.Scale(domain=[0, 1], nice=False),
    )
    axis = alt.Axis(tickCount=5, labelExpr=SHORT)
    base = alt.Chart(alt.Data(values=decision.curve)).encode(x=x)
    band = base.mark_area(opacity=0.22, color=BLUE).encode(y=alt.Y("low:Q", title=None, axis=axis), y2="high:Q")
    line = base.mark_line(strokeWidth=2, color=BLUE, point={"size": 24, "color": BLUE})
    line = line.encode(
        y=alt.Y("profit:Q", title="expected profit", axis=axis),
        tooltip=[
            alt.Tooltip("share:Q", format=".0%"),
            *(alt.Tooltip(f"{name}:Q", format=",.0f") for name in ("users", "profit", "low", "high")),
        ],
    )
    ends = alt.Chart(alt.Data(values=[{"share": len(decision.contacts) / max(1, decision.users)}]))
    return finished(ends.mark_rule(strokeDash=[4, 4], color=ACCENT).encode(x=x) + band + line, 240)
