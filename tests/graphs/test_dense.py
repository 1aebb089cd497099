"""Dense blocks: exact against a slow peeling, blind to camouflage, and what chance and habit make of them."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import gumbel_r

from desireline.core.errors import DataError
from desireline.graphs.dense import STEPS, dense_blocks
from desireline.graphs.excess import Graph, Habits, Tail, pieces, sharpen, surprise


def slow(rows, columns, weights, resolution=0.0, row_prior=None, column_prior=None):
    """One peeling that computes every marginal anew at each step, from the definition of a set's credit."""
    R, C = rows.max() + 1, columns.max() + 1
    dense = np.zeros((R, C))
    np.add.at(dense, (rows, columns), weights / np.log(np.bincount(columns) + 5)[columns])
    priors = [np.zeros(R) if row_prior is None else row_prior, np.zeros(C) if column_prior is None else column_prior]
    totals = [dense.sum(axis=1), dense.sum(axis=0)]
    charges = [np.exp2(np.round(STEPS * np.log2(np.maximum(t, 1e-300))) / STEPS) * (t > 0) for t in totals]

    def credit(sets):
        pressure = sum(charges[side][sets[side]].sum() ** 2 for side in (0, 1)) / 2
        own = sum(priors[side][sets[side]].sum() for side in (0, 1))
        return dense[np.ix_(sets[0], sets[1])].sum() + own - resolution / dense.sum() * pressure

    sets = [list(range(R)), list(range(C))]
    best = (credit(sets) / (R + C), [list(s) for s in sets])
    while len(sets[0]) + len(sets[1]) > 1:
        without = []
        for side in (0, 1):
            for node in sets[side]:
                left = [[n for n in s if not (k == side and n == node)] for k, s in enumerate(sets)]
                without.append((-credit(left), side, node))
        _, side, node = min(without)
        sets[side].remove(node)
        density = credit(sets) / (len(sets[0]) + len(sets[1]))
        if density > best[0] + 1e-12:
            best = (density, [list(s) for s in sets])
    return best


def crowd(rng, R=400, C=300, edges=4_000):
    """A heavy-tailed graph of distinct pairs."""
    row = rng.choice(R, edges, p=(s := 1 / (5 + np.arange(R))) / s.sum())
    column = rng.choice(C, edges, p=(s := 1 / (5 + np.arange(C))) / s.sum())
    pair = np.unique(row * C + column)
    return pair // C, pair % C


@pytest.mark.parametrize("resolution", [0.0, 1.0, 3.0])
def test_peeling_is_the_slow_one(resolution):
    for seed in range(6):
        rng = np.random.default_rng(seed)
        rows, columns = np.nonzero(rng.random((14, 11)) < 0.3)
        weights, priors = rng.uniform(0.2, 2, len(rows)), (rng.uniform(0, 0.3, 14), rng.uniform(0, 0.3, 11))
        R, C = rows.max() + 1, columns.max() + 1
        priors = (priors[0][:R], priors[1][:C]) if seed % 2 else (None, None)
        density, (expected_rows, expected_columns) = slow(rows, columns, weights, resolution, *priors)
        found = dense_blocks(
            rows, columns, weights, 1, resolution=resolution, row_prior=priors[0], column_prior=priors[1], least=-99
        )
        if expected_rows and expected_columns:
            assert found[0].rows.tolist() == expected_rows
            assert found[0].columns.tolist() == expected_columns
            assert found[0].density == pytest.approx(density)


def test_camouflage_hides_no_block_and_a_second_is_found_after_the_first():
    rng = np.random.default_rng(0)
    rows, columns = crowd(rng)
    ring = [(400 + np.arange(30), 300 + np.arange(30)), (430 + np.arange(20), 330 + np.arange(20))]
    for members, targets in ring:
        camouflage = rng.integers(0, 100, len(members) * 8)  # on the more popular
        rows = np.concatenate([rows, np.repeat(members, len(targets)), np.repeat(members, 8)])
        columns = np.concatenate([columns, np.tile(targets, len(members)), camouflage])
    found = dense_blocks(rows, columns, np.ones(len(rows)), 2)
    for (members, targets), block in zip(ring, found, strict=True):
        assert np.isin(members, block.rows).all()
        assert block.columns[block.columns >= 300].tolist() == targets.tolist()
        assert len(block.rows) <= len(members) + 3
    assert found[0].density > found[1].density


def test_a_small_block_beside_a_busy_heart_needs_the_resolution():
    rng = np.random.default_rng(1)
    rows, columns = crowd(rng, edges=12_000)
    members = 400 + np.arange(12)
    rows = np.concatenate([rows, np.repeat(members, 4)])
    columns = np.concatenate([columns, np.tile(296 + np.arange(4), 12)])
    plain = dense_blocks(rows, columns, np.ones(len(rows)))[0]
    credited = dense_blocks(rows, columns, np.ones(len(rows)), resolution=4.0)[0]
    assert len(plain.rows) > 50
    graph = Graph.of(rows, columns, 412, 300)
    found, targets, score = sharpen(graph, credited.rows, credited.columns)
    assert found.tolist() == members.tolist()
    assert targets.tolist() == [296, 297, 298, 299]
    assert score > 20 > surprise(graph, plain.rows, plain.columns)


