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

Hashes = NDArray[np.uint64]
Ids = NDArray[np.int64]
Value = TypeVar("Value", bound=np.generic)
GOLDEN = 0x9E3779B97F4A7C15  # 2^64 divided by the golden ratio
NULL = np.uint64(0xD1B54A32D192ED03)  # the hash of no value
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
    hashed = events.select(content_hash(pl.col(name)) for name, kind in events.schema.items() if kind == pl.String)
    bucket = (hashed["user"] & (BUCKETS - 1)).cast(pl.Int16)
    if names is None:
        ids = hashed["declared_id"].to_numpy()
        order = np.argsort(ids, kind="stable")  # of equal ids the first row counts
        ordered = ids[order]
        fresh = ~_within(ordered, known)
        fresh[1:] &= ordered[1:] != ordered[:-1]
        return Identified(ids, _back(fresh, order), bucket), before
    content = _content(events, hashed, names).view(np.int64)
    order = np.argsort(content)  # rows of equal content may change places
    ordered = content[order]
    number = _times_before(ordered, before)
    repeated = np.flatnonzero(number)
    fresh = ~_within(ordered, known)
    if len(repeated):
        ids = ordered.copy()
        ids[repeated] = _mixed(
            ordered[repeated].view(np.uint64), number[repeated].view(np.uint64) * np.uint64(GOLDEN)
        ).view(np.int64)
        fresh[repeated] = ~_within(ids[repeated], known)
        ids = _back(ids, order)
    else:
        ids = content
    return Identified(ids, _back(fresh, order), bucket), merged(before, ordered)


def merged(known: Ids, new: Ids) -> Ids:
    """Two sets of ids as one, ascending."""
    if not len(new):
        return known
    both = np.concatenate([known, new])
    both.sort(kind="stable" if len(known) > 10 * len(new) else None)
    return both


def _content(events: pl.DataFrame, hashed: pl.DataFrame, names: Sequence[str]) -> Hashes:
    """uint64 [N]: the columns' hashes, mixed in their order."""
    mixed = np.full(events.height, len(names), np.uint64)
    for place, name in enumerate(names, 1):
        mixed ^= _bits(hashed[name] if name in hashed.columns else events[name])
        mixed = _mixed(mixed, np.uint64(place * GOLDEN % 2**64))
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


def _times_before(ordered: Ids, before: Ids) -> NDArray[np.int64]:
    """int64 [N]: how often each of the ascending contents stood before it, in this chunk or in those before."""
    number = np.zeros(len(ordered), np.int64)
    same = np.flatnonzero(ordered[1:] == ordered[:-1]) + 1
    if len(same):  # places in a run of equal contents are counted from the run's beginning
        begins = np.ones(len(ordered), bool)
        begins[same] = False
        place = np.arange(len(ordered))
        number = place - np.maximum.accumulate(np.where(begins, place, 0))
    if len(before):
        left = np.searchsorted(before, ordered)
        stood = np.flatnonzero(before[np.minimum(left, len(before) - 1)] == ordered)
        number[stood] += np.searchsorted(before, ordered[stood], side="right") - left[stood]
    return number


def _within(ids: Ids, known: Ids) -> NDArray[np.bool_]:
    if not len(known):
        return np.zeros(len(ids), bool)
    return np.asarray(known[np.minimum(np.searchsorted(known, ids), len(known) - 1)] == ids)


def _mixed(value: Hashes, step: Hashes | np.uint64) -> Hashes:
    """SplitMix64's finaliser (Steele et al. 2014) over value + step."""
    z = value + step
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
