"""Groups of accounts that act together, from four searches of the judged window, merged where they overlap.

- dense block: more accounts took the same few targets than their and the targets' totals let expect, whenever they did
  (a slow-drip ring), and than the past lets expect of these targets: what was bought together all along is a family of
  items and no ring. A block must surprise by degrees alone, which hardly one of a shuffle does; its p-value is then
  that of what habits leave of its surprise.
- new bond: targets that many accounts share now and few shared before (`bonds`).
- lock-step: accounts that meet at targets within minutes, hours or days, again and again.
- coattails: accounts that go back and forth between a popular target and a cold one, so that the cold one is
  recommended beside it (Li et al., ICDE 2021).

Groups of reviews are found by `review_groups`: bursts about one target, and texts that several accounts share.

Orders are searched alone as well, where the log has other events too: there a ring's orders stand against few. Events
that take something back are left out. What a p-value means stands in `graphs.excess` and `graphs.lockstep`; it is
corrected for the searches and for the candidates of each. Cost: a million edges in some 25 s of one core.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from itertools import islice

import numpy as np
import polars as pl
from numpy.typing import NDArray

from desireline.core.words import duration
from desireline.evaluation.blocks import over_blocks
from desireline.graphs.dense import dense_blocks, each_block
from desireline.graphs.excess import Graph, Habits, Tail, pieces, sharpen, surprise
from desireline.graphs.lockstep import GAP_US, LEAST, rings
from desireline.tasks.anomaly.actions import Actions
from desireline.tasks.anomaly.bonds import bonds
from desireline.tasks.anomaly.review_groups import review_groups
from desireline.tasks.anomaly.spans import SECOND_US

Ints = NDArray[np.int64]
ALPHA = 0.5  # p-value, corrected for all that was looked at, up to which a group is told: less than one by chance
SHUFFLES = 20
RESOLUTIONS = (0.0, 2.0, 4.0, 8.0)
SHUFFLED = 2.0  # resolution at which shuffles are searched: their best blocks are small and light
BLOCKS = 40  # for each resolution at most
PATIENCE = 5  # blocks in a row that surprise nobody, after which a search ends
WIDEST = 300  # columns of a block that are held against habits; above it is no group but a part of the shop
KNOWN = 3  # accounts that had to do with a target before the window, for it to have a past
OVERLAP = 0.5  # Jaccard from which findings are one group
INSIDE = 0.8  # share of the smaller that lies in the larger, from which they are one too
EVIDENCE = 50
SMALLEST = -690.0  # log of a p-value: below, it would be 0
HOT = 0.01  # share of targets that are popular
HOT_LEAST = 10  # accounts that a popular target has at least
COLDER = 4  # times fewer accounts that the lifted target has
PRIOR = 5.0  # moves by chance that are added to a target's past


@dataclass(frozen=True)
class Group:
    """Accounts that act together.

    accounts, targets : int64, ascending, rows of actions.users and actions.targets
    how : which searches found it
    p_value : under the null, corrected for how many were looked at
    excess : what was found by what chance and habit let expect
    reasons : measured facts;  event_ids : the accounts' events on the targets, newest first
    kind : what they are suspected of, "ring" or "review"
    """

    accounts: Ints
    targets: Ints
    how: tuple[str, ...]
    p_value: float
    excess: float
    reasons: list[str]
    event_ids: list[int]
    kind: str


@dataclass(frozen=True)
class _Found:
    accounts: Ints
    targets: Ints
    how: str
    log_p: float
    excess: float
    reason: str


def find_groups(actions: Actions, seed: int = 0) -> list[Group]:
    """Groups in the judged window, the least likely first; none is told with a p-value above ALPHA.

    seed : of the shuffles; the same seed finds the same groups.
    """
    events = actions.events.filter(pl.col("target").is_not_null() & ~pl.col("returned"))
    judged = events.filter("inside")
    orders = judged.filter("order")
    searched = [("events", judged)]
    if 0 < orders.height < judged.height:
        searched.insert(0, ("orders", orders))
    found = []
    for words, frame in searched:
        every = events.filter("order") if words == "orders" else events
        known = _with_a_past(actions, events, frame)
        found += _blocks(actions, known, _habits(actions, every), words, seed)
        found += _bound(actions, known, every.filter(~pl.col("inside")), words)
        found += _rings(actions, frame, words, seed)
    found += _coattails(actions, events)
    correction = float(np.log(3 * len(searched) + 1))
    found = [one for one in found if one.log_p + correction <= np.log(ALPHA)]
    rings = _merged(actions, judged, found, correction, "ring")
    written = [
        _Found(one.accounts, one.targets, one.how, one.log_p, one.excess, one.reason)
        for one in review_groups(actions, ALPHA / 2)
    ]
    reviewed = _merged(actions, actions.judged.filter("review"), written, float(np.log(2)), "review")
    return sorted([*rings, *reviewed], key=lambda group: (group.p_value, group.accounts.tolist()))


def membership(groups: list[Group], accounts: int, kind: str) -> NDArray[np.float64]:
    """float64 [A]: −log10 of the least p-value of a group of a kind that an account is in, 0 where it is in none."""
    strength = np.zeros(accounts)
    for group in (one for one in groups if one.kind == kind):
        strength[group.accounts] = np.maximum(strength[group.accounts], -np.log10(group.p_value))
    return strength


def _with_a_past(actions: Actions, events: pl.DataFrame, frame: pl.DataFrame) -> pl.DataFrame:
    """The window's events about targets that some accounts had to do with before, where most events are about such.

    A series of new articles is bought together by all who buy it, and no past says so. In a log whose past is too short
    to know most targets, none is left out.
    """
    pairs = events.filter(~pl.col("inside")).select("account", "target").unique(maintain_order=True)
    had = np.bincount(_ints(pairs["target"]), minlength=len(actions.targets)) >= KNOWN
    known = had[_ints(frame["target"])]
    return frame.filter(pl.Series(known)) if frame.height and known.mean() >= 0.5 else frame


def _habits(actions: Actions, events: pl.DataFrame) -> Habits:
    """What accounts took before the window, in stretches as long as it."""
    span = max((actions.end - actions.begin) // timedelta(microseconds=1), 1)
    back = (pl.lit(actions.begin).dt.epoch("us") - pl.col("time").dt.epoch("us")) // span
    past = events.filter(~pl.col("inside")).select("account", "target", back=back).unique(maintain_order=True)
    unit = past.select(pl.struct("account", "back").rank("dense")).to_series() if past.height else past["account"]
    return Habits(_ints(unit), _ints(past["target"]), _ints(past["account"]), len(actions.targets))


def _ints(column: pl.Series) -> Ints:
    return column.to_numpy().astype(np.int64)


def _blocks(actions: Actions, frame: pl.DataFrame, habits: Habits, words: str, seed: int) -> list[_Found]:
    graph = Graph.of(_ints(frame["account"]), _ints(frame["target"]), len(actions.users), len(actions.targets))
    if len(graph.core()[0]) == 0:
        return []
    tail = _shuffles(graph, seed)
    rows, columns = graph.core()
    searched: dict[float, list[tuple[Ints, Ints, float]]] = {}

    def search(lo: int, hi: int) -> None:
        for resolution in RESOLUTIONS[lo:hi]:
            searched[resolution] = _candidates(graph, rows, columns, resolution)

    over_blocks(len(RESOLUTIONS), search, least=1)
    candidates = [block for resolution in RESOLUTIONS for block in searched[resolution]]
    found = []
    for accounts, targets, score in candidates:
        if score <= 0 or len(accounts) < LEAST or not 2 <= len(targets) <= WIDEST:
            continue
        given, usual = habits.surprise(graph, accounts, targets)
        log_p = tail.log_p(given) + float(np.log(len(candidates)))
        edges = int(graph.inside(accounts, targets).sum())
        expected = graph.expected(accounts, targets)
        reason = (
            f"{len(accounts)} accounts and {len(targets)} {_noun(actions, targets)} share {edges} pairs in the "
            f"window's {words}, of {len(accounts) * len(targets)} possible; by chance {_short(expected)} are expected"
        )
        if len(habits.unit):
            reason += f", and {_short(usual)} given one of each account and what was taken together before"
            new = int((~np.isin(targets, habits.column)).sum())
            reason += f" ({new} of the targets are new)" if new else ""
        excess = edges / max(expected, usual if len(habits.unit) else 0.0)
        found.append(_Found(accounts, targets, "dense block", log_p, excess, reason))
    return found


def _candidates(graph: Graph, rows: Ints, columns: Ints, resolution: float) -> list[tuple[Ints, Ints, float]]:
    """Peeled blocks, sharpened, in pieces, with their surprise; until PATIENCE blocks in a row surprise nobody."""
    found: list[tuple[Ints, Ints, float]] = []
    in_vain = 0
    for block in islice(each_block(rows, columns, np.ones(len(rows)), resolution), BLOCKS):
        near = pieces(graph, *sharpen(graph, block.rows, block.columns)[:2])
        scored = [(*piece, surprise(graph, *piece)) for piece in near]
        found += scored
        in_vain = 0 if any(score > 0 for *_, score in scored) else in_vain + 1
        if in_vain == PATIENCE:
            break
    return found


def _shuffles(graph: Graph, seed: int) -> Tail:
    """How surprising the best block of a shuffled graph is."""
    best = np.zeros(SHUFFLES)  # where nothing beats its own choice

    def run(lo: int, hi: int) -> None:
        for n in range(lo, hi):
            dealt = graph.shuffled(seed + n)
            rows, columns = dealt.core()
            for block in dense_blocks(rows, columns, np.ones(len(rows)), resolution=SHUFFLED):
                best[n] = max(best[n], sharpen(dealt, block.rows, block.columns)[2])

    over_blocks(SHUFFLES, run, least=1)
    return Tail(best)


def _rings(actions: Actions, frame: pl.DataFrame, words: str, seed: int) -> list[_Found]:
    times = frame["time"].dt.epoch("us").to_numpy()
    found = []
    for ring in rings(_ints(frame["account"]), _ints(frame["target"]), times, actions.step_us, seed):
        reason = (
            f"{len(ring.accounts)} accounts met at {len(ring.targets)} {_noun(actions, ring.targets)} within "
            f"{duration(ring.width_us / SECOND_US)} of each other in the window's {words}: their pairs share "
            f"{ring.shared:.0f} targets so, expected {_short(ring.expected)}"
        )
        excess = ring.shared / max(ring.expected, 1e-9)
        found.append(_Found(ring.accounts, ring.targets, "lock-step", ring.log_p, excess, reason))
    return found


def _bound(actions: Actions, frame: pl.DataFrame, past: pl.DataFrame, words: str) -> list[_Found]:
    """Clusters of targets that many accounts share now and few did before."""
    found = []
    for bond in bonds(frame, past, len(actions.users), len(actions.targets), ALPHA):
        first, second = (str(actions.targets[target]) for target in bond.pair)
        reason = (
            f"{bond.shared:.0f} accounts have both {first} and {second} among the window's {words}, where their past "
            f"lets expect {_short(bond.expected)}"
        )
        excess = bond.shared / max(bond.expected, 1e-9)
        found.append(_Found(bond.accounts, bond.targets, "new bond", bond.log_p, excess, reason))
    return found


def _coattails(actions: Actions, events: pl.DataFrame) -> list[_Found]:
    """Cold targets whose visitors come from or go to one popular target far more often than its popularity explains.

    A move is a step between two targets at two moments of one session (what stands in one basket has no order). Moves
    of a target are taken to lead to a popular one as often as all moves do, or as they did before the window if that is
    more often; the accounts that moved so are Poisson at most. By all pairs of a target and a popular one.
    """
    from scipy.stats import poisson

    moves = _moves(events)
    inside, past = moves.filter("inside"), moves.filter(~pl.col("inside"))
    if inside.height == 0:
        return []
    accounts = np.bincount(_ints(events.unique(["account", "target"])["target"]), minlength=len(actions.targets))
    border = max(HOT_LEAST, float(np.quantile(accounts[accounts > 0], 1 - HOT)))
    size = pl.Series("size", accounts)
    popular = pl.DataFrame({"other": np.flatnonzero(accounts >= border)}, schema={"other": pl.UInt32})
    near = inside.join(popular, on="other", how="semi")
    pairs = near.filter(size.gather(near["target"]) * COLDER <= size.gather(near["other"]))
    told = pairs.group_by("target", "other").agg(
        members=pl.col("account").unique().sort(), count=pl.col("account").n_unique(), steps=pl.len()
    )
    told = told.filter(pl.col("count") >= LEAST).sort("target", "other")
    if told.height == 0:
        return []
    share = inside.group_by("other").agg(share=pl.len() / inside.height)
    told = (
        told.join(share, on="other", how="left", maintain_order="left")
        .join(inside.group_by("target").agg(all=pl.len()), on="target", how="left", maintain_order="left")
        .join(past.group_by("target").agg(before=pl.len()), on="target", how="left", maintain_order="left")
        .join(
            past.group_by("target", "other").agg(so=pl.len()), on=["target", "other"], how="left", maintain_order="left"
        )
        .with_columns(pl.col("before", "so").fill_null(0))
        .with_columns(rate=(pl.col("so") + PRIOR * pl.col("share")) / (pl.col("before") + PRIOR))
        .with_columns(expected=pl.col("all") * pl.max_horizontal("share", "rate"))
    )
    looked = np.log(inside["target"].n_unique() * max(popular.height, 1))
    log_p = poisson.logsf(told["count"].to_numpy() - 1, told["expected"].to_numpy()) + looked
    found = []
    for row, log in zip(told.iter_rows(named=True), log_p, strict=True):
        if log > np.log(ALPHA) or row["count"] <= row["expected"]:
            continue
        targets = np.array([row["target"]], np.int64)
        reason = (
            f"{row['count']} accounts stepped {row['steps']} times between {actions.targets[row['target']]} and the "
            f"popular {actions.targets[row['other']]}, where {_short(row['expected'])} accounts are expected"
        )
        members = np.array(row["members"], np.int64)
        found.append(_Found(members, targets, "coattails", float(log), row["count"] / row["expected"], reason))
    return found


def _moves(events: pl.DataFrame) -> pl.DataFrame:
    """Steps between two targets within a session, told from both ends: account, target, other, inside."""
    before = pl.col("target", "time").shift().over("account").name.prefix("last_")
    steps = events.select("account", "target", "time", "inside", before).filter(
        (pl.col("last_target") != pl.col("target"))
        & (pl.col("time") > pl.col("last_time"))
        & ((pl.col("time") - pl.col("last_time")).dt.total_microseconds() <= GAP_US)
    )
    forth = steps.select("account", "target", other="last_target", inside="inside")
    return pl.concat([forth, steps.select("account", target="last_target", other="target", inside="inside")])


def _merged(actions: Actions, judged: pl.DataFrame, found: list[_Found], correction: float, kind: str) -> list[Group]:
    """Findings that share most of their accounts become one group, led by the least likely of them."""
    left = sorted(found, key=lambda one: (one.log_p, one.how, one.accounts.tolist()))
    groups = []
    while left:
        leader = left[0]
        same = [one for one in left if _are_one(leader.accounts, one.accounts)]
        left = [one for one in left if not _are_one(leader.accounts, one.accounts)]
        best = {one.how: one for one in reversed(same)}  # of each search the least likely
        how = tuple(sorted(best))
        members, times = np.unique(np.concatenate([best[one].accounts for one in how]), return_counts=True)
        accounts = members[(times > 1) | np.isin(members, leader.accounts)]  # who is in one weaker search alone is not
        lifted = [one.targets for one in same if one.how == "coattails" or one is best[one.how]]
        targets = np.unique(np.concatenate(lifted))  # of coattails all: each finding has one target
        evidence = (
            judged.filter(pl.col("account").is_in(accounts) & pl.col("target").is_in(targets))
            .sort("time", "event_id", descending=True)
            .head(EVIDENCE)
        )
        p_value = float(np.exp(max(leader.log_p + correction, SMALLEST)))
        told = [best[one].reason for one in how]
        groups.append(Group(accounts, targets, how, p_value, leader.excess, told, evidence["event_id"].to_list(), kind))
    return groups


def _are_one(one: Ints, other: Ints) -> bool:
    """Whether two sets of accounts overlap by half, or nearly all of the smaller is in the larger."""
    both = len(np.intersect1d(one, other))
    return both >= OVERLAP * (len(one) + len(other) - both) or both >= INSIDE * min(len(one), len(other))


def _noun(actions: Actions, targets: Ints) -> str:
    named = ", ".join(str(actions.targets[int(target)]) for target in targets[:3])
    return f"targets ({named}{', …' if len(targets) > 3 else ''})" if len(targets) != 1 else f"target ({named})"


def _short(value: float) -> str:
    return f"{value:.1f}" if value >= 0.1 else "less than 0.1"
