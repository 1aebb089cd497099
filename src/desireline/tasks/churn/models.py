"""What orders users by the risk that they leave: rules, buy-till-you-die, and trees on the numbers of a row.

Each learns from rows of past moments (`snapshots.past_rows`) and gives log odds at the log's usual level;
`season.py` tells how far a moment is from it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import polars as pl
from numpy.typing import NDArray

from desireline.classical.buy_till_you_die import BuyTillYouDie
from desireline.classical.repeats import Repeats
from desireline.classical.trees import FOLDS, Trees
from desireline.events.frame import content_hash
from desireline.tasks.churn.definition import DAY_US, Definition

Floats = NDArray[np.float64]
KEYS = ("user", "as_of", "horizon_us", "churned")
CLASSES = 5  # of recency, frequency and value each, as direct mailers have it
RIDGE = 1e-3
MOST = 10_000  # customers that a law of lifetimes is fitted on
EDGE = 1e-6  # probabilities are kept so far from 0 and 1
SEQUENCE = "sequence"  # what stands for a network's state among the shares of named numbers
STATE = f"{SEQUENCE}_"  # what the columns of a state begin with


class Scorer(Protocol):
    """Orders users by risk.

    looks_at : the groups of facts that it knows (`answers.GROUPS`); None: all
    """

    looks_at: tuple[str, ...] | None

    def fit(self, rows: pl.DataFrame, level: Floats, seed: int, everybody: pl.DataFrame) -> Floats:
        """Learn from labelled rows [R] whose log odds lie `level` [R] off; returns log odds [R] without it.

        They are as for users that were never seen.

        everybody : the snapshot as of the cut, of all users, without labels
        """

    def log_odds(self, rows: pl.DataFrame) -> Floats:
        """Log odds [R] that a row's user leaves, at a level of 0."""

    def state(self) -> dict[str, NDArray[Any]]:
        """What was learnt, as arrays."""

    def load(self, state: dict[str, NDArray[Any]]) -> None:
        """Take back what `state` gave."""

    @property
    def parameters(self) -> int:
        """Learnt numbers."""


class Rule:
    """Logistic regression on a few numbers; with `classes` on the class of each, of so many of equal size."""

    def __init__(self, looks_at: tuple[str, ...], numbers: Sequence[pl.Expr], classes: int | None = None) -> None:
        self.looks_at: tuple[str, ...] | None = looks_at
        self.exprs, self.classes = list(numbers), classes
        self.weights, self.edges = np.zeros(1), np.zeros((len(self.exprs), 0))

    def fit(self, rows: pl.DataFrame, level: Floats, seed: int, everybody: pl.DataFrame) -> Floats:
        if self.classes is not None:
            shares = np.arange(1, self.classes) / self.classes
            self.edges = np.quantile(rows.select(self.exprs).to_numpy(), shares, axis=0).T
        self.weights = logistic(self._numbers(rows), rows["churned"].to_numpy(), offset=level)
        return self.log_odds(rows)

    def log_odds(self, rows: pl.DataFrame) -> Floats:
        return np.asarray(self.weights[0] + self._numbers(rows) @ self.weights[1:], np.float64)

    def state(self) -> dict[str, NDArray[Any]]:
        return {"weights": self.weights, "edges": self.edges}

    def load(self, state: dict[str, NDArray[Any]]) -> None:
        self.weights, self.edges = state["weights"], state["edges"]

    @property
    def parameters(self) -> int:
        return len(self.weights)

    def _numbers(self, rows: pl.DataFrame) -> Floats:
        columns = rows.select(self.exprs).to_numpy()
        if self.classes is None:
            return np.asarray(columns, np.float64)
        classes = [np.searchsorted(edges, column) for edges, column in zip(self.edges, columns.T, strict=True)]
        return np.stack(classes, axis=1).astype(np.float64)


SINCE = pl.coalesce("days_since_return", "days_since_first")  # who never bought: since the first event


def recency() -> Rule:
    """The longer ago, the likelier gone: log days since the last purchase."""
    return Rule(("recency",), [SINCE.log1p().alias("recency")])


def rfm() -> Rule:
    """Recency, frequency and monetary value, each in five classes of equal size among the users asked about."""
    frequency, value = pl.col("returns_365d"), pl.col("value_365d").fill_null(0.0)
    return Rule(("recency", "frequency", "value"), [SINCE.alias("recency"), frequency, value], CLASSES)


