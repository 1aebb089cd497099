"""What is measured of an account's orders: how they came about, where they go, what they are worth, whether they stay.

An order counts with what the same account did to the same item before it, by one walk over events in the order of
account and item; its value counts against the item's latest orders before the window. Where orders crowd, lines of one
basket on one target are one act. Two to five seconds for ten million events on two shared cores.
"""

from __future__ import annotations

from functools import cache

import numba
import numpy as np
import polars as pl
from numpy.typing import NDArray

from desireline.tasks.anomaly.actions import Actions
from desireline.tasks.anomaly.fact import Evidence, Fact
from desireline.tasks.anomaly.spans import (
    DAY_US,
    HOUR_US,
    SECOND_US,
    acts,
    ahead,
    by_account,
    codes,
    crowded,
    greatest,
    quiet,
    starts,
    strongest,
    times,
)

FEW = 3  # acts, below which it means nothing how they spread
KNOWN = 10  # earlier orders of an item, from which on its usual value is known
LATEST = 200  # of an item's earlier orders that tell its usual value
SOON_US = 7 * DAY_US  # after an order, in which a return counts
NARROW = 0.05  # least scatter of an item's log value; also how far apart values must lie to be told apart
EQUAL = 0.005  # relative difference up to which a value counts as the item's smallest

VISIT = "visits to the item on another device or before the log begins"
FACTS: dict[str, Fact] = {
    "unbrowsed_orders": Fact(
        ("brushing", "bot"), "high", "{value} of the orders without a look at the item before", "share", VISIT
    ),
    "seconds_to_order": Fact(
        ("brushing", "bot"),
        "low",
        "{value} from the first look at an item to its order, half of the times",
        "seconds",
        "items known from elsewhere, as a basket filled again",
    ),
    "looks_per_order": Fact(
        ("brushing",), "low", "{value} events of other kinds for one order", "ratio", "a person who buys from a list"
    ),
    "hour_orders": Fact(
        ("brushing", "bot"),
        "high",
        "{value} orders to one target within an hour",
        "count",
        "a stock taken in by a trader, or orders split by the shop",
    ),
    "target_orders": Fact(
        ("brushing",), "high", "{value} orders to one target", "count", "a product that is used up and bought again"
    ),
    "target_evenness": Fact(
        ("brushing",), "low", "orders spread over targets to {value} of what is possible", "share", "a regular customer"
    ),
    "repeated_orders": Fact(
        ("brushing",),
        "high",
        "{value} of the orders repeat one of the same item in the window",
        "share",
        "a product that is used up and bought again",
    ),
    "unit_orders": Fact(
        ("brushing",), "high", "{value} of the orders as small as the item's smallest usual ones", "share", "a trial"
    ),
    "value_mismatch": Fact(
        ("brushing", "takeover"),
        "high",
        "orders {value} usual scatters away from what the item is usually ordered for",
        "ratio",
        "a promotion, a trade price, an order in bulk",
    ),
    "returned_orders": Fact(
        ("brushing",), "high", "{value} of the orders taken back within a week", "share", "sizes ordered to try on"
    ),
    "night_orders": Fact(
        ("brushing", "bot", "takeover"),
        "high",
        "{value} of the orders at hours in which the log is quiet",
        "share",
        "another time zone or shift work",
    ),
    "seconds_until_order": Fact(
        ("brushing",),
        "low",
        "a new account's first order {value} after its first event",
        "seconds",
        "a visitor who signs up at the checkout",
    ),
}


def order_facts(actions: Actions) -> pl.DataFrame:
    """`account` and a column a fact in FACTS, a row an account with a judged order."""
    orders = judged_orders(actions)
    each = orders.group_by("account").agg(
        unbrowsed_orders=pl.col("unbrowsed").mean(),
        seconds_to_order=pl.col("seconds").median(),
        repeated_orders=pl.col("repeated").mean(),
        unit_orders=pl.col("unit").mean(),
        value_mismatch=pl.col("mismatch").median(),
        returned_orders=pl.col("returned_soon").mean(),
        seconds_until_order=pl.col("until_order").min(),
    )
    night = orders.unique(["account", "time"]).group_by("account").agg(night_orders=pl.col("night").mean())
    facts = each.join(night, on="account", how="left").join(_spread(actions), on="account", how="left")
    facts = facts.join(_looks(actions), on="account", how="left")
    return facts.select("account", *FACTS)


