"""The rules for the next event: one contract for all, and what each must know."""

from itertools import pairwise

import numpy as np
import pytest

from desireline.classical.next_event import NEXT_EVENT, EventHistories
from desireline.evaluation.waiting import LEVELS, waiting_metrics

S, TYPES = 1_000_000, 5  # ids 2, 3, 4 are types
CASES = [
    pytest.param(name, constants, id=f"{name}-{n}")
    for name, kind in NEXT_EVENT.items()
    for n, constants in enumerate(kind.grid)
]


def log(users=200, seed=0):
    """Views (2) come in quick runs, a cart (3) is followed by a purchase (4) within seconds, then a long pause."""
    rng = np.random.default_rng(seed)
    events, times, sizes = [], [], []
    for _ in range(users):
        now, last, n = rng.uniform(0, 1e5), 4, int(rng.integers(1, 40))
        pace = rng.choice([100.0, 5000.0])
        for _ in range(n):
            kind = {2: rng.choice([2, 3], p=[0.7, 0.3]), 3: 4, 4: 2}[last]
            now += {2: rng.exponential(pace), 3: rng.exponential(pace), 4: rng.exponential(5)}[kind]
            events.append(kind)
            times.append(now)
            last = kind
        sizes.append(n)
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    return np.array(events, np.int16), (np.array(times) * S).astype(np.int64), offsets


def fitted(name, constants, data=None):
    event, time, offsets = log() if data is None else data
    made = NEXT_EVENT[name](**constants)
    made.fit(event, time, offsets, TYPES, int(time.max()) + S)
    return made


def asked(*histories, wait=0.0):
    """From lists of (second, type), asked `wait` seconds after the last event."""
    offsets = np.cumsum([0, *map(len, histories)]).astype(np.int64)
    flat = [event for line in histories for event in line]
    time = np.array([second * S for second, _ in flat], np.int64)
    return EventHistories(
        offsets, np.array([t for _, t in flat], np.int16), time, time[offsets[1:] - 1] + int(wait * S)
    )


HISTORIES = ([(0, 2), (50, 3)], [(9, 4)], [(0, 1)], [(t * 10, 2) for t in range(30)], [(0, 4), (0, 4), (0, 2)])


@pytest.mark.parametrize(("name", "constants"), CASES)
def test_types_are_probabilities_and_quantiles_ascend(name, constants):
    made = fitted(name, constants)
    for wait in (0.0, 10.0, 1e9):
        probability, waits = (f(asked(*HISTORIES, wait=wait)) for f in (made.types_probability, made.gap_quantiles))
        assert probability.shape == (len(HISTORIES), TYPES)
        np.testing.assert_allclose(probability.sum(axis=1), 1)
        assert (probability[:, 2:] > 0).all()
        assert (probability[:, 0] == 0).all()
        assert waits.shape == (len(HISTORIES), len(LEVELS))
        assert np.isfinite(waits).all()
        assert (np.diff(waits, axis=1) >= 0).all()
        assert waits.min() >= 0


@pytest.mark.parametrize(("name", "constants"), CASES)
def test_a_loaded_rule_is_the_one_that_was_saved_and_questions_are_answered_alone(name, constants):
    saved = fitted(name, constants)
    loaded = NEXT_EVENT[name](**constants)
    loaded.load({key: np.array(array) for key, array in saved.state().items()})
    assert loaded.parameters == saved.parameters > 0
    together = saved.types_probability(asked(*HISTORIES)), saved.gap_quantiles(asked(*HISTORIES))
    for q, line in enumerate(HISTORIES):
        np.testing.assert_array_equal(loaded.types_probability(asked(line))[0], together[0][q])
        np.testing.assert_array_equal(loaded.gap_quantiles(asked(line))[0], together[1][q])


