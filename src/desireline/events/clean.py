"""Cleaning: rules that say which events are no behaviour of a person, each removal named and counted.

`clean` is a pure function of whole users' events and of limits fitted before the cut, so it works bucket by bucket, on
either side of the cut apart, and before the cut depends on nothing after it. A rule is a function that returns one
Boolean an event; rules apply in the order of `RULES`, each to what the ones before it left, so an event has one reason.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import polars as pl

from desireline.core.errors import DataError
from desireline.events.limits import SECOND, Limits, fit_limits
from desireline.events.sessions import microseconds, user_starts
from desireline.schema.model import CleanSettings

__all__ = ["RULES", "Cleaned", "Limits", "Rule", "clean", "fit_limits"]

NO_CONTENT = ("event_id", "order", "bucket")  # columns that tell copies of one event apart
REGULAR_EVENTS = 200  # gaps, before their regularity is judged
REGULAR_SHARE = 0.9  # of the gaps that equal the median gap
REGULAR_STEPS = 10  # of the clock in a gap, before its constancy can be seen


@dataclass(frozen=True)
class Rule:
    """One reason to leave an event out."""

    setting: str  # the field of CleanSettings that switches it
    flag: Callable[[pl.DataFrame, CleanSettings, Limits], pl.Series | None]  # None: no event
    reason: str  # may name settings and limits in braces


@dataclass(frozen=True)
class Cleaned:
    """What cleaning kept, left out and clipped; `events.height + removed.height` is what came in.

    events  : event frame, in the order it came
    removed : event_id, user, rule (a name in RULES), in the order it came within a rule
    clipped : values set to the fence
    """

    events: pl.DataFrame
    removed: pl.DataFrame
    clipped: int

    def counts(self) -> dict[str, int]:
        """Events left out by each rule, in the order of RULES, zeros included."""
        found = dict(self.removed.group_by("rule").len().iter_rows())
        return {name: int(found.get(name, 0)) for name in RULES}


def clean(events: pl.DataFrame, settings: CleanSettings, limits: Limits) -> Cleaned:
    """Apply the rules that are on.

    Parameters
    ----------
    events
        Event frame of whole users (all their events before the cut, or all after it), in the order of ORDER.
    settings
        Which rules are on, and their thresholds.
    limits
        From `fit_limits` on the events before the cut.

    Returns
    -------
    Cleaned
        The kept events with extreme values clipped, and one row for each event left out.

    Raises
    ------
    DataError
        A user's events do not stand together in time order: duplicates and gaps could not be seen.
    """
    _require_order(events)
    left_out = []
    for name, rule in RULES.items():
        if getattr(settings, rule.setting) in (None, False):
            continue
        flag = rule.flag(events, settings, limits)
        if flag is not None and flag.any():
            left_out.append(events.filter(flag).select("event_id", "user", rule=pl.lit(name)))
            events = events.filter(~flag)
    clipped = 0
    if settings.extreme_values and limits.fences:
        fence = pl.col("event").replace_strict(limits.fences, default=None, return_dtype=pl.Float64)
        beyond = (pl.col("value").abs() > fence).fill_null(False)
        clipped = int(events.select(beyond.sum()).item())
        if clipped:
            events = events.with_columns(
                pl.when(beyond).then(pl.col("value").sign() * fence).otherwise("value").alias("value")
            )
    nothing = pl.DataFrame(schema={"event_id": pl.Int64, "user": pl.String, "rule": pl.String})
    return Cleaned(events, pl.concat([nothing, *left_out]), clipped)


def _require_order(events: pl.DataFrame) -> None:
    backwards = (~user_starts() & (pl.col("time").diff() < pl.duration(microseconds=0))).any()
    torn = pl.col("user").n_unique() != user_starts().sum()
    if events.height and any(events.select(backwards=backwards, torn=torn).row(0)):
        raise DataError(
            "clean needs every user's events together and in time order: sort the frame by events.frame.ORDER first."
        )


def impossible_time(events: pl.DataFrame, settings: CleanSettings, limits: Limits) -> pl.Series | None:
    """Events outside the log's window."""
    low = pl.col("time") < limits.low if limits.low else pl.lit(False)
    high = pl.col("time") >= limits.high if limits.high else pl.lit(False)
    return events.select((low | high).alias("flag")).to_series() if limits.low or limits.high else None


def duplicate(events: pl.DataFrame, settings: CleanSettings, limits: Limits) -> pl.Series | None:
    """Later copies of an event with the same content, value and fields included, at the same time.

    Only where the clock shows seconds or less: nobody does one thing twice in a second, so a copy there is a tracker
    that fired twice. Within one minute, people do. In Online Retail II, whose clock shows minutes, 11,731 invoice
    lines of known customers repeat another line of the invoice in every column; 70 % of those lines have quantity 1,
    as have 34 % of lines that repeat an article with another quantity, but only 18 % of the rest: the till scanned the
    article once more, it did not copy the line. A file that is read twice never comes as far as this; the store knows
    its rows.
    """
    if limits.resolution_us > SECOND:
        return None
    near = _near_neighbours(events, 0)
    if near is None:
        return None
    content = [name for name in events.columns if name not in NO_CONTENT]
    copies = near.with_columns(copy=~pl.struct(content).is_first_distinct())
    return _scatter(copies, "copy", events.height)


