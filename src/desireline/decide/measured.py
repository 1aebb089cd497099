"""From a past experiment on who stays to the effect of a contact on each user, or to the reason why there is none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from desireline.decide.randomised import Check, check_randomised
from desireline.decide.uplift import LEARNERS, Evaluation, Experiment, crossfitted, evaluate
from desireline.tasks.churn.models import KEYS, folds, numbers
from desireline.tasks.churn.trial import Trial

Floats = NDArray[np.float64]
MAIN = (  # numbers whose means are compared between the arms
    "days_since_last",
    "days_since_first",
    "events_90d",
    "returns",
    "returns_180d",
    "days_since_return",
    "return_gap_median_d",
    "value_365d",
)
ASSIGNED = "moment of the assignment"


@dataclass(frozen=True)
class Measured:
    """What the experiment says.

    learner, evaluation : None where the check refuses to call the arm random
    users, treated : whose outcome is known;  dropped : why, how many assignments do not count
    """

    learner: str | None
    treatment: str
    users: int
    treated: int
    dropped: dict[str, int]
    check: Check
    evaluation: Evaluation | None

    @property
    def told(self) -> str:
        """In words, as `Decision.uplift` has it."""
        if self.evaluation is None:
            return (
                f"not estimated: {self.check.why}, so `{self.treatment}` was not drawn at random and its effect cannot "
                "be told from that of the choice; risk times value ranks instead"
            )
        return f"estimated by the {self.learner}-learner from {self.users:,} users of the experiment `{self.treatment}`"


def measure(trial: Trial, learner: str, seed: int) -> tuple[Measured, Callable[[pl.DataFrame], Floats] | None]:
    """Check the draw, evaluate the learner by users it did not see, and fit it on all.

    Returns what was found, and what gives the effect on each row of a snapshot; None where the check refuses.
    """
    rows = trial.rows
    names = [name for name in rows.columns if name not in (*KEYS, "treated")]
    columns, treated, fold = numbers(rows, names), rows["treated"].to_numpy(), folds(rows)
    assigned = rows["as_of"].dt.epoch("us").to_numpy() / 86_400e6
    assigned = assigned - assigned.min()
    main: dict[str, Any] = {name: rows[name].cast(pl.Float64).fill_null(float("nan")).to_numpy() for name in MAIN}
    known = np.column_stack([columns, assigned.astype(np.float32)])
    check = check_randomised(known, treated, fold, main | {ASSIGNED: assigned}, seed)
    counts = (trial.treatment, rows.height, int(treated.sum()), trial.dropped, check)
    if not check.is_random:
        return Measured(None, *counts, None), None
    e = Experiment(columns, treated, 1 - rows["churned"].to_numpy(), fold, float(treated.mean()))
    found = evaluate(e, crossfitted(learner, e, seed), seed)
    effect = LEARNERS[learner](e, seed)
    return Measured(learner, *counts, found), lambda asked: effect(numbers(asked, names))
