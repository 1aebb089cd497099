"""What chance alone makes: a shuffled graph that keeps all degrees, how surprising a block is, and a tail beyond it.

A block is scored as a scan statistic: by how far its edges exceed what the degrees of its rows and columns let expect
(a Poisson likelihood ratio), less the number of ways to choose so many rows and columns. The null is the best block
that the same search finds in shuffled graphs, or 0 where it finds none that beats its own choice. A few dozen shuffles
tell no p-value below some hundredths (`Tail.empirical`); beyond, a Gumbel law is fitted to their best scores and
extrapolated (`Tail.log_p`). That is a model and no count: read 1e-9 as "far beyond what shuffling makes", not as a
frequency.

Real logs have families of items that people take together, and any of them beats a shuffle. `Habits` takes them off:
what the past shows to go together is no surprise.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import connected_components
from scipy.special import gammaln

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
REPAIRS = 12  # rounds in which edges that a shuffle made twice change columns with others
ROUNDS = 12  # of sharpening; most blocks stand still after three
TINY = 1e-300


@dataclass(frozen=True)
class Graph:
    """Distinct edges of R rows and C columns.

    rows, columns : int64 [E];  row_degree : int64 [R], column_degree : int64 [C]
    """

    rows: Ints
    columns: Ints
    row_degree: Ints
    column_degree: Ints

    @staticmethod
    def of(rows: Ints, columns: Ints, R: int, C: int) -> Graph:
        """From edges, where a pair may stand more than once."""
        pair = np.sort(rows * np.int64(C) + columns)
        pair = pair[np.append(True, pair[1:] != pair[:-1])[: len(pair)]]
        rows, columns = pair // max(C, 1), pair % max(C, 1)
        return Graph(rows, columns, np.bincount(rows, minlength=R), np.bincount(columns, minlength=C))

    def __len__(self) -> int:
        return len(self.rows)

    def core(self) -> tuple[Ints, Ints]:
        """Rows and columns of the edges that are left when nodes with one edge are taken away, over and over."""
        rows, columns = self.rows, self.columns
        while len(rows):
            kept = (np.bincount(rows)[rows] > 1) & (np.bincount(columns)[columns] > 1)
            if kept.all():
                break
            rows, columns = rows[kept], columns[kept]
        return rows, columns

    def inside(self, rows: Ints, columns: Ints) -> NDArray[np.bool_]:
        """bool [E]: whether an edge lies between two sets."""
        row, column = np.zeros(len(self.row_degree), np.bool_), np.zeros(len(self.column_degree), np.bool_)
        row[rows], column[columns] = True, True
        return np.asarray(row[self.rows] & column[self.columns])

    def expected(self, rows: Ints, columns: Ints) -> float:
        """Edges between two sets if edges kept their degrees and were dealt by chance."""
        return float(self.row_degree[rows].sum() * self.column_degree[columns].sum() / max(len(self), 1))

    def shuffled(self, seed: int, strata: Ints | None = None) -> Graph:
        """The same degrees, other edges: column ends change places among the edges (of one stratum, where given).

        A pair that comes up twice changes columns with a random edge where that makes no other pair double; the few
        that are double after all rounds are counted once.
        """
        rng, C = np.random.default_rng(seed), np.int64(len(self.column_degree))
        rows, columns = self.rows, self.columns[_dealt(rng, len(self), strata)]
        for _ in range(REPAIRS):
            pair = rows * C + columns
            ascending = np.sort(pair)
            twice = np.unique(ascending[1:][ascending[1:] == ascending[:-1]])
            if len(twice) == 0:
                break
            double = np.flatnonzero(_held(twice, pair))
            double = double[np.argsort(pair[double], kind="stable")]
            spare = double[1:][pair[double[1:]] == pair[double[:-1]]]  # all but the first of each
            other = rng.choice(len(self), len(spare), replace=False)
            fresh = np.stack([rows[spare] * C + columns[other], rows[other] * C + columns[spare]])
            values, counts = np.unique(fresh, return_counts=True)
            fine = (~_held(ascending, fresh) & (counts[np.searchsorted(values, fresh)] == 1)).all(axis=0)
            fine &= ~np.isin(other, spare)
            if strata is not None:
                fine &= strata[spare] == strata[other]
            one, two = spare[fine], other[fine]
            columns[one], columns[two] = columns[two], columns[one]
        return Graph.of(rows, columns, len(self.row_degree), int(C))


def _held(ascending: Ints, values: Ints) -> NDArray[np.bool_]:
    """Whether each value is among some that ascend."""
    place = np.minimum(np.searchsorted(ascending, values), len(ascending) - 1)
    return np.asarray(ascending[place] == values)


def _dealt(rng: np.random.Generator, count: int, strata: Ints | None) -> Ints:
    """int64 [count]: a permutation that keeps each place in its stratum."""
    if strata is None:
        return rng.permutation(count)
    dealt = np.empty(count, np.int64)
    dealt[np.argsort(strata, kind="stable")] = np.lexsort((rng.random(count), strata))
    return dealt


def surprise(graph: Graph, rows: Ints, columns: Ints, edges: int | None = None) -> float:
    """Nats by which a block beats what its degrees let expect, less the ways to choose it; −inf for an empty one.

    edges : inside it, where known. exp(−surprise) bounds, up to the number of sizes, the chance that any block of this
    size in a random graph of these degrees has so many edges (Chernoff's bound times the number of blocks).
    """
    if len(rows) == 0 or len(columns) == 0:
        return float("-inf")
    found = int(graph.inside(rows, columns).sum()) if edges is None else edges
    expected = max(graph.expected(rows, columns), TINY)
    ratio = found * np.log(found / expected) - found + expected if found > expected else 0.0
    ways = _ways(int((graph.row_degree > 0).sum()), len(rows)) + _ways(
        int((graph.column_degree > 0).sum()), len(columns)
    )
    return float(ratio - ways)


def _ways(of: int, some: int) -> float:
    """log of the number of ways to choose some of so many."""
    return float(gammaln(of + 1) - gammaln(some + 1) - gammaln(max(of - some, 0) + 1))


def sharpen(graph: Graph, rows: Ints, columns: Ints) -> tuple[Ints, Ints, float]:
    """The block near this one that surprises most, and its surprise.

    In turn the rows, then the columns that add to the likelihood ratio more than the choice of one more costs (the
    penalised linear-time subset scan of Speakman et al. 2016); each must have two edges inside, for one edge says
    nothing about acting together.
    """
    best = (rows, columns, surprise(graph, rows, columns))
    for _ in range(ROUNDS):
        before = (rows, columns)
        rows = _gaining(graph.rows, graph.columns, graph.row_degree, graph.column_degree, rows, columns, len(graph))
        columns = _gaining(graph.columns, graph.rows, graph.column_degree, graph.row_degree, columns, rows, len(graph))
        if len(rows) < 2 or len(columns) == 0:
            break
        score = surprise(graph, rows, columns)
        if score > best[2]:
            best = (rows, columns, score)
        if np.array_equal(rows, before[0]) and np.array_equal(columns, before[1]):
            break
    return best


def _gaining(
    near: Ints, far: Ints, near_degree: Ints, far_degree: Ints, chosen: Ints, against: Ints, edges: int
) -> Ints:
    """The near nodes that are worth their choice, given the far ones and how dense the block is now."""
    mask = np.zeros(len(far_degree), np.bool_)
    mask[against] = True
    held = np.bincount(near[mask[far]], minlength=len(near_degree))
    expected = near_degree * (far_degree[against].sum() / edges)
    found, usual = held[chosen].sum(), max(expected[chosen].sum(), TINY)
    if found <= usual:
        return chosen[:0]
    ratio = found / usual
    cost = np.log(max((near_degree > 0).sum() / max(len(chosen), 1), 1.0))
    least = min(2, len(against))
    return np.flatnonzero((held >= least) & (held * np.log(ratio) - expected * (ratio - 1) > cost))


def pieces(graph: Graph, rows: Ints, columns: Ints) -> list[tuple[Ints, Ints]]:
    """The parts of a block that no edge connects: two rings surprise more together, and are two all the same."""
    inside = graph.inside(rows, columns)
    R, count = len(rows), len(rows) + len(columns)
    ends = (np.searchsorted(rows, graph.rows[inside]), R + np.searchsorted(columns, graph.columns[inside]))
    parts, label = connected_components(coo_array((np.ones(len(ends[0])), ends), shape=(count, count)), directed=False)
    found = [(rows[label[:R] == part], columns[label[R:] == part]) for part in range(parts)]
    return [piece for piece in found if len(piece[0]) and len(piece[1])]


@dataclass(frozen=True)
class Habits:
    """What is taken together anyway, from the past: families of items, sets, a season's colours.

    unit, column : int64 [N], distinct: what a customer took in one stretch of the past (a unit), as long as the judged
    one;  account : int64 [N], whose unit it is;  columns : how many there are
    """

    unit: Ints
    column: Ints
    account: Ints
    columns: int

    def lift(self, chosen: Ints, without: Ints) -> Floats:
        """float64 [C, C]: how many times likelier than by chance two columns were in one unit; 1: nothing is known.

        A unit counts by 1 / its size, so that the few largest customers do not speak for all; one unit of mean size is
        added to what was seen and to what is expected. Units of the accounts `without` do not count: they are judged.
        """
        kept = ~np.isin(self.account, without)
        unit, column = self.unit[kept], self.column[kept]
        if len(unit) == 0:
            return np.ones((len(chosen), len(chosen)))
        size = np.bincount(unit).astype(np.float64)
        mean = len(unit) / (size > 0).sum()
        count = np.bincount(column, minlength=self.columns)[chosen].astype(np.float64)
        among = np.isin(column, chosen)
        entries = (np.ones(among.sum()), (unit[among], np.searchsorted(chosen, column[among])))
        held = csr_array(entries, shape=(len(size), len(chosen)))
        weight = np.divide(1, size, out=np.zeros_like(size), where=size > 0)
        together = (held.T @ (held * weight[:, None])).toarray()
        return np.asarray((together + 1 / mean) / (np.outer(count, count) / len(unit) + 1 / mean))

    def surprise(self, graph: Graph, rows: Ints, columns: Ints) -> tuple[float, float]:
        """As `surprise`, given what goes together anyway; and how many edges are expected then.

        Of each row one edge is taken as given, the one that explains its others best; only those others are held
        against what degrees times `lift` let expect, and rows are chosen among those with any edge inside.
        """
        inside = graph.inside(rows, columns)
        held = np.zeros((len(rows), len(columns)), np.bool_)
        held[np.searchsorted(rows, graph.rows[inside]), np.searchsorted(columns, graph.columns[inside])] = True
        chance = np.outer(graph.row_degree[rows], graph.column_degree[columns]) / len(graph)
        lift = self.lift(columns, rows)
        others = np.zeros(len(rows))
        for given in range(len(columns)):
            likely = np.minimum(1, chance * lift[given])
            likely[:, given] = 0
            others = np.maximum(others, np.where(held[:, given], likely.sum(axis=1), 0))
        found, expected = float(held.sum() - held.any(axis=1).sum()), max(float(others.sum()), TINY)
        near = np.zeros(len(graph.column_degree), np.bool_)
        near[columns] = True
        among = len(np.unique(graph.rows[near[graph.columns]]))
        ratio = found * np.log(found / expected) - found + expected if found > expected else 0.0
        ways = _ways(among, len(rows)) + _ways(int((graph.column_degree > 0).sum()), len(columns))
        return float(ratio - ways), expected + len(rows)


@dataclass(frozen=True)
class Tail:
    """Scores of the best that chance makes, one for each shuffle: float64 [R], and the Gumbel law through them."""

    best: Floats

    def empirical(self, score: float) -> float:
        """The share of shuffles that reach a score, counted with the log itself: never below 1 / (R + 1)."""
        return float((1 + (self.best >= score).sum()) / (len(self.best) + 1))

    def log_p(self, score: float) -> float:
        """log of the chance that a shuffle reaches a score, by a Gumbel law with the shuffles' mean and deviation.

        From a few dozen values the law's scale is known to a tenth or two, and so is log p. The scale is 1 at least:
        scores are in nats, and Chernoff's bound falls no faster. Where no shuffle scores above 0 this is that bound.
        """
        spread = float(self.best.std(ddof=1)) if len(self.best) > 1 else 0.0
        scale = max(1.0, spread * np.sqrt(6) / np.pi)
        at = (score - float(self.best.mean())) / scale + np.euler_gamma
        return float(-at if at > 30 else np.log(-np.expm1(-np.exp(-max(at, -30.0)))))
