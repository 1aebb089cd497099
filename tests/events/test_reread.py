"""A source that the log holds is not stored a second time under another mapping; everything else goes on as before."""

import gzip
import json
import random
import shutil
import sqlite3
from contextlib import closing

import polars as pl
import pytest

from desireline.core.errors import SchemaError, StoreError
from desireline.events.ingest import ingest
from desireline.events.store import EventStore
from desireline.schema.model import EventSpec, FieldSpec, Rule, Schema, TimeSpec

GUESSED = Schema(
    user="user_id",
    time=TimeSpec(column="at", format="epoch_s"),
    event=EventSpec(constant="view"),
    value="price",
    types={"view": {"roles": ["positive", "target"]}},
)


def changed(**changes) -> Schema:
    return GUESSED.model_copy(update=changes)


MENDED = changed(user="who", item="sku")


def table(rows=300, seed=0) -> pl.DataFrame:
    rng = random.Random(seed)
    made = [
        (
            f"s{rng.random()}",
            f"u{k % 17}",
            1_700_000_000 + 60 * k + seed,
            f"i{rng.randrange(9)}",
            k % 5 + 0.5,
            f"e{seed}-{k}",
        )
        for k in range(rows)
    ]
    return pl.DataFrame(made, schema=["user_id", "who", "at", "sku", "price", "id"], orient="row")


@pytest.fixture
def log(tmp_path):
    """A workspace into which a file was ingested under a wrong guess, and the file."""
    table().write_csv(tmp_path / "log.csv")
    assert ingest(tmp_path / "w", GUESSED, [str(tmp_path / "log.csv")]).stored == 300
    return tmp_path / "w", tmp_path / "log.csv"


def refused(folder, schema, *sources) -> str:
    before = EventStore(folder, GUESSED).count()
    with pytest.raises(SchemaError) as caught:
        ingest(folder, schema, [str(source) for source in sources])
    assert EventStore(folder, GUESSED).count() == before
    return str(caught.value)


def test_the_same_file_under_a_corrected_mapping_is_refused_before_anything_is_stored(log):
    folder, file = log
    table(seed=7).rename({"who": "other"}).with_columns(who="other").write_csv(file.parent / "a-new-one.csv")
    said = refused(folder, MENDED, file.parent / "a-new-one.csv", file)
    assert str(file) in said
    assert 'user was "user_id" and is "who"; item was null and is "sku"' in said
    assert "nothing was stored" in said
    assert f"delete {folder / 'log'} and {folder / 'quarantine'}" in said
    assert "value" not in said
    assert ingest(folder, GUESSED, [str(file)]).stored == 0


def test_what_the_error_advises_works(log):
    folder, file = log
    shutil.rmtree(folder / "log")
    assert ingest(folder, MENDED, [str(file)]).stored == 300
    assert ingest(folder, MENDED, [str(file)]).duplicate == 300
    assert "sku" in refused(folder, GUESSED, file)


@pytest.mark.parametrize(
    ("schema", "says"),
    [
        (changed(time=TimeSpec(format="position")), 'time.column was "at" and is null; time.format was "epoch_s"'),
        (changed(value="price * 2"), 'value was "price" and is "price * 2"'),
        (changed(event=EventSpec(column="sku"), unknown_types="keep"), 'event.column was null and is "sku"'),
        (changed(fields={"sku": FieldSpec(column="sku", kind="category")}), "fields.sku was null and is {"),
        (changed(event_id="id"), 'event_id was null and is "id"'),
    ],
)
def test_each_part_of_the_mapping_is_named(log, schema, says):
    assert says in refused(log[0], schema, log[1])


