"""Ingest: every row is counted once, every event stored once, whatever the file is like."""

import gzip
import json
import shutil
import sqlite3
from datetime import datetime
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from desireline.core.errors import BusyError, SchemaError, SourceError, StoreError
from desireline.core.files import write_lock
from desireline.events.ingest import ingest
from desireline.events.quarantine import Quarantine
from desireline.events.store import EventStore
from desireline.schema.model import AliasSpec, EventSpec, EventType, Schema, TimeSpec

SCHEMA = Schema(
    user="user",
    time=TimeSpec(column="time", format="epoch_s"),
    event=EventSpec(column="event"),
    item="item",
    value="price",
    types={"view": {"roles": ["positive", "target"]}, "buy": {"roles": ["positive", "target"]}},
)
HEADER = "user,time,event,item,price\n"


def csv(folder: Path, rows: str, name: str = "log.csv", encoding: str = "utf-8") -> str:
    path = folder / name
    path.write_text(HEADER + rows, encoding=encoding)
    return str(path)


def adds_up(counts) -> bool:
    return counts.read == counts.stored + counts.duplicate + counts.quarantined


def test_a_file_is_stored_once(tmp_path):
    source = csv(tmp_path, "a,1700000000,view,i1,2\nb,1700000001,buy,i2,3\n")
    first, again = ingest(tmp_path / "w", SCHEMA, [source]), ingest(tmp_path / "w", SCHEMA, [source])
    assert (first.read, first.stored, again.stored, again.duplicate) == (2, 2, 0, 2)
    assert EventStore(tmp_path / "w", SCHEMA).count() == 2


def test_the_same_rows_in_two_files_of_one_call_are_stored_once(tmp_path):
    rows = "a,1700000000,view,i1,2\nb,1700000001,buy,i2,3\n"
    both = [csv(tmp_path, rows, "one.csv"), csv(tmp_path, rows, "two.csv")]
    counts = ingest(tmp_path / "w", SCHEMA, both)
    assert (counts.stored, counts.duplicate) == (2, 2)
    assert counts.sources[both[1]]["duplicate"] == 2


def test_equal_rows_of_one_file_are_kept_and_found_again(tmp_path):
    source = csv(tmp_path, "a,1700000000,view,i1,2\n" * 3)
    assert ingest(tmp_path / "w", SCHEMA, [source]).stored == 3
    assert ingest(tmp_path / "w", SCHEMA, [source]).duplicate == 3
    more = csv(tmp_path, "a,1700000000,view,i1,2\n" * 5, "more.csv")
    assert ingest(tmp_path / "w", SCHEMA, [more]).stored == 2


def test_the_same_events_from_another_kind_of_file_are_duplicates(tmp_path):
    rows = "a,1700000000,view,i1,2\nb,1700000001,buy,007,3.5\n"
    ingest(tmp_path / "w", SCHEMA, [csv(tmp_path, rows)])
    table = pl.read_csv(tmp_path / "log.csv", schema_overrides={"item": pl.String})
    table.write_parquet(tmp_path / "log.parquet")
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(r) + "\n" for r in table.iter_rows(named=True)))
    with gzip.open(tmp_path / "log.csv.gz", "wt") as file:
        file.write(HEADER + rows)
    with sqlite3.connect(tmp_path / "log.db") as base:
        base.execute("create table events (user text, time integer, event text, item text, price real)")
        base.executemany("insert into events values (?, ?, ?, ?, ?)", table.rows())
    base.close()
    sources = ["log.parquet", "log.jsonl", "log.csv.gz"]
    for source in [*(str(tmp_path / s) for s in sources), f"sqlite:///{tmp_path}/log.db?table=events"]:
        counts = ingest(tmp_path / "w", SCHEMA, [source])
        assert (counts.read, counts.stored, counts.duplicate) == (2, 0, 2), source


CELL = st.sampled_from(
    ["a", "", " ", "1700000000", "view", "nonsense", "3.5", '"', "x,y", "é", "\x00", "1e400", "__proto__"]
)


@given(rows=st.lists(st.lists(CELL, min_size=0, max_size=7), max_size=30), good=st.integers(0, 5))
def test_counts_add_up_whatever_the_rows_are_like(tmp_path_factory, rows, good):
    folder = tmp_path_factory.mktemp("rows")
    text = "".join(",".join(row) + "\n" for row in rows) + "a,1700000000,view,i1,2\n" * (good + 1)
    source = csv(folder, text)
    first = ingest(folder / "w", SCHEMA, [source])
    assert adds_up(first)
    store = EventStore(folder / "w", SCHEMA)
    assert first.stored == (store.count() if store.exists() else 0)
    again = ingest(folder / "w", SCHEMA, [source])
    assert adds_up(again)
    assert (again.read, again.stored, again.quarantined) == (first.read, 0, first.quarantined)
    kept = Quarantine(folder / "w").rows()
    assert (0 if kept is None else kept.collect().height) == first.quarantined


