"""Surprise of every event: `python -m benchmarks.surprise [--quick] [--json]`.

A made-up log of 1,000,000 events, 40 a user in the mean with a long tail, is scored whole by a gated recurrent network
of width 64 with the heads of the next-event task, one thread, in a process of its own: once over a catalogue of 5,000
items and once over one of 100,000, which is sampled. Figures are of speed and memory alone: the network has learnt
nothing, which costs the same. Writes benchmarks/results/surprise.json.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl

from benchmarks.ingest import show
from benchmarks.record import measured, record

EVENTS, FEW_EVENTS = 1_000_000, 30_000
CATALOGUES = (5_000, 100_000)
MEAN_LENGTH, TYPES, WIDTH = 40, 6, 64
SHARED = 0.3  # of events that share the moment of the one before
SEED = 7


def log(events: int, items: int) -> Any:
    """Sequences of such a log over ninety days, popularity falling as 1 / (10 + rank)."""
    from desireline.sequences.ragged import Sequences
    from desireline.sequences.vocabulary import FIRST

    rng = np.random.default_rng(SEED)
    lengths = 1 + rng.geometric(1 / MEAN_LENGTH * np.exp(-rng.exponential(0.5, events // 20)))
    lengths = lengths[: int(np.searchsorted(np.cumsum(lengths), events))]
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    total, row = int(offsets[-1]), np.repeat(np.arange(len(lengths)), lengths)
    moments = rng.integers(0, 90 * 86_400, total)
    shared = rng.random(total) < SHARED
    moments[1:] = np.where(shared[1:], moments[:-1], moments[1:])
    share = 1 / (10 + np.arange(items))
    columns = {
        "time": moments[np.lexsort((moments, row))] * 1_000_000,
        "event": rng.integers(FIRST, FIRST + TYPES, total).astype(np.int16),
        "item": (FIRST + rng.choice(items, total, p=share / share.sum())).astype(np.int32),
    }
    return Sequences(pl.Series("user", [f"u{k}" for k in range(len(lengths))]), offsets, columns)


def scored(events: str, items: str) -> dict[str, Any]:
    """Seconds of this process's one thread, as a whole and by part, and those of the facts of accounts."""
    import torch
    from torch import nn

    from desireline.encoders.embedding import Inputs
    from desireline.schema.model import EncoderSettings
    from desireline.sequences.vocabulary import FIRST
    from desireline.tasks.anomaly import surprise as module
    from desireline.tasks.anomaly.surprise_facts import surprise_facts
    from desireline.training.losses import WaitingTime
    from desireline.training.network import Network

    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    kinds, width = FIRST + TYPES, WIDTH
    heads = {"event_type": nn.Linear(width, kinds), "item": nn.Linear(width, width), "wait": WaitingTime(width)}
    settings = EncoderSettings(d_model=width, layers=1)
    network = Network(Inputs(FIRST + int(items), kinds), "gru", settings, nn.ModuleDict(heads)).eval()
    module.surprise(network, log(3_000, int(items)), 0, SEED, 0.07)  # compiles
    sequences, spent = log(int(events), int(items)), dict.fromkeys(("network", "items", "types and waits"), 0.0)

    def timed(part: str, run: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*words: Any, **named: Any) -> Any:
            begun = time.process_time()
            found = run(*words, **named)
            spent[part] += time.process_time() - begun
            return found

        return wrapped

    network.encode = timed("network", network.encode)  # type: ignore[method-assign]
    module.ItemTable.score = timed("items", module.ItemTable.score)  # type: ignore[method-assign]
    module._types = timed("types and waits", module._types)
    module._waits = timed("types and waits", module._waits)
    begun, wall = time.process_time(), time.perf_counter()
    until = int(sequences["time"].max()) + 1
    found = module.surprise(network, sequences, 0, SEED, 0.07, until_us=until, step_us=1_000_000)
    whole, wall = time.process_time() - begun, time.perf_counter() - wall
    count = int(np.isfinite(found.heads["type"].nats).sum())
    begun = time.process_time()
    surprise_facts(found)
    facts = time.process_time() - begun
    return {
        "items": int(items),
        "events": count,
        "processor s": round(whole, 1),
        "events/s": round(count / whole),
        **{f"{part} %": round(100 * seconds / whole) for part, seconds in spent.items()},
        "facts s": round(facts, 1),
        "wall s": round(wall, 1),
    }


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="30,000 events, nothing recorded")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rows = []
    code = "import sys, json; from benchmarks.surprise import scored; print(json.dumps(scored(*sys.argv[1:])))"
    for items in CATALOGUES:
        words = [str(FEW_EVENTS if options.quick else EVENTS), str(items)]
        done = measured([sys.executable, "-c", code, *words], {"NUMBA_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"})
        rows.append(json.loads(done["stdout"].strip().splitlines()[-1]) | {"peak MiB": done["peak_mib"]})
        sys.stderr.write(f"{rows[-1]}\n")
    show(rows, options.json)
    if not options.quick:
        notes = [
            f"gru of width {WIDTH}, one layer, one thread; seconds of processor time, so that other work on the "
            f"machine does not count (load at the end: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores).",
            "Above 20,000 items a sample of 8,192 stands for the catalogue.",
            "`facts s`: all facts of all accounts, the references of chance (about 2 s, once a process) included.",
        ]
        title = "Surprise of every event"
        record("surprise", {"title": title, "command": "python -m benchmarks.surprise", "rows": rows, "notes": notes})


if __name__ == "__main__":
    main()
