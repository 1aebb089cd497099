"""CoLES by pytorch-lifestream, run by an environment that holds it and nothing of ours.

    python ptls_coles.py EVENTS.parquet PLACES.parquet OUT.parquet [EPOCHS]

EVENTS: `user`, `gap` (days since the user's event before), `value`, and category codes from 1 on (`event`, `item`),
by user and time. PLACES: `place`, the row of EVENTS after which an embedding is asked for. OUT: a column a dimension,
a row a place. Slices are those that its authors take for churn (Rosbank: five a user, of 15 to 150 events); the encoder
is a GRU, so that its state after an event is the embedding of all events up to it.
"""

from __future__ import annotations

import sys
from functools import partial
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytorch_lightning as pl
import torch
from ptls.data_load.datasets import MemoryMapDataset
from ptls.data_load.utils import collate_feature_dict
from ptls.frames import PtlsDataModule
from ptls.frames.coles import ColesDataset, CoLESModule
from ptls.frames.coles.split_strategy import SampleSlices
from ptls.nn import RnnSeqEncoder, TrxEncoder

SLICES = {"split_count": 5, "cnt_min": 15, "cnt_max": 150}
WIDTH, BATCH, EPOCHS, RATE = 128, 64, 10, 4e-3


def histories(path: str) -> tuple[list[dict[str, torch.Tensor]], dict[str, int], np.ndarray]:
    """A dictionary of columns a user, the size of each category, and where each user begins, int64 [U + 1]."""
    log = {name: column.to_numpy() for name, column in zip(*_columns(path), strict=True)}
    begins = np.flatnonzero(np.diff(log["user"], prepend=-1, append=-2))
    sizes = {name: int(log[name].max()) + 1 for name in ("event", "item")}
    columns = {name: torch.from_numpy(log[name].astype(np.int64)) for name in sizes}
    columns |= {name: torch.from_numpy(np.nan_to_num(log[name]).astype(np.float32)) for name in ("gap", "value")}
    columns["event_time"] = torch.from_numpy(np.arange(len(log["user"]), dtype=np.int64))
    users = [{name: column[lo:hi] for name, column in columns.items()} for lo, hi in pairwise(begins.tolist())]
    return users, sizes, begins


def _columns(path: str) -> tuple[list[str], list[pa.ChunkedArray]]:
    table = pq.read_table(path)
    return table.column_names, table.columns


def encoder_of(sizes: dict[str, int]) -> RnnSeqEncoder:
    """The encoder of an event log: embedded categories, logged numbers, and a GRU."""
    embeddings = {"event": {"in": sizes["event"], "out": 8}, "item": {"in": sizes["item"], "out": 32}}
    events = TrxEncoder(embeddings=embeddings, numeric_values={"gap": "log", "value": "log"}, embeddings_noise=0.003)
    return RnnSeqEncoder(trx_encoder=events, hidden_size=WIDTH, type="gru")


def main() -> None:
    """Learn from the events and read them."""
    users, sizes, begins = histories(sys.argv[1])
    epochs = int(sys.argv[4]) if len(sys.argv) > 4 else EPOCHS
    pl.seed_everything(0)
    torch.set_num_threads(1)  # products this small wait for each other on several
    encoder = encoder_of(sizes)
    module = CoLESModule(
        seq_encoder=encoder,
        optimizer_partial=partial(torch.optim.Adam, lr=RATE),
        lr_scheduler_partial=partial(torch.optim.lr_scheduler.StepLR, step_size=3, gamma=0.7),
    )
    data = ColesDataset(MemoryMapDataset(users), splitter=SampleSlices(**SLICES))
    loader = PtlsDataModule(train_data=data, train_batch_size=BATCH, train_num_workers=0)
    trainer = pl.Trainer(
        max_epochs=epochs, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False
    )
    trainer.fit(module, loader)
    encoder.eval()
    encoder.is_reduce_sequence = False
    places = pq.read_table(sys.argv[2])["place"].to_numpy()
    owner, found = np.searchsorted(begins, places, side="right") - 1, np.zeros((len(places), WIDTH), np.float32)
    with torch.inference_mode():
        for user in np.unique(owner):
            states = encoder(collate_feature_dict([users[user]])).payload[0].numpy()
            here = owner == user
            found[here] = states[places[here] - begins[user]]
    pq.write_table(pa.table({f"sequence_{n}": column for n, column in enumerate(found.T)}), sys.argv[3])


if __name__ == "__main__":
    main()
