"""A pool of fresh processes for work that stands in importable modules."""

from __future__ import annotations

import multiprocessing
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager


@contextmanager
def process_pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    """An executor of `workers` spawned processes.

    Spawned, since a forked polars may hang on its parent's locks. A spawned process would run the caller's script again
    to find its functions; ours stand in modules, so the script is hidden meanwhile, and nobody needs to guard theirs
    with `if __name__ == "__main__"`.
    """
    main = sys.modules["__main__"]
    hidden = {name: main.__dict__.pop(name) for name in ("__file__",) if name in main.__dict__}
    spec, main.__spec__ = main.__spec__, None
    try:
        with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
            yield pool
    finally:
        main.__dict__.update(hidden)
        main.__spec__ = spec
