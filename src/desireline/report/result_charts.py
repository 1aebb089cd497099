"""The charts of one result table: intervals, learning curves, calibration."""

from __future__ import annotations

import json
import math
from typing import Any

from desireline.evaluation.result import SCREEN, Result, Row
from desireline.report.charts import ACCENT, BLUE, COLOURS, SOFT, altair, finished
from desireline.tasks import TASKS

OTHERS = 3  # metrics drawn beside the primary one
PIT_ROWS = 3  # histograms drawn at most, the chosen row first
TRUTH = {"churn": ("probability of leaving", "share that left")}  # what reliability holds against each other
LABEL_PX = 7  # of one letter of a row's name, about


def is_loss(task: str, metric: str) -> bool:
    """Whether less is better."""
    return task in TASKS and TASKS[task].is_loss(metric)


def ranked(result: Result) -> list[Row]:
    """The rows by the primary metric, best first; those without a figure last."""
    sign = 1.0 if is_loss(result.task, result.primary) else -1.0

    def place(row: Row) -> float:
        metric = row.metrics.get(result.primary)
        return sign * metric.value if metric is not None and math.isfinite(metric.value) else math.inf

    return sorted(result.rows, key=place)


def drawn_metrics(result: Result) -> list[str]:
    """The primary metric and a few more that some row has."""
    there = {name for row in result.rows for name, m in row.metrics.items() if math.isfinite(m.value)}
    others = [name for name in SCREEN.get(result.task, ()) if name in there and name != result.primary]
    return [name for name in [result.primary, *others[:OTHERS]] if name in there]


def intervals(result: Result, metric: str) -> dict[str, Any]:
    """Each row's figure as a dot with its interval, the rows in the same order in every chart of this result."""
    alt = altair()
    order = [row.name for row in ranked(result)]
    rows = [
        {"name": r.name, "value": m.value, "low": m.low, "high": m.high, "chosen": r.name == result.chosen}
        | {"kind": "network" if r.kind == "model" else "baseline"}
        for r in ranked(result)
        if (m := r.metrics.get(metric)) is not None and all(map(math.isfinite, (m.value, m.low, m.high)))
    ]
    bold = {"test": f"datum.value === {json.dumps(result.chosen)}", "value": "bold"}
    room = 12 + LABEL_PX * max(len(name) for name in order)  # the same in every chart, so that they line up
    axis = alt.Axis(
        domain=False, ticks=False, grid=True, minExtent=room, labelFontWeight={"condition": bold, "value": "normal"}
    )
    shape = alt.Shape(
        "kind:N", scale=alt.Scale(domain=["baseline", "network"], range=["circle", "diamond"]), legend=None
    )
    base = alt.Chart(alt.Data(values=rows)).encode(
        y=alt.Y("name:N", sort=None, scale=alt.Scale(domain=order), title=None, axis=axis),
        color=alt.condition("datum.chosen", alt.value(ACCENT), alt.value(BLUE)),
        tooltip=["name:N", *(alt.Tooltip(f"{end}:Q", format=".4f") for end in ("value", "low", "high"))],
    )
    x = alt.X("low:Q", title=None, scale=alt.Scale(zero=False), axis=alt.Axis(tickCount=5, grid=False, format="~g"))
    whiskers = base.mark_rule(strokeWidth=2).encode(x=x, x2="high:Q")
    dots = base.mark_point(filled=True, opacity=1).encode(
        x="value:Q", shape=shape, size=alt.condition("datum.chosen", alt.value(130), alt.value(80))
    )
    return finished(whiskers + dots, 24 * len(order) + 6)


