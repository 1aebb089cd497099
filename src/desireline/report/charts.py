"""The report's charts as Vega-Lite specifications: plain dicts, drawn in the reader's browser."""

from __future__ import annotations

from typing import Any

import polars as pl

from desireline.core.errors import SettingError
from desireline.evaluation.result import Result
from desireline.report.gather import Example, Report

INK, SOFT, ACCENT = "#7d8590", "#8b949e", "#d9730d"
HEIGHT = 190
LOSSES = ("log-loss", "ECE", "CRPS")  # less is better


def _altair() -> Any:
    try:
        import altair
    except ImportError as error:
        raise SettingError("The report needs an extra: pip install 'desireline[report]'.") from error
    return altair


def _finished(chart: Any, height: int = HEIGHT) -> dict[str, Any]:
    """Sized to its box, transparent, in colours that hold on light and on dark ground."""
    made: dict[str, Any] = (
        chart.properties(width="container", height=height, background="transparent")
        .configure_view(stroke=None)
        .configure_axis(
            labelColor=INK, titleColor=INK, gridColor="#80808033", domainColor="#80808066", tickColor="#80808066"
        )
        .configure_legend(labelColor=INK, titleColor=INK, orient="top", title=None)
        .configure_text(color=INK)
        .configure_range(category=["#2f81b7", "#d9730d", "#3f9c6b", "#a371c9", "#c9a227", "#c94f6d"])
        .to_dict()
    )
    return made


def activity(report: Report) -> dict[str, Any]:
    """Events a period, by type."""
    alt = _altair()
    time = alt.X("period:T", title=None) if report.timed else alt.X("place:Q", title="position in the history")
    rows = report.activity.with_columns(place=pl.col("period").dt.epoch("s"))
    table = rows.with_columns(period=pl.col("period").dt.strftime("%Y-%m-%dT%H:%M:%SZ")).to_dicts()
    chart = alt.Chart(alt.Data(values=table)).mark_area(opacity=0.85, interpolate="monotone")
    return _finished(
        chart.encode(
            x=time, y=alt.Y("events:Q", title="events", stack=True), color="event:N", tooltip=["event:N", "events:Q"]
        )
    )


def funnel(report: Report) -> dict[str, Any]:
    """Users who had each event type."""
    alt = _altair()
    base = alt.Chart(alt.Data(values=report.funnel.to_dicts())).encode(
        y=alt.Y("event:N", sort=None, title=None), x=alt.X("users:Q", title="users who did it at least once")
    )
    return _finished(
        base.mark_bar(color="#2f81b7", height={"band": 0.7})
        + base.mark_text(align="left", dx=4).encode(text=alt.Text("users:Q", format=",")),
        40 + 34 * report.funnel.height,
    )


def intervals(result: Result, metric: str) -> dict[str, Any]:
    """Each row's figure as a dot with its interval; the chosen row in colour."""
    alt = _altair()
    rows = [
        {
            "name": r.name,
            "value": m.value,
            "low": m.low,
            "high": m.high,
            "chosen": r.name == result.chosen,
            "kind": r.kind,
        }
        for r in result.rows
        if (m := r.metrics.get(metric)) is not None and m.value == m.value
    ]
    base = alt.Chart(alt.Data(values=rows)).encode(
        y=alt.Y(
            "name:N",
            sort=alt.EncodingSortField("value", order="ascending" if metric in LOSSES else "descending"),
            title=None,
        ),
        color=alt.condition("datum.chosen", alt.value(ACCENT), alt.value("#2f81b7")),
        tooltip=[
            "name:N",
            alt.Tooltip("value:Q", format=".4f"),
            alt.Tooltip("low:Q", format=".4f"),
            alt.Tooltip("high:Q", format=".4f"),
        ],
    )
    bars = base.mark_rule(strokeWidth=2).encode(
        x=alt.X("low:Q", title=metric, scale=alt.Scale(zero=False)), x2="high:Q"
    )
    return _finished(bars + base.mark_point(filled=True, size=70, opacity=1).encode(x="value:Q"), 30 + 22 * len(rows))