@pytest.mark.parametrize(("name", "constants"), CASES)
def test_a_log_of_one_event_is_enough(name, constants):
    made = fitted(name, constants, (np.array([3], np.int16), np.array([5 * S]), np.array([0, 1])))
    assert np.isfinite(made.types_probability(asked(*HISTORIES))).all()
    assert np.isfinite(made.gap_quantiles(asked(*HISTORIES))).all()


def test_the_marginal_is_what_anybody_does():
    event = log()[0]
    made = fitted("popularity", {})
    share = np.bincount(event, minlength=TYPES) / len(event)
    np.testing.assert_allclose(made.types_probability(asked([(0, 3)]))[0], share, atol=0.01)


def test_markov_knows_that_a_purchase_follows_a_cart_and_at_once():
    made = fitted("markov", {"prior": 1.0})
    after_cart, after_view = asked([(0, 3)]), asked([(0, 2)])
    assert made.types_probability(after_cart)[0, 4] > 0.99
    assert made.types_probability(after_view)[0, 2] == pytest.approx(0.7, abs=0.05)
    event, time, offsets = log()
    carts = np.flatnonzero(event == 3)
    came = ~np.isin(carts + 1, offsets)  # who stopped after a cart has not bought to this day
    gap = np.where(came, time[np.minimum(carts + 1, len(time) - 1)] - time[carts], np.inf) / S
    assert made.gap_quantiles(after_cart)[0, 49] == pytest.approx(np.median(gap), rel=0.05)
    assert made.gap_quantiles(after_view)[0, 49] > 20


def test_repeat_last_says_the_last_type_as_often_as_that_was_right():
    event, _, offsets = log()
    same = np.concatenate([event[a + 1 : b] == event[a : b - 1] for a, b in pairwise(offsets)])
    found = fitted("repeat-last", {}).types_probability(asked([(0, 3)], [(0, 1)]))
    share = np.bincount(event, minlength=TYPES) / len(event)
    assert found[0, 3] == pytest.approx(same.mean() + (1 - same.mean()) * share[3], abs=0.01)
    np.testing.assert_allclose(found[1], share, atol=0.01)


def test_median_gap_tells_the_quick_from_the_slow():
    made = fitted("median-gap", {"prior": 5.0})
    quick, slow = [(t * 7, 2) for t in range(60)], [(t * 4000, 2) for t in range(60)]
    found = made.gap_quantiles(asked(quick, slow))[:, 49]
    assert found[0] == pytest.approx(7, rel=0.2)
    assert found[1] == pytest.approx(4000, rel=0.2)
    newcomer = asked([(0, 2)])
    np.testing.assert_allclose(made.gap_quantiles(newcomer), fitted("popularity", {}).gap_quantiles(newcomer))


def test_forecasts_after_a_silence_are_calibrated():
    """Users asked at one moment, each silent for some time: eight in ten waits fall into the 80 % interval."""
    rng = np.random.default_rng(4)
    event, time, offsets, begin = [], [], [0], 3e5
    waits, histories = [], []
    for _ in range(1500):
        steps = np.cumsum(rng.lognormal(8, 1.5, 400))
        before = steps[steps < begin]
        if len(before) and len(before) < len(steps):
            event += [2] * len(before)
            time += (before * S).astype(np.int64).tolist()
            offsets.append(len(event))
            histories.append(before)
            waits.append(steps[len(before)] - begin)
    data = np.array(event, np.int16), np.array(time), np.array(offsets)
    made = NEXT_EVENT["popularity"]()
    made.fit(*data, TYPES, int(begin * S))
    question = EventHistories(data[2], data[0], data[1], np.full(len(waits), int(begin * S)))
    cut = np.zeros(len(waits), bool)
    found = waiting_metrics(made.gap_quantiles(question), np.array(waits), cut, np.full(len(waits), 1e9))
    assert found["coverage 80%"].mean() == pytest.approx(0.8, abs=0.04)
    assert np.histogram(found["PIT"], bins=5, range=(0, 1))[0] / len(waits) == pytest.approx([0.2] * 5, abs=0.04)
