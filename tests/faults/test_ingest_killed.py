"""kill -9 in mid-ingest leaves whole versions only, and a second run completes; a full disk loses nothing stored."""

import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest

from desireline.events.ingest import ingest
from desireline.events.store import EventStore
from desireline.schema.model import EventSpec, Schema, TimeSpec, save

SCHEMA = Schema(
    user="user",
    time=TimeSpec(column="time", format="epoch_s"),
    event=EventSpec(constant="view"),
    item="item",
    types={"view": {"roles": ["positive", "target"]}},
)
SCRIPT = """
import sys
from pathlib import Path
import desireline.events.ingest as module
from desireline.schema.model import load
module.CHUNK_ROWS = 20_000
module.ingest(Path(sys.argv[1]), load(Path(sys.argv[2])), [sys.argv[3]])
"""
ROWS = 300_000


def made(folder: Path) -> Path:
    path = folder / "log.parquet"
    numbers = pl.int_range(ROWS, eager=True)
    times = 1_700_000_000 + numbers
    pl.DataFrame({"user": "u" + (numbers % 997).cast(pl.String), "time": times, "item": numbers % 61}).write_parquet(
        path
    )
    save(SCHEMA, folder / "schema.yaml")
    return path


def start(folder: Path, source: Path, **more) -> subprocess.Popen:
    arguments = [sys.executable, "-c", SCRIPT, str(folder / "w"), str(folder / "schema.yaml"), str(source)]
    return subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True, **more)


def test_a_killed_ingest_is_completed_by_the_next(tmp_path):
    source = made(tmp_path)
    process = start(tmp_path, source)
    commits = tmp_path / "w" / "log" / "_delta_log"
    while process.poll() is None and not (commits / f"{2:020d}.json").exists():
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert process.returncode == -signal.SIGKILL
    process.stderr.close()
    store = EventStore(tmp_path / "w", SCHEMA)
    stored = store.count()
    assert 0 < stored < ROWS
    assert stored % 20_000 == 0
    counts = ingest(tmp_path / "w", SCHEMA, [str(source)])
    assert (counts.read, counts.stored, counts.duplicate) == (ROWS, ROWS - stored, stored)
    assert store.count() == ROWS == len(set(store.ids().tolist()))


def test_a_full_disk_is_said_and_what_was_stored_stays(tmp_path):
    source = made(tmp_path)
    ingest(tmp_path / "w", SCHEMA, [str(source)])
    more = tmp_path / "more.parquet"
    pl.read_parquet(source).with_columns(user=pl.col("user") + "x").write_parquet(more)

    def little_room():  # a file may grow to 64 kB: the write fails as it does on a full disk
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (65_536, 65_536))

    process = start(tmp_path, more, preexec_fn=little_room)
    said = process.communicate()[1]
    assert process.returncode != 0
    assert "StoreError" in said
    store = EventStore(tmp_path / "w", SCHEMA)
    assert store.count() == ROWS
    assert ingest(tmp_path / "w", SCHEMA, [str(more)]).stored == ROWS


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_folder_is_one_clear_error(tmp_path):
    from desireline.core.errors import SourceError

    (tmp_path / "closed").mkdir(mode=0)
    with pytest.raises(SourceError, match="permission"):
        ingest(tmp_path / "w", SCHEMA, [str(tmp_path / "closed")])
