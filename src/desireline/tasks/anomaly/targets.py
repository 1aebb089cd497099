"""What is measured of the targets (items, or sellers where declared) that accounts order from, and that these inherit.

A target's orders are counted against its own share of all orders before the window and against the log's orders in the
same day, so that growth, weekday and Christmas cancel. What buyers of a target are like is told to each of them by the
others alone. An account gets the mean over its targets, weighted by its orders, and the greatest. Lines of one basket
on one target are one act. Three to sixteen seconds for ten million events on two shared cores, most of it sorting.

Source of the concentration: Shopee Code League 2020, order brushing (orders an hour by unique buyers, 3 and more).
"""

from __future__ import annotations

from functools import cache

import numba
import numpy as np
import polars as pl
from numpy.typing import NDArray

from desireline.tasks.anomaly.actions import Actions
from desireline.tasks.anomaly.fact import Evidence, Fact, Form
from desireline.tasks.anomaly.orders import browses
from desireline.tasks.anomaly.spans import DAY_US, HOUR_US, acts, by_account, codes, greatest, starts, strongest, times

OTHERS = 3  # other buyers of a target, from which on shares of them are told

PROMOTION = "a promotion, a launch or a season of the item"
FAMILY = "a small circle of regular customers"
_MEASURES: dict[str, tuple[str, Form, str]] = {
    "order_burst": (
        "{value} times as many orders in the target's busiest day as its past lets expect",
        "ratio",
        PROMOTION,
    ),
    "touch_burst": (
        "{value} times as many events about the target in its busiest day as its past lets expect",
        "ratio",
        PROMOTION,
    ),
    "hour_concentration": (
        "{value} orders for each buyer in the target's most crowded hour",
        "ratio",
        "a trader who orders in parts",
    ),
    "fresh_buyers": (
        "{value} of the target's other buyers are new, or know no other target",
        "share",
        "a campaign that brings new customers",
    ),
    "devoted_orders": (
        "{value} of the target's other orders from accounts that order mostly from it",
        "share",
        FAMILY,
    ),
}
FACTS: dict[str, Fact] = {
    f"{name}_{how}": Fact(("brushing",), "high", f"{words} ({which})", form, clears)
    for name, (words, form, clears) in _MEASURES.items()
    for how, which in (("mean", "mean of its orders"), ("most", "the most striking target"))
}


def target_facts(actions: Actions) -> pl.DataFrame:
    """`account` and a column a fact in FACTS, a row an account with a judged order from a target."""
    pairs = judged_pairs(actions)
    weight = [pl.col(name).is_not_null() * pl.col("orders") for name in _MEASURES]
    means = [
        ((pl.col(name) * pl.col("orders")).sum() / each.sum()).alias(f"{name}_mean")
        for name, each in zip(_MEASURES, weight, strict=True)
    ]
    most = [pl.col(name).max().alias(f"{name}_most") for name in _MEASURES]
    return pairs.group_by("account").agg(*means, *most).select("account", *FACTS)


def target_evidence(actions: Actions) -> Evidence:
    """Judged orders of an account, those from the targets that a fact is most striking of first."""
    pairs = cache(lambda: by_account(judged_pairs(actions).sort("account", maintain_order=True)))
    orders = cache(lambda: by_account(actions.judged.filter("order")))

    def behind(account: int, fact: str) -> list[int]:
        measure = fact.rsplit("_", 1)[0]
        own = orders()(account).join(
            pairs()(account).select("target", measure), "target", "left", maintain_order="left"
        )
        return strongest(own, pl.col(measure))

    return behind


def judged_pairs(log: Actions) -> pl.DataFrame:
    """A row an account and target that it ordered from in the window: `orders`, and the measures of the target."""
    lines = acts(log.events.filter("order"), log.step_us).sort("target", "time", "account")
    judged, size = lines.filter("inside"), len(log.targets)
    pairs = judged.group_by("target", "account", maintain_order=True).agg(orders=pl.len().cast(pl.Float64))
    past = not bool(log.events["inside"].all())
    pairs = _buyers(pairs.join(_people(log, judged, past), on="account", how="left", maintain_order="left"))
    told = [_concentration(judged, log.step_us), _bursts(lines, lines, size, "order_burst")]
    if browses(log):
        every = acts(log.events, log.step_us)
        touched = every.filter(pl.col("target").is_in(judged["target"].unique().implode())).sort("target", "time")
        told.append(_bursts(touched, every, size, "touch_burst"))
    for measures in told:
        pairs = pairs.join(measures, on="target", how="left", maintain_order="left")
    if not browses(log):  # what happens to a target is its orders
        pairs = pairs.with_columns(touch_burst=pl.lit(None, pl.Float64))
    return pairs.select("target", "account", "orders", *_MEASURES)


