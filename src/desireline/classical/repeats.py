"""What a buy-till-you-die model and a spend model know of a customer: three or four numbers, whatever the history.

Days count, not receipts: who buys twice on one day has made one purchase of the summed value. The first day makes
somebody a customer; the days with purchases after it are the repeats.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from desireline.core.errors import DataError


@dataclass(frozen=True)
class Repeats:
    """The repeat purchases of Q customers, seen from each one's own moment of asking.

    Parameters
    ----------
    frequency : float64 [Q]
        x: days with purchases after the first one.
    recency : float64 [Q]
        t_x: time from the first to the last day with a purchase; 0 without a repeat.
    age : float64 [Q]
        T: time from the first day with a purchase to the moment of asking.
    value : float64 [Q], optional
        m_x: mean value of a repeat day, in the log's money; 0 without a repeat. Only the spend model reads it.
    unit_days : float
        The unit of both times, in days: 7 says weeks.

    Raises DataError, naming the customer, when the numbers contradict each other.

    >>> Repeats(np.array([2.0]), np.array([30.43]), np.array([38.86]), unit_days=7.0).rate  # a week
    0.0514668...
    """

    frequency: NDArray[np.float64]
    recency: NDArray[np.float64]
    age: NDArray[np.float64]
    value: NDArray[np.float64] | None = None
    unit_days: float = 1.0

    def __post_init__(self) -> None:
        x, last, age = self.frequency, self.recency, self.age
        lengths = {len(x), len(last), len(age)} | (set() if self.value is None else {len(self.value)})
        if len(lengths) > 1:
            raise DataError(f"Repeats need one number a customer in each array; the lengths are {sorted(lengths)}.")
        if not 0 < self.unit_days < np.inf:
            raise DataError(f"The unit of time is {self.unit_days} days; give a positive number.")
        _refuse(~(np.isfinite(x) & np.isfinite(last) & np.isfinite(age)), "a number is missing or infinite")
        _refuse((x < 0) | (last < 0), "frequency or recency is negative")
        _refuse(x != np.floor(x), "the frequency counts days and is no whole number")
        _refuse(last > age, "the last purchase lies after the moment of asking")
        _refuse((x > 0) != (last > 0), "frequency and recency must be both 0 or both above 0")
        if self.value is not None:
            _refuse(~np.isfinite(self.value), "the value is missing or infinite; without a repeat it is 0")

    def __len__(self) -> int:
        return len(self.frequency)

    @property
    def rate(self) -> float:
        """Repeats a unit of time, over all customers together."""
        return float(self.frequency.sum() / self.age.sum()) if self.age.any() else 0.0

    def rows(self, which: NDArray[np.int64]) -> Repeats:
        """Some of the customers, in the order asked for."""
        value = None if self.value is None else self.value[which]
        return Repeats(self.frequency[which], self.recency[which], self.age[which], value, self.unit_days)

    def sample(self, most: int, seed: int) -> Repeats:
        """At most so many of the customers, drawn without replacement and kept in their order."""
        if len(self) <= most:
            return self
        return self.rows(np.sort(np.random.default_rng(seed).choice(len(self), most, replace=False)))

    def distinct(self) -> tuple[Repeats, NDArray[np.float64]]:
        """Each pattern of frequency, recency and age once, without value, and by how many customers it is shared.

        Measured in days, most customers of a large shop share theirs with others.
        """
        order = np.lexsort((self.age, self.recency, self.frequency))
        pattern = np.stack([self.frequency, self.recency, self.age])[:, order]
        start = np.flatnonzero(np.append(True, (pattern[:, 1:] != pattern[:, :-1]).any(axis=0))[: len(self)])
        held = np.diff(np.append(start, len(self))).astype(np.float64)
        x, last, age = pattern[:, start]
        return Repeats(x, last, age, unit_days=self.unit_days), held


def count_repeats(
    offsets: NDArray[np.int64],
    day: NDArray[np.int64],
    as_of: NDArray[np.int64],
    value: NDArray[np.float64] | None = None,
    unit_days: float = 1.0,
) -> Repeats:
    """Summaries of Q purchase histories.

    Parameters
    ----------
    offsets : int64 [Q + 1]
        Customer q's purchases are those from offsets[q] to offsets[q + 1].
    day : int64 [N]
        The day of each purchase, ascending in a history: a whole number from any origin.
    as_of : int64 [Q]
        The day of asking, on the same scale; no purchase lies after it.
    value : float64 [N], optional
        What each purchase brought. The values of a day add up.
    unit_days : float
        The unit of the times, in days.

    Raises DataError when a customer has no purchase, or one after the day of asking.

    >>> found = count_repeats(np.array([0, 4]), np.array([3, 3, 10, 17]), np.array([24]), np.array([9.0, 9, 4, 6]), 7.0)
    >>> found.frequency.tolist(), found.recency.tolist(), found.age.tolist(), found.value.tolist()
    ([2.0], [2.0], [3.0], [5.0])
    """
    _refuse(np.diff(offsets) == 0, "there is no purchase; leave out whoever never bought")
    row = np.repeat(np.arange(len(as_of)), np.diff(offsets))
    first, last = day[offsets[:-1]], day[offsets[1:] - 1]
    new = np.append(True, (row[1:] != row[:-1]) | (day[1:] != day[:-1]))[: len(row)]
    frequency = np.bincount(row[new], minlength=len(as_of)).astype(np.float64) - 1
    mean = None
    if value is not None:
        total = np.bincount(row, weights=np.where(day > first[row], value, 0.0), minlength=len(as_of))
        mean = total / np.maximum(frequency, 1)
    return Repeats(frequency, (last - first) / unit_days, (as_of - first) / unit_days, mean, unit_days)


def _refuse(wrong: NDArray[np.bool_], why: str) -> None:
    if wrong.any():
        raise DataError(f"Customer {int(np.flatnonzero(wrong)[0])} (counted from 0): {why}.")
