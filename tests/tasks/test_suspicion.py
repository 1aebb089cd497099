"""Rarity among peers, and how many rarities become one p-value."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from scipy.stats import false_discovery_control, kstest

from desireline.tasks.anomaly.fact import KINDS, Fact
from desireline.tasks.anomaly.peers import FLOOR, peer_groups, rarity, upper_tail
from desireline.tasks.anomaly.suspicion import false_discoveries, least_of, suspicion

HIGH = Fact(("bot",), "high", "{value}", "ratio", "nothing")
LOW = Fact(("brushing",), "low", "{value}", "share", "nothing")
BOTH = Fact(("ring",), "both", "{value}", "nats", "nothing")


def normal(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(count)


def test_tails_of_ordinary_values_are_uniform():
    assert kstest(upper_tail(normal(4000)), "uniform").pvalue > 0.01


def test_ties_share_their_rank_and_a_constant_says_nothing():
    np.testing.assert_allclose(upper_tail(np.zeros(9)), 0.5)
    tail = upper_tail(np.array([0.0] * 99 + [1.0]))
    assert tail[-1] == pytest.approx(1 / 101)
    assert np.all(tail[:-1] == tail[0])


def test_the_wildest_is_told_from_the_merely_wild():
    values = np.append(normal(2000), [6.0, 12.0])
    tail = upper_tail(values)
    assert tail[-1] < 1e-3 * tail[-2] < 1e-3


def test_one_wild_account_does_not_hide_the_next():
    calm = np.append(normal(2000), 6.0)
    wild = np.append(calm, 1e6)
    assert upper_tail(wild)[-2] == pytest.approx(upper_tail(calm)[-1], rel=0.3)


def test_heavy_users_are_held_against_heavy_users():
    activity = np.concatenate([np.full(500, 10.0), np.full(500, 1000.0)])
    values = activity * (1 + 0.1 * normal(1000))
    values[0] = 40.0  # few for a heavy user, many for a light one
    p = rarity(values, HIGH, peer_groups(activity))
    assert p[0] < 1e-4
    assert np.median(p[500:]) == pytest.approx(0.5, abs=0.05)


def test_sides_and_what_is_not_defined():
    values = np.append(normal(999), np.nan)
    alike = np.zeros(1000, np.int64)
    high, low, both = (rarity(values, fact, alike) for fact in (HIGH, LOW, BOTH))
    assert np.isnan(high[-1])
    least, most = np.nanargmin(values), np.nanargmax(values)
    assert high[most] < 0.01 < 0.9 < high[least]
    assert low[least] < 0.01 < 0.9 < low[most]
    assert both[least] < 0.01
    assert both[most] < 0.01
    assert np.nanmin(both) >= FLOOR


def test_a_kind_is_suspected_by_its_own_facts_alone_and_uniform_among_honest_accounts():
    generator = np.random.default_rng(1)
    rare = {name: generator.uniform(size=3000) for name in ("fast", "flat")}
    rare["fast"][7] = 1e-5
    found = suspicion(rare, {"fast": HIGH, "flat": LOW}, None, pl.DataFrame({"fast": np.zeros(3000)}))
    kinds = dict(zip(KINDS, found.kinds.T, strict=True))
    assert kinds["bot"].argmin() == 7
    assert kinds["brushing"][7] > 0.001
    assert np.all(kinds["review"] == 1)
    assert kstest(np.delete(kinds["bot"], 7), "uniform").pvalue > 0.01
    assert kstest(np.delete(found.p_value, 7), "uniform").pvalue > 0.001  # two looks, corrected


def test_a_group_speaks_for_a_ring():
    ring = np.ones(200)
    ring[:5] = 1e-9
    found = suspicion({}, {}, ring, pl.DataFrame({"account": range(200)}))
    assert np.all(found.kinds[:5, list(KINDS).index("ring")] <= 1e-8)
    assert np.all(found.score[:5] > 8)
    assert np.all(found.score[5:] < 0.01)


def test_the_least_of_several_is_corrected_for_the_looks():
    p = np.random.default_rng(2).uniform(size=(5000, 4))
    assert kstest(least_of(p), "uniform").pvalue > 0.01
    assert least_of(np.array([[0.01, 1.0], [0.02, 1.0]]))[0] == pytest.approx(0.01)  # the second was no look


def test_false_discovery_rates_are_scipys():
    p = np.random.default_rng(3).beta(0.3, 1, 500)
    np.testing.assert_allclose(false_discoveries(p), false_discovery_control(p))
    assert len(false_discoveries(np.zeros(0))) == 0
