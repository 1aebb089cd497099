"""`prepare`: the log as of a cut, as ragged columns, vocabularies, bins, an item table and features on disk.

Two passes. The first is one pure function per range of user buckets (`prepare_part`): read, cut, clean, sessions,
features, and columns with local codes; a process pool maps it here, a cluster engine may map it elsewhere. The second
merges the parts' dictionaries into vocabularies and appends the parts' columns in bucket order under global ids. No
step holds all users in memory, and what lies before the cut is a function of the events before the cut alone.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from desireline.core.processes import process_pool
from desireline.core.progress import progress
from desireline.events.clean import Limits, clean, fit_limits
from desireline.events.cut import cut
from desireline.events.frame import BUCKETS, content_hash
from desireline.events.histories import behaviour
from desireline.events.roles import Roles
from desireline.events.sessions import with_sessions
from desireline.events.store import EventStore
from desireline.features.batch import batch_features
from desireline.schema.model import Schema
from desireline.sequences.normalise import Bins
from desireline.sequences.ragged import COLUMNS, NEGATIVE, POSITIVE, TARGET, Sequences
from desireline.sequences.vocabulary import Vocabulary

PART_EVENTS = 500_000  # events a part aims at: small enough for memory, large enough to vectorise
SAMPLE = 1_000_000  # values behind the quantiles of a number
LEAST_USERS = 3  # a category value of fewer users says who somebody is, not what they do


@dataclass(frozen=True)
class Job:
    """All that one part needs to be prepared, in any process."""

    folder: Path  # the workspace
    schema: Schema
    cut: datetime
    until: datetime | None
    limits: Limits
    out: Path
    keep_one_in: int  # of the values sampled for quantiles


def prepare_part(job: Job, lo: int, hi: int) -> dict[str, Any]:
    """Prepare the users of buckets [lo, hi) into `job.out/lo`; returns counts. Depends on nothing but its arguments."""
    store = EventStore(job.folder, job.schema)
    events = store.read_bucket(lo, hi, before=job.cut)
    if job.until is not None:
        events = cut(events, job.until)[0]
    events = behaviour(events, job.schema)
    out = job.out / f"{lo:02d}"
    counts: dict[str, Any] = {"lo": lo, "read": events.height, "removed": {}, "clipped": 0}
    sides: dict[str, pl.DataFrame] = {}
    for side, rows in zip(("before", "after"), cut(events, job.cut), strict=True):
        cleaned = clean(rows, job.schema.clean, job.limits)
        for rule, n in cleaned.removed.group_by("rule").len().iter_rows():
            counts["removed"][f"{side}: {rule}"] = n
        counts["clipped"] += cleaned.clipped
        sides[side] = with_sessions(cleaned.events, job.schema.prepare.session_gap_s)
        counts[side] = sides[side].height
    both = pl.concat([sides["before"].with_columns(seen=True), sides["after"].with_columns(seen=False)])
    (out / "codes").mkdir(parents=True)
    codes = _dictionaries(both, job.schema, out / "codes")
    for side, first in (("before", 0), ("after", sides["before"].height)):
        folder = out / side
        folder.mkdir()
        rows = sides[side]
        part = {name: array[first : first + rows.height] for name, array in codes.items()}
        local_columns(rows, part, job.schema).write(folder)
    _item_rows(sides["before"], job.schema).write_parquet(out / "items.parquet")
    batch_features(sides["before"].drop("session"), job.cut, job.schema).write_parquet(out / "features.parquet")
    sampled = sides["before"].filter(content_hash(pl.col("event_id").cast(pl.String)) % job.keep_one_in == 0)
    sampled.select("value", *number_fields(job.schema)).write_parquet(out / "numbers.parquet")
    return counts


def number_fields(schema: Schema) -> list[str]:
    """The event's own number and duration fields."""
    return [n for n, f in schema.fields.items() if f.kind in ("number", "duration") and f.of == "event"]


def category_fields(schema: Schema, of: str) -> list[str]:
    """The category fields of the event or of the item."""
    return [n for n, f in schema.fields.items() if f.kind == "category" and f.of == of]


def _dictionaries(events: pl.DataFrame, schema: Schema, folder: Path) -> dict[str, NDArray[np.int32]]:
    """Local codes (−1: null) of item and category columns; their dictionaries go to `folder`."""
    codes = {}
    for name in ["item", *category_fields(schema, "event")]:
        table = (
            events.filter(pl.col(name).is_not_null())
            .group_by(pl.col(name).alias("value"))
            .agg(count=pl.col("seen").sum().cast(pl.Int64), users=pl.col("user").filter(pl.col("seen")).n_unique())
            .sort("value")
        )
        table.write_parquet(folder / f"{name}.parquet")
        local = table.select("value", code=pl.int_range(pl.len(), dtype=pl.Int32))
        found = events.select(value=pl.col(name)).join(local, on="value", how="left", maintain_order="left")["code"]
        codes[name] = found.fill_null(-1).to_numpy().astype(np.int32)
    return codes


