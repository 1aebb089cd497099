"""A past experiment on who stays: users as of the moment when each was assigned to an arm, and who then left.

An event that carries the field `churn.treatment` says that its user was assigned at that moment. Only a user's first
assignment counts: what comes later may be its consequence. Events that carry the field are no behaviour: neither
numbers nor labels see them, so that a contact is no sign of life. What is known of a user is a function of the events
strictly before the assignment; who left is read in the horizon after it, as for every other question of churn.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

import polars as pl

from desireline.core.errors import DataError
from desireline.events.clean import Limits, clean
from desireline.events.cut import cut
from desireline.events.histories import histories_before
from desireline.events.store import EventStore
from desireline.schema.model import ChurnSettings, Schema
from desireline.sequences.prepared import Prepared, iso
from desireline.tasks.churn.definition import Definition
from desireline.tasks.churn.snapshots import is_asked, returns_of, snapshot, with_labels

LEAST = 100  # users an arm: with fewer no effect that a contact can have is seen


@dataclass(frozen=True)
class Trial:
    """An experiment read from a log.

    rows : a snapshot as of each user's assignment with `as_of`, `horizon_us`, `churned` and `treated` (Boolean)
    dropped : why, how many assignments do not count
    """

    treatment: str
    rows: pl.DataFrame
    dropped: dict[str, int]


def behaviour_only(events: pl.DataFrame, treatment: str) -> pl.DataFrame:
    """The events without those that assign."""
    return events.filter(pl.col(treatment).is_null())


def read_trial(prepared: Prepared, settings: ChurnSettings, at: datetime) -> Trial:
    """The experiment that `settings` declares, as far as its horizons end before `at` and before the log does.

    prepared : of the churn model: its definition of leaving, its limits of cleaning

    Raises DataError when the field has more than two values or one arm only, when no horizon is over yet, or when an
    arm has fewer than LEAST users.
    """
    assert settings.treatment is not None
    assert settings.treated is not None
    schema, of = prepared.schema, Definition.of(prepared.schema.churn)
    store, limits = EventStore(prepared.workspace, schema), Limits.from_json(prepared.counts["limits"])
    end = min(at, store.span()[1] + timedelta(microseconds=1))
    _require_two_arms(store, settings.treatment, settings.treated, end)
    dropped = dict.fromkeys(("later assignment of a user", "without a history", "not asked about", "not over yet"), 0)
    parts = []
    for events in histories_before(store, end, "experiment"):
        marks = events.filter(pl.col(settings.treatment).is_not_null())
        first = marks.group_by("user", maintain_order=True).agg(
            as_of=pl.col("time").first(), treated=pl.col(settings.treatment).first() == settings.treated
        )
        dropped["later assignment of a user"] += marks.height - first.height
        rows = assigned_rows(behaviour_only(events, settings.treatment), first, limits, prepared.begin, schema, of)
        dropped["without a history"] += first.height - rows.height
        asked = rows.filter(is_asked(of))
        dropped["not asked about"] += rows.height - asked.height
        over = asked.filter(pl.col("as_of") + pl.duration(microseconds=pl.col("horizon_us") + of.gap_us) <= pl.lit(end))
        dropped["not over yet"] += asked.height - over.height
        parts.append(over)
    found = Trial(settings.treatment, pl.concat(parts).sort("user"), dropped)
    _require_users(found, of, end)
    return found


def assigned_rows(
    events: pl.DataFrame, first: pl.DataFrame, limits: Limits, begin: datetime, schema: Schema, of: Definition
) -> pl.DataFrame:
    """Labelled snapshots of users as of their own moments; who has no event before it is left out.

    events : event frame of whole users in the order of ORDER;  first : `user, as_of, treated`

    What is before and what is after a user's moment is cleaned apart, so that nothing later changes a number.
    """
    theirs = events.join(first.select("user", moment="as_of"), on="user", how="inner", maintain_order="left")
    is_past = pl.col("time") < pl.col("moment")
    past = clean(theirs.filter(is_past).drop("moment"), schema.clean, limits).events
    later = clean(theirs.filter(~is_past).drop("moment"), schema.clean, limits).events
    moments = past.select("user").join(first, on="user", how="left", maintain_order="left")["as_of"]
    rows = snapshot(past, moments, begin, schema, of)
    rows = rows.join(first, on="user", how="inner", maintain_order="left")
    return with_labels(rows, returns_of(later, of, schema), of)


def _require_two_arms(store: EventStore, treatment: str, treated: str, end: datetime) -> None:
    marks = cut(store.scan(["time", treatment]), end)[0].filter(pl.col(treatment).is_not_null())
    values = marks.select(pl.col(treatment).unique().sort()).collect(engine="streaming")[treatment].to_list()
    named = ", ".join(repr(value) for value in values[:6])
    if len(values) > 2:
        raise DataError(
            f"churn.treatment: {treatment!r} has {len(values)} values ({named}); an experiment has two, "
            f"{treated!r} and the control's."
        )
    if len(values) < 2 or treated not in values:
        raise DataError(
            f"churn.treatment: before {iso(end)} {treatment!r} holds {named or 'no value'}; an experiment has "
            f"{treated!r} (churn.treated) and one other value for controls, who must be logged too, at the moment when "
            "they would have been contacted."
        )


def _require_users(found: Trial, of: Definition, end: datetime) -> None:
    treated = int(found.rows["treated"].sum()) if found.rows.height else 0
    arms = {"treated": treated, "control": found.rows.height - treated}
    told = ", ".join(f"{count:,} {why}" for why, count in found.dropped.items() if count)
    if min(arms.values()) >= LEAST:
        return
    days = of.span / timedelta(days=1)
    raise DataError(
        f"The experiment of {found.treatment!r} has {arms['treated']:,} treated users and {arms['control']:,} controls "
        f"whose horizon of {days:g} days was over by {iso(end)}; each arm needs {LEAST}. "
        f"Left out: {told or 'none'}. Wait, assign more, or decide without it (--set churn.treatment=null "
        "--set churn.treated=null)."
    )
