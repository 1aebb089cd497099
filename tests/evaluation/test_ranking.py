"""Ranking metrics against their definitions by hand, scikit-learn, and the exact figures of random ranking."""

import numpy as np
import pytest
from sklearn.metrics import ndcg_score
from slow_ranking import all_expected, expected

from desireline.core.errors import DataError
from desireline.evaluation.queries import Histories, Targets
from desireline.evaluation.ranking import ranking_metrics, top_k


def histories(*items):
    offsets = np.cumsum([0, *map(len, items)]).astype(np.int64)
    flat = np.array([i for line in items for i in line], np.int32)
    return Histories(offsets, flat, np.arange(len(flat), dtype=np.int64), np.full(len(items), 10**6, np.int64))


def targets(*items):
    return Targets(np.cumsum([0, *map(len, items)]).astype(np.int64), np.array([i for t in items for i in t], np.int32))


def test_metrics_are_the_means_over_every_order_of_tied_items():
    rng = np.random.default_rng(5)
    for _ in range(60):
        items = int(rng.integers(3, 9))
        line = rng.integers(0, 3, items).astype(np.float32)
        line[rng.random(items) < 0.1] = -np.inf
        seen = rng.integers(0, items, rng.integers(0, 4)).tolist()
        asked = rng.permutation(np.arange(1, items))[: rng.integers(0, 5)].tolist()
        for k in (1, 2, 4, 20):
            found = ranking_metrics(line[None], histories(seen), targets(asked), (k,))
            wanted = all_expected(line.tolist(), seen, asked, k)
            assert found.keys() == wanted.keys()
            for name, value in wanted.items():
                assert found[name][0] == pytest.approx(value, abs=1e-12, nan_ok=True), (name, line, seen, asked)
            masked = ranking_metrics(line[None], histories(seen), targets(asked), (k,), mask_seen=True)
            for name, value in expected(line.tolist(), {s for s in seen if s > 1}, asked, k).items():
                assert masked[name][0] == pytest.approx(value, abs=1e-12, nan_ok=True), (name, line, seen, asked)


def test_ndcg_of_many_targets_equals_scikit_learn():
    rng = np.random.default_rng(1)
    scores = rng.normal(size=(40, 102)).astype(np.float32)
    asked = [rng.choice(np.arange(2, 102), 7, replace=False).tolist() for _ in range(40)]
    found = ranking_metrics(scores, histories(*[[]] * 40), targets(*asked), (5, 20))
    for k in (5, 20):
        for q in range(40):
            truth = np.zeros((1, 102))
            truth[0, asked[q]] = 1
            wanted = ndcg_score(truth[:, 2:], scores[q : q + 1, 2:], k=k)
            assert found[f"NDCG@{k}"][q] == pytest.approx(wanted, abs=1e-9)


def test_ties_among_targets_and_others_average_as_in_scikit_learn():
    """scikit-learn shares a tie group's discounts evenly too, by another algorithm."""
    rng = np.random.default_rng(2)
    scores = rng.integers(0, 6, (30, 52)).astype(np.float32)
    asked = [rng.choice(np.arange(2, 52), 4, replace=False).tolist() for _ in range(30)]
    found = ranking_metrics(scores, histories(*[[]] * 30), targets(*asked), (10,))["NDCG@10"]
    for q in range(30):
        truth = np.zeros((1, 50))
        truth[0, np.array(asked[q]) - 2] = 1
        assert found[q] == pytest.approx(ndcg_score(truth, scores[q : q + 1, 2:], k=10), abs=1e-9)


def test_a_constant_score_ranks_exactly_as_random():
    items, k = 1_000, 10
    found = ranking_metrics(np.full((1, items + 2), 3, np.float32), histories([]), targets([77]), (k,))
    assert found["HR@10"][0] == pytest.approx(k / items)
    assert found["MRR@10"][0] == pytest.approx(sum(1 / p for p in range(1, k + 1)) / items)
    assert found["NDCG@10"][0] == pytest.approx(sum(1 / np.log2(1 + p) for p in range(1, k + 1)) / items)
    three = ranking_metrics(np.full((1, items + 2), 3, np.float32), histories([]), targets([5, 6, 7]), (k,))
    missed = np.prod([(items - k - i) / (items - i) for i in range(3)])
    assert three["HR@10"][0] == pytest.approx(1 - missed)
    assert three["Recall@10"][0] == pytest.approx(k / items)


