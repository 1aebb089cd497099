"""What the learned ranker sees of a proposal, and that it learns from it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from desireline.classical.arrays import DAY_US
from desireline.evaluation.queries import Histories
from desireline.tasks.ranker import (
    OWN,
    STALE,
    TREND,
    TREND_DAYS,
    UNWANTED,
    USER,
    Lesson,
    Ranker,
    Trends,
    features,
    held_out,
    trained,
)
from desireline.tasks.sources import Candidates, propose

ITEMS = 12


def histories(seed: int, questions: int) -> Histories:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(0, 15, questions)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    item = rng.integers(2, ITEMS, offsets[-1]).astype(np.int32)
    time = np.concatenate([np.sort(rng.integers(0, 200 * DAY_US, n)) for n in lengths]).astype(np.int64)
    return Histories(offsets, item, time, np.full(questions, 201 * DAY_US, np.int64))


def every_item(questions: int, sources: int, seed: int) -> Candidates:
    rng = np.random.default_rng(seed)
    ids = np.tile(np.arange(ITEMS - 1, 1, -1, dtype=np.int32), (questions, 1))
    return Candidates(ids, rng.normal(size=(*ids.shape, sources)).astype(np.float32))


@given(seed=st.integers(0, 999))
def test_features_are_those_of_the_history_counted_by_hand(seed):
    asked, candidates = histories(seed, 4), every_item(4, 2, seed)
    trends = Trends(np.arange(ITEMS * len(TREND), dtype=np.float32).reshape(ITEMS, -1), 199 * DAY_US)
    found = features(candidates, asked, trends)
    assert found.shape == (4, ITEMS - 2, 2 * 2 + len((*OWN, *TREND, *USER, *STALE)))
    assert (found[..., -1] == 2).all()  # asked two days after the cut
    for q in range(4):
        span = slice(asked.offsets[q], asked.offsets[q + 1])
        item, age = asked.item[span], (asked.as_of[q] - asked.time[span]) / DAY_US
        days = asked.time[span] // DAY_US
        for k, candidate in enumerate(candidates.ids[q]):
            own = dict(zip(OWN, found[q, k, 4 : 4 + len(OWN)], strict=True))
            had = age[item == candidate]
            assert own["times had"] == len(had)
            assert own["days had"] == len(np.unique(days[item == candidate]))
            if len(item):
                assert own["share of the user's days"] == pytest.approx(own["days had"] / len(np.unique(days)))
            assert own["times had, fading over 90 days"] == pytest.approx(np.exp(-had / 90).sum(), rel=1e-4, abs=1e-6)
            if len(had):
                assert own["days since last had"] == pytest.approx(had[-1], rel=1e-4)
                assert own["events since last had"] == len(item) - 1 - np.flatnonzero(item == candidate)[-1]
                assert own["share of the user's events"] == pytest.approx(len(had) / len(item))
            if len(had) > 1:
                assert own["days between two times"] == pytest.approx((had[0] - had[-1]) / (len(had) - 1), rel=1e-3)
            else:
                assert np.isnan(own["days between two times"])
            np.testing.assert_array_equal(found[q, k, 4 + len(OWN) :][: len(TREND)], trends.table[candidate])
        user = dict(zip(USER, found[q, 0, -len(USER) - 1 : -1], strict=True))
        assert user["events"] == len(item)
        assert user["items"] == len(np.unique(item))
        assert user["days with events"] == len(np.unique(days))
    places = found[:, :, 2]
    assert (np.sort(places, axis=1) == np.arange(ITEMS - 2)).all()
    np.testing.assert_array_equal(places.argmin(axis=1), candidates.scores[..., 0].argmax(axis=1))


def test_trends_count_what_came_within_so_many_days_of_the_cut():
    time = np.array([0, 150, 195, 200, 180]) * DAY_US
    item, end = np.array([3, 3, 3, 4, 3], np.int32), 201 * DAY_US
    trends = Trends.of(Histories(np.array([0, 4, 5]), item, time, np.array([end, end])), ITEMS, end)
    names = ("ever", *TREND_DAYS, "users", "first", "last")
    assert dict(zip(names, trends.table[3], strict=True)) == {
        "ever": 4,
        7: 1,
        30: 2,
        90: 3,
        365: 4,
        "users": 2,
        "first": 201,
        "last": 6,
    }
    assert trends.table[4].tolist() == [1, 1, 1, 1, 1, 1, 1, 1]
    assert np.isnan(trends.table[5, -2:]).all()


@pytest.fixture(scope="module")
def learnt():
    """Rankers of 300 questions whose targets are what the first source thinks, for items had before."""
    asked, candidates = histories(1, 300), every_item(300, 2, 1)
    trends = Trends(np.zeros((ITEMS, len(TREND)), np.float32), 201 * DAY_US)
    columns = features(candidates, asked, trends)
    wanted = candidates.scores[..., 0] + 3 * (columns[..., 4] > 0)
    came = wanted == wanted.max(axis=1, keepdims=True)
    fold, lesson = np.arange(300) % 3, Lesson(candidates, columns, came, np.arange(300))
    others, rounds = held_out(lesson, fold, 0)
    whole = trained(lesson, rounds, 0)
    assert whole.num_trees() == rounds
    return asked, candidates, came, fold, Ranker([whole], trends, only_new=False), Ranker(others, trends, False)


def thoughts(candidates: Candidates) -> list[np.ndarray]:
    dense = np.full((2, len(candidates.ids), ITEMS), -9, np.float32)
    for s in range(2):
        np.put_along_axis(dense[s], candidates.ids, candidates.scores[..., s], axis=1)
    return list(dense)


def test_it_learns_what_no_source_knows_alone_and_for_users_that_it_never_saw(learnt):
    asked, candidates, came, fold, whole, by_fold = learnt
    truth = candidates.ids[np.arange(300), came.argmax(axis=1)]
    alone = (thoughts(candidates)[0][:, 2:].argmax(axis=1) + 2 == truth).mean()
    for scores in (whole(thoughts(candidates), asked), by_fold(thoughts(candidates), asked, fold)):
        assert (scores[:, 2:].argmax(axis=1) + 2 == truth).mean() > max(0.6, alone + 0.2)


def test_it_comes_back_from_its_arrays(learnt):
    asked, candidates, _, _, whole, _ = learnt
    again = Ranker.load({name: array.copy() for name, array in whole.state().items()})
    np.testing.assert_array_equal(again(thoughts(candidates), asked), whole(thoughts(candidates), asked))
    assert 0 < whole.told(0) < 1


def test_what_nobody_proposes_stands_below_all_proposals(learnt):
    _, _, _, _, whole, _ = learnt
    rng = np.random.default_rng(2)
    thought = [rng.normal(size=(3, 200)).astype(np.float32) for _ in range(2)]
    ranker = Ranker(whole.boosters, Trends(np.zeros((200, len(TREND)), np.float32), 0), only_new=False)
    asked = Histories(np.zeros(4, np.int64), np.empty(0, np.int32), np.empty(0, np.int64), np.zeros(3, np.int64))
    scores, proposed = ranker(thought, asked), propose(thought, asked, only_new=False).ids
    for q in range(3):
        rest = np.setdiff1d(np.arange(2, 200), proposed[q])
        assert len(rest) > 50
        assert scores[q, rest].max() < scores[q, proposed[q][proposed[q] > 0]].min()


def test_a_thinned_lesson_keeps_all_that_came_and_few_that_did_not():
    rng = np.random.default_rng(3)
    ids = np.tile(np.arange(301, 1, -1, dtype=np.int32), (20, 1))
    ids[0, 40:] = 0
    came = (rng.random(ids.shape) < 0.02) & (ids > 0)
    columns = ids[..., None].astype(np.float32)
    lesson = Lesson(Candidates(ids, columns, ids[..., None] > 0), columns, came, np.arange(20))
    thin = lesson.thinned(0)
    for q in range(20):
        there = thin.candidates.ids[q] > 0
        assert set(thin.candidates.ids[q][thin.came[q]]) == set(ids[q][came[q]])
        assert (there & ~thin.came[q]).sum() == min(UNWANTED, (ids[q] > 0).sum() - came[q].sum())
        np.testing.assert_array_equal(thin.columns[q][there, 0], thin.candidates.ids[q][there])
        assert (np.diff(thin.candidates.ids[q][there]) < 0).all()


def test_without_a_source_what_it_alone_proposed_is_gone():
    ids = np.array([[9, 8, 7]], np.int32)
    by = np.array([[[True, False], [True, True], [False, True]]])
    columns = np.arange(15, dtype=np.float32).reshape(1, 3, 5)
    lesson = Lesson(
        Candidates(ids, columns[..., :2], by), columns, np.array([[True, True, True]]), np.zeros(1, np.int64)
    )
    rest = lesson.without(0)
    assert rest.candidates.ids.tolist() == [[0, 8, 7]]
    assert rest.came.tolist() == [[False, True, True]]
    np.testing.assert_array_equal(rest.columns[..., [0, 2]], columns[..., [1, 4]])
    assert rest.columns[0, 1:, 1].tolist() == [1, 0]  # the second source's places among what is left: 7, then 8
