"""What verdicts teach: neighbours by hand, what people confirm comes up, what they dismiss sinks."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import polars as pl
import pytest

from desireline.tasks.anomaly.actions import Actions
from desireline.tasks.anomaly.learned import (
    DRAWN,
    LEAST_CONFIRMED,
    confirmed,
    features,
    learned,
    neighbour_means,
    taught,
)
from desireline.tasks.anomaly.scan import Scan
from desireline.tasks.anomaly.suspicion import Suspicion

BEGIN, END = datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 2, 1, tzinfo=UTC)


def scanned(edges: list[tuple[int, int | None]], accounts: list[int]) -> Scan:
    """Accounts of a log of 50, in the window those named, with events about targets."""
    events = pl.DataFrame(
        {"account": [a for a, _ in edges], "target": [t for _, t in edges], "inside": [True] * len(edges)},
        schema={"account": pl.UInt32, "target": pl.UInt32, "inside": pl.Boolean},
    )
    people, targets = (pl.Series([f"{letter}{n}" for n in range(50)]) for letter in "ut")
    actions = Actions(events, people, targets, targets, ["view"], BEGIN, END, 1)
    count = len(accounts)
    facts = pl.DataFrame({"account": pl.Series(accounts, dtype=pl.UInt32)})
    return Scan(actions, people.gather(accounts), facts, np.ones(count), np.ones(count, bool), [], np.ones(count))


def test_neighbours_are_who_shares_targets_weighted_by_how_few_do():
    generator = np.random.default_rng(0)
    accounts = sorted(generator.choice(50, 30, replace=False).tolist())  # rows are not the accounts' numbers
    edges = [(int(generator.choice(accounts)), int(t)) for t in generator.integers(0, 25, 90)]
    edges += [(accounts[-1], None), *edges[:20]]  # twice is no more than once
    columns = generator.normal(size=(30, 3))
    told = neighbour_means(scanned(edges, accounts), columns)
    had = [{t for a, t in edges if a == account and t is not None} for account in accounts]
    of_target = {t: sum(t in some for some in had) for t in range(25)}
    for row in range(30):
        near = [sum(1 / of_target[t] for t in had[row] & had[other]) if other != row else 0.0 for other in range(30)]
        slow = columns[row] if sum(near) == 0 else np.average(columns, axis=0, weights=near)
        np.testing.assert_allclose(told[row], slow, atol=1e-9)


def test_features_stand_beside_their_accounts():
    found = scanned([(3, 0), (7, 0), (9, 1)], [3, 7, 9])
    judged = Suspicion(np.full((3, 5), 0.5), np.full(3, 0.5), {"fact": np.array([0.1, np.nan, 0.2])}, pl.DataFrame())
    made = features(found, judged)
    assert made["user"].to_list() == ["u3", "u7", "u9"]
    assert made["fact"].to_list() == pytest.approx([-np.log(0.1), None, -np.log(0.2)])
    assert made["around: fact"].to_list() == pytest.approx([1.0, -np.log(0.1), -np.log(0.2)])


def accounts(count: int, seed: int = 0) -> pl.DataFrame:
    generator = np.random.default_rng(seed)
    names = ("loud", "fast", "late", "odd")
    columns = {name: generator.exponential(size=count) for name in names}
    return pl.DataFrame({"user": [f"u{n}" for n in range(count)], **columns})


def verdicts(current: pl.DataFrame, right: list[int], wrong: list[int]) -> pl.DataFrame:
    rows = current[right + wrong]
    return rows.with_columns(alert=pl.lit("a"), confirmed=pl.Series([True] * len(right) + [False] * len(wrong)))


def planted() -> tuple[pl.DataFrame, pl.DataFrame]:
    """Sixty accounts are loud and fast, sixty others loud and late; people confirm the former, dismiss the latter."""
    current = accounts(1200).with_columns(
        loud=pl.when(pl.int_range(pl.len()) < 120).then(pl.col("loud") + 4).otherwise("loud"),
        fast=pl.when(pl.int_range(pl.len()) < 60).then(pl.col("fast") + 4).otherwise("fast"),
        late=pl.when(pl.int_range(pl.len()).is_between(60, 119)).then(pl.col("late") + 4).otherwise("late"),
    )
    return current, verdicts(current, list(range(25)), list(range(60, 85)))


def test_what_is_confirmed_comes_up_and_what_is_dismissed_sinks():
    current, said = planted()
    odds = learned(current, said, seed=0)
    assert odds is not None
    assert np.isfinite(odds).all()
    like_right, like_wrong, others = odds[25:60], odds[85:120], odds[120:]
    assert np.median(like_right) > np.quantile(others, 0.98)
    assert np.median(like_wrong) < np.median(like_right) - 2
    before = Suspicion(np.full((1200, 5), 0.5), np.where(np.arange(1200) < 120, 1e-3, 0.5), {}, pl.DataFrame())
    after = taught(before, odds)
    assert np.quantile(after.p_value[25:60], 0.9) < np.quantile(after.p_value[85:120], 0.1)
    assert np.median(after.p_value[85:120]) > 5 * 1e-3  # they were as suspicious before
    assert ((after.p_value > 0) & (after.p_value <= 1)).all()
    np.testing.assert_array_equal(after.kinds, before.kinds)


def test_nothing_is_learnt_of_few():
    current = accounts(100)
    few = verdicts(current, list(range(LEAST_CONFIRMED - 1)), list(range(20, 60)))
    assert learned(current, few, 0) is None
    twice = pl.concat([few, few.with_columns(alert=pl.lit("b"))])  # the same accounts in two alerts
    assert confirmed(twice) == LEAST_CONFIRMED - 1
    assert learned(current, twice, 0) is None
    assert learned(current, verdicts(current, list(range(LEAST_CONFIRMED)), []), 0) is not None


def test_the_same_verdicts_teach_the_same():
    current, said = planted()
    first, again = learned(current, said, 3), learned(current, said, 3)
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, learned(current, said, 4))


def test_columns_that_came_or_went_since_a_verdict_are_no_obstacle():
    current, said = planted()
    odds = learned(current.with_columns(new=pl.lit(None, pl.Float64)), said.drop("odd").with_columns(gone=1.0), 0)
    assert odds is not None
    assert np.median(odds[25:60]) > np.quantile(odds[120:], 0.95)


def test_who_is_drawn_into_every_bag_is_ranked_as_the_others_are():
    current = accounts(LEAST_CONFIRMED * (DRAWN + 1) + 3)  # all but three of the unlabelled are drawn each time
    odds = learned(current, verdicts(current, list(range(LEAST_CONFIRMED)), []), 0)
    assert odds is not None
    free = odds[LEAST_CONFIRMED:]
    assert (free == free.min()).sum() < len(free) / 4
    assert free.min() > -15  # a mean over bags and no sum of them
