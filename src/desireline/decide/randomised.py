"""Was an arm drawn at random? What was known of the users before they were assigned must not tell it.

Two looks, each at 1 %: trees that never saw a user's fold try to predict the arm, and the whole 99 % interval of their
AUROC (DeLong et al. 1988, Biometrics 44, 837) lies above one half; or the arms' means of one of the main numbers differ
by more than chance, with the level shared out among the numbers (Bonferroni). Either refuses. Of 150 random draws of
600 users 5 were refused: the number of trees is chosen on the rows that the AUROC is taken from, so that it is a little
high. That neither look finds anything does not prove a random draw, and a difference that no number of the log
shows is not found at all.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from desireline.classical.trees import Trees
from desireline.evaluation.binary import placements

Floats = NDArray[np.float64]
SIZE = 0.01  # of each look: how often it refuses a random draw


@dataclass(frozen=True)
class Difference:
    """A number's mean among the treated less that among controls, by the pooled deviation; and by its error (z)."""

    name: str
    standardised: float
    z: float


@dataclass(frozen=True)
class Check:
    """Whether the arm passes for random.

    auroc, low, high : of telling the arm from what was known before, with the 99 % interval
    differences : of the main numbers, the largest first;  why : in words
    """

    is_random: bool
    auroc: float
    low: float
    high: float
    differences: list[Difference]
    why: str


def check_randomised(
    columns: NDArray[np.float32],
    treated: NDArray[np.bool_],
    fold: NDArray[np.int64],
    main: dict[str, Floats],
    seed: int,
) -> Check:
    """Look for signs that an arm was chosen, not drawn.

    columns : float32 [U, F], known before;  treated : bool [U];  fold : int64 [U];  main : name -> float64 [U]
    """
    score = Trees([str(i) for i in range(columns.shape[1])]).fit(columns, treated.astype(np.float64), fold, seed)
    auroc, low, high = auroc_interval(score, treated, 1 - SIZE)
    found = sorted(differences(main, treated), key=lambda d: -abs(d.z))
    limit = NormalDist().inv_cdf(1 - SIZE / 2 / max(1, len(found)))
    beyond = [d for d in found if abs(d.z) > limit]
    told = []
    if low > 0.5:
        told.append(f"what was known before tells the arm with an AUROC of {auroc:.2f} [{low:.2f}, {high:.2f}]")
    if beyond:
        first = beyond[0]
        told.append(
            f"{first.name} differs between the arms by {first.standardised:+.2f} deviations (z = {first.z:.1f})"
        )
    why = " and ".join(told) or f"the arm cannot be told from what was known before (AUROC {auroc:.2f})"
    return Check(not told, auroc, low, high, found, why)


def auroc_interval(score: Floats, label: NDArray[np.bool_], level: float) -> tuple[float, float, float]:
    """The share of pairs in the right order, ties half, with its interval by the pairs' placements (DeLong)."""
    placed = placements(score, label.astype(np.float64))
    ones, zeros = placed[label], placed[~label]
    auroc = float(ones.mean())
    error = float(np.sqrt(ones.var(ddof=1) / len(ones) + zeros.var(ddof=1) / len(zeros)))
    reach = NormalDist().inv_cdf(0.5 + level / 2) * error
    return auroc, auroc - reach, auroc + reach


def differences(main: dict[str, Floats], treated: NDArray[np.bool_]) -> list[Difference]:
    """Of each number, over the users for whom it is known; numbers that never vary are left out."""
    found = []
    for name, values in main.items():
        known = np.isfinite(values)
        one, other = values[known & treated], values[known & ~treated]
        if min(len(one), len(other)) < 2:
            continue
        spread = np.sqrt((one.var(ddof=1) + other.var(ddof=1)) / 2)
        error = np.sqrt(one.var(ddof=1) / len(one) + other.var(ddof=1) / len(other))
        if spread > 0:
            apart = one.mean() - other.mean()
            found.append(Difference(name, float(apart / spread), float(apart / error)))
    return found
