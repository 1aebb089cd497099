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
IN_CACHE = 1 << 17  # numbers of a few rows that a core's own cache holds while several passes go over them


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


def over_lines(shape: tuple[int, ...], run: Callable[[int, int], None]) -> None:
    """`over_blocks` for NumPy's passes over an array of this shape, rows × numbers: a few rows at a time stay cached.

    Pass after pass over a whole chunk of a large catalogue would wait for main memory.
    """
    rows, width = shape
    few = max(1, IN_CACHE // max(1, width))

    def block(lo: int, hi: int) -> None:
        for at in range(lo, hi, few):
            run(at, min(at + few, hi))

    over_blocks(rows, block, least=min(LEAST, few))
