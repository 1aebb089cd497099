"""Who is asked about at a stage's cut, what is known of them, and who then left."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import numpy as np
import polars as pl
from numpy.typing import NDArray

from desireline.core.errors import DataError
from desireline.events.frame import TIME
from desireline.sequences.encode import cleaned, encode_cleaned
from desireline.sequences.prepared import Prepared, iso, to_us
from desireline.sequences.ragged import Sequences
from desireline.tasks.answers import asked_now
from desireline.tasks.churn.definition import Definition, is_return
from desireline.tasks.churn.season import Level, Season
from desireline.tasks.churn.snapshots import is_asked, present_rows, snapshot
from desireline.tasks.questions import Questions
from desireline.tasks.stages import Stage


@dataclass(frozen=True)
class ChurnQuestions(Questions):
    """Will the user be gone?

    rows : one a question, what is known as of it (`snapshots.snapshot`, with `as_of` and `horizon_us`)
    churned : float64 [Q], 1 gone, 0 not, nan not known;  horizon_us : int64 [Q]
    level : how far the log is from its usual level at the moment of the questions
    """

    rows: pl.DataFrame
    churned: NDArray[np.float64]
    horizon_us: NDArray[np.int64]
    of: Definition
    level: Level


def churn_questions(stage: Stage, of: Definition, dates: int) -> ChurnQuestions:
    """A stage's questions: the users asked about as of its cut, labelled by what its timeline holds after it.

    Raises DataError when all of them left, or none.
    """
    timeline, cut = stage.timeline, stage.prepared.cut_us
    rows, user, place = _placed(present_rows(stage.prepared, of).filter(is_asked(of)), timeline, cut)
    horizon = rows["horizon_us"].to_numpy()
    begin, end = np.full(len(timeline), -1, np.int64), np.full(len(timeline), -1, np.int64)
    begin[user], end[user] = cut + of.gap_us, cut + of.gap_us + horizon
    owner, time = timeline.rows(), np.asarray(timeline["time"])
    inside = is_return(timeline, of.by) & (time >= begin[owner]) & (time < end[owner])
    back = np.bincount(owner[inside], minlength=len(timeline))[user] > 0
    observed = stage.until_us if stage.prepared.until is None else to_us(stage.prepared.until)
    known = end[user] <= observed
    churned = np.where(known, 1.0 - back, np.nan)
    classes = np.unique(churned[known])
    if len(classes) == 1:
        what, other = ("left", "longer") if classes[0] else ("came back", "shorter")
        raise DataError(
            f"All {int(known.sum()):,} users asked about as of {iso(stage.prepared.cut)} {what} within the horizon: "
            f"there is nothing to tell apart. Set a {other} one (--set churn.horizon_d), or another --cut."
        )
    moments, level = np.full(len(user), cut, np.int64), Season.of(stage.prepared, of, dates).at(cut)
    return ChurnQuestions(timeline, user, place, moments, rows, churned, horizon, of, level)


def churn_asked(history: pl.DataFrame, prepared: Prepared, as_of: datetime) -> ChurnQuestions:
    """One question a user of an event frame of whole users, all strictly before `as_of`; labels are not known."""
    schema, of, now = prepared.schema, Definition.of(prepared.schema.churn), to_us(as_of)
    events = cleaned(history, prepared)
    rows = snapshot(events, as_of, prepared.begin, schema, of).with_columns(as_of=pl.lit(as_of).cast(TIME))
    sequences = encode_cleaned(events, prepared)
    rows, user, place = _placed(rows, sequences, now)
    moments, level = np.full(len(user), now, np.int64), Season.of(prepared, of, schema.churn.dates).at(now)
    unknown = np.full(len(user), np.nan)
    return ChurnQuestions(sequences, user, place, moments, rows, unknown, rows["horizon_us"].to_numpy(), of, level)


def _placed(
    rows: pl.DataFrame, timeline: Sequences, as_of_us: int
) -> tuple[pl.DataFrame, NDArray[np.int64], NDArray[np.int64]]:
    """The rows of users with an event before a moment; each one's row of the timeline, and its last event by then."""
    now = asked_now(timeline, as_of_us)
    place_of = pl.DataFrame({"user": timeline.users.gather(now.user), "row": now.user, "place": now.place})
    found = rows.join(place_of, on="user", how="inner", maintain_order="left")
    return found.drop("row", "place"), found["row"].to_numpy(), found["place"].to_numpy()
