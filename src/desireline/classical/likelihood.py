"""Maximum likelihood over positive numbers: gamma and beta parameters, searched for by their logarithms."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from desireline.core.errors import DataError

WIDE = 8.0  # each number is looked for between e⁻⁸ and e⁸, .0003 and 3,000: beyond, a law has no spread that data show
WORST = 1e6  # nats a customer: where the likelihood cannot be told


def maximise(
    mean_log_likelihood: Callable[[NDArray[np.float64]], float], starts: list[list[float]], what: str
) -> NDArray[np.float64]:
    """The P positive numbers with the highest likelihood, from the best of some starts: float64 [P].

    Parameters
    ----------
    mean_log_likelihood : function of float64 [P]
        In nats a customer who tells something, so that tolerances mean the same for a hundred and for a million.
    starts : S lists of P numbers
        In units in which all numbers sought are about 1.
    what : str
        What is fitted, for the message.

    A number at the border of the search is an answer: customers who do not differ, or never leave, have no finite
    optimum. The search is L-BFGS-B; Nelder and Mead's simplex goes on where it gets stuck.

    Raises DataError when neither converges.

    >>> seen = np.array([1.0, 2.0, 6.0])  # of an exponential law, whose mean is the sample's
    >>> float(maximise(lambda p: float((-np.log(p[0]) - seen / p[0]).mean()), [[1.0]], "an exponential")[0].round(4))
    3.0
    """

    def cost(logarithm: NDArray[np.float64]) -> float:
        value = -mean_log_likelihood(np.exp(logarithm))
        return value if np.isfinite(value) else WORST

    bounds = [(-WIDE, WIDE)] * len(starts[0])
    exact = {"ftol": 1e-13, "gtol": 1e-6, "maxiter": 500}
    found = [minimize(cost, np.log(start), method="L-BFGS-B", bounds=bounds, options=exact) for start in starts]
    best = min(found, key=lambda result: float(result.fun))
    if not best.success:
        simplex = {"xatol": 1e-6, "fatol": 1e-10, "maxiter": 4000, "maxfev": 4000}
        best = minimize(cost, best.x, method="Nelder-Mead", bounds=bounds, options=simplex)
    if not best.success or best.fun >= WORST:
        raise DataError(
            f"The likelihood of {what} has no optimum that can be found ({best.message}). Give it more customers or a "
            "longer history."
        )
    return np.asarray(np.exp(best.x), np.float64)
