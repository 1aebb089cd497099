"""Ids: the same content has the same id wherever it comes from, another content another, each repeat its own."""

from collections import Counter
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from desireline.events.frame import TIME, bucket_of
from desireline.events.identity import NONE_KNOWN, identify

NAMES = ["user", "time", "event", "item", "value", "colour"]
START = datetime(2024, 1, 1, tzinfo=UTC)
TEXT = st.sampled_from(["a", "b", "ab", "a\x1fb", "\x1e", "", "é", "🦊"])
ANY = st.tuples(
    TEXT,
    st.integers(0, 2).map(lambda s: START + timedelta(seconds=s)),
    st.sampled_from(["view", "buy"]),
    TEXT | st.none(),
    st.sampled_from([None, 0.0, -0.0, 1.5, 1e300]),
    TEXT | st.none(),
)
FEW = [("a", START, "view", "i", v, None) for v in (0.0, -0.0, None)]
ROW = ANY | st.sampled_from(FEW)  # so that contents come again


def frame(rows) -> pl.DataFrame:
    types = dict(zip(NAMES, [pl.String, TIME, pl.String, pl.String, pl.Float64, pl.String], strict=True))
    return pl.DataFrame(rows, schema=types, orient="row").with_columns(declared_id=pl.lit(None, pl.String))


def in_chunks(rows, sizes, known=NONE_KNOWN):
    """Ids of rows that come in chunks of one source, and which are new."""
    ids, fresh, before, begin = [], [], NONE_KNOWN, 0
    for size in [*sizes, len(rows)]:
        part = rows[begin : begin + size]
        begin += size
        if part:
            found, before = identify(frame(part), NAMES, before, known)
            known = np.sort(np.concatenate([known, found.ids[found.fresh]]))
            ids += found.ids.tolist()
            fresh += found.fresh.tolist()
    return ids, fresh


@given(rows=st.lists(ROW, max_size=40), sizes=st.lists(st.integers(1, 9), max_size=4))
def test_each_content_and_each_repeat_has_an_id_of_its_own(rows, sizes):
    ids, fresh = in_chunks(rows, sizes)
    assert len(set(ids)) == len(rows)
    assert all(fresh)
    # the slow plain way: contents by value, numbered by how often they stood before; -0.0 == 0.0 in Python too
    seen, plain = Counter(), []
    for row in rows:
        plain.append((row, seen[row]))
        seen[row] += 1
    whole, _ = in_chunks(rows, [])
    of = {}
    for key, one in zip(plain, ids, strict=True):
        of.setdefault(key[0], set()).add(one)
    again = {}
    for key, one in zip(plain, whole, strict=True):
        again.setdefault(key[0], set()).add(one)
    assert of == again  # how a source is cut into chunks changes no id


@given(rows=st.lists(ROW, min_size=1, max_size=40), cut=st.integers(0, 40))
def test_what_another_source_brought_is_known(rows, cut):
    ids, _ = in_chunks(rows[:cut], [])
    _, fresh = in_chunks(rows, [7], known=np.sort(np.array(ids, np.int64)))
    # multisets: of each content as many are new as the second source has more of it
    new = sum((Counter(rows) - Counter(rows[:cut])).values())
    assert sum(fresh) == new


def test_declared_ids_count_once_the_first_row_wins():
    rows = frame([("a", START, "view", "i", 1.0, None)] * 4).with_columns(declared_id=pl.Series(["x", "y", "x", ""]))
    found, _ = identify(rows, None, NONE_KNOWN, NONE_KNOWN)
    assert found.fresh.tolist() == [True, True, False, True]
    later, _ = identify(rows, None, NONE_KNOWN, np.sort(found.ids[:1]))
    assert later.fresh.tolist() == [False, True, False, True]


def test_the_bucket_is_the_one_that_readers_ask_for():
    users = ["007", "7", "", "é", "__proto__"]
    found, _ = identify(frame([(u, START, "view", None, None, None) for u in users]), NAMES, NONE_KNOWN, NONE_KNOWN)
    assert found.bucket.to_list() == [bucket_of(u) for u in users]
