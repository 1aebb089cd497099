"""Who binds targets to each other, and who serves targets that somebody lifts: cases known by hand."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from desireline.tasks.anomaly.actions import COLUMNS, Actions
from desireline.tasks.anomaly.bonds import LEAST, MOST, bonds
from desireline.tasks.anomaly.lifted import CLASSES, lifted_evidence, lifted_facts
from desireline.tasks.anomaly.peers import LEAST_PEERS, peer_groups, upper_tail

BEGIN = datetime(2025, 3, 1, tzinfo=UTC)


def pairs(account: np.ndarray, target: np.ndarray) -> pl.DataFrame:
    return pl.DataFrame({"account": account, "target": target}, schema={"account": pl.UInt32, "target": pl.UInt32})


def crowd(seed: int, accounts: int = 500, targets: int = 400, each: int = 6) -> tuple[np.ndarray, np.ndarray]:
    """Accounts that take what they like, by chance."""
    generator = np.random.default_rng(seed)
    return np.repeat(np.arange(accounts), each), generator.integers(0, targets, accounts * each)


def with_all(log: tuple[np.ndarray, np.ndarray], members: list[int], targets: list[int]) -> pl.DataFrame:
    own = np.repeat(members, len(targets)), np.tile(targets, len(members))
    return pairs(*(np.concatenate(both) for both in zip(log, own, strict=True)))


def test_a_ring_is_found_with_its_accounts_its_targets_and_its_counts():
    members, targets = list(range(40, 52)), [7, 90, 201]
    now = with_all(crowd(0), members, targets)
    (found,) = bonds(now, pairs(*crowd(1)), 500, 400, alpha=0.05)
    assert found.targets.tolist() == targets
    assert set(members) <= set(found.accounts.tolist())
    held = now.unique().filter(pl.col("target").is_in(targets)).group_by("account").len()
    assert found.accounts.tolist() == sorted(held.filter(pl.col("len") >= 2)["account"])  # more than half of three
    both = now.unique().filter(pl.col("target").is_in(list(found.pair))).group_by("account").len()
    assert found.shared == both.filter(pl.col("len") == 2).height
    assert found.expected < 1
    assert found.log_p < np.log(0.05)


def test_chance_binds_nothing_and_what_always_went_together_is_no_ring():
    assert bonds(pairs(*crowd(2)), pairs(*crowd(3)), 500, 400, alpha=0.05) == []
    now = with_all(crowd(4), list(range(12)), [7, 90, 201])
    past = with_all(crowd(5), list(range(100, 220)), [7, 90, 201])
    assert bonds(now, past, 500, 400, alpha=0.05) == []


def test_a_fashion_that_runs_in_a_chain_is_no_group():
    log, past = crowd(6, 2000, 2000), pairs(*crowd(7, 2000, 2000))
    links = [(list(range(20 * link, 20 * link + 20)), [link, link + 1]) for link in range(8)]
    alone = with_all(log, *links[3])
    assert [bond.targets.tolist() for bond in bonds(alone, past, 2000, 2000, alpha=0.05)] == [[3, 4]]
    nobody = np.empty(0, np.int64), np.empty(0, np.int64)
    chain = pl.concat([pairs(*log), *(with_all(nobody, *link) for link in links)])
    assert bonds(chain, past, 2000, 2000, alpha=0.05) == []  # each link is bound, nobody has more than half of nine


def test_two_accounts_are_too_few_and_half_the_log_is_too_many():
    few = with_all(crowd(8), list(range(LEAST - 1)), [7, 90, 201])
    assert bonds(few, pairs(*crowd(9)), 500, 400, alpha=0.05) == []
    log = crowd(10, accounts=1500)
    fashion = with_all(log, list(range(MOST + 100)), [7, 90])
    assert bonds(fashion, pairs(*crowd(11, accounts=1500)), 1500, 400, alpha=0.05) == []
    assert bonds(pairs(*crowd(0)).clear(), pairs(*crowd(1)).clear(), 5, 5, alpha=0.5) == []


def orders(rows: list[tuple[int, int, float]]) -> Actions:
    """Orders of accounts from targets, at days after BEGIN; before it, the past."""
    frame = pl.DataFrame(
        {
            "account": [a for a, _, _ in rows],
            "target": [t for _, t, _ in rows],
            "time": [BEGIN + timedelta(days=d) for _, _, d in rows],
        },
        schema={name: COLUMNS[name] for name in ("account", "target", "time")},
    )
    frame = frame.sort("account", "time", "target").with_columns(
        item="target",
        type=pl.lit(0, pl.UInt16),
        order=pl.lit(True),
        returned=pl.lit(False),
        review=pl.lit(False),
        event_id=pl.int_range(pl.len(), dtype=pl.Int64),
        inside=pl.col("time") >= BEGIN,
        **{name: pl.lit(None, COLUMNS[name]) for name in ("value", "rating", "text")},
    )
    people, targets = (pl.Series([f"{letter}{n}" for n in range(1000)]) for letter in "at")
    return Actions(frame.select(list(COLUMNS)), people, targets, targets, ["buy"], BEGIN, BEGIN + timedelta(days=30), 1)


def market(seed: int) -> list[tuple[int, int, float]]:
    """Three hundred targets, ten orders a month each, from buyers who come once or twice."""
    generator = np.random.default_rng(seed)
    rows = []
    for month in (-2, -1, 0):
        target = np.repeat(np.arange(300), generator.poisson(10, 300))
        account, day = generator.integers(0, 600, len(target)), 30 * (month + generator.random(len(target)))
        rows += list(zip(account.tolist(), target.tolist(), day.tolist(), strict=True))
    return rows


def test_who_serves_a_lifted_target_again_and_again_stands_out():
    lift = [(700 + n, 17, 1.0 + n + 0.1 * k) for n in range(10) for k in range(6)]
    actions = orders(market(0) + lift)
    told = lifted_facts(actions).sort("lifted_target", descending=True)
    assert set(told["account"].head(10)) == set(range(700, 710))
    assert told["lifted_target"].is_finite().all()
    assert (told["lifted_target"] >= 1).all()
    ids = lifted_evidence(actions)(703, "lifted_target")
    assert set(actions.events.filter(pl.col("event_id").is_in(ids))["target"]) == {17}
    assert len(ids) == 6


def test_nobody_stands_out_for_buying_many_things():
    wide = [(800, target, 0.1 * target) for target in range(200)]
    told = dict(lifted_facts(orders(market(1) + wide)).select("account", "lifted_target").iter_rows())
    assert told[800] < np.quantile(list(told.values()), 0.9)


def test_of_targets_as_rare_the_first_is_told_whatever_the_order_of_rows():
    actions = orders([(1, 5, 1.0), (1, 3, 2.0), (2, 5, 3.0), (2, 3, 4.0)])
    for _ in range(20):
        (event,) = lifted_evidence(actions)(1, "lifted_target")
        assert actions.events.filter(pl.col("event_id") == event)["target"].item() == 3


def test_a_log_without_orders_has_no_lifted_target():
    assert lifted_facts(orders([(1, 5, -3.0)])).height == 0


@pytest.mark.parametrize("count", [101, 250, 990, 1007])
def test_no_target_is_held_against_few(count: int):
    generator = np.random.default_rng(count)
    for size in (generator.permutation(count).astype(float), np.floor(generator.exponential(3.0, count))):
        _, sizes = np.unique(peer_groups(size, CLASSES), return_counts=True)
        assert sizes.min() >= LEAST_PEERS
        assert len(sizes) <= CLASSES


def test_the_farthest_out_is_never_impossible():
    tail = upper_tail(np.append(np.linspace(0, 1, 500), [1e6, 1e9]))
    assert (tail > 0).all()
    assert (tail <= 1).all()
