"""The ten nearest of a million items: `python -m benchmarks.nearest [--quick] [--json]`.

Three tables of a million unit vectors, and queries near to them:

- `clustered`, d 64 and 128: vectors as a well-trained table has them. Fifty topics, 5,000 groups in them and 50,000
  small groups in those, sizes fall as 1 / (10 + rank); a vector is the sum of its three centres and noise of its own,
  in a fifth of the items with 30 % of the square in noise, in the others, that were seen seldom, 55 %.
- `trained`, d 64: a gru after one epoch over a made log of 250,000 users and three million events (two home groups a
  user, every item at least once), its item vectors begun from the co-visit graph, as `fit` does. Four in five items
  were had too seldom to take part in that start, and stand about at random: as hard as it gets.

For each table, in a process of its own: a look at every item, the index that `recommend` uses, and others (IVF in half
precision; on one table HNSW of usearch and of Faiss), all built by one thread. All name candidates that are scored
again exactly; the effort of each is the first of a ladder that finds 96 % of the exact ten of 256 queries, and
recall@10 is that of 1,024 others.
Writes benchmarks/results/nearest.json.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from benchmarks.ingest import show
from benchmarks.record import measured, record

ITEMS, FEW = 1_000_000, 20_000
SEED = 7
ASKED, TESTED = 256, 1_024  # queries that choose the effort, and others
BATCH = 256
FIRST = 2
Floats = NDArray[np.float32]
Search = Callable[[Floats, int], NDArray[np.int32]]  # queries and threads to candidates, 0 where there are fewer

HNSW = ((100, 100), (200, 200), (400, 400), (800, 800), (1_600, 800))  # effort of a search, candidates
OTHERS = ("usearch HNSW", "faiss HNSW", "faiss IVF, half precision")
ROWS = {
    ("trained", 64): ("every item", "desireline", "faiss IVF, half precision"),
    ("clustered", 128): ("every item", "desireline", "faiss IVF, half precision"),
    ("clustered", 64): ("every item", "desireline", *OTHERS),
}


def unit(vectors: Floats) -> Floats:
    """At length 1."""
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def clustered(items: int, d: int) -> tuple[Floats, Floats]:
    """Vectors [FIRST + items, d] and queries; see the module."""
    rng = np.random.default_rng(SEED)

    def owners(groups: int, of: int) -> NDArray[np.int64]:
        share = 1 / (10 + np.arange(groups))
        return rng.choice(groups, of, p=share / share.sum())

    def directions(count: int) -> Floats:
        return unit(rng.standard_normal((count, d), np.float32))

    topics, groups, small = 50, items // 200, items // 20
    topic_of, group_of, mine = owners(topics, groups), owners(groups, small), rng.integers(0, small, items)
    group = group_of[mine]
    centres = directions(topics), directions(groups), directions(small)
    often = rng.random(items) < 0.2
    shares = np.where(often[:, None], [[0.1, 0.3, 0.3, 0.3]], [[0.05, 0.2, 0.2, 0.55]])
    weight = np.sqrt(shares).astype(np.float32)
    vectors = np.full((FIRST + items, d), d**-0.5, np.float32)
    for lo in range(0, items, 100_000):
        here = slice(lo, min(lo + 100_000, items))
        parts = (centres[0][topic_of[group[here]]], centres[1][group[here]], centres[2][mine[here]])
        made = sum(weight[here, k : k + 1] * part for k, part in enumerate(parts))
        vectors[FIRST + here.start : FIRST + here.stop] = unit(
            made + weight[here, 3:] * directions(here.stop - here.start)
        )
    order = np.argsort(group, kind="stable")
    begin = np.searchsorted(group[order], np.arange(groups + 1))
    had = rng.choice(np.flatnonzero(often), ASKED + TESTED)
    size = begin[group[had] + 1] - begin[group[had]]
    mates = order[begin[group[had]] + (rng.random((3, len(had))) * size).astype(np.int64)]
    queries = vectors[FIRST + had] + 0.3 * vectors[FIRST + mates].sum(axis=0) + 0.35 * directions(len(had))
    return vectors, unit(queries)


def trained(items: int, d: int) -> tuple[Floats, Floats]:
    """Item vectors [FIRST + items, d] of a network, and hidden states of users; see the module."""
    import polars as pl
    import torch
    from torch import Tensor, nn
    from torch.nn import functional as F

    from desireline.encoders.embedding import Inputs
    from desireline.graphs.spectral import spectral_vectors
    from desireline.schema.model import EncoderSettings, EventSpec, EventType, Schema, TrainSettings
    from desireline.sequences.batches import Batch, batches
    from desireline.sequences.ragged import POSITIVE, TARGET, Sequences
    from desireline.tasks.questions import training_histories
    from desireline.tasks.recommend import Recommend
    from desireline.training.loop import train
    from desireline.training.network import Network

    rng = np.random.default_rng(SEED)
    users, groups = items // 4, items // 200
    share = 1 / (10 + np.arange(groups))
    size = np.maximum(1, (items * share / share.sum()).astype(np.int64))
    size[0] += items - size.sum()
    counts = np.clip(rng.geometric(1 / 12, users), 3, 100)
    events, user = int(counts.sum()), np.repeat(np.arange(users), counts)
    home, pick = rng.choice(groups, (users, 3), p=size / items), rng.random(events)
    group = np.where(pick < 0.55, home[user, 0], home[user, 1])
    group = np.where(pick < 0.9, group, rng.choice(groups, events, p=size / items))
    within = (size[group] * rng.random(events) ** 2.5).astype(np.int64)
    order = np.lexsort((rng.random(events), group))
    rank = np.arange(events) - np.searchsorted(group[order], group[order])
    within[order] = np.where(rank < size[group[order]], rank, within[order])  # a group's first events: each item once
    item = rng.permutation(items)[np.concatenate([[0], np.cumsum(size)[:-1]])[group] + within] + FIRST
    columns: dict[str, Any] = {
        "time": np.arange(events, dtype=np.int64) * 1_000_000,
        "event": np.full(events, FIRST, np.int16),
        "item": item.astype(np.int32),
        "role": np.full(events, POSITIVE | TARGET, np.uint8),
    }
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    sequences = Sequences(pl.Series([str(u) for u in range(users)]), offsets, columns)
    schema = Schema(event=EventSpec(constant="buy"), types={"buy": EventType(roles=["positive", "target"])})
    torch.manual_seed(SEED)
    torch.set_num_threads(1)
    settings = TrainSettings(threads=1, loss="sampled", batch_targets=2_048)
    sizes, task = EncoderSettings(d_model=d, layers=1, length=50, dropout=0.2), Recommend()
    network = Network(Inputs(items + FIRST, FIRST + 1, timed=False), "gru", sizes, nn.Identity())
    network.embedding.items.sparse = True
    histories = training_histories(sequences, events * 1_000_000)
    network.embedding.start_items(spectral_vectors(histories, items + FIRST, d, SEED))
    labels = task.labels(sequences, None, schema)

    def loss(batch: Batch) -> tuple[Tensor, int]:
        hidden, places = network(sequences, batch)
        return task.loss(network, hidden, places, labels, settings)

    def epoch(number: int) -> Any:
        return batches(sequences, network.encoder.layout, 50, settings.batch_targets, SEED, number)

    train(network, loss, epoch, task.count(labels), settings, SEED, planned=1)
    with torch.inference_mode():
        hidden = network.encode(sequences, offsets[1 : 1 + ASKED + TESTED] - 1)
        return F.normalize(network.embedding.item_vectors(), dim=-1).numpy(), F.normalize(hidden, dim=-1).numpy()


def table(folder: Path, kind: str, items: str, d: str) -> dict[str, Any]:
    """Make a table's files and the exact ten of its queries."""
    from desireline.tasks.nearest import exact

    vectors, queries = {"clustered": clustered, "trained": trained}[kind](int(items), int(d))
    np.save(folder / "vectors.npy", vectors)
    np.save(folder / "queries.npy", queries)
    wanted = [exact(lambda ids: vectors[ids], len(vectors), q, 10) for q in np.array_split(queries, 8)]
    np.save(folder / "wanted.npy", np.concatenate(wanted))
    some = np.sort(queries[:64] @ vectors[FIRST:].T, axis=1)[:, ::-1]
    return {f"cosine of {place:,}": round(float(some[:, place - 1].mean()), 2) for place in (1, 10, 100, 1_000)}


