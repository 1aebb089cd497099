"""The prepared log of one cut: what every model learns from and every answer is computed on."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from desireline.core.errors import DataError, ModelError
from desireline.core.files import new_folder, read_json, write_json
from desireline.events.store import EventStore
from desireline.schema.model import Schema
from desireline.sequences.normalise import Bins
from desireline.sequences.prepare import write_prepared
from desireline.sequences.ragged import Sequences
from desireline.sequences.vocabulary import Vocabulary

VERSION = 2  # of the layout on disk


@dataclass(frozen=True)
class Prepared:
    """A folder under `prepared/`, opened.

    before : events strictly before `cut`;  after : events in [cut, until), under the same ids
    items  : one row a known item in the order of ids (item, count, first, last, its fields)
    """

    folder: Path
    schema: Schema
    cut: datetime
    until: datetime | None
    counts: dict[str, Any]
    before: Sequences
    after: Sequences
    vocabularies: dict[str, Vocabulary]
    bins: dict[str, Bins]
    items: pl.DataFrame

    @property
    def workspace(self) -> Path:
        """The folder that this log was prepared in."""
        return self.folder.parent.parent

    @property
    def cut_us(self) -> int:
        """The cut in microseconds since 1970 UTC."""
        return to_us(self.cut)

    @cached_property
    def begin(self) -> datetime:
        """The first moment of the cleaned log: before it nobody could be seen."""
        first = int(np.asarray(self.before["time"]).min(initial=self.cut_us))
        return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=first)

    @cached_property
    def timeline(self) -> Sequences:
        """Every user's events before and after the cut as one sequence (a copy in memory).

        Users of `before` come first, in their order, then those first seen after the cut.
        """
        place = {user: row for row, user in enumerate(self.before.users)}
        rows = np.array([place.setdefault(user, len(place)) for user in self.after.users], dtype=np.int64)
        lengths = np.zeros((2, len(place)), np.int64)
        lengths[0, : len(self.before)] = np.diff(self.before.offsets)
        lengths[1, rows] = np.diff(self.after.offsets)
        offsets = np.concatenate([[0], np.cumsum(lengths.sum(axis=0))])
        into_before = np.arange(self.before.events) + np.repeat(
            offsets[: len(self.before)] - self.before.offsets[:-1], lengths[0, : len(self.before)]
        )
        into_after = np.arange(self.after.events) + np.repeat(
            offsets[rows] + lengths[0, rows] - self.after.offsets[:-1], np.diff(self.after.offsets)
        )
        columns = {}
        for name, array in self.before.columns.items():
            whole = np.empty(offsets[-1], array.dtype)
            whole[into_before] = array
            whole[into_after] = self.after[name]
            columns[name] = whole
        return Sequences(pl.Series("user", list(place), dtype=pl.String), offsets, columns)

    @cached_property
    def features(self) -> pl.DataFrame:
        """One row a user of `before`: the features as of the cut."""
        return pl.read_parquet(self.folder / "features.parquet")

    def user_row(self, user: str) -> int | None:
        """The row of a user in `before`, or None."""
        found = self.before.users.index_of(user)
        return None if found is None else int(found)


def to_us(moment: datetime) -> int:
    """Microseconds since 1970 UTC, exact."""
    return int(pl.select(pl.lit(moment).dt.epoch("us")).item())


def schema_digest(schema: Schema) -> str:
    """Twelve hex digits over what a prepared folder depends on: no setting of a later step."""
    later = dict.fromkeys(("encoder", "train", "evaluate", "churn", "anomaly"), True)
    raw = schema.model_dump(exclude={**later, "prepare": {"workers", "horizon"}})
    return hashlib.sha256(json.dumps(raw, sort_keys=True).encode()).hexdigest()[:12]


def prepare(folder: Path, schema: Schema, at: datetime, until: datetime | None = None) -> Prepared:
    """The prepared log as of `at`, made unless the same stands already.

    Raises DataError when no event lies before `at`.
    """
    store = EventStore(folder, schema)
    check_begun(folder, schema, at)
    key = f"{VERSION}|{store.version()}|{schema_digest(schema)}|{iso(at)}|{iso(until) if until else ''}"
    name = f"{at:%Y%m%dT%H%M%S}-{hashlib.sha256(key.encode()).hexdigest()[:8]}"
    out = folder / "prepared" / name
    if not (out / "meta.json").exists():
        with new_folder(out) as temporary:
            counts = write_prepared(folder, schema, at, until, temporary)
            if counts["before"]["events"] == 0:
                raise DataError(
                    f"Cleaning left no event before the cut {iso(at)}: see the rules under `clean` in desireline.yaml."
                )
            meta = {
                "version": VERSION,
                "digest": schema_digest(schema),
                "cut": iso(at),
                "until": iso(until) if until else None,
                "counts": counts,
            }
            write_json(temporary / "meta.json", meta)
    return open_prepared(out, schema)


def check_begun(folder: Path, schema: Schema, at: datetime) -> None:
    """Raise DataError when no event lies before the cut `at`."""
    first = EventStore(folder, schema).span()[0]
    if at <= first:
        raise DataError(
            f"The cut {iso(at)} lies at or before the log's first event ({iso(first)}): nothing would be left to "
            "learn from. Name a later one with --cut."
        )


def open_prepared(path: Path, schema: Schema) -> Prepared:
    """Open a folder that `prepare` made. Raises ModelError when the schema has changed since."""
    meta = read_json(path / "meta.json")
    if meta["digest"] != schema_digest(schema):
        raise ModelError(f"{path.name} was prepared under another schema: run `desireline prepare` again.")
    bins = {name: Bins(tuple(edges)) for name, edges in meta["counts"]["bins"].items()}
    vocabularies = {p.stem: Vocabulary.read(p) for p in sorted((path / "vocabularies").glob("*.parquet"))}
    return Prepared(
        folder=path,
        schema=schema,
        cut=datetime.fromisoformat(meta["cut"]),
        until=datetime.fromisoformat(meta["until"]) if meta["until"] else None,
        counts=meta["counts"],
        before=Sequences.open(path / "before"),
        after=Sequences.open(path / "after"),
        vocabularies=vocabularies,
        bins=bins,
        items=pl.read_parquet(path / "items.parquet"),
    )


def iso(moment: datetime) -> str:
    """ISO 8601 in UTC, to the microsecond only where it is needed."""
    return moment.isoformat().replace("+00:00", "Z")
