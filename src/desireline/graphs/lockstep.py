"""Accounts that touch the same targets within the same time bins, again and again (lock-step).

A cell is a target in a time bin, at several bin widths, each laid twice half a bin apart so that a border parts nobody
(CopyCatch, Beutel et al. 2013; SynchroTrap, Cao et al. 2014). Two accounts are held against what two strangers would
share:

- occasions: sessions of both that meet in a bin. Meetings are Poisson with mean s_u s_v Σ_b r_b², s an account's
  sessions and r_b the share of all sessions that are active in bin b. A basket of twenty lines is one session, hence
  one occasion, however many cells it fills.
- targets: given where they met, the distinct targets in common are Poisson with mean Σ n_u n_v Σ_j q_j², n the events
  of each there and q_j a target's share of all (account, target) pairs. The sum runs over targets no hotter than the
  k-th coldest in common, at the best k (times the number of k): a best-seller in common counts for next to nothing.

Both combine by Fisher's rule. Real baskets have families of items, so these p-values are too small; how much is
measured by giving all sessions each other's times (within the day; for day-wide bins within the week), which keeps
every basket as it is. A pair counts when neither Bonferroni over all pairs nor the exponential tail through those
shuffled scores expects one like it. Pairs that count make components; accounts that hang on by few of their pairs are
cut off. A component's p-value multiplies the pairs' along its strongest spanning tree, each corrected for all pairs,
since every further account had to meet it anew.

Cost: pairs are counted row by row from the cells, never held. Cells are bounded, the largest left out first, until the
pairs are PAIRS for each account and PAIRS_MOST for all: a hot item's hour cannot explode them. What is lost: accounts
that meet in such crowded cells only. Pairs that share a single cell are not looked at: one coincidence proves nothing
about two accounts. A million events take five seconds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components, minimum_spanning_tree

from desireline.core.errors import DataError
from desireline.evaluation.blocks import over_blocks

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
MINUTE_US = 60_000_000
DAY_US = 1440 * MINUTE_US
WIDTHS_US = (5 * MINUTE_US, 60 * MINUTE_US, DAY_US)
GAP_US = 30 * MINUTE_US  # a longer pause begins a new session
SHUFFLES = 4  # of the sessions' times
PAIRS, PAIRS_MOST = 300, 4_000_000  # that cells may make: for each account, and for all
ALPHA = 0.01  # pairs like it that chance may be expected to make, over all widths
LEAST = 3  # accounts of a component: two are often one household
LINKED = 0.2  # share of the others that an account of a component must be paired with
TOP = 400  # shuffled scores of one shuffle, from the highest, that the tail is fitted to


@dataclass(frozen=True)
class Ring:
    """Accounts in lock-step.

    accounts, targets : int64, ascending;  width_us : bin width at which they meet most surprisingly
    log_p : natural log of the p-value, corrected for all pairs and widths
    shared, expected : targets in common over its pairs that count, and what strangers would have
    """

    accounts: Ints
    targets: Ints
    width_us: int
    log_p: float
    shared: float
    expected: float


@dataclass(frozen=True)
class _Events:
    """Events ascending by account and time. session : int64 [N], counted over all accounts."""

    account: Ints
    target: Ints
    time: Ints
    session: Ints

    @staticmethod
    def of(account: Ints, target: Ints, time: Ints) -> _Events:
        order = np.lexsort((time, account))
        account, target, time = account[order], target[order], time[order]
        new = _begins(account)
        new[1:] |= np.diff(time) > GAP_US
        return _Events(account, target, time, np.cumsum(new) - 1)

    def shuffled(self, rng: np.random.Generator, within_us: int) -> _Events:
        """All sessions at each other's times, among those that began in one stretch of time."""
        start = self.time[np.searchsorted(self.session, np.arange(self.session[-1] + 1))]
        stretch = start // within_us
        dealt = np.empty(len(start), np.int64)
        dealt[np.argsort(stretch, kind="stable")] = np.lexsort((rng.random(len(start)), stretch))
        moved = self.time - start[self.session] + start[dealt][self.session]
        return _Events(self.account, self.target, moved, self.session)


@dataclass(frozen=True)
class _Pairs:
    """Pairs with two cells in common. u, v : int64 [P];  score : −log p;  shared, expected : targets in common"""

    u: Ints
    v: Ints
    score: Floats
    shared: Floats
    expected: Floats

    def rows(self, which: Ints) -> _Pairs:
        return _Pairs(self.u[which], self.v[which], self.score[which], self.shared[which], self.expected[which])

    @staticmethod
    def joined(parts: list[_Pairs]) -> _Pairs:
        return _Pairs(*(np.concatenate([getattr(part, name) for part in parts]) for name in vars(parts[0])))


