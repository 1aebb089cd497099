"""The log's charts as Vega-Lite specifications: plain dicts, drawn in the reader's browser.

Colours of text, axes and grids are set by the page's style sheet, which knows light from dark; only marks carry theirs.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import polars as pl

from desireline.core.errors import SettingError
from desireline.report.gather import OTHER, Example, Report

BLUE, ACCENT, SOFT = "#3a86c8", "#e07b1a", "#8b949e"
COLOURS = [BLUE, ACCENT, "#3f9c6b", "#a371c9", "#c9a227", "#c94f6d"]  # told apart on light and on dark ground
HEIGHT = 200
SHORT = "format(datum.value, '~s')"  # 1200 as 1.2k
STAMP = "%Y-%m-%dT%H:%M:%S"


def altair() -> Any:
    """The module. Raises SettingError when the extra `report` is not installed."""
    try:
        import altair as module
    except ImportError as error:
        raise SettingError("The report needs an extra: pip install 'desireline[report]'.") from error
    return module


def finished(chart: Any, height: int = HEIGHT) -> dict[str, Any]:
    """As a specification, sized to its box, on no ground of its own."""
    made: dict[str, Any] = (
        chart.properties(width="container", height=height, background="transparent")
        .configure(font="system-ui, sans-serif", padding={"left": 4, "right": 12, "top": 6, "bottom": 4})
        .configure_view(stroke=None)
        .configure_axis(labelFontSize=12, titleFontSize=12, titleFontWeight="normal", labelLimit=190)
        .configure_legend(orient="top", title=None, labelFontSize=12, symbolType="square", labelLimit=220)
        .configure_range(category=COLOURS)
        .to_dict()
    )
    return made


def type_colours(alt: Any, types: list[str], legend: bool) -> Any:
    """One colour an event type, in the order of `types`."""
    colours = [SOFT if name == OTHER else COLOURS[place % len(COLOURS)] for place, name in enumerate(types)]
    scale = alt.Scale(domain=types, range=colours)
    return alt.Color("event:N", scale=scale, legend=alt.Legend() if legend and len(types) > 1 else None)


def activity(report: Report) -> dict[str, Any] | None:
    """Events a period, by type, stacked; silent periods are gaps. None for a log without a possible time."""
    alt = altair()
    table, types = report.activity, report.activity["event"].unique(maintain_order=True).to_list()
    if table.height == 0:
        return None
    if report.timed:
        table = table.with_columns(pl.col("start", "end").dt.strftime(STAMP))
        x, when = alt.X("start:T", title=None, axis=alt.Axis(grid=False, tickCount=6)), alt.Tooltip("start:T")
    else:
        axis = alt.Axis(grid=False, tickMinStep=1)
        x, when = alt.X("start:Q", title="position", scale=alt.Scale(zero=False), axis=axis), alt.Tooltip("start:Q")
    top = pl.col("events").cum_sum().over("start")  # the types' order is the table's
    rows = table.with_columns(top=top, bottom=top - pl.col("events")).filter(pl.col("events") > 0)
    chart = alt.Chart(alt.Data(values=rows.to_dicts())).mark_rect(stroke=None)
    return finished(
        chart.encode(
            x=x,
            x2="end",
            y=alt.Y("bottom:Q", title=None, axis=alt.Axis(tickCount=4, labelExpr=SHORT), scale=alt.Scale(zero=True)),
            y2="top",
            color=type_colours(alt, types, legend=True),
            tooltip=[when, "event:N", alt.Tooltip("events:Q", format=",")],
        ),
        230,
    )


def hours(report: Report) -> dict[str, Any] | None:
    """Events by the hour of the day; None where the log's clock knows no hours."""
    clock = report.health["clock"]
    if not report.timed or clock["step"] == "day":
        return None
    alt = altair()
    rows = [
        {"hour": hour, "from": hour + 0.06, "to": hour + 0.94, "events": n, "ground": 0}
        for hour, n in enumerate(report.health["hours"])
    ]
    ticks = alt.Axis(values=[0, 6, 12, 18, 24], grid=False, format="02d")
    return finished(
        alt.Chart(alt.Data(values=rows))
        .mark_rect(color=BLUE)
        .encode(
            x=alt.X("from:Q", title=None, axis=ticks, scale=alt.Scale(domain=[0, 24])),
            x2="to",
            y=alt.Y("events:Q", title=None, axis=alt.Axis(tickCount=3, labelExpr=SHORT)),
            y2="ground",
            tooltip=["hour:Q", alt.Tooltip("events:Q", format=",")],
        ),
        150,
    )


