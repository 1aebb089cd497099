"""The one honest table: rows with intervals, for a terminal, a notebook, a frame and a file."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from html import escape
from typing import Any

import polars as pl
from rich.table import Table

SCREEN = {  # metrics of a task that fit a terminal
    "recommend": ("NDCG@10", "HR@10", "NDCG@10 new", "NDCG@10 repeat", "coverage@10"),
    "churn": ("AUROC", "AUPRC", "lift@10%", "log-loss", "Brier", "ECE"),
    "anomaly": ("AUROC", "AUPRC", "precision@100", "recall@1%", "AUROC placebo"),
    "next_event": ("log-loss", "macro-F1", "ECE", "NDCG@10", "CRPS"),
}


@dataclass(frozen=True)
class Metric:
    """A figure and its interval (95 %, bootstrap over users)."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Row:
    """One model or baseline under one protocol.

    seconds : to fit it, tuning included;  parameters : learnt numbers, 0 for a rule without any.
    """

    name: str
    kind: str  # "model" or "baseline"
    metrics: dict[str, Metric]
    seconds: float
    parameters: int
    settings: dict[str, Any] = field(default_factory=dict)
    seeds: list[int] = field(default_factory=list)
    validation: Metric | None = None  # of the primary metric, on the validation slice
    notes: list[str] = field(default_factory=list)
    curves: list[dict[str, Any]] = field(default_factory=list)  # a seed each: losses and validations an epoch
    plots: dict[str, Any] = field(default_factory=dict)  # points of reliability, gains and PIT plots


@dataclass(frozen=True)
class Result:
    """What `fit`, `compare` and `evaluate` return."""

    task: str
    model: str
    protocol: str  # with its version, as "temporal/1"
    cut: str
    seed: int
    rows: list[Row]
    seconds: float
    peak_rss_mib: float
    primary: str
    chosen: str | None = None
    why: str | None = None
    training: dict[str, Any] | None = None
    notes: list[str] = field(default_factory=list)
    analysis: list[dict[str, Any]] = field(default_factory=list)  # of the chosen row: see selection/analyse.py

    def to_json(self) -> dict[str, Any]:
        """The contract's object; keys without a value are left out."""
        return {key: value for key, value in asdict(self).items() if value is not None}

    @staticmethod
    def from_json(raw: dict[str, Any]) -> Result:
        """The inverse of `to_json`."""
        rows = []
        for row in raw["rows"]:
            metrics = {name: Metric(**m) for name, m in row["metrics"].items()}
            validation = Metric(**row["validation"]) if row.get("validation") else None
            rows.append(Row(**{**row, "metrics": metrics, "validation": validation}))
        return Result(**{**raw, "rows": rows})

    def table(self) -> pl.DataFrame:
        """One row a model: name, kind, each metric with `_low` and `_high`, seconds, parameters; the primary first."""
        there = dict.fromkeys([*self.columns(), *(name for row in self.rows for name in row.metrics)])
        ends = (("", "value"), ("_low", "low"), ("_high", "high"))
        return pl.DataFrame(
            [
                {"name": r.name, "kind": r.kind}
                | {
                    name + end: getattr(r.metrics[name], part) if name in r.metrics else None
                    for name in there
                    for end, part in ends
                }
                | {"seconds": r.seconds, "parameters": r.parameters}
                for r in self.rows
            ],
            infer_schema_length=None,
        )

    def columns(self) -> list[str]:
        """The metrics that fit a screen, the primary first; `table` has all."""
        there = {name for row in self.rows for name in row.metrics}
        return [self.primary, *(n for n in SCREEN.get(self.task, ()) if n in there and n != self.primary)]

    def __rich__(self) -> Table:
        title = f"{self.task} · {self.protocol} · cut {self.cut} · {self.primary} with its 95 % interval over users"
        caption = "\n".join([*([self.why] if self.why else []), *self.notes])
        table = Table(title=title, caption=caption or None, title_justify="left", caption_justify="left", box=None)
        table.add_column("", no_wrap=True)
        for name in self.columns():
            table.add_column(name, justify="right", min_width=23 if name == self.primary else 6)
        table.add_column("seconds", justify="right")
        for row in self.rows:
            cells = [_cell(row.metrics.get(name), name == self.primary) for name in self.columns()]
            style = "bold green" if row.name == self.chosen else "" if row.kind == "model" else "dim"
            table.add_row(row.name, *cells, f"{row.seconds:,.1f}", style=style)
        return table

    def _repr_html_(self) -> str:
        names = self.columns()
        lines = [["name", *names, "seconds"]]
        for row in self.rows:
            lines.append([row.name, *(_cell(row.metrics.get(n), True) for n in names), f"{row.seconds:,.1f}"])
        head, *body = ("".join(f"<td>{escape(cell)}</td>" for cell in line) for line in lines)
        caption = f"{escape(self.task)} · {escape(self.protocol)} · cut {escape(self.cut)}"
        rows = "".join(f"<tr>{line}</tr>" for line in body)
        return f"<table><caption>{caption}</caption><tr>{head}</tr>{rows}</table><p>{escape(self.why or '')}</p>"


def _cell(metric: Metric | None, interval: bool) -> str:
    if metric is None:
        return "–"
    return f"{metric.value:.4f} [{metric.low:.4f}, {metric.high:.4f}]" if interval else f"{metric.value:.4f}"
