"""Groups: rings in a shop are found whole and alone, a shop without any gives none, reasons are measured facts."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from desireline.tasks.anomaly.actions import COLUMNS, Actions
from desireline.tasks.anomaly.groups import Group, find_groups, membership

BEGIN = datetime(2025, 3, 1, tzinfo=UTC)
DAYS, PAST, ACCOUNTS, TARGETS, MINUTE = 30, 90, 400, 500, 60


def actions(account, target, second, order=None, returned=None) -> Actions:
    """Events at seconds after BEGIN; before it, the past."""
    count = len(account)
    frame = pl.DataFrame(
        {
            "account": np.asarray(account, np.uint32),
            "target": np.asarray(target, np.uint32),
            "time": [BEGIN + timedelta(seconds=int(s)) for s in second],
            "order": np.ones(count, bool) if order is None else order,
            "returned": np.zeros(count, bool) if returned is None else returned,
        },
        schema_overrides={"time": COLUMNS["time"]},
    )
    frame = frame.sort("account", "time", maintain_order=True).with_columns(
        item="target", type=pl.lit(0, pl.UInt16), review=pl.lit(False), event_id=pl.int_range(pl.len(), dtype=pl.Int64)
    )
    missing = [pl.lit(None, COLUMNS[name]).alias(name) for name in ("value", "rating", "text")]
    frame = frame.with_columns(*missing, inside=pl.col("time") >= BEGIN).select(list(COLUMNS))
    users = max([ACCOUNTS, *[int(a) + 1 for a in account]])
    names = pl.Series([f"t{n}" for n in range(TARGETS)])
    people = pl.Series([f"a{n}" for n in range(users)])
    return Actions(frame, people, names, names, ["buy"], BEGIN, BEGIN + timedelta(days=DAYS), 1_000_000)


def shop(rng, basket=8, past=True):
    """Baskets, three an account and month, with families of five among what is taken."""
    share = 1 / (5 + np.arange(TARGETS))
    account, target, second = [], [], []
    for who in range(ACCOUNTS):
        for month in range(-3 if past else 0, 1):
            for _ in range(3):
                start = month * DAYS * 86_400 + rng.integers(DAYS * 86_400 - 3_600)
                some = rng.choice(TARGETS, basket, p=share / share.sum())
                family = some[0] // 5 * 5 + np.arange(5)
                some = np.concatenate([some[1:], family[rng.random(5) < 0.8]])
                account += [who] * len(some)
                target += some.tolist()
                second += [start] * len(some)
    return np.array(account), np.array(target), np.array(second)


def joined(*logs):
    return tuple(np.concatenate([log[n] for log in logs]) for n in range(3))


def slow_ring(rng, members, targets, camouflage):
    """Each member takes each target some time, and copies a piece of somebody's month."""
    log = shop(rng, past=False)
    own = (
        np.repeat(members, len(targets)),
        np.tile(targets, len(members)),
        rng.integers(0, DAYS * 86_400, len(members) * len(targets)),
    )
    parts = [own]
    for member in members:
        copied = rng.integers(0, len(log[0]) - camouflage)
        moved = rng.integers(0, DAYS * 86_400, camouflage)
        parts.append((np.full(camouflage, member), log[1][copied : copied + camouflage], moved))
    return joined(*parts)


def test_a_shop_with_families_and_best_sellers_has_no_groups():
    for seed in range(3):
        assert find_groups(actions(*shop(np.random.default_rng(seed))), seed) == []


@pytest.mark.parametrize(("members", "targets", "camouflage"), [(10, 4, 10), (20, 4, 15), (30, 5, 20)])
def test_a_slow_ring_is_found_whole_and_alone(members, targets, camouflage):
    rng = np.random.default_rng(members)
    ring, aims = ACCOUNTS + np.arange(members), np.sort(rng.choice(np.arange(300, TARGETS), targets, replace=False))
    made = actions(*joined(shop(rng), slow_ring(rng, ring, aims, camouflage)))
    found = find_groups(made)
    assert [group.how for group in found] == [("dense block", "new bond")]
    assert found[0].accounts.tolist() == ring.tolist()
    assert found[0].targets.tolist() == aims.tolist()
    assert found[0].p_value < 1e-6
    evidence = made.events.filter(pl.col("event_id").is_in(found[0].event_ids))
    assert evidence.height == min(50, members * targets)
    assert set(evidence["account"]) <= set(ring.tolist())
    assert set(evidence["target"]) <= set(aims.tolist())
    assert f"{members} accounts and {targets} targets" in found[0].reasons[0]
    assert f"share {members * targets} pairs" in found[0].reasons[0]


