"""The items nearest to a hidden state, by an index instead of a look at every item: for large catalogues.

Unit vectors in lists around centres, each vector a few bytes of product codes that are compared many at a time (IVF-PQ
with fast scan, of Faiss: Jégou, Douze & Schmid 2011; André, Kermarrec & Le Scouarnec 2017): d / 4 + 8 bytes an item,
and a build of half a minute of one core for a million. The codes only name candidates, scored again in float32, so that
the order among them is exact and an item can only be missed. How many lists must be read for that depends on
the vectors, so it is found out: the first of `EFFORTS` that finds `ENOUGH` of the exact ten of the model's own users.

Each query is searched by itself, by one thread: so a user's list is the same alone and among all, and no thread waits
for another (Faiss's own threads do, which on a busy machine takes up to fifty times the processor time).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from desireline.core.errors import ModelError
from desireline.core.files import new_folder, read_json, write_json
from desireline.evaluation.blocks import over_blocks
from desireline.evaluation.ranking import top_k
from desireline.sequences.vocabulary import FIRST

Floats: TypeAlias = NDArray[np.float32]
Vectors: TypeAlias = Callable[[NDArray[np.int64]], Floats]  # unit vectors [n, d] of items int64 [n]

# one list in so many is read for a query, and so many candidates are taken
EFFORTS = ((128, 200), (32, 200), (16, 400), (8, 400), (4, 800), (2, 800))
ENOUGH, SHOWN = 0.96, 10  # of the exact ten: a little more than is promised, for users who were not asked
PROMISED = 0.95
SMALLEST = 1_000  # items below which there is nothing to learn codes from
POINTS, STEPS = 64, 10  # vectors a list to learn the centres from, and steps of k-means
PIECE = 65_536  # items whose vectors stand in memory at once
SEED = 0


@dataclass(frozen=True)
class Nearest:
    """An index of a network's items; to be used where `recall` is at least PROMISED.

    recall : share of the exact first ten that it found, of the users asked when it was built
    probes, least : lists read for a query, and candidates taken from them at least
    """

    index: Any
    recall: float
    probes: int
    least: int

    def candidates(self, unit: Floats, count: int) -> NDArray[np.int32]:
        """Ids int32 [Q, max(count, least)] near to unit hidden states [Q, d], in no order; 0 where there are fewer."""
        return _found(self.index, unit, self.probes, max(count, self.least))


def is_installed() -> bool:
    """Whether the extra `ann` is there."""
    return find_spec("faiss") is not None


def build(vectors: Vectors, items: int, unit: Floats) -> Nearest:
    """The index of items FIRST … items − 1, its effort chosen by the unit hidden states [Q, d] of some users."""
    import faiss

    count, d = items - FIRST, unit.shape[1]
    lists = 2 ** max(2, int(np.log2(4 * count**0.5)))
    codes = d // 2 if d % 2 == 0 else d
    index = faiss.index_factory(d, f"IVF{lists},PQ{codes}x4fs", faiss.METRIC_INNER_PRODUCT)
    index.cp.niter, index.cp.seed, index.cp.min_points_per_centroid = STEPS, SEED, 1
    sample = np.random.default_rng(SEED).choice(count, min(count, POINTS * lists), replace=False) + FIRST
    with _threads(max(1, (os.cpu_count() or 1) // 4)):  # more wait for each other, on a busy machine very long
        index.train(vectors(np.sort(sample)))
        for lo in range(FIRST, items, PIECE):
            index.add(vectors(np.arange(lo, min(lo + PIECE, items))))
    wanted = exact(vectors, items, unit, SHOWN)
    probes, least, recall = lists, EFFORTS[-1][1], 0.0
    for share, least in EFFORTS:
        probes = max(1, lists // share)
        ids, _ = rescored(vectors, _found(index, unit, probes, least), unit)
        recall = float(np.mean([np.isin(w, i).mean() for w, i in zip(wanted, ids[:, :SHOWN], strict=True)]))
        if recall >= ENOUGH:
            break
    return Nearest(index, recall, probes, least)


def opened(folder: Path, make: Callable[[], Nearest]) -> Nearest:
    """The index that is kept in `folder`; made and kept there when it is missing.

    Raises ModelError for a damaged file, StoreError when it cannot be written.
    """
    import faiss

    if not (folder / "nearest.json").exists():
        made = make()
        with new_folder(folder) as temporary:
            (temporary / "items.faiss").write_bytes(faiss.serialize_index(made.index).tobytes())
            told = {"recall": made.recall, "probes": made.probes, "least": made.least}
            write_json(temporary / "nearest.json", told)
        return made
    try:
        index = faiss.read_index(str(folder / "items.faiss"))
    except RuntimeError as error:
        raise ModelError(f"The index {folder} is damaged: delete the folder, and it is made again.") from error
    return Nearest(index, **read_json(folder / "nearest.json"))


def rescored(vectors: Vectors, found: NDArray[np.int32], unit: Floats) -> tuple[NDArray[np.int32], Floats]:
    """Candidates [Q, C] by their cosine with unit hidden states [Q, d], best first, equal ones by id; 0 and −∞ last."""
    scores = np.empty(found.shape, np.float32)
    for row, ids in enumerate(found):
        scores[row] = np.einsum("cd,d->c", vectors(ids.astype(np.int64)), unit[row])  # alike alone and among many
    scores[found < FIRST] = -np.inf
    order = np.lexsort((found, -scores), axis=1)
    return np.take_along_axis(found, order, 1), np.take_along_axis(scores, order, 1)


def exact(vectors: Vectors, items: int, unit: Floats, k: int) -> NDArray[np.int32]:
    """The k nearest items int32 [Q, k] of unit hidden states [Q, d], every item looked at."""
    ids, scores = np.zeros((len(unit), 0), np.int32), np.zeros((len(unit), 0), np.float32)
    for lo in range(FIRST, items, PIECE):
        part = np.full((len(unit), FIRST + min(PIECE, items - lo)), -np.inf, np.float32)
        part[:, FIRST:] = unit @ vectors(np.arange(lo, min(lo + PIECE, items))).T
        best, values = top_k(part, min(k, items - lo))
        ids, scores = np.hstack([ids, best + (lo - FIRST)]), np.hstack([scores, values])
        order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        ids, scores = np.take_along_axis(ids, order, 1), np.take_along_axis(scores, order, 1)
    return ids.astype(np.int32)


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Faiss uses so many threads in the block, where this thread calls it."""
    import faiss

    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(count)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


def _found(index: Any, unit: Floats, probes: int, count: int) -> NDArray[np.int32]:
    import faiss

    out = np.zeros((len(unit), count), np.int32)
    asked = faiss.SearchParametersIVF(nprobe=probes)

    def run(lo: int, hi: int) -> None:
        with _threads(1):
            for row in range(lo, hi):
                place = index.search(unit[row : row + 1], count, params=asked)[1][0]
                out[row] = np.where(place < 0, 0, place + FIRST)

    over_blocks(len(unit), run)
    return out
