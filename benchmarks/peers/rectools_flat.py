"""RecTools' flat SASRec (rectools.fast_transformers) on a table of interactions; run by the peer's own interpreter.

python rectools_flat.py TRAIN.parquet LISTS.parquet EPOCHS LENGTH BATCH_USERS [NEGATIVES]

The module has windows, data set and network (`build_sequences`, `SequenceBatchDataset`, `FlatSASRecNet`); loop, loss
and ranking are left to its user. Here they are the plainest: Adam with the betas of SASRecModel, cross-entropy of the
network's logits, top 10 of the product with all items. The network's own: blocks normed first, feed-forward four wide.

NEGATIVES 0: of those of the whole catalogue; else of the target's and those of so many uniform negatives a position
(the network's `negatives` branch, drawn by the module's own sampler: a negative that is the target is drawn anew once).
"""

from __future__ import annotations

import json
import os
import sys
import time

import numpy as np
import pandas as pd
import torch
from pace import Pace
from pytorch_lightning import seed_everything
from rectools.fast_transformers import FlatSASRecNet, SequenceBatchDataset, build_sequences
from rectools.fast_transformers.unisrec.model import _NegativeSampler
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader

WIDTH, LAYERS, HEADS, DROPOUT = 64, 2, 2, 0.2
SEED = 0
TOP = 10
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def tensors_of(table: pd.DataFrame) -> tuple[Tensor, ...]:
    """Users, items and times of a table of interactions."""
    return tuple(torch.from_numpy(table[name].to_numpy(copy=True)) for name in ("user", "item", "position"))


def network_of(items: int, length: int) -> FlatSASRecNet:
    """The network, drawn on the scale of the module's UniSRecNet; PyTorch's N(0, 1) gives tied logits of size 8."""
    network = FlatSASRecNet(items, WIDTH, LAYERS, HEADS, length, DROPOUT)
    for weight in network.parameters():
        if weight.dim() > 1:
            torch.nn.init.normal_(weight, std=0.02)
    return network.to(DEVICE)


def train(network: FlatSASRecNet, data: SequenceBatchDataset, epochs: int, users: int, negatives: int) -> Pace:
    """Learn; returns the pace of it."""
    optimizer = torch.optim.Adam(network.parameters(), lr=0.001, betas=(0.9, 0.98))
    sampler = _NegativeSampler(network.n_items, negatives)
    pace = Pace()
    for _ in range(epochs):
        for held in DataLoader(data, batch_size=users, shuffle=True):
            pace.step(int((held["y"] > 0).sum()))
            batch = {name: value.to(DEVICE) for name, value in held.items()}
            real = batch["y"] > 0
            logits = network(sampler(batch) if negatives else batch)
            place = 0 if negatives else batch["y"] - 1  # of the target among the logits
            loss = cross_entropy(logits.flatten(0, 1), torch.where(real, place, -1).flatten(), ignore_index=-1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
    return pace


@torch.inference_mode()
def best(network: FlatSASRecNet, windows: Tensor, owners: Tensor, seen: Tensor, users: int) -> Tensor:
    """The ten best items of each window, from 0, but for what its owner has seen (pairs in order of owners)."""
    network.eval()
    catalogue = network.all_item_embeddings()
    found = []
    for lo in range(0, len(windows), users):
        scores = (network.encode_last(windows[lo : lo + users].to(DEVICE)) @ catalogue.T).cpu()
        begin, end = torch.searchsorted(owners, torch.tensor([lo, lo + users])).tolist()
        scores[owners[begin:end] - lo, seen[begin:end]] = -torch.inf
        found.append(scores.topk(TOP, dim=1).indices)
    return torch.cat(found)


def main() -> None:
    """Fit, rank the catalogue for everybody, print seconds as JSON."""
    source, out = sys.argv[1:3]
    epochs, length, users, negatives = map(int, [*sys.argv[3:], 0][:4])
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    # attention's fast path makes NaN of a row that may look at padding only, and the next layer spreads it
    torch.backends.mha.set_fastpath_enabled(False)
    seed_everything(SEED)
    whole = pd.read_parquet(source).sort_values(["user", "position"])
    kept = whole.groupby("user").tail(length)
    events = tensors_of(kept)
    wall, processor = time.perf_counter(), time.process_time()
    x, y, catalogue, _ = build_sequences(*events, max_len=length)
    network = network_of(len(catalogue), length)
    pace = train(network, SequenceBatchDataset(x, y), epochs, users, negatives)
    fitted = pace.told() | {"fit_s": time.perf_counter() - wall, "fit_cpu_s": time.process_time() - processor}
    wall = time.perf_counter()
    # a window leaves a user's last event to the targets: with that event twice, it is the last of the window
    again = kept.groupby("user").tail(1)
    again = again.assign(position=again["position"] + 1)
    windows, _, _, owners = build_sequences(*tensors_of(pd.concat([kept, again])), max_len=length)
    known = tensors_of(whole[whole["item"].isin(catalogue.numpy())])  # masked, what stands before the window too
    lists = best(network, windows, torch.searchsorted(owners, known[0]), torch.searchsorted(catalogue, known[1]), users)
    ranked = time.perf_counter() - wall
    rank = np.tile(np.arange(1, TOP + 1), len(owners))
    table = {"user": owners.repeat_interleave(TOP), "item": catalogue[lists].flatten(), "rank": rank}
    pd.DataFrame(table).to_parquet(out)
    parameters = sum(p.numel() for p in network.parameters())
    print(json.dumps({**fitted, "rank_s": ranked, "parameters": parameters}))


if __name__ == "__main__":
    main()
