"""RecTools' SASRecModel on a table of interactions; run by the peer's own interpreter.

python rectools_sasrec.py TRAIN.parquet LISTS.parquet EPOCHS LENGTH BATCH_USERS [NEGATIVES]

NEGATIVES 0: its `softmax` over the whole catalogue; else its `sampled_softmax` with so many uniform negatives for each
position (`CatalogUniformSampler`: a negative may come twice or be the target, no logQ).
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

import pandas as pd
import torch
from pace import Pace
from pytorch_lightning import Callback, Trainer, seed_everything
from rectools import Columns
from rectools.dataset import Dataset
from rectools.models import SASRecModel
from rectools.models.nn.item_net import IdEmbeddingsItemNet

WIDTH, LAYERS, HEADS, DROPOUT = 64, 2, 2, 0.2
SEED = 0


class Steps(Callback):
    """Tells a pace of each step."""

    def __init__(self) -> None:
        self.pace = Pace()

    def on_train_batch_start(self, _trainer: Any, _module: Any, batch: dict[str, Any], _index: int) -> None:
        """A step begins."""
        self.pace.step(int((batch["y"] != 0).sum()))


def dataset_of(table: pd.DataFrame) -> Dataset:
    """Interactions in order as RecTools' data set."""
    moment = pd.Timestamp("2020-01-01") + pd.to_timedelta(table["position"], unit="s")
    names = {Columns.User: table["user"], Columns.Item: table["item"], Columns.Weight: 1.0, Columns.Datetime: moment}
    return Dataset.construct(pd.DataFrame(names))


def main() -> None:
    """Fit, rank the catalogue for everybody, print seconds as JSON."""
    source, out = sys.argv[1:3]
    epochs, length, users, negatives = map(int, [*sys.argv[3:], 0][:4])
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    seed_everything(SEED)
    whole = pd.read_parquet(source).sort_values(["user", "position"])
    kept = dataset_of(whole.groupby("user").tail(length))

    def trainer() -> Trainer:  # its own default, with the steps counted
        quiet: dict[str, Any] = dict.fromkeys(("enable_progress_bar", "enable_model_summary", "logger"), False)
        return Trainer(
            max_epochs=epochs,
            min_epochs=epochs,
            deterministic=False,
            enable_checkpointing=False,
            devices=1,
            callbacks=[Steps()],
            **quiet,
        )

    model = SASRecModel(
        n_factors=WIDTH,
        n_blocks=LAYERS,
        n_heads=HEADS,
        dropout_rate=DROPOUT,
        session_max_len=length,
        batch_size=users,
        epochs=epochs,
        loss="sampled_softmax" if negatives else "softmax",
        n_negatives=negatives or 1,
        lr=0.001,
        item_net_block_types=(IdEmbeddingsItemNet,),
        dataloader_num_workers=0,
        get_trainer_func=trainer,
    )
    wall, processor = time.perf_counter(), time.process_time()
    model.fit(kept)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    steps = next(c for c in model.fit_trainer.callbacks if isinstance(c, Steps))  # it trains by a copy of the trainer
    fitted = steps.pace.told() | {"fit_s": time.perf_counter() - wall, "fit_cpu_s": time.process_time() - processor}
    wall = time.perf_counter()
    # what a user had is masked, what stands before the window too
    lists = model.recommend(users=whole["user"].unique(), dataset=dataset_of(whole), k=10, filter_viewed=True)
    ranked = time.perf_counter() - wall
    lists = lists[[Columns.User, Columns.Item, Columns.Rank]].set_axis(["user", "item", "rank"], axis=1)
    lists.to_parquet(out)
    parameters = sum(p.numel() for p in model.lightning_model.parameters())
    print(json.dumps({**fitted, "rank_s": ranked, "parameters": parameters}))


if __name__ == "__main__":
    main()