def _buyers(pairs: pl.DataFrame) -> pl.DataFrame:
    """What the other buyers of a target are like, where there are OTHERS of them."""
    fresh, orders = pl.col("fresh").cast(pl.Float64), pl.col("orders")
    devoted = (2 * orders >= pl.col("all_orders")) * orders
    others = pl.len().over("target") - 1
    enough = others >= OTHERS
    return pairs.with_columns(
        fresh_buyers=pl.when(enough).then((fresh.sum().over("target") - fresh) / others),
        devoted_orders=pl.when(enough).then(
            (devoted.sum().over("target") - devoted) / (orders.sum().over("target") - orders)
        ),
    )


def _people(actions: Actions, judged: pl.DataFrame, past: bool) -> pl.DataFrame:
    """Of the buyers: whether the account is new in the window or touched one target alone, and its order acts."""
    bought = judged.group_by("account").agg(all_orders=pl.len())
    own = actions.events.filter(pl.col("account").is_in(bought["account"].implode()))
    new = pl.col("inside").all() if past else pl.lit(False)
    lone = pl.col("target").min() == pl.col("target").max()  # cheaper than counting distinct ones
    return own.group_by("account").agg(fresh=new | lone).join(bought, on="account")


def _bursts(lines: pl.DataFrame, every: pl.DataFrame, targets: int, name: str) -> pl.DataFrame:
    """The greatest (n + 1) / (λ + 1) of each target over days that end with one of its judged acts.

    n are the target's judged acts in that day; λ is its share of the acts before the window, with one act more for
    each target, times all judged acts of the same day. Null where there is nothing before the window.

    lines : acts of some targets, ascending by target and time;  every : the acts of the log
    """
    before = every.filter(~pl.col("inside")).height
    inside = np.sort(times(every.filter("inside")))
    known = lines.group_by("target").agg(known=(~pl.col("inside")).sum())
    judged = lines.filter("inside")
    target, time = codes(judged, "target"), times(judged)
    start = starts(target)
    own = known["known"].to_numpy()[np.argsort(known["target"].to_numpy())]
    of = np.searchsorted(np.sort(known["target"].to_numpy()), target[start[:-1]])
    share = np.repeat((own[of] + 1.0) / (before + targets), np.diff(start))
    count = _behind(time, start, DAY_US)
    level = np.searchsorted(inside, time, "right") - np.searchsorted(inside, time - DAY_US, "right")
    ratio = greatest((count + 1) / (share * level + 1), start)
    found = pl.DataFrame(
        {"target": judged["target"].gather(start[:-1]), name: ratio}, schema_overrides={name: pl.Float64}
    )
    return found if before else found.with_columns(pl.lit(None, pl.Float64).alias(name))


def _concentration(judged: pl.DataFrame, step_us: int) -> pl.DataFrame:
    """The most order acts a buyer within an hour of each target; null where the clock has steps of an hour or more."""
    account, target, time = codes(judged, "account"), codes(judged, "target"), times(judged)
    start = starts(target)
    ratio = greatest(_an_hour(account, time, start, HOUR_US, int(account.max(initial=0)) + 1), start)
    if step_us >= HOUR_US:
        ratio[:] = np.nan
    found = pl.DataFrame({"target": judged["target"].gather(start[:-1]), "hour_concentration": ratio})
    return found.with_columns(pl.col("hour_concentration").cast(pl.Float64).fill_nan(None))


@numba.njit(cache=True, nogil=True)
def _behind(time: NDArray[np.int64], start: NDArray[np.int64], span_us: int) -> NDArray[np.int64]:  # pragma: no cover
    """int64 [N]: rows of the own group in (time − span, time], all of one moment counted."""
    found = np.empty(len(time), np.int64)
    for group in range(len(start) - 1):
        low, end = start[group], start[group]
        for row in range(start[group], start[group + 1]):
            while time[low] <= time[row] - span_us:
                low += 1
            while end < start[group + 1] and time[end] <= time[row]:
                end += 1
            found[row] = end - low
    return found


@numba.njit(cache=True, nogil=True)
def _an_hour(
    account: NDArray[np.int64], time: NDArray[np.int64], start: NDArray[np.int64], span_us: int, accounts: int
) -> NDArray[np.float64]:  # pragma: no cover
    """float64 [N]: rows of the own group in [time, time + span) by distinct accounts among them."""
    found = np.empty(len(time))
    held = np.zeros(accounts, np.int64)
    for group in range(len(start) - 1):
        end, distinct = start[group], 0
        for row in range(start[group], start[group + 1]):
            while end < start[group + 1] and time[end] < time[row] + span_us:
                distinct += held[account[end]] == 0
                held[account[end]] += 1
                end += 1
            found[row] = (end - row) / distinct
            held[account[row]] -= 1
            distinct -= held[account[row]] == 0
    return found
