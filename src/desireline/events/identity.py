"""Which event is which: a 64-bit id from its declared id, else from its content and how often that stood before.

Costs per event: one xxHash per text column and a few multiplications; one sort and one sorted search in all ids known
so far, 8 bytes each in memory. Every column is hashed by itself and mixed in by its place, so no separator can collide
with what stands in a cell, and null, empty and a column's end are told apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import polars as pl
from numpy.typing import NDArray

from desireline.events.frame import BUCKETS, content_hash
from desireline.schema.model import Schema

Hashes = NDArray[np.uint64]
Ids = NDArray[np.int64]
Value = TypeVar("Value", bound=np.generic)
GOLDEN = 0x9E3779B97F4A7C15  # 2^64 divided by the golden ratio
NULL = np.uint64(0xD1B54A32D192ED03)  # the hash of no value
CACHED = 1 << 14  # rows that stay in the processor's cache while they are mixed
NAN = np.uint64(0x7FF8000000000000)
NONE_KNOWN: Ids = np.empty(0, np.int64)


@dataclass(frozen=True)
class Identified:
    """Ids of a chunk's events (int64 [N]), which of them are new (bool [N]), and the users' buckets (Int16 [N])."""

    ids: Ids
    fresh: NDArray[np.bool_]
    bucket: pl.Series


def identify(events: pl.DataFrame, names: Sequence[str] | None, before: Ids, known: Ids) -> tuple[Identified, Ids]:
    """Give a chunk's events their ids.

    Parameters
    ----------
    events
        Mapped events.
    names
        The columns that make an event's content; None where `declared_id` identifies it.
    before
        Contents of the same source so far, ascending, repeats included (empty where ids are declared).
    known
        Ids stored so far, ascending.

    Returns
    -------
    Identified, and `before` with this chunk's contents.
    """
    hashed = _hashed(events)
    bucket = (hashed["user"] & (BUCKETS - 1)).cast(pl.Int16)
    if names is None:
        ids = hashed["declared_id"].to_numpy()
        order = np.argsort(ids, kind="stable")  # of equal ids the first row counts
        ordered = ids[order]
        fresh = ~within(ordered, known)
        fresh[1:] &= ordered[1:] != ordered[:-1]
        return Identified(ids, _back(fresh, order), bucket), before
    content = _content(events, hashed, names).view(np.int64)
    order = np.argsort(content)  # rows of equal content may change places
    ordered = content[order]
    fresh = ~within(ordered, known)
    number = _times_before(ordered, before, fresh)
    repeated = np.flatnonzero(number)
    ids = content
    if len(repeated):
        steps = number[repeated].view(np.uint64) * np.uint64(GOLDEN)
        mixed = _mix(ordered[repeated].view(np.uint64), steps).view(np.int64)
        ids[order[repeated]] = mixed
        fresh[repeated] = ~within(mixed, known)
    return Identified(ids, _back(fresh, order), bucket), merged(before, ordered)


def content_columns(schema: Schema) -> list[str]:
    """The columns that make an event's content, in the order that they are hashed in."""
    return ["user", "time", "event", "item", "value", *schema.fields, *(["alias"] if schema.alias else [])]


def contents(events: pl.DataFrame, names: Sequence[str]) -> Hashes:
    """uint64 [N]: the hash of each event's content, however often it stood before."""
    return _content(events, _hashed(events), names)


def within(ids: Ids, known: Ids) -> NDArray[np.bool_]:
    """bool [N]: which ids are among the known ones, which ascend."""
    if not len(known):
        return np.zeros(len(ids), bool)
    return np.asarray(known[np.minimum(np.searchsorted(known, ids), len(known) - 1)] == ids)


def merged(known: Ids, new: Ids) -> Ids:
    """Two sets of ids as one, ascending."""
    if not len(new):
        return known
    both = np.concatenate([known, np.sort(new)])
    both.sort(kind="stable")  # which merges two ascending runs in one pass
    return both


def _hashed(events: pl.DataFrame) -> pl.DataFrame:
    """The hashes of the text columns."""
    return events.select(content_hash(pl.col(name)) for name, kind in events.schema.items() if kind == pl.String)


def _content(events: pl.DataFrame, hashed: pl.DataFrame, names: Sequence[str]) -> Hashes:
    """uint64 [N]: the columns' hashes, mixed in their order."""
    cells = [_bits(hashed[name] if name in hashed.columns else events[name]) for name in names]
    mixed = np.full(events.height, len(names), np.uint64)
    for begin in range(0, len(mixed), CACHED):
        part = mixed[begin : begin + CACHED]
        for place, column in enumerate(cells, 1):
            part ^= column if isinstance(column, np.uint64) else column[begin : begin + CACHED]
            _mix(part, np.uint64(place * GOLDEN % 2**64))
    return mixed


def _bits(column: pl.Series) -> Hashes | np.uint64:
    """Whole numbers, moments and hashes as they are; of floats, -0.0 is 0.0 and every not-a-number is one."""
    if column.null_count() == len(column):
        return NULL
    if column.dtype.is_float():
        numbers = column.to_numpy() + 0.0
        bits = np.where(np.isnan(numbers), NAN, numbers.view(np.uint64))
    else:
        bits = column.to_physical().fill_null(0).to_numpy().view(np.uint64)
    return np.where(column.is_null().to_numpy(), NULL, bits) if column.null_count() else bits


def _times_before(ordered: Ids, before: Ids, fresh: NDArray[np.bool_]) -> NDArray[np.int64]:
    """int64 [N]: how often each of the ascending contents stood before it, in this chunk or in those before.

    A content that stood before is the id of its first event, so what is `fresh` did not: most need no second search.
    """
    number = np.zeros(len(ordered), np.int64)
    same = np.flatnonzero(ordered[1:] == ordered[:-1]) + 1
    begins = np.flatnonzero(np.diff(same, prepend=-1) > 1)  # of the runs of equal contents
    number[same] = same - np.repeat(same[begins], np.diff(begins, append=len(same))) + 1
    if len(before):
        old = np.flatnonzero(~fresh)
        left = np.searchsorted(before, ordered[old])
        stood = before[np.minimum(left, len(before) - 1)] == ordered[old]
        old, left = old[stood], left[stood]
        number[old] += np.searchsorted(before, ordered[old], side="right") - left
    return number


def _mix(z: Hashes, step: Hashes | np.uint64) -> Hashes:
    """SplitMix64's finaliser (Steele et al. 2014) over z + step, in place."""
    z += step
    z ^= z >> np.uint64(30)
    z *= np.uint64(0xBF58476D1CE4E5B9)
    z ^= z >> np.uint64(27)
    z *= np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    return z


def _back(values: NDArray[Value], order: NDArray[np.int64]) -> NDArray[Value]:
    answer = np.empty_like(values)
    answer[order] = values
    return answer
