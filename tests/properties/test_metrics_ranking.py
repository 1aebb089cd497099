"""What must hold of a ranking metric whatever the scores: no item, question or row of a table leans on another."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from desireline.evaluation.queries import Histories, Targets
from desireline.evaluation.ranking import ranking_metrics, top_k


@st.composite
def asked(draw):
    """Scores with many ties, histories and targets of a few questions."""
    questions, items = draw(st.integers(1, 5)), draw(st.integers(3, 30))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    scores = rng.integers(-2, 3, (questions, items)).astype(np.float32)
    seen = [rng.integers(0, items, rng.integers(0, 6)) for _ in range(questions)]
    came = [rng.permutation(np.arange(1, items))[: rng.integers(0, 6)] for _ in range(questions)]
    return scores, seen, came


def measured(scores, seen, came, **options):
    at = np.cumsum([0, *map(len, seen)]).astype(np.int64)
    flat = np.concatenate(seen).astype(np.int32)
    history = Histories(at, flat, np.arange(len(flat), dtype=np.int64), np.zeros(len(seen), np.int64))
    came_at = np.cumsum([0, *map(len, came)]).astype(np.int64)
    return ranking_metrics(
        scores, history, Targets(came_at, np.concatenate(came).astype(np.int32)), (1, 3, 10), **options
    )


@given(asked())
def test_the_order_of_items_does_not_matter(case):
    scores, seen, came = case
    shuffled = np.concatenate([[0, 1], 2 + np.random.default_rng(0).permutation(scores.shape[1] - 2)])  # new id: old id
    renamed = np.argsort(shuffled)
    before = measured(scores, seen, came)
    after = measured(scores[:, shuffled], [renamed[s] for s in seen], [renamed[c] for c in came])
    for name, values in before.items():
        np.testing.assert_allclose(values, after[name], atol=1e-12)


@given(asked())
def test_a_question_is_measured_alone_as_among_others(case):
    scores, seen, came = case
    together = measured(scores, seen, came)
    for q in range(len(scores)):
        alone = measured(scores[q : q + 1], seen[q : q + 1], came[q : q + 1])
        for name, values in alone.items():
            np.testing.assert_array_equal(values, together[name][q : q + 1])


@given(asked(), st.booleans())
def test_metrics_are_shares_and_grow_with_depth(case, mask):
    found = measured(*case, mask_seen=mask)
    for values in found.values():
        assert (np.isnan(values) | ((values >= 0) & (values <= 1 + 1e-12))).all()
    for name in ("HR", "Recall", "MRR"):
        shallow, deep = found[f"{name}@1"], found[f"{name}@10"]
        assert (np.isnan(deep) | (deep >= shallow - 1e-12)).all()


@given(asked(), st.integers(1, 12))
def test_the_list_and_the_metric_agree_where_nothing_is_tied(case, k):
    scores, _, came = case
    rng = np.random.default_rng(1)
    distinct = rng.permuted(np.tile(np.arange(scores.shape[1], dtype=np.float32), (len(scores), 1)), axis=1)
    at = np.cumsum([0, *map(len, came)]).astype(np.int64)
    history = Histories(np.zeros(len(scores) + 1, np.int64), *[np.empty(0, t) for t in (np.int32, np.int64, np.int64)])
    found = ranking_metrics(distinct, history, Targets(at, np.concatenate(came).astype(np.int32)), (k,))
    ids, _ = top_k(distinct, k)
    for q, line in enumerate(came):
        if len(line):
            assert found[f"Recall@{k}"][q] == np.isin(line, ids[q][ids[q] > 0]).sum() / len(line)
