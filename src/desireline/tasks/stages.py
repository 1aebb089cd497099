"""Protocols: what may be learned from, which histories are read, and which events are asked for.

temporal/1        Global cut. Validation learns from the events before an earlier cut and is asked for those between the
                  two; the test learns from everything before the cut and is asked for all that came after it. Targets
                  roll: each is asked from all of the user's events before its own moment. Users without an earlier
                  event are not asked. Above `MOST_USERS` asked users a fixed sample of them is.
leave-one-out/1   As papers do: of each user with three target events or more the last is the test, the one before the
                  validation; the rest is learned from. Leaks time across users, so it stands beside, never instead.
                  Items already seen by the user are masked.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from desireline.core.errors import DataError
from desireline.events.frame import content_hash
from desireline.events.store import EventStore
from desireline.schema.model import Schema
from desireline.sequences.prepared import Prepared, check_begun, iso, prepare, to_us
from desireline.sequences.ragged import TARGET, Sequences

VERSIONS = {"temporal": "temporal/1", "leave-one-out": "leave-one-out/1"}
MOST_USERS = 20_000


@dataclass(frozen=True)
class Stage:
    """One half of a protocol.

    train    : what may be learned from;  end_us : the moment where its observation ends (leave-one-out: none)
    timeline : the events that histories are read from;  asked : bool [N], the events of it that may be asked for
    from_us, until_us : the first moment that is asked about, and the one after the last
    """

    name: str  # "validation" or "test"
    protocol: str
    prepared: Prepared
    train: Sequences
    end_us: int | None
    timeline: Sequences
    asked: NDArray[np.bool_]
    from_us: int
    masks_seen: bool
    until_us: int


def stages(
    folder: Path, schema: Schema, protocol: str, at: datetime, earlier: datetime | None = None
) -> tuple[Stage, Stage]:
    """The validation and the test stage of a protocol; `at` is the cut of the temporal one.

    earlier : the validation's cut, where a task needs another than the one that holds out the usual share of the log

    Raises DataError when a stage would have nothing to learn from or to ask.
    """
    return _leave_one_out(folder, schema) if protocol == "leave-one-out" else _temporal(folder, schema, at, earlier)


def _temporal(folder: Path, schema: Schema, at: datetime, earlier: datetime | None) -> tuple[Stage, Stage]:
    last = EventStore(folder, schema).span()[1]
    if at > last:
        raise DataError(
            f"The cut {iso(at)} lies after the log's last event ({iso(last)}): nothing would be left to ask for. "
            "Name an earlier one with --cut."
        )
    check_begun(folder, schema, at)
    # the earlier cut follows from the log before the cut alone, so that the future cannot move it
    earlier = earlier or EventStore(folder, schema).default_cut(at)
    validation = _asking("validation", prepare(folder, schema, earlier, at))
    return validation, _asking("test", prepare(folder, schema, at))


def rolled(folder: Path, schema: Schema, validation: Stage, most: int) -> list[Stage]:
    """Stages like the validation at up to `most` cuts before it, the oldest first.

    Each learns from what lies before its cut and is asked for what comes until the next one's. Fewer where a log's
    beginning leaves nothing to learn from, none under leave-one-out, which knows no cut.
    """
    made: list[Stage] = []
    store, until = EventStore(folder, schema), validation.prepared.cut
    while validation.end_us is not None and len(made) < most:
        at = store.default_cut(until)
        if not store.span()[0] < at < until:
            break
        made.append(_asking(f"rolled-{len(made) + 1}", prepare(folder, schema, at, until)))
        until = at
    return made[::-1]


def _asking(name: str, prepared: Prepared) -> Stage:
    """A stage that learns from what lies before a prepared log's cut and asks for all that comes after it."""
    timeline, cut = prepared.timeline, prepared.cut_us
    time = np.asarray(timeline["time"])
    until = int(time.max(initial=cut)) + 1
    if prepared.until is None:  # nobody watched until a stray event of a wrong clock
        until = min(until, to_us(EventStore(prepared.workspace, prepared.schema).observed_end()) + 1)
    asked = _sampled(timeline, (time >= cut) & (time < until))
    return Stage(name, VERSIONS["temporal"], prepared, prepared.before, cut, timeline, asked, cut, False, until)


def _sampled(timeline: Sequences, asked: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """At most MOST_USERS users' events: those whose ids hash lowest, the same at every run."""
    rows = timeline.rows()
    users = np.unique(rows[asked])
    if len(users) <= MOST_USERS:
        return asked
    hashes = timeline.users.to_frame("user").select(content_hash(pl.col("user"))).to_series().to_numpy()
    chosen = np.zeros(len(timeline), bool)
    chosen[users[np.argsort(hashes[users], kind="stable")[:MOST_USERS]]] = True
    return asked & chosen[rows]


def _leave_one_out(folder: Path, schema: Schema) -> tuple[Stage, Stage]:
    _, last = EventStore(folder, schema).span()
    prepared = prepare(folder, schema, last + timedelta(microseconds=1))
    whole = prepared.before
    places = np.flatnonzero((whole["role"] & TARGET > 0) & (whole["item"] > 0))
    owner = np.searchsorted(whole.offsets, places, side="right") - 1
    counts = np.bincount(owner, minlength=len(whole))
    ends = np.cumsum(counts)
    long = counts >= 3
    if not long.any():
        raise DataError("No user has three target events: leave-one-out has nothing to ask. Use --protocol temporal.")
    test, validation = places[ends[long] - 1], places[ends[long] - 2]
    learned = np.ones(whole.events, bool)
    border = whole.offsets[1:].copy()
    border[long] = validation
    learned[np.arange(whole.events) >= np.repeat(border, np.diff(whole.offsets))] = False
    train = whole.take(learned)
    made = []
    for name, target in (("validation", validation), ("test", test)):
        asked = np.zeros(whole.events, bool)
        asked[target] = True
        end = to_us(last) + 1
        made.append(Stage(name, VERSIONS["leave-one-out"], prepared, train, None, whole, asked, end, True, end))
    return made[0], made[1]


def whole_log(prepared: Prepared, masks_seen: bool) -> Stage:
    """A stage that learns from all of `before` and asks nothing: for the model that will answer from now on."""
    before = prepared.before
    nothing = np.zeros(before.events, bool)
    now = prepared.cut_us
    return Stage("live", "none", prepared, before, now, before, nothing, now, masks_seen, now)
