"""What `prepare` leaves on disk is what the log says, under ids fitted before the cut."""

import shutil
from datetime import UTC, datetime

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from desireline.core.errors import DataError, ModelError
from desireline.data import online_retail_ii
from desireline.schema.model import EventSpec, FieldSpec, Schema, TimeSpec
from desireline.sequences.encode import encode_events, encode_with_ids
from desireline.sequences.normalise import Bins
from desireline.sequences.prepared import open_prepared
from desireline.sequences.vocabulary import Vocabulary
from desireline.workspace import init_workspace, open_workspace

CUT = datetime(2011, 9, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prepared")
    rows = pl.read_parquet(online_retail_ii())
    kept = rows["customer_id"].drop_nulls().unique().sort().gather_every(60)
    rows = rows.filter(pl.col("customer_id").is_in(kept.implode()))
    rows.write_parquet(folder / "log.parquet")
    workspace, _ = init_workspace(folder / "shop", source=folder / "log.parquet")
    workspace.ingest(folder / "log.parquet")
    return workspace, rows


def test_columns_hold_the_log_in_order(shop):
    workspace, rows = shop
    prepared = workspace.prepare(CUT)
    user = rows["customer_id"].value_counts().sort("count")["customer_id"][-1]
    row = prepared.user_row(user)
    here = slice(int(prepared.before.offsets[row]), int(prepared.before.offsets[row + 1]))
    mine = rows.filter(pl.col("customer_id") == user, pl.col("invoice_date") < CUT.replace(tzinfo=None))
    mine = mine.filter(pl.col("quantity") != 0)
    assert here.stop - here.start == mine.height
    times = prepared.before["time"][here]
    assert (np.diff(times) >= 0).all()
    assert sorted(times.tolist()) == sorted(mine["invoice_date"].dt.epoch("us").to_list())
    items = prepared.before["item"][here]
    named = sorted(prepared.vocabularies["item"].value_of(int(i)) for i in items if i > 1)
    assert named == sorted(mine["stock_code"].drop_nulls().to_list())
    assert prepared.features.filter(pl.col("user") == user).height == 1


def test_an_item_has_the_values_that_were_said_last_of_it_before_the_cut(tmp_path, monkeypatch):
    """Across parts of the log: each buyer is in a bucket of their own."""
    monkeypatch.setattr("desireline.sequences.prepare.PART_EVENTS", 4)
    rows = [
        ("a", 1, "tea", "green", "leaves of green"),
        ("b", 2, "tea", "black", None),
        ("c", 3, "tea", None, "leaves"),
        ("d", 9, "tea", "poison", "poison"),
        ("a", 4, "cup", None, None),
        ("e", 2, "pot", "iron", None),
        ("e", 2, "pot", "steel", None),
    ]
    rows = [(user, datetime(2024, 1, day), *rest) for user, day, *rest in rows]
    table = pl.DataFrame(rows, schema=["user", "time", "item", "kind", "title"], orient="row")
    table.write_parquet(tmp_path / "log.parquet")
    fields = {
        "kind": FieldSpec(column="kind", kind="category", of="item"),
        "title": FieldSpec(column="title", kind="text", of="item"),
    }
    schema = Schema(
        user="user",
        time=TimeSpec(column="time"),
        event=EventSpec(constant="view"),
        item="item",
        fields=fields,
        types={"view": {"roles": ["positive", "target"]}},
    )
    workspace, _ = init_workspace(tmp_path / "w", schema=schema)
    workspace.ingest(tmp_path / "log.parquet")
    prepared = workspace.prepare(datetime(2024, 1, 9, tzinfo=UTC))
    said = {row["item"]: (row["count"], row["kind"], row["title"]) for row in prepared.items.iter_rows(named=True)}
    assert said == {"tea": (3, "black", "leaves"), "cup": (1, None, None), "pot": (2, "steel", None)}
    assert set(prepared.vocabularies["item_kind"].values) == {"black", "steel"}


def test_before_and_after_hold_every_event_once(shop):
    workspace, rows = shop
    prepared = workspace.prepare(CUT)
    known = rows.filter(pl.col("quantity") != 0).height
    removed = sum(prepared.counts["removed"].values())
    assert prepared.before.events + prepared.after.events + removed == known
    timeline = prepared.timeline
    assert timeline.events == prepared.before.events + prepared.after.events
    for u in (0, len(timeline) // 2, len(timeline) - 1):
        here = slice(int(timeline.offsets[u]), int(timeline.offsets[u + 1]))
        assert (np.diff(timeline["time"][here]) >= 0).all()
    assert set(timeline.users) == set(prepared.before.users) | set(prepared.after.users)


def test_each_encoded_event_keeps_its_id_in_the_log_though_cleaning_leaves_others_out(shop):
    workspace, rows = shop
    prepared = workspace.prepare(CUT)
    user = rows["customer_id"].value_counts().sort("count")["customer_id"][-1]
    events = workspace.store.users_events(user).filter(pl.col("time") < CUT)
    early = events["time"].min().replace(year=1990)
    outside = events.head(3).with_columns(time=pl.lit(early, events["time"].dtype), event_id=pl.lit(7, pl.Int64))
    sequences, ids = encode_with_ids(pl.concat([outside, events]), prepared)
    assert sequences.events == len(ids) == events.height
    by_id = {row["event_id"]: row for row in events.iter_rows(named=True)}
    vocabulary = prepared.vocabularies["item"]
    for n, event_id in enumerate(ids.tolist()):
        assert vocabulary.id_of(by_id[event_id]["item"]) == sequences["item"][n]
        assert int(by_id[event_id]["time"].timestamp()) == sequences["time"][n] // 1_000_000


def test_one_user_encoded_alone_equals_the_prepared_user(shop):
    workspace, rows = shop
    prepared = workspace.prepare(CUT)
    for user in rows["customer_id"].unique().sort().gather_every(17):
        row = prepared.user_row(user)
        if row is None:
            continue
        events = workspace.store.users_events(user).filter(pl.col("time") < CUT)
        alone = encode_events(events, prepared)
        here = slice(int(prepared.before.offsets[row]), int(prepared.before.offsets[row + 1]))
        assert set(alone.columns) == set(prepared.before.columns)
        for name, column in alone.columns.items():
            np.testing.assert_array_equal(column, prepared.before[name][here], err_msg=name)


def test_items_first_seen_after_the_cut_are_unknown(shop):
    workspace, rows = shop
    prepared = workspace.prepare(CUT)
    early = set(rows.filter(pl.col("invoice_date") < CUT.replace(tzinfo=None))["stock_code"].drop_nulls())
    assert set(prepared.vocabularies["item"].values) == early
    late = set(rows["stock_code"].drop_nulls()) - early
    assert late
    assert (prepared.after["item"] == 1).sum() > 0


def test_a_second_prepare_finds_the_first(shop):
    workspace, _ = shop
    first = workspace.prepare(CUT).folder
    stamp = (first / "meta.json").stat().st_mtime_ns
    assert workspace.prepare(CUT).folder == first
    assert (first / "meta.json").stat().st_mtime_ns == stamp


def test_a_prepared_log_of_another_schema_is_refused(shop):
    workspace, _ = shop
    folder = workspace.prepare(CUT).folder
    other = workspace.schema.model_copy(deep=True)
    other.clean.bots = False
    with pytest.raises(ModelError, match="another schema"):
        open_prepared(folder, other)


def test_a_cut_before_the_first_event_is_refused(shop):
    workspace, _ = shop
    with pytest.raises(DataError, match="first event"):
        workspace.prepare("2001-01-01")


@given(st.lists(st.text(max_size=5), max_size=30, unique=True), st.lists(st.text(max_size=5) | st.none(), max_size=30))
def test_a_vocabulary_gives_known_values_back_and_marks_the_rest(known, asked):
    table = pl.DataFrame({"value": known, "count": [1] * len(known)}, schema={"value": pl.String, "count": pl.Int64})
    vocabulary = Vocabulary.fit(table)
    ids = vocabulary.encode(pl.Series(asked, dtype=pl.String))
    for value, index in zip(asked, ids, strict=True):
        assert index == vocabulary.id_of(value)
        if value is None:
            assert index == 0
        elif value in known:
            assert vocabulary.value_of(int(index)) == value
        else:
            assert index == 1


def test_bins_keep_zero_apart_and_clip_what_lies_outside():
    bins = Bins.fit(np.concatenate([np.zeros(50), np.arange(1, 101)]), 4)
    ids = bins.encode(np.array([np.nan, 0.0, -1e9, 1.0, 26.0, 51.0, 76.0, 1e9]))
    assert ids.tolist() == [0, 1, 2, 2, 3, 4, 5, 5]
    assert len(bins) == 6
    assert Bins.fit(np.zeros(3), 4).encode(np.array([0.0, 7.0])).tolist() == [1, 2]


def test_another_log_with_as_many_commits_is_prepared_anew(tmp_path):
    source, folders = tmp_path / "log.csv", []
    for items in ("a", "b"):
        lines = [f"u{k % 3},{items}{k % 4},{1_700_000_000 + 60 * k}" for k in range(60)]
        source.write_text("\n".join(["user_id,item_id,timestamp", *lines]))
        workspace = (
            open_workspace(tmp_path / "shop") if folders else init_workspace(tmp_path / "shop", source=source)[0]
        )
        workspace.ingest(source)
        folders.append(workspace.prepare("2023-11-14T23:00").folder)
        shutil.rmtree(tmp_path / "shop" / "log")
    assert folders[0] != folders[1]
