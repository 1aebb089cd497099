"""Lock-step: pairs as a slow count finds them, rings found, and coincidences of busy hours and families let go."""

from __future__ import annotations

import math
from collections import defaultdict
from itertools import combinations

import numpy as np
import pytest
from scipy.stats import poisson

from desireline.core.errors import DataError
from desireline.graphs.lockstep import MINUTE_US, _begins, _Events, _heat, _log_tail, _pairs, rings

HOUR_US = 60 * MINUTE_US


def shop(rng, accounts=300, sessions=3, basket=12, targets=400, days=20, families=False):
    """Baskets at opening hours: popular targets, and whole families of five where asked for."""
    share = 1 / (5 + np.arange(targets))
    account, target, time = [], [], []
    for who in range(accounts):
        for _ in range(sessions):
            start = rng.integers(days) * 24 * HOUR_US + rng.integers(8 * 60, 18 * 60) * MINUTE_US
            some = rng.choice(targets, basket, p=share / share.sum())
            if families:
                some = np.concatenate([some[:2], (some[2:4, None] // 5 * 5 + np.arange(5)).ravel()])
            account += [who] * len(some)
            target += some.tolist()
            time += [start] * len(some)
    return np.array(account), np.array(target), np.array(time)


def planted(log, members, targets, time):
    """The log with each member at each target at times [members, targets]."""
    account = np.concatenate([log[0], np.repeat(members, len(targets))])
    return account, np.concatenate([log[1], np.tile(targets, len(members))]), np.concatenate([log[2], time.ravel()])


def test_pairs_are_those_of_a_slow_count():
    account, target, time = shop(np.random.default_rng(0), accounts=40, targets=60, days=2)
    events = _Events.of(account, target, time)
    heat, rank = _heat(events)
    sessions = np.bincount(events.account[_begins(events.session)]).astype(float)
    width, shift = HOUR_US, HOUR_US // 2
    found = _pairs(events, width, shift, heat, rank, sessions, 40)
    cells, baskets, active = defaultdict(set), defaultdict(int), defaultdict(set)
    for who, what, when, session in zip(events.account, events.target, events.time, events.session, strict=True):
        cells[who].add(((when + shift) // width, what))
        baskets[who, (when + shift) // width] += 1
        active[(when + shift) // width].add(session)
    share = np.bincount(
        [what for who in cells for what in {t for _, t in {(0, t) for _, t in cells[who]}}], minlength=60
    )
    share = share / share.sum()
    meet = sum(len(s) ** 2 for s in active.values()) / sessions.sum() ** 2
    expected = {}
    for u, v in combinations(range(40), 2):
        both = cells[u] & cells[v]
        if len(both) < 2:
            continue
        bins = {b for b, _ in both}
        chances = sum(baskets[u, b] * baskets[v, b] for b in bins)
        taken = sorted({what for _, what in both}, key=lambda what: share[what])
        best = 0.0
        for k, what in enumerate(taken, 1):
            mean = chances * (share[share <= share[what]] ** 2).sum()
            best = min(best, poisson.logsf(k - 1, mean) if k > mean else 0.0)
        usual = sessions[u] * sessions[v] * meet
        occasions = len(bins)  # here no session reaches into two bins
        log_p = poisson.logsf(occasions - 1, usual) * (occasions > usual) + min(0.0, best + math.log(len(taken)))
        expected[u, v] = -(log_p + math.log(1 - log_p))
    assert len(expected) > 20
    assert set(zip(found.u.tolist(), found.v.tolist(), strict=True)) == set(expected)
    for u, v, score in zip(found.u, found.v, found.score, strict=True):
        assert score == pytest.approx(expected[u, v], abs=1e-6)


def test_the_tail_is_scipys():
    for count, mean in ((1, 0.3), (5, 0.01), (40, 12.0), (3, 2.9)):
        assert _log_tail(count, mean) == pytest.approx(poisson.logsf(count - 1, mean), rel=1e-9)
    assert _log_tail(2, 5.0) == 0


@pytest.mark.parametrize("border", [False, True])
def test_a_ring_of_minutes_is_found_wherever_the_bins_begin(border):
    rng = np.random.default_rng(1)
    log = shop(rng)
    members, targets = 300 + np.arange(9), np.array([371, 382, 393])
    at = (np.array([3, 9, 14]) * 24 + 11) * HOUR_US + (0 if border else 2 * MINUTE_US)
    spread = np.where(np.arange(9) < 4, -1, 1)[:, None] * MINUTE_US  # a border between them, in one of the layings
    found = rings(*planted(log, members, targets, at + spread), MINUTE_US, widths_us=(5 * MINUTE_US,))
    assert len(found) == 1
    assert found[0].accounts.tolist() == members.tolist()
    assert found[0].targets.tolist() == targets.tolist()
    assert found[0].log_p < -50
    assert found[0].shared > 20 * found[0].expected


@pytest.mark.parametrize("families", [False, True])
def test_busy_hours_best_sellers_and_families_make_no_ring(families):
    for seed in range(3):
        assert rings(*shop(np.random.default_rng(10 + seed), families=families), MINUTE_US, seed) == []


def test_who_met_one_member_by_chance_is_cut_off():
    rng = np.random.default_rng(2)
    members, targets = 300 + np.arange(10), np.array([371, 382, 393])
    at = (np.array([3, 9, 14]) * 24 + 11) * HOUR_US
    log = planted(shop(rng), members, targets, at + rng.integers(0, 3, (10, 3)) * MINUTE_US)
    twin = log[0] == 5  # 310 does all that account 5 does, and so does member 300
    log = tuple(
        np.concatenate([column, np.where(which, value, column[twin])])
        for column, which, value in ((log[0], True, 300), (log[1], False, 0), (log[2], False, 0))
    )
    found = rings(*log, MINUTE_US)
    assert found[0].accounts.tolist() == members.tolist()


def test_the_same_seed_finds_the_same_and_bins_are_no_finer_than_the_clock():
    rng = np.random.default_rng(3)
    members, targets = 300 + np.arange(6), np.array([371, 382, 393])
    at = (np.array([3, 9, 14]) * 24 + 11) * HOUR_US
    log = planted(shop(rng), members, targets, at + np.zeros((6, 1), np.int64))
    one, two = rings(*log, MINUTE_US, 4), rings(*log, MINUTE_US, 4)
    assert [ring.log_p for ring in one] == [ring.log_p for ring in two]
    assert one[0].width_us == 5 * MINUTE_US
    assert rings(*log, HOUR_US)[0].width_us >= HOUR_US


def test_nothing_and_nonsense():
    none = np.empty(0, np.int64)
    assert rings(none, none, none, 1) == []
    same = np.zeros(1_000, np.int64)
    assert rings(same, same, same, 1) == []
    assert rings(np.arange(1_000), same, same, 1) == []
    with pytest.raises(DataError, match="an account, a target and a time"):
        rings(same, same, none, 1)
