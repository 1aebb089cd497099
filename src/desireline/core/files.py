"""Files that are either whole or not there, and the workspace's write lock.

A file gets its final name only after its bytes are on the disk: written beside it, synced, renamed. A reader never
sees half a file, and a crash leaves at most a stray `.tmp`.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from desireline.core.errors import BusyError, StoreError


def write_bytes(path: Path, data: bytes) -> None:
    """Write `data` under `path`, whole or not at all. Raises StoreError when the disk is full or forbids it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise storage_error(error, path) from error


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8, whole or not at all."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: object) -> None:
    """Write `value` as indented JSON, whole or not at all."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False, sort_keys=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file of ours. Raises StoreError when it is missing or damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise StoreError(f"{path} is missing.") from error
    except (OSError, ValueError) as error:
        raise StoreError(f"{path} is damaged: {error}. Delete it and run the command that wrote it again.") from error


def storage_error(error: OSError, path: Path) -> StoreError:
    """The StoreError that says in words what the operating system refused."""
    if error.errno == errno.ENOSPC:
        return StoreError(
            f"No space is left on the disk that holds {path}. Free some and run the command again; nothing "
            "already stored is lost."
        )
    if error.errno in (errno.EACCES, errno.EROFS, errno.EPERM):
        return StoreError(f"{path} may not be written: {error.strerror}. Check the folder's permissions.")
    return StoreError(f"{path} cannot be written: {error}.")


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A folder that takes its final name only when the block ends well; what stood there before is replaced."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
        yield temporary
        old = path.with_name(f".{path.name}.{os.getpid()}.old")
        if path.exists():
            path.rename(old)
        temporary.rename(path)
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        if isinstance(error, (StoreError, BusyError)):
            raise
        raise storage_error(error, path) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def write_lock(folder: Path, what: str) -> Iterator[None]:
    """Hold the folder's write lock while the block runs; the system releases it when the process dies.

    Raises BusyError at once when another process holds it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = (folder / ".lock").open("a+")
    except OSError as error:
        raise storage_error(error, folder) from error
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            handle.seek(0)
            holder = handle.read().strip() or "another process"
            raise BusyError(
                f"{folder} is being written by {holder}. Wait for it to end, then run this again."
            ) from error
        handle.seek(0)
        handle.truncate()
        handle.write(f"`{what}` (process {os.getpid()})")
        handle.flush()
        yield
        handle.seek(0)
        handle.truncate()
