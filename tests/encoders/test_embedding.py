"""What an event's item gains from its neighbours in the co-visit graph."""

from __future__ import annotations

import numpy as np
import torch

from desireline.encoders.embedding import EventEmbedding, Inputs

ITEMS, D = 5, 4
NEAR = np.array([[0, 0], [0, 0], [3, 4], [2, 0], [0, 0]], np.int32)
SHARE = np.array([[0, 0], [0, 0], [0.75, 0.25], [1, 0], [0, 0]], np.float32)


def test_an_item_gains_the_projected_mean_of_its_neighbours():
    torch.manual_seed(0)
    embedding = EventEmbedding(Inputs(ITEMS, 3), D, 0.0, neighbours=2)
    embedding.start_neighbours(NEAR, SHARE)
    table, project = embedding.items.weight, embedding.around_item.weight
    found = embedding.items_at(torch.tensor([[2, 3, 4]]))
    expected = torch.stack([table[2] + project @ (0.75 * table[3] + 0.25 * table[4]), table[3] + project @ table[2]])
    torch.testing.assert_close(found[0, :2], expected)
    torch.testing.assert_close(found[0, 2], table[4])  # without a neighbour: itself alone
    found[0, 0].sum().backward()
    assert (table.grad.abs().sum(1) > 0).tolist() == [False, False, True, True, True]


def test_the_item_head_ranks_the_items_alone():
    embedding = EventEmbedding(Inputs(ITEMS, 3), D, 0.0, neighbours=2)
    embedding.start_neighbours(NEAR, SHARE)
    torch.testing.assert_close(embedding.item_vectors(), embedding.items.weight)
