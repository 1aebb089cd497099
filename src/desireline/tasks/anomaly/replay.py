"""Histories for accounts that do not exist, made of histories of accounts that do.

A planted account replays a real one that is active in the judged window, its past included, so that counts, hours,
baskets and age are distributed as among the real accounts. It is no copy: sessions move by up to 45 minutes, in a
window of weeks the whole of it turns by whole weeks (hour and weekday stay), and half of the items are exchanged for
others of like popularity, of the same category where the log has one. An item stands in no history before its first
real event.

What is planted is held as a draft, one row an event, all codes; `template` is the real event that lends it value and
fields. Cost: one sort of the log, then arrays over the planted events.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from functools import cached_property

import numpy as np
import polars as pl
from numpy.typing import NDArray

from desireline.core.errors import DataError
from desireline.events.frame import ORDER, TIME
from desireline.events.histories import behaviour
from desireline.events.roles import Roles
from desireline.events.sessions import microseconds
from desireline.schema.model import Schema
from desireline.tasks.anomaly.actions import order_types, rating_field, review_types, text_field

Integers = NDArray[np.int64]
Flags = NDArray[np.bool_]

MINUTE = 60_000_000  # microseconds
WEEK = 7 * 24 * 60 * MINUTE
MOVED = 45 * MINUTE  # a session moves by no more than this, nor by a third of the silence beside it
EXCHANGED = 0.5  # share of an account's items that are exchanged
NEAR = 16  # tries among the nearest in popularity of the same category, and their largest distance in ranks
FAR = 40  # tries among all items, in ever wider neighbourhoods
ALIKE = 3.0  # largest ratio of popularity within a category
LEAST = 10  # accounts in the window, and items before it, from which anything can be replayed
NEVER = np.iinfo(np.int64).max

DRAFT: dict[str, pl.DataType | type[pl.DataType]] = {
    "account": pl.Int64,  # counted from 0 within a family
    "time": pl.Int64,  # microseconds
    "item": pl.Int64,  # code; -1: none
    "type": pl.Int64,  # code
    "template": pl.Int64,  # row of the real event that lends value and fields
    "act": pl.Boolean,  # malicious, not camouflage
    "stars": pl.Float64,  # instead of the template's; null: the template's
    "words": pl.String,
}


@dataclass(frozen=True)
class Material:
    """The real log of N events, as histories are cut from it.

    known : all events, those after the window too: their ids are taken
    events : the behaviour before the window's end, by user, time and order
    users, items : String Series behind the codes;  types : names behind the codes
    user, time, item, type : int64 [N], item -1 where there is none;  offsets : int64 [U + 1], a user's rows
    begin, end : the window in microseconds, `end` no later than one step after the last event;  step : of the clock
    session : the silence that ends one, in microseconds
    orders, browsing : bool [T];  review : code of the type of reviews, -1: none
    stars, words : the fields of a review's stars and text, None without
    first, first_order : int64 [I], an item's first event and order, NEVER without one
    popularity, lately : int64 [I], events, and those in the window
    category, seller : int64 [I], of the first category field of items, and of who gains from them; None without
    """

    known: pl.DataFrame
    events: pl.DataFrame
    users: pl.Series
    items: pl.Series
    types: list[str]
    user: Integers
    time: Integers
    item: Integers
    type: Integers
    offsets: Integers
    begin: int
    end: int
    step: int
    session: int
    orders: Flags
    browsing: Flags
    review: int
    stars: str | None
    words: str | None
    first: Integers
    first_order: Integers
    popularity: Integers
    lately: Integers
    category: Integers | None
    seller: Integers | None
    keys: Integers  # item and type as one number, ascending
    keyed: Integers  # the row of each key

    @cached_property
    def inside(self) -> Flags:
        """bool [N]: in the window."""
        return self.time >= self.begin

    @cached_property
    def is_order(self) -> Flags:
        """bool [N]: an order of an item."""
        return self.orders[self.type] & (self.item >= 0)

    def active(self) -> tuple[Integers, Integers]:
        """Users with an event in the window, ascending, and how many they have."""
        found = np.unique(self.user[self.inside], return_counts=True)
        return found[0], found[1].astype(np.int64)

    def commonest(self, among: Flags) -> int:
        """The type with most events among some; -1 when none of them occurs."""
        counts = np.bincount(self.type, minlength=len(self.types)) * among
        return int(counts.argmax()) if counts.any() else -1


def material(events: pl.DataFrame, schema: Schema, begin: datetime, end: datetime, step_us: int) -> Material:
    """Read a log for replaying.

    events : event frame with event_id, user, time, event, item, value, order and the schema's fields

    Raises DataError for a log without users or times, an empty window, or too few accounts or items.
    """
    if schema.user is None or schema.time.column is None or schema.time.format == "position":
        what = "users" if schema.user is None else "times"
        raise DataError(f"The log has no {what} of its own: nothing can be planted that looks like somebody's history.")
    low, high = (int(pl.Series([at]).cast(TIME).to_physical().item()) for at in (begin, end))
    if low >= high:
        raise DataError(f"The window begins {begin} and ends {end}: let it end after its beginning.")
    kept = behaviour(events, schema).filter(pl.col("time") < pl.lit(end).cast(TIME)).sort(ORDER)
    time = kept["time"].to_physical().to_numpy()
    if not (time >= low).any():
        raise DataError(f"No event lies in the window, {begin} to {end}: name another with --begin and --end.")
    users, user = _coded(kept["user"])
    items, item = _coded(kept["item"])
    types = list(schema.types) + sorted(set(kept["event"].unique()) - set(schema.types))
    kind = kept["event"].replace_strict(types, list(range(len(types))), return_dtype=pl.Int64).to_numpy()
    named, orders = review_types(schema), np.isin(types, order_types(schema))
    negative = np.isin(types, sorted(Roles.of(schema).negative))
    first, first_order = np.full((2, len(items)), NEVER)
    np.minimum.at(first, item[item >= 0], time[item >= 0])
    bought = (item >= 0) & orders[kind]
    np.minimum.at(first_order, item[bought], time[bought])
    held, active = int((first < low).sum()), len(np.unique(user[time >= low]))
    if active < LEAST or (len(items) > 0 and held < LEAST):
        raise DataError(
            f"The window has {active} accounts, and {held} items were there before it: to plant attacks there must be "
            f"at least {LEAST} of each. Let the window begin earlier or later (inject: --begin, --end; fit: --cut)."
        )
    category = next((n for n, field in schema.fields.items() if (field.kind, field.of) == ("category", "item")), None)
    seller, key = schema.anomaly.seller, item * len(types) + kind
    keyed = np.argsort(key, kind="stable")
    return Material(
        events, kept, users, items, types, user, time, item, kind,
        np.searchsorted(user, np.arange(len(users) + 1)),
        low, min(high, int(time.max()) + step_us), step_us, microseconds(schema.prepare.session_gap_s),
        orders, ~(orders | negative | np.isin(types, named)) & (np.bincount(kind, minlength=len(types)) > 0),
        _review_type(kept, kind, np.isin(types, named), schema), rating_field(schema), text_field(schema),
        first, first_order, np.bincount(item[item >= 0], minlength=len(items)),
        np.bincount(item[(item >= 0) & (time >= low)], minlength=len(items)),
        None if category is None else _of_items(kept[category], item, len(items)),
        None if seller is None else _of_items(kept[seller], item, len(items)),
        key[keyed], keyed,
    )  # fmt: skip


def draw_sources(of: Material, count: int, generator: np.random.Generator) -> Integers:
    """int64 [count]: users of the window to replay, spread evenly over accounts from the quietest to the busiest."""
    users, events = of.active()
    ranked = users[np.lexsort((generator.random(len(users)), events))]
    places = ((np.arange(count) + generator.random()) / count * len(ranked)).astype(np.int64)
    return np.asarray(generator.permutation(ranked[places]))


def replay(of: Material, sources: Integers, generator: np.random.Generator) -> pl.DataFrame:
    """A draft with the changed history of each source, account k that of sources[k]; ascending by account and time."""
    begins, sizes = of.offsets[sources], of.offsets[sources + 1] - of.offsets[sources]
    account = np.repeat(np.arange(len(sources)), sizes)
    rows = np.arange(len(account)) - np.repeat(np.cumsum(sizes) - sizes, sizes) + np.repeat(begins, sizes)
    time = _turned(of, of.time[rows], generator, account, len(sources))
    by = np.lexsort((time, account))
    account, rows, time = account[by], rows[by], time[by]
    time = moved(of, account, time, generator)
    return drafted(of, account, time, rows, generator)


def drafted(
    of: Material,
    account: Integers,
    time: Integers,
    rows: Integers,
    generator: np.random.Generator,
    aims: Integers | None = None,
) -> pl.DataFrame:
    """Real events at other times and of other accounts, with some of the items exchanged.

    aims : int64 [N], the item that an event is about in any case; -1: its own, or one in exchange for it
    """
    item, kept = exchanged(of, account, time, of.item[rows], of.type[rows], generator)
    if aims is not None:
        item, kept = np.where(aims >= 0, aims, item), kept | (aims >= 0)
    other = np.flatnonzero(item != of.item[rows])
    template = rows.copy()
    template[other] = templates(of, item[other], of.type[rows[other]], generator)
    return draft(account, time, item, of.type[rows], template).filter(pl.Series(kept))


def draft(account: Integers, time: Integers, item: Integers, kind: Integers, template: Integers) -> pl.DataFrame:
    """The columns as a draft without malice, stars and words."""
    columns = {"account": account, "time": time, "item": item, "type": kind, "template": template}
    frame = pl.DataFrame(columns).with_columns(act=pl.lit(False), stars=None, words=None)
    return frame.select(pl.col(name).cast(kind) for name, kind in DRAFT.items())


def moved(of: Material, account: Integers, time: Integers, generator: np.random.Generator) -> Integers:
    """Times with each session moved as a whole: none meets another, or leaves its side of the window's beginning.

    account, time : int64 [N], ascending
    """
    if len(time) == 0:
        return time
    late = time >= of.begin
    opens = np.ones(len(time), bool)
    opens[1:] = (np.diff(account) != 0) | (np.diff(time) > of.session) | (late[1:] != late[:-1])
    start = np.flatnonzero(opens)
    first, last = time[start], time[np.append(start[1:], len(time)) - 1]
    silence = np.where(np.diff(account[start]) != 0, 3 * MOVED, first[1:] - last[:-1]) // 3
    back, forth = (np.minimum(MOVED, gap) for gap in (np.append(3 * MOVED, silence), np.append(silence, 3 * MOVED)))
    floor = np.where(late[start], of.begin, of.time.min())
    ceiling = np.where(late[start], of.end, of.begin) - of.step
    back, forth = np.clip(np.minimum(back, first - floor), 0, None), np.clip(np.minimum(forth, ceiling - last), 0, None)
    steps = np.trunc((generator.random(len(start)) * (back + forth) - back) / of.step).astype(np.int64)
    return np.asarray(time + np.repeat(steps * of.step, np.diff(np.append(start, len(time)))))


def exchanged(
    of: Material, account: Integers, time: Integers, item: Integers, kind: Integers, generator: np.random.Generator
) -> tuple[Integers, Flags]:
    """Other items for a share of each account's items, always the same for the same, and for all that are too new.

    Returns int64 [N], and bool [N]: false for events of items that did not exist by then and have no like.
    """
    held = np.flatnonzero(item >= 0)
    pair, which = np.unique(account[held] * len(of.items) + item[held], return_inverse=True)
    own = pair % max(1, len(of.items))
    seen, bought = np.full((2, len(pair)), NEVER)
    np.minimum.at(seen, which, time[held])
    ordering = of.orders[kind[held]]
    np.minimum.at(bought, which[ordering], time[held][ordering])
    # an item that is ordered nowhere before has no price
    early = (of.first[own] > seen) | ((bought < NEVER) & (of.first_order[own] > bought))
    asked = np.flatnonzero(early | (generator.random(len(pair)) < EXCHANGED))
    tried = _candidates(of, own[asked], generator)
    wanted, paid = seen[asked, None], bought[asked, None]
    fits = of.first[tried] <= wanted
    fits &= (paid == NEVER) | (of.first_order[tried] <= paid)
    if of.category is not None:
        near, size = tried[:, :NEAR], of.popularity
        ratio = (size[near] + 1) / (size[own[asked], None] + 1)
        fits[:, :NEAR] &= (of.category[near] == of.category[own[asked], None]) & (ratio <= ALIKE) & (ratio >= 1 / ALIKE)
    new, lost = own.copy(), np.zeros(len(pair), bool)
    chosen = _one_each(pair, pair[asked] - own[asked], tried, fits)
    new[asked[chosen >= 0]] = chosen[chosen >= 0]
    lost[asked[chosen < 0]] = early[asked[chosen < 0]]
    items, kept = item.copy(), np.ones(len(item), bool)
    items[held], kept[held] = new[which], ~lost[which]
    return items, kept


def templates(of: Material, item: Integers, kind: Integers, generator: np.random.Generator) -> Integers:
    """int64 [N]: a real event of each item and type at random, of any type where the item has none of it."""
    key = item * len(of.types) + kind
    lo, hi = np.searchsorted(of.keys, key), np.searchsorted(of.keys, key, side="right")
    none = hi == lo
    lo[none] = np.searchsorted(of.keys, item[none] * len(of.types))
    hi[none] = np.searchsorted(of.keys, (item[none] + 1) * len(of.types))
    return of.keyed[lo + (generator.random(len(lo)) * (hi - lo)).astype(np.int64)]


def _one_each(held: Integers, base: Integers, tried: Integers, fits: Flags) -> Integers:
    """The first fitting candidate that the account has not yet: two items of a basket never become one.

    held : int64, ascending keys of what accounts have;  base : int64 [P], the key of each account's item 0
    tried, fits : [P, tries].  Returns int64 [P], -1 where none is left.
    """
    chosen = np.full(len(base), -1)
    for column, fit in zip(tried.T, fits.T, strict=True):
        open_ = np.flatnonzero((chosen < 0) & fit)
        if len(open_) == 0:
            continue
        key, place = np.unique(base[open_] + column[open_], return_index=True)
        free = held[np.minimum(np.searchsorted(held, key), len(held) - 1)] != key
        chosen[open_[place[free]]] = column[open_[place[free]]]
        held = np.sort(np.concatenate([held, key[free]]))
    return chosen


def _candidates(of: Material, own: Integers, generator: np.random.Generator) -> Integers:
    """int64 [P, tries]: items near each in popularity, with a category first those of the same.

    Near means: as many events in the window, by powers of two, and then before it, so that what is in season is
    exchanged for what is.
    """
    size, tie = len(of.items), np.random.default_rng(0).permutation(len(of.items))
    like = (tie, of.popularity - of.lately, np.log2(of.lately + 1).astype(np.int64))
    tries = []
    for category, count in ((of.category, NEAR if of.category is not None else 0), (None, FAR)):
        order = np.lexsort(like if category is None else (*like, category))
        place = np.empty(size, np.int64)
        place[order] = np.arange(size)
        reach = np.full(count, NEAR) if category is not None else (8 * 1.25 ** np.arange(count)).astype(np.int64)
        away = 1 + (generator.random((len(own), count)) * reach).astype(np.int64)
        sign = np.where(generator.random(away.shape) < 0.5, -1, 1)
        tries.append(order[np.clip(place[own, None] + sign * away, 0, size - 1)] if size else away)
    return np.concatenate(tries, axis=1)


def _turned(of: Material, time: Integers, generator: np.random.Generator, account: Integers, accounts: int) -> Integers:
    """The window's whole weeks, turned by some weeks an account; a window of less than two stays as it is."""
    weeks = (of.end - of.begin) // WEEK
    if weeks < 2:
        return time
    turn, low = generator.integers(1, weeks, accounts)[account] * WEEK, of.end - weeks * WEEK
    return np.where(time >= low, low + (time - low + turn) % (weeks * WEEK), time)


def _coded(column: pl.Series) -> tuple[pl.Series, Integers]:
    values = column.drop_nulls().unique().sort()
    codes = column.replace_strict(values, np.arange(len(values)), default=-1, return_dtype=pl.Int64)
    return values, codes.fill_null(-1).to_numpy().copy()


def _of_items(column: pl.Series, item: Integers, items: int) -> Integers:
    codes, found = _coded(column)[1], np.full(items, -1)
    found[item[item >= 0]] = codes[item >= 0]  # of several values the last
    return found


def _review_type(events: pl.DataFrame, kind: Integers, named: Flags, schema: Schema) -> int:
    """The commonest type named like a review, else the commonest with stars or words; -1 without any."""
    said = [pl.col(name).is_not_null() for name in (rating_field(schema), text_field(schema)) if name is not None]
    rows = named[kind]
    if not rows.any() and said:
        rows = events.select(said=pl.any_horizontal(said))["said"].to_numpy()
    return int(np.bincount(kind[rows]).argmax()) if rows.any() else -1