def order_evidence(actions: Actions) -> Evidence:
    """Judged orders of an account behind a fact, the most telling first."""
    judged = cache(lambda: by_account(judged_orders(actions)))

    def behind(account: int, fact: str) -> list[int]:
        orders = judged()(account)
        if fact == "hour_orders":
            lines = acts(orders, actions.step_us).sort("target", "time")
            if actions.step_us >= HOUR_US:
                return []
            chosen = crowded(times(lines), starts(codes(lines, "target")), HOUR_US)
            return strongest(lines.filter(chosen), pl.lit(1.0))
        if fact == "seconds_until_order" and orders["until_order"].null_count() == orders.height:
            return []
        weights = {
            "unbrowsed_orders": _true("unbrowsed"),
            "seconds_to_order": -pl.col("seconds"),
            "looks_per_order": pl.lit(1.0),
            "target_orders": pl.len().over("target"),
            "target_evenness": pl.len().over("target"),
            "repeated_orders": _true("repeated"),
            "unit_orders": _true("unit"),
            "value_mismatch": pl.col("mismatch"),
            "returned_orders": _true("returned_soon"),
            "night_orders": _true("night"),
            "seconds_until_order": -pl.col("until_order"),
        }
        return strongest(orders, weights[fact])

    return behind


def judged_orders(log: Actions) -> pl.DataFrame:
    """The judged order lines, ascending by account, with what is known of each.

    Beside the columns of events: `unbrowsed`, `repeated`, `returned_soon`, `unit`, `night` (Boolean), `seconds` from
    the first look since the order before, `mismatch` (scatters from the item's usual log value), `until_order` (seconds
    from the account's first event where that lies in the window).
    """
    looked, taken_back = browses(log), bool(log.events["returned"].any())
    wanted = log.events.filter("order", "inside")["account"].unique()
    events = log.events.filter(pl.col("account").is_in(wanted.implode()))
    first = events.group_by("account").agg(first=pl.col("time").min(), known=~pl.col("inside").min())
    account, item, time = codes(events, "account"), codes(events, "item"), times(events)
    rows = np.argsort(account * (len(log.items) + 1) + item + 1, kind="stable")
    is_order, is_returned = events["order"].to_numpy(), events["returned"].to_numpy()
    look = ~is_order & ~is_returned & ~events["review"].to_numpy()
    seen, since, repeated, back = _walk(
        rows,
        account,
        item,
        time,
        is_order,
        look,
        is_returned,
        events["inside"].to_numpy(),
        log.step_us >= HOUR_US,
        SOON_US,
    )
    some = pl.col("item").is_not_null()
    fine = log.step_us < DAY_US
    night = quiet(log)
    orders = events.with_columns(
        unbrowsed=pl.when(some & looked).then(~pl.Series(seen)),
        seconds=pl.when((pl.Series(since) >= 0) & fine).then(pl.Series(since) / SECOND_US),
        repeated=pl.when(some).then(pl.Series(repeated)),
        returned_soon=pl.when(some & taken_back).then(pl.Series(back)),
        night=pl.lit(None, pl.Boolean) if night is None else pl.Series(night[time // HOUR_US % 24]),
    ).filter("order", "inside")
    usual = _usual_values(log, orders["item"].unique())
    orders = orders.join(usual, on="item", how="left", maintain_order="left").join(
        first, on="account", how="left", maintain_order="left"
    )
    paid = pl.when(pl.col("value") > 0).then(pl.col("value"))
    until = (pl.col("time") - pl.col("first")).dt.total_microseconds() / SECOND_US
    return orders.with_columns(
        unit=pl.when(pl.col("greatest") > pl.col("least") * (1 + NARROW)).then(paid <= pl.col("least") * (1 + EQUAL)),
        mismatch=(paid.log() - pl.col("middle")).abs() / pl.col("scatter"),
        until_order=pl.when(~pl.col("known") & looked & fine & _has_past(log)).then(until),
    )


def browses(log: Actions) -> bool:
    """Whether the log tells of looks at items: events about one that are no order, return or review."""
    return log.events.select(
        (~pl.col("order") & ~pl.col("returned") & ~pl.col("review") & pl.col("item").is_not_null()).any()
    ).item()


def _has_past(log: Actions) -> bool:
    return not bool(log.events["inside"].all())


def _true(name: str) -> pl.Expr:
    return pl.when(pl.col(name)).then(1.0)


def _usual_values(actions: Actions, items: pl.Series) -> pl.DataFrame:
    """Of items with KNOWN orders before the window: middle and scatter of log value, least and greatest usual value."""
    past = actions.events.filter(
        pl.col("order"), ~pl.col("inside"), pl.col("value") > 0, pl.col("item").is_in(items.drop_nulls().implode())
    ).sort("time", maintain_order=True)
    value = pl.col("value").tail(LATEST)
    log = value.log()
    return (
        past.group_by("item")
        .agg(
            orders=pl.len(),
            middle=log.median(),
            scatter=pl.max_horizontal(1.4826 * (log - log.median()).abs().median(), pl.lit(NARROW)),
            least=value.quantile(0.05, "lower"),
            greatest=value.quantile(0.95, "higher"),
        )
        .filter(pl.col("orders") >= KNOWN)
        .drop("orders")
    )


def _spread(actions: Actions) -> pl.DataFrame:
    """How an account's order acts lie over targets and hours."""
    lines = acts(actions.events.filter("order", "inside"), actions.step_us).sort("account", "target", "time")
    account, target, time = codes(lines, "account"), codes(lines, "target"), times(lines)
    start = starts(account, target)
    hour = greatest(ahead(time, start, HOUR_US), start)
    if actions.step_us >= HOUR_US:
        hour[:] = np.nan
    pairs = pl.DataFrame(
        {"account": lines["account"].gather(start[:-1]), "acts": np.diff(start).astype(np.float64), "hour": hour}
    ).with_columns(pl.col("hour").fill_nan(None))
    share = pl.col("acts") / pl.col("acts").sum()
    total = pl.col("acts").sum()
    return pairs.group_by("account").agg(
        hour_orders=pl.col("hour").max(),
        target_orders=pl.col("acts").max(),
        target_evenness=pl.when(total >= FEW).then(-(share * share.log()).sum() / total.log()),
    )


def _looks(actions: Actions) -> pl.DataFrame:
    """Judged events beside orders, returns and reviews for each moment of ordering."""
    if not browses(actions):
        return pl.DataFrame(schema={"account": pl.UInt32, "looks_per_order": pl.Float64})
    beside = (~pl.col("order") & ~pl.col("returned") & ~pl.col("review")).sum()
    moments = pl.len() if actions.step_us >= HOUR_US else pl.col("time").n_unique()
    judged = actions.judged
    ordered = judged.filter("order").group_by("account").agg(moments=moments)
    looked = judged.group_by("account").agg(beside=beside)
    return ordered.join(looked, on="account").select("account", looks_per_order=pl.col("beside") / pl.col("moments"))


@numba.njit(cache=True, nogil=True)
def _walk(
    rows: NDArray[np.int64],
    account: NDArray[np.int64],
    item: NDArray[np.int64],
    time: NDArray[np.int64],
    is_order: NDArray[np.bool_],
    look: NDArray[np.bool_],
    is_returned: NDArray[np.bool_],
    inside: NDArray[np.bool_],
    lines: bool,
    soon_us: int,
) -> tuple[NDArray[np.bool_], NDArray[np.int64], NDArray[np.bool_], NDArray[np.bool_]]:  # pragma: no cover
    """Of each order: whether a look came before it, microseconds since the first look (−1), repeated, returned soon.

    A look counts as the first one anew after every order. A return takes back the latest order that still stands.
    lines : whether orders at one moment repeat each other
    """
    n = len(rows)
    seen, since = np.zeros(n, np.bool_), np.full(n, -1, np.int64)
    repeated, back = np.zeros(n, np.bool_), np.zeros(n, np.bool_)
    below = np.full(n, -1, np.int64)  # the order that stood before this one did
    touch, ordered, first, top = np.int64(-1), False, np.int64(-1), np.int64(-1)
    for place in range(n):
        row = rows[place]
        before = rows[place - 1]
        if place == 0 or account[row] != account[before] or item[row] != item[before]:
            touch, ordered, first, top = np.int64(-1), False, np.int64(-1), np.int64(-1)
        if item[row] < 0:
            continue
        if look[row] and (touch < 0 or ordered):
            touch, ordered = row, False
        if is_order[row]:
            if touch >= 0:
                seen[row] = True
                since[row] = time[row] - time[touch]
            if inside[row]:
                repeated[row] = first >= 0 and (lines or time[row] > time[first])
                first = row if first < 0 else first
            ordered = True
            below[row] = top
            top = row
        elif is_returned[row] and top >= 0:
            back[top] = time[row] - time[top] <= soon_us
            top = below[top]
    return seen, since, repeated, back
