"""What a customer spends on a day with a purchase: Gamma-Gamma (Fader & Hardie 2013; Colombo & Jiang 1999).

A customer's days vary as Gamma(p, ν), and customers by ν ~ Gamma(q, v): who has few days is judged by the others, who
has many by the own mean. Independent of how often somebody buys; where big spenders come more often it is biased.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln

from desireline.classical.likelihood import maximise
from desireline.classical.repeats import Repeats
from desireline.core.errors import DataError

MOST = 50_000  # customers to learn from; of more, so many are drawn
NO_MEAN = 0.01  # q − 1 below this: the mean over customers, p v / (q − 1), is whatever the largest of them spent


class GammaGamma:
    """Expected value of a customer's days with purchases, shrunk to that of all: fitted by maximum likelihood.

    Parameters p and q have no unit, v has the log's money.

    >>> model = GammaGamma()
    >>> model.load({"values": np.array([6.25, 3.74, 15.44])})  # the published fit to a CD shop's customers
    >>> asked = Repeats(np.array([2.0, 0]), np.array([30.43, 0]), np.array([38.86, 39]), np.array([22.35, 0]))
    >>> model.expected_value(asked).round(2).tolist()
    [24.66, 35.22]
    """

    name: ClassVar[str] = "gamma-gamma"
    names: ClassVar[tuple[str, ...]] = ("p", "q", "v")

    def fit(self, train: Repeats, seed: int = 0) -> None:
        """Learn from the customers with a repeat and a mean value above 0; of more than MOST, MOST are drawn.

        q is looked for above 1: below, no mean over customers exists.

        Raises DataError when there is no such customer, when q ends at 1, or when the optimiser does not converge.
        """
        held = np.flatnonzero((train.frequency > 0) & (_value(train) > 0))
        if not len(held):
            raise DataError(
                f"None of the {len(train)} customers has a day after the first with purchases of a value above 0, so "
                "nothing tells what a day brings. Declare the value's column, or take a later cut."
            )
        used = train.rows(held).sample(MOST, seed)
        x, value = used.frequency, _value(used)
        unit = float(value.mean())

        def mean(values: NDArray[np.float64]) -> float:
            p, above, v = values
            return float(_log_density(x, value / unit, p, 1 + above, v).mean())

        starts = [[5.0, 2.0, 0.4], [1.0, 1.0, 1.0], [50.0, 2.0, 0.04]]
        p, above, v = maximise(mean, starts, f"{self.name} over {len(used)} customers")
        if above < NO_MEAN:
            raise DataError(
                f"The {len(used)} customers' mean values differ so much that no mean over customers exists (q = "
                f"{1 + above:.3f}). Cap the value, or count what is out of all proportion apart."
            )
        self.values = np.array([p, 1 + above, v * unit])

    def log_likelihood(self, asked: Repeats) -> NDArray[np.float64]:
        """float64 [Q]: log density of each customer's mean value, in nats; 0 without a repeat of a value above 0."""
        told = (asked.frequency > 0) & (_value(asked) > 0)
        out = np.zeros(len(asked))
        out[told] = _log_density(asked.frequency[told], _value(asked)[told], *self.values)
        return out

    def expected_value(self, asked: Repeats) -> NDArray[np.float64]:
        """float64 [Q]: expected value of a further day with purchases, p (v + x m_x) / (p x + q − 1).

        A mean of all customers, p v / (q − 1), and of the own mean; without a repeat, that of all. A negative mean, of
        goods that came back, counts as 0.
        """
        p, q, v = self.values
        x = asked.frequency
        return np.asarray(p * (v + x * np.maximum(_value(asked), 0)) / (p * x + q - 1), np.float64)

    def state(self) -> dict[str, NDArray[Any]]:
        """What was learnt: `values`, in the order of `names`."""
        return {"values": self.values}

    def load(self, state: dict[str, NDArray[Any]]) -> None:
        """Take back what `state` gave."""
        self.values = state["values"]

    @property
    def named(self) -> dict[str, float]:
        """The learnt parameters by their names in the paper."""
        return dict(zip(self.names, self.values.tolist(), strict=True))

    @property
    def parameters(self) -> int:
        """Learnt numbers."""
        return len(self.values)


def _value(asked: Repeats) -> NDArray[np.float64]:
    if asked.value is None:
        raise DataError("These repeats have no value; count them from purchases with a value.")
    return asked.value


def _log_density(
    x: NDArray[np.float64], mean: NDArray[np.float64], p: float, q: float, v: float
) -> NDArray[np.float64]:
    """float64 [Q]: log density of the mean value of x days, customers' ν integrated out."""
    days, total = p * x, x * mean
    gammas = gammaln(days + q) - gammaln(days) - gammaln(q)
    return np.asarray(gammas + q * np.log(v / (v + total)) + days * np.log(total / (v + total)) - np.log(mean))
