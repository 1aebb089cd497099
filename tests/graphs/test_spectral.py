"""Spectral item vectors: neighbours in histories stand near each other, and what is not known is said."""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_array

from desireline.evaluation.queries import Histories
from desireline.graphs.spectral import _largest, spectral_vectors

GROUPS, SIZE = 4, 12


def walks(seed: int = 0) -> Histories:
    """Histories that stay within one of four groups of items; items 0 and 1 are padding and unknown."""
    rng = np.random.default_rng(seed)
    group = rng.integers(GROUPS, size=300)
    item = (2 + group[:, None] * SIZE + rng.integers(SIZE, size=(300, 8))).astype(np.int32)
    offsets = np.arange(0, 8 * 301, 8)
    return Histories(offsets, item.ravel(), np.zeros(2_400, np.int64), np.zeros(300, np.int64))


def test_items_of_one_group_stand_nearer_than_those_of_two():
    vectors = spectral_vectors(walks(), 2 + GROUPS * SIZE, 8, 0)[2:]
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    near = (unit @ unit.T).reshape(GROUPS, SIZE, GROUPS, SIZE).mean(axis=(1, 3))
    assert np.diag(near).min() > near[~np.eye(GROUPS, dtype=bool)].max() + 0.3
    assert abs(vectors.std() - 1) < 1e-3


def test_items_without_a_neighbour_have_no_vector_and_a_small_catalogue_has_none():
    vectors = spectral_vectors(walks(), 2 + GROUPS * SIZE + 1, 8, 0)
    assert np.isnan(vectors[[0, 1, -1]]).all()
    assert np.isfinite(vectors[2:-1]).all()
    assert np.isnan(spectral_vectors(walks(), 2 + GROUPS * SIZE, 64, 0)).all()


def test_the_largest_eigenvalues_are_those_of_a_dense_solver():
    rng = np.random.default_rng(0)
    links = (rng.random((300, 300)) < 0.03).astype(float)
    links = np.triu(links, 1) + np.triu(links, 1).T
    root = 1 / np.sqrt(links.sum(1))
    graph = csr_array(root[:, None] * links * root).astype(np.float32)
    values, vectors = _largest(graph, rng.standard_normal((300, 40), np.float32))
    expected = np.linalg.eigvalsh(graph.toarray().astype(float))[-24:]
    np.testing.assert_allclose(values[-24:], expected, atol=5e-3)
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(40), atol=1e-4)


def test_a_seed_repeats_the_vectors():
    first, again = (spectral_vectors(walks(), 2 + GROUPS * SIZE, 8, 3) for _ in range(2))
    np.testing.assert_array_equal(first, again)