def test_a_rejected_row_is_kept_with_its_number_and_reason(tmp_path):
    source = csv(tmp_path, "a,1700000000,view,i1,2\nb,never,view,i1,2\nc,1700000000,view\nd,1700000000,buy,i1,x\n")
    counts = ingest(tmp_path / "w", SCHEMA, [source])
    assert (counts.stored, counts.quarantined) == (1, 3)
    kept = Quarantine(tmp_path / "w").rows().collect().sort("row")
    assert kept["row"].to_list() == [2, 3, 4]
    assert kept["source"].unique().to_list() == [source]
    assert "never" in kept["reason"][0]
    assert "cells" in kept["reason"][1]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "gbk"])
def test_other_encodings_are_read(tmp_path, encoding):
    source = csv(tmp_path, "张三,1700000000,view,茶,2\n", encoding=encoding)
    assert ingest(tmp_path / "w", SCHEMA, [source]).stored == 1
    assert EventStore(tmp_path / "w", SCHEMA).users_events("张三")["item"].to_list() == ["茶"]


@pytest.mark.parametrize(
    ("content", "error", "says"),
    [
        (b"", SourceError, "empty"),
        (HEADER.encode(), SourceError, "no rows"),
        (b"user time event\na b c\n", SchemaError, "one column"),
        (b"user,user,time,event,item,price\na,b,1,view,i,2\n", SchemaError, "twice"),
        (b"user,time,event,item\na,1700000000,view,i\n", SchemaError, "price"),
        (b"user,time\n\xff\xff\x80,\x81\x20\n", SourceError, "neither"),
    ],
)
def test_a_file_that_cannot_be_a_log_is_one_clear_error(tmp_path, content, error, says):
    (tmp_path / "log.csv").write_bytes(content)
    with pytest.raises(error, match=says):
        ingest(tmp_path / "w", SCHEMA, [str(tmp_path / "log.csv")])


def test_a_field_of_ten_megabytes_is_set_aside(tmp_path):
    source = csv(tmp_path, "a,1700000000,view,i1,2\nb,1700000000,view," + "x" * 10_000_000 + ",2\n")
    counts = ingest(tmp_path / "w", SCHEMA, [source])
    assert (counts.stored, counts.quarantined) == (1, 1)


def test_nul_bytes_and_strange_ids_harm_nothing(tmp_path):
    names = ["__proto__", "../../x", "'; DROP TABLE users; --", "🦊", "007"]
    source = csv(tmp_path, "".join(f"{n},1700000000,view,i1,2\n" for n in names) + "n\x00l,1700000000,view,i1,2\n")
    counts = ingest(tmp_path / "w", SCHEMA, [source])
    assert (counts.stored, counts.quarantined) == (5, 1)
    store = EventStore(tmp_path / "w", SCHEMA)
    for name in names:
        assert store.users_events(name).height == 1
        assert store.delete_user(name) == 1
    assert store.count() == 0


def test_what_came_before_the_break_of_a_truncated_file_stays(tmp_path):
    rows = "".join(f"u{k},17000{k:05d},view,i{k % 7},2\n" for k in range(20_000))
    whole = gzip.compress((HEADER + rows).encode())
    (tmp_path / "log.csv.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SourceError, match="breaks off"):
        ingest(tmp_path / "w", SCHEMA, [str(tmp_path / "log.csv.gz")])
    stored = EventStore(tmp_path / "w", SCHEMA).count()
    assert 0 < stored < 20_000
    (tmp_path / "log.csv.gz").write_bytes(whole)
    counts = ingest(tmp_path / "w", SCHEMA, [str(tmp_path / "log.csv.gz")])
    assert counts.stored == 20_000 - stored


def test_half_a_parquet_file_is_one_clear_error(tmp_path):
    table = pl.DataFrame({"user": ["a"] * 5000, "time": range(5000), "event": "view", "item": "i", "price": 1.0})
    table.write_parquet(tmp_path / "log.parquet")
    whole = (tmp_path / "log.parquet").read_bytes()
    (tmp_path / "log.parquet").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SourceError, match="Parquet"):
        ingest(tmp_path / "w", SCHEMA, [str(tmp_path / "log.parquet")])


def test_a_second_writer_is_told_to_wait(tmp_path):
    source = csv(tmp_path, "a,1700000000,view,i1,2\n")
    with write_lock(tmp_path / "w", "another"), pytest.raises(BusyError, match="another"):
        ingest(tmp_path / "w", SCHEMA, [source])
    assert ingest(tmp_path / "w", SCHEMA, [source]).stored == 1