def curves(result: Result) -> dict[str, Any] | None:
    """Loss and validation by epoch, a line a seed; None when no network was trained."""
    alt = _altair()
    rows = [
        {"encoder": row.name, "seed": str(seed), "epoch": epoch + 1, "value": value, "what": what}
        for row in result.rows
        for seed, curve in enumerate(row.curves)
        for what, key in (("training loss", "losses"), (f"validation {result.primary}", "validations"))
        for epoch, value in enumerate(curve.get(key, []))
    ]
    if not rows:
        return None
    lines = (
        alt.Chart(alt.Data(values=rows))
        .mark_line(point=True, strokeWidth=1.6)
        .encode(
            x=alt.X("epoch:Q", axis=alt.Axis(tickMinStep=1)),
            y=alt.Y("value:Q", title=None, scale=alt.Scale(zero=False)),
            color="encoder:N",
            detail="seed:N",
        )
    )
    parts = [
        lines.transform_filter(alt.datum.what == what).properties(title=what, width=300, height=HEIGHT)
        for what in sorted({r["what"] for r in rows})
    ]
    chart = alt.hconcat(*parts).configure_title(color=INK, fontSize=12, anchor="start")
    made: dict[str, Any] = (
        chart.properties(background="transparent")
        .configure_view(stroke=None)
        .configure_axis(labelColor=INK, titleColor=INK, gridColor="#80808033", domainColor="#80808066")
        .configure_legend(labelColor=INK, titleColor=INK, orient="top", title=None)
        .to_dict()
    )
    return made


def reliability(result: Result) -> dict[str, Any] | None:
    """Share right against confidence for every row that has it; the diagonal is honest."""
    alt = _altair()
    rows = [
        {"name": row.name, **point}
        for row in result.rows
        if row.name == result.chosen or row.kind == "model"
        for point in row.plots.get("reliability", [])
    ]
    if not rows:
        return None
    low = min(min(r["confidence"], r["right"]) for r in rows)
    honest = alt.Chart(alt.Data(values=[{"x": low, "y": low}, {"x": 1, "y": 1}])).mark_line(
        strokeDash=[4, 4], color=SOFT
    )
    points = alt.Chart(alt.Data(values=rows)).mark_line(point=True)
    scale = alt.Scale(domain=[low, 1])
    return _finished(
        honest.encode(x=alt.X("x:Q", scale=scale), y=alt.Y("y:Q", scale=scale))
        + points.encode(
            x=alt.X("confidence:Q", title="probability given to the likeliest type", scale=scale),
            y=alt.Y("right:Q", title="share right", scale=scale),
            color="name:N",
        )
    )


def pit(result: Result) -> dict[str, Any] | None:
    """PIT histogram of the waiting time; a right forecast is flat at 1."""
    alt = _altair()
    rows = [
        {"name": row.name, "level": (k + 0.5) / len(heights), "density": height}
        for row in result.rows
        if row.name == result.chosen or row.kind == "model"
        for heights in [row.plots.get("pit", [])]
        for k, height in enumerate(heights)
    ]
    if not rows:
        return None
    flat = alt.Chart(alt.Data(values=[{"y": 1}])).mark_rule(strokeDash=[4, 4], color=SOFT).encode(y="y:Q")
    steps = (
        alt.Chart(alt.Data(values=rows))
        .mark_line(interpolate="step")
        .encode(
            x=alt.X("level:Q", title="predicted probability of having come by then", scale=alt.Scale(domain=[0, 1])),
            y=alt.Y("density:Q", scale=alt.Scale(zero=True)),
            color="name:N",
        )
    )
    return _finished(flat + steps)


def timeline(example: Example, timed: bool) -> dict[str, Any]:
    """One user's latest events."""
    alt = _altair()
    rows = example.events.with_columns(
        place=pl.int_range(pl.len()),
        time=pl.col("time").dt.strftime("%Y-%m-%dT%H:%M:%SZ"),
        item=pl.col("item").fill_null(""),
    ).to_dicts()
    x = alt.X("time:T", title=None) if timed else alt.X("place:Q", title="position")
    chart = alt.Chart(alt.Data(values=rows)).mark_tick(thickness=2, size=22, opacity=0.8)
    return _finished(
        chart.encode(
            x=x,
            y=alt.Y("event:N", title=None),
            color=alt.Color("event:N", legend=None),
            tooltip=["event:N", "item:N", "time:N"],
        ),
        30 + 30 * example.events["event"].n_unique(),
    )
