"""Rarity among peers, and how many rarities become one p-value."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from scipy.stats import false_discovery_control, kstest

from desireline.tasks.anomaly.fact import KINDS, Fact
from desireline.tasks.anomaly.facts import FACTS
from desireline.tasks.anomaly.peers import (
    FLOOR,
    RIDGE,
    apart,
    beyond,
    deviations,
    peer_groups,
    rarity,
    surprisals,
    upper_tail,
)
from desireline.tasks.anomaly.surprise_facts import FACTS as SURPRISES
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
    assert p[0] <= FLOOR
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
    frame = pl.DataFrame({"fast": normal(3000, 1), "flat": normal(3000, 2)})
    frame[7, "fast"] = 9.0
    found = suspicion(frame, {"fast": HIGH, "flat": LOW}, np.ones(3000), None)
    kinds = dict(zip(KINDS, found.kinds.T, strict=True))
    assert kinds["bot"].argmin() == 7
    assert kinds["brushing"][7] > 0.001
    assert np.all(kinds["review"] == 1)
    assert found.p_value.argmin() == 7
    for level in (0.01, 0.05, 0.2):  # above, ties of accounts that lie on no suspicious side
        assert (found.p_value < level).mean() == pytest.approx(level, rel=0.25)


def test_a_group_speaks_for_a_ring():
    ring = np.ones(200)
    ring[:5] = 1e-9
    found = suspicion(pl.DataFrame({"account": range(200)}), {}, np.ones(200), {"ring": ring})
    assert np.all(found.kinds[:5, list(KINDS).index("ring")] <= 1e-8)
    assert np.all(found.score[:5] > 8)
    assert np.all(found.score[5:] < 0.01)


def test_only_an_account_with_a_past_can_have_been_taken_over():
    fact = {"moved": Fact(("takeover",), "high", "{value}", "nats", "nothing")}
    frame, old = pl.DataFrame({"moved": np.append(normal(498), [9.0, 9.0])}), np.ones(500, bool)
    old[-1] = False
    kinds = suspicion(frame, fact, np.ones(500), None, old).kinds[:, list(KINDS).index("takeover")]
    assert kinds[-2] < 0.01
    assert kinds[-1] == 1


def test_the_least_of_several_is_corrected_for_the_looks():
    p = np.random.default_rng(2).uniform(size=(5000, 4))
    assert kstest(least_of(p), "uniform").pvalue > 0.01
    assert least_of(np.array([[0.01, 1.0], [0.02, 1.0]]))[0] == pytest.approx(0.01)  # the second was no look


def test_false_discovery_rates_are_scipys():
    p = np.random.default_rng(3).beta(0.3, 1, 500)
    np.testing.assert_allclose(false_discoveries(p), false_discovery_control(p))
    assert len(false_discoveries(np.zeros(0))) == 0


def test_what_is_rare_together_counts_more_than_what_is_rare_alone():
    generator = np.random.default_rng(4)
    first = generator.standard_normal(3000)
    twin = first + 0.2 * generator.standard_normal(3000)  # says nearly the same
    other = generator.standard_normal(3000)
    first[0], twin[0], other[0] = 2.5, 2.5, 2.5
    first[1], twin[1], other[1] = 2.5, 0.0, 0.0  # the twins disagree, as hardly ever
    away = apart([first, twin, other])
    assert away[1] > away[0]
    assert away[0] > np.quantile(away, 0.98)
    assert apart([first, first, other])[0] < 2 * apart([first, other])[0]


def test_surprisals_are_powers_of_ten_and_few_who_have_a_trait_at_all_are_surprising():
    away = np.zeros(2000)
    away[:20] = -3.0  # on the low side, where that is the suspicious one
    found = surprisals(away)
    assert (found[20:] == 0).all()
    np.testing.assert_allclose(found[:20], 2.3, atol=0.05)  # halfway among 1 in 100: 1 in 200
    wild = surprisals(np.append(normal(2000, 11), 60.0))
    assert wild[-1] == wild.max() > 10  # no floor: by itself it can raise the alarm


def test_many_improbable_measures_outweigh_one_wild_one():
    heavy = np.random.default_rng(3).standard_t(2, (4000, 6))
    heavy[0], heavy[1] = 0.0, np.quantile(heavy, 0.997, axis=0)
    heavy[0, 0] = 2.6 * heavy[1, 0]
    names = "abcdef"
    frame = pl.DataFrame({name: heavy[:, place] for place, name in enumerate(names)})
    found = suspicion(frame, dict.fromkeys(names, Fact(("bot",), "high", "{value}", "nats", "")), np.ones(4000), None)
    assert apart(list(heavy.T))[0] > apart(list(heavy.T))[1]
    assert found.p_value[1] < found.p_value[0] < 0.01


def test_what_own_measures_explain_is_the_best_shift_of_them():
    generator = np.random.default_rng(5)
    rows = generator.standard_normal((400, 4)) @ generator.standard_normal((4, 4))
    away = {name: rows[:, place] for place, name in enumerate("abcd")}
    centred = rows - rows.mean(axis=0)
    root = np.linalg.cholesky(np.linalg.inv(centred.T @ centred / 400 + RIDGE * np.eye(4))).T
    white = root @ centred.T  # [4, A], of squared length the distance
    shift = np.linalg.lstsq(root[:, [0, 2]], white, rcond=None)[0]
    left = ((white - root[:, [0, 2]] @ shift) ** 2).sum(axis=0)
    np.testing.assert_allclose(beyond(away, {"a", "c"}), (white**2).sum(axis=0) - left, rtol=1e-9)
    np.testing.assert_allclose(beyond(away, set("abcd")), apart(list(away.values())))


def test_a_kind_is_not_suspected_for_what_another_kinds_measures_foretell():
    moved = Fact(("takeover",), "both", "{value}", "nats", "nothing")
    clock = normal(3000, 6)
    change = 0.9 * clock + 0.44 * normal(3000, 7)
    clock[0], change[0] = 7.0, 5.0
    clock[1], change[1] = 0.0, 5.0
    frame, both = pl.DataFrame({"clock": clock, "change": change}), Fact(("bot",), "both", "{value}", "nats", "nothing")
    found = suspicion(frame, {"clock": both, "change": moved}, np.ones(3000), None)
    takeover = found.kinds[:, list(KINDS).index("takeover")]
    assert takeover[1] < 1e-4
    assert takeover[0] > 0.2  # as far out, but where its clock lets expect it
    assert [list(KINDS)[column] for column in found.kinds[:2].argmin(axis=1)] == ["bot", "takeover"]


def test_nobody_is_a_ring_alone():
    assert not [name for name, fact in (FACTS | SURPRISES).items() if "ring" in fact.kinds]


def test_only_the_suspicious_side_among_peers_counts():
    activity = np.repeat([1.0, 100.0], 500)
    frame = pl.DataFrame({"slow": np.append(normal(999), -9.0), "void": np.full(1000, np.nan), "same": np.ones(1000)})
    facts = {"slow": HIGH, "void": HIGH, "same": HIGH}
    away = deviations(frame, facts, activity)
    assert list(away) == ["slow"]
    assert away["slow"][-1] == 0
    assert (away["slow"] > 0).mean() == pytest.approx(0.5, abs=0.02)
