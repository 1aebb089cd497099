"""What is known of every user as of a moment, and of past moments who then left: the rows that churn models learn from.

A snapshot is one row a user: all features (`features/batch.py`) and a few that only churn asks for. It is a function of
the events strictly before its moment. A row of the past is labelled only if its whole horizon lies before the cut.

Cost: one pass over the log a moment, about 1.5 µs an event; users are sampled by a hash of their id where rows times
moments would pass `MOST_ROWS`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from io import BytesIO
from pathlib import Path

import numpy as np
import polars as pl

from desireline.core.files import write_bytes
from desireline.events.cut import cut
from desireline.events.frame import TIME, content_hash
from desireline.events.histories import histories_before
from desireline.events.roles import Roles
from desireline.events.store import EventStore
from desireline.features.batch import batch_features
from desireline.schema.model import Schema
from desireline.sequences.encode import cleaned
from desireline.sequences.prepared import Prepared
from desireline.tasks.churn.definition import DAY_US, Definition

VERSION = 3  # of the rows kept on disk
MOST_ROWS = 400_000
YEAR = timedelta(days=365)
OWN = {  # name: (unit, meaning); what a snapshot has beside the features
    "returns": ("days", "days with a purchase, ever"),
    "returns_180d": ("days", "days with a purchase in the last 180 d"),
    "returns_365d": ("days", "days with a purchase in the last 365 d"),
    "returns_year_ago": ("days", "days with a purchase in the same season a year ago"),
    "days_since_return": ("days", "time since the last purchase"),
    "days_since_first_return": ("days", "time since the first purchase"),
    "return_gap_median_d": ("days", "median gap between days with a purchase"),
    "return_gap_longest_d": ("days", "longest gap between days with a purchase"),
    "overdue": ("ratio", "time since the last purchase by the median gap"),
    "value_365d": ("value", "value of purchases in the last 365 d, less what was taken back"),
}


def snapshot(
    events: pl.DataFrame, as_of: datetime | pl.Series, begin: datetime, schema: Schema, of: Definition
) -> pl.DataFrame:
    """One row a user: `user`, every feature, the columns of OWN, and `horizon_us`.

    events : event frame of whole users in the order of ORDER, cleaned, all strictly before `as_of`
    as_of : one moment, or that of each event's user
    begin : the log's first moment, before which nobody could be seen

    Raises DataError when an event lies at `as_of` or after it.
    """
    features = batch_features(events, as_of, schema)
    _, target, negative = Roles.of(schema).flags(events)
    moment = pl.lit(as_of).cast(TIME)
    kept = events.select("user", "time", as_of=moment)
    kept = kept.filter(pl.Series(target if of.by == "purchase" else np.ones(events.height, bool)))
    now, first_now = pl.col("as_of"), pl.col("as_of").first()
    occasion = pl.col("time").dt.epoch("us") // of.unit_us
    by_occasion = kept.group_by("user", occasion.alias("occasion"), maintain_order=True)
    days = by_occasion.agg(pl.col("time", "as_of").first(), last=pl.col("time").last())
    age = (now - pl.col("time")).dt.total_microseconds()
    gap = pl.col("time").diff().dt.total_microseconds() / DAY_US
    season = age.is_between(
        _us(YEAR) - of.gap_us - of.horizon_us, _us(YEAR) - of.gap_us, closed="right"
    )  # as old as the horizon to come will be in a year
    own = days.group_by("user", maintain_order=True).agg(
        returns=pl.len().cast(pl.Float64),
        returns_180d=(age <= 180 * DAY_US).sum().cast(pl.Float64),
        returns_365d=(age <= 365 * DAY_US).sum().cast(pl.Float64),
        returns_year_ago=pl.when(first_now - YEAR >= begin).then(season.sum().cast(pl.Float64)),
        days_since_return=(first_now - pl.col("last").last()).dt.total_microseconds() / DAY_US,
        days_since_first_return=age.first() / DAY_US,
        return_gap_median_d=gap.median(),
        return_gap_longest_d=gap.max(),
    )
    signed = pl.when(pl.Series(target)).then("value").when(pl.Series(negative)).then(-pl.col("value").abs())
    money = events.select("user", "time", as_of=moment, value=signed).filter(age <= 365 * DAY_US)
    value = money.group_by("user").agg(value_365d=pl.col("value").sum())
    own = own.join(value, on="user", how="left")
    own = own.with_columns(overdue=pl.col("days_since_return") / pl.col("return_gap_median_d"))
    whole = features.join(own.select("user", *OWN), on="user", how="left", maintain_order="left")
    whole = whole.with_columns(pl.col("returns", "returns_180d", "returns_365d").fill_null(0.0))
    return whole.with_columns(horizon_us=horizon_us(of))


def is_asked(of: Definition) -> pl.Expr:
    """Whether a user of a snapshot is asked about: active of late, with at least one event of the kind."""
    return (pl.col("days_since_last") <= of.active_us / DAY_US) & (pl.col("returns") > 0)


def horizon_us(of: Definition) -> pl.Expr:
    """The length of each user's horizon in microseconds."""
    if of.own_gaps is None:
        return pl.lit(of.horizon_us, pl.Int64)
    own = pl.col("return_gap_median_d") * of.own_gaps * DAY_US
    return own.fill_null(of.horizon_us).clip(of.unit_us, of.horizon_us).cast(pl.Int64)


