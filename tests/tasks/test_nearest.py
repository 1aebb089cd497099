"""The index of items by itself: what it finds, how it chooses its effort, and that nobody's list depends on others'."""

from __future__ import annotations

import numpy as np
import pytest

from desireline.tasks.nearest import PROMISED, build, exact, opened, rescored


def unit(vectors):
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def clustered():
    """Vectors [2 + 8,000, 24] about 80 centres, two of them alike, and 300 queries near to some of them."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((80, 24))
    vectors = unit(centres[rng.integers(0, 80, 8_002)] + 0.7 * rng.standard_normal((8_002, 24)))
    vectors[4_000] = vectors[5_000]
    queries = unit(vectors[rng.integers(2, 8_002, 300)] + 0.1 * rng.standard_normal((300, 24)))
    return vectors, queries


def test_exact_is_what_sorting_all_cosines_gives(clustered):
    vectors, queries = clustered
    cosines = queries @ vectors[2:].T
    np.testing.assert_array_equal(
        exact(lambda ids: vectors[ids], len(vectors), queries, 10), np.argsort(-cosines, axis=1)[:, :10] + 2
    )


def test_candidates_are_scored_exactly_and_ties_go_by_id(clustered):
    vectors, queries = clustered
    found = np.array([[5_000, 0, 4_000, 77, 2, 0]], np.int32)
    ids, scores = rescored(lambda wanted: vectors[wanted], found, queries[:1])
    cosine = vectors[ids[0, :4]] @ queries[0]
    assert (np.diff(cosine) <= 0).all()
    np.testing.assert_allclose(scores[0, :4], cosine, atol=1e-6)
    assert ids[0].tolist().index(4_000) == ids[0].tolist().index(5_000) - 1
    assert ids[0, 4:].tolist() == [0, 0]
    assert np.isneginf(scores[0, 4:]).all()


def test_it_finds_what_it_says_and_nobodys_candidates_depend_on_who_else_asks(clustered):
    vectors, queries = clustered
    made = build(lambda ids: vectors[ids], len(vectors), queries[:100])
    assert made.recall >= PROMISED
    among = made.candidates(queries, 40)
    ids, _ = rescored(lambda wanted: vectors[wanted], among, queries)
    wanted = exact(lambda ids: vectors[ids], len(vectors), queries[100:], 10)
    assert np.mean([np.isin(w, i).mean() for w, i in zip(wanted, ids[100:, :10], strict=True)]) >= PROMISED
    alone = np.concatenate([made.candidates(query[None], 40) for query in queries])
    np.testing.assert_array_equal(alone, among)


def test_unstructured_vectors_are_read_more_of_than_clustered_ones(clustered):
    vectors, queries = clustered
    rng = np.random.default_rng(1)
    noise, asked = unit(rng.standard_normal((8_002, 24))), unit(rng.standard_normal((100, 24)))
    easy = build(lambda ids: vectors[ids], len(vectors), queries[:100])
    hard = build(lambda ids: noise[ids], len(noise), asked)
    assert hard.probes > easy.probes
    assert hard.recall >= PROMISED


def full_disk(*_):
    raise OSError(28, "No space left on device")


def test_a_build_that_breaks_off_leaves_nothing(tmp_path, monkeypatch, clustered):
    vectors, queries = clustered

    def make():
        return build(lambda ids: vectors[ids], len(vectors), queries[:50])

    with monkeypatch.context() as patched:
        patched.setattr("pathlib.Path.write_bytes", full_disk)
        with pytest.raises(OSError, match="No space is left"):
            opened(tmp_path / "model" / "nearest", make)
    assert list((tmp_path / "model").iterdir()) == []
    made = opened(tmp_path / "model" / "nearest", make)
    again = opened(tmp_path / "model" / "nearest", lambda: pytest.fail("made twice"))
    np.testing.assert_array_equal(again.candidates(queries, 40), made.candidates(queries, 40))
