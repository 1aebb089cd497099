"""The histories of all users, some buckets of users at a time: what answers for everybody are made of."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import polars as pl

from desireline.core.progress import progress
from desireline.events.cut import cut
from desireline.events.frame import BUCKETS
from desireline.events.store import EventStore
from desireline.schema.model import Schema

EVENTS = 200_000  # held at once, or those of one bucket


def histories_before(folder: Path, schema: Schema, as_of: datetime, label: str) -> Iterator[pl.DataFrame]:
    """Event frames of whole users with an event before `as_of`, in the order of the store; shows how far it is."""
    store = EventStore(folder, schema)
    width = max(1, min(BUCKETS, int(BUCKETS * EVENTS / max(1, store.count()))))
    with progress(label, store.count()) as advance:
        for bucket in range(0, BUCKETS, width):
            events = store.read_bucket(bucket, min(bucket + width, BUCKETS), before=as_of)
            history = behaviour(events, as_of, schema)
            if history.height:
                yield history
            advance(events.height)


def behaviour(events: pl.DataFrame, as_of: datetime, schema: Schema) -> pl.DataFrame:
    """The events before `as_of` that somebody did: those that merge two ids are no behaviour."""
    history = cut(events, as_of)[0]
    return history.filter(pl.col("event") != schema.alias.event) if schema.alias else history