def near_duplicate(events: pl.DataFrame, settings: CleanSettings, limits: Limits) -> pl.Series | None:
    """Events that repeat user, type, item and value shortly after: a double click, a retried request."""
    within = microseconds(settings.near_duplicate_s or 0)
    if not limits.clock or within < limits.resolution_us:
        return None  # the clock cannot show so short a gap; equal times are another rule's matter
    near = _near_neighbours(events, within)
    if near is None:
        return None
    gap = pl.col("time").diff().over("user", "event", "item", "value").dt.total_microseconds()
    copies = near.with_columns(copy=((gap > 0) & (gap <= within)).fill_null(False))
    return _scatter(copies, "copy", events.height)


def bot_rate(events: pl.DataFrame, settings: CleanSettings, limits: Limits) -> pl.Series | None:
    """All events of users who exceed `max_events_per_day` on some UTC day."""
    if not limits.clock or events.height <= settings.max_events_per_day:
        return None
    runs = events.select(r=pl.struct("user", day=pl.col("time").dt.date()).rle()).unnest("r")
    users = runs.filter(pl.col("len") > settings.max_events_per_day).unnest("value")["user"].unique()
    return events["user"].is_in(users.implode()) if len(users) else None


def bot_regular(events: pl.DataFrame, settings: CleanSettings, limits: Limits) -> pl.Series | None:
    """All events of users with hundreds of gaps, nearly all of one length: a timer, not a person.

    Events at equal times count as one. A gap equals the median when it differs by no more than the clock's step, or
    1 % of it (at most a minute); gaps must be ten steps of the clock long, else every quick clicker on a clock of
    seconds, and every daily customer in a log of days, would look like a timer.
    """
    if not limits.clock or events.height <= REGULAR_EVENTS:
        return None
    gaps = (
        events.select("user", gap=pl.when(~user_starts()).then(pl.col("time").diff().dt.total_microseconds()))
        .filter(pl.col("gap") > 0)
        .filter(pl.len().over("user") >= REGULAR_EVENTS)
        .with_columns(median=pl.col("gap").median().over("user"))
    )
    tolerance = pl.max_horizontal(
        pl.lit(limits.resolution_us), pl.min_horizontal(pl.col("median") / 100, pl.lit(60 * SECOND))
    )
    equal = ((pl.col("gap") - pl.col("median")).abs() <= tolerance).mean() >= REGULAR_SHARE
    timed = pl.col("median").first() >= REGULAR_STEPS * limits.resolution_us
    users = gaps.group_by("user").agg(flag=equal & timed).filter("flag")["user"]
    return events["user"].is_in(users.implode()) if len(users) else None


RULES: dict[str, Rule] = {
    "impossible_time": Rule("impossible_times", impossible_time, "outside the log's window, {low} to {high}"),
    "duplicate": Rule("duplicates", duplicate, "the same content as another event of this user at the same time"),
    "near_duplicate": Rule(
        "near_duplicate_s", near_duplicate, "repeats user, type, item and value within {near_duplicate_s} s"
    ),
    "bot_rate": Rule("bots", bot_rate, "a user with more than {max_events_per_day} events on one day"),
    "bot_regular": Rule("bots", bot_regular, "a user nearly all of whose gaps between events have one length"),
}


def reasons(settings: CleanSettings, limits: Limits) -> dict[str, str]:
    """Each rule that is on, in words, with the thresholds in force."""
    facts = settings.model_dump() | limits.to_json()
    return {
        name: r.reason.format(**facts) for name, r in RULES.items() if getattr(settings, r.setting) not in (None, False)
    }


def _near_neighbours(events: pl.DataFrame, within_us: int) -> pl.DataFrame | None:
    """The rows, with their `row` number, that have an event of the same user within so many microseconds.

    Two events that are close have only closer ones between them, so looking at neighbours finds every pair; in most
    logs these are few, and the costly comparison of contents is done on them alone.
    """
    close = ~user_starts() & (pl.col("time").diff() <= pl.duration(microseconds=within_us))
    found = events.with_row_index("row").filter((close | close.shift(-1)).fill_null(False))
    return found if found.height else None


def _scatter(rows: pl.DataFrame, column: str, height: int) -> pl.Series:
    flag = pl.Series("flag", [False]).new_from_index(0, height)
    return flag.scatter(rows.filter(column)["row"], True)
