"""What a card says: values with their units, and the normal account that is most like a suspect."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from desireline.tasks.anomaly import cards
from desireline.tasks.anomaly.cards import ALL_TOGETHER, NORMAL, Normal, kind_scores, written
from desireline.tasks.anomaly.fact import KINDS, Fact
from desireline.tasks.anomaly.suspicion import BANDS, Suspicion
from desireline.tasks.anomaly.task import bands

COUNT = Fact(("bot",), "high", "{value} events in an hour", "count", "nothing")


def suspected(accounts: int, facts: int, seed: int = 0) -> Suspicion:
    generator = np.random.default_rng(seed)
    rare = {f"fact{n}": generator.uniform(1e-4, 1, accounts) for n in range(facts)}
    rare["fact1"][::3] = np.nan
    measures = pl.DataFrame({name: np.where(np.isnan(p), np.nan, np.round(9 / p)) for name, p in rare.items()})
    kinds = np.full((accounts, len(KINDS)), 0.5)
    return Suspicion(kinds, generator.uniform(0, 1, accounts), rare, measures.fill_nan(None))


def test_the_nearest_normal_account_is_that_of_a_plain_loop(monkeypatch):
    found, known = suspected(300, 5), {f"fact{n}": COUNT for n in range(5)}
    users = [f"u{n}" for n in range(300)]
    normal, suspect, names = Normal.of(found), 7, ["fact0", "fact3"]

    def far(row: int) -> float:
        own = [-np.log(p[[row, suspect]]) for name, p in found.rarities.items() if name not in names]
        return float(sum(np.diff(np.where(np.isnan(pair), 1.0, pair))[0] ** 2 for pair in own))

    near = min((row for row in range(300) if found.p_value[row] >= NORMAL), key=far)
    told = normal.nearest(suspect, names, known, users)
    assert told is not None
    assert told.user == users[near]
    assert told.differs == [f"{found.measures[name][near]:,.0f} events in an hour" for name in names]
    monkeypatch.setattr(cards, "MOST_NORMAL", 20)
    few = Normal.of(found)
    assert 0 < len(few.rows) <= 20
    assert set(few.rows) <= set(normal.rows)


def test_where_nobody_is_normal_or_nothing_is_left_to_compare_there_is_none():
    found = suspected(50, 2)
    all_of_them = list(found.rarities)
    assert Normal.of(found).nearest(0, all_of_them, dict.fromkeys(all_of_them, COUNT), ["u"] * 50) is None
    wild = Suspicion(found.kinds, np.full(50, 1e-9), found.rarities, found.measures)
    assert Normal.of(wild).nearest(0, [], {}, ["u"] * 50) is None
    bare = Suspicion(found.kinds, np.ones(50), {}, found.measures)
    assert Normal.of(bare).nearest(0, [], {}, ["u"] * 50) is None


@pytest.mark.parametrize(("value", "said"), [(1234.0, "1,234"), (1e300, "more than 1,000,000,000")])
def test_a_count_is_a_figure_that_can_be_read(value: float, said: str):
    assert written(value, COUNT) == said


def test_an_account_counts_once_in_its_band_however_many_seeds_judged_it():
    score, truth = np.array([0.5, 2.5, 2.7, 12.0]), np.array([0.0, 0.0, 1.0, 1.0])
    once, thrice = bands(score, truth), bands(np.tile(score, 3), np.tile(truth, 3), 3)
    assert once == thrice
    assert [band["from"] for band in once] == list(BANDS)
    assert [band["accounts"] for band in once] == [1, 0, 0, 2, 0, 0, 1]
    assert [band["planted"] for band in once] == [0, 0, 0, 1, 0, 0, 1]


def test_where_no_fact_is_telling_the_rarest_of_all_kinds_are_named():
    own = {"usual": 0.9, "third": 0.2, "rarest": 0.06, "unmeasured": np.nan, "second": 0.1, "fourth": 0.28}
    rare = {name: np.append(p, np.full(99, 0.5)) for name, p in own.items()}  # of a hundred accounts
    kinds = np.full((100, len(KINDS)), 0.5)
    kinds[0, 2] = 0.2
    found = Suspicion(kinds, np.full(100, 0.01), rare, pl.DataFrame(rare))
    known = {name: Fact(("review",), "high", name, "share", f"why {name}") for name in rare}
    told = kind_scores(found, 0, known, lambda row, name: [len(name)], {})
    assert told[0].kind == list(KINDS)[2]
    assert told[0].reasons == [
        f"{ALL_TOGETHER}. The rarest:",
        "rarest (1 in 17 of accounts as active)",
        "second (1 in 10 of accounts as active)",
        "third (1 in 5.0 of accounts as active)",
    ]
    assert told[0].evidence == [6, 5]
    assert told[0].clears == ["why rarest", "why second", "why third"]
    assert all(kind.reasons == [] for kind in told[1:])
    calm = Suspicion(kinds, np.full(100, 0.2), rare, found.measures)
    assert all(kind.reasons == [] for kind in kind_scores(calm, 0, known, lambda row, name: [], {}))
