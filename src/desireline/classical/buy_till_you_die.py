"""Buy till you die: what becomes of a customer, asked of one law whose parameters are fitted by maximum likelihood."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from desireline.classical.lifetime_laws import LAWS, log_likelihood
from desireline.classical.likelihood import maximise
from desireline.classical.repeats import Repeats
from desireline.core.errors import DataError, ModelError, SettingError

MOST = 50_000  # distinct patterns to learn from; with more, as many customers are drawn


class BuyTillYouDie:
    """Who is still a customer, how often one will buy, and whether one will be silent.

    Parameters
    ----------
    law : str
        A key of LAWS.

    Times are in the unit of the `Repeats`; those asked about must have the unit of those learnt from.

    Notes
    -----
    P(still there) of "bg-nbd" is 1 for whoever never came back, however long ago: a known flaw, and the reason for
    "mbg-nbd".

    >>> model = BuyTillYouDie("bg-nbd")
    >>> model.load({"values": np.array([0.243, 4.414, 0.793, 2.426]), "unit_days": np.array([7.0])})
    >>> asked = Repeats(np.array([2.0]), np.array([30.43]), np.array([38.86]), unit_days=7.0)
    >>> model.expected_purchases(asked, 39.0).round(3).tolist()  # Fader, Hardie & Lee's (2005) example
    [1.226]
    """

    name: ClassVar[str] = "buy-till-you-die"
    grid: ClassVar[list[dict[str, Any]]] = [{"law": law} for law in LAWS]

    def __init__(self, law: str = "mbg-nbd") -> None:
        if law not in LAWS:
            raise SettingError(f'"{law}" is no buy-till-you-die law; there are {", ".join(LAWS)}.')
        self.law = law

    def fit(self, train: Repeats, seed: int = 0) -> None:
        """Learn the law's parameters.

        Customers with equal numbers are looked at once; of more than MOST distinct patterns, MOST customers are drawn.

        Raises DataError when nobody came back on a later day, or when the optimiser does not converge.
        """
        law = LAWS[self.law]
        if not len(train):
            raise DataError("There is no customer to learn from: no purchase lies before the cut.")
        if not train.frequency.any():
            raise DataError(
                f"None of the {len(train)} customers bought on a second day, so nothing tells when one leaves. Take a "
                "later cut."
            )
        pattern, held = train.distinct()
        if len(pattern) > MOST:
            pattern, held = train.sample(MOST, seed).distinct()
        unit = float(train.age.mean())  # as in the search all parameters should be about 1
        scaled = Repeats(pattern.frequency, pattern.recency / unit, pattern.age / unit)
        weight = held / held[pattern.frequency > 0].sum()

        def mean(values: NDArray[np.float64]) -> float:
            return float(np.einsum("q,q", weight, log_likelihood(law, values, scaled)))  # @ would wait for threads

        found = maximise(mean, law.starts(train.rate * unit), f"{self.law} over {len(train)} customers")
        self.values = found * unit ** np.array(law.powers, np.float64)
        self.unit_days = train.unit_days

    def log_likelihood(self, asked: Repeats) -> NDArray[np.float64]:
        """float64 [Q]: log density of each customer's repeats, in nats; its size depends on the unit of time."""
        self._check(asked)
        return log_likelihood(LAWS[self.law], self.values, asked)

    def alive_probability(self, asked: Repeats) -> NDArray[np.float64]:
        """float64 [Q]: P(has not left for good by the moment of asking)."""
        self._check(asked)
        return np.asarray(expit(-LAWS[self.law].log_odds_gone(self.values, asked)), np.float64)

    def expected_purchases(self, asked: Repeats, horizon: float) -> NDArray[np.float64]:
        """float64 [Q]: expected days with purchases in (T, T + horizon]."""
        _check_span(horizon, 0.0)
        return self.alive_probability(asked) * LAWS[self.law].purchases(self.values, asked, horizon)

    def silence_probability(self, asked: Repeats, horizon: float, gap: float = 0.0) -> NDArray[np.float64]:
        """float64 [Q]: P(no purchase in (T + gap, T + gap + horizon]), whether one has left or only waits.

        What happens in the gap is not looked at: under the geometric laws one may buy and leave in it.
        """
        _check_span(horizon, gap)
        buys = LAWS[self.law].buys(self.values, asked, horizon, gap)
        return np.asarray(np.clip(1 - self.alive_probability(asked) * buys, 0, 1), np.float64)

    def state(self) -> dict[str, NDArray[Any]]:
        """What was learnt: `values` in the order of the law's names, and `unit_days`."""
        return {"values": self.values, "unit_days": np.array([self.unit_days])}

    def load(self, state: dict[str, NDArray[Any]]) -> None:
        """Take back what `state` gave."""
        self.values, self.unit_days = state["values"], float(state["unit_days"][0])

    @property
    def named(self) -> dict[str, float]:
        """The learnt parameters by their names in the papers; alpha and beta are times."""
        return dict(zip(LAWS[self.law].names, self.values.tolist(), strict=True))

    @property
    def parameters(self) -> int:
        """Learnt numbers."""
        return len(self.values)

    def _check(self, asked: Repeats) -> None:
        if not np.isclose(asked.unit_days, self.unit_days):
            raise ModelError(
                f"The model learnt times in units of {self.unit_days:g} days and is asked in units of "
                f"{asked.unit_days:g}; count both in one unit."
            )


def _check_span(horizon: float, gap: float) -> None:
    if not (0 < horizon < np.inf and 0 <= gap < np.inf):
        raise SettingError(
            f"A horizon of {horizon} after a gap of {gap}: give a horizon above 0 and a gap of 0 or more."
        )
