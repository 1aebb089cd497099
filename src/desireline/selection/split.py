"""For one user: which events each split sees, learns from and is asked for. The answer to "is this a leak?"."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from desireline.core.errors import UnknownUserError
from desireline.schema.model import Schema
from desireline.sequences.ragged import TARGET
from desireline.sequences.vocabulary import FIRST, Vocabulary
from desireline.tasks.answers import moment
from desireline.tasks.stages import Stage, stages


@dataclass(frozen=True)
class Split:
    """One user's events in order; of each, what it is to the validation and to the test.

    `learned`: models learn from it. `history`: it may be read before a later question, but nothing learns from it.
    `asked`: it is a target, asked from the events before it. `hidden`: it does not exist for this stage.
    """

    user: str
    protocol: str
    events: list[dict[str, Any]]

    def to_json(self) -> dict[str, Any]:
        """As the command prints it."""
        return {"user": self.user, "protocol": self.protocol, "events": self.events}

    def __rich__(self) -> Table:
        table = Table("time", "event", "item", "target", "validation", "test", title=f"{self.user} · {self.protocol}")
        for e in self.events:
            table.add_row(
                e["time"], e["event"], e["item"] or "", "yes" if e["target"] else "", e["validation"], e["test"]
            )
        return table


def show_split(folder: Path, schema: Schema, protocol: str, at: datetime, user: str) -> Split:
    """The split of one user. Raises UnknownUserError when cleaning leaves no event of that user."""
    validation, test = stages(folder, schema, protocol, at)
    row = test.timeline.users.index_of(user)
    if row is None:
        raise UnknownUserError(f"User {user!r} has no event that cleaning leaves. Check the id.")
    timeline, vocabularies = test.timeline, test.prepared.vocabularies
    span = slice(int(timeline.offsets[row]), int(timeline.offsets[row + 1]))
    states = {stage.name: _states(stage, user, np.asarray(timeline["time"])[span]) for stage in (validation, test)}
    events = []
    for place, k in zip(range(span.start, span.stop), range(span.stop - span.start), strict=True):
        events.append(
            {
                "time": moment(int(timeline["time"][place])),
                "event": _value(vocabularies["event"], int(timeline["event"][place])),
                "item": _value(vocabularies["item"], int(timeline["item"][place])),
                "target": bool(timeline["role"][place] & TARGET),
                "validation": states["validation"][k],
                "test": states["test"][k],
            }
        )
    return Split(user, test.protocol, events)


def _states(stage: Stage, user: str, times: np.ndarray[Any, np.dtype[np.int64]]) -> list[str]:
    """What each of the user's events is to one stage, in the order of the test's timeline."""
    row = stage.timeline.users.index_of(user)
    if row is None:
        return ["hidden"] * len(times)
    begin, end = int(stage.timeline.offsets[row]), int(stage.timeline.offsets[row + 1])
    learner = stage.train.users.index_of(user)
    learned = 0 if learner is None else int(stage.train.offsets[learner + 1] - stage.train.offsets[learner])
    asked = np.flatnonzero(stage.asked[begin:end])
    last = int(asked[-1]) if stage.masks_seen and len(asked) else end - begin
    states = []
    for k in range(len(times)):
        if k >= end - begin or k > last:
            states.append("hidden")
        elif stage.asked[begin + k]:
            states.append("asked")
        else:
            states.append("learned" if k < learned else "history")
    return states


def _value(vocabulary: Vocabulary, index: int) -> str | None:
    return None if index == 0 else "(unknown before the cut)" if index < FIRST else vocabulary.value_of(index)