def local_columns(rows: pl.DataFrame, codes: dict[str, NDArray[np.int32]], schema: Schema) -> Sequences:
    """The columns of cleaned events with sessions; `codes` holds the item and category columns as integers already."""
    types = Vocabulary.of(list(schema.types))
    users = rows.select(pl.col("user").rle()).unnest("user")
    offsets = np.concatenate([[0], np.cumsum(users["len"].to_numpy())]).astype(np.int64)
    columns: dict[str, NDArray[Any]] = {
        "time": rows["time"].cast(pl.Int64).to_numpy(),
        "event": types.encode(rows["event"]).astype(np.int16),
        "value": rows["value"].fill_null(float("nan")).to_numpy().astype(np.float32),
        "session": rows["session"].to_numpy().astype(np.int32),
        "role": role_bits(rows, schema),
    }
    for name in number_fields(schema):
        columns[f"number_{name}"] = rows[name].fill_null(float("nan")).to_numpy().astype(np.float32)
    columns |= {name if name == "item" else f"field_{name}": array for name, array in codes.items()}
    return Sequences(users["value"], offsets, columns)


def role_bits(rows: pl.DataFrame, schema: Schema) -> NDArray[np.uint8]:
    """The `role` column: bit 0 positive, bit 1 target, bit 2 negative."""
    flags = Roles.of(schema).flags(rows)
    bits = [flag * np.uint8(bit) for flag, bit in zip(flags, (POSITIVE, TARGET, NEGATIVE), strict=True)]
    return np.asarray(bits[0] | bits[1] | bits[2], np.uint8)


def _item_rows(before: pl.DataFrame, schema: Schema) -> pl.DataFrame:
    """Per item of this part: events, first and last moment, and each item field's latest value with its moment."""
    seen = [
        pl.len().cast(pl.Int64).alias("count"),
        pl.col("time").min().alias("first"),
        pl.col("time").max().alias("last"),
    ]
    about = before.filter(pl.col("item").is_not_null())
    rows = about.group_by("item").agg(*seen)
    for name in item_fields(schema):
        said = about.filter(pl.col(name).is_not_null()).select("item", name, pl.col("time").alias(_moment_of(name)))
        rows = rows.join(_latest(said, name), on="item", how="left")
    return rows


def item_fields(schema: Schema) -> list[str]:
    """The fields of the item."""
    return [name for name, field in schema.fields.items() if field.of == "item"]


def _latest(said: pl.DataFrame, name: str) -> pl.DataFrame:
    """An item's row that was said last, the greatest value where two were at one moment."""
    return said.sort(_moment_of(name), name).unique("item", keep="last")


def _moment_of(name: str) -> str:
    return f"{name}, when"  # no field's name: those are identifiers


