"""What people's verdicts teach: trees on every measure of an account and of those around it.

Only alerts are ever judged, so the accounts that nobody looked at are not known to be normal: positives and unlabelled
are told apart by bagging (Mordelet & Vert 2014): each of several boosters sees all that was confirmed, all that was
dismissed, and a fresh draw of the unlabelled as if they were normal; an account's log odds are the mean over the
boosters that did not draw it, and over all where each did. Columns are surprisals among peers, so that a verdict of
last month still speaks today, and their means over the accounts that share targets with one: trees on neighbour
aggregates beat graph networks on ten data sets (GADBench, arXiv 2306.12251).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TypeAlias

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.sparse import csr_array

from desireline.classical.trees import lightgbm_module, tree_threads
from desireline.tasks.anomaly.fact import KINDS
from desireline.tasks.anomaly.peers import upper_tail
from desireline.tasks.anomaly.scan import Scan
from desireline.tasks.anomaly.suspicion import Suspicion

Floats: TypeAlias = NDArray[np.float64]

LEAST_CONFIRMED = 10  # accounts, before anything is learnt of them
BAGS = 15
DRAWN = 10  # unlabelled accounts for each confirmed one, in a bag
ROUNDS = 60
PARAMETERS = {
    "objective": "binary",
    "learning_rate": 0.08,
    "num_leaves": 8,
    "min_data_in_leaf": 5,
    "feature_fraction": 0.5,
    "bagging_fraction": 0.8,
    "bagging_freq": 1,
    "lambda_l2": 2.0,
    "verbosity": -1,
    "deterministic": True,
    "force_row_wise": True,
}


def features(found: Scan, judged: Suspicion) -> pl.DataFrame:
    """A row an account of a scan: `user`, each fact's surprisal, each kind's score, and their means over neighbours."""
    own = {name: -np.log(p) for name, p in judged.rarities.items()}
    own |= {f"kind {kind}": -np.log(judged.kinds[:, column]) for column, kind in enumerate(KINDS)}
    around = neighbour_means(found, np.nan_to_num(np.stack(list(own.values()), axis=1), nan=1.0))
    beside = {f"around: {name}": around[:, column] for column, name in enumerate(own)}
    return pl.DataFrame({"user": found.users, **own, **beside}, nan_to_null=True)


def neighbour_means(found: Scan, columns: Floats) -> Floats:
    """float64 [A, F]: the mean of columns [A, F] over accounts with common targets; an account's own where it has none.

    A target that many have binds its accounts less: two accounts are as near as Σ over common targets of 1 / accounts
    of the target.
    """
    rows = pl.DataFrame({"account": found.facts["account"], "row": np.arange(len(found), dtype=np.int64)})
    edges = found.actions.judged.filter(pl.col("target").is_not_null()).select("account", "target").unique()
    edges = edges.join(rows, on="account")
    shape = (len(found), len(found.actions.targets))
    at = (edges["row"].to_numpy(), edges["target"].to_numpy().astype(np.int64))
    had = csr_array((np.ones(edges.height), at), shape=shape)  # [A, targets]
    binds = 1 / np.maximum(had.sum(axis=0), 1)  # [targets]
    own = had @ binds  # [A], how near an account is to itself
    summed = had @ (binds[:, None] * (had.T @ columns)) - own[:, None] * columns
    nearness = had.sum(axis=1) - own  # [A], to all others together
    alone = nearness < 1e-9
    return np.where(alone[:, None], columns, summed / np.where(alone, 1.0, nearness)[:, None])


def confirmed(verdicts: pl.DataFrame) -> int:
    """How many accounts people confirmed; one that stood in two alerts counts once."""
    return verdicts.filter("confirmed")["user"].n_unique()


def learned(current: pl.DataFrame, verdicts: pl.DataFrame, seed: int) -> Floats | None:
    """float64 [A]: log odds that a person would confirm an account; None before enough is known.

    current : features of the accounts asked about
    verdicts : the same columns as they were when a person judged the account, and `confirmed` (Boolean)
    """
    right = confirmed(verdicts)
    if right < LEAST_CONFIRMED:
        return None
    lightgbm, generator = lightgbm_module(), np.random.default_rng(seed)
    names = [name for name in current.columns if name != "user"]
    asked = current.select(names).to_numpy().astype(np.float32)
    told = verdicts.select(pl.col(name) if name in verdicts.columns else pl.lit(None).alias(name) for name in names)
    known = told.to_numpy().astype(np.float32)
    label = verdicts["confirmed"].to_numpy().astype(np.float64)
    free = np.flatnonzero(~current["user"].is_in(verdicts["user"].implode()).to_numpy())
    drawn = min(len(free), DRAWN * right)
    total, times, inside = np.zeros(len(asked)), np.zeros(len(asked)), np.zeros(len(asked))
    for bag in range(BAGS):
        normal = generator.choice(free, drawn, replace=False) if drawn else free
        rows = np.concatenate([known, asked[normal]])
        truth = np.concatenate([label, np.zeros(len(normal))])
        settings = PARAMETERS | {"seed": seed + bag, "num_threads": tree_threads()}
        booster = lightgbm.train(settings, lightgbm.Dataset(rows, truth), ROUNDS)
        outside = np.ones(len(asked), bool)
        outside[normal] = False
        odds = np.asarray(booster.predict(asked, raw_score=True), np.float64)
        total, times, inside = total + outside * odds, times + outside, inside + odds
    return np.where(times > 0, total / np.maximum(times, 1), inside / BAGS)


def taught(judged: Suspicion, log_odds: Floats) -> Suspicion:
    """A suspicion in which what people confirmed counts as much as what is rare: what they dismissed sinks.

    The p-value is the geometric mean of the unsupervised one and of the tail of the learned log odds among all
    accounts, so that an attack of a kind that nobody has seen yet still comes up.
    """
    both = np.exp((np.log(judged.p_value) + np.log(upper_tail(log_odds))) / 2)
    return replace(judged, p_value=both)
