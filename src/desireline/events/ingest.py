"""Collecting: sources → mapped → quarantined or stored, each row counted once, each event stored once.

An event's id is the hash of its declared id, else of its content and of how often that content stood before in the same
source; ids are looked up among all stored ones by sorted search. Each chunk is one atomic commit: a crash leaves whole
chunks, and a second run finds them stored and goes on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from desireline.core.files import write_lock
from desireline.core.progress import progress
from desireline.events.chunk import Source
from desireline.events.frame import bucket_expression, content_hash
from desireline.events.quarantine import Quarantine
from desireline.events.sources import open_sources
from desireline.events.store import EventStore
from desireline.schema.mapping import map_rows
from desireline.schema.model import Schema

CHUNK_ROWS = 2_000_000
BETWEEN, ABSENT = "\x1f", "\x1e"  # no id holds them, so that no two contents read the same


@dataclass(frozen=True)
class Counts:
    """read = stored + duplicate + quarantined, always; `sources` has the same for each source."""

    read: int = 0
    stored: int = 0
    duplicate: int = 0
    quarantined: int = 0
    sources: dict[str, dict[str, int]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """As the command prints it."""
        return asdict(self)


def ingest(folder: Path, schema: Schema, texts: Sequence[str]) -> Counts:
    """Store the events of files, folders, globs or URLs.

    Raises SourceError, SchemaError, StoreError or BusyError; what was stored before stays stored, and running the same
    again completes it.
    """
    sources = open_sources(texts)
    with write_lock(folder, "desireline ingest"):
        store = EventStore(folder, schema)
        known = store.ids()
        counts: dict[str, dict[str, int]] = {}
        for source in sources:
            counts[source.name], known = _ingest_one(folder, schema, store, source, known)
    total = {name: sum(c[name] for c in counts.values()) for name in ("read", "stored", "duplicate", "quarantined")}
    return Counts(**total, sources=counts)


def _ingest_one(
    folder: Path, schema: Schema, store: EventStore, source: Source, known: NDArray[np.int64]
) -> tuple[dict[str, int], NDArray[np.int64]]:
    counts = {"read": 0, "stored": 0, "duplicate": 0, "quarantined": 0}
    contents = np.empty(0, np.int64)  # of this source so far, ascending: how often each content stood before
    quarantine = Quarantine(folder)
    with progress(f"ingesting {Path(source.name).name}", source.size_rows(), "rows") as advance:
        for chunk in source.chunks(schema.source_columns(), CHUNK_ROWS):
            mapped = map_rows(chunk.frame, schema, chunk.numbers)
            events = mapped.events
            content = _content(events, schema)
            if schema.event_id is None:
                ids = _numbered(content, contents)
                contents = _merged(contents, content)
            else:
                ids = content
            fresh = _is_fresh(ids, known, "stable" if schema.event_id else None)
            rejected = pl.concat([chunk.rejected, mapped.rejected.select(chunk.rejected.columns)]).sort("row")
            quarantine.add(source.name, rejected)
            new = events.with_columns(event_id=pl.Series(ids), bucket=bucket_expression(pl.col("user"))).filter(fresh)
            store.append(new)
            known = _merged(known, ids[fresh])
            counts["read"] += events.height + rejected.height
            counts["stored"] += new.height
            counts["duplicate"] += events.height - new.height
            counts["quarantined"] += rejected.height
            advance(events.height + rejected.height)
    return counts, known


def _content(events: pl.DataFrame, schema: Schema) -> NDArray[np.int64]:
    """int64 [N]: hash of the declared id, else of what makes the event, with null and empty told apart."""
    if schema.event_id is not None:
        return events.select(content_hash(pl.col("declared_id"))).to_series().to_numpy()
    names = ["user", "time", "event", "item", "value", *schema.fields, *(["alias"] if schema.alias else [])]
    parts = [
        (pl.col(name).cast(pl.Int64) if name == "time" else pl.col(name)).cast(pl.String).fill_null(ABSENT)
        for name in names
    ]
    return events.select(content_hash(pl.concat_str(parts, separator=BETWEEN))).to_series().to_numpy()


def _numbered(content: NDArray[np.int64], before: NDArray[np.int64]) -> NDArray[np.int64]:
    """Ids from contents: mixed with how often the same content stood before in the source."""
    order = np.argsort(content)  # rows of equal content may change places
    ordered = content[order]
    first = np.flatnonzero(np.diff(ordered, prepend=ordered[:1] - 1)) if len(ordered) else order
    number = np.arange(len(ordered)) - np.repeat(first, np.diff(np.append(first, len(ordered))))
    number += np.searchsorted(before, ordered, side="right") - np.searchsorted(before, ordered, side="left")
    repeated = number > 0
    mixed = ordered.copy()
    mixed[repeated] = _mix(ordered[repeated], number[repeated])
    ids = np.empty_like(content)
    ids[order] = mixed
    return ids


def _mix(content: NDArray[np.int64], number: NDArray[np.int64]) -> NDArray[np.int64]:
    """SplitMix64's finaliser (Steele et al. 2014) over content + number × the golden ratio."""
    z = content.view(np.uint64) + number.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray((z ^ (z >> np.uint64(31))).view(np.int64))


def _is_fresh(ids: NDArray[np.int64], known: NDArray[np.int64], kind: Literal["stable"] | None) -> NDArray[np.bool_]:
    """bool [N]: the first of each id that is not stored yet; any of them unless the order is stable."""
    order = np.argsort(ids, kind=kind)
    ordered = ids[order]
    fresh = np.ones(len(ids), bool)
    fresh[1:] = ordered[1:] != ordered[:-1]
    if len(known):
        place = np.minimum(np.searchsorted(known, ordered), len(known) - 1)
        fresh &= known[place] != ordered
    answer = np.empty(len(ids), bool)
    answer[order] = fresh
    return answer


def _merged(known: NDArray[np.int64], new: NDArray[np.int64]) -> NDArray[np.int64]:
    both = np.concatenate([known, new])
    both.sort(kind="stable" if len(known) > 10 * len(new) else None)
    return both
