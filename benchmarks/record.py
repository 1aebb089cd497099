"""What every benchmark shares: where its result goes, on what machine it ran, what a process cost."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PACKAGES = ("desireline", "torch", "polars", "numpy", "deltalake", "numba")


def machine() -> dict[str, Any]:
    """Processor, cores, versions and commit: what a figure depends on."""
    model = platform.processor()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        model = names[0] if names else model
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return {
        "processor": model,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in PACKAGES},
        "commit": commit.stdout.strip(),
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
    }


def record(name: str, result: Mapping[str, Any]) -> Path:
    """Write benchmarks/results/NAME.json with the machine's description; returns the path."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps({"machine": machine(), **result}, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


def measured(
    command: Sequence[str], environment: Mapping[str, str] | None = None, *, whole_tree: bool = False
) -> dict[str, Any]:
    """Run a command to its end: wall and processor seconds, peak memory of its largest process, what it printed.

    With `whole_tree` also `tree_mib`, the peak of all its processes together (Linux: proportional set size, looked at
    ten times a second; memory-mapped files count). Raises RuntimeError with the end of its stderr when it fails.
    """
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        begun = time.perf_counter()
        process = subprocess.Popen(list(command), stdout=out, stderr=err, env={**os.environ, **(environment or {})})
        ended, peak = threading.Event(), [0.0]
        watch = threading.Thread(target=_watch, args=(process.pid, ended, peak))
        if whole_tree:
            watch.start()
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        wall = time.perf_counter() - begun
        ended.set()
        if whole_tree:
            watch.join()
        out.seek(0)
        err.seek(0)
        if process.returncode:
            raise RuntimeError(f"{' '.join(command)} failed with {process.returncode}:\n{err.read()[-2000:]}")
        return {
            "wall_s": round(wall, 2),
            "cpu_s": round(used.ru_utime + used.ru_stime, 2),
            "peak_mib": round(used.ru_maxrss / 1024),
            "stdout": out.read(),
        } | ({"tree_mib": round(peak[0])} if whole_tree else {})


def _watch(root: int, ended: threading.Event, peak: list[float]) -> None:
    while not ended.wait(0.1):
        peak[0] = max(peak[0], _tree_mib(root))


def _tree_mib(root: int) -> float:
    """Memory of a process and all below it; a process that ends meanwhile counts nothing."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        children.setdefault(parent, []).append(int(stat.parent.name))
    total, open_pids = 0, [root]
    while open_pids:
        pid = open_pids.pop()
        open_pids += children.get(pid, [])
        try:
            rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        except OSError:
            continue
        total += next((int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:")), 0)
    return total / 1024
