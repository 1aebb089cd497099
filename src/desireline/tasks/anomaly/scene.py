"""What a real log offers to an attack: moments to act at, items to act on, baskets and browse paths to hide among.

Everything is drawn from real events, so that what is planted has the log's own hours, gaps, baskets and prices.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import polars as pl
from numpy.typing import NDArray

from desireline.tasks.anomaly.replay import DRAFT, MINUTE, Flags, Integers, Material, draft, templates

HOUR = 60 * MINUTE
LOW, MEDIUM = 0.2, 0.7  # targets lie between these quantiles of popularity
LINES = 5  # most lines that fill a fake basket beside the target's
PATH = 5  # longest copied browse path, in events
PATHS = 50_000  # orders, the latest, before which paths are looked for
VETERAN = 10  # events before the window of an account worth taking
LEAST_TICKS = 5  # of a script, before it is one
ALIKE_TEXTS = 20  # fewer reviews of a category are no stock of words

Random = np.random.Generator


def _orders(of: Material) -> str | None:
    if not (of.first_order < of.begin).any():
        return "no event on an item before the window is an order (anomaly.orders names the types that are)"
    return None


def _items(of: Material) -> str | None:
    return None if len(of.items) else "its events are about no items"


def _browsing(of: Material) -> str | None:
    return None if of.browsing.any() else "no event type is browsing, all are orders, returns or reviews"


def _paths(of: Material) -> str | None:
    return None if len(pathed(of)[0]) else "no order stands after a look at the same item in the same session"


def _reviews(of: Material) -> str | None:
    return None if of.review >= 0 else "it has no reviews: no such event type, stars or text (anomaly.rating, .text)"


def _texts(of: Material) -> str | None:
    some = of.words is not None and of.events[of.words].is_not_null().any()
    return None if some else "its reviews have no text (anomaly.text names the field)"


def _veterans(of: Material) -> str | None:
    return None if len(veterans(of)) else f"no account is old and has {VETERAN} events before the window"


def _clock(of: Material) -> str | None:
    few = (of.end - of.begin) // (10 * of.step) < LEAST_TICKS
    return "its clock is too coarse to show a timer within the window" if few else None


NEEDS: dict[str, Callable[[Material], str | None]] = {
    "orders": _orders,
    "items": _items,
    "browsing": _browsing,
    "paths": _paths,
    "reviews": _reviews,
    "texts": _texts,
    "veterans": _veterans,
    "clock": _clock,
}


def veterans(of: Material) -> Integers:
    """Users who came long before the window, by its length and a fifth of the log before it, with some events."""
    early = ~of.inside
    if not early.any():
        return np.empty(0, np.int64)
    began = int(np.quantile(of.time, 0.01))
    border = of.begin - max(of.end - of.begin, (of.begin - began) // 5)
    counts = np.bincount(of.user[early], minlength=len(of.users))
    return np.flatnonzero((counts >= VETERAN) & (of.time[of.offsets[:-1]] < border))


def targets(of: Material, count: int, generator: Random, ordered: bool = True) -> Integers:
    """int64 [at most count]: items of low to medium popularity that were there (and were ordered) before the window.

    Of one seller, where the log names sellers and it has so many.
    """
    there = np.flatnonzero((of.first_order if ordered else of.first) < of.begin)
    ranked = there[np.lexsort((generator.random(len(there)), of.popularity[there]))]
    some = ranked[int(LOW * len(ranked)) : max(int(MEDIUM * len(ranked)), int(LOW * len(ranked)) + 1)]
    if of.seller is not None:
        theirs = some[of.seller[some] == of.seller[generator.choice(some)]]
        some = theirs if len(theirs) >= count else some
    return np.asarray(generator.choice(some, min(count, len(some)), replace=False))


def split(accounts: int, size: int) -> Integers:
    """int64 [A]: the group of each account, groups as equal as can be and none larger than `size`."""
    return np.sort(np.arange(accounts) % -(-accounts // size))


def joining(members: Integers, aims: int, chance: float, least: int, generator: Random) -> tuple[Integers, Integers]:
    """Who takes part in which act: account and place of the target; everybody in `least` of them at least."""
    joins = generator.random((len(members), aims)) < chance
    sure = generator.random(joins.shape).argsort(axis=1) < least
    account, aim = np.nonzero(joins | sure)
    return members[account], aim


def moments(of: Material, among: Flags, spread: float, generator: Random) -> Integers:
    """Distinct times of some real events in a part of the window; of all its events where there are none such."""
    times = np.unique(of.time[of.inside & among])
    times = times if len(times) else np.unique(of.time[of.inside])
    count = max(1, int(np.ceil(spread * len(times))))
    begin = int(generator.integers(0, len(times) - count + 1))
    return times[begin : begin + count]


def order_moments(of: Material, spread: float, generator: Random) -> Integers:
    return moments(of, of.is_order, spread, generator)


def is_of_baskets(of: Material) -> bool:
    """Whether orders of the window mostly come several at one moment."""
    lines = of.is_order & of.inside
    return bool(lines.sum() >= 1.5 * len(np.unique(np.stack([of.user[lines], of.time[lines]]), axis=1).T))


def own_moments(of: Material, history: pl.DataFrame) -> dict[int, Integers]:
    """The moments of each account's replayed orders in the window."""
    orders = history.filter(pl.col("time") >= of.begin, pl.Series(of.orders[history["type"].to_numpy()]))
    found = orders.group_by("account", maintain_order=True).agg(pl.col("time").unique().sort())
    return {account: np.array(times, np.int64) for account, times in found.iter_rows()}


