"""Lists of items for questions, the same for a user alone and among all.

Every item is looked at; where the catalogue is large and a network alone answers, an index of its items names
candidates, many more than a list needs, which are scored exactly, and filters, stock and the user's own items are taken
out. Who is then left with less than `SEVERAL` for each place, so that a better one may have been missed, and who has no
history that a network can read, is answered from all items.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from desireline.core.errors import DataError
from desireline.selection.fitted import Fitted
from desireline.selection.indexed import unit_vectors
from desireline.selection.strangers import item_predictions
from desireline.tasks.answers import Wishes, barred, item_lists, left_of, pool, unlike
from desireline.tasks.nearest import Floats, Nearest, rescored
from desireline.tasks.questions import Questions, item_histories, without_known_item
from desireline.training.device import fetched
from desireline.training.network import Network

Lists: TypeAlias = Iterator[tuple[int, int, NDArray[np.int32], Floats]]

SEVERAL = 4  # candidates for each place of what a list is chosen from, when filters are done; twice as many before
MOST = 50  # one item in so many may be a candidate: beyond it a look at all of them is as fast
AT_ONCE = 2_048  # questions


def lists(fitted: Fitted, questions: Questions, wishes: Wishes) -> Lists:
    """Questions [lo, hi) with their lists: ids int32 [hi − lo, k], 0 where nothing is left, and scores."""
    out, vectors = barred(wishes, fitted.prepared), item_vectors(fitted, wishes)
    index, network = fitted.nearest, fitted.predictor
    allowed = len(out) - int(out.sum())
    wanted = SEVERAL * pool(wishes)
    candidates = math.ceil(2 * wanted * len(out) / max(1, allowed))
    if index is None or not isinstance(network, Network) or candidates > len(out) // MOST:
        yield from _from_all(fitted, questions, wishes, out, vectors)
        return
    ids = np.zeros((len(questions), wishes.k), np.int32)
    scores = np.full(ids.shape, -np.inf, np.float32)
    full = np.zeros(len(questions), bool)
    known = np.flatnonzero(~without_known_item(questions))
    for lo in range(0, len(known), AT_ONCE):
        rows = known[lo : lo + AT_ONCE]
        part = some(questions, rows)
        best, values, left = left_of(*_near(network, index, part, candidates), item_histories(part), wishes, out)
        full[rows] = left >= wanted
        ids[rows], scores[rows] = unlike(best, values, wishes, vectors)
    rest = np.flatnonzero(~full)
    for lo, hi, found, values in _from_all(fitted, some(questions, rest), wishes, out, vectors):
        ids[rest[lo:hi]], scores[rest[lo:hi]] = found, values
    yield 0, len(questions), ids, scores


def some(questions: Questions, rows: NDArray[np.int64]) -> Questions:
    """Some of the questions."""
    return Questions(questions.timeline, questions.user[rows], questions.place[rows], questions.as_of[rows])


def _from_all(
    fitted: Fitted, questions: Questions, wishes: Wishes, out: NDArray[np.bool_], vectors: Floats | None
) -> Lists:
    for lo, hi, predicted in item_predictions(fitted, questions) if len(questions) else ():
        yield lo, hi, *item_lists(predicted, item_histories(questions, lo, hi), wishes, out, vectors)


@torch.inference_mode()
def _near(network: Network, index: Nearest, questions: Questions, count: int) -> tuple[NDArray[np.int32], Floats]:
    unit = fetched(F.normalize(network.encode(questions.timeline, questions.place), dim=-1))
    return rescored(unit_vectors(network), index.candidates(unit, count), unit)


def item_vectors(fitted: Fitted, wishes: Wishes) -> Floats | None:
    """Item vectors for diversity: a network's own table, else how users' histories overlap, as a truncated SVD."""
    if wishes.diversity == 0:
        return None
    if isinstance(fitted.predictor, Network):
        return np.asarray(fetched(fitted.predictor.embedding.item_vectors()), np.float32)
    from scipy.sparse import csr_array
    from scipy.sparse.linalg import svds

    before = fitted.prepared.before
    item, rows = np.asarray(before["item"]), before.rows()
    shape = (len(fitted.prepared.vocabularies["item"]), len(before))
    had = csr_array((np.ones(int((item > 1).sum()), np.float32), (item[item > 1], rows[item > 1])), shape=shape)
    rank = min(64, min(shape) - 1)
    if rank < 1:
        raise DataError("A log of one user or one item has no similarities: set diversity to 0.")
    left, strength, _ = svds(had, k=rank, random_state=0)
    return np.asarray(left * strength, np.float32)
