"""A table of a real PostgreSQL server as a source; the server is started here on a free loopback port and stopped."""

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest

from desireline.core.errors import SourceError
from desireline.events.ingest import ingest
from desireline.events.sources import open_sources
from desireline.events.store import EventStore
from desireline.schema.guess import guess
from desireline.schema.model import EventSpec, Schema, TimeSpec

SCHEMA = Schema(
    user="user_id",
    time=TimeSpec(column="at"),
    event=EventSpec(column="event"),
    item="item",
    value="price",
    types={"view": {"roles": ["positive", "target"]}, "buy": {"roles": ["positive", "target"]}},
)


def unprivileged():
    """The account that the server runs under: PostgreSQL refuses to run as root."""
    if os.geteuid():
        return None
    names = {entry.pw_name for entry in pwd.getpwall()}
    return pwd.getpwnam("postgres" if "postgres" in names else "nobody")


@pytest.fixture(scope="module")
def server(program):
    postgres, initdb = program("postgres"), program("initdb")
    account = unprivileged()
    folder = Path(tempfile.mkdtemp(prefix="postgresql-"))  # where the server's account can reach it
    more = {}
    if account:
        shutil.chown(folder, account.pw_uid, account.pw_gid)
        more = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
    data = folder / "data"
    made = [str(initdb), "-D", str(data), "-U", "desireline", "--auth=trust", "--no-sync", "-E", "UTF8"]
    subprocess.run(made, check=True, capture_output=True, cwd=folder, **more)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    words = [str(postgres), "-D", str(data), "-p", str(port), "-h", "127.0.0.1", "-k", str(folder), "-F"]
    process = subprocess.Popen(words, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, cwd=folder, **more)
    url = f"postgresql://desireline:secret@127.0.0.1:{port}/postgres"
    try:
        for _ in range(100):
            try:
                psycopg.connect(url).close()
                break
            except psycopg.OperationalError:
                assert process.poll() is None, "the server stopped"
                time.sleep(0.1)
        yield url
    finally:
        process.terminate()
        process.wait(20)
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def table(server):
    with psycopg.connect(server) as connection:
        connection.execute(
            'create table "odd ""name" (user_id int, at timestamptz, event text, item text, price numeric)'
        )
        rows = [
            (k % 7, datetime(2024, 1, 1, tzinfo=UTC), "view" if k % 3 else "buy", f"i{k % 5}", k / 4)
            for k in range(2_500)
        ]
        with connection.cursor() as cursor:
            cursor.executemany('insert into "odd ""name" values (%s, %s, %s, %s, %s)', rows)
    return f'{server}?table=odd "name'


def test_a_table_is_ingested_once(table, tmp_path):
    first, again = ingest(tmp_path, SCHEMA, [table]), ingest(tmp_path, SCHEMA, [table])
    assert (first.read, first.stored, first.quarantined) == (2_500, 2_500, 0)
    assert (again.stored, again.duplicate) == (0, 2_500)
    assert EventStore(tmp_path, SCHEMA).users_events("3")["value"].max() == 2_495 / 4


def test_a_query_is_read_and_its_schema_guessed(table, server):
    source = open_sources([f'{server}?query=select user_id, at, event from "odd ""name" limit 90'])[0]
    found = guess(source.sample(), source.name).schema
    assert (found.user, found.time.column, found.event.column) == ("user_id", "at", "event")


def test_no_password_is_shown(table, server, tmp_path):
    counts = ingest(tmp_path, SCHEMA, [table])
    assert "secret" not in str(counts.sources)
    with pytest.raises(SourceError) as caught:
        ingest(tmp_path, SCHEMA, [f"{server}?table=missing"])
    assert "secret" not in str(caught.value)
    assert "missing" in str(caught.value)


def test_a_server_that_does_not_answer_is_one_clear_error(tmp_path):
    with pytest.raises(SourceError, match="cannot be read"):
        ingest(tmp_path, SCHEMA, ["postgresql://desireline@127.0.0.1:1/postgres?table=events"])
