"""Delta tables as the store writes them: whole Parquet files of ours, made known or forgotten by one atomic commit.

The files are written by Polars, four times as fast here as by Delta's own writer, under a name that no reader looks at;
they are on the disk before the commit that names them, so a crash leaves the last version, and at most a stray file
that the next writer removes. Any engine that reads Delta reads the table. No user's id gets into the table's journal:
its statistics hold buckets and times only.
"""

from __future__ import annotations

import json
import os
import re
import time
import uuid
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path
from urllib.parse import unquote

import polars as pl
from deltalake import DeltaTable, Field, Schema
from deltalake.exceptions import DeltaError
from deltalake.schema import PrimitiveType
from deltalake.transaction import AddAction, RemoveAction

from desireline.core.errors import SchemaError, StoreError
from desireline.core.files import storage_error

ROW_GROUP = 65_536
TYPES = {pl.Int64: "long", pl.Int16: "short", pl.Float64: "double", pl.String: "string", pl.Datetime: "timestamp"}


def exists(path: Path) -> bool:
    """Whether a table stands at `path`."""
    return (path / "_delta_log").exists()


def open_table(path: Path) -> DeltaTable:
    """The newest version of a table. Raises StoreError when its journal is damaged or cannot be read."""
    try:
        return DeltaTable(path)
    except (DeltaError, OSError, ValueError) as error:
        raise StoreError(f"The table {path} is damaged: {_first_line(error)}. Restore it, or {anew(path)}.") from error


def files_of(table: DeltaTable, path: Path) -> list[Path]:
    """The files of a version. Raises StoreError naming the first that is missing or of another size than committed."""
    actions = pl.DataFrame(table.get_add_actions(flatten=True)).select("path", "size_bytes")
    found = [(path / unquote(name), size) for name, size in actions.iter_rows()]
    for file, size in found:
        if not file.is_file():
            raise StoreError(f"{file} is missing: the table is damaged. Restore the file, or {anew(path)}.")
        if file.stat().st_size != size:
            raise StoreError(f"{file} is damaged: it should hold {size:,} bytes. Restore it, or {anew(path)}.")
    return [file for file, _ in found]


def anew(path: Path) -> str:
    """How a table comes back that nobody can restore: a damaged one is not added to, so it has to go first."""
    return f"delete {path} and ingest everything again"


def columns_of(table: DeltaTable) -> dict[str, pl.DataType | type[pl.DataType]]:
    """Names and types of a table's columns."""
    kinds = {kind: dtype for dtype, kind in TYPES.items()} | {"timestamp": pl.Datetime("us", "UTC")}
    return {field.name: kinds[field.type.type] for field in table.schema().fields}


def append(path: Path, rows: pl.DataFrame) -> None:
    """Add rows to a table in one commit; a column that is new to the table is added to it.

    Raises StoreError when the disk refuses and SchemaError when a column has another type than before.
    """
    table = _table_for(path, rows)
    _commit(path, table, [], [rows])


def replace(path: Path, old: Sequence[Path], new: Iterable[pl.DataFrame]) -> None:
    """Put new files in the place of old ones, in one commit; each frame of `new` becomes a file as it comes."""
    _commit(path, open_table(path), old, new)


def forget_old_versions(path: Path) -> None:
    """Delete from the disk every file that the newest version does not need."""
    open_table(path).vacuum(retention_hours=0, dry_run=False, enforce_retention_duration=False)


def _commit(path: Path, table: DeltaTable, old: Sequence[Path], new: Iterable[pl.DataFrame]) -> None:
    written: list[Path] = []
    now = int(time.time() * 1000)
    try:
        actions: list[AddAction | RemoveAction] = [RemoveAction(f.name, True, now, f.stat().st_size, {}) for f in old]
        for rows in new:
            if rows.height:
                written.append(_write(path, rows))
                actions.append(_added(written[-1], rows, now))
        table.create_write_transaction(actions, mode="append", schema=table.schema())
    except (DeltaError, pl.exceptions.PolarsError, OSError) as error:
        for file in written:
            file.unlink(missing_ok=True)
        if isinstance(error, StoreError):
            raise
        raise _refused(error, path) from error


def remove_stray(path: Path) -> None:
    """Delete what a writer that died in mid-file left behind; called by who holds the workspace's write lock."""
    for file in path.glob(".*.tmp"):
        file.unlink(missing_ok=True)


def _write(path: Path, rows: pl.DataFrame) -> Path:
    final = path / f"part-{uuid.uuid4()}.zstd.parquet"
    temporary = path / f".{final.name}.tmp"
    try:
        rows.write_parquet(temporary, compression="zstd", compression_level=1, row_group_size=ROW_GROUP)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.rename(final)
    finally:
        temporary.unlink(missing_ok=True)
    return final


def _added(file: Path, rows: pl.DataFrame, now: int) -> AddAction:
    known = [name for name in ("bucket", "time") if name in rows.columns]
    stats = {
        "numRecords": rows.height,
        "minValues": {name: _plain(rows[name].min()) for name in known},
        "maxValues": {name: _plain(rows[name].max()) for name in known},
        "nullCount": {name: rows[name].null_count() for name in known},
    }
    return AddAction(file.name, file.stat().st_size, {}, now, True, json.dumps(stats))


def _plain(value: object) -> object:
    return value.isoformat(timespec="microseconds").replace("+00:00", "Z") if isinstance(value, datetime) else value


def _table_for(path: Path, rows: pl.DataFrame) -> DeltaTable:
    """The table at `path`, made or widened to hold the columns of `rows`."""
    fields = [Field(name, PrimitiveType(TYPES[dtype.base_type()])) for name, dtype in rows.schema.items()]
    if not exists(path):
        if re.search("%[0-9A-Fa-f]{2}", str(path.resolve())):  # the Delta library reads it as one character
            raise StoreError(f"{path.resolve()}: no folder on the way may be called %XX. Rename it.")
        try:
            return DeltaTable.create(path, Schema(fields))
        except (DeltaError, OSError) as error:
            raise _refused(error, path) from error
    table = open_table(path)
    held = {field.name: field.type for field in table.schema().fields}
    other = [field.name for field in fields if field.name in held and held[field.name] != field.type]
    if other:
        raise SchemaError(
            f"The events do not fit the log in {path}: {', '.join(other)} had another kind when events were stored. "
            f"Put the kind back, or {anew(path)}."
        )
    new = [field for field in fields if field.name not in held]
    if new:
        table.alter.add_columns(new)
        table = open_table(path)
    return table


def _refused(error: Exception, path: Path) -> StoreError:
    text = str(error)
    if "No space left" in text or "os error 28" in text:
        return storage_error(OSError(28, "No space left on device"), path)
    if isinstance(error, OSError) and error.errno:
        return storage_error(error, path)
    return StoreError(f"{path} cannot be written: {_first_line(error)}. Nothing already stored is lost.")


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
