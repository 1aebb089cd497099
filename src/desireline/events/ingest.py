"""Collecting: sources → mapped → quarantined or stored, each row counted once, each event stored once.

An event's id is the hash of its declared id, else of its content and of how often that content stood before in the same
source; ids are looked up among all stored ones by sorted search. Each chunk is one atomic commit: a crash leaves whole
chunks, and a second run finds them stored and goes on. A source that the log holds under another mapping is refused
(`events/reread.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from desireline.core.files import write_lock
from desireline.core.progress import progress
from desireline.events.chunk import Source
from desireline.events.delta import remove_stray
from desireline.events.identity import NONE_KNOWN, content_columns, identify, merged
from desireline.events.quarantine import Quarantine
from desireline.events.reread import keep_mapping, refuse_reread
from desireline.events.sources import open_sources
from desireline.events.store import EventStore
from desireline.schema.mapping import map_rows
from desireline.schema.model import Schema

CHUNK_ROWS = 2_000_000


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
    again completes it. Before anything is stored it raises SchemaError for a source that is in the log already, read
    under another mapping.
    """
    sources = open_sources(texts)
    with write_lock(folder, "desireline ingest"):
        store = EventStore(folder, schema)
        remove_stray(store.path)
        known = store.ids()
        refuse_reread(store.path, schema, sources, known)
        keep_mapping(store.path, schema)
        counts: dict[str, dict[str, int]] = {}
        for source in sources:
            counts[source.name], known = _ingest_one(folder, schema, store, source, known)
        if store.exists() and store.has_many_files():
            store.compact()
    total = {name: sum(c[name] for c in counts.values()) for name in ("read", "stored", "duplicate", "quarantined")}
    return Counts(**total, sources=counts)


def _ingest_one(
    folder: Path, schema: Schema, store: EventStore, source: Source, known: NDArray[np.int64]
) -> tuple[dict[str, int], NDArray[np.int64]]:
    counts = {"read": 0, "stored": 0, "duplicate": 0, "quarantined": 0}
    contents = NONE_KNOWN  # of this source so far
    names = None if schema.event_id else content_columns(schema)
    quarantine = Quarantine(folder)
    # one thread writes a chunk while this one reads and maps the next
    with (
        progress(f"ingesting {Path(source.name).name}", source.size_rows(), "rows") as advance,
        ThreadPoolExecutor(1) as writer,
    ):
        writing: Future[None] | None = None
        try:
            for chunk in source.chunks(schema.source_columns(), CHUNK_ROWS):
                mapped = map_rows(chunk.frame, schema, chunk.numbers)
                events = mapped.events
                found, contents = identify(events, names, contents, known)
                rejected = pl.concat([chunk.rejected, mapped.rejected.select(chunk.rejected.columns)]).sort("row")
                new = events.with_columns(event_id=pl.Series(found.ids), bucket=found.bucket)
                if not found.fresh.all():
                    new = new.filter(found.fresh)
                known = merged(known, found.ids[found.fresh])
                if writing:
                    writing.result()
                quarantine.add(source.name, rejected)
                writing = writer.submit(store.append, new)
                counts["read"] += events.height + rejected.height
                counts["stored"] += new.height
                counts["duplicate"] += events.height - new.height
                counts["quarantined"] += rejected.height
                advance(events.height + rejected.height)
        finally:
            if writing:
                writing.result()
    return counts, known
