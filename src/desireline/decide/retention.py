"""Whom it pays to keep: expected profit of contacting each user, a list under a budget, and how far to trust it.

A contact costs `cost`. Of those who would leave, a share `accept` stays because of it, takes the offer and brings the
value of a year, less the offer; of those who would have stayed anyway a share `loyal_take` takes the offer too:

    profit = p · accept · (margin · V − offer) − (1 − p) · loyal_take · offer − cost

(Neslin et al. 2006, Journal of Marketing Research 43, 204, equation 1, with the contact paid in any case). `accept` is
an assumption unless an experiment has measured it: risk of leaving is not willingness to be kept (Ascarza 2018, ibid.
55, 80). So the answer carries its assumptions, what becomes of the profit if they are wrong, and a plan for the
experiment. Where the log holds a randomised one, the contact's effect on each user, τ, takes the place of p · accept:

    profit = τ · margin · V − max(τ, 0) · offer − (1 − p) · loyal_take · offer − cost

with τ kept between p − 1 and p: a contact keeps no more than would leave, and drives away no more than would stay.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from statistics import NormalDist
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from desireline.core.errors import SettingError
from desireline.decide.measured import Measured
from desireline.evaluation.intervals import user_interval

Floats = NDArray[np.float64]
POINTS = 20  # of the profit curve
RESAMPLES = 200
POWER, SIZE = 0.8, 0.05  # of the planned experiment
NO_EXPERIMENT = "not estimated: the log has no randomised treatment, so nobody can tell from it whom a contact changes"
SEGMENTS_OUT = ("lapsed", "prospect")  # whom a contact would have to win, not to keep


@dataclass(frozen=True)
class Assumptions:
    """What is not in the log, in the log's unit of value where it is money.

    cost : of one contact;  offer : of what who takes it gets;  accept : share of leavers whom the contact keeps
    loyal_take : share of stayers who take the offer;  margin : share of value that is profit
    """

    cost: float
    offer: float = 0.0
    accept: float = 0.2
    loyal_take: float = 1.0
    margin: float = 1.0

    def __post_init__(self) -> None:
        for name in ("cost", "offer"):
            if getattr(self, name) < 0:
                raise SettingError(f"--{name} {getattr(self, name)}: give 0 or more.")
        for name in ("accept", "loyal_take", "margin"):
            if not 0 <= getattr(self, name) <= 1:
                raise SettingError(f"--{name.replace('_', '-')} {getattr(self, name)}: give a share from 0 to 1.")


@dataclass(frozen=True)
class Contact:
    """One user of the list: `value` of a year, `profit` expected from the contact.

    uplift : what the contact adds to the probability to stay; None where no experiment tells
    """

    user: str
    probability: float
    segment: str
    value: float
    profit: float
    uplift: float | None = None


@dataclass(frozen=True)
class Decision:
    """Whom to contact, best first, and what is expected of it.

    spent : cost of the contacts and offers expected;  profit : expected, with `low` and `high`, 95 % by bootstrap over
    users: it tells how much hangs on few users, not whether the assumptions hold
    others : the same budget spent by risk alone, by value alone, at random
    curve : share of users contacted, best first, and the profit expected with its interval
    sensitivity : one assumption halved or doubled: users worth a contact, and the profit
    break_even_cost : of a contact, at which the last user of the list brings nothing
    uplift : what is known of the contact's effect, in words;  measured : the experiment behind it, None without one
    """

    as_of: str
    budget: float
    assumptions: Assumptions
    users: int
    contacts: list[Contact]
    spent: float
    profit: float
    low: float
    high: float
    others: dict[str, float]
    curve: list[dict[str, float]]
    sensitivity: list[dict[str, Any]]
    break_even_cost: float | None
    uplift: str
    experiment: dict[str, Any]
    measured: Measured | None = None

    def to_json(self) -> dict[str, Any]:
        """As the command prints it."""
        return {"task": "churn", **asdict(self)}


def expected_profit(probability: Floats, value: Floats, a: Assumptions, effect: Floats | None = None) -> Floats:
    """float64 [U]: the equation of the module. `effect` : float64 [U], τ; None: probability times `accept`."""
    kept = probability * a.accept if effect is None else effect
    return np.asarray(kept * a.margin * value - expected_cost(probability, a, effect), np.float64)


def expected_cost(probability: Floats, a: Assumptions, effect: Floats | None = None) -> Floats:
    """float64 [U]: what contacting a user is expected to cost, the offer included."""
    kept = probability * a.accept if effect is None else np.maximum(effect, 0.0)
    return np.asarray(a.cost + (kept + (1 - probability) * a.loyal_take) * a.offer, np.float64)


def decide(
    risks: pl.DataFrame, budget: float, a: Assumptions, as_of: str, seed: int, measured: Measured | None = None
) -> Decision:
    """The list for a budget.

    risks : `user, probability, segment, value`, one row a user; `value` of a year; with `uplift` where it was measured
    measured : the experiment that was declared, whether its effect could be told or not

    Users are taken by profit a unit of cost as long as the profit is positive and the budget lasts, which is the best
    list where all contacts cost the same, and else at most one contact short of it. Raises SettingError for a budget
    below 0.
    """
    if not budget >= 0:
        raise SettingError(f"--budget {budget}: give 0 or more.")
    there = risks.filter(~pl.col("segment").is_in(SEGMENTS_OUT))
    probability, value = there["probability"].to_numpy(), there["value"].to_numpy()
    effect = _possible(there["uplift"].to_numpy(), probability) if "uplift" in there.columns else None
    profit, cost = expected_profit(probability, value, a, effect), expected_cost(probability, a, effect)
    order = _by_rate(profit, cost)
    listed = _affordable(order[profit[order] > 0], cost, budget)
    contacts = [
        Contact(
            str(there["user"][i]),
            float(probability[i]),
            str(there["segment"][i]),
            float(value[i]),
            float(profit[i]),
            None if effect is None else float(effect[i]),
        )
        for i in listed.tolist()
    ]
    is_listed = np.zeros(len(profit))
    is_listed[listed] = profit[listed]
    total = user_interval(is_listed, np.arange(len(profit)), RESAMPLES, seed)  # a user's mean
    generator = np.random.default_rng(seed)
    ways = {"risk alone": -probability, "value alone": -value, "random": generator.random(len(profit))}
    others = {
        name: float(profit[_affordable(np.argsort(key, kind="stable"), cost, budget)].sum())
        for name, key in ways.items()
    }
    assumed = ("margin", "cost", "offer") if effect is not None else ("accept", "margin", "cost", "offer")
    changes = [(name, factor) for name in assumed for factor in (0.5, 2.0)]
    sensitivity = [_changed(name, factor, probability, value, effect, budget, a) for name, factor in changes]
    if effect is not None and measured is not None and measured.evaluation is not None:
        average = measured.evaluation.average
        for end in (average.low, average.high):  # all effects moved by what the average may be off
            shifted = _possible(effect + (end - average.value), probability)
            sensitivity.append(_list_if("average effect", end, probability, value, shifted, budget, a))
    return Decision(
        as_of,
        float(budget),
        a,
        there.height,
        contacts,
        float(cost[listed].sum()),
        float(profit[listed].sum()),
        *((total.low * len(profit), total.high * len(profit)) if len(listed) else (0.0, 0.0)),
        others,
        _curve(profit[order]),
        [told for told in sensitivity if told is not None],
        float(a.cost + profit[listed[-1]]) if len(listed) else None,
        measured.told if measured is not None else NO_EXPERIMENT,
        experiment(float(probability[listed].mean()) if len(listed) else float("nan"), a.accept, len(listed)),
        measured,
    )


def experiment(churn: float, accept: float, listed: int) -> dict[str, Any]:
    """How many users each arm needs to see that a contact lowers `churn` by the share `accept`, at 80 % power.

    listed : users of the list from which they would be drawn

    Two-sided test of two proportions at 5 %: n = (z₁₋α/₂ + z_power)² (p(1 − p) + q(1 − q)) / (p − q)².
    """
    kept = churn * (1 - accept)
    if not 0 < kept < churn < 1:
        return {"users_per_arm": None, "why": "no user is worth a contact, or the assumed effect is nil"}
    z = NormalDist().inv_cdf(1 - SIZE / 2) + NormalDist().inv_cdf(POWER)
    needed = math.ceil(z * z * (churn * (1 - churn) + kept * (1 - kept)) / (churn - kept) ** 2)
    short = ""
    if 2 * needed > listed:
        short = f" The list has {listed:,} users: raise the budget, or add up several rounds."
    return {
        "users_per_arm": needed,
        "power": POWER,
        "size": SIZE,
        "churn_without": churn,
        "churn_with": kept,
        "how": f"Draw {2 * needed:,} users of the list at random, contact every second one, and compare when the "
        "horizon is over. Log an event for everybody when drawn, with the arm as a category field, and name it in "
        f"churn.treatment.{short}",
    }


def _possible(effect: Floats, probability: Floats) -> Floats:
    return np.clip(effect, probability - 1, probability)


def _by_rate(profit: Floats, cost: Floats) -> NDArray[np.int64]:
    return np.argsort(-profit / np.maximum(cost, 1e-12), kind="stable")


def _affordable(order: NDArray[np.int64], cost: Floats, budget: float) -> NDArray[np.int64]:
    return order[np.cumsum(cost[order]) <= budget + 1e-9]


def _curve(profit: Floats) -> list[dict[str, float]]:
    """The profit of the first so many users, best first; 95 % by the normal law of a sum over users drawn again."""
    total, squares = (np.concatenate([[0.0], np.cumsum(part)]) for part in (profit, profit**2))
    found = []
    for count in np.unique(np.linspace(0, len(profit), POINTS + 1).astype(np.int64)).tolist():
        middle, error = float(total[count]), 1.96 * math.sqrt(float(squares[count]))
        point = {"share": count / max(1, len(profit)), "users": float(count), "profit": middle}
        found.append(point | {"low": middle - error, "high": middle + error})
    return found


def _changed(
    name: str,
    factor: float,
    probability: Floats,
    value: Floats,
    effect: Floats | None,
    budget: float,
    a: Assumptions,
) -> dict[str, Any] | None:
    """What becomes of the list when one assumption is another; None where it would be no change."""
    changed = getattr(a, name) * factor
    if name != "cost" and name != "offer":
        changed = min(1.0, changed)
    if changed == getattr(a, name):
        return None
    return _list_if(name, changed, probability, value, effect, budget, replace(a, **{name: changed}))


def _list_if(
    name: str, is_: float, probability: Floats, value: Floats, effect: Floats | None, budget: float, a: Assumptions
) -> dict[str, Any]:
    profit, cost = expected_profit(probability, value, a, effect), expected_cost(probability, a, effect)
    order = _by_rate(profit, cost)
    listed = _affordable(order[profit[order] > 0], cost, budget)
    return {"assumption": name, "value": is_, "contacts": len(listed), "profit": float(profit[listed].sum())}
