"""The list under a budget: its sums by hand, and what no budget or no worth makes of it."""

from __future__ import annotations

import polars as pl
import pytest

from desireline.core.errors import SettingError
from desireline.decide.retention import Assumptions, decide, experiment


def risks(rows: list[tuple[str, float, str, float]]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=["user", "probability", "segment", "value"], orient="row")


FOUR = risks(
    [
        ("likely and dear", 0.8, "established, high value", 500.0),  # .8 · .25 · 500 − 2 = 98
        ("likely and cheap", 0.9, "new, low value", 20.0),  # .9 · .25 · 20 − 2 = 2.5
        ("loyal", 0.01, "established, high value", 500.0),  # .01 · .25 · 500 − 2 < 0
        ("long gone", 0.99, "lapsed", 900.0),  # is won, not kept
    ]
)


def test_the_profit_of_each_is_the_equation() -> None:
    found = decide(FOUR, 100, Assumptions(cost=2, accept=0.25), "2011-01-01", 0)
    assert [c.user for c in found.contacts] == ["likely and dear", "likely and cheap"]
    assert [c.profit for c in found.contacts] == pytest.approx([98.0, 2.5])
    assert found.profit == pytest.approx(100.5)
    assert found.spent == pytest.approx(4.0)
    assert found.break_even_cost == pytest.approx(4.5)
    assert found.low <= found.profit <= found.high


def test_the_budget_is_kept_and_goes_to_the_best() -> None:
    found = decide(FOUR, 3, Assumptions(cost=2, accept=0.25), "2011-01-01", 0)
    assert [c.user for c in found.contacts] == ["likely and dear"]
    assert found.spent <= 3
    assert found.others["risk alone"] == pytest.approx(2.5)
    nothing = decide(FOUR, 0, Assumptions(cost=2), "2011-01-01", 0)
    assert nothing.contacts == []
    assert nothing.profit == 0


def test_an_offer_that_everybody_takes_costs_where_nobody_leaves() -> None:
    a = Assumptions(cost=0, offer=10, accept=0.5)
    found = decide(risks([("u", 0.5, "new", 100.0)]), 1000, a, "2011-01-01", 0)
    assert found.contacts[0].profit == pytest.approx(0.5 * 0.5 * (100 - 10) - 0.5 * 10)


def test_halved_acceptance_is_told() -> None:
    found = decide(FOUR, 100, Assumptions(cost=2, accept=0.25), "2011-01-01", 0)
    halved = next(s for s in found.sensitivity if s["assumption"] == "accept" and s["value"] == 0.125)
    assert halved["contacts"] == 2
    assert halved["profit"] == pytest.approx((0.8 * 0.125 * 500 - 2) + (0.9 * 0.125 * 20 - 2))


def test_the_experiment_needs_as_many_as_the_textbook_says() -> None:
    # (1.9600 + 0.8416)² · (.5 · .5 + .4 · .6) / .1²
    assert experiment(0.5, 0.2, 1000)["users_per_arm"] == 385
    assert experiment(0.5, 0.2, 1000)["how"].startswith("Draw 770 users")
    assert "The list has 100" in experiment(0.5, 0.2, 100)["how"]
    assert experiment(float("nan"), 0.2, 0)["users_per_arm"] is None


@pytest.mark.parametrize("wrong", [{"cost": -1.0}, {"cost": 1.0, "accept": 1.5}, {"cost": 1.0, "margin": -0.1}])
def test_impossible_assumptions_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(SettingError):
        Assumptions(**wrong)


def test_a_measured_effect_takes_the_place_of_the_assumed_one() -> None:
    measured = FOUR.with_columns(uplift=pl.Series([-0.1, 0.3, 0.2, 0.5]))
    found = decide(measured, 100, Assumptions(cost=2, accept=0.25, margin=0.5), "2011-01-01", 0)
    # the likely and dear is driven away; a contact keeps no more of the loyal than would leave: .01 · .5 · 500 − 2
    assert [(c.user, c.uplift) for c in found.contacts] == [("likely and cheap", 0.3), ("loyal", 0.01)]
    assert [c.profit for c in found.contacts] == pytest.approx([0.3 * 0.5 * 20 - 2, 0.5])
    assert {told["assumption"] for told in found.sensitivity} == {"margin", "cost"}
