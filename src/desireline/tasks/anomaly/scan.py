"""What a look at the whole log finds without a network: measures of every account, and groups of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import polars as pl
from numpy.typing import NDArray

from desireline.tasks.anomaly.actions import Actions
from desireline.tasks.anomaly.facts import account_facts
from desireline.tasks.anomaly.groups import Group, find_groups, membership

Floats: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True)
class Scan:
    """Of the A accounts with an event in the window.

    users : String Series [A];  facts : frame [A], `account` and a Float64 column for each name of FACTS
    activity : float64 [A], occasions in the window: by them accounts are peers
    old : bool [A], whether the account did anything before the window: a new one cannot have been taken over
    groups : of all accounts of `actions`, by their rows there
    grouped : "ring" and "review" -> float64 [A], p-value of the least likely group of the kind that the account is
        in, as that of one account: the group's is corrected for the whole log, so it counts for one of A;  1: in none
    """

    actions: Actions
    users: pl.Series
    facts: pl.DataFrame
    activity: Floats
    old: NDArray[np.bool_]
    groups: list[Group]
    grouped: dict[str, Floats]

    def __len__(self) -> int:
        return self.facts.height


def scan(actions: Actions, seed: int = 0) -> Scan:
    """Look at the judged window of a log."""
    facts = account_facts(actions)
    groups = find_groups(actions, seed)
    rows = facts["account"].to_numpy()
    moments = actions.judged.group_by("account").agg(n=pl.col("time").n_unique().cast(pl.Float64))
    activity = facts.select("account").join(moments, on="account", how="left", maintain_order="left")["n"]
    before = actions.events.filter(~pl.col("inside"))["account"].unique()
    old = facts["account"].is_in(before.implode()).to_numpy()
    grouped = {}
    for kind in ("ring", "review"):
        inside = membership(groups, len(actions.users), kind)[rows]
        grouped[kind] = np.where(inside > 0, 10.0**-inside / len(rows), 1.0)
    return Scan(actions, actions.users.gather(rows), facts, activity.to_numpy(), old, groups, grouped)
