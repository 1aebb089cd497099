"""What `neighbours: auto` means on a log: whether an item's vector gains from what follows it."""

from __future__ import annotations

import numpy as np

from desireline.core.progress import say
from desireline.evaluation.queries import Histories
from desireline.schema.model import Schema
from desireline.tasks.interface import Teacher
from desireline.tasks.questions import training_histories
from desireline.tasks.stages import Stage

REPEATS = 0.1  # of a log whose users ask for what is new to them


def neighbours_settled(schema: Schema, teacher: Teacher, stage: Stage) -> Schema:
    """The schema with `neighbours` read off what a stage learns from, where it is auto.

    They help to find what is new to a user and blur what he repeats; and in a basket, whose items share a moment,
    nothing follows. So there are none where repeats are asked for and more than few, where most of what comes after
    something else does so at that thing's moment, and where nothing comes after anything.
    """
    if schema.encoder.neighbours != "auto":
        return schema
    most = teacher.default_neighbours
    if most:
        histories = training_histories(stage.train, stage.from_us)
        asks_new = stage.masks_seen or repeats(histories) <= REPEATS
        most = most if asks_new and at_once(histories, schema) <= 0.5 else 0
        say(
            f"Items gain from the {most} that follow them most (neighbours: auto)."
            if most
            else "Items gain from no others: users repeat items, or buy in baskets (neighbours: auto)."
        )
    return schema.model_copy(update={"encoder": schema.encoder.model_copy(update={"neighbours": most})})


def repeats(histories: Histories) -> float:
    """The share of events about an item that the user had before."""
    owner = np.repeat(np.arange(len(histories.offsets) - 1), np.diff(histories.offsets))
    pairs = owner * (int(histories.item.max(initial=0)) + 1) + histories.item
    return 1 - len(np.unique(pairs)) / max(1, len(pairs))


def at_once(histories: Histories, schema: Schema) -> float:
    """The share, of events that come after another, of those at that one's moment; 1 where none comes after another.

    A column that breaks ties orders them.
    """
    later = np.ones(len(histories.time), np.bool_)
    begin = histories.offsets[:-1]
    later[begin[begin < len(later)]] = False
    tied = (np.diff(histories.time, prepend=0) == 0)[later]
    if len(tied) == 0:
        return 1.0
    return float(tied.mean()) if schema.tie_break in ("event", "row") else 0.0
