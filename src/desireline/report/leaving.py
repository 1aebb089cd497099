"""What the report tells of churn beside its table: the definition, when people come back, the season, whom to contact.

Everything is as of the log's end, by the model that answers. Nobody has told what a contact costs or achieves, so the
list rests on plain assumptions that stand beside it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import polars as pl

from desireline.classical.gaps import kaplan_meier, observed_gaps
from desireline.core.errors import DataError
from desireline.decide.retention import SEGMENTS_OUT, Assumptions, Decision, decide
from desireline.events.store import EventStore
from desireline.schema.model import Schema
from desireline.selection import deploy
from desireline.selection.leaving import risks
from desireline.sequences.prepared import Prepared, iso, to_us
from desireline.tasks.churn.definition import DAY_US, Definition, alternatives, is_return
from desireline.tasks.churn.season import Season

POINTS = 60  # of a survival curve
HORIZONS = 3.0  # that it reaches over
YEAR_US = 365 * DAY_US
COST = 0.01  # of a contact, by the mean yearly value of a user, rounded to one digit
CONTACTED = 0.1  # share of the users asked about that the budget pays a contact for


class Workspace(Protocol):
    """What this needs of a workspace."""

    folder: Path
    schema: Schema

    @property
    def store(self) -> EventStore:
        """The event store."""


@dataclass(frozen=True)
class Leaving:
    """Who is leaving, as of the log's end.

    word      : what must stay away, "purchase" or "event"
    is_chosen : whether the horizon was read off the log
    ladder    : the horizon and its neighbours: `horizon_d`, `gaps_covered`, and `away`, the share of occasions after
    which nobody was back by then
    occasion  : what a survival curve begins with: "day" or "hour"
    survival  : group, occasions, days, away: for all and by thirds of the value of the year until then
    season    : time, level, low, high, known: past moments, and last the present one, whose level is a forecast
    knows_year : whether that forecast rests on the same season a year earlier
    decision  : None where `undecided` says why there is none
    """

    word: str
    definition: Definition
    is_chosen: bool
    ladder: list[dict[str, Any]]
    occasion: str
    survival: pl.DataFrame
    season: pl.DataFrame
    knows_year: bool
    decision: Decision | None
    undecided: str


def gather_leaving(workspace: Workspace) -> Leaving:
    """Of the model that answers for churn. Raises UnknownModelError where there is none, ModelError as `load` does."""
    fitted = deploy.current(workspace.folder, workspace.schema, "churn", None)
    prepared, settings = fitted.prepared, fitted.prepared.schema.churn
    of, now = Definition.of(settings), workspace.store.observed_end() + timedelta(microseconds=1)
    ladder = alternatives(prepared.before, settings)
    survival, ladder_away = _survival(prepared, of, [step["horizon_d"] for step in ladder])
    season = Season.of(prepared, of, settings.dates)
    decision, undecided = None, ""
    try:
        known = risks(workspace.folder, fitted, now)
        there = known.filter(~pl.col("segment").is_in(SEGMENTS_OUT))
        mean = float(there["value"].to_numpy().mean()) if there.height else 0.0
        if mean > 0:
            cost = float(f"{COST * mean:.0e}")
            decision = decide(known, math.ceil(CONTACTED * there.height) * cost, Assumptions(cost), iso(now), 0)
        else:
            undecided = "The users asked about brought no value, so nobody is worth a contact."
    except DataError as error:  # said on the page in the list's place
        undecided = str(error)
    return Leaving(
        _either(prepared.schema.types_with("target")) if of.by == "purchase" else "event",
        of,
        workspace.schema.churn.horizon_d is None,
        [step | {"away": away} for step, away in zip(ladder, ladder_away, strict=True)],
        "day" if of.unit_us == DAY_US else "hour",
        survival,
        _season(season, to_us(now)),
        season.at(to_us(now)).knows_year,
        decision,
        undecided,
    )


def _either(types: list[str]) -> str:
    return " or ".join([*([", ".join(types[:-1])] if types[1:] else []), *types[-1:]])


def _survival(prepared: Prepared, of: Definition, marks_d: list[float]) -> tuple[pl.DataFrame, list[float]]:
    """The curves, and what that of all is at some days.

    An occasion is a day (or an hour) with an event of the kind; it is followed until the next one, or until the cut.
    """
    kept, owner = is_return(prepared.before, of.by), prepared.before.rows()
    time, rows = np.asarray(prepared.before["time"])[kept], owner[kept]
    offsets = np.searchsorted(rows, np.arange(len(prepared.before) + 1))
    gap_s, is_open = observed_gaps(time, offsets, prepared.cut_us)
    last = is_open | np.append(np.diff(time // of.unit_us) != 0, [True] * min(1, len(time)))  # of its occasion
    gap_s, is_open = gap_s[last], is_open[last]
    longest = min(HORIZONS * of.horizon_us / 1e6, float(gap_s.max(initial=1.0)))
    points = np.linspace(0, longest, POINTS + 1)
    groups = {"all": np.ones(len(gap_s), bool)}
    worth = _worth(time, rows, np.nan_to_num(np.asarray(prepared.before["value"], np.float64)[kept]))[last]
    low, high = np.quantile(worth, [1 / 3, 2 / 3]) if len(worth) else (0.0, 0.0)
    if low < high:
        groups |= {"low value": worth <= low, "middle value": (worth > low) & (worth <= high)}
        groups |= {"high value": worth > high}
    curves = pl.concat(
        pl.DataFrame(
            {
                "group": [name] * len(points),
                "occasions": [int(inside.sum())] * len(points),
                "days": points * 1e6 / DAY_US,
                "away": 1 - kaplan_meier(gap_s[inside], is_open[inside], points),
            }
        )
        for name, inside in groups.items()
    )
    marks = 1 - kaplan_meier(gap_s, is_open, np.array(marks_d) * DAY_US / 1e6)
    return curves, [float(mark) for mark in marks]


def _worth(time: np.ndarray[Any, Any], rows: np.ndarray[Any, Any], value: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """float64 [N]: the value of the user's events within the year until each one, itself included."""
    if len(time) == 0:
        return np.empty(0)
    begin, width = int(time.min()), int(time.max() - time.min()) + YEAR_US + 1
    place = rows * width + (time - begin)  # ascending: users one after another, each in time
    first = np.searchsorted(place, rows * width + np.maximum(time - begin - YEAR_US, 0))
    total = np.concatenate([[0.0], np.cumsum(value)])
    return np.asarray(total[1:] - total[first], np.float64)


def _season(season: Season, now_us: int) -> pl.DataFrame:
    now, there = season.at(now_us), season.moments < now_us
    levels = season.levels[there]
    return pl.DataFrame(
        {
            "time": pl.Series([*season.moments[there].tolist(), now_us]).cast(pl.Datetime("us", "UTC")),
            "level": [*levels.tolist(), now.log_odds],
            "low": [*levels.tolist(), now.log_odds - now.error],
            "high": [*levels.tolist(), now.log_odds + now.error],
            "known": [True] * len(levels) + [False],
        }
    )