def test_a_cold_target_is_a_miss_and_counts_in_the_ideal():
    scores = np.array([[9, 9, 3, 2, 1]], np.float32)
    found = ranking_metrics(scores, histories([4]), targets([1, 2]), (2,))
    assert found["HR@2"][0] == 1
    assert found["Recall@2"][0] == found["Recall@2 new"][0] == 0.5
    assert found["NDCG@2 new"][0] == pytest.approx(1 / (1 + 1 / np.log2(3)))
    assert np.isnan(found["HR@2 repeat"][0])
    alone = ranking_metrics(scores, histories([]), targets([1]), (2,))
    assert alone["HR@2"][0] == alone["NDCG@2"][0] == alone["MRR@2"][0] == 0


def test_padding_and_unknown_take_no_place():
    scores = np.array([[99, np.nan, 1, 2]], np.float32)
    assert ranking_metrics(scores, histories([]), targets([3]), (1,))["HR@1"][0] == 1


def test_masked_items_make_room_and_cannot_be_hit():
    scores = np.array([[0, 0, 5, 4, 3]], np.float32)
    plain = ranking_metrics(scores, histories([2]), targets([3]), (1,))
    masked = ranking_metrics(scores, histories([2]), targets([3]), (1,), mask_seen=True)
    assert (plain["HR@1"][0], plain["HR@1 new"][0], masked["HR@1"][0]) == (0, 1, 1)
    assert ranking_metrics(scores, histories([2]), targets([2]), (3,), mask_seen=True)["HR@3"][0] == 0
    assert ranking_metrics(scores, histories([2]), targets([2]), (3,))["HR@3 repeat"][0] == 1


def test_a_question_without_targets_is_not_defined():
    found = ranking_metrics(np.ones((2, 5), np.float32), histories([2], [3]), targets([], [4]))
    assert all(np.isnan(v[0]) for v in found.values())
    assert np.isfinite(found["HR@5"][1])


def test_nan_is_named_and_never_ranked():
    scores = np.zeros((2, 6), np.float32)
    scores[1, 4] = np.nan
    with pytest.raises(DataError, match="Question 1: a model gave nan"):
        ranking_metrics(scores, histories([], []), targets([2], [3]))
    with pytest.raises(DataError, match="Question 1: a model gave nan"):
        top_k(scores, 6)


@pytest.mark.parametrize(("asked", "message"), [([2, 2], "stands twice"), ([6], "no item"), ([0], "no item")])
def test_targets_that_make_no_sense_are_refused(asked, message):
    with pytest.raises(DataError, match=message):
        ranking_metrics(np.zeros((1, 6), np.float32), histories([]), targets(asked))


def test_top_k_equals_a_full_sort_with_ties_by_id():
    rng = np.random.default_rng(3)
    scores = rng.integers(0, 40, (50, 202)).astype(np.float32)
    seen = [rng.integers(0, 202, 30).tolist() for _ in range(50)]
    ids, values = top_k(scores, 15, histories(*seen))
    for q in range(50):
        allowed = [i for i in range(2, 202) if i not in seen[q]]
        wanted = sorted(allowed, key=lambda i: (-scores[q, i], i))[:15]
        assert ids[q].tolist() == wanted
        assert values[q].tolist() == scores[q, wanted].tolist()


def test_top_k_pads_where_fewer_may_come():
    ids, values = top_k(np.array([[9, 9, 1, -np.inf, 3, 2]], np.float32), 4, histories([5]))
    assert ids.tolist() == [[4, 2, 0, 0]]
    assert values[0, :2].tolist() == [3, 1]
    assert np.isneginf(values[0, 2:]).all()


def test_figures_of_a_fixed_slice_stay():
    """60 questions on integer scores; means drawn up by the slow version, order by order (ties of at most six)."""
    rng = np.random.default_rng(2024)
    scores = rng.permuted(np.tile(np.repeat(np.arange(4.0, dtype=np.float32), 3), (60, 1)), axis=1)
    asked = [(rng.permutation(np.arange(1, 12))[: 1 + q % 3]).tolist() for q in range(60)]
    seen = [rng.integers(2, 12, 2).tolist() for _ in range(60)]
    found = ranking_metrics(scores, histories(*seen), targets(*asked), (3,))
    assert {name: round(float(np.nanmean(found[name])), 6) for name in FROZEN} == FROZEN


FROZEN = {
    "HR@3": 0.541667,
    "Recall@3": 0.299074,
    "NDCG@3": 0.262977,
    "MRR@3": 0.35787,
    "HR@3 new": 0.515152,
    "Recall@3 new": 0.308586,
    "NDCG@3 new": 0.257614,
    "MRR@3 new": 0.329798,
    "HR@3 repeat": 0.52381,
    "Recall@3 repeat": 0.515873,
    "NDCG@3 repeat": 0.383172,
    "MRR@3 repeat": 0.345238,
}
