"""Questions read off a stage: from which event on, as of when, and what then truly came."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from desireline.evaluation.queries import Histories, Targets
from desireline.sequences.ragged import POSITIVE, TARGET, Sequences
from desireline.sequences.vocabulary import FIRST
from desireline.tasks.stages import Stage

DAY_US = 86_400_000_000


@dataclass(frozen=True)
class Questions:
    """Q questions on a timeline.

    user  : int64 [Q], row of the timeline;  place : int64 [Q], the last event that may be seen
    as_of : int64 [Q], microseconds: the moment of the question
    """

    timeline: Sequences
    user: NDArray[np.int64]
    place: NDArray[np.int64]
    as_of: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.user)


@dataclass(frozen=True)
class ItemQuestions(Questions):
    """Which items come at the user's next occasion."""

    targets: Targets

    @property
    def wanted(self) -> NDArray[np.int64]:
        """int64 [Q]: how many items came."""
        return np.diff(self.targets.offsets)

    def part(self, rows: NDArray[np.int64]) -> ItemQuestions:
        """Some of the questions."""
        sizes = self.wanted[rows]
        offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        places = np.repeat(self.targets.offsets[rows] - offsets[:-1], sizes) + np.arange(offsets[-1])
        targets = Targets(offsets, self.targets.item[places])
        return ItemQuestions(self.timeline, self.user[rows], self.place[rows], self.as_of[rows], targets)


@dataclass(frozen=True)
class EventQuestions(Questions):
    """What comes next: type and item ids (0: none observed), and how long after `as_of`.

    wait_s : float64 [Q], seconds to the next event, or to the end of observation where `censored`
    horizon_s : float64 [Q], seconds from `as_of` to the end of observation
    """

    event: NDArray[np.int16]
    item: NDArray[np.int32]
    wait_s: NDArray[np.float64]
    censored: NDArray[np.bool_]
    horizon_s: NDArray[np.float64]

    def item_targets(self) -> Targets:
        """The next item as targets: none where the next event has no item or was not observed."""
        has = self.item > 0
        return Targets(np.concatenate([[0], np.cumsum(has)]).astype(np.int64), self.item[has])


def occasions(sequences: Sequences, kind: str) -> NDArray[np.int64]:
    """int64 [N], ascending: events of one user at one occasion (equal times, or one day) share a number."""
    time = np.asarray(sequences["time"])
    key = time // DAY_US if kind == "day" else time
    new = np.ones(len(time), bool)
    new[1:] = key[1:] != key[:-1]
    new[sequences.offsets[:-1][np.diff(sequences.offsets) > 0]] = True
    return np.cumsum(new) - 1


def item_questions(stage: Stage, occasion: str) -> ItemQuestions:
    """One question an occasion that holds a target: from the events before it, which items?"""
    timeline = stage.timeline
    item = np.asarray(timeline["item"])
    places = np.flatnonzero(stage.asked & (timeline["role"] & TARGET > 0) & (item > 0))
    owner = np.searchsorted(timeline.offsets, places, side="right") - 1
    if stage.masks_seen:  # leave-one-out asks event by event
        group, before = np.arange(len(places)), places - 1
    else:
        numbers = occasions(timeline, occasion)
        group = np.unique(numbers[places], return_inverse=True)[1] if len(places) else np.empty(0, np.int64)
        moments = occasions(timeline, "time")
        begins = np.flatnonzero(np.diff(moments, prepend=-1))  # the first event of each moment
        before = begins[moments[places]] - 1
    first = np.flatnonzero(np.diff(group, prepend=-1)) if len(group) else group
    known = before[first] >= timeline.offsets[owner[first]]  # without an earlier event there is nothing to read
    pairs = np.unique(np.stack([group, item[places]], axis=1), axis=0) if len(places) else np.empty((0, 2), np.int64)
    sizes = np.bincount(pairs[:, 0], minlength=len(first)) if len(first) else np.empty(0, np.int64)
    kept = np.repeat(known, sizes)
    return ItemQuestions(
        timeline,
        owner[first][known],
        before[first][known],
        np.asarray(timeline["time"])[places[first]][known],
        Targets(np.concatenate([[0], np.cumsum(sizes[known])]).astype(np.int64), pairs[kept, 1].astype(np.int32)),
    )


def event_questions(stage: Stage) -> EventQuestions:
    """From every event that has one before the end of observation: type, item and moment of the next.

    A user's last event before the asked span is asked as of the span's begin: that nothing came since is known.
    """
    timeline, asked = stage.timeline, stage.asked
    time = np.asarray(timeline["time"])
    owner = timeline.rows()
    last = np.zeros(timeline.events, bool)
    last[timeline.offsets[1:][np.diff(timeline.offsets) > 0] - 1] = True
    follows = np.zeros(timeline.events, bool)
    follows[:-1] = asked[1:] & ~last[:-1]
    if stage.end_us is None:
        places = np.flatnonzero(follows)
    else:
        places = np.flatnonzero(follows | (last & (asked | (time < stage.from_us))))
    observed = follows[places]
    after = np.minimum(places + 1, timeline.events - 1)
    as_of = np.maximum(time[places], stage.from_us) if stage.end_us is not None else time[places]
    end = stage.until_us
    wait = np.where(observed, time[after] - as_of, end - as_of) / 1e6
    return EventQuestions(
        timeline,
        owner[places],
        places,
        as_of,
        np.where(observed, timeline["event"][after], 0).astype(np.int16),
        np.where(observed, timeline["item"][after], 0).astype(np.int32),
        wait,
        ~observed,
        (end - as_of) / 1e6,
    )


def item_histories(questions: Questions, lo: int = 0, hi: int | None = None) -> Histories:
    """The positive item events that questions [lo, hi) may look at."""
    timeline = questions.timeline
    user, place = questions.user[lo:hi], questions.place[lo:hi]
    keep = (timeline["role"] & POSITIVE > 0) & (timeline["item"] >= FIRST)
    passed = np.concatenate([[0], np.cumsum(keep)])
    return _gathered(
        timeline, np.flatnonzero(keep), passed[timeline.offsets[user]], passed[place + 1], questions.as_of[lo:hi]
    )


def without_known_item(questions: Questions) -> NDArray[np.bool_]:
    """bool [Q]: whether no event that a question may look at, of whatever type, is about a known item."""
    timeline = questions.timeline
    passed = np.concatenate([[0], np.cumsum(timeline["item"] >= FIRST)])
    return np.equal(passed[questions.place + 1], passed[timeline.offsets[questions.user]])


def training_histories(train: Sequences, end_us: int) -> Histories:
    """One positive item history a user, for what is fitted without a network."""
    rows = np.arange(len(train), dtype=np.int64)
    asked = Questions(train, rows, train.offsets[1:] - 1, np.full(len(train), end_us, np.int64))
    return item_histories(asked)


def _gathered(
    timeline: Sequences,
    kept: NDArray[np.int64],
    begin: NDArray[np.int64],
    end: NDArray[np.int64],
    as_of: NDArray[np.int64],
) -> Histories:
    lengths = end - begin
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    places = kept[np.arange(offsets[-1]) + np.repeat(begin - offsets[:-1], lengths)]
    return Histories(offsets, np.asarray(timeline["item"])[places], np.asarray(timeline["time"])[places], as_of)
