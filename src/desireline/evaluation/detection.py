"""Finding few among many: how good a ranking of accounts is for people who can look at some of them.

All figures are of a score (higher: more suspicious) and a truth. Intervals are by the bootstrap over users.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from desireline.evaluation.binary import binary_metrics, placements
from desireline.evaluation.intervals import user_interval, weighted
from desireline.evaluation.result import Metric

Floats: TypeAlias = NDArray[np.float64]

ALERT_RATE = 0.01  # share of all accounts that is looked at, for `recall@1%`


def detection_metrics(
    score: Floats,
    truth: Floats,
    user: NDArray[np.int64],
    capacity: int,
    resamples: int,
    seed: int,
    rankings: int = 1,
) -> dict[str, Metric]:
    """AUROC, AUPRC, precision@capacity and recall@1% of scores [Q] against truth [Q] (1.0: false), with intervals.

    Ties are shared out: of accounts with equal scores each is looked at in part, so that a constant score is worth
    what chance is.

    rankings : how many of the same accounts are held together, as those of several seeds: each is looked at as far as
        `capacity`
    """
    places = np.searchsorted(np.sort(score), score) / (
        len(score) + 1
    )  # scores may be beyond what a probability can tell apart
    ranked = binary_metrics(places, truth, user, resamples, seed)
    found = {name: ranked[name] for name in ("AUROC", "AUPRC")}
    order = _Order(score, truth)
    return found | weighted(lambda times: order.figures(times, capacity, rankings), user, resamples, seed)


def auroc(score: Floats, truth: Floats, user: NDArray[np.int64], resamples: int, seed: int) -> Metric:
    """The AUROC alone, by the placements of both classes (DeLong et al. 1988)."""
    return user_interval(placements(score, truth), user, resamples, seed)


class _Order:
    """Questions by falling score once, so that each weighting costs a few sums."""

    def __init__(self, score: Floats, truth: Floats) -> None:
        self.order = np.argsort(-score, kind="stable")
        self.truth = truth[self.order]
        self.group = np.cumsum(np.diff(score[self.order], prepend=np.inf) != 0) - 1

    def figures(self, weight: Floats, capacity: int, rankings: int) -> dict[str, float]:
        """With question i counting `weight[i]` times."""
        weight = weight[self.order]
        groups = int(self.group[-1]) + 1 if len(self.group) else 0
        false = np.bincount(self.group, weights=weight * self.truth, minlength=groups)
        seen = np.cumsum(np.bincount(self.group, weights=weight, minlength=groups))
        caught = np.append(0.0, np.cumsum(false))
        at = min(float(capacity * rankings), float(seen[-1]) if groups else 0.0)
        nan = float("nan")
        if at == 0 or caught[-1] == 0:
            return {f"precision@{capacity}": 0.0 if at else nan, "recall@1%": nan}
        looked = np.append(0.0, seen)
        return {
            f"precision@{capacity}": float(np.interp(at, looked, caught)) / at,
            "recall@1%": float(np.interp(ALERT_RATE * seen[-1], looked, caught)) / caught[-1],
        }