def row(folder: Path, kind: str) -> dict[str, Any]:
    """Build one index over the folder's vectors and ask it."""
    from desireline.tasks.nearest import ENOUGH, rescored

    vectors, queries = np.load(folder / "vectors.npy"), np.load(folder / "queries.npy")
    wanted = np.load(folder / "wanted.npy")

    def found(near: NDArray[np.int32], asked: Floats) -> NDArray[np.int32]:
        return rescored(lambda ids: vectors[ids], near, asked)[0][:, :10]

    def recall(near: NDArray[np.int32], rows: slice) -> float:
        ids = found(near, queries[rows])
        return float(np.mean([np.isin(w, i).mean() for w, i in zip(wanted[rows], ids, strict=True)]))

    begun, spent = time.perf_counter(), time.process_time()
    ladder, size = INDICES[kind](vectors, queries[:ASKED])
    wall, spent = time.perf_counter() - begun, time.process_time() - spent
    for effort, search in ladder:  # noqa: B007
        if recall(search(queries[:ASKED], 2), slice(0, ASKED)) >= ENOUGH:
            break
    asked = queries[ASKED:]
    answer: dict[str, Any] = {
        "build s": round(wall, 1),
        "build CPU s": round(spent, 1),
        "index MiB": round(size / 2**20, 1),
        "effort": effort,
        "recall@10": round(recall(search(asked, 2), slice(ASKED, None)), 4),
    }

    def rate(count: int, at_once: int, threads: int) -> int:
        begun = time.perf_counter()
        for lo in range(0, count, at_once):
            part = asked[lo : lo + at_once]
            found(search(part, threads), part)
        return round(count / (time.perf_counter() - begun))

    few = kind == "every item"
    answer["alone/s"] = rate(32 if few else 256, 1, 1)
    for threads in (1, 2):
        answer[f"{BATCH} at once/s, {threads} thread{'s' * (threads > 1)}"] = rate(
            BATCH if few else TESTED, BATCH, threads
        )
    return answer


