"""The event store: what was stored is read back by any reader, in order, and what was deleted is gone from the disk."""

import json
import re
import subprocess
import sys
from datetime import UTC, datetime

import polars as pl
import pytest
from deltalake import DeltaTable, QueryBuilder

from desireline.core.errors import DataError, SchemaError, StoreError
from desireline.events.frame import BUCKETS, ORDER, bucket_expression, frame_schema
from desireline.events.store import EventStore
from desireline.schema.model import EventSpec, FieldSpec, Schema, TimeSpec

PLAIN = Schema(user="u", time=TimeSpec(column="t"), event=EventSpec(constant="view"), types={"view": {}})
COLOURED = PLAIN.model_copy(update={"fields": {"colour": FieldSpec(column="c", kind="category")}})
START = datetime(2024, 1, 1, tzinfo=UTC)


def events(schema, count=1000, first=0, users=83) -> pl.DataFrame:
    number = pl.int_range(first, first + count, eager=True)
    made = pl.DataFrame({"event_id": number}).with_columns(
        user=pl.format("user-{}", (number * 7919) % users),
        time=pl.lit(START).cast(pl.Datetime("us", "UTC")) + pl.duration(seconds=(number * 104729) % 5000),
        event=pl.lit("view"),
        item=pl.format("i{}", number % 9),
        value=pl.lit(None, pl.Float64),
        order=pl.lit(0, pl.Int64),
    )
    made = made.with_columns(bucket=bucket_expression(pl.col("user")))
    return made.with_columns(pl.lit("red").alias(name) for name in schema.fields).select(list(frame_schema(schema)))


def filled(folder, schema=PLAIN, parts=3) -> EventStore:
    store = EventStore(folder, schema)
    for part in range(parts):
        store.append(events(schema, first=part * 1000))
    return store


def test_a_range_of_buckets_comes_back_whole_and_in_order(tmp_path):
    store = filled(tmp_path)
    expected = pl.concat([events(PLAIN, first=k * 1000) for k in range(3)]).sort("bucket", *ORDER)
    assert store.read_bucket(0, BUCKETS).equals(expected)
    assert store.read_bucket(5, 9).equals(expected.filter(pl.col("bucket").is_between(5, 8)))
    narrow = store.read_bucket(5, 9, ["user", "item"])
    assert narrow.equals(expected.filter(pl.col("bucket").is_between(5, 8)).select("user", "item"))
    assert store.count() == 3000
    assert store.span() == (expected["time"].min(), expected["time"].max())


def test_a_stray_clock_does_not_end_the_observation(tmp_path):
    store = filled(tmp_path)
    last = store.span()[1]
    assert store.observed_end() == last
    late = events(PLAIN, first=5000, count=3).with_columns(time=pl.col("time") + pl.duration(days=4000))
    store.append(late[:2])
    assert store.span()[1] > last
    assert store.observed_end() == last
    store.append(late[2:])
    store.append(events(PLAIN, first=6000, count=3).with_columns(time=pl.col("time") + pl.duration(days=4000)))
    assert store.observed_end() == store.span()[1], "six in three thousand are no strays"


def test_other_engines_read_the_log(tmp_path):
    store = filled(tmp_path)
    engine = QueryBuilder().register("log", DeltaTable(store.path))
    answer = engine.execute("select user, count(*) n, min(time) t from log where bucket < 32 group by user")
    theirs = pl.DataFrame(answer.read_all()).sort("user")
    ours = store.scan(buckets=(0, 32)).group_by("user").agg(n=pl.len(), t=pl.col("time").min()).sort("user").collect()
    assert theirs["user"].to_list() == ours["user"].to_list()
    assert theirs["n"].to_list() == ours["n"].to_list()
    assert theirs["t"].to_list() == ours["t"].to_list()


def test_compacting_changes_files_only(tmp_path):
    store = filled(tmp_path, parts=5)
    before = store.read_bucket(0, BUCKETS)
    store.compact()
    assert store.read_bucket(0, BUCKETS).equals(before)
    assert len(DeltaTable(store.path).file_uris()) == 1


def test_a_deleted_user_is_on_the_disk_no_more(tmp_path):
    store = EventStore(tmp_path, PLAIN)
    for part in range(3):
        rows = events(PLAIN, first=part * 1000)
        secret = rows.with_columns(user=pl.lit("someone-secret")).with_columns(bucket=bucket_expression(pl.col("user")))
        store.append(pl.concat([rows, secret.head(4).with_columns(event_id=pl.col("event_id") + 10_000)]))
    store.compact()  # leaves the uncompacted files behind, for readers of older versions
    others = store.read_bucket(0, BUCKETS).filter(pl.col("user") != "someone-secret")
    assert store.delete_user("someone-secret") == 12
    assert store.read_bucket(0, BUCKETS).equals(others)
    assert store.delete_user("someone-secret") == 0
    for path in tmp_path.rglob("*"):
        if path.suffix == ".parquet" and "_delta_log" not in str(path):
            assert "someone-secret" not in pl.read_parquet(path)["user"]
        elif path.is_file():
            assert b"someone-secret" not in path.read_bytes()


