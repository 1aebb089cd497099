"""SQL databases as sources: values keep their meaning, names are safe, passwords are never shown."""

import sqlite3
from contextlib import closing

import pytest

from desireline.core.errors import SchemaError, SourceError
from desireline.events.sources import open_sources


@pytest.fixture
def base(tmp_path):
    path = tmp_path / "my log.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute('create table "odd ""name" (user, at, amount)')
        rows = [("007", 1, 1.5), (7, 2, None), ("x", 2**63, "much"), (None, 4, b"raw")]
        connection.executemany('insert into "odd ""name" values (?, ?, ?)', [r for r in rows if r[1] != 2**63])
        connection.execute("create view big as select 1 as n, 9.3e18 as m union all select '12345678901234567890', 1")
        connection.commit()
    return f"sqlite:///{path}"


def only(url):
    (source,) = open_sources([url])
    return source


def test_mixed_columns_come_as_text_and_tables_may_have_any_name(base):
    (chunk,) = only(base + "?table=odd%20%22name").chunks(None, 1000)
    assert chunk.frame["user"].to_list() == ["007", "7", None]
    assert chunk.frame["at"].to_list() == [1, 2, 4]
    assert chunk.frame["amount"].to_list() == ["1.5", None, "raw"]
    assert chunk.numbers.to_list() == [1, 2, 3]


def test_a_query_gives_what_it_selects(base):
    url = base + "?query=SELECT n FROM big"
    (chunk,) = only(url).chunks(None, 1000)
    assert chunk.frame["n"].to_list() == ["1", "12345678901234567890"]


@pytest.mark.parametrize(
    ("rest", "error", "says"),
    [
        ("?table=nothing", SourceError, "nothing"),
        ("?table=x%22; DROP TABLE big; --", SourceError, "no such table"),
        ("?query=SELECT 1 a, 2 a", SchemaError, "'a' comes twice"),
        ("?query=DELETE FROM big", SourceError, "cannot be read"),
        ("?query=SELECT 1 WHERE 0", SourceError, "no rows"),
        ("", SourceError, "name a table"),
    ],
)
def test_what_cannot_be_read_is_one_clear_error(base, rest, error, says):
    with pytest.raises(error, match=says):
        list(only(base + rest).chunks(None, 1000))


def test_nothing_is_created_and_no_password_is_shown(tmp_path):
    with pytest.raises(SourceError, match="unable to open"):
        list(only(f"sqlite:///{tmp_path}/none.db?table=t").chunks(None, 10))
    assert not (tmp_path / "none.db").exists()
    name = only("postgresql://me:secret@127.0.0.1:1/db?table=t&password=hidden&sslmode=disable").name
    assert "secret" not in name
    assert "hidden" not in name
    with pytest.raises(SourceError) as caught:
        list(only("postgresql://me:secret@127.0.0.1:1/db?table=t&sslmode=disable").chunks(None, 10))
    assert "secret" not in str(caught.value)
    with pytest.raises(SourceError, match="not mysql"):
        only("mysql://h/db?table=t")