def test_what_was_taken_together_all_along_is_no_ring():
    rng = np.random.default_rng(7)
    aims, log = np.array([311, 352, 403, 477]), shop(rng)
    months = [slow_ring(rng, ACCOUNTS + 20 * n + np.arange(20), aims, 10) for n in range(4)]
    before = [(a, t, s - n * DAYS * 86_400) for n, (a, t, s) in enumerate(months)]
    assert len(find_groups(actions(*joined(log, before[0])))) == 1
    assert find_groups(actions(*joined(log, *before))) == []


def test_a_tight_ring_is_one_group_of_two_searches_with_facts():
    rng = np.random.default_rng(8)
    ring, aims = ACCOUNTS + np.arange(12), np.array([333, 444, 455])
    at = rng.integers(0, DAYS * 86_400, 3) + rng.integers(0, 4 * MINUTE, (12, 3))
    tight = (np.repeat(ring, 3), np.tile(aims, 12), at.ravel())
    usual = slow_ring(rng, ring, np.empty(0, np.int64), 12)
    found = find_groups(actions(*joined(shop(rng), tight, usual)))
    assert len(found) == 1
    assert found[0].how == ("dense block", "lock-step", "new bond")
    assert found[0].accounts.tolist() == ring.tolist()
    assert "within 5 minutes of each other" in found[0].reasons[1]
    assert found[0].excess > 10


def test_clicks_that_ride_a_popular_targets_coattails():
    rng = np.random.default_rng(9)
    account, target, second = shop(rng, past=False)
    second = second + rng.integers(0, 1_500, len(second))  # clicks, one after the other
    riders = ACCOUNTS + np.arange(20)
    steps = np.tile([4, 450, 4, 450], 20)
    start = np.repeat(rng.integers(0, 25 * 86_400, 20), 4) + np.tile([0, 20, 40, 60], 20)
    log = actions(*joined((account, target, second), (np.repeat(riders, 4), steps, start)))
    riding = [group for group in find_groups(log) if "coattails" in group.how]
    assert len(riding) == 1
    assert riding[0].accounts.tolist() == riders.tolist()
    assert 450 in riding[0].targets.tolist()
    assert any("20 accounts stepped 60 times between t450 and the popular t4" in reason for reason in riding[0].reasons)
    assert [group for group in find_groups(actions(account, target, second)) if "coattails" in group.how] == []


def test_orders_are_searched_among_orders():
    """Targets that everybody looks at, and that one ring orders."""
    rng = np.random.default_rng(10)
    account, target, second = shop(rng)
    order = (rng.random(len(account)) < 0.1) & (target >= 20)
    ring, aims = np.arange(40, 60), np.array([3, 7, 12, 17])
    own = np.repeat(ring, 4), np.tile(aims, 20), rng.integers(0, DAYS * 86_400, 80)
    found = find_groups(actions(*joined((account, target, second), own), order=np.append(order, np.ones(80, bool))))
    assert len(found) == 1
    assert found[0].accounts.tolist() == ring.tolist()
    assert "window's orders" in found[0].reasons[0]


def test_the_same_seed_finds_the_same_and_what_is_taken_back_counts_nothing():
    rng = np.random.default_rng(11)
    ring, aims = ACCOUNTS + np.arange(20), np.array([311, 352, 403, 477])
    log = shop(rng)
    own = slow_ring(rng, ring, aims, 10)
    one, two = (find_groups(actions(*joined(log, own)), 5) for _ in range(2))
    assert [(g.p_value, g.event_ids, g.reasons) for g in one] == [(g.p_value, g.event_ids, g.reasons) for g in two]
    back = np.append(np.zeros(len(log[0]), bool), np.ones(len(own[0]), bool))
    assert find_groups(actions(*joined(log, own), returned=back)) == []


@pytest.mark.parametrize(
    ("account", "target"),
    [([], []), ([0], [0]), ([0] * 9, range(9)), (range(9), [0] * 9), ([0] * 1_000, [0] * 1_000), ([0, 1], [0, 0])],
)
def test_little_gives_nothing(account, target):
    assert find_groups(actions(list(account), list(target), [5] * len(account))) == []


def test_membership_is_the_strongest_group_of_an_account():
    def group(accounts, p_value):
        return Group(np.array(accounts), np.array([0]), ("lock-step",), p_value, 2.0, [], [], "ring")

    assert membership([group([0, 1], 1e-3), group([1, 2], 1e-9)], 4, "ring").tolist() == pytest.approx([3, 9, 9, 0])
    assert membership([], 2, "ring").tolist() == [0, 0]
