"""What leaving means in a log without contracts: which events must stay away, for how long, and who is asked about.

The horizon is the shortest step of a ladder (hours, days, weeks, months) that at least `COVERED` of the gaps between a
user's neighbouring occasions (days, in a short log hours) do not exceed: who stays away longer is not just between two
purchases. It is shown beside the steps below and above it. Everything is read from events before a cut.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray

from desireline.core.errors import DataError
from desireline.schema.model import ChurnSettings, Schema
from desireline.sequences.ragged import TARGET, Sequences

HOUR_US = 3_600_000_000
DAY_US = 24 * HOUR_US
LADDER_D = (1 / 24, 2 / 24, 3 / 24, 6 / 24, 12 / 24, 1, 2, 3, 7, 14, 30, 60, 90, 120, 180, 365)
COVERED = 0.8  # of the gaps between a user's occasions are no longer than the horizon
SPANS = 4  # horizons that a log must hold, so that some are left to learn from
SHORT_D = 30  # a log of fewer days is counted in hours
REPEATERS = 0.2  # of the users with a target have one on a second occasion: then targets can stay away


@dataclass(frozen=True)
class Definition:
    """A user is gone at a moment t when no event of the kind `by` comes in [t + gap, t + gap + horizon).

    by : "purchase" (target events) or "activity" (any event)
    active_us : users are asked about who had an event in the last so many microseconds, and one of the kind ever
    own_gaps : the horizon ends after so many of the user's own median gaps if that is sooner; None: the same for all
    """

    by: str
    horizon_us: int
    gap_us: int
    active_us: int
    own_gaps: float | None

    @staticmethod
    def of(settings: ChurnSettings) -> Definition:
        """The definition of settings that `settled` has filled in."""
        assert settings.horizon_d is not None
        assert settings.active_d is not None
        return Definition(
            settings.by,
            round(settings.horizon_d * DAY_US),
            round(settings.gap_d * DAY_US),
            round(settings.active_d * DAY_US),
            settings.own_gaps,
        )

    @property
    def span(self) -> timedelta:
        """From the question to the end of the horizon."""
        return timedelta(microseconds=self.gap_us + self.horizon_us)

    @property
    def unit_us(self) -> int:
        """What counts as one occasion: a day, or an hour where the horizon is one of hours."""
        return DAY_US if self.horizon_us >= 3 * DAY_US else HOUR_US


def settled(settings: ChurnSettings, before: Sequences) -> ChurnSettings:
    """The settings with everything filled in that was left to the log.

    Raises DataError when no user has two occasions, so that no horizon can be chosen.
    """
    by = settings.by if settings.by != "auto" else _kind(before)
    horizon = settings.horizon_d or _chosen(before, by)
    active = settings.active_d or 2 * horizon
    return settings.model_copy(update={"by": by, "horizon_d": horizon, "active_d": active})


def alternatives(before: Sequences, settings: ChurnSettings) -> list[dict[str, Any]]:
    """The horizon and its neighbours on the ladder: days, and the share of gaps that each covers."""
    gaps, _ = _gaps(before, settings.by)
    horizon = settings.horizon_d or 0.0
    below, above = [d for d in LADDER_D if d < horizon][-1:], [d for d in LADDER_D if d > horizon][:1]
    return [
        {"horizon_d": days, "gaps_covered": float((gaps <= days * DAY_US).mean()) if len(gaps) else float("nan")}
        for days in (*below, horizon, *above)
    ]


def is_return(sequences: Sequences, by: str) -> NDArray[np.bool_]:
    """bool [N]: the events that show that a user has not left."""
    if by == "activity":
        return np.ones(sequences.events, bool)
    return np.asarray(sequences["role"] & TARGET > 0)


def one_an_occasion(sequences: Sequences, of: Definition) -> NDArray[np.bool_]:
    """bool [N]: of each day (or hour) of a user the last event that shows a return, or the last of all without one."""
    if sequences.events == 0:
        return np.zeros(0, bool)
    owner, occasion = sequences.rows(), np.asarray(sequences["time"]) // of.unit_us
    opens = np.ones(sequences.events, bool)
    opens[1:] = (owner[1:] != owner[:-1]) | (occasion[1:] != occasion[:-1])
    standing = is_return(sequences, of.by) * sequences.events + np.arange(sequences.events)
    chosen = np.zeros(sequences.events, bool)
    chosen[np.maximum.reduceat(standing, np.flatnonzero(opens)) % sequences.events] = True
    return chosen


def occasions_upto(
    sequences: Sequences, user: NDArray[np.int64], place: NDArray[np.int64], of: Definition
) -> tuple[Sequences, NDArray[np.int64]]:
    """Of some users [Q] one event an occasion up to a place [Q], of all others none; and the last place there [Q]."""
    seen = sequences.upto(user, place)
    read = seen.take(one_an_occasion(seen, of))
    return read, read.offsets[user + 1] - 1


def _kind(before: Sequences) -> str:
    having = len(np.unique(before.rows()[is_return(before, "purchase")]))
    again = len(np.unique(_gaps(before, "purchase")[1]))
    return "purchase" if having and again >= REPEATERS * having else "activity"


def _gaps(before: Sequences, by: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Microseconds between neighbouring occasions of a user, and whose they are."""
    kept = is_return(before, by)
    time, rows = np.asarray(before["time"])[kept], before.rows()[kept]
    unit = DAY_US if _span_us(before) > SHORT_D * DAY_US else HOUR_US
    occasion = time // unit
    inside = (rows[1:] == rows[:-1]) & (occasion[1:] > occasion[:-1])
    return np.asarray(np.diff(time)[inside], np.int64), rows[1:][inside]


def _chosen(before: Sequences, by: str) -> float:
    gaps, _ = _gaps(before, by)
    if len(gaps) == 0:
        raise DataError(
            f"No user has two {'target events' if by == 'purchase' else 'events'} on different days, so the log does "
            "not tell how long people stay away before they come back: set churn.horizon_d (days)."
        )
    wanted = np.quantile(gaps, COVERED) / DAY_US
    longest = _span_us(before) / DAY_US / SPANS
    fitting = [d for d in LADDER_D if d <= longest] or [LADDER_D[0]]
    return float(next((d for d in fitting if d >= wanted), fitting[-1]))


def _span_us(before: Sequences) -> int:
    """From the 1st to the 99th percentile of the events' times: stray ones do not count."""
    if before.events == 0:
        return 0
    early, late = np.quantile(np.asarray(before["time"]), [0.01, 0.99])
    return int(late - early)


def told(before: Sequences, schema: Schema) -> str:
    """The definition in a sentence, with the share of gaps that the horizon and its neighbours on the ladder cover."""
    settings = schema.churn
    what = " or ".join(schema.types_with("target")) if settings.by == "purchase" else "event"
    covered = ", ".join(f"{a['horizon_d']:g} days {a['gaps_covered']:.0%}" for a in alternatives(before, settings))
    gap = f" after a gap of {settings.gap_d:g} days" if settings.gap_d else ""
    own = f", or {settings.own_gaps:g} of their own median gaps if that is sooner" if settings.own_gaps else ""
    return (
        f"Gone is who has no {what} for {settings.horizon_d:g} days{gap}{own}; asked are users with an event in the "
        f"last {settings.active_d:g} days and at least one {what} ever. Gaps no longer than: {covered}."
    )