class Lifetimes:
    """A buy-till-you-die law on each customer's returns: the probability of a silent horizon, as log odds.

    Fitted on all customers as of the cut, those who lapsed long ago among them, without a label; it knows no season.
    """

    looks_at: tuple[str, ...] | None = ("recency", "frequency", "tenure")

    def __init__(self, law: str, of: Definition) -> None:
        self.model, self.unit_d = BuyTillYouDie(law), of.unit_us / DAY_US
        self.horizon, self.gap = of.horizon_us / of.unit_us, of.gap_us / of.unit_us

    def fit(self, rows: pl.DataFrame, level: Floats, seed: int, everybody: pl.DataFrame) -> Floats:
        customers = repeats(everybody.filter(pl.col("returns") > 0), self.unit_d)
        self.model.fit(customers.sample(MOST, seed), seed)
        return self.log_odds(rows)

    def log_odds(self, rows: pl.DataFrame) -> Floats:
        silent = self.model.silence_probability(repeats(rows, self.unit_d), self.horizon, self.gap)
        return np.log(np.clip(silent, EDGE, 1 - EDGE)) - np.log1p(-np.clip(silent, EDGE, 1 - EDGE))

    def state(self) -> dict[str, NDArray[Any]]:
        return self.model.state()

    def load(self, state: dict[str, NDArray[Any]]) -> None:
        self.model.load(state)

    @property
    def parameters(self) -> int:
        return self.model.parameters


class RowTrees:
    """Trees on the numbers of a row: a snapshot's, and a network's state where that stands beside them.

    reads : which of them, by name
    """

    def __init__(
        self, looks_at: tuple[str, ...] | None = None, reads: Callable[[str], bool] = lambda name: True
    ) -> None:
        self.looks_at, self.reads, self.trees = looks_at, reads, Trees()

    def fit(self, rows: pl.DataFrame, level: Floats, seed: int, everybody: pl.DataFrame) -> Floats:
        self.trees.names = [name for name in rows.columns if name not in KEYS and self.reads(name)]
        columns, gone = numbers(rows, self.trees.names), rows["churned"].to_numpy()
        return self.trees.fit(columns, gone, folds(rows), seed, level)

    def log_odds(self, rows: pl.DataFrame) -> Floats:
        return self.trees.log_odds(numbers(rows, self.trees.names))

    def shares(self, rows: pl.DataFrame) -> dict[str, float]:
        """What each number adds to the log odds of the first row, against the mean row; a state as one, SEQUENCE."""
        found: dict[str, float] = {}
        for name, share in zip(
            self.trees.names, self.trees.shares(numbers(rows[:1], self.trees.names))[0], strict=True
        ):
            told = SEQUENCE if name.startswith(STATE) else name
            found[told] = found.get(told, 0.0) + float(share)
        return found

    def state(self) -> dict[str, NDArray[Any]]:
        return self.trees.state()

    def load(self, state: dict[str, NDArray[Any]]) -> None:
        self.trees.load(state)

    @property
    def parameters(self) -> int:
        return self.trees.parameters


def repeats(rows: pl.DataFrame, unit_d: float) -> Repeats:
    """The returns of a snapshot's users, times in whole occasions of `unit_d` days (a day, or an hour).

    Who never returned has none, since the first event.
    """
    begun = pl.coalesce("days_since_first_return", "days_since_first")
    age = np.ceil(rows.select(begun).to_series().to_numpy() / unit_d)
    since = np.ceil(rows["days_since_return"].fill_null(float("nan")).to_numpy() / unit_d)
    last = np.where(np.isnan(since), 0.0, age - since)
    again = np.where(last > 0, np.maximum(rows["returns"].to_numpy() - 1, 0), 0.0)
    return Repeats(again, np.where(again > 0, last, 0.0), age, unit_days=unit_d)


def numbers(rows: pl.DataFrame, names: Sequence[str]) -> NDArray[np.float32]:
    """float32 [R, F]: columns by name, nan where there is none."""
    return np.asarray(rows.select(pl.col(names).cast(pl.Float32).fill_null(float("nan"))).to_numpy(), np.float32)


def folds(rows: pl.DataFrame) -> NDArray[np.int64]:
    """int64 [R]: the fold of each row's user, by a hash of the id."""
    return (rows.select(content_hash(pl.col("user"))).to_series() % FOLDS).abs().to_numpy().astype(np.int64)


def logistic(columns: Floats, label: Floats, weight: Floats | None = None, offset: Floats | None = None) -> Floats:
    """float64 [1 + F]: intercept and weights of a logistic regression by Newton's steps, with a faint ridge.

    columns : float64 [R, F];  label : float64 [R] in 0 … 1;  offset : float64 [R], log odds that are added as they are
    """
    design = np.column_stack([np.ones(len(label)), columns])
    weight = np.ones(len(label)) if weight is None else weight
    base = np.zeros(len(label)) if offset is None else offset
    found = np.zeros(design.shape[1])
    for _ in range(50):
        share = 1 / (1 + np.exp(-np.clip(base + design @ found, -30, 30)))
        slope = design.T @ (weight * (label - share)) - RIDGE * found
        bend = (design * (weight * share * (1 - share))[:, None]).T @ design + RIDGE * np.eye(design.shape[1])
        step = np.linalg.solve(bend, slope)
        found += step * min(1.0, 4.0 / max(1e-12, float(np.abs(step).max())))
        if np.abs(step).max() < 1e-8:
            break
    return found
