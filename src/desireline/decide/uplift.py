"""What a treatment changes for whom, learnt from a randomised experiment: learners, and what a policy is worth.

X [U, F] is known before, w [U] says who was treated, y [U] is the outcome, e the share treated, one for all since the
arm was drawn. With outcome models m1, m0 that never saw the row's fold, the pseudo-outcome

    G = m1 − m0 + w/e · (y − m1) − (1 − w)/(1 − e) · (y − m0)

has the effect as its mean given x, whatever m1 and m0 are, because e is known (Robins, Rotnitzky & Zhao 1994); good
ones make it vary less. The learners:

    t   τ(x) = m1(x) − m0(x)
    x   effects imputed in each arm, y − m0(x) and m1(x) − y, regressed on x and mixed by e (Künzel et al. 2019,
        PNAS 116, 4156, equations 8 to 11)
    dr  G regressed on x (Kennedy 2023, Electronic Journal of Statistics 17, 3008; arXiv 2004.14497, algorithm 1)

No row's outcome takes part in its own τ: the learner is fitted anew without each fold, cross-fitting inside. The gain
of a policy is the mean of G over whom it treats.

Cost: about 80 boosters of at most 80 small trees; 20,000 users with 60 numbers take 20 s.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from desireline.classical.trees import MeanTrees
from desireline.core.progress import progress
from desireline.evaluation.intervals import user_interval
from desireline.evaluation.result import Metric

Floats = NDArray[np.float64]
Columns = NDArray[np.float32]
Effect = Callable[[Columns], Floats]  # what a treatment adds to the outcome of each row
RESAMPLES = 1000
SHARES = (0.1, 0.2, 0.3, 0.5)
SURE = NormalDist().inv_cdf(1 - 0.05 / 2 / len(SHARES))  # errors between two policies, all shares together at 5 %
SAME = "not distinguishable"


@dataclass(frozen=True)
class Experiment:
    """A randomised experiment; see the module. `fold` : int64 [U], by user."""

    columns: Columns
    treated: NDArray[np.bool_]
    outcome: Floats
    fold: NDArray[np.int64]
    share: float

    def take(self, rows: NDArray[np.bool_]) -> Experiment:
        """Some of its users."""
        return Experiment(self.columns[rows], self.treated[rows], self.outcome[rows], self.fold[rows], self.share)

    def pseudo_outcome(self, without: Floats, with_: Floats) -> Floats:
        """float64 [U]: G from the outcome models' answers."""
        one, other = self.treated / self.share, (~self.treated) / (1 - self.share)
        return with_ - without + one * (self.outcome - with_) - other * (self.outcome - without)


@dataclass(frozen=True)
class Policy:
    """Treating a share of the users: outcomes gained a user of the log, by uplift, by risk, at random.

    difference : by uplift less by risk;  verdict : which gains more, or that they cannot be told apart; of all shares
    together at 5 %, so that it may say so where the interval of one of them leaves out 0
    """

    share: float
    uplift: Metric
    risk: Metric
    random: Metric
    difference: Metric
    verdict: str


@dataclass(frozen=True)
class Evaluation:
    """average : the effect on all;  policies : of SHARES"""

    average: Metric
    policies: list[Policy]


def outcomes(e: Experiment, seed: int) -> tuple[Floats, Floats, MeanTrees, MeanTrees]:
    """m0 and m1 of every row by models that never saw it, float64 [U] each, and the models."""
    answers, models = [], []
    for arm in (~e.treated, e.treated):
        model = MeanTrees()
        found = np.empty(len(arm))
        found[arm] = model.fit(e.columns[arm], e.outcome[arm], e.fold[arm], seed)
        found[~arm] = model.means(e.columns[~arm])
        answers.append(found)
        models.append(model)
    return answers[0], answers[1], models[0], models[1]


def t_learner(e: Experiment, seed: int) -> Effect:
    """The difference of two outcome models."""
    _, _, control, treated = outcomes(e, seed)
    return lambda columns: treated.means(columns) - control.means(columns)


def x_learner(e: Experiment, seed: int) -> Effect:
    """Imputed effects of both arms, mixed by the share treated: the larger arm imputes for the smaller one."""
    without, with_, _, _ = outcomes(e, seed)
    imputed = np.where(e.treated, e.outcome - without, with_ - e.outcome)
    of_control, of_treated = MeanTrees(), MeanTrees()
    for model, arm in ((of_control, ~e.treated), (of_treated, e.treated)):
        model.fit(e.columns[arm], imputed[arm], e.fold[arm], seed)
    return lambda columns: e.share * of_control.means(columns) + (1 - e.share) * of_treated.means(columns)


def dr_learner(e: Experiment, seed: int) -> Effect:
    """The pseudo-outcome regressed on what was known before."""
    without, with_, _, _ = outcomes(e, seed)
    model = MeanTrees()
    model.fit(e.columns, e.pseudo_outcome(without, with_), e.fold, seed)
    return model.means


LEARNERS: dict[str, Callable[[Experiment, int], Effect]] = {"dr": dr_learner, "x": x_learner, "t": t_learner}


def crossfitted(learner: str, e: Experiment, seed: int) -> Floats:
    """float64 [U]: each user's effect by a learner that never saw the user's fold."""
    found, parts = np.empty(len(e.outcome)), np.unique(e.fold)
    with progress("uplift", len(parts), "folds") as advance:
        for part in parts.tolist():
            held = e.fold == part
            found[held] = LEARNERS[learner](e.take(~held), seed)(e.columns[held])
            advance(1)
    return found


def evaluate(e: Experiment, effect: Floats, seed: int) -> Evaluation:
    """The average effect, and what treating the top shares by `effect` [U] gains beside risk and chance.

    Risk is 1 − m0: the outcome that fails to come without treatment. Intervals: 95 %, bootstrap over users.
    """
    without, with_, _, _ = outcomes(e, seed)
    gain, user = e.pseudo_outcome(without, with_), np.arange(len(effect))

    def mean(values: Floats) -> Metric:
        return user_interval(values, user, RESAMPLES, seed)

    policies = []
    for share in SHARES:
        by_uplift, by_risk = top(effect, e.fold, share), top(-without, e.fold, share)
        apart = (by_uplift - by_risk) * gain
        error = float(apart.std()) / math.sqrt(len(apart))
        better = "" if abs(apart.mean()) <= SURE * error else "uplift" if apart.mean() > 0 else "risk"
        policies.append(
            Policy(
                share,
                mean(by_uplift * gain),
                mean(by_risk * gain),
                mean(share * gain),
                mean(apart),
                f"{better} gains more" if better else SAME,
            )
        )
    return Evaluation(mean(gain), policies)


def top(score: Floats, fold: NDArray[np.int64], share: float) -> Floats:
    """float64 [U]: 1 for the users of each fold with its highest scores, else 0; equal scores share the last places.

    By fold, since scores of different folds come from different models: a fold of lucky users makes the others' mean
    lower than its own, so that the whole of it would rank the wrong way round.
    """
    found = np.zeros(len(score))
    for part in np.unique(fold).tolist():
        rows = fold == part
        _, value, counts = np.unique(-score[rows], return_inverse=True, return_counts=True)
        before = np.cumsum(counts) - counts
        found[rows] = np.clip((share * rows.sum() - before) / counts, 0.0, 1.0)[value]
    return found
