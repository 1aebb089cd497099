"""Rules for the next event without a network: type and waiting time from counts.

The waiting time is a distribution on a grid of moments, estimated by Kaplan and Meier (1958), so that each user's last,
unfinished gap counts for what it is: longer than observed. A question is asked some time after the last event; answers
are conditional on that silence.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from desireline.evaluation.waiting import LEVELS

FIRST = 2  # ids 0 and 1 are no types
POINTS = 256
LEAST_GAPS = 50  # a type with fewer gaps takes the distribution of all
OWN_GAPS = 5.0  # a user's own gaps weigh n / (n + OWN_GAPS) against those of all


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
        self.gap_s, self.censored = _gaps(time, offsets, end_us)
        longest = max(float(self.gap_s.max(initial=1.0)), 1.0)
        self.points = np.expm1(np.linspace(0, np.log1p(3 * longest), POINTS))
        self.passed = kaplan_meier(self.gap_s, self.censored, self.points)

    def types_probability(self, asked: EventHistories) -> NDArray[np.float64]:
        return np.tile(self.share, (len(asked), 1))

    def gap_quantiles(self, asked: EventHistories) -> NDArray[np.float64]:
        return remaining(np.broadcast_to(self.passed, (len(asked), POINTS)), self.points, asked.elapsed_s())

    def state(self) -> dict[str, NDArray[Any]]:
        return {"share": self.share, "points": self.points, "passed": self.passed}

    def load(self, state: dict[str, NDArray[Any]]) -> None:
        self.share, self.points, self.passed = state["share"], state["points"], state["passed"]

    @property
    def parameters(self) -> int:
        return len(self.share) + len(self.passed)


class MarkovEvents(Marginal):
    """Given the last event's type: how often each type followed it, and the gaps after it."""

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
        self.passed_after = np.tile(self.passed, (types, 1))
        for kind in range(FIRST, types):
            own = event == kind
            if own.sum() >= LEAST_GAPS:
                self.passed_after[kind] = kaplan_meier(self.gap_s[own], self.censored[own], self.points)

    def types_probability(self, asked: EventHistories) -> NDArray[np.float64]:
        return self.follow[asked.event[asked.last()]]

    def gap_quantiles(self, asked: EventHistories) -> NDArray[np.float64]:
        return remaining(self.passed_after[asked.event[asked.last()]], self.points, asked.elapsed_s())

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
        last = asked.event[asked.last()].astype(np.int64)
        probability = (1 - self.repeated[0]) * np.tile(self.share, (len(asked), 1))
        probability[np.arange(len(last)), np.maximum(last, FIRST)] += self.repeated[0]
        return np.asarray(probability / probability.sum(axis=1, keepdims=True), np.float64)

    def state(self) -> dict[str, NDArray[Any]]:
        return super().state() | {"repeated": self.repeated}

    def load(self, state: dict[str, NDArray[Any]]) -> None:
        super().load(state)
        self.repeated = state["repeated"]


class MedianGap(Marginal):
    """Types and gaps of the user's own past, leaning on those of all while it is short."""

    name: ClassVar[str] = "median-gap"

    def types_probability(self, asked: EventHistories) -> NDArray[np.float64]:
        rows = np.repeat(np.arange(len(asked)), np.diff(asked.offsets))
        own = np.zeros((len(asked), len(self.share)))
        np.add.at(own, (rows, asked.event.astype(np.int64)), 1)
        own[:, :FIRST] = 0
        mixed = own + OWN_GAPS * self.share
        return np.asarray(mixed / mixed.sum(axis=1, keepdims=True), np.float64)

    def gap_quantiles(self, asked: EventHistories) -> NDArray[np.float64]:
        passed = np.empty((len(asked), POINTS))
        for q in range(len(asked)):
            gaps = np.sort(np.diff(asked.time[asked.offsets[q] : asked.offsets[q + 1]]) / 1e6)
            own = np.searchsorted(gaps, self.points, side="right") / max(1, len(gaps))
            weight = len(gaps) / (len(gaps) + OWN_GAPS)
            passed[q] = weight * own + (1 - weight) * self.passed
        return remaining(passed, self.points, asked.elapsed_s())


NEXT_EVENT: dict[str, type[NextEventBaseline]] = {
    "popularity": Marginal,
    "markov": MarkovEvents,
    "repeat-last": RepeatLastEvent,
    "median-gap": MedianGap,
}


def _gaps(
    time: NDArray[np.int64], offsets: NDArray[np.int64], end_us: int
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """From each event the seconds to the user's next one, or to the end of observation where none came."""
    last = np.zeros(len(time), bool)
    last[offsets[1:][np.diff(offsets) > 0] - 1] = True
    after = np.minimum(np.arange(1, len(time) + 1), max(0, len(time) - 1))
    return np.asarray(np.where(last, end_us - time, time[after] - time) / 1e6, np.float64), last


def kaplan_meier(
    gap_s: NDArray[np.float64], censored: NDArray[np.bool_], points: NDArray[np.float64]
) -> NDArray[np.float64]:
    """P(gap ≤ point) at ascending points, from gaps of which some are censored; 1 at the last point."""
    order = np.lexsort((censored, gap_s))  # at equal times what came stands before what was cut off
    gap, came = gap_s[order], ~censored[order]
    at_risk = len(gap) - np.arange(len(gap))
    survival = np.exp(np.cumsum(np.log1p(-np.where(came, np.minimum(1 / np.maximum(at_risk, 1), 1 - 1e-9), 0))))
    place = np.searchsorted(gap, points, side="right") - 1
    passed = np.where(place >= 0, 1 - survival[np.maximum(place, 0)] if len(gap) else 0.0, 0.0)
    passed[-1] = 1.0
    return np.asarray(passed, np.float64)


def remaining(
    passed: NDArray[np.float64], points: NDArray[np.float64], elapsed_s: NDArray[np.float64]
) -> NDArray[np.float64]:
    """float64 [Q, LEVELS]: quantiles of gap − elapsed given gap > elapsed, from P(gap ≤ point) [Q, points]."""
    answer = np.empty((len(elapsed_s), len(LEVELS)))
    for q, elapsed in enumerate(elapsed_s):
        gone = np.interp(elapsed, points, passed[q])
        answer[q] = np.interp(gone + LEVELS * (1 - gone), passed[q], points) - elapsed
    return np.maximum(answer, 0)
