"""What an item gains from its neighbours in the co-visit graph, as an event's item and as a candidate."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from desireline.encoders.embedding import EventEmbedding, Inputs
from desireline.encoders.neighbours import SHARE

ITEMS, D, NEIGHBOURS = 30, 4, 3
SOME = [2, 3, 3, 14, 0, 29]


def made(*, sparse: bool = False) -> tuple[EventEmbedding, torch.Tensor]:
    """An embedding that reads neighbours, and its graph [ITEMS, ITEMS]; items 0 and 1, and every seventh, have none."""
    rng = np.random.default_rng(0)
    ids = rng.integers(2, ITEMS, (ITEMS, NEIGHBOURS)).astype(np.int32)
    share = rng.random((ITEMS, NEIGHBOURS)).astype(np.float32)
    none = (np.arange(ITEMS) < 2) | (np.arange(ITEMS) % 7 == 0)
    ids[none], share[none] = 0, 0
    torch.manual_seed(0)
    embedding = EventEmbedding(Inputs(ITEMS, 3), D, 0.0, NEIGHBOURS)
    embedding.items.sparse = sparse
    embedding.neighbours.start(ids, share)
    torch.nn.init.normal_(embedding.neighbours.of_candidates.weight)
    graph = np.zeros((ITEMS, ITEMS), np.float32)
    np.add.at(graph, (np.arange(ITEMS)[:, None], ids), share)
    return embedding, torch.from_numpy(graph)


@pytest.mark.parametrize(("ids", "sparse"), [(None, False), (SOME, False), (SOME, True)])
def test_values_and_gradients_are_those_of_the_dense_graph(ids: list[int] | None, sparse: bool):
    embedding, graph = made(sparse=sparse)
    table, project = embedding.items.weight, embedding.neighbours.of_candidates.weight
    asked = None if ids is None else torch.tensor(ids)
    found = embedding.item_vectors(asked)
    own, mean = (t if ids is None else t[asked] for t in (table, graph @ table))
    expected = own + mean @ project.T
    torch.testing.assert_close(found, expected)
    towards = torch.randn_like(found)
    wanted = torch.autograd.grad(expected, [table, project], towards)
    given = torch.autograd.grad(found, [table, project], towards)
    dense = given[0].to_dense() if sparse else given[0]
    torch.testing.assert_close(dense[1:], wanted[0][1:])  # row 0 is padding
    torch.testing.assert_close(given[1], wanted[1])


def test_an_events_item_has_a_projection_of_its_own():
    embedding, graph = made()
    table = embedding.items.weight
    expected = table[4:6] + (graph @ table)[4:6] @ embedding.neighbours.of_events.weight.T
    torch.testing.assert_close(embedding.items_at(torch.tensor([[4, 5]]))[0], expected)
    assert not torch.allclose(expected, embedding.item_vectors()[4:6])


def test_an_item_begins_with_a_share_of_its_neighbours():
    embedding = EventEmbedding(Inputs(4, 3), D, 0.0, neighbours=1)
    embedding.neighbours.start(np.array([[0], [0], [3], [0]], np.int32), np.array([[0], [0], [1], [0]], np.float32))
    table = embedding.items.weight
    torch.testing.assert_close(
        embedding.item_vectors(), torch.stack([*table[:2], table[2] + SHARE * table[3], table[3]])
    )
