"""The nearest items of the co-visit graph are those of a plain loop over pairs of events."""

from __future__ import annotations

import math

import numpy as np

from desireline.evaluation.queries import Histories
from desireline.graphs.covisits import DECAY, REACH, neighbours

ITEMS = 9  # 0 and 1 are padding and unknown; 8 is in no history


def histories_of(lists: list[list[int]]) -> Histories:
    item = np.array([i for history in lists for i in history], np.int32)
    offsets = np.cumsum([0, *map(len, lists)])
    return Histories(offsets, item, np.zeros(len(item), np.int64), np.zeros(len(lists), np.int64))


def by_loop(lists: list[list[int]], most: int) -> tuple[np.ndarray, np.ndarray]:
    weight = np.zeros((ITEMS, ITEMS))
    for history in lists:
        for place, item in enumerate(history):
            for distance, other in enumerate(history[place + 1 : place + 1 + REACH], 1):
                if item != other:
                    weight[item, other] += 2 * math.exp(-(distance - 1) / DECAY)  # of both directions
                    weight[other, item] += 2 * math.exp(-(distance - 1) / DECAY)
    root = 1 / np.sqrt(np.maximum(weight.sum(1), 1e-12))
    strength = root[:, None] * weight * root
    ids, shares = np.zeros((ITEMS, most), np.int32), np.zeros((ITEMS, most))
    for item in range(ITEMS):
        order = [i for i in sorted(range(ITEMS), key=lambda i: (-strength[item, i], i)) if strength[item, i] > 0][:most]
        ids[item, : len(order)] = order
        shares[item, : len(order)] = strength[item, order] / strength[item, order].sum()
    return ids, shares


def test_neighbours_are_those_of_a_plain_loop():
    rng = np.random.default_rng(0)
    lists = [rng.integers(2, ITEMS - 1, rng.integers(1, 20)).tolist() for _ in range(30)]
    for most in (1, 3, 20):
        ids, shares = neighbours(histories_of(lists), ITEMS, most)
        expected = by_loop(lists, most)
        np.testing.assert_array_equal(ids, expected[0])
        np.testing.assert_allclose(shares, expected[1], rtol=1e-5, atol=1e-7)


def test_an_item_without_a_neighbour_has_none():
    ids, shares = neighbours(histories_of([[2, 3], [4]]), ITEMS, 2)
    assert ids[2].tolist() == [3, 0]
    assert shares[2].tolist() == [1, 0]
    assert not ids[[0, 1, 4, 8]].any()
    assert not shares[[0, 1, 4, 8]].any()
