"""What several models propose, and the weights of their mixture."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from desireline.evaluation.queries import Histories, Targets
from desireline.evaluation.ranking import ranking_metrics
from desireline.tasks.judges import Blend
from desireline.tasks.sources import FLOOR, Candidates, forward_weights, gains, log_shares, propose

ITEMS = 30


def nothing(questions: int) -> Histories:
    none = np.zeros(questions + 1, np.int64)
    return Histories(none, np.empty(0, np.int32), np.empty(0, np.int64), none[1:])


def one_target(item: np.ndarray) -> Targets:
    return Targets(np.arange(len(item) + 1), item.astype(np.int32))


def test_cosines_become_log_probabilities_and_counts_log_shares():
    rng = np.random.default_rng(0)
    cosines = rng.uniform(-1, 1, (4, ITEMS)).astype(np.float32)
    logs = log_shares(cosines.copy(), 0.1)
    np.testing.assert_allclose(np.exp(logs[:, 2:]).sum(1), 1, rtol=1e-5)
    np.testing.assert_allclose(np.diff(logs[:, 2:]), np.diff(cosines[:, 2:]) / 0.1, atol=1e-4)
    counts = np.array([[9, 9, 3, 0, 1, -5]], np.float32)
    np.testing.assert_allclose(np.exp(log_shares(counts, None))[0, 2:], np.array([0.75, 0, 0.25, 0]) + FLOOR, rtol=1e-5)


def test_a_source_without_an_opinion_has_none():
    assert len(np.unique(log_shares(np.zeros((2, 9), np.float32), None)[:, 2:])) == 1


@given(seed=st.integers(0, 999), only_new=st.booleans())
def test_each_source_proposes_its_best_once(seed, only_new):
    rng = np.random.default_rng(seed)
    thought = [rng.normal(size=(5, ITEMS)).astype(np.float32) for _ in range(3)]
    lengths = rng.integers(0, 6, 5)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    item = rng.integers(2, ITEMS, offsets[-1]).astype(np.int32)
    asked = Histories(offsets, item, np.zeros(len(item), np.int64), np.zeros(5, np.int64))
    found = propose(thought, asked, only_new, each=4, told=True)
    for q in range(5):
        ids = found.ids[q][found.ids[q] > 0]
        had = set(item[offsets[q] : offsets[q + 1]])
        expected = set()
        for scores in thought:
            order = [i for i in np.argsort(-scores[q]) if i >= 2]
            expected |= set([i for i in order if i not in had][:4])
            expected |= set() if only_new else set(order[:4])
        assert set(ids) == expected
        assert (np.diff(ids) < 0).all()
        for s, scores in enumerate(thought):
            np.testing.assert_array_equal(found.scores[q, : len(ids), s], scores[q, ids])
            own = propose([scores], asked, only_new, each=4).ids[q]
            assert set(found.ids[q][found.by[q, :, s]]) == set(own[own > 0])


@given(seed=st.integers(0, 999))
def test_gains_over_all_items_are_ndcg(seed):
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=(6, ITEMS)).astype(np.float32)
    sizes = rng.integers(1, 15, 6)
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    item = np.concatenate([rng.permutation(np.arange(2, ITEMS))[:n] for n in sizes]).astype(np.int32)
    targets = Targets(offsets, item)
    expected = ranking_metrics(scores, nothing(6), targets, [10])["NDCG@10"]
    found = propose([scores], nothing(6), only_new=False, each=ITEMS - 2)
    np.testing.assert_allclose(gains(found.scores[..., 0], found.came(targets), sizes), expected, atol=1e-6)


def test_forward_selection_finds_what_helps_and_leaves_out_noise():
    rng = np.random.default_rng(0)
    truth = rng.integers(2, ITEMS, 600)
    questions = np.arange(600)

    def knows(share: float, seed: int) -> np.ndarray:
        draw = np.random.default_rng(seed)
        scores = draw.normal(size=(600, ITEMS)).astype(np.float32)
        told = draw.random(600) < share
        scores[questions[told], truth[told]] += 2
        return scores

    thought = [knows(0.5, 1), knows(0.0, 2), knows(0.5, 3)]
    found = propose(thought, nothing(600), only_new=False, each=ITEMS - 2)
    weights, gained = forward_weights(found, one_target(truth), questions)
    alone = gains(found.scores[..., 0], found.came(one_target(truth)), np.ones(600, np.int64))
    assert weights[0] == 1
    assert weights[1] == 0
    assert 0.35 <= weights[2] <= 2
    assert gained.mean() > alone.mean() + 0.05
    blended = Blend(weights)(thought, nothing(600))
    assert ranking_metrics(blended, nothing(600), one_target(truth), [10])["NDCG@10"].mean() == pytest.approx(
        gained.mean(), abs=1e-6
    )


def test_where_nothing_stands_nothing_is_ranked():
    """Log shares are negative: a place that a narrower chunk leaves empty must not come before what it proposes."""
    ids, scores = np.array([[5, 4]], np.int32), np.array([[[-1.0, -9.0], [-2.0, -8.0]]], np.float32)
    wide = Candidates(np.array([[9, 8, 7, 6]], np.int32), np.array([[[-1.0, -4.0]] + [[-5.0, -3.0]] * 3], np.float32))
    both = Candidates.joined([Candidates(ids, scores), wide])
    weights, gained = forward_weights(both, Targets(np.array([0, 1, 2]), np.array([5, 9], np.int32)), np.arange(2))
    assert weights.tolist() == [1, 0]
    assert gained.tolist() == [1, 1]


def test_a_user_counts_once_however_many_questions_there_are():
    """One user's fifty questions are answered by the first source, ten users' one each by the second."""
    user = np.concatenate([np.zeros(50, np.int64), np.arange(1, 11)])
    ids = np.tile(np.array([[3, 2]], np.int32), (60, 1))
    scores = np.zeros((60, 2, 2), np.float32)
    scores[:50, 0, 0], scores[:50, 1, 1] = 1, 1  # the first has the target 3 at the top, the second the other
    scores[50:, 0, 1], scores[50:, 1, 0] = 1, 1
    weights, gained = forward_weights(Candidates(ids, scores), one_target(np.full(60, 3)), user)
    assert weights[1] == 1
    assert len(gained) == 11


def test_chunks_of_unequal_width_are_joined():
    first = Candidates(np.array([[5, 4, 3]], np.int32), np.ones((1, 3, 2), np.float32))
    second = Candidates(np.array([[9]], np.int32), np.ones((1, 1, 2), np.float32))
    both = Candidates.joined([first, second])
    assert both.ids.tolist() == [[5, 4, 3], [9, 0, 0]]
    assert both.came(Targets(np.array([0, 1, 3]), np.array([3, 9, 8], np.int32))).tolist() == [
        [False, False, True],
        [True, False, False],
    ]
