"""desireline's transformer on a table of interactions, driven at the level of the training loop.

python -m benchmarks.peers.own_transformer TRAIN.parquet LISTS.parquet EPOCHS LENGTH BATCH_TARGETS [NEGATIVES]

BATCH_TARGETS 0: our own training settings instead of the peers' learning rate and number of steps. NEGATIVES 0: full
softmax.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.peers.pace import Pace
from desireline.encoders.embedding import Inputs
from desireline.evaluation.queries import Histories
from desireline.evaluation.ranking import top_k
from desireline.schema.model import EncoderSettings, EventSpec, EventType, Schema, TrainSettings
from desireline.sequences.batches import Batch, batches
from desireline.sequences.ragged import POSITIVE, TARGET, Sequences
from desireline.sequences.vocabulary import FIRST
from desireline.tasks.items import item_scores, samples
from desireline.tasks.recommend import Recommend
from desireline.training.device import device_of, pays_bfloat16
from desireline.training.loop import train
from desireline.training.network import Network

WIDTH, LAYERS, HEADS, DROPOUT = 64, 2, 2, 0.2
SEED = 0
CONSTANT = 100  # times the epochs: the first of so many see next to nothing of the learning rate's fall


def sequences_of(table: pl.DataFrame) -> Sequences:
    """Interactions (user, position, item from 0), in order, as sequences; item ids begin at FIRST."""
    counts = table.group_by("user", maintain_order=True).len()
    n = table.height
    columns: dict[str, NDArray[Any]] = {
        "time": table["position"].to_numpy().astype(np.int64) * 1_000_000,
        "event": np.full(n, FIRST, np.int16),
        "item": (table["item"].to_numpy() + FIRST).astype(np.int32),
        "role": np.full(n, POSITIVE | TARGET, np.uint8),
    }
    offsets = np.concatenate([[0], np.cumsum(counts["len"].to_numpy())]).astype(np.int64)
    return Sequences(counts["user"].cast(pl.String), offsets, columns)


def main() -> None:
    """Fit, rank the catalogue for everybody, print seconds as JSON."""
    source, out = sys.argv[1:3]
    epochs, length, batch, negatives = map(int, [*sys.argv[3:], 0][:4])
    threads = int(os.environ["OMP_NUM_THREADS"])
    whole = pl.read_parquet(source).sort("user", "position")
    sequences = sequences_of(whole.group_by("user", maintain_order=True).tail(length))
    items = int(whole["item"].to_numpy().max()) + 1 + FIRST
    schema = Schema(event=EventSpec(constant="buy"), types={"buy": EventType(roles=["positive", "target"])})
    encoder = EncoderSettings(d_model=WIDTH, layers=LAYERS, heads=HEADS, length=length, dropout=DROPOUT)
    settings = TrainSettings(loss="sampled" if negatives else "softmax", negatives=negatives or 1, threads=threads)
    if batch:
        equal = {"batch_targets": batch, "lr": 0.001, "next_items": 1, "ema": 0.0, "warmup": 0.0}
        settings = settings.model_copy(update=equal)
    task = Recommend()
    torch.manual_seed(SEED)
    network = Network(Inputs(items, FIRST + 1, timed=False), "transformer", encoder, task.heads(None, WIDTH))  # type: ignore[arg-type]
    network.to(device_of(settings))
    network.low = pays_bfloat16(settings.precision, device_of(settings))
    network.embedding.items.sparse = samples(settings, items)
    pace = Pace()
    wall, processor = time.perf_counter(), time.process_time()
    labels = task.labels(sequences, None, schema)

    def loss(batch: Batch) -> tuple[Tensor, int]:
        hidden, places = network(sequences, batch)
        found = task.loss(network, hidden, places, labels, settings)
        pace.step(found[1])
        return found

    with network.products(settings.batch_targets):
        train(
            network,
            loss,
            lambda epoch: batches(sequences, network.encoder.layout, length, settings.batch_targets, SEED, epoch),
            task.count(labels),
            settings,
            SEED,
            planned=epochs * CONSTANT if batch else epochs,
            stop_after=epochs,
        )
    fitted = pace.told() | {"fit_s": time.perf_counter() - wall, "fit_cpu_s": time.process_time() - processor}
    wall = time.perf_counter()
    places = sequences.offsets[1:] - 1
    hidden = network.encode(sequences, places)
    known = sequences_of(whole)  # what a user had is masked, what stands before the window too
    found = []
    for lo in range(0, len(places), 512):
        hi = min(lo + 512, len(places))
        borders = known.offsets[lo : hi + 1]
        seen = slice(int(borders[0]), int(borders[-1]))
        now = known["time"][borders[1:] - 1]
        asked = Histories(borders - borders[0], known["item"][seen], known["time"][seen], now)
        found.append(top_k(item_scores(network, hidden[lo:hi]), 10, asked)[0])
    ranked = time.perf_counter() - wall
    lists, users = np.concatenate(found), sequences.users.cast(pl.Int64).to_numpy()
    table = {"user": np.repeat(users, 10), "item": lists.ravel() - FIRST, "rank": np.tile(np.arange(1, 11), len(users))}
    pl.DataFrame(table).write_parquet(out)
    print(json.dumps(fitted | {"rank_s": ranked, "parameters": network.parameters_count}))


if __name__ == "__main__":
    main()
