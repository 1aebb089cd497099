"""desireline's transformer on a table of interactions, driven at the level of the training loop.

python -m benchmarks.peers.own_transformer TRAIN.parquet OUT.parquet EPOCHS LENGTH BATCH_TARGETS
"""

from __future__ import annotations

import json
import sys
import time

import numpy as np
import polars as pl

from desireline.encoders.embedding import Inputs
from desireline.evaluation.queries import Histories
from desireline.evaluation.ranking import top_k
from desireline.schema.model import EncoderSettings, EventSpec, EventType, Schema, TrainSettings
from desireline.sequences.batches import batches
from desireline.sequences.ragged import POSITIVE, TARGET, Sequences
from desireline.tasks.items import item_scores
from desireline.tasks.recommend import Recommend
from desireline.training.loop import train
from desireline.training.network import Network


def sequences_of(table: pl.DataFrame) -> Sequences:
    """Interactions (user, position, item from 0) as sequences; item ids begin at 2."""
    table = table.sort("user", "position")
    counts = table.group_by("user", maintain_order=True).len()
    n = table.height
    columns = {
        "time": table["position"].to_numpy().astype(np.int64) * 1_000_000,
        "event": np.full(n, 2, np.int16),
        "item": (table["item"].to_numpy() + 2).astype(np.int32),
        "role": np.full(n, POSITIVE | TARGET, np.uint8),
    }
    offsets = np.concatenate([[0], np.cumsum(counts["len"].to_numpy())]).astype(np.int64)
    return Sequences(counts["user"].cast(pl.String), offsets, columns)


def main() -> None:
    """Fit, rank the catalogue for everybody, print seconds as JSON."""
    source, out, epochs, length, batch = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:6])
    sequences = sequences_of(pl.read_parquet(source))
    items = int(sequences["item"].max()) + 1
    schema = Schema(event=EventSpec(constant="buy"), types={"buy": EventType(roles=["positive", "target"])})
    encoder = EncoderSettings(d_model=64, layers=2, heads=2, length=length, dropout=0.2)
    settings = TrainSettings(batch_targets=batch, lr=0.001, next_items=1, loss="softmax", ema=0.0, warmup=0.0)
    task = Recommend()
    network = Network(Inputs(items, 3, timed=False), "transformer", encoder, task.heads(None, 64))  # type: ignore[arg-type]
    labels = task.labels(sequences, None, schema)
    begun = time.perf_counter()
    done = train(
        network,
        lambda b: task.loss(network, *network(sequences, b), labels, settings),
        lambda epoch: batches(sequences, "packed", length, batch, 0, epoch),
        task.count(labels),
        settings,
        0,
        planned=epochs,
    )
    fitted = time.perf_counter() - begun
    begun = time.perf_counter()
    places = sequences.offsets[1:] - 1
    hidden = network.encode(sequences, places)
    found = []
    for lo in range(0, len(places), 512):
        hi = min(lo + 512, len(places))
        borders = sequences.offsets[lo : hi + 1]
        seen = slice(int(borders[0]), int(borders[-1]))
        asked = Histories(borders - borders[0], sequences["item"][seen], sequences["time"][seen], places[lo:hi])
        found.append(top_k(item_scores(network, hidden[lo:hi]), 10, asked)[0])
    ranked = time.perf_counter() - begun
    lists = np.concatenate(found)
    users = sequences.users.cast(pl.Int64).to_numpy()
    pl.DataFrame(
        {"user_id": np.repeat(users, 10), "item_id": lists.ravel() - 2, "rank": np.tile(np.arange(1, 11), len(users))}
    ).write_parquet(out)
    print(json.dumps({"fit_s": fitted, "rank_s": ranked, "targets": done.targets}))


if __name__ == "__main__":
    main()
