"""The malicious acts of each family of attacks: who does what to which item when.

Acts stand at moments at which real accounts order or browse, so that hours and weekdays are the shop's; in a log of
baskets a fake order is a basket, or hides in one of the replayed history. Loops go over accounts, never over events.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from desireline.tasks.anomaly.phrases import Style, from_clauses, from_template
from desireline.tasks.anomaly.replay import DRAFT, MINUTE, MOVED, Integers, Material, draft, drafted, templates
from desireline.tasks.anomaly.scene import (
    HOUR,
    LEAST_TICKS,
    Random,
    aligned,
    gaps_of,
    hours,
    is_of_baskets,
    joining,
    looked_at,
    malicious,
    moments,
    order_moments,
    ordered,
    own_moments,
    pathed,
    split,
    targets,
    texts_like,
    veterans,
)

HOT = 20  # most browsed items, one of which is the hot one
JOINS = 0.85  # chance that a member of a ring takes part in an act
SITTING = 3  # targets that a ring orders at one moment in a log of baskets
PROMOTES = 0.7  # chance that a burst of reviews praises
LATE = 0.4  # share of the window, its end, in which a taken account is in other hands
DONORS = 8  # drawn, of whom the one with the most other hours takes over
TICK = 20_000_000  # shortest gap of a script, in microseconds; ten steps of a coarser clock


@dataclass(frozen=True)
class Intensity:
    """How much an attack does.

    orders : mean number of fake orders an account (brushing);  campaign : accounts that share the targets
    ring : accounts of a ring;  targets : of a ring;  together_min : minutes within which a tight ring acts
    clicks : pairs of clicks on the hot and the cold item;  reviews : most reviews an account;  burst_h : within hours
    stolen : orders in a taken account;  taken : most other events in it
    ticks : events of a script;  wobble : standard deviation of its gaps, as share of their mean
    camouflage : least share of the replayed window that is left;  spread : share of the window in which acts lie
    """

    orders: int
    campaign: int
    ring: int
    targets: int
    together_min: int
    clicks: int
    reviews: int
    burst_h: int
    stolen: int
    taken: int
    ticks: int
    wobble: float
    camouflage: float
    spread: float


@dataclass(frozen=True)
class Acts:
    """draft : DRAFT, acts alone;  groups : int64 [A], -1 alone;  victims : int64 [A], the real users taken over."""

    draft: pl.DataFrame
    groups: Integers
    victims: Integers | None = None


def nothing(of: Material, history: pl.DataFrame, accounts: int, level: Intensity, generator: Random) -> Acts:
    """The control."""
    return Acts(pl.DataFrame(schema=DRAFT), np.full(accounts, -1))


def brushing(of: Material, history: pl.DataFrame, accounts: int, level: Intensity, generator: Random) -> Acts:
    """Some orders an account of its campaign's two targets; in a log of baskets half of them hide in own baskets."""
    groups = split(accounts, level.campaign)
    mine = own_moments(of, history) if is_of_baskets(of) else {}
    account, at, item = _campaign(of, groups, level, generator)
    hides = np.zeros(len(at), bool)
    for one, own in mine.items():
        places = np.flatnonzero(account == one)
        places = places[: min(len(own), (len(places) + 1) // 2)]
        at[places], hides[places] = generator.permutation(own)[: len(places)], True
    return Acts(malicious([ordered(of, account, at, item, ~hides, generator)]), groups)


def browsed(of: Material, history: pl.DataFrame, accounts: int, level: Intensity, generator: Random) -> Acts:
    """As brushing, with the way to a real order of some real account walked before each order."""
    groups = split(accounts, level.campaign)
    account, at, item = _campaign(of, groups, level, generator)
    goals, paths = pathed(of)
    drawn = generator.integers(0, len(goals), len(at))
    goal, rows = goals[drawn], paths[drawn]
    at = np.maximum(at, of.begin + of.time[goal] - of.time[rows[:, 0]])  # the path lies in the window
    order, row = np.nonzero(rows >= 0)[0], rows[rows >= 0]
    when = at[order] - (of.time[goal[order]] - of.time[row])
    aimed = np.where(of.item[row] == of.item[goal[order]], item[order], -1)
    path = drafted(of, account[order], when, row, generator, aimed)
    return Acts(malicious([path, ordered(of, account, at, item, np.ones(len(at), bool), generator)]), groups)


def ring(of: Material, history: pl.DataFrame, accounts: int, level: Intensity, generator: Random) -> Acts:
    """Each target has its moment, at which the accounts order it within minutes of each other."""
    groups, made = split(accounts, level.ring), []
    times, width = order_moments(of, level.spread, generator), max(level.together_min * MINUTE, of.step)
    together = SITTING if is_of_baskets(of) else 1
    for group in range(int(groups.max()) + 1):
        members, aims = np.flatnonzero(groups == group), targets(of, level.targets, generator)
        account, aim = joining(members, len(aims), JOINS, 2, generator)
        sitting = aim // together
        begins = generator.choice(times, len(aims), replace=len(times) < len(aims))
        late = aligned(of, generator.random((len(members), len(aims))) * width)
        at = np.minimum(begins[sitting] + late[account - members[0], sitting], of.end - of.step)
        made += looked_at(of, account, at, aims[aim], generator)
    return Acts(malicious(made), groups)


def drip(of: Material, history: pl.DataFrame, accounts: int, level: Intensity, generator: Random) -> Acts:
    """The window is cut into as many slots as a ring has accounts, and each orders a target in the middle of another.

    Two accounts' orders of a target lie at least half a slot apart.
    """
    groups, made = split(accounts, level.ring), []
    times = order_moments(of, 1.0, generator)
    together = SITTING if is_of_baskets(of) else 1
    for group in range(int(groups.max()) + 1):
        members, aims = np.flatnonzero(groups == group), targets(of, level.targets, generator)
        account, aim = joining(members, len(aims), JOINS, 2, generator)
        slots = np.array([generator.permutation(len(members)) for _ in aims])
        width = (of.end - of.begin) // len(members)
        low, high = (of.begin + slots * width + quarter * width // 4 for quarter in (1, 3))
        lo, hi = np.searchsorted(times, low), np.searchsorted(times, high)
        drawn = generator.random(slots.shape)
        open_ = times[np.minimum((lo + drawn * (hi - lo)).astype(np.int64), len(times) - 1)]
        when = np.where(hi > lo, open_, times[0] + aligned(of, low - times[0] + drawn * (high - low)))
        made += looked_at(of, account, when[aim // together, account - members[0]], aims[aim], generator)
    return Acts(malicious(made), groups)


def coattails(of: Material, history: pl.DataFrame, accounts: int, level: Intensity, generator: Random) -> Acts:
    """A ring clicks a hot item and a cold one by turns, each member in a session of its own."""
    groups, kind = split(accounts, level.ring), of.commonest(of.browsing)
    seen = np.bincount(of.item[(of.type == kind) & (of.item >= 0) & ~of.inside], minlength=len(of.items))
    hot = np.argsort(-seen, kind="stable")[:HOT]
    aims = [(int(generator.choice(hot)), int(targets(of, 1, generator, False)[0])) for _ in range(groups.max() + 1)]
    starts, gaps, made = moments(of, of.type == kind, level.spread, generator), gaps_of(of), []
    for account, group in enumerate(groups.tolist()):
        count = 2 * (1 + int(generator.poisson(level.clicks - 1)))
        away = np.append(0, np.cumsum(generator.choice(gaps, count - 1)))
        away = away[away < of.end - of.begin]
        start = min(int(generator.choice(starts)), of.end - of.step - int(away[-1]))
        item, kinds = np.array(aims[group])[np.arange(len(away)) % 2], np.full(len(away), kind)
        made.append(
            draft(np.full(len(away), account), start + away, item, kinds, templates(of, item, kinds, generator))
        )
    return Acts(malicious(made), groups)


def ratings(of: Material, history: pl.DataFrame, accounts: int, level: Intensity, generator: Random) -> Acts:
    """Extreme stars within hours, in the words of one real review with another ending."""
    return _reviewed(of, accounts, level, generator, from_template)


def paraphrase(of: Material, history: pl.DataFrame, accounts: int, level: Intensity, generator: Random) -> Acts:
    """The same in the clauses of several real reviews, mixed."""
    return _reviewed(of, accounts, level, generator, from_clauses)


def takeover(of: Material, history: pl.DataFrame, accounts: int, level: Intensity, generator: Random) -> Acts:
    """Old accounts go on, in the window's end, like another account with other hours and items, and order targets."""
    low = of.end - int(aligned(of, LATE * (of.end - of.begin)))
    late = np.flatnonzero((of.time >= low) & (of.item >= 0))
    victims = generator.permutation(veterans(of))[:accounts]
    donors, aims = np.unique(of.user[late]), targets(of, max(4, accounts), generator)
    pauses = np.zeros(1, np.int64) if is_of_baskets(of) else gaps_of(of)  # between a life's event and an order
    lives: list[tuple[Integers, Integers, Integers]] = []  # account, time, row
    orders: list[tuple[Integers, Integers, Integers]] = []  # account, time, item
    for account, victim in enumerate(victims.tolist()):
        usual = hours(of.time[of.offsets[victim] : of.offsets[victim + 1]])
        drawn = [u for u in generator.choice(donors, DONORS + 1).tolist() if u != victim] or donors.tolist()
        away = [np.abs(hours(of.time[of.offsets[u] : of.offsets[u + 1]]) - usual).sum() for u in drawn]
        rows = late[of.user[late] == drawn[int(np.argmax(away))]]
        rows = rows[int(generator.integers(0, max(1, len(rows) - level.taken + 1))) :][: level.taken]
        first, last = of.time[rows[[0, -1]]].tolist()
        moved = generator.uniform(-min(MOVED, first - low), min(MOVED, of.end - of.step - last))
        when = of.time[rows] + np.trunc(moved / of.step).astype(np.int64) * of.step
        lives.append((np.full(len(rows), account), when, rows))
        at = when[generator.integers(0, len(when), 1 + int(generator.poisson(level.stolen - 1)))]
        at = np.minimum(at + generator.choice(pauses, len(at)), of.end - of.step)
        orders.append((np.full(len(at), account), at, generator.choice(aims, 2)[np.arange(len(at)) % 2]))
    who, when, rows = (np.concatenate(part) for part in zip(*lives, strict=True))
    other = drafted(of, who, when, rows, generator)
    own = victims[other["account"].to_numpy()] * len(of.items) + other["item"].to_numpy()
    other = other.filter(pl.Series(~np.isin(own, of.user * len(of.items) + of.item)))
    who, at, item = (np.concatenate(part) for part in zip(*orders, strict=True))
    bought = ordered(of, who, at, item, np.zeros(len(at), bool), generator)
    return Acts(malicious([other, bought]), np.full(len(victims), -1), victims)


def script(of: Material, history: pl.DataFrame, accounts: int, level: Intensity, generator: Random) -> Acts:
    """Events at nearly constant gaps on items one after the other as the catalogue lists them."""
    every = np.ones(len(of.types), bool)
    kind = next(kind for kind in map(of.commonest, (of.browsing, of.orders, every)) if kind >= 0)
    listed = np.flatnonzero((of.first_order if of.orders[kind] else of.first) < of.begin)
    starts, made = moments(of, of.type == kind, 1.0, generator), []
    span, least = of.end - of.begin, max(TICK, 10 * of.step)
    for account in range(accounts):
        count = min(max(LEAST_TICKS, int(generator.poisson(level.ticks))), span // least)
        gap = min(least * (1 + 2 * generator.random()), span / count)
        gaps = np.maximum(of.step, aligned(of, gap * (1 + level.wobble * generator.standard_normal(count - 1))))
        away = np.append(0, np.cumsum(gaps))
        away = away[away < span]
        start = min(int(generator.choice(starts)), of.end - of.step - int(away[-1]))
        item = listed[(int(generator.integers(len(listed))) + np.arange(len(away))) % len(listed)]
        kinds = np.full(len(away), kind)
        made.append(
            draft(np.full(len(away), account), start + away, item, kinds, templates(of, item, kinds, generator))
        )
    return Acts(malicious(made), np.full(accounts, -1))


def _campaign(
    of: Material, groups: Integers, level: Intensity, generator: Random
) -> tuple[Integers, Integers, Integers]:
    """Fake orders of each account, one at least: account, time, and item, one of its campaign's two targets."""
    aims = np.array([np.resize(targets(of, 2, generator), 2) for _ in range(int(groups.max()) + 1)])
    times, counts = order_moments(of, level.spread, generator), 1 + generator.poisson(level.orders - 1, len(groups))
    account = np.repeat(np.arange(len(groups)), counts)
    at = np.concatenate([generator.choice(times, n, replace=len(times) < n) for n in counts.tolist()])
    return account, at, aims[groups[account], generator.integers(0, 2, len(account))]


def _reviewed(of: Material, accounts: int, level: Intensity, generator: Random, style: Style) -> Acts:
    """A burst of reviews of each campaign's targets; each account reviews one of them at least."""
    groups, made = split(accounts, level.campaign), []
    burst = int(min(level.burst_h * HOUR, (of.end - of.begin) // 3))
    starts, real = moments(of, of.type == of.review, 1.0, generator), np.flatnonzero(of.type == of.review)
    known = of.events[of.stars].drop_nulls() if of.stars is not None else pl.Series([], dtype=pl.Float64)
    for group in range(int(groups.max()) + 1):
        members, share = np.flatnonzero(groups == group), 0.99 if generator.random() < PROMOTES else 0.01
        aims = targets(of, level.reviews, generator, False) if len(of.items) else np.full(1, -1)
        account, aim = joining(members, len(aims), 0.5, 1, generator)
        begins = np.minimum(generator.choice(starts, len(aims)), of.end - of.step - burst)
        at = np.maximum(begins[aim] + aligned(of, generator.random(len(aim)) * burst), of.begin)
        item, kinds = aims[aim], np.full(len(aim), of.review)
        rows = templates(of, item, kinds, generator) if len(of.items) else generator.choice(real, len(aim))
        stars = known.quantile(share, "nearest")
        found = draft(account, at, item, kinds, rows).with_columns(stars=pl.lit(stars, pl.Float64))
        pools = [texts_like(of, target, stars) for target in aims.tolist()]
        if all(pools):
            says = [style(pool, generator) for pool in pools]
            found = found.with_columns(words=pl.Series([says[place]() for place in aim.tolist()], dtype=pl.String))
        made.append(found)
    return Acts(malicious(made), groups)
