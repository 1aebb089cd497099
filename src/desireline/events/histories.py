"""The histories of all users, some buckets of users at a time: snapshots and answers for everybody begin with them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

import polars as pl

from desireline.core.progress import progress
from desireline.events.cut import Frame, cut
from desireline.events.frame import BUCKETS
from desireline.events.store import EventStore
from desireline.schema.model import Schema

EVENTS = 200_000  # held at once, or those of one bucket


def histories_before(store: EventStore, as_of: datetime, label: str) -> Iterator[pl.DataFrame]:
    """Event frames of whole users with an event before `as_of`, in the order of the store; shows how far it is."""
    total = store.count()
    width = max(1, min(BUCKETS, int(BUCKETS * EVENTS / max(1, total))))
    with progress(label, total) as advance:
        for bucket in range(0, BUCKETS, width):
            events = store.read_bucket(bucket, min(bucket + width, BUCKETS), before=as_of)
            history = behaviour(cut(events, as_of)[0], store.schema)
            if history.height:
                yield history
            advance(events.height)


def behaviour(events: Frame, schema: Schema) -> Frame:
    """The events that somebody did: those that merge two ids are none."""
    return events.filter(pl.col("event") != schema.alias.event) if schema.alias else events
