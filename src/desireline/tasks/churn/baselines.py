"""Scorers as the rows of a table: fitted on a stage's past, set to a level, asked about its present."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from desireline.core.errors import DataError
from desireline.sequences.prepared import iso
from desireline.sequences.ragged import Sequences
from desireline.tasks.churn.definition import Definition
from desireline.tasks.churn.embedding import Embedding
from desireline.tasks.churn.models import Lifetimes, RowTrees, Scorer, logistic, recency, rfm
from desireline.tasks.churn.questions import ChurnQuestions
from desireline.tasks.churn.season import Season
from desireline.tasks.churn.snapshots import past_rows, present_rows
from desireline.tasks.interface import Chunks
from desireline.tasks.stages import Stage
from desireline.training.device import fetched

SCORERS: dict[str, Callable[[Definition], Scorer]] = {
    "recency": lambda of: recency(),
    "rfm": lambda of: rfm(),
    "bg-nbd": lambda of: Lifetimes("bg-nbd", of),
    "mbg-nbd": lambda of: Lifetimes("mbg-nbd", of),
    "pareto-nbd": lambda of: Lifetimes("pareto-nbd", of),
    "aggregates+lightgbm": lambda of: RowTrees(),
}


class ChurnBaseline:
    """A scorer, set so that its probabilities hold at the log's usual level.

    embedding : reads the sequence into numbers beside those of a snapshot; None: the scorer knows the snapshot alone
    """

    def __init__(self, scorer: Scorer, of: Definition, dates: int, embedding: Embedding | None = None) -> None:
        self.scorer, self.of, self.dates, self.embedding = scorer, of, dates, embedding
        self.scale = np.array([0.0, 1.0])  # intercept and slope that make its log odds hold
        self.limit = float("inf")  # no past case speaks for log odds beyond it

    def fit(self, stage: Stage) -> None:
        """Learn from past moments whose horizons end before the stage's cut.

        Raises DataError when the log holds none, or only users who all left or all stayed.
        """
        rows = past_rows(stage.prepared, self.of, self.dates)
        if rows.height == 0:
            raise DataError(
                f"Before {iso(stage.prepared.cut)} the log has no moment with a horizon of history behind it and a "
                "whole horizon before the cut: name a later --cut, or a shorter horizon (--set churn.horizon_d)."
            )
        gone = rows["churned"].to_numpy()
        if len(np.unique(gone)) < 2:
            what = "left" if gone[0] else "came back"
            raise DataError(
                f"All {len(gone):,} past cases before {iso(stage.prepared.cut)} {what} within the horizon: there is "
                f"nothing to tell apart. Set a {'longer' if gone[0] else 'shorter'} one (--set churn.horizon_d)."
            )
        level = Season.of(stage.prepared, self.of, self.dates).of_rows(rows)
        rows = self._known(rows, stage.prepared.before)
        outside = self.scorer.fit(rows, level, 0, present_rows(stage.prepared, self.of))
        self.scale = logistic(outside[:, None], gone, offset=level)
        self.limit = float(np.log(len(gone) + 1))

    def predictions(self, questions: ChurnQuestions) -> Chunks:
        """Log odds float64 [Q] of leaving."""
        if len(questions):
            odds = self.scorer.log_odds(self._known(questions.rows, questions.timeline))
            total = questions.level.log_odds + self.scale[0] + self.scale[1] * odds
            yield 0, len(questions), np.clip(total, -self.limit, self.limit)

    def shares(self, questions: ChurnQuestions) -> dict[str, float] | None:
        """What each number adds to the log odds of the first question; None where the scorer cannot tell."""
        if not isinstance(self.scorer, RowTrees):
            return None
        return self.scorer.shares(self._known(questions.rows[:1], questions.timeline))

    def _known(self, rows: pl.DataFrame, events: Sequences) -> pl.DataFrame:
        return rows if self.embedding is None else self.embedding.beside(rows, events)

    def state(self) -> dict[str, NDArray[Any]]:
        own = {"scale": self.scale, "limit": np.array([self.limit])}
        if self.embedding is not None:
            weights = self.embedding.network.state_dict()
            own |= {f"network/{n}": fetched(t.contiguous()) for n, t in weights.items()}
        return {f"scorer/{n}": a for n, a in self.scorer.state().items()} | own

    def load(self, state: dict[str, NDArray[Any]]) -> None:
        self.scorer.load({n.removeprefix("scorer/"): a for n, a in state.items() if n.startswith("scorer/")})
        self.scale, self.limit = state["scale"], float(state["limit"][0])
        if self.embedding is not None:
            weights = {n.removeprefix("network/"): a for n, a in state.items() if n.startswith("network/")}
            self.embedding.network.load_state_dict({n: torch.from_numpy(a) for n, a in weights.items()})

    @property
    def parameters(self) -> int:
        read = 0 if self.embedding is None else self.embedding.network.parameters_count
        return read + self.scorer.parameters + len(self.scale)