def funnel(report: Report) -> dict[str, Any]:
    """Users who had each event type, with their share of all users."""
    alt = altair()
    total = max(1, report.health["users"])
    rows = [
        {"event": event, "users": users, "share": users / total, "label": f"{users:,} · {share(users, total)}"}
        for event, users in report.funnel.iter_rows()
    ]
    most = max(1, *(row["users"] for row in rows))
    scale = alt.Scale(domain=[0, most * 1.3])  # room for the words behind the longest bar
    base = alt.Chart(alt.Data(values=rows)).encode(
        y=alt.Y("event:N", sort=None, title=None, axis=alt.Axis(domain=False, ticks=False)),
        x=alt.X("users:Q", title=None, axis=None, scale=scale),
        tooltip=["event:N", alt.Tooltip("users:Q", format=","), alt.Tooltip("share:Q", format=".1%")],
    )
    bars = base.mark_bar(color=BLUE, height={"band": 0.66}, cornerRadiusEnd=3)
    return finished(bars + base.mark_text(align="left", dx=6, fontSize=12).encode(text="label:N"), 34 * len(rows) + 8)


def share(part: int, whole: int) -> str:
    """A share in words that says 100 % and 0 % only where it is all or none."""
    rounded = f"{part / whole:.0%}"
    return f"{part / whole:.1%}" if rounded in ("0%", "100%") and part not in (0, whole) else rounded


def timeline(example: Example, report: Report) -> dict[str, Any]:
    """One user's latest moments, a dot a type and moment, larger for more events; ahead the expected next event."""
    alt = altair()
    types = report.activity["event"].unique(maintain_order=True).to_list()
    types += [name for name in example.moments["event"].unique(maintain_order=True) if name not in types]
    moments = example.moments.select("time", "event", "count", items=pl.col("items").list.head(4).list.join(", "))
    if report.timed:
        wall = pl.col("time").dt.convert_time_zone(report.zone).dt.replace_time_zone(None)
        moments = moments.with_columns(wall.dt.strftime(STAMP))
        x, when = (
            alt.X("time:T", title=None, axis=alt.Axis(tickCount=4, grid=False, labelOverlap=True)),
            alt.Tooltip("time:T"),
        )
    else:
        moments = moments.with_columns(time=pl.int_range(pl.len()) - pl.len() + 1)
        axis = alt.Axis(tickMinStep=1, grid=False, tickCount=6)
        x, when = alt.X("time:Q", title="events back from the last", axis=axis), alt.Tooltip("time:Q")
    here = [name for name in types if name in set(moments["event"])]
    ahead = _ahead(example, report)
    shown = [*here, *([ahead["event"]] if ahead and ahead["event"] not in here else [])]
    y = alt.Y(
        "event:N",
        title=None,
        scale=alt.Scale(domain=shown),
        axis=alt.Axis(grid=True, ticks=False, domain=False, labelPadding=14),
    )
    dots = (
        alt.Chart(alt.Data(values=moments.to_dicts()))
        .mark_circle(opacity=0.65)
        .encode(
            x=x,
            y=y,
            color=type_colours(alt, types, legend=False),
            size=alt.Size("count:Q", legend=None, scale=alt.Scale(type="sqrt", range=[60, 420], domainMin=1)),
            tooltip=[when, "event:N", alt.Tooltip("count:Q", title="events"), alt.Tooltip("items:N")],
        )
    )
    if ahead:
        base = alt.Chart(alt.Data(values=[ahead])).encode(y=y)
        dots = (
            alt.Chart(alt.Data(values=[ahead])).mark_rule(strokeDash=[3, 3], color=SOFT).encode(x="now:T")
            + dots
            + base.mark_rule(strokeWidth=3, color=ACCENT, strokeCap="round").encode(x="low:T", x2="high:T")
            + base.mark_point(shape="diamond", filled=True, size=130, color=ACCENT, opacity=1).encode(x="median:T")
        )
    return finished(dots, 40 + 34 * len(shown))


def _ahead(example: Example, report: Report) -> dict[str, Any] | None:
    """The likeliest type and the interval of its time, cut off at half of the shown span."""
    answer = example.answers.get("next_event", {})
    wait = answer.get("time_to_next") or {}
    if not report.timed or wait.get("median_s") is None or not answer.get("events"):
        return None
    now, first = datetime.fromisoformat(answer["as_of"]), example.moments["time"][0]
    room = max(3600.0, (now - first).total_seconds() / 2)
    ahead = {"now": 0.0, "low": wait["p10_s"], "median": wait["median_s"], "high": wait["p90_s"]}
    zone = ZoneInfo(report.zone)
    times = {name: now + timedelta(seconds=min(seconds, room)) for name, seconds in ahead.items()}
    said: dict[str, Any] = {name: time.astimezone(zone).strftime(STAMP) for name, time in times.items()}
    if wait["median_s"] > room:  # no dot where it does not belong
        said["median"] = None
    return said | {"event": answer["events"][0]["event"]}