def curves(result: Result, key: str) -> dict[str, Any] | None:
    """`losses` or `validations` by epoch, a line a seed, the kept epoch as a larger dot; None without a network."""
    alt = altair()
    # validations are kept so that more is better: a loss is turned back to what it is called
    sign = -1.0 if key == "validations" and is_loss(result.task, result.primary) else 1.0
    rows = [
        {"row": row.name, "line": f"{row.name} {seed}", "epoch": epoch, "value": sign * value}
        | {"kept": epoch == curve.get("best_epoch")}
        for row in result.rows
        for seed, curve in enumerate(row.curves)
        for epoch, value in enumerate(curve.get(key, []), 1)
        if math.isfinite(value)
    ]
    if not rows:
        return None
    last = max(row["epoch"] for row in rows)
    names = list(dict.fromkeys(row["row"] for row in rows))
    axis = alt.Axis(values=list(range(1, last + 1, -(-last // 10))), grid=False, format="d")
    base = alt.Chart(alt.Data(values=rows)).encode(
        x=alt.X("epoch:Q", axis=axis, scale=alt.Scale(domain=[1, max(2, last)])),
        y=alt.Y("value:Q", title=None, scale=alt.Scale(zero=False), axis=alt.Axis(tickCount=5, format="~g")),
        color=_named(alt, names, result),
        tooltip=["row:N", "epoch:Q", alt.Tooltip("value:Q", format=".4f")],
    )
    points = base.mark_point(filled=True, opacity=1).encode(
        size=alt.condition("datum.kept", alt.value(90), alt.value(22))
    )
    return finished(base.mark_line(strokeWidth=1.8).encode(detail="line:N") + points)


def _named(alt: Any, names: list[str], result: Result) -> Any:
    """A colour a row; the chosen row has the one that is kept for it."""
    others = iter([colour for colour in COLOURS if colour != ACCENT] * len(names))
    colours = [ACCENT if name == result.chosen else next(others) for name in names]
    return alt.Color("row:N", scale=alt.Scale(domain=names, range=colours), legend=alt.Legend())


def calibrated_rows(result: Result, plot: str) -> list[Row]:
    """The rows that have a plot, of baselines the chosen one only: it first, then the networks."""
    rows = [row for row in ranked(result) if row.plots.get(plot)]
    kept = [row for row in rows if row.kind == "model" or row.name == result.chosen]
    return sorted(kept or rows[:1], key=lambda row: row.name != result.chosen)


def reliability(result: Result) -> dict[str, Any] | None:
    """Share that came true against the probability given; on the diagonal a probability means what it says."""
    alt = altair()
    rows = [
        {"row": row.name} | point
        for row in calibrated_rows(result, "reliability")
        for point in row.plots["reliability"]
    ]
    if not rows:
        return None
    low = math.floor(10 * min(min(r["confidence"], r["right"]) for r in rows)) / 10
    low = min(low, 0.9)
    scale = alt.Scale(domain=[low, 1], nice=False)
    given, came = TRUTH.get(result.task, ("probability given to the likeliest type", "share right"))
    honest = alt.Chart(alt.Data(values=[{"x": low, "y": low}, {"x": 1, "y": 1}])).mark_line(
        strokeDash=[4, 4], color=SOFT
    )
    points = (
        alt.Chart(alt.Data(values=rows))
        .mark_point(filled=True, size=60, opacity=0.9)
        .encode(
            x=alt.X("confidence:Q", title=given, scale=scale),
            y=alt.Y("right:Q", title=came, scale=scale),
            color=_named(alt, list(dict.fromkeys(r["row"] for r in rows)), result),
            tooltip=["row:N", *(alt.Tooltip(f"{n}:Q", format=".3f") for n in ("confidence", "right")), "n:Q"],
        )
    )
    axis = alt.Axis(format="%", tickCount=5)
    ground = honest.encode(x=alt.X("x:Q", scale=scale, axis=axis), y=alt.Y("y:Q", scale=scale, axis=axis))
    return finished(ground + points, 260)


def pit(result: Result) -> list[tuple[str, dict[str, Any]]]:
    """PIT histograms of the waiting time, a row each: a right forecast is flat at 1."""
    alt = altair()
    shown = calibrated_rows(result, "pit")[:PIT_ROWS]
    most = max([1.5, *(height for row in shown for height in row.plots["pit"] if math.isfinite(height))])
    made = []
    for row in shown:
        heights = row.plots["pit"]
        bars = [
            {"from": (k + 0.05) / len(heights), "to": (k + 0.95) / len(heights), "density": height, "ground": 0}
            for k, height in enumerate(heights)
            if math.isfinite(height)
        ]
        colour = ACCENT if row.name == result.chosen else BLUE
        chart = alt.Chart(alt.Data(values=bars)).mark_rect(color=colour)
        chart = chart.encode(
            x=alt.X("from:Q", title=None, scale=alt.Scale(domain=[0, 1]), axis=alt.Axis(format="%", grid=False)),
            x2="to",
            y=alt.Y("density:Q", title=None, scale=alt.Scale(domain=[0, most]), axis=alt.Axis(tickCount=4)),
            y2="ground",
            tooltip=[alt.Tooltip("from:Q", format=".0%"), alt.Tooltip("density:Q", format=".2f")],
        )
        flat = alt.Chart(alt.Data(values=[{"y": 1}])).mark_rule(strokeDash=[4, 4], color=SOFT).encode(y="y:Q")
        made.append((row.name, finished(chart + flat, 150)))
    return made