def test_deleting_keeps_columns_that_the_schema_no_longer_names(tmp_path):
    filled(tmp_path, COLOURED)
    EventStore(tmp_path, PLAIN).delete_user("user-3")
    EventStore(tmp_path, PLAIN).compact()
    assert EventStore(tmp_path, COLOURED).scan(["colour"]).collect()["colour"].null_count() == 0


def test_a_field_that_comes_later_is_empty_before(tmp_path):
    filled(tmp_path, PLAIN, parts=1)
    store = EventStore(tmp_path, COLOURED)
    store.append(events(COLOURED, first=5000))
    assert store.scan().collect()["colour"].null_count() == 1000
    assert EventStore(tmp_path, PLAIN).count() == 2000


def test_a_field_of_another_kind_is_refused_and_nothing_changes(tmp_path):
    store = filled(tmp_path, COLOURED, parts=1)
    other = PLAIN.model_copy(update={"fields": {"colour": FieldSpec(column="c", kind="number")}})
    with pytest.raises(SchemaError, match="colour"):
        EventStore(tmp_path, other).append(
            events(COLOURED, first=5000).with_columns(colour=pl.lit(1.0)).select(list(frame_schema(other)))
        )
    assert store.count() == 1000


def test_a_field_of_another_kind_is_said_by_whoever_reads_and_nothing_is_called_damaged(tmp_path):
    filled(tmp_path, COLOURED, parts=1)
    other = EventStore(tmp_path, PLAIN.model_copy(update={"fields": {"colour": FieldSpec(column="c", kind="number")}}))
    for read in (other.count, other.ids, other.span, lambda: other.read_bucket(0, BUCKETS)):
        with pytest.raises(SchemaError) as caught:
            read()
        said = str(caught.value)
        assert "'colour' is stored as text and declared as number" in said
        assert "(category, text, image, audio)" in said
        assert f"delete {other.path} and ingest everything again" in said
    text = PLAIN.model_copy(update={"fields": {"colour": FieldSpec(column="c", kind="text")}})
    assert EventStore(tmp_path, text).count() == 1000


@pytest.mark.parametrize("name", ["my shop", "50%", "[x] {y}", "商店", "a#b?c"])
def test_a_workspace_may_have_any_name(tmp_path, name):
    store = filled(tmp_path / name, parts=2)
    store.compact()
    assert store.count() == 2000
    assert store.delete_user("user-3") > 0


def test_a_name_that_the_delta_library_misreads_is_refused_at_once(tmp_path):
    with pytest.raises(StoreError, match="Rename"):
        filled(tmp_path / "a%20b")


def test_nothing_ingested_yet_says_what_to_do(tmp_path):
    with pytest.raises(DataError, match="desireline ingest"):
        EventStore(tmp_path, PLAIN).count()


@pytest.mark.parametrize("harm", ["missing", "cut", "overwritten", "journal"])
def test_damage_is_said_with_the_files_name(tmp_path, harm):
    store = filled(tmp_path)
    file = next(store.path.glob("*.parquet"))
    whole = file.read_bytes()
    if harm == "missing":
        file.unlink()
    elif harm == "cut":
        file.write_bytes(whole[: len(whole) // 2])
    elif harm == "overwritten":
        file.write_bytes(bytes(len(whole)))
    else:
        for commit in (store.path / "_delta_log").glob("*.json"):
            commit.write_text("{nonsense")
    for read in (store.count, store.ids, lambda: store.read_bucket(0, BUCKETS)):
        with pytest.raises(StoreError, match=re.escape(f"or delete {store.path} and ingest everything again")):
            read()


READER = """
import sys
from desireline.events.store import EventStore
from desireline.schema.model import Schema
store = EventStore(sys.argv[1], Schema.model_validate_json(sys.argv[2]))
print(sum(store.read_bucket(b, b + 8).height for b in range(0, 64, 8)))
"""


def test_several_processes_read_at_once_while_one_writes(tmp_path):
    store = filled(tmp_path)
    command = [sys.executable, "-c", READER, str(tmp_path), json.dumps(PLAIN.model_dump(mode="json"))]
    readers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    while any(reader.poll() is None for reader in readers):
        store.append(events(PLAIN, count=1, first=90_000 + int(store.version().split("|")[1])))
    for reader in readers:
        assert reader.returncode == 0
        assert int(reader.communicate()[0]) >= 3000


def test_the_journal_survives_hundreds_of_appends(tmp_path):
    store = EventStore(tmp_path, PLAIN)
    for k in range(0, 210, 3):
        store.append(events(PLAIN, count=3, first=k))
    assert store.has_many_files()
    assert sorted(store.ids().tolist()) == list(range(210))
