"""Targets that somebody lifts: more orders than their past lets expect, and the same buyers again and again.

Fake orders hide in accounts that look like any other; what gives them away is whom they serve. A target is held against
targets that had as many orders before the window: by its growth, and by its orders for each buyer. An account's pair
with a target adds how often it ordered there. The account gets its rarest pair, corrected for how many it has, so that
who buys many things is not suspected for it.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import polars as pl
from numpy.typing import NDArray

from desireline.tasks.anomaly.actions import Actions
from desireline.tasks.anomaly.fact import Evidence, Fact
from desireline.tasks.anomaly.peers import Floats, peer_groups, upper_tail
from desireline.tasks.anomaly.spans import acts, by_account, strongest

CLASSES = 10  # of targets by their orders, within which they are held against each other

FACTS: dict[str, Fact] = {
    "lifted_target": Fact(
        ("brushing",),
        "high",
        "orders from a target whose growth and repeated buyers are those of 1 in {value}",
        "count",
        "a promotion, a launch or a season of the item, or traders who order in parts",
    ),
}


def lifted_facts(actions: Actions) -> pl.DataFrame:
    """`account` and `lifted_target`, 1 / p of its rarest pair, a row an account with a judged order."""
    pairs = _pairs(actions)
    if pairs.height == 0:
        return pl.DataFrame(schema={"account": pl.UInt32, "lifted_target": pl.Float64})
    least = pairs.group_by("account").agg(p=pl.col("p").min(), pairs=pl.len())
    p = -np.expm1(least["pairs"].to_numpy() * np.log1p(-np.minimum(least["p"].to_numpy(), 1 - 1e-12)))
    return least.select("account", lifted_target=pl.Series(1 / p))


def lifted_evidence(actions: Actions) -> Evidence:
    """Judged orders of an account from its rarest pair's target."""
    pairs = cache(lambda: by_account(_pairs(actions).sort("account", "p", "target")))
    orders = cache(lambda: by_account(actions.judged.filter("order")))

    def behind(account: int, fact: str) -> list[int]:
        rarest = pairs()(account).head(1).select("target", hit=pl.lit(1.0))
        return strongest(orders()(account).join(rarest, "target", "left", maintain_order="left"), pl.col("hit"))

    return behind


def _pairs(actions: Actions) -> pl.DataFrame:
    """A row an account and target with a judged order: `p`, how rare a pair is that speaks as much for lifting."""
    lines = acts(actions.events.filter("order"), actions.step_us)
    before = lines.filter(~pl.col("inside")).group_by("target").agg(past=pl.len())
    pairs = lines.filter("inside").group_by("target", "account").agg(orders=pl.len())
    if pairs.height == 0:
        return pairs.with_columns(p=pl.lit(1.0))
    targets = pairs.group_by("target").agg(now=pl.col("orders").sum(), buyers=pl.len())
    targets = targets.join(before, on="target", how="left").with_columns(pl.col("past").fill_null(0)).sort("target")
    now, past, buyers = (targets[name].to_numpy().astype(np.float64) for name in ("now", "past", "buyers"))
    total, earlier = now.sum(), past.sum()
    expected = (past + 0.5) * total / (earlier + 0.5 * len(now)) if earlier else np.full(len(now), total / len(now))
    growth = np.log((now + 1) / (expected + 1))
    alike = peer_groups(past if earlier else now, CLASSES)
    surprisal = -np.log(_tails(growth, alike)) - np.log(_tails(now / buyers, peer_groups(now, CLASSES)))
    rare = targets.select("target", "now", surprisal=pl.Series(surprisal))
    pairs = pairs.join(rare, on="target", maintain_order="left")
    orders = pairs["orders"].to_numpy().astype(np.float64)
    both = pairs["surprisal"].to_numpy() - np.log(upper_tail(orders))
    return pairs.select("target", "account", "orders", p=pl.Series(upper_tail(both)))


def _tails(values: Floats, group: NDArray[np.int64]) -> Floats:
    """float64 [n]: `upper_tail` within each group."""
    found = np.empty(len(values))
    for one in np.unique(group):
        found[group == one] = upper_tail(values[group == one])
    return found
