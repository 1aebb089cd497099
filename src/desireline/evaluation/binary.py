"""Metrics of a probability that something happens, with intervals by bootstrap over users.

AUROC is that of Hanley & McNeil (1982), ties counting half; AUPRC is average precision, tied scores taken together;
lift@k % is the share of those that came among the k % with the highest probability, by that among all, ties shared
out. ECE: bins of equal mass, equal forecasts never parted (see `classification.py`).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from desireline.evaluation.classification import BINS, SMALLEST, mass_bins
from desireline.evaluation.intervals import user_interval, weighted
from desireline.evaluation.result import Metric

GAINS = 20  # points of the gains curve
TOP = {"lift@5%": 0.05, "lift@10%": 0.1}

Floats = NDArray[np.float64]


def binary_values(probability: Floats, truth: Floats) -> dict[str, Floats]:
    """log-loss and Brier score of each question, float64 [Q]; nan where the truth is not known."""
    kept = np.clip(probability, SMALLEST, 1 - SMALLEST)
    return {
        "log-loss": -(truth * np.log(kept) + (1 - truth) * np.log1p(-kept)),
        "Brier": (probability - truth) ** 2,
    }


def placements(probability: Floats, truth: Floats) -> Floats:
    """float64 [Q]: of each question the share of the other class that it is on the right side of, ties counting half.

    Their mean is the AUROC, over either class and over both (DeLong et al. 1988, Biometrics 44, 837), so that two rows
    can be told apart question by question, whatever level their probabilities have. nan where the truth is not known,
    and everywhere when one class came only.
    """
    found = np.full(len(truth), np.nan)
    for mine, other, sign in ((1.0, 0.0, 1.0), (0.0, 1.0, -1.0)):
        here, there = truth == mine, np.sort(sign * probability[truth == other])
        if here.any() and len(there):
            below = np.searchsorted(there, sign * probability[here], side="left")
            upto = np.searchsorted(there, sign * probability[here], side="right")
            found[here] = (below + upto) / 2 / len(there)
    return found


def binary_metrics(
    probability: Floats, truth: Floats, user: NDArray[np.int64], resamples: int, seed: int
) -> dict[str, Metric]:
    """AUROC, AUPRC, lift@5%, lift@10%, Brier, log-loss and ECE over questions, with 95 % intervals.

    probability, truth : float64 [Q], truth 0 or 1;  user : int64 [Q], whose question it is

    A resample draws users with all their questions. Where only one class came, the ranking metrics are nan.
    """
    found = {
        name: user_interval(values, user, resamples, seed) for name, values in binary_values(probability, truth).items()
    }
    return found | weighted(_Sorted(probability, truth).figures, user, resamples, seed)


def expected_calibration_error(probability: Floats, truth: Floats, bins: int = BINS) -> float:
    """Σ over bins of equal mass |mean probability − share that came| × share of questions; nan for none."""
    return _Sorted(probability, truth, bins).figures(np.ones(len(truth)))["ECE"]


def gains_points(probability: Floats, truth: Floats) -> list[dict[str, float]]:
    """Points of the gains curve: the share of all that came (`caught`) among the `contacted` likeliest; [] for none.

    Ties are shared out, so that equal probabilities give the diagonal.
    """
    order = _Sorted(probability, truth)
    if not truth.sum() > 0:
        return []
    held, came = np.bincount(order.group), np.bincount(order.group, weights=order.truth)
    contacted = np.arange(1, GAINS + 1) / GAINS
    caught = np.interp(
        contacted * len(truth), np.append(0, np.cumsum(held)), np.append(0.0, np.cumsum(came)) / truth.sum()
    )
    return [{"contacted": float(c), "caught": float(k)} for c, k in zip(contacted, caught, strict=True)]


class _Sorted:
    """Questions sorted by falling probability once, so that each weighting costs a few sums."""

    def __init__(self, probability: Floats, truth: Floats, bins: int = BINS) -> None:
        self.order = np.argsort(-probability, kind="stable")
        self.probability, self.truth = probability[self.order], truth[self.order]
        self.group = np.cumsum(np.diff(self.probability, prepend=np.inf) != 0) - 1  # equal probabilities share one
        self.bins = mass_bins(self.probability, bins)

    def figures(self, weight: Floats) -> dict[str, float]:
        """All figures with question i counting `weight[i]` times (in the order given at first)."""
        weight = weight[self.order]
        groups = int(self.group[-1]) + 1 if len(self.group) else 0
        came = np.bincount(self.group, weights=weight * self.truth, minlength=groups)
        stayed = np.bincount(self.group, weights=weight * (1 - self.truth), minlength=groups)
        up, down, nan = came.sum(), stayed.sum(), float("nan")
        if groups == 0 or up + down == 0:
            return dict.fromkeys(["AUROC", "AUPRC", *TOP, "ECE"], nan)
        found_up, found = np.cumsum(came), np.cumsum(came + stayed)
        both = up > 0 and down > 0
        below = down - np.cumsum(stayed)
        auroc = float((came * (below + stayed / 2)).sum() / (up * down)) if both else nan
        with np.errstate(invalid="ignore", divide="ignore"):
            precision = np.where(found > 0, found_up / found, 0.0)
        figures = {"AUROC": auroc, "AUPRC": float((came * precision).sum() / up) if both else nan}
        for name, share in TOP.items():
            wanted = share * (up + down)
            caught = float(np.interp(wanted, np.append(0.0, found), np.append(0.0, found_up)))
            figures[name] = caught / wanted / (up / (up + down)) if up > 0 else nan
        gap = np.bincount(self.bins, weights=weight * (self.probability - self.truth), minlength=1)
        figures["ECE"] = float(np.abs(gap).sum() / (up + down))
        return figures
