"""Rules for the next event without a network: type and waiting time from counts.

A question is asked some time after the last event, and its waiting time is conditional on that silence; see `gaps`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from desireline.classical.gaps import kaplan_meier, moments, observed_gaps, own_passed, remaining, tail_hazard

FIRST = 2  # ids 0 and 1 are no types


@dataclass(frozen=True)
class EventHistories:
    """All events that Q questions may look at, ragged, at least one each.

    offsets : int64 [Q + 1];  event : int16 [N];  time : int64 [N], microseconds;  as_of : int64 [Q], microseconds
    """

    offsets: NDArray[np.int64]
    event: NDArray[np.int16]
    time: NDArray[np.int64]
    as_of: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def last(self) -> NDArray[np.int64]:
        """int64 [Q]: the place of each history's last event."""
        return self.offsets[1:] - 1

    def last_type(self) -> NDArray[np.int64]:
        """int64 [Q]: the type of each history's last event."""
        return self.event[self.last()].astype(np.int64)

    def elapsed_s(self) -> NDArray[np.float64]:
        """float64 [Q]: seconds since the last event."""
        return np.asarray((self.as_of - self.time[self.last()]) / 1e6, np.float64)


class NextEventBaseline(Protocol):
    """A rule for type and waiting time, made with its constants as keyword arguments."""

    name: ClassVar[str]
    grid: ClassVar[list[dict[str, Any]]]

    def fit(
        self, event: NDArray[np.int16], time: NDArray[np.int64], offsets: NDArray[np.int64], types: int, end_us: int
    ) -> None:
        """Learn from one history a user, observed until `end_us`."""

    def types_probability(self, asked: EventHistories) -> NDArray[np.float64]:
        """float64 [Q, types]: of the next event's type."""

    def gap_quantiles(self, asked: EventHistories) -> NDArray[np.float64]:
        """float64 [Q, LEVELS]: quantiles in seconds of the time still to wait after `as_of`."""

    def state(self) -> dict[str, NDArray[Any]]:
        """What was learnt, as arrays."""

    def load(self, state: dict[str, NDArray[Any]]) -> None:
        """Take back what `state` gave."""

    @property
    def parameters(self) -> int:
        """Learnt numbers."""


class Marginal:
    """What comes next for anybody: the share of each type, the gaps of all."""

    name: ClassVar[str] = "popularity"
    grid: ClassVar[list[dict[str, Any]]] = [{}]

    def fit(
        self, event: NDArray[np.int16], time: NDArray[np.int64], offsets: NDArray[np.int64], types: int, end_us: int
    ) -> None:
        share = np.bincount(event, minlength=types).astype(np.float64) + 1.0
        share[:FIRST] = 0
        self.share = share / share.sum()
        gap_s, censored = observed_gaps(time, offsets, end_us)
        self.points = moments(gap_s)
        self.passed = kaplan_meier(gap_s, censored, self.points)
        self.hazard = np.array([tail_hazard(gap_s, censored)])

    def types_probability(self, asked: EventHistories) -> NDArray[np.float64]:
        return np.tile(self.share, (len(asked), 1))

    def gap_quantiles(self, asked: EventHistories) -> NDArray[np.float64]:
        alike = np.zeros(len(asked), np.int64)
        return remaining(self.passed[None], alike, self.points, float(self.hazard[0]), asked.elapsed_s())

    def state(self) -> dict[str, NDArray[Any]]:
        return {"share": self.share, "points": self.points, "passed": self.passed, "hazard": self.hazard}

    def load(self, state: dict[str, NDArray[Any]]) -> None:
        self.share, self.points = state["share"], state["points"]
        self.passed, self.hazard = state["passed"], state["hazard"]

    @property
    def parameters(self) -> int:
        return len(self.share) + len(self.passed)


