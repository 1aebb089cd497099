"""What each choice of the training loop brings: `python -m benchmarks.steps [--growth] [--quick] [--json]`.

Real targets a CPU second of one thread, each row after a warm-up of its own, all in one run. `as it is`, then with one
choice taken back; every encoder. Two made logs: `long` has ML-1M's shape (mean 163 events, 3,416 items), `short` that
of Amazon Beauty (mean 9, 12,101 items); what there is to learn does not matter here. Writes
benchmarks/results/steps.json. Then catalogues of 10 k to 5 M items with row-wise and with dense updates, a process
each: benchmarks/results/growth.json; `--growth`: only these.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from unittest import mock

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import polars as pl
import torch
from torch import Tensor, nn

from benchmarks.ingest import show
from benchmarks.record import measured, record
from desireline.encoders import ENCODERS, attention, transformer
from desireline.encoders.embedding import Inputs
from desireline.schema.model import EncoderSettings, EventSpec, EventType, Schema, TrainSettings
from desireline.sequences.batches import Batch, batches
from desireline.sequences.ragged import POSITIVE, TARGET, Sequences
from desireline.sequences.vocabulary import FIRST
from desireline.tasks.items import samples
from desireline.tasks.recommend import Recommend
from desireline.training.device import pays_bfloat16
from desireline.training.loop import train
from desireline.training.network import Network

SEED = 0
MANY = "12,000 targets a step"
SIDE = 2_048  # of the product that tells the peak
GROWN, FEW = (10_000, 100_000, 1_000_000, 5_000_000), (10_000, 100_000)  # items; with --quick
SCHEMA = Schema(event=EventSpec(constant="buy"), types={"buy": EventType(roles=["positive", "target"])})


@dataclass(frozen=True)
class Shape:
    """A made log: users, events of each on average, items, and the window."""

    users: int
    mean: int
    items: int
    length: int


LONG, SHORT = Shape(400, 163, 3_416, 200), Shape(9_000, 9, 12_101, 50)


def made(shape: Shape) -> Sequences:
    """Random walks with geometric lengths and items by a heavy-tailed popularity."""
    rng = np.random.default_rng(SEED)
    counts = np.clip(rng.geometric(1 / shape.mean, shape.users), 2, None)
    n = int(counts.sum())
    popularity = 1 / np.arange(1, shape.items + 1) ** 0.8
    item = rng.choice(shape.items, n, p=popularity / popularity.sum()).astype(np.int32) + FIRST
    columns: dict[str, Any] = {
        "time": np.arange(n, dtype=np.int64) * 1_000_000,
        "event": np.full(n, FIRST, np.int16),
        "item": item,
        "role": np.full(n, POSITIVE | TARGET, np.uint8),
    }
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return Sequences(pl.Series([str(u) for u in range(shape.users)]), offsets, columns)


def rate(
    shape: Shape, encoder: str, steps: int, low: bool = True, rowwise: bool = True, d_model: int = 64, **settings: Any
) -> dict[str, Any]:
    """Targets a CPU second and milliseconds a step of one network; `s beside` the steps: their begin and end."""
    sequences = made(shape)
    torch.manual_seed(SEED)
    torch.set_num_threads(1)
    sizes = EncoderSettings(d_model=d_model, layers=2, heads=2, length=shape.length, dropout=0.2)
    chosen = TrainSettings(threads=1, **settings)
    task = Recommend()
    network = Network(Inputs(shape.items + FIRST, FIRST + 1, timed=False), encoder, sizes, nn.Identity())
    network.low = low and pays_bfloat16(chosen.precision, torch.device("cpu"))
    network.embedding.items.sparse = rowwise and samples(chosen, shape.items + FIRST)
    labels = task.labels(sequences, None, SCHEMA)

    def loss(batch: Batch) -> tuple[Tensor, int]:
        hidden, places = network(sequences, batch)
        return task.loss(network, hidden, places, labels, chosen)

    held: list[Batch] = []
    for epoch in range(100):
        for batch in batches(sequences, network.encoder.layout, shape.length, chosen.batch_targets, SEED, epoch):
            if len(held) < steps:
                held.append(batch)
    spent, whole, targets = 0.0, 0.0, 0
    for chunk in (held[: max(3, steps // 10)], held):  # the first warms up: kernels, memory
        moments: list[float] = []
        begun = time.process_time()
        with network.products(chosen.batch_targets):
            done = train(
                network,
                loss,
                lambda epoch, chunk=chunk, moments=moments: clocked(chunk, moments),
                task.count(labels),
                chosen,
                SEED,
                planned=1,
            )
        whole, spent, targets = time.process_time() - begun, moments[-1] - moments[0], done.targets
    return {
        "targets/CPU s": round(targets / spent),
        "ms a step": round(1000 * spent / len(held), 1),
        "s beside": round(whole - spent, 2),
    }


def clocked(batches: list[Batch], moments: list[float]) -> Iterator[Batch]:
    """The batches; `moments` gains the CPU seconds at the begin of each step and after the last."""
    for batch in batches:
        moments.append(time.process_time())
        yield batch
    moments.append(time.process_time())


def without_beside(found: dict[str, Any]) -> dict[str, Any]:
    """A row of small tables, whose begin and end cost nothing."""
    return {key: value for key, value in found.items() if key != "s beside"}


def choices(shape: Shape, name: str, steps: int) -> list[dict[str, Any]]:
    """As it is, and with one choice taken back at a time."""

    def taken(what: str, run: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        return {"log": name, "encoder": "transformer, d 64", "what": what, **without_beside(run())}

    rows = [taken("as it is", lambda: rate(shape, "transformer", steps))]
    rows.append(taken("encoder in float32", lambda: rate(shape, "transformer", steps, low=False)))
    with mock.patch.object(transformer, "attend", attention.by_library):
        rows.append(taken("attention by PyTorch", lambda: rate(shape, "transformer", steps)))
    rows.append(taken("all in float32", lambda: rate(shape, "transformer", steps, low=False, precision="float32")))
    rows.append(taken(MANY, lambda: rate(shape, "transformer", max(4, steps // 20), batch_targets=12_000)))
    rows.append(taken("256 negatives", lambda: rate(shape, "transformer", steps, loss="sampled", negatives=256)))
    first = rows[0]["targets/CPU s"]
    return [row | {"×": round(row["targets/CPU s"] / first, 2)} for row in rows]


def every_encoder(steps: int) -> list[dict[str, Any]]:
    """Both logs with each encoder."""
    rows = []
    for name in ENCODERS:
        for log, shape in (("long", LONG), ("short", SHORT)):
            found = without_beside(rate(shape, name, steps))
            rows.append({"log": log, "encoder": f"{name}, d 64", "what": "as it is", **found, "×": None})
    for what, few, settings in (("as it is", steps, {}), (MANY, max(4, steps // 20), {"batch_targets": 12_000})):
        wide = without_beside(rate(LONG, "gru", few, d_model=128, **settings))
        rows.append({"log": "long", "encoder": "gru, d 128", "what": what, **wide, "×": None})
    return rows


def product_flops(kind: torch.dtype) -> float:
    """Operations a second of one thread in a product of SIDE × SIDE, the best of some."""
    left, right = (torch.randn(SIDE, SIDE).to(kind) for _ in range(2))
    torch.set_num_threads(1)
    taken = []
    for _ in range(8):
        begun = time.perf_counter()
        torch.mm(left, right)
        taken.append(time.perf_counter() - begun)
    return 2 * SIDE**3 / min(taken)


def gru_flops(d_model: int, layers: int, items: int) -> int:
    """Operations of training for a target: products of the cells and of the full softmax, thrice (two gradients)."""
    return 3 * 2 * (layers * 6 * d_model**2 + d_model * items)


def utilisation(rows: list[dict[str, Any]]) -> str:
    """What the fastest gru of width 128 makes of the core, in words."""
    fastest = max(row["targets/CPU s"] for row in rows if row["encoder"] == "gru, d 128")
    needed, peaks = gru_flops(128, 2, LONG.items), {k: product_flops(k) for k in (torch.bfloat16, torch.float32)}
    told = " and ".join(
        f"{fastest * needed / peak:.0%} of {peak / 1e9:.0f} GFLOP/s in {str(kind).removeprefix('torch.')}"
        for kind, peak in peaks.items()
    )
    return (
        f"gru, d 128: {needed / 1e6:.1f} million operations a target make {fastest:,} targets/CPU s {told}, what one "
        f"thread reaches in a product of {SIDE} × {SIDE} in the same run."
    )


def grown(items: str, updates: str, steps: str) -> dict[str, Any]:
    """One catalogue under `row-wise` or `dense` updates; words, since it is called in a process of its own."""
    shape = Shape(SHORT.users, SHORT.mean, int(items), SHORT.length)
    return rate(shape, "gru", int(steps), rowwise=updates == "row-wise", loss="sampled", negatives=256)


def growth(catalogues: tuple[int, ...], steps: int) -> list[dict[str, Any]]:
    """Steps over catalogues of growing size, each in a process of its own."""
    code = "import sys, json; from benchmarks.steps import grown; print(json.dumps(grown(*sys.argv[1:])))"
    rows, first = [], {}
    for items in catalogues:
        for updates in ("row-wise", "dense"):
            few = steps if updates == "row-wise" else max(4, steps // 8)
            done = measured([sys.executable, "-c", code, str(items), updates, str(few)])
            found = json.loads(done["stdout"].strip().splitlines()[-1])
            first.setdefault(updates, found["ms a step"])
            rows.append(
                {
                    "items": items,
                    "updates": updates,
                    **found,
                    "× 10 k": round(found["ms a step"] / first[updates], 2),
                    "table MiB": round(items * 64 * 4 / 2**20, 1),
                    "peak MiB": done["peak_mib"],
                }
            )
            sys.stderr.write(f"{rows[-1]}\n")
    return rows


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--growth", action="store_true", help="only the catalogues of growing size")
    parser.add_argument("--quick", action="store_true", help="few steps, nothing recorded")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    steps = 6 if options.quick else 80
    if not options.growth:
        rows = [*choices(LONG, "long", steps), *choices(SHORT, "short", steps), *every_encoder(steps)]
        show(rows, options.json)
        if not options.quick:
            notes = [
                "One thread, two layers, two heads, dropout .2, 512 targets a step, full softmax unless said.",
                "`×`: targets/CPU s by those of `as it is`.",
                utilisation(rows),
            ]
            command = "python -m benchmarks.steps"
            found = {"title": "A step of training", "command": command, "seed": SEED, "rows": rows, "notes": notes}
            record("steps", found)
    rows = growth(FEW if options.quick else GROWN, steps)
    show(rows, options.json)
    if not options.quick:
        notes = [
            "gru of width 64, two layers, 512 targets a step, 256 shared negatives, one thread; the log `short` with "
            f"so many items. {steps} steps row-wise, {max(4, steps // 8)} dense; CPU seconds.",
            "`s beside`: CPU seconds of a training beside its steps (copies of the table at its begin and end, the "
            "average brought up to date for every item): once a training, however many steps it has.",
            "`table MiB`: the item vectors alone. Peak: with the optimiser's memory (row-wise one number beside each, "
            "dense two and a gradient), the moving average, the best weights and the libraries.",
        ]
        command = "python -m benchmarks.steps --growth"
        found = {"title": "A step as the catalogue grows", "command": command, "seed": SEED}
        record("growth", found | {"rows": rows, "notes": notes})


if __name__ == "__main__":
    main()
