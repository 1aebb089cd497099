"""The event store: a Delta table in DIR/log that every later step reads and that only `ingest` and erasure write.

Each append is one atomic commit of one file, sorted by bucket and time: a bucket of users is an order inside files, not
a folder, so that row-group statistics prune what is read while files stay few (a partition a bucket took fifteen times
as long to write).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import numpy as np
import polars as pl
from deltalake import ColumnProperties, DeltaTable, WriterProperties, write_deltalake
from deltalake.exceptions import DeltaError
from numpy.typing import NDArray

from desireline.core.errors import DataError, SchemaError, StoreError
from desireline.core.files import storage_error
from desireline.events.cut import cut
from desireline.events.frame import ORDER, bucket_expression, bucket_of, frame_schema
from desireline.schema.model import Schema

ROW_GROUP = 65_536
WRITER = WriterProperties(
    compression="ZSTD",
    compression_level=1,
    max_row_group_size=ROW_GROUP,
    default_column_properties=ColumnProperties(dictionary_enabled=True),
)


class EventStore:
    """The log of one workspace under its schema."""

    def __init__(self, folder: Path, schema: Schema) -> None:
        self.path, self.schema = Path(folder) / "log", schema
        self.columns = frame_schema(schema)

    def exists(self) -> bool:
        """Whether anything was ever stored."""
        return (self.path / "_delta_log").exists()

    def append(self, events: pl.DataFrame) -> None:
        """Store an event frame, all of it or nothing. Raises StoreError when the disk refuses."""
        if events.height == 0:
            return
        # by bucket, then time, as one integer: the full order is made on reading, where it is needed
        key = events.select(pl.col("bucket").cast(pl.Int64) * (1 << 56) + pl.col("time").cast(pl.Int64)).to_series()
        write(self.path, events.select(list(self.columns))[np.argsort(key.to_numpy())])

    def version(self) -> int:
        """The number of the last commit."""
        return int(self._table().version())

    def scan(self, columns: Sequence[str] | None = None, buckets: tuple[int, int] | None = None) -> pl.LazyFrame:
        """The stored events, lazily and in no order; `buckets` is a half-open range that row groups are pruned by."""
        files = self._table().file_uris()
        if not files:
            frame = pl.LazyFrame(schema=self.columns)
        else:
            frame = pl.scan_parquet(files, schema=dict(self.columns), missing_columns="insert", extra_columns="ignore")
        if buckets is not None:
            frame = frame.filter(pl.col("bucket") >= buckets[0], pl.col("bucket") < buckets[1])
        return frame if columns is None else frame.select(columns)

    def read_bucket(
        self, lo: int, hi: int, columns: Sequence[str] | None = None, before: datetime | None = None
    ) -> pl.DataFrame:
        """The events of the users of buckets [lo, hi), sorted by bucket and ORDER, aliases resolved.

        `before`: only alias events strictly before it merge users.
        """
        merged = self.aliases(before)
        events = self.scan(buckets=(lo, hi)).collect(engine="streaming")
        if merged:
            table = pl.DataFrame({"user": list(merged), "canonical": list(merged.values())})
            moved = [old for old, new in merged.items() if lo <= bucket_of(new) < hi and not lo <= bucket_of(old) < hi]
            if moved:
                events = pl.concat(
                    [events, self.scan().filter(pl.col("user").is_in(moved)).collect(engine="streaming")]
                )
            events = events.join(table, on="user", how="left", maintain_order="left")
            events = events.with_columns(user=pl.coalesce("canonical", "user")).drop("canonical")
            events = events.with_columns(bucket=bucket_expression(pl.col("user")))
            events = events.filter(pl.col("bucket") >= lo, pl.col("bucket") < hi)
        events = events.sort("bucket", *ORDER)
        return events if columns is None else events.select(columns)

    def users_events(self, user: str) -> pl.DataFrame:
        """All events of one user, aliases resolved, in order; empty for a user that nobody knows."""
        merged = self.aliases()
        canonical = merged.get(user, user)
        names = [canonical, *(old for old, new in merged.items() if new == canonical)]
        buckets = [bucket_of(name) for name in names]
        found = self.scan().filter(pl.col("bucket").is_in(buckets), pl.col("user").is_in(names)).collect()
        moved = found.with_columns(user=pl.lit(canonical), bucket=pl.lit(bucket_of(canonical), pl.Int16))
        return moved.sort(ORDER)

    def aliases(self, before: datetime | None = None) -> dict[str, str]:
        """Merged user -> the user it stands for, chains followed; {} for a schema without an alias event."""
        if self.schema.alias is None:
            return {}
        rows = self.scan(["user", "time", "event", "alias", "event_id"]).filter(
            pl.col("event") == self.schema.alias.event, pl.col("alias").is_not_null()
        )
        if before is not None:
            rows = cut(rows, before)[0]
        parent: dict[str, str] = {}
        for user, _, _, other, _ in rows.sort("time", "event_id").collect().iter_rows():
            root, merged = _root(parent, user), _root(parent, other)
            if root != merged:
                parent[merged] = root
        return {user: _root(parent, user) for user in parent}

    def ids(self) -> NDArray[np.int64]:
        """Every stored event's id, ascending."""
        if not self.exists():
            return np.empty(0, np.int64)
        found = self.scan(["event_id"]).collect()["event_id"].to_numpy().copy()
        found.sort()
        return found

    def count(self) -> int:
        """How many events are stored."""
        return int(self.scan(["time"]).select(pl.len()).collect().item())

    def span(self) -> tuple[datetime, datetime]:
        """The first and the last event's moment. Raises DataError for an empty log."""
        first, last = self.scan(["time"]).select(a=pl.col("time").min(), b=pl.col("time").max()).collect().row(0)
        if first is None:
            raise DataError(f"The log of {self.path.parent} holds no event: ingest one with `desireline ingest`.")
        return first, last

    def delete_user(self, user: str) -> int:
        """Remove one user's events and those of the users merged into it; returns how many."""
        merged = self.aliases()
        canonical = merged.get(user, user)
        names = [canonical, *(old for old, new in merged.items() if new == canonical)]
        listed = ", ".join("'" + name.replace("'", "''") + "'" for name in names)
        buckets = ", ".join(str(b) for b in sorted({bucket_of(name) for name in names}))
        done = self._table().delete(f"bucket IN ({buckets}) AND user IN ({listed})")
        return int(done.get("num_deleted_rows") or 0)

    def compact(self) -> None:
        """Rewrite the files into few large ones, in order."""
        self._table().optimize.compact(writer_properties=WRITER)

    def _table(self) -> DeltaTable:
        if not self.exists():
            raise DataError(
                f"Nothing was ingested into {self.path.parent} yet: run `desireline ingest {self.path.parent} FILE`."
            )
        try:
            return DeltaTable(self.path)
        except DeltaError as error:
            raise StoreError(f"The log {self.path} is damaged: {error}.") from error


def write(path: Path, rows: pl.DataFrame) -> None:
    """Append rows to a Delta table in one commit; a column that is new to the table is added to it."""
    try:
        write_deltalake(path, rows, mode="append", schema_mode="merge", writer_properties=WRITER)
    except OSError as error:
        raise storage_error(error, path) from error
    except DeltaError as error:
        text = str(error)
        if "No space left" in text or "os error 28" in text:
            raise StoreError(
                f"No space is left on the disk that holds {path}. Free some and run the command again; "
                "nothing already stored is lost."
            ) from error
        if "schema" in text.lower() or "cast" in text.lower():
            raise SchemaError(
                f"The events do not fit the table in {path}: {text}. A field's kind was changed after events were "
                "stored; put it back, or start another workspace."
            ) from error
        raise StoreError(f"{path} cannot be written: {text}.") from error


def _root(parent: dict[str, str], user: str) -> str:
    while user in parent:
        user = parent[user]
    return user
