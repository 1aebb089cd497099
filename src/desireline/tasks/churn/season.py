"""How far the log as a whole is from its usual level at a moment: the season, learned from past moments.

In a shop with a strong season the same customer is likelier to stay away after Christmas than before it, and no number
of the customer tells. So every past moment has a level, in log odds: its intercept in a logistic regression on a few
numbers that look back no further than users are asked about, and hence mean the same early and late in a log. A moment
to come takes the level of the same season a year earlier, where the log was long enough by then, and half of what has
changed since; else it is drawn from the newest known level back to the mean of all, and how far levels lie apart says
how little is known.

All models are fitted with the levels of their rows as given offsets, so that none mistakes a season, or the age of the
log, for a trait of its users.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from desireline.core.files import read_json, write_json
from desireline.sequences.prepared import Prepared, to_us
from desireline.tasks.churn.definition import DAY_US, Definition
from desireline.tasks.churn.models import Floats, logistic
from desireline.tasks.churn.snapshots import kept_path, past_rows

YEAR_US = 365 * DAY_US
DRIFT = 0.5  # share of the newest level's distance from the one a year before it that is taken to go on
RETURNING = 0.3  # share of the newest level's distance from the mean that is left a horizon later
NUMBERS = [
    pl.coalesce("days_since_return", "days_since_first").log1p().alias("recency"),
    pl.col("returns_180d").log1p(),
    pl.col("targets_90d").log1p(),
    pl.col("events_30d").log1p(),
]


@dataclass(frozen=True)
class Level:
    """Of one moment: log odds by the mean of all, their standard error, and whether a year before tells them."""

    log_odds: float
    error: float
    knows_year: bool


@dataclass(frozen=True)
class Season:
    """Levels of past moments.

    moments : int64 [M], microseconds, ascending;  levels : float64 [M], log odds by the mean of all
    comparable_us : the moment from which on a level means what it means later
    """

    moments: NDArray[np.int64]
    levels: Floats
    comparable_us: int

    @staticmethod
    def of(prepared: Prepared, of: Definition, dates: int) -> Season:
        """The levels of the past moments of a prepared log, read again where they were found before."""
        path = kept_path(prepared, f"season-{dates}", of).with_suffix(".json")
        if path.exists():
            raw = read_json(path)
            return Season(np.array(raw["moments"], np.int64), np.array(raw["levels"], np.float64), raw["comparable_us"])
        comparable = to_us(prepared.begin) + of.active_us
        found = Season.fitted(past_rows(prepared, of, dates), comparable)
        raw = {"moments": found.moments.tolist(), "levels": found.levels.tolist(), "comparable_us": comparable}
        write_json(path, raw)
        return found

    @staticmethod
    def fitted(rows: pl.DataFrame, comparable_us: int) -> Season:
        """The levels of labelled rows, by a logistic regression with an intercept a moment."""
        if rows.height == 0:
            return Season(np.empty(0, np.int64), np.empty(0), comparable_us)
        moments, which = np.unique(rows["as_of"].dt.epoch("us").to_numpy(), return_inverse=True)
        inside = np.eye(len(moments))[which][:, 1:]
        columns = np.hstack([inside, rows.select(NUMBERS).to_numpy()])
        found = logistic(columns, rows["churned"].to_numpy())
        levels = np.concatenate([[0.0], found[1 : len(moments)]])
        return Season(moments, levels - levels.mean(), comparable_us)

    def at(self, as_of_us: int) -> Level:
        """The level of a moment to come."""
        return Level(self.level(as_of_us), self.error(as_of_us), self.knows_year_before(as_of_us))

    def level(self, as_of_us: int) -> float:
        """The level of a moment: its own where it is a past one, else the forecast."""
        if len(self.moments) == 0:
            return 0.0
        place = int(np.searchsorted(self.moments, as_of_us))
        if place < len(self.moments) and self.moments[place] == as_of_us:
            return float(self.levels[place])
        usable = self.moments >= self.comparable_us
        moments, levels = (self.moments[usable], self.levels[usable]) if usable.any() else (self.moments, self.levels)
        if self.knows_year_before(as_of_us):
            year_before, newest = np.interp([as_of_us - YEAR_US, moments[-1] - YEAR_US], moments, levels)
            drift = DRIFT * (levels[-1] - newest) if self.knows_year_before(int(moments[-1])) else 0.0
            return float(year_before + drift)
        return float(levels.mean() + RETURNING * (levels[-1] - levels.mean()))

    def knows_year_before(self, as_of_us: int) -> bool:
        """Whether the same season a year earlier lies among the comparable moments."""
        usable = self.moments[self.moments >= self.comparable_us]
        before = as_of_us - YEAR_US
        if len(usable) < 2:
            return False
        slack = int(np.diff(usable).min())
        return bool(usable[0] - slack <= before <= usable[-1])

    def error(self, as_of_us: int) -> float:
        """Standard error of the forecast level in log odds, as far as the log shows it.

        With a year before: what levels of neighbouring moments differ by; without: how far levels lie apart.
        """
        if len(self.levels) < 2:
            return float("nan")
        if self.knows_year_before(as_of_us):
            return float(np.abs(np.diff(self.levels)).mean())
        return float(self.levels.std(ddof=1))

    def of_rows(self, rows: pl.DataFrame) -> Floats:
        """float64 [R]: the level of each row's moment."""
        moments, which = np.unique(rows["as_of"].dt.epoch("us").to_numpy(), return_inverse=True)
        return np.array([self.level(int(moment)) for moment in moments])[which]
