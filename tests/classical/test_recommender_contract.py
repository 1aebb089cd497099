"""What every registered recommender must do, whatever its idea: a new one is tested by being registered."""

import numpy as np
import polars as pl
import pytest

from desireline.classical import RECOMMENDERS
from desireline.evaluation.queries import Histories

DAY = 86_400_000_000
ITEMS = 60

CASES = [
    pytest.param(name, constants, id=f"{name}-{n}")
    for name, kind in RECOMMENDERS.items()
    for n, constants in enumerate(kind.grid)
]


def histories(*items, as_of=400 * DAY):
    offsets = np.cumsum([0, *map(len, items)]).astype(np.int64)
    flat = np.array([i for line in items for i in line], np.int32)
    time = np.concatenate([as_of - DAY * (len(line) - np.arange(len(line))) // 2 for line in items])
    return Histories(offsets, flat, time.astype(np.int64), np.full(len(items), as_of, np.int64))


def log(seed=0):
    """Users who walk along the catalogue, some of them through unknown items."""
    rng = np.random.default_rng(seed)
    walks = [(rng.integers(0, 58) + np.cumsum(rng.integers(0, 3, rng.integers(1, 15)))) % 58 + 2 for _ in range(80)]
    return histories(*[np.where(rng.random(len(w)) < 0.05, 1, w) for w in walks], [])


ASKED = ([5, 6, 8], [], [1, 1], [10, 1, 12, 12], list(range(2, 60)), [59])


def made_of(name, constants, items=ITEMS):
    if name == "content":
        texts = [f"the colour {n % 7} of shape {n % 5}" if n % 4 else None for n in range(items - 2)]
        categories = [f"c{n % 9}" if n % 3 else None for n in range(items - 2)]
        fields = {"categories": [pl.Series(categories, dtype=pl.String)], "texts": [pl.Series(texts, dtype=pl.String)]}
        return RECOMMENDERS[name](**constants, **fields)
    return RECOMMENDERS[name](**constants)


def fitted(name, constants, train=None, items=ITEMS):
    made = made_of(name, constants, items)
    made.fit(log() if train is None else train, items)
    return made


@pytest.mark.parametrize(("name", "constants"), CASES)
def test_scores_are_finite_numbers_for_the_whole_catalogue(name, constants):
    scores = fitted(name, constants).score(histories(*ASKED))
    assert scores.shape == (len(ASKED), ITEMS)
    assert scores.dtype == np.float32
    assert np.isfinite(scores[:, 2:]).all()


@pytest.mark.parametrize(("name", "constants"), CASES)
def test_fitting_twice_gives_the_same_scores(name, constants):
    asked = histories(*ASKED)
    np.testing.assert_array_equal(fitted(name, constants).score(asked), fitted(name, constants).score(asked))


@pytest.mark.parametrize(("name", "constants"), CASES)
def test_a_loaded_model_is_the_one_that_was_saved(name, constants):
    saved, asked = fitted(name, constants), histories(*ASKED)
    state = {key: np.array(array) for key, array in saved.state().items()}
    assert all(array.dtype.kind in "iuf" for array in state.values())
    loaded = RECOMMENDERS[name](**constants)
    loaded.load(state)
    np.testing.assert_array_equal(loaded.score(asked), saved.score(asked))
    assert loaded.parameters == saved.parameters >= 0


@pytest.mark.parametrize(("name", "constants"), CASES)
def test_a_question_is_answered_alone_as_among_others(name, constants):
    made = fitted(name, constants)
    together = made.score(histories(*ASKED))
    for q, line in enumerate(ASKED):
        np.testing.assert_array_equal(made.score(histories(line))[0], together[q])


@pytest.mark.parametrize(("name", "constants"), CASES)
def test_unknown_items_in_a_history_do_not_count(name, constants):
    """Beside ranks and times, an unknown item tells nothing: a history of nothing else is as good as none."""
    made = fitted(name, constants)
    scores = made.score(histories([1, 1, 1], []))
    np.testing.assert_allclose(scores[0, 2:], scores[1, 2:], rtol=1e-6)


@pytest.mark.parametrize(("name", "constants"), CASES)
def test_a_catalogue_of_one_item(name, constants):
    made = fitted(name, constants, histories([2], [2, 2], [1]), items=3)
    assert np.isfinite(made.score(histories([2], [], [1]))[:, 2]).all()


@pytest.mark.parametrize(("name", "constants"), CASES)
def test_a_log_without_any_known_item(name, constants):
    made = fitted(name, constants, histories([1], []), items=5)
    assert np.isfinite(made.score(histories([2, 1], []))[:, 2:]).all()


@pytest.mark.parametrize(("name", "constants"), CASES)
def test_a_newcomer_gets_what_is_popular(name, constants):
    """With nothing to go by, more frequent items come first (recent-popularity: more recent ones)."""
    train = histories(*[[7, 3]] * 6, *[[9, 3]] * 3, [11])
    scores = fitted(name, constants, train).score(histories([]))[0]
    assert scores[3] > scores[9] > scores[20]
    assert scores[3] > scores[11] > scores[20]


@pytest.mark.parametrize("name", RECOMMENDERS)
def test_the_grid_holds_one_to_six_sets_and_the_name_is_the_contracts(name):
    kind = RECOMMENDERS[name]
    assert kind.name == name
    assert 1 <= len(kind.grid) <= 6
