"""Rows shared out over the processor's cores, for compiled kernels that release the interpreter's lock.

Plain threads instead of numba's own parallel loops: those cannot be entered from two threads at once, and die in a
forked process. Blocks write to rows of their own, so that the number of cores never shows in a figure.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numba

LEAST = 64  # rows below which a further thread costs more than it brings


def over_blocks(rows: int, run: Callable[[int, int], None], least: int = LEAST) -> None:
    """Call `run(lo, hi)` for ranges that cover 0 … rows, side by side; an error of any of them is raised here."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = min(cores, int(vars(numba.config)["NUMBA_NUM_THREADS"]))  # what the environment allows
    blocks = max(1, min(threads * 4, rows // least))
    if blocks == 1 or threads == 1:
        run(0, rows)
        return
    borders = [rows * b // blocks for b in range(blocks + 1)]
    with ThreadPoolExecutor(threads) as pool:
        for done in [pool.submit(run, lo, hi) for lo, hi in pairwise(borders)]:
            done.result()