def every(vectors: Floats, queries: Floats) -> tuple[list[tuple[str, Search]], int]:
    """A product with all items and the ten best of each row, twenty queries at once, as `recommend` does."""
    import torch

    from desireline.evaluation.ranking import top_k

    held = torch.from_numpy(vectors)

    def search(asked: Floats, threads: int) -> NDArray[np.int32]:
        torch.set_num_threads(threads)
        vars(numba.config)["NUMBA_NUM_THREADS"] = threads
        parts = [(torch.from_numpy(asked[lo : lo + 20]) @ held.T).numpy() for lo in range(0, len(asked), 20)]
        return np.concatenate([top_k(part, 10)[0] for part in parts])

    return [("all", search)], 0


def ours(vectors: Floats, queries: Floats) -> tuple[list[tuple[str, Search]], int]:
    """The index that `recommend` uses; its build chooses the effort."""
    import faiss

    from desireline.tasks.nearest import build

    made = build(lambda ids: vectors[ids], len(vectors), queries)

    def search(asked: Floats, threads: int) -> NDArray[np.int32]:
        vars(numba.config)["NUMBA_NUM_THREADS"] = threads
        return made.candidates(asked, 40)

    told = f"{made.probes} of {made.index.nlist} lists, {made.least} candidates"
    return [(told, search)], faiss.serialize_index(made.index).nbytes


def usearch(vectors: Floats, queries: Floats) -> tuple[list[tuple[str, Search]], int]:
    """HNSW, 16 links, 64 looked at for each, single precision: half was slower here."""
    from usearch.index import Index

    index = Index(ndim=vectors.shape[1], metric="ip", dtype="f32", connectivity=16, expansion_add=64)
    for lo in range(FIRST, len(vectors), 65_536):
        ids = np.arange(lo, min(lo + 65_536, len(vectors)), dtype=np.uint64)
        index.add(ids, vectors[lo : lo + 65_536], threads=1)

    def at(effort: int, count: int) -> Search:
        def search(asked: Floats, threads: int) -> NDArray[np.int32]:
            index.expansion_search = effort
            return np.atleast_2d(index.search(asked, count, threads=threads).keys).astype(np.int32)

        return search

    return [(f"{e}, {c} candidates", at(e, c)) for e, c in HNSW], int(index.serialized_length)