def test_broken_json_lines_are_set_aside(tmp_path):
    good = json.dumps({"user": 7, "time": 1700000000, "event": "view", "item": "i", "price": None})
    (tmp_path / "log.jsonl").write_text(good + "\n{broken\n[1]\n" + good.replace("7", '"8"', 1) + "\n")
    counts = ingest(tmp_path / "w", SCHEMA, [str(tmp_path / "log.jsonl")])
    assert (counts.read, counts.stored, counts.quarantined) == (4, 2, 2)


def test_a_folder_is_read_whole(tmp_path):
    (tmp_path / "logs").mkdir()
    csv(tmp_path / "logs", "a,1700000000,view,i1,2\n", "one.csv")
    csv(tmp_path / "logs", "b,1700000000,view,i1,2\n", "two.csv")
    assert ingest(tmp_path / "w", SCHEMA, [str(tmp_path / "logs")]).stored == 2
    assert ingest(tmp_path / "w", SCHEMA, [str(tmp_path / "logs" / "*.csv")]).duplicate == 2


def test_an_empty_part_of_a_folder_is_left_out(tmp_path, capsys):
    (tmp_path / "logs").mkdir()
    csv(tmp_path / "logs", "a,1700000000,view,i1,2\n", "one.csv")
    (tmp_path / "logs" / "two.csv").touch()
    assert ingest(tmp_path / "w", SCHEMA, [str(tmp_path / "logs")]).stored == 1
    assert "two.csv" in capsys.readouterr().err


def test_aliases_merge_users_also_afterwards(tmp_path):
    schema = SCHEMA.model_copy(
        update={"types": SCHEMA.types | {"alias": EventType()}, "alias": AliasSpec(column="item")}
    )
    ingest(
        tmp_path / "w",
        schema,
        [csv(tmp_path, "a,1700000000,view,i1,2\nb,1700000001,view,i2,2\nc,1700000002,view,i3,2\n")],
    )
    store = EventStore(tmp_path / "w", schema)
    assert store.users_events("a").height == 1
    more = csv(tmp_path, "a,1700000005,alias,b,\nb,1700000006,alias,c,\n", "alias.csv")
    ingest(tmp_path / "w", schema, [more])
    assert store.users_events("a")["item"].drop_nulls().to_list()[:3] == ["i1", "i2", "i3"]
    assert store.users_events("c").equals(store.users_events("a"))
    whole = store.read_bucket(0, 64)
    assert whole["user"].unique().to_list() == ["a"]
    early = store.read_bucket(0, 64, before=datetime(2023, 11, 14, 22, 13, 25))
    assert sorted(early["user"].unique().to_list()) == ["a", "b", "c"]


def test_a_damaged_log_is_made_again_as_its_error_says(tmp_path):
    source = csv(tmp_path, "a,1700000000,view,i1,2\nb,1700000001,buy,i2,3\n")
    ingest(tmp_path / "w", SCHEMA, [source])
    file = next((tmp_path / "w" / "log").glob("*.parquet"))
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(StoreError, match=f"delete {tmp_path}/w/log and ingest everything again"):
        ingest(tmp_path / "w", SCHEMA, [source])
    shutil.rmtree(tmp_path / "w" / "log")
    assert ingest(tmp_path / "w", SCHEMA, [source]).stored == 2


def test_a_source_without_the_needed_columns_is_told_all_that_it_has(tmp_path):
    have = ["user", "moment", "kind", "sku", "amount"]
    table = pl.DataFrame([("a", 1700000000, "view", "i1", 2.0)], schema=have, orient="row")
    table.write_csv(tmp_path / "log.csv")
    table.write_parquet(tmp_path / "log.parquet")
    table.rename({"user": "who"}).write_parquet(tmp_path / "none.parquet")
    with sqlite3.connect(tmp_path / "log.db") as base:
        base.execute("create table events (user, moment, kind, sku, amount)")
        base.executemany("insert into events values (?, ?, ?, ?, ?)", table.rows())
    base.close()
    paths = [str(tmp_path / name) for name in ("log.csv", "log.parquet", "none.parquet")]
    for source in [*paths, f"sqlite:///{tmp_path}/log.db?table=events"]:
        with pytest.raises(SchemaError) as caught:
            ingest(tmp_path / "w", SCHEMA, [source])
        who = "who" if "none" in source else "user"
        assert f"It has: {who}, moment, kind, sku, amount." in str(caught.value), source
        assert f"{Path(source).name} does not have" in str(caught.value)