def past_moments(of: Definition, begin: datetime, at: datetime, recent: int) -> list[datetime]:
    """As-of moments before `at` whose horizons end by then, the newest first.

    `recent` of them a third of a horizon apart, and those of the same season, and of the newest one's, in each earlier
    year, as far as a horizon of history lies before them.
    """
    step, earliest = of.span / 3, begin + of.span
    if of.unit_us == DAY_US:
        step = timedelta(days=max(1, round(step / timedelta(days=1))))
    newest = at - of.span
    found = [newest - k * step for k in range(recent)]
    years = int((at - begin) / YEAR)
    for year in range(1, years + 1):  # of the question's season, and of the newest known level's
        found += [moment - year * YEAR + shift * step for moment in (at, newest) for shift in (-1, 0, 1)]
    apart: list[datetime] = []
    for moment in sorted((m for m in found if earliest <= m <= newest), reverse=True):
        if not apart or apart[-1] - moment >= step / 2:
            apart.append(moment)
    return apart


def past_rows(prepared: Prepared, of: Definition, recent: int) -> pl.DataFrame:
    """Snapshots of past moments with `as_of`, `horizon_us` and `churned` (1.0: gone), of the users asked about."""
    moments = past_moments(of, prepared.begin, prepared.cut, recent)
    return _kept(prepared, f"past-{recent}", of, lambda: _rows(prepared, of, moments, labelled=True))


def present_rows(prepared: Prepared, of: Definition) -> pl.DataFrame:
    """The snapshot as of the cut with `as_of` and `horizon_us`, of all users."""
    return _kept(prepared, "present", of, lambda: _rows(prepared, of, [prepared.cut], labelled=False))


def kept_path(prepared: Prepared, name: str, of: Definition) -> Path:
    """Where something derived from a prepared log under a definition is kept."""
    digest = hashlib.sha256(f"{VERSION}|{of}".encode()).hexdigest()[:8]
    return prepared.folder / f"churn-{name}-{digest}.parquet"


def _kept(prepared: Prepared, name: str, of: Definition, make: Callable[[], pl.DataFrame]) -> pl.DataFrame:
    """What `make` makes, read again from beside the prepared log where it was made before."""
    path = kept_path(prepared, name, of)
    if path.exists():
        return pl.read_parquet(path)
    made, held = make(), BytesIO()
    made.write_parquet(held)
    write_bytes(path, held.getvalue())
    return made


def _rows(prepared: Prepared, of: Definition, moments: Sequence[datetime], labelled: bool) -> pl.DataFrame:
    schema, store = prepared.schema, EventStore(prepared.workspace, prepared.schema)
    share = min(1.0, MOST_ROWS / max(1, prepared.counts["before"]["users"] * len(moments))) if labelled else 1.0
    drawn = (content_hash(pl.col("user")).reinterpret(signed=False) / 2.0**64) < share
    parts: list[pl.DataFrame] = []
    for history in histories_before(store, prepared.cut, "snapshots") if moments else []:
        events = cleaned(history.filter(drawn) if share < 1 else history, prepared)
        returns = returns_of(events, of, schema)
        for moment in moments:
            rows = snapshot(cut(events, moment)[0], moment, prepared.begin, schema, of)
            rows = rows.with_columns(as_of=pl.lit(moment).cast(TIME))
            parts.append(with_labels(rows.filter(is_asked(of)), returns, of) if labelled else rows)
    return pl.concat(parts) if parts else pl.DataFrame()


def returns_of(events: pl.DataFrame, of: Definition, schema: Schema) -> pl.DataFrame:
    """`user, time` of the events that show that a user has not left."""
    kept = events.filter(pl.Series(Roles.of(schema).flags(events)[1])) if of.by == "purchase" else events
    return kept.select("user", "time")


def with_labels(rows: pl.DataFrame, returns: pl.DataFrame, of: Definition) -> pl.DataFrame:
    """Rows with `churned`: 1.0 where no event of `returns` (user, time) lies in the row's horizon."""
    begins = (pl.col("as_of") + timedelta(microseconds=of.gap_us)).alias("begins")
    later = returns.select("user", back="time").sort("back")
    found = (
        rows.with_columns(begins)
        .sort("begins")
        .join_asof(later, left_on="begins", right_on="back", by="user", strategy="forward", check_sortedness=False)
    )
    inside = (pl.col("back") - pl.col("begins")).dt.total_microseconds() < pl.col("horizon_us")
    return found.with_columns(churned=(~inside.fill_null(False)).cast(pl.Float64)).drop("begins", "back")


def _us(span: timedelta) -> int:
    return span // timedelta(microseconds=1)
