"""Tables and queries of SQL databases as sources: `sqlite:///file.db?table=events`, `postgresql://…?query=SELECT…`."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import date, datetime
from typing import Any
from urllib.parse import parse_qs, parse_qsl, quote, urlencode, urlsplit, urlunsplit

import polars as pl

from desireline.core.errors import SchemaError, SettingError, SourceError
from desireline.events.chunk import Chunk, Source, no_rejected, numbered, wanted_columns

FETCHED = 200_000  # rows in Python's hands at once


def open_sql(url: str) -> Source:
    """The table or query that a URL names. Raises SourceError for another scheme or a URL without either."""
    parts = urlsplit(url)
    asked = parse_qs(parts.query)
    table, query = asked.get("table", [None])[0], asked.get("query", [None])[0]
    if (table is None) == (query is None):
        raise SourceError(f"{_shown(url)}: name a table (?table=events) or a query (?query=SELECT ...).")
    text = query or "SELECT * FROM " + ".".join('"' + part.replace('"', '""') + '"' for part in str(table).split("."))
    if parts.scheme == "sqlite":
        return _Sql(_shown(url), text, lambda: _sqlite(parts.path.removeprefix("/"), url))
    if parts.scheme in ("postgresql", "postgres"):
        others = urlencode([pair for pair in parse_qsl(parts.query) if pair[0] not in ("table", "query")])
        rest = urlunsplit((parts.scheme, parts.netloc, parts.path, others, ""))
        return _Sql(_shown(url), text, lambda: _postgresql(rest, text, url))
    raise SourceError(f"{_shown(url)}: sqlite:// and postgresql:// are read, not {parts.scheme}://.")


def _shown(url: str) -> str:
    """The URL without its password."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    where = f"{parts.username}@{host}" if parts.username else host
    where += f":{parts.port}" if parts.port else ""
    told = urlencode(
        [pair for pair in parse_qsl(parts.query) if "password" not in pair[0]], safe="*/,()", quote_via=quote
    )
    return urlunsplit((parts.scheme, where, parts.path, told, ""))


class _Sql:
    def __init__(self, name: str, query: str, cursor: Any) -> None:
        self._name, self._query, self._cursor = name, query, cursor

    @property
    def name(self) -> str:
        return self._name

    def size_rows(self) -> int | None:
        return None

    def sample(self, rows: int = 20_000) -> pl.DataFrame:
        return next(self.chunks(None, rows)).frame

    def chunks(self, columns: Sequence[str] | None, rows: int) -> Iterator[Chunk]:
        begin = 1
        with self._cursor() as cursor:
            cursor.execute(self._query)
            names = [column[0] for column in cursor.description]
            twice = sorted({name for name in names if names.count(name) > 1})
            if twice:
                raise SchemaError(f"{self._name}: the column {', '.join(map(repr, twice))} comes twice. Rename one.")
            wanted = set(wanted_columns(columns, names, self._name))
            while found := cursor.fetchmany(min(rows, FETCHED)):
                cells = list(zip(*found, strict=True))
                kept = {n: list(c) for n, c in zip(names, cells, strict=True) if n in wanted}
                frame = pl.DataFrame({name: _series(name, values) for name, values in kept.items()})
                yield Chunk(numbered(begin, len(found)), frame, no_rejected())
                begin += len(found)
        if begin == 1:
            raise SourceError(f"{self._name} gives no rows.")


def _series(name: str, values: list[Any]) -> pl.Series:
    """A column as its own type where all values share one, else as text."""
    kinds = {type(value) for value in values if value is not None}
    if kinds <= {int} and all(value is None or -(2**63) <= value < 2**63 for value in values):
        return pl.Series(name, values)
    if len(kinds) == 1 and kinds <= {float, str, bool, datetime, date}:
        return pl.Series(name, values)
    return pl.Series(name, [None if value is None else _text(value) for value in values], dtype=pl.String)


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return value.isoformat() if isinstance(value, (datetime, date)) else str(value)


@contextmanager
def _sqlite(path: str, url: str) -> Iterator[sqlite3.Cursor]:
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
            yield connection.cursor()
    except sqlite3.Error as error:
        raise SourceError(f"{_shown(url)} cannot be read: {error}.") from error


@contextmanager
def _postgresql(address: str, query: str, url: str) -> Iterator[Any]:
    try:
        import psycopg
    except ImportError as error:
        raise SettingError("PostgreSQL needs an extra: pip install 'desireline[sql]'.") from error
    try:
        # a named cursor stays on the server: rows come in pieces, not all at once
        with psycopg.connect(address, connect_timeout=10) as connection, connection.cursor("desireline") as cursor:
            yield cursor
    except psycopg.Error as error:
        raise SourceError(f"{_shown(url)} cannot be read: {str(error).strip()}.") from error
