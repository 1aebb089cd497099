"""What is measured of each account without any network: one row an account, one column a fact.

Facts are plain values of the judged window, some against the account's or the item's own past; ranks among peers are
taken later. What a log cannot tell (no looks at items, no values, no stars, a clock of days) is null for everybody.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import polars as pl

from desireline.core.errors import SettingError
from desireline.tasks.anomaly import lifted, orders, reviews, rhythm, takeover, targets
from desireline.tasks.anomaly.actions import Actions
from desireline.tasks.anomaly.fact import Evidence, Fact


class Part(NamedTuple):
    """Facts that are measured together."""

    facts: dict[str, Fact]
    measure: Callable[[Actions], pl.DataFrame]
    evidence: Callable[[Actions], Evidence]


PARTS = (
    Part(orders.FACTS, orders.order_facts, orders.order_evidence),
    Part(targets.FACTS, targets.target_facts, targets.target_evidence),
    Part(lifted.FACTS, lifted.lifted_facts, lifted.lifted_evidence),
    Part(reviews.FACTS, reviews.review_facts, reviews.review_evidence),
    Part(rhythm.FACTS, rhythm.rhythm_facts, rhythm.rhythm_evidence),
    Part(takeover.FACTS, takeover.takeover_facts, takeover.takeover_evidence),
)
FACTS: dict[str, Fact] = {name: fact for part in PARTS for name, fact in part.facts.items()}


def account_facts(actions: Actions) -> pl.DataFrame:
    """All facts of all accounts with an event in the judged window.

    Returns `account` (UInt32, ascending) and a Float64 column a fact, in the order of FACTS; null: not defined.
    """
    found = actions.judged.select(pl.col("account").unique().sort())
    for part in PARTS:
        found = found.join(part.measure(actions), on="account", how="left", maintain_order="left")
    return found.select("account", pl.col(list(FACTS)).cast(pl.Float64).fill_nan(None))


def evidence_of(actions: Actions) -> Evidence:
    """What gives the events behind a fact of an account that is not null: ids, the most telling first, at most 20.

    What a part needs of the whole log is measured when one of its facts is asked for first, and then kept.

    Raises SettingError when no fact has that name.
    """
    behind = {name: told for part in PARTS for told in [part.evidence(actions)] for name in part.facts}

    def ids(account: int, fact: str) -> list[int]:
        if fact not in behind:
            raise SettingError(f"No fact is named {fact!r}; there are {', '.join(FACTS)}.")
        return behind[fact](account, fact)

    return ids