def rings(
    account: Ints,
    target: Ints,
    time_us: Ints,
    step_us: int,
    seed: int = 0,
    widths_us: tuple[int, ...] = WIDTHS_US,
) -> list[Ring]:
    """Components of accounts in lock-step, the least likely first.

    Parameters
    ----------
    account, target : int64 [N]
        Who did it to what, counted from 0.
    time_us : int64 [N]
        When, in microseconds.
    step_us : int
        The step of the log's clock: bins are not finer.
    seed : int
        Of the shuffles.

    Raises DataError when the arrays differ in length. Bin widths of more than a third of the log's span are left out:
    there everybody meets everybody.
    """
    if not len(account) == len(target) == len(time_us):
        lengths = f"{len(account)}, {len(target)} and {len(time_us)}"
        raise DataError(f"Lock-step needs an account, a target and a time an event; there are {lengths}.")
    if len(account) == 0 or len(np.unique(account)) < LEAST:
        return []
    events = _Events.of(account, target, time_us)
    span = int(time_us.max() - time_us.min())
    widths = [width for width in widths_us if step_us <= width <= span // 3]
    heat, rank = _heat(events)
    sessions = np.bincount(events.account[_begins(events.session)]).astype(np.float64)
    people = int((sessions > 0).sum())
    known = (heat, rank, sessions, people)
    rng = np.random.default_rng(seed)
    kept: list[_Pairs] = []
    log_expected: list[Floats] = []
    met: list[Ints] = []
    for width in widths:
        within = DAY_US if width < DAY_US else 7 * width
        null = np.concatenate(
            [_pairs(events.shuffled(rng, within), width, n % 2 * width // 2, *known).score for n in range(SHUFFLES)]
        )
        for shift in (0, width // 2):
            pairs = _pairs(events, width, shift, *known)
            log = np.log(2 * len(widths)) + _log_expected(pairs.score, null, people)
            counts = np.flatnonzero(log <= np.log(ALPHA))
            kept.append(pairs.rows(counts))
            log_expected.append(log[counts])
            met.append(np.full(len(counts), width))
    if not any(len(pairs.u) for pairs in kept):
        return []
    return _components(events, _Pairs.joined(kept), np.concatenate(log_expected), np.concatenate(met))


def _heat(events: _Events) -> tuple[Floats, Ints]:
    """float64 [T]: Σ q² over the targets no hotter than one; int64 [T]: its place, coldest first."""
    count = int(events.target.max()) + 1
    pair = np.sort(events.account * np.int64(count) + events.target)
    pair = pair[_begins(pair)]
    share = np.bincount(pair % count, minlength=count) / len(pair)
    order = np.argsort(share, kind="stable")
    rank = np.empty(count, np.int64)
    rank[order] = np.arange(count)
    last = np.searchsorted(share[order], share, side="right") - 1
    return np.cumsum(share[order] ** 2)[last], rank


def _run_lengths(values: Ints) -> Ints:
    """int64 [N]: how many equal values stand together at each place."""
    begins = np.flatnonzero(_begins(values))
    lengths = np.diff(np.append(begins, len(values)))
    return np.repeat(lengths, lengths)


def _begins(values: Ints) -> NDArray[np.bool_]:
    """bool [N]: whether a value differs from the one before."""
    return np.append(True, values[1:] != values[:-1])[: len(values)]


def _pairs(events: _Events, width: int, shift: int, heat: Floats, rank: Ints, sessions: Floats, people: int) -> _Pairs:
    """All pairs of accounts with two cells in common, scored."""
    bins = (events.time + shift) // width
    bins -= bins.min()
    T, B, A = len(heat), int(bins.max()) + 1, len(sessions)
    cell = bins * np.int64(T) + events.target
    # an account's events ascend in time, so that those of one bin stand together
    basket = _run_lengths(events.account * np.int64(B) + bins)
    active = np.bincount(bins[_begins(events.session * np.int64(B) + bins)])
    meet = float((active / sessions.sum()) @ (active / sessions.sum()))
    ascending = np.sort(cell)
    ids = ascending[1:][ascending[1:] == ascending[:-1]]
    ids = ids[_begins(ids)]  # cells with two events
    if len(ids) == 0:
        nobody, nothing = np.empty(0, np.int64), np.empty(0)
        return _Pairs(nobody, nobody, nothing, nothing, nothing)
    inverse = np.minimum(np.searchsorted(ids, cell), len(ids) - 1)
    several = np.flatnonzero(ids[inverse] == cell)
    order = several[np.lexsort((inverse[several], events.account[several]))]
    order = order[_begins(events.account[order] * np.int64(len(ids)) + inverse[order])]
    members = np.bincount(inverse[order], minlength=len(ids))
    fine = (members >= 2) & (members <= _bound(members[members >= 2], people))
    order = order[fine[inverse[order]]]
    owner, inverse, session = events.account[order], inverse[order], events.session[order]
    taken = basket[order].astype(np.float64)
    at = np.searchsorted(owner, np.arange(A + 1)).astype(np.int64)
    by_cell = np.argsort(inverse, kind="stable")
    cells = np.searchsorted(inverse[by_cell], np.arange(len(ids) + 1)).astype(np.int64)
    members_of = owner[by_cell]
    found: dict[int, tuple[Ints, Ints, Floats]] = {}

    def run(lo: int, hi: int) -> None:
        u, v = _count(at, inverse, cells, members_of, lo, hi)
        told = _score(u, v, at, inverse, ids % T, ids // T, session, taken, sessions, meet, heat, rank)
        found[lo] = (u, v, told)

    over_blocks(len(sessions), run)
    u, v, told = (np.concatenate([found[lo][n] for lo in sorted(found)]) for n in range(3))
    return _Pairs(u, v, told[:, 0], told[:, 1], told[:, 2])


def _bound(members: Ints, accounts: int) -> int:
    """The most accounts that a cell may have, so that all cells together make no more pairs than may be."""
    sizes = np.sort(members)
    if len(sizes) == 0:
        return 0
    pairs = np.cumsum(sizes.astype(np.float64) ** 2 / 2)
    inside = int(np.searchsorted(pairs, min(PAIRS * accounts, PAIRS_MOST), side="right"))
    return int(sizes[-1]) if inside == len(sizes) else int(sizes[inside]) - 1


def _log_expected(score: Floats, null: Floats, people: int) -> Floats:
    """log of how many pairs of at least a score chance makes: by Bonferroni or by the shuffles' tail, the greater."""
    bound = np.log(people * (people - 1) / 2) - score
    if len(null) < 20:
        return bound
    high = np.sort(null)[::-1][: max(20, min(TOP * SHUFFLES, len(null) // 4))]
    border = high[-1]
    scale = max(1.0, float((high - border).mean()))  # 1: the p-values are as they should be
    tail = np.where(score > border, np.log(len(high) / SHUFFLES) - (score - border) / scale, np.inf)
    return np.maximum(bound, tail)


def _components(events: _Events, pairs: _Pairs, log_expected: Floats, width: Ints) -> list[Ring]:
    """Rings of the pairs that count; one pair may stand there at several bin widths."""
    u, v, A = pairs.u, pairs.v, int(events.account.max()) + 1
    order = np.lexsort((log_expected, v, u))  # of a pair the least likely first
    once = order[np.append(True, (np.diff(u[order]) != 0) | (np.diff(v[order]) != 0))]
    label, once = _held_together(u, v, once, A)
    graph = coo_array((log_expected[once], (u[once], v[once])), shape=(A, A)).tocsr()
    tree = minimum_spanning_tree(graph).tocoo()
    log_p = np.bincount(label[tree.row], tree.data, minlength=label.max() + 1)
    sizes = np.bincount(label)
    by_label = np.argsort(label, kind="stable")
    starts = np.searchsorted(label[by_label], np.arange(len(sizes) + 1))
    of = label[u[once]]
    found = []
    for ring in np.flatnonzero(sizes >= LEAST):
        accounts = np.sort(by_label[starts[ring] : starts[ring + 1]])
        mine = once[of == ring]
        best = int(width[mine[np.argmin(log_expected[mine])]])
        targets = _shared_targets(events, accounts, best)
        shared, expected = float(pairs.shared[mine].sum()), float(pairs.expected[mine].sum())
        found.append(Ring(accounts, targets, best, float(log_p[ring]), shared, expected))
    return sorted(found, key=lambda ring: ring.log_p)


def _held_together(u: Ints, v: Ints, pairs: Ints, accounts: int) -> tuple[Ints, Ints]:
    """int64 [A]: each account's component, without those that hang on loosely; the pairs that are left."""
    while True:
        ones = np.ones(len(pairs))
        _, label = connected_components(coo_array((ones, (u[pairs], v[pairs])), shape=(accounts, accounts)), False)
        links = np.bincount(np.concatenate([u[pairs], v[pairs]]), minlength=accounts)
        loose = links < LINKED * (np.bincount(label)[label] - 1)
        kept = ~(loose[u[pairs]] | loose[v[pairs]])
        if kept.all():
            return label.astype(np.int64), pairs
        pairs = pairs[kept]


def _shared_targets(events: _Events, accounts: Ints, width: int) -> Ints:
    """int64: the targets that a third of the accounts (two at least) took in one bin of either laying."""
    mine = np.isin(events.account, accounts)
    account, target, time = events.account[mine], events.target[mine], events.time[mine]
    least = max(2, -(-len(accounts) // 3))
    found = []
    for shift in (0, width // 2):
        cell = np.unique(np.stack([target, (time + shift) // width, account]), axis=1)
        _, first, members = np.unique(cell[:2], axis=1, return_index=True, return_counts=True)
        most = np.maximum.reduceat(members, np.unique(cell[0, first], return_index=True)[1])
        found.append(np.unique(cell[0])[most >= min(least, int(members.max()))])
    return np.unique(np.concatenate(found))


@numba.njit(cache=True, nogil=True)
def _count(at: Ints, cell: Ints, cells: Ints, members: Ints, lo: int, hi: int) -> tuple[Ints, Ints]:  # pragma: no cover
    """Pairs u < v with at least two cells in common, for u from lo to hi."""
    line, touched = np.zeros(len(at) - 1, np.int32), np.empty(len(at) - 1, np.int64)
    left, right, used = np.empty(1024, np.int64), np.empty(1024, np.int64), 0
    for u in range(lo, hi):
        count = 0
        for n in range(at[u], at[u + 1]):
            for m in range(cells[cell[n] + 1] - 1, cells[cell[n]] - 1, -1):  # members ascend
                v = members[m]
                if v <= u:
                    break
                if line[v] == 0:
                    touched[count] = v
                    count += 1
                line[v] += 1
        for n in range(count):
            v = touched[n]
            if line[v] >= 2:
                if used == len(left):
                    left, right = np.append(left, np.empty_like(left)), np.append(right, np.empty_like(right))
                left[used], right[used] = u, v
                used += 1
            line[v] = 0
    return left[:used].copy(), right[:used].copy()


@numba.njit(cache=True, nogil=True)
def _score(
    left: Ints,
    right: Ints,
    at: Ints,
    cell: Ints,
    target_of: Ints,
    bin_of: Ints,
    session: Ints,
    basket: Floats,
    sessions: Floats,
    meet: float,
    heat: Floats,
    rank: Ints,
) -> Floats:  # pragma: no cover
    """float64 [P, 3]: −log p of each pair, its targets in common, how many strangers would have."""
    told = np.zeros((len(left), 3))
    longest = 0
    for u in range(len(at) - 1):
        longest = max(longest, at[u + 1] - at[u])
    places, mine, other = np.empty(longest, np.int64), np.empty(longest, np.int64), np.empty(longest, np.int64)
    target_at = np.empty(len(rank), np.int64)
    for target in range(len(rank)):
        target_at[rank[target]] = target
    for pair in range(len(left)):
        u, v = left[pair], right[pair]
        n, m, common, chances, before = at[u], at[v], 0, 0.0, np.int64(-1)
        while n < at[u + 1] and m < at[v + 1]:
            if cell[n] < cell[m]:
                n += 1
            elif cell[n] > cell[m]:
                m += 1
            else:
                if bin_of[cell[n]] != before:  # cells ascend by bin
                    before = bin_of[cell[n]]
                    chances += basket[n] * basket[m]
                places[common] = rank[target_of[cell[n]]]
                mine[common], other[common] = session[n], session[m]
                common += 1
                n += 1
                m += 1
        occasions = min(_distinct(mine[:common]), _distinct(other[:common]))
        usual = sessions[u] * sessions[v] * meet
        ranks = np.sort(places[:common])
        targets, best, warmth = 0, 0.0, 0.0
        for k in range(common):
            if k == 0 or ranks[k] != ranks[k - 1]:
                targets += 1
                warmth = heat[target_at[ranks[k]]]
                best = min(best, _log_tail(targets, chances * warmth))
        log_p = _log_tail(occasions, usual) + min(0.0, best + np.log(targets))
        told[pair, 0] = -(log_p + np.log(1 - log_p))
        told[pair, 1], told[pair, 2] = targets, chances * warmth * min(1.0, usual / occasions)
    return told


@numba.njit(cache=True, nogil=True)
def _distinct(values: Ints) -> int:  # pragma: no cover
    ascending = np.sort(values)
    count = 1
    for n in range(1, len(ascending)):
        count += ascending[n] != ascending[n - 1]
    return count


@numba.njit(cache=True, nogil=True)
def _log_tail(count: int, mean: float) -> float:  # pragma: no cover
    """log P(Poisson(mean) ≥ count); 0 where that many are no more than usual."""
    if count <= mean or count == 0:
        return 0.0
    term, total, n = 1.0, 1.0, count
    while term > 1e-12 * total:
        n += 1
        term *= mean / n
        total += term
    log = -mean + np.log(total)
    for k in range(1, count + 1):
        log += np.log(mean / k)
    return min(log, 0.0)