def faiss_index(kind: str, vectors: Floats, efforts: Any) -> tuple[list[tuple[str, Search]], int]:
    """An index of the factory's name and searches of growing effort."""
    import faiss

    faiss.omp_set_num_threads(1)
    index = faiss.index_factory(vectors.shape[1], kind, faiss.METRIC_INNER_PRODUCT)
    if kind.startswith("HNSW"):
        index.hnsw.efConstruction = 64
    else:
        index.cp.niter = 10
    sample = np.random.default_rng(SEED).choice(len(vectors) - FIRST, min(len(vectors) - FIRST, 131_072), replace=False)
    index.train(vectors[FIRST + sample])
    index.add(vectors[FIRST:])

    def at(asked_for: Any, count: int) -> Search:
        def search(asked: Floats, threads: int) -> NDArray[np.int32]:
            faiss.omp_set_num_threads(threads)
            places = index.search(asked, count, params=asked_for)[1]
            return np.where(places < 0, 0, places + FIRST).astype(np.int32)

        return search

    return [(told, at(asked_for, count)) for told, asked_for, count in efforts], faiss.serialize_index(index).nbytes


def hnsw(vectors: Floats, queries: Floats) -> tuple[list[tuple[str, Search]], int]:
    """HNSW, 16 links, 64 looked at for each, half precision."""
    import faiss

    efforts = [(f"{e}, {c} candidates", faiss.SearchParametersHNSW(efSearch=e), c) for e, c in HNSW]
    return faiss_index("HNSW16_SQfp16", vectors, efforts)


def ivf(vectors: Floats, queries: Floats) -> tuple[list[tuple[str, Search]], int]:
    """Lists around as many centres as ours, vectors in half precision."""
    import faiss

    lists = 2 ** int(np.log2(4 * len(vectors) ** 0.5))
    probes = [lists // share for share in (128, 32, 16, 8, 4, 2)]
    efforts = [
        (f"{n} of {lists} lists, 100 candidates", faiss.SearchParametersIVF(nprobe=max(1, n)), 100) for n in probes
    ]
    return faiss_index(f"IVF{lists},SQfp16", vectors, efforts)


INDICES = {
    "every item": every,
    "desireline": ours,
    "usearch HNSW": usearch,
    "faiss HNSW": hnsw,
    "faiss IVF, half precision": ivf,
}


def told(function: str, *words: str) -> dict[str, Any]:
    """Call one of the functions above in a process of its own; what it returned, and its peak memory."""
    code = (
        f"import sys, json, pathlib; from benchmarks.nearest import {function}; "
        f"print(json.dumps({function}(pathlib.Path(sys.argv[1]), *sys.argv[2:])))"
    )
    done = measured([sys.executable, "-c", code, *words])
    return json.loads(done["stdout"].strip().splitlines()[-1]) | {"peak MiB": done["peak_mib"]}


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="20,000 items, nothing recorded")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    items, rows, notes = FEW if options.quick else ITEMS, [], []
    for (kind, d), indices in ROWS.items():
        folder = Path(tempfile.mkdtemp(prefix="nearest-"))
        try:
            made = told("table", str(folder), kind, str(items), str(d))
            cosines = ", ".join(f"{value} to the {name.split()[-1]}th" for name, value in made.items() if "cos" in name)
            notes.append(f"{kind}, d {d}: mean cosine of a query {cosines} nearest item.".replace("1th", "1st"))
            for index in indices:
                rows.append({"table": kind, "d": d, "items": items, "index": index, **told("row", str(folder), index)})
                sys.stderr.write(f"{rows[-1]}\n")
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    show(rows, options.json)
    if not options.quick:
        notes += [
            "`effort`: what is read for a query; the first of a ladder that finds 96 % of the exact ten of 256 others, "
            "or the last. `recall@10`: of 1,024 queries. Rates: queries a second, candidates scored again exactly.",
            "`index MiB`: its size on disk. `peak MiB`: of the process; the vectors themselves are in it.",
            "Builds by one thread (desireline: one for four cores), on a machine busy with other work (load at the end "
            f"{os.getloadavg()[0]:.1f} on {os.cpu_count()} cores): of builds CPU seconds tell more than seconds.",
        ]
        found = {"title": "The nearest of a million items", "command": "python -m benchmarks.nearest", "seed": SEED}
        record("nearest", found | {"rows": rows, "notes": notes})


if __name__ == "__main__":
    main()