def ordered(
    of: Material, account: Integers, at: Integers, item: Integers, filled: Flags, generator: Random
) -> pl.DataFrame:
    """Orders of items; where `filled`, with further lines of a real basket, as far as baskets here have such."""
    kind = of.commonest(of.orders)
    real = np.flatnonzero(of.is_order & of.inside & (of.type == kind))
    lead = generator.choice(real, len(at)) if len(real) else np.zeros(len(at), np.int64)
    next_rows = np.minimum(lead[:, None] + np.arange(1, LINES + 1), len(of.time) - 1)
    beside = (of.user[next_rows] == of.user[lead, None]) & (of.time[next_rows] == of.time[lead, None])
    beside &= (of.type[next_rows] == kind) & (of.item[next_rows] >= 0) & filled[:, None]
    beside &= of.first_order[of.item[next_rows]] <= at[:, None]
    which, rows = np.nonzero(beside)[0], next_rows[beside]
    kinds = np.full(len(at), kind)
    return pl.concat(
        [
            draft(account, at, item, kinds, templates(of, item, kinds, generator)),
            draft(account[which], at[which], of.item[rows], of.type[rows], rows),
        ]
    )


def looked_at(of: Material, account: Integers, at: Integers, item: Integers, generator: Random) -> list[pl.DataFrame]:
    """Orders of items, each after a look at the item where the log shows looks."""
    # targets of one basket share what fills it
    _, lead = np.unique(np.stack([account, at]), axis=1, return_index=True)
    made = [ordered(of, account, at, item, np.isin(np.arange(len(at)), lead), generator)]
    kind = of.commonest(of.browsing)
    if kind >= 0:
        before = at - np.maximum(of.step, aligned(of, (20 + 160 * generator.random(len(at))) * MINUTE / 60))
        kinds = np.full(len(at), kind)
        looks = draft(account, before, item, kinds, templates(of, item, kinds, generator))
        made.append(looks.filter(pl.col("time") >= of.begin))
    return made


def pathed(of: Material) -> tuple[Integers, Integers]:
    """Late real orders before which the same item was looked at in the same session, and the browsing before them.

    Returns int64 [R], rows of orders, and int64 [R, PATH], rows of events in their order, -1 after the last.
    """
    goals = np.flatnonzero(of.is_order)
    goals = goals[np.argsort(of.time[goals], kind="stable")][-PATHS:]
    back = goals[:, None] - np.arange(1, PATH + 1)
    rows = np.maximum(back, 0)
    near = (back >= 0) & (of.user[rows] == of.user[goals, None])
    near &= (of.time[rows + 1] - of.time[rows] <= of.session) & (of.time[rows] < of.time[goals, None])
    near = np.logical_and.accumulate(near, axis=1) & of.browsing[of.type[rows]] & (of.item[rows] >= 0)
    usable = (near & (of.item[rows] == of.item[goals, None])).any(axis=1)
    path = np.where(near, rows, len(of.time))[usable]
    path.sort(axis=1)
    return goals[usable], np.where(path < len(of.time), path, -1)


def gaps_of(of: Material) -> Integers:
    """Gaps between events of one account in one session, in whole steps, five minutes at most."""
    gaps = np.diff(of.time)[np.diff(of.user) == 0]
    near = gaps[(gaps > 0) & (gaps <= max(5 * MINUTE, of.step))]
    return near if len(near) else np.array([of.step])


def hours(time: Integers) -> NDArray[np.float64]:
    """float64 [24]: the share of times in each hour of the day."""
    return np.bincount(time // HOUR % 24, minlength=24) / max(1, len(time))


def aligned(of: Material, span: NDArray[np.float64] | Integers | float) -> Integers:
    """Spans as whole steps of the clock."""
    return np.asarray(np.round(np.asarray(span) / of.step).astype(np.int64) * of.step)


def texts_like(of: Material, item: int, stars: float | None) -> list[str]:
    """The real texts about items of an item's category, with as many stars; about all, with any, where they are few."""
    if of.words is None:
        return []
    rows = of.events[of.words].is_not_null().to_numpy()
    if of.category is not None and item >= 0:
        alike = rows & (of.item >= 0) & (of.category[of.item] == of.category[item])
        rows = alike if alike.sum() >= ALIKE_TEXTS else rows
    if of.stars is not None and stars is not None:
        alike = rows & (of.events[of.stars] == stars).fill_null(False).to_numpy()
        rows = alike if alike.sum() >= ALIKE_TEXTS else rows
    return of.events[of.words].filter(pl.Series(rows)).to_list()


def malicious(made: list[pl.DataFrame]) -> pl.DataFrame:
    return pl.concat([pl.DataFrame(schema=DRAFT), *made]).with_columns(act=pl.lit(True)).sort("account", "time")