def test_a_shuffle_keeps_degrees_and_strata_and_nothing_in_it_surprises():
    rows, columns = crowd(np.random.default_rng(2))
    graph = Graph.of(rows, columns, 400, 300)
    dealt = graph.shuffled(3)
    assert len(dealt) > 0.995 * len(graph)
    assert np.abs(dealt.column_degree - graph.column_degree).max() <= 0.02 * graph.column_degree.max()
    assert not np.array_equal(dealt.columns, graph.columns)
    assert np.array_equal(graph.shuffled(3).columns, dealt.columns)
    block = dense_blocks(dealt.rows, dealt.columns, np.ones(len(dealt)), resolution=2.0)[0]
    assert sharpen(dealt, block.rows, block.columns)[2] < 0
    odd = Graph.of(np.arange(200) % 20, np.arange(200) % 10 * 2 + np.arange(200) // 100, 20, 20)
    stratum = odd.columns % 2
    kept = odd.shuffled(0, stratum)
    assert np.bincount(kept.rows[kept.columns % 2 == 1], minlength=20).max() <= odd.row_degree.max()


def test_surprise_bounds_the_chance_of_a_block():
    """In random graphs of one density no block may beat its own choice more often than the bound says."""
    rng, beaten = np.random.default_rng(4), 0
    for _ in range(60):
        rows, columns = np.nonzero(rng.random((60, 40)) < 0.1)
        graph = Graph.of(rows, columns, 60, 40)
        best = [
            sharpen(graph, b.rows, b.columns)[2]
            for b in dense_blocks(rows, columns, np.ones(len(rows)), 3, resolution=2)
        ]
        beaten += max(best, default=-1.0) > np.log(20)
    assert beaten <= 60 / 20


def test_two_rings_in_one_block_are_two():
    rows, columns = np.repeat(np.arange(20), 3), np.concatenate([np.tile([0, 1, 2], 10), np.tile([3, 4, 5], 10)])
    graph = Graph.of(rows, columns, 20, 6)
    found = pieces(graph, np.arange(20), np.arange(6))
    assert [(r.tolist(), c.tolist()) for r, c in found] == [
        (list(range(10)), [0, 1, 2]),
        (list(range(10, 20)), [3, 4, 5]),
    ]


def test_what_the_past_shows_to_go_together_is_no_surprise():
    rng = np.random.default_rng(5)
    rows, columns = crowd(rng)
    members, family = np.arange(370, 390), np.arange(280, 284)
    graph = Graph.of(
        np.concatenate([rows, np.repeat(members, 4)]), np.concatenate([columns, np.tile(family, 20)]), 400, 300
    )
    unknown = Habits(*(np.empty(0, np.int64) for _ in range(3)), 300)
    unit = np.repeat(np.arange(500), 8)
    column = rng.integers(0, 280, 4_000)
    column[unit < 60] = np.tile(np.concatenate([family, family]), 60)  # sixty others bought the family whole
    once = np.unique(unit * 300 + column)
    habits = Habits(once // 300, once % 300, 1_000 + once // 300, 300)
    assert unknown.surprise(graph, members, family)[0] > 20
    assert habits.surprise(graph, members, family)[0] < 0
    theirs = Habits(once // 300, once % 300, members[once // 300 % 20], 300)  # their own past excuses nobody
    assert theirs.surprise(graph, members, family)[0] > 20


def test_the_tail_is_a_gumbel_law_beyond_what_was_counted():
    best = gumbel_r.rvs(3.0, 2.0, size=4_000, random_state=0)
    tail = Tail(best)
    assert tail.log_p(30.0) == pytest.approx(gumbel_r.logsf(30.0, 3.0, 2.0), rel=0.1)
    assert tail.empirical(30.0) == 1 / 4_001
    assert tail.empirical(3.0) == pytest.approx(np.exp(tail.log_p(3.0)), abs=0.02)
    assert Tail(np.zeros(20)).log_p(50.0) == pytest.approx(-50, abs=1)


def test_nothing_and_nonsense():
    none = np.empty(0, np.int64)
    assert dense_blocks(none, none, np.empty(0)) == []
    same = np.zeros(1_000, np.int64)
    assert len(dense_blocks(same, same, np.ones(1_000), 5)) == 1
    with pytest.raises(DataError, match="finite number above 0"):
        dense_blocks(np.array([0]), np.array([0]), np.array([0.0]))
    with pytest.raises(DataError, match="row, a column and a weight"):
        dense_blocks(np.array([0]), np.array([0, 1]), np.ones(2))
    with pytest.raises(DataError, match="negative"):
        dense_blocks(np.array([-1]), np.array([0]), np.ones(1))
    with pytest.raises(DataError, match="priors"):
        dense_blocks(np.array([0]), np.array([0]), np.ones(1), row_prior=np.array([-1.0]))