@contextmanager
def _mapped(job: Job, ranges: list[tuple[int, int]], workers: int) -> Iterator[Iterator[dict[str, Any]]]:
    if workers == 1 or len(ranges) == 1:
        yield (prepare_part(job, lo, hi) for lo, hi in ranges)
        return
    threads = os.environ.get("POLARS_MAX_THREADS")
    os.environ["POLARS_MAX_THREADS"] = str(max(1, (os.cpu_count() or 1) // workers))
    try:
        with process_pool(workers) as pool:
            futures = [pool.submit(prepare_part, job, lo, hi) for lo, hi in ranges]
            yield (future.result() for future in as_completed(futures))
    finally:
        os.environ.pop("POLARS_MAX_THREADS")
        if threads is not None:
            os.environ["POLARS_MAX_THREADS"] = threads


def write_prepared(folder: Path, schema: Schema, at: datetime, until: datetime | None, out: Path) -> dict[str, Any]:
    """Prepare the workspace's log as of `at` into the empty folder `out`; returns the counts.

    Events in [at, until) are kept apart as `after`, under the ids fitted before `at`.
    """
    store = EventStore(folder, schema)
    total = store.count()
    limits = fit_limits(cut(store.scan(), at)[0], schema.clean)
    before_events = int(cut(store.scan(["time"]), at)[0].select(pl.len()).collect().item())
    parts = min(BUCKETS, 1 << max(0, (total // PART_EVENTS)).bit_length())
    width = BUCKETS // parts
    ranges = [(lo, lo + width) for lo in range(0, BUCKETS, width)]
    # below a few parts a second process costs more to start than it saves
    workers = schema.prepare.workers or (os.cpu_count() or 1 if parts >= 8 else 1)
    with TemporaryDirectory(dir=out, prefix=".parts-") as temporary:
        job = Job(folder, schema, at, until, limits, Path(temporary), max(1, before_events // SAMPLE))
        counts: list[dict[str, Any]] = []
        with _mapped(job, ranges, workers) as done, progress("preparing", total) as advance:
            for count in done:
                counts.append(count)
                advance(count["read"])
        folders = [Path(temporary) / f"{lo:02d}" for lo, _ in ranges]
        merged = _merge(folders, schema, out)
    removed: dict[str, int] = {}
    for count in counts:
        for rule, n in count["removed"].items():
            removed[rule] = removed.get(rule, 0) + n
    return merged | {
        "read": sum(c["read"] for c in counts),
        "removed": dict(sorted(removed.items())),
        "clipped": sum(c["clipped"] for c in counts),
        "limits": limits.to_json(),
    }


def _merge(parts: list[Path], schema: Schema, out: Path) -> dict[str, Any]:
    """Vocabularies, bins, item table and features from all parts; then the columns under global ids."""
    vocabularies = {
        "item": Vocabulary.fit(
            _read(parts, "codes/item.parquet").filter(pl.col("count") > 0), schema.prepare.min_item_count
        )
    }
    for name in category_fields(schema, "event"):
        counted = _read(parts, f"codes/{name}.parquet").group_by("value").agg(pl.col("count", "users").sum())
        known = counted.filter(pl.col("users") >= LEAST_USERS)
        vocabularies[f"field_{name}"] = Vocabulary.fit(
            known.select("value", "count"), most=schema.prepare.max_categories
        )
    vocabularies["event"] = Vocabulary.of(list(schema.types))
    items = _items(_read(parts, "items.parquet"), vocabularies["item"], schema)
    for name in category_fields(schema, "item"):
        counted = (
            items.filter(pl.col(name).is_not_null()).group_by(value=pl.col(name)).agg(count=pl.len().cast(pl.Int64))
        )
        vocabularies[f"item_{name}"] = Vocabulary.fit(counted, most=schema.prepare.max_categories)
    items.write_parquet(out / "items.parquet")
    (out / "vocabularies").mkdir()
    for name, vocabulary in vocabularies.items():
        vocabulary.write(out / "vocabularies" / f"{name}.parquet")
    numbers = _read(parts, "numbers.parquet")
    bins = {"value_bin": Bins.fit(numbers["value"].drop_nulls().to_numpy(), schema.prepare.value_bins)}
    for name in number_fields(schema):
        bins[f"bin_{name}"] = Bins.fit(numbers[name].drop_nulls().to_numpy(), schema.prepare.value_bins)
    _read(parts, "features.parquet").write_parquet(out / "features.parquet")
    sizes = {side: _append(parts, side, vocabularies, bins, out) for side in ("before", "after")}
    return {"bins": {name: list(b.edges) for name, b in bins.items()}} | sizes


def _read(parts: list[Path], name: str) -> pl.DataFrame:
    return pl.concat([pl.read_parquet(part / name) for part in parts])


def _items(rows: pl.DataFrame, vocabulary: Vocabulary, schema: Schema) -> pl.DataFrame:
    """One row a known item, in the order of ids: item, count, first, last and the latest value of each field."""
    merged = rows.group_by("item").agg(pl.col("count").sum(), pl.col("first").min(), pl.col("last").max())
    for name in item_fields(schema):
        said = rows.filter(pl.col(name).is_not_null()).select("item", name, _moment_of(name))
        merged = merged.join(_latest(said, name).select("item", name), on="item", how="left")
    return pl.DataFrame({"item": vocabulary.values}).join(merged, on="item", how="left", maintain_order="left")


def _append(
    parts: list[Path], side: str, vocabularies: dict[str, Vocabulary], bins: dict[str, Bins], out: Path
) -> dict[str, int]:
    """Concatenate one side's columns in bucket order, local codes replaced by global ids; returns users and events."""
    opened = [Sequences.open(part / side) for part in parts]
    folder = out / side
    folder.mkdir()
    lengths = [len(part["time"]) for part in opened]
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    offsets = np.concatenate([[0], *(part.offsets[1:] + start for part, start in zip(opened, starts, strict=False))])
    users = pl.concat([part.users for part in opened])
    users.to_frame("user").write_parquet(folder / "users.parquet")
    np.save(folder / "offsets.npy", offsets.astype(np.int64))
    for name in opened[0].columns:
        kind = np.int32 if name == "item" or name.startswith("field_") else COLUMNS.get(name, np.float32)
        binned = (
            "value_bin" if name == "value" else name.replace("number_", "bin_") if name.startswith("number_") else None
        )
        with _column(folder / f"{name}.npy", kind, starts[-1]) as column:
            for part, source, lo, hi in zip(opened, parts, starts[:-1], starts[1:], strict=True):
                array = part[name]
                if name == "item" or name.startswith("field_"):
                    known = pl.read_parquet(source / "codes" / f"{name.removeprefix('field_')}.parquet")["value"]
                    ids = np.append(vocabularies[name].encode(known), np.int32(0))  # code −1, null, finds the last: 0
                    array = ids[array]
                column[lo:hi] = array
        if binned:
            with _column(folder / f"{binned}.npy", np.int16, starts[-1]) as column:
                for part, lo, hi in zip(opened, starts[:-1], starts[1:], strict=True):
                    column[lo:hi] = bins[binned].encode(part[name])
    return {"users": len(users), "events": int(starts[-1])}


@contextmanager
def _column(path: Path, kind: type[np.generic], length: int) -> Iterator[NDArray[Any]]:
    if length == 0:  # an empty file cannot be mapped
        np.save(path, np.empty(0, kind))
        yield np.empty(0, kind)
        return
    array = np.lib.format.open_memmap(path, mode="w+", dtype=kind, shape=(int(length),))
    yield array
    array.flush()
