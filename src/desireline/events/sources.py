"""Where a log comes from: files, folders and globs, SQL databases. Each source is read in chunks of bounded memory."""

from __future__ import annotations

import os
from collections.abc import Sequence
from glob import glob
from pathlib import Path

from desireline.core.errors import SourceError
from desireline.core.progress import say
from desireline.events.chunk import Source
from desireline.events.delimited import Delimited
from desireline.events.jsonl import JsonLines
from desireline.events.parquet import ParquetFile
from desireline.events.sql import open_sql

SUFFIXES = (".csv", ".tsv", ".txt", ".jsonl", ".ndjson", ".parquet")
PACKED = (".gz", ".zst")


def open_sources(texts: Sequence[str]) -> list[Source]:
    """The sources that texts name: files, folders, globs, `sqlite:///…` and `postgresql://…` URLs.

    Raises SourceError for what is missing, unreadable or of no known kind.
    """
    found: list[Source] = []
    for text in texts:
        if "://" in text:
            found.append(open_sql(text))
            continue
        found += [_open_file(path) for path in _files(text)]
    return found


def _files(text: str) -> list[Path]:
    path = Path(text)
    if path.is_dir():
        if not os.access(path, os.R_OK | os.X_OK):
            raise SourceError(f"The folder {text} may not be read. Check its permissions.")
        files = sorted(p for p in path.rglob("*") if p.is_file() and kind_of(p) and not p.name.startswith((".", "_")))
        if not files:
            raise SourceError(f"The folder {text} holds no log: looked for {', '.join(SUFFIXES)}, plain, .gz or .zst.")
        empty = [p for p in files if p.stat().st_size == 0]  # writers of many parts leave such
        if empty and len(empty) < len(files):
            say(f"{len(empty)} of {len(files)} files in {text} are empty and left out: {empty[0].name} …")
            return [p for p in files if p not in set(empty)]
        return files
    if path.exists():
        return [path]
    files = sorted(Path(p) for p in glob(text, recursive=True) if Path(p).is_file())  # noqa: PTH207  # text may be absolute
    if not files:
        raise SourceError(f"{text} does not exist. Check the path.")
    return files


def kind_of(path: Path) -> str:
    """The suffix that says how a file is read, without its packing; "" for an unknown one."""
    name = path.name.lower()
    for suffix in PACKED:
        name = name.removesuffix(suffix)
    return next((suffix for suffix in SUFFIXES if name.endswith(suffix)), "")


def _open_file(path: Path) -> Source:
    kind = kind_of(path)
    if not kind:
        raise SourceError(f"{path} is of no known kind: {', '.join(SUFFIXES)} are read, plain, .gz or .zst.")
    if not os.access(path, os.R_OK):
        raise SourceError(f"{path} may not be read. Check its permissions.")
    if path.stat().st_size == 0:
        raise SourceError(f"{path} is empty: it holds no rows.")
    if kind == ".parquet":
        return ParquetFile(path)
    if kind in (".jsonl", ".ndjson"):
        return JsonLines(path)
    return Delimited(path)