def test_the_same_events_are_known_by_another_name_packed_longer_and_from_a_database(log):
    folder, file = log
    (file.parent / "copies").mkdir()
    copy = file.parent / "copies" / "copy.csv.gz"
    copy.write_bytes(gzip.compress(file.read_bytes()))
    longer = file.parent / "longer.parquet"
    pl.concat([table(), table(seed=1)]).write_parquet(longer)
    lines = file.parent / "log.jsonl"
    lines.write_text("".join(json.dumps(row) + "\n" for row in table().iter_rows(named=True)))
    with closing(sqlite3.connect(file.parent / "log.db")) as base:
        base.execute("create table events (user_id, who, at, sku, price, id)")
        base.executemany("insert into events values (?, ?, ?, ?, ?, ?)", table().rows())
        base.commit()
    url = f"sqlite:///{file.parent}/log.db?table=events"
    for source in (copy, copy.parent, longer, lines, url):
        assert "read under another mapping" in refused(folder, MENDED, source), source
    assert ingest(folder, GUESSED, [str(longer)]).stored == 300  # new rows alone


def test_other_files_may_have_another_mapping_even_under_the_same_name(log):
    folder, file = log
    table(seed=3).write_csv(file)
    assert ingest(folder, MENDED, [str(file)]).stored == 300
    second = file.parent / "second.csv"
    table(seed=4).rename({"user_id": "session", "at": "moment"}).write_csv(second)
    under = MENDED.model_copy(update={"time": TimeSpec(column="moment", format="epoch_s")})
    assert ingest(folder, under, [str(second)]).stored == 300
    assert ingest(folder, under, [str(second)]).duplicate == 300


def test_a_change_that_leaves_the_stored_events_as_they_are_is_let_through(tmp_path):
    cheap, dear = Rule(when="price < 4", type="view"), Rule(when="price >= 4", type="buy")
    types = {"view": {"roles": ["positive", "target"]}, "buy": {}}
    table().write_csv(tmp_path / "log.csv")
    first = ingest(tmp_path / "w", changed(event=EventSpec(rules=[cheap]), types=types), [str(tmp_path / "log.csv")])
    assert first.quarantined == 60
    more = changed(event=EventSpec(rules=[cheap, dear]), types=types)
    assert ingest(tmp_path / "w", more, [str(tmp_path / "log.csv")]).stored == 60
    other = changed(event=EventSpec(rules=[Rule(when="price < 2", type="buy"), cheap, dear]), types=types)
    with pytest.raises(SchemaError, match=r"event\.rules"):
        ingest(tmp_path / "w", other, [str(tmp_path / "log.csv")])


def test_a_file_of_which_nothing_was_stored_may_be_read_anew(tmp_path):
    table().write_csv(tmp_path / "log.csv")
    wrong = changed(time=TimeSpec(column="at", format="epoch_ms"))  # in January 1970: all quarantined
    assert ingest(tmp_path / "w", wrong, [str(tmp_path / "log.csv")]).quarantined == 300
    assert ingest(tmp_path / "w", GUESSED, [str(tmp_path / "log.csv")]).stored == 300


def test_declared_ids_do_not_hide_that_the_change_would_have_no_effect(tmp_path):
    table().write_csv(tmp_path / "log.csv")
    ingest(tmp_path / "w", changed(event_id="id"), [str(tmp_path / "log.csv")])
    said = refused(tmp_path / "w", changed(event_id="id", item="sku"), tmp_path / "log.csv")
    assert "item was null" in said
    assert "would keep them as they are" in said


def test_a_workspace_made_before_mappings_were_kept_goes_on(log):
    folder, file = log
    (kept,) = (folder / "log").glob("_*.json")
    kept.unlink()
    assert ingest(folder, GUESSED, [str(file)]).duplicate == 300
    assert "read under another mapping" in refused(folder, MENDED, file)
    kept.write_text('{"mappings": [{}]}')
    with pytest.raises(StoreError, match="Delete it"):
        ingest(folder, GUESSED, [str(file)])


def test_what_is_kept_outlives_a_users_deletion(log):
    folder, file = log
    EventStore(folder, GUESSED).delete_user(EventStore(folder, GUESSED).scan().collect()["user"][0])
    assert "read under another mapping" in refused(folder, MENDED, file)
