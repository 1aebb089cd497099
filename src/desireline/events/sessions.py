"""Sessions: runs of one user's events without a silence longer than the session gap."""

from __future__ import annotations

import polars as pl


def microseconds(seconds: float) -> int:
    """A span of seconds as the integer that times are compared in."""
    return round(seconds * 1_000_000)


def session_starts(gap_s: float) -> pl.Expr:
    """Boolean: this event opens a session, on a frame whose users stand together in time order."""
    silence = pl.col("time").diff() > pl.duration(microseconds=microseconds(gap_s))
    return (silence | user_starts()).fill_null(True)


def user_starts() -> pl.Expr:
    """Boolean: this event is its user's first, on a frame whose users stand together."""
    return (pl.col("user") != pl.col("user").shift()).fill_null(True)


def with_sessions(events: pl.DataFrame, gap_s: float) -> pl.DataFrame:
    """Number each user's sessions.

    Parameters
    ----------
    events
        Event frame in which every user's events stand together, in the order of `events.frame.ORDER`.
    gap_s
        A silence longer than so many seconds starts a new session; one of exactly so many does not.

    Returns
    -------
    polars.DataFrame
        The same rows with `session` (Int32), counted from 0 within each user.

    Examples
    --------
    >>> from datetime import datetime, timezone
    >>> noon = datetime(2024, 5, 1, 12, tzinfo=timezone.utc)
    >>> events = pl.DataFrame({"user": ["a", "a", "b"], "time": [noon, noon.replace(hour=14), noon]})
    >>> with_sessions(events, 1800)["session"].to_list()
    [0, 1, 0]
    """
    number = session_starts(gap_s).cum_sum()
    first = pl.when(user_starts()).then(number).forward_fill()
    return events.with_columns(session=(number - first).cast(pl.Int32))
