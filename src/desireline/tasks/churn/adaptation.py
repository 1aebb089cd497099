"""Trees on the states of an encoder that learned next behaviour, alone or beside the aggregates.

The encoder learns what comes at a user's next occasion, and when (`tasks/next_event.py`), from one event an occasion,
as the networks of churn read them. Then it is left as it is, and trees read its states, as CoLES (Babaev et al. 2022)
is judged on event logs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from desireline.schema.model import Schema
from desireline.tasks.churn.baselines import ChurnBaseline
from desireline.tasks.churn.definition import Definition, one_an_occasion
from desireline.tasks.churn.embedding import Embedding
from desireline.tasks.churn.models import STATE, RowTrees
from desireline.tasks.interface import Baseline
from desireline.tasks.next_event import NextEvent
from desireline.tasks.stages import Stage
from desireline.training.network import Network

SILENCE = "days_since_last"  # no part of a state, and the embedding is worth little without it


def trees_on_state() -> RowTrees:
    """Trees on the state and on how long ago it was reached."""
    return RowTrees(("recency",), lambda name: name.startswith(STATE) or name == SILENCE)


ROWS = {"frozen": "embedding+lightgbm", "fused": "fused+lightgbm"}
TREES: dict[str, Callable[[], RowTrees]] = {"frozen": trees_on_state, "fused": RowTrees}


class OnNextBehaviour:
    """See the module."""

    teacher = NextEvent()

    @property
    def rows(self) -> Mapping[str, str]:
        return ROWS

    def stage(self, stage: Stage, schema: Schema) -> Stage:
        """A stage that knows and asks about one event an occasion."""
        of = Definition.of(schema.churn)
        learned, later = one_an_occasion(stage.train, of), one_an_occasion(stage.timeline, of)
        return replace(
            stage,
            name=f"{stage.name}-occasions",
            train=stage.train.take(learned),
            timeline=stage.timeline.take(later),
            asked=stage.asked[later],
        )

    def readers(self, adapt: Sequence[str], network: Network, schema: Schema) -> dict[str, Baseline]:
        """Trees, not yet fitted, on the states of a network."""
        of = Definition.of(schema.churn)
        embedding = Embedding(network, of, remembers=len(adapt) > 1)
        return {use: ChurnBaseline(TREES[use](), of, schema.churn.dates, embedding) for use in adapt}