class MarkovEvents(Marginal):
    """Given the last event's type: how often each type followed it, and the gaps after it.

    `prior` : events of all types that a type's own lean on.
    """

    name: ClassVar[str] = "markov"
    grid: ClassVar[list[dict[str, Any]]] = [{"prior": 1.0}, {"prior": 10.0}, {"prior": 100.0}]

    def __init__(self, prior: float = 10.0) -> None:
        self.prior = prior

    def fit(
        self, event: NDArray[np.int16], time: NDArray[np.int64], offsets: NDArray[np.int64], types: int, end_us: int
    ) -> None:
        super().fit(event, time, offsets, types, end_us)
        last = np.zeros(len(event), bool)
        last[offsets[1:][np.diff(offsets) > 0] - 1] = True
        before = np.flatnonzero(~last)
        follow = np.zeros((types, types))
        np.add.at(follow, (event[before].astype(np.int64), event[before + 1].astype(np.int64)), 1)
        follow[:, :FIRST] = 0
        smoothed = follow + self.prior * self.share
        self.follow = smoothed / smoothed.sum(axis=1, keepdims=True)
        gap_s, censored = observed_gaps(time, offsets, end_us)
        self.passed_after = np.empty((types, len(self.points)))
        for kind in range(types):
            own = event == kind
            after = kaplan_meier(gap_s[own], censored[own], self.points)
            self.passed_after[kind] = (own.sum() * after + self.prior * self.passed) / (own.sum() + self.prior)

    def types_probability(self, asked: EventHistories) -> NDArray[np.float64]:
        return self.follow[asked.last_type()]

    def gap_quantiles(self, asked: EventHistories) -> NDArray[np.float64]:
        return remaining(self.passed_after, asked.last_type(), self.points, float(self.hazard[0]), asked.elapsed_s())

    def state(self) -> dict[str, NDArray[Any]]:
        return super().state() | {"follow": self.follow, "passed_after": self.passed_after}

    def load(self, state: dict[str, NDArray[Any]]) -> None:
        super().load(state)
        self.follow, self.passed_after = state["follow"], state["passed_after"]

    @property
    def parameters(self) -> int:
        return super().parameters + self.follow.size + self.passed_after.size


class RepeatLastEvent(Marginal):
    """The last type again, as often as that was right in the past; else the others by their shares."""

    name: ClassVar[str] = "repeat-last"

    def fit(
        self, event: NDArray[np.int16], time: NDArray[np.int64], offsets: NDArray[np.int64], types: int, end_us: int
    ) -> None:
        super().fit(event, time, offsets, types, end_us)
        first = np.zeros(len(event), bool)
        first[offsets[:-1][np.diff(offsets) > 0]] = True
        after = np.flatnonzero(~first)
        right = float((event[after] == event[after - 1]).sum())
        self.repeated = np.array([(right + 1) / (len(after) + 2)])

    def types_probability(self, asked: EventHistories) -> NDArray[np.float64]:
        last = asked.last_type()
        again = np.where(last >= FIRST, self.repeated[0], 0.0)  # an unknown type can't be said again
        probability = (1 - again)[:, None] * self.share
        probability[np.arange(len(last)), last] += again
        return np.asarray(probability, np.float64)

    def state(self) -> dict[str, NDArray[Any]]:
        return super().state() | {"repeated": self.repeated}

    def load(self, state: dict[str, NDArray[Any]]) -> None:
        super().load(state)
        self.repeated = state["repeated"]


class MedianGap(Marginal):
    """Types and gaps of the user's own past, leaning on those of all as if on `prior` further events."""

    name: ClassVar[str] = "median-gap"
    grid: ClassVar[list[dict[str, Any]]] = [{"prior": 1.0}, {"prior": 5.0}, {"prior": 20.0}]

    def __init__(self, prior: float = 5.0) -> None:
        self.prior = prior

    def types_probability(self, asked: EventHistories) -> NDArray[np.float64]:
        types = len(self.share)
        rows = np.repeat(np.arange(len(asked)), np.diff(asked.offsets))
        own = np.bincount(rows * types + asked.event, minlength=len(asked) * types).reshape(len(asked), types)
        mixed = own * (np.arange(types) >= FIRST) + self.prior * self.share
        return np.asarray(mixed / mixed.sum(axis=1, keepdims=True), np.float64)

    def gap_quantiles(self, asked: EventHistories) -> NDArray[np.float64]:
        passed = own_passed(asked.time, asked.offsets, self.points, self.passed, self.prior)
        own_row = np.arange(len(asked))
        return remaining(passed, own_row, self.points, float(self.hazard[0]), asked.elapsed_s())


NEXT_EVENT: dict[str, type[NextEventBaseline]] = {
    "popularity": Marginal,
    "markov": MarkovEvents,
    "repeat-last": RepeatLastEvent,
    "median-gap": MedianGap,
}
