"""The event store: a Delta table in DIR/log that every later step reads and that only `ingest` and erasure write.

Each append is one atomic commit of one file, sorted by bucket and time: a bucket of users is an order inside files, not
a folder, so that row-group statistics prune what is read while files stay few (a partition a bucket took fifteen times
as long to write).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
from deltalake import DeltaTable
from numpy.typing import NDArray

from desireline.core.errors import DataError, SchemaError, StoreError
from desireline.events import delta
from desireline.events.cut import cut
from desireline.events.frame import BUCKETS, ORDER, bucket_expression, bucket_of, frame_schema
from desireline.schema.model import Schema

FILE_ROWS = 2_000_000  # a file is read and rewritten whole, so its size bounds the memory of both
MANY_FILES = 64
QUANTILES = {"early": 0.01, "late": 0.99}  # the log's span without stray times
STRAY = 1e-3  # of the events, at most, are taken for strays
NUMBERS, TEXTS = ("number", "duration"), ("category", "text", "image", "audio")  # kinds by how they are stored
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class EventStore:
    """The log of one workspace under its schema."""

    def __init__(self, folder: Path, schema: Schema) -> None:
        self.path, self.schema = Path(folder) / "log", schema
        self.columns = frame_schema(schema)

    def exists(self) -> bool:
        """Whether anything was ever stored."""
        return delta.exists(self.path)

    def append(self, events: pl.DataFrame) -> None:
        """Store an event frame, all of it or nothing. Raises StoreError when the disk refuses."""
        if events.height == 0:
            return
        delta.append(self.path, _arranged(events.select(list(self.columns))))

    def version(self) -> str:
        """The table's id and the number of its last commit: another as soon as other events are stored."""
        table = self._table()
        return f"{table.metadata().id}|{table.version()}"

    def scan(self, columns: Sequence[str] | None = None, buckets: tuple[int, int] | None = None) -> pl.LazyFrame:
        """The stored events, lazily and in no order; `buckets` is a half-open range that row groups are pruned by.

        Raises SchemaError for a field that was stored as another kind.
        """
        table = self._table()
        self._check_kinds(table)
        files = delta.files_of(table, self.path)
        frame = _scanned(files, self.columns) if files else pl.LazyFrame(schema=self.columns)
        if buckets is not None:
            frame = _within(frame, buckets)
        return frame if columns is None else frame.select(columns)

    def read_bucket(
        self, lo: int, hi: int, columns: Sequence[str] | None = None, before: datetime | None = None
    ) -> pl.DataFrame:
        """The events of the users of buckets [lo, hi), sorted by bucket and ORDER, aliases resolved.

        `before`: only alias events strictly before it merge users.
        """
        merged = self.aliases(before)
        needed = None if columns is None else list(dict.fromkeys(["bucket", *ORDER, *columns]))
        events = self._collect(self.scan(needed, (lo, hi)))
        if merged:
            table = pl.DataFrame({"user": list(merged), "canonical": list(merged.values())})
            moved = [old for old, new in merged.items() if lo <= bucket_of(new) < hi and not lo <= bucket_of(old) < hi]
            if moved:
                events = pl.concat([events, self._collect(self.scan(needed).filter(pl.col("user").is_in(moved)))])
            events = events.join(table, on="user", how="left", maintain_order="left")
            events = events.with_columns(user=pl.coalesce("canonical", "user")).drop("canonical")
            events = events.with_columns(bucket=bucket_expression(pl.col("user")))
            events = events.filter(pl.col("bucket") >= lo, pl.col("bucket") < hi)
        events = events.sort("bucket", *ORDER)
        return events if columns is None else events.select(columns)

    def users_events(self, user: str, before: datetime | None = None) -> pl.DataFrame:
        """All events of one user, aliases resolved, in order; empty for a user that nobody knows.

        `before`: only alias events strictly before it merge users.
        """
        merged = self.aliases(before)
        canonical = merged.get(user, user)
        names = [canonical, *(old for old, new in merged.items() if new == canonical)]
        buckets = [bucket_of(name) for name in names]
        found = self._collect(self.scan().filter(pl.col("bucket").is_in(buckets), pl.col("user").is_in(names)))
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
        for user, _, _, other, _ in self._collect(rows.sort("time", "event_id")).iter_rows():
            root, merged = _root(parent, user), _root(parent, other)
            if root != merged:
                parent[merged] = root
        return {user: _root(parent, user) for user in parent}

    def ids(self) -> NDArray[np.int64]:
        """Every stored event's id, ascending."""
        if not self.exists():
            return np.empty(0, np.int64)
        found = self._collect(self.scan(["event_id"]))["event_id"].to_numpy().copy()
        found.sort()
        return found

    def count(self) -> int:
        """How many events are stored."""
        return int(self._collect(self.scan(["time"]).select(pl.len())).item())

    def span(self) -> tuple[datetime, datetime]:
        """The first and the last event's moment. Raises DataError for an empty log."""
        first, last = self._collect(self.scan(["time"]).select(a=pl.col("time").min(), b=pl.col("time").max())).row(0)
        if first is None:
            raise DataError(f"The log of {self.path.parent} holds no event: ingest one with `desireline ingest`.")
        return first, last

    def observed_end(self) -> datetime:
        """The last moment at which the log was kept: that of its last event, but for strays with a wrong clock.

        Strays stand apart: at most one event in a thousand, after a silence longer than half the span of the rest and
        than a day. Their own times stay as they are. Raises DataError for an empty log.
        """
        last = self.span()[1]
        hour = pl.col("time").dt.truncate("1h")
        hours = self._collect(self.scan(["time"]).group_by(hour=hour).agg(n=pl.len(), last=pl.max("time")).sort("hour"))
        upto = hours["n"].cum_sum()
        late = hours["n"].cum_sum(reverse=True) <= STRAY * upto[-1]  # so few come at that hour or after it
        early, core = (hours["last"][int((upto < q * upto[-1]).sum())] for q in QUANTILES.values())
        silence = max(timedelta(days=1), (core - early) / 2)
        apart = hours.filter(late & (pl.col("hour") - pl.col("last").shift(1) > silence))
        if apart.height == 0:
            return last
        end: datetime = hours.filter(pl.col("hour") < apart["hour"][0])["last"].item(-1)
        return end

    def default_cut(self, before: datetime | None = None) -> datetime:
        """The cut that holds out the last `prepare.horizon` share of the log's events, or of those before a moment.

        On the whole day in a log of months, on the whole hour in one of days. Raises DataError for an empty log.
        """
        times = self.scan(["time"]) if before is None else cut(self.scan(["time"]), before)[0]
        share = self.schema.prepare.horizon
        wanted = [pl.col("time").quantile(q, interpolation="lower").alias(name) for name, q in QUANTILES.items()]
        found = times.select(*wanted, at=pl.col("time").quantile(1 - share, interpolation="lower"), last=pl.max("time"))
        early, late, at, last = self._collect(found).row(0)
        if at is None:
            raise DataError("The log holds no event from which a cut could be chosen.")
        for unit in (timedelta(days=1), timedelta(hours=1)):
            if late - early > 30 * unit:
                at -= (at - EPOCH) % unit
                break
        return at if at > early else last  # a log of one moment: nothing can stand on both sides

    def delete_user(self, user: str) -> int:
        """Remove one user's events and those of the users merged into it, from the disk too; returns how many.

        The files that hold them are rewritten, in one commit. Older versions of the table go with them, since they
        hold the user. Like `append` and `compact`, it is called by who holds the workspace's write lock.
        """
        merged = self.aliases()
        canonical = merged.get(user, user)
        names = [canonical, *(old for old, new in merged.items() if new == canonical)]
        theirs = pl.col("bucket").is_in({bucket_of(name) for name in names}) & pl.col("user").is_in(names)
        table = self._table()
        columns = delta.columns_of(table)  # all that were ever stored, not only those of today's schema
        held: list[Path] = []
        removed = 0
        for file in delta.files_of(table, self.path):
            count = int(self._collect(_scanned([file], columns).filter(theirs).select(pl.len())).item())
            held += [file] if count else []
            removed += count
        if held:
            delta.replace(self.path, held, (self._collect(_scanned([file], columns).filter(~theirs)) for file in held))
            delta.forget_old_versions(self.path)
        return removed

    def compact(self) -> None:
        """Rewrite all files into few, each of a range of buckets, in one commit."""
        table = self._table()
        old, columns = delta.files_of(table, self.path), delta.columns_of(table)
        sizes = self._collect(self.scan(["bucket"]).group_by("bucket").len().sort("bucket"))
        begins, rows = [0], 0
        for bucket, size in sizes.iter_rows():
            if rows and rows + size > FILE_ROWS:
                begins.append(bucket)
                rows = 0
            rows += size
        parts = (
            _arranged(self._collect(_within(_scanned(old, columns), part)))
            for part in zip(begins, [*begins[1:], BUCKETS], strict=True)
        )
        delta.replace(self.path, old, parts)

    def has_many_files(self) -> bool:
        """Whether reading would gain by `compact`."""
        return len(delta.files_of(self._table(), self.path)) > MANY_FILES

    def _collect(self, frame: pl.LazyFrame) -> pl.DataFrame:
        try:
            return frame.collect(engine="streaming")
        except (pl.exceptions.PolarsError, OSError) as error:
            raise StoreError(
                f"The log cannot be read: {str(error).strip()}. Restore its files, or {delta.anew(self.path)}."
            ) from error

    def _check_kinds(self, table: DeltaTable) -> None:
        """Raise SchemaError for a field that was stored as text and is declared as a number, or the reverse."""
        held = delta.columns_of(table)
        for name, field in self.schema.fields.items():
            if name in held and held[name] != self.columns[name]:
                was, kinds = ("text", TEXTS) if held[name] == pl.String else ("numbers", NUMBERS)
                raise SchemaError(
                    f"The field {name!r} is stored as {was} and declared as {field.kind} in desireline.yaml. Put its "
                    f"kind back ({', '.join(kinds)}), or {delta.anew(self.path)}."
                )

    def _table(self) -> DeltaTable:
        if not self.exists():
            raise DataError(
                f"Nothing was ingested into {self.path.parent} yet: run `desireline ingest {self.path.parent} FILE`."
            )
        return delta.open_table(self.path)


def _scanned(files: Sequence[Path], columns: Mapping[str, pl.DataType | type[pl.DataType]]) -> pl.LazyFrame:
    # no globbing: a workspace may be called `shop [new]`
    return pl.scan_parquet(
        list(files), schema=dict(columns), missing_columns="insert", extra_columns="ignore", glob=False
    )


def _within(frame: pl.LazyFrame, buckets: tuple[int, int]) -> pl.LazyFrame:
    return frame.filter(pl.col("bucket") >= buckets[0], pl.col("bucket") < buckets[1])


def _arranged(events: pl.DataFrame) -> pl.DataFrame:
    """By bucket, then time, as one integer: the full order is made on reading, where it is needed."""
    key = events.select(pl.col("bucket").cast(pl.Int64) * (1 << 56) + pl.col("time").cast(pl.Int64)).to_series()
    return events[np.argsort(key.to_numpy())]


def _root(parent: dict[str, str], user: str) -> str:
    while user in parent:
        user = parent[user]
    return user
