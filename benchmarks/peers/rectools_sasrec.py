"""RecTools' SASRecModel on a table of interactions; run by the peer's own interpreter.

python rectools_sasrec.py TRAIN.parquet OUT.parquet EPOCHS LENGTH BATCH_USERS
"""

from __future__ import annotations

import json
import sys
import time

import pandas as pd
import torch
from rectools import Columns
from rectools.dataset import Dataset
from rectools.models import SASRecModel
from rectools.models.nn.item_net import IdEmbeddingsItemNet


def main() -> None:
    """Fit, rank the catalogue for everybody, print seconds as JSON."""
    source, out, epochs, length, users = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:6])
    torch.set_num_threads(int(__import__("os").environ["OMP_NUM_THREADS"]))
    table = pd.read_parquet(source)
    frame = pd.DataFrame(
        {
            Columns.User: table["user"],
            Columns.Item: table["item"],
            Columns.Weight: 1.0,
            Columns.Datetime: pd.Timestamp("2020-01-01") + pd.to_timedelta(table["position"], unit="s"),
        }
    )
    dataset = Dataset.construct(frame)
    model = SASRecModel(
        n_factors=64,
        n_blocks=2,
        n_heads=2,
        dropout_rate=0.2,
        session_max_len=length,
        batch_size=users,
        epochs=epochs,
        loss="softmax",
        lr=0.001,
        item_net_block_types=(IdEmbeddingsItemNet,),
        dataloader_num_workers=0,
        verbose=0,
    )
    begun = time.perf_counter()
    model.fit(dataset)
    fitted = time.perf_counter() - begun
    begun = time.perf_counter()
    lists = model.recommend(users=table["user"].unique(), dataset=dataset, k=10, filter_viewed=True)
    ranked = time.perf_counter() - begun
    lists[[Columns.User, Columns.Item, Columns.Rank]].to_parquet(out)
    print(json.dumps({"fit_s": fitted, "rank_s": ranked}))


if __name__ == "__main__":
    main()
