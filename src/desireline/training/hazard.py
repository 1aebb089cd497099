"""Time until somebody comes back, as a hazard: one model for every horizon.

The log-likelihood of a wait that ended is the log hazard at its end less the hazard passed through until then; a wait
that was still going on when observation ended counts by the latter alone.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import brentq
from torch import Tensor, nn
from torch.nn import functional as F

STEEPEST = 12.0  # log hazards beyond it, by the overall one, are no people
BENT = 1.5  # log shapes beyond it, by the overall one, neither
SHAPES = (0.05, 20.0)  # of a Weibull law, the least and the greatest
FINITE = 60.0  # log of hazards passed through: beyond it everybody has come back
DRAWN = 100_000  # waits, at random, from which a head takes its start


class Hazard(nn.Module, ABC):
    """From hidden states [T, d] how long people stay away; times in any one unit. The law is taken up by `fit`."""

    def __init__(self, d_model: int, outputs: int) -> None:
        super().__init__()
        self.out = nn.Linear(d_model, outputs)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)
        self.register_buffer("scale", torch.ones((), dtype=torch.float64))  # multiplies odds: see `calibrate`
        self.register_buffer("shift", torch.zeros((), dtype=torch.float64))

    scale: Tensor
    shift: Tensor

    @abstractmethod
    def fit(self, waits: Tensor, ended: Tensor) -> None:
        """Start as the law that all waits [N] follow together, `ended` bool [N] or still going on."""

    @abstractmethod
    def loss(self, hidden: Tensor, waits: Tensor, ended: Tensor) -> Tensor:
        """Summed negative log-likelihood of waits [T], `ended` bool [T] or still going on."""

    @abstractmethod
    def cumulative(self, hidden: Tensor, times: Tensor) -> Tensor:
        """Hazard passed through by `times` [T], float64 [T]: minus the log of the share still away."""

    def log_odds_away(self, hidden: Tensor, elapsed: Tensor, until: Tensor) -> Tensor:
        """float64 [T]: log odds of still being away at `until` [T] for who is at `elapsed` [T], times since then."""
        passed = self.cumulative(hidden, until) - self.cumulative(hidden, elapsed)
        passed = passed.clamp(min=1e-9)
        return -passed - torch.log(-torch.expm1(-passed))


class Pieces(Hazard):
    """Constant within pieces of time (Friedman 1982, Annals of Statistics 10, 101); the discrete-time form is its
    coarse limit. With `pieces` 1 it is the exponential distribution. About as many waits end in each piece.
    """

    def __init__(self, d_model: int, pieces: int = 16) -> None:
        super().__init__(d_model, pieces)
        self.register_buffer("edges", torch.arange(pieces, dtype=torch.float64))  # where each piece begins

    edges: Tensor

    def fit(self, waits: Tensor, ended: Tensor) -> None:
        pieces, waits = len(self.edges), waits.to(self.edges.device)
        seen = waits[ended].double()
        if len(seen) == 0:
            return
        share = torch.linspace(0, 1, pieces + 1, dtype=torch.float64, device=seen.device)[:-1]
        edges = torch.quantile(seen[torch.randperm(len(seen))[:DRAWN]], share)
        edges[0] = 0.0
        least = max(float(seen.max()) * 1e-6, 1e-9)
        for k in range(1, pieces):  # equal waits would leave empty pieces
            edges[k] = max(float(edges[k]), float(edges[k - 1]) + least)
        self.edges.copy_(edges)
        passed, piece = self._passed(waits.double()), self._piece(seen)
        ends = torch.bincount(piece, minlength=pieces).double()
        with torch.no_grad():
            self.out.bias.copy_(((ends + 0.5) / (passed.sum(0) + least)).log().float())

    def loss(self, hidden: Tensor, waits: Tensor, ended: Tensor) -> Tensor:
        log_hazard = self._log_hazard(hidden)
        total = (log_hazard.exp() * self._passed(waits.double()).float()).sum()
        at = self._piece(waits[ended].double())
        return total - log_hazard[ended].gather(1, at[:, None]).sum()

    def cumulative(self, hidden: Tensor, times: Tensor) -> Tensor:
        return (self._log_hazard(hidden).double().exp() * self._passed(times.double())).sum(1)

    def _log_hazard(self, hidden: Tensor) -> Tensor:
        bias = self.out.bias
        return bias + (F.linear(hidden, self.out.weight)).clamp(-STEEPEST, STEEPEST)

    def _passed(self, times: Tensor) -> Tensor:
        """float64 [T, pieces]: how long each piece was gone through by `times` [T]."""
        ends = torch.cat([self.edges[1:], self.edges.new_full((1,), torch.inf)])
        return (torch.minimum(times[:, None], ends) - self.edges).clamp(min=0)

    def _piece(self, times: Tensor) -> Tensor:
        return (torch.searchsorted(self.edges, times.contiguous(), right=True) - 1).clamp(min=0)


class Weibull(Hazard):
    """A Weibull law of each state's own: (t / λ)^k is the hazard passed through by t (Martinsson 2016, WTTE-RNN).

    Two numbers a state instead of sixteen, and a tail that goes on beyond the longest wait seen; below k = 1 the longer
    somebody is away, the less likely a return at the next moment.
    """

    def __init__(self, d_model: int) -> None:
        super().__init__(d_model, 2)  # log λ, log k
        self.register_buffer("least", torch.tensor(1e-6, dtype=torch.float64))  # shorter times count as so long

    least: Tensor

    def fit(self, waits: Tensor, ended: Tensor) -> None:
        drawn = torch.randperm(len(waits))[:DRAWN]
        times, over = (x.cpu()[drawn].numpy() for x in (waits.double(), ended))
        positive = times[over & (times > 0)]
        if len(positive) == 0:
            return
        least = max(float(positive.min()), 1e-6 * float(positive.mean()))
        scale, shape = weibull(np.maximum(times, least), over)
        self.least.fill_(least)
        with torch.no_grad():
            self.out.bias.copy_(torch.tensor([np.log(scale), np.log(shape)]).float())

    def loss(self, hidden: Tensor, waits: Tensor, ended: Tensor) -> Tensor:
        log_scale, log_shape = self._law(hidden)
        log_time = waits.double().clamp(min=self.least).log()
        passed = self._log_passed(log_scale, log_shape, log_time)
        log_hazard = log_shape - log_time + passed
        return (passed.exp().sum() - log_hazard[ended].sum()).float()

    def cumulative(self, hidden: Tensor, times: Tensor) -> Tensor:
        return self._log_passed(*self._law(hidden), times.double().clamp(min=self.least).log()).exp()

    def _law(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """float64 [T] each: log λ and log k."""
        own = F.linear(hidden, self.out.weight).double()
        most = own.new_tensor([STEEPEST, BENT])
        law = self.out.bias + torch.minimum(torch.maximum(own, -most), most)
        return law[:, 0], law[:, 1]

    @staticmethod
    def _log_passed(log_scale: Tensor, log_shape: Tensor, log_time: Tensor) -> Tensor:
        return (log_shape.exp() * (log_time - log_scale)).clamp(max=FINITE)


def weibull(times: NDArray[np.float64], ended: NDArray[np.bool_]) -> tuple[float, float]:
    """The scale λ and the shape k most likely for times [N] > 0, `ended` bool [N] or still going on.

    The shape's likelihood equation has one root (Kalbfleisch & Prentice 2002, section 3.4); outside SHAPES the nearest.
    """
    log_time = np.log(times)
    top, mean = log_time.max(), log_time[ended].mean()

    def slope(shape: float) -> float:
        weight = np.exp(shape * (log_time - top))
        return float(weight @ log_time / weight.sum() - 1 / shape - mean)

    low, high = SHAPES
    shape = low if slope(low) > 0 else high if slope(high) < 0 else float(brentq(slope, low, high))
    scale = np.exp(top + np.log(np.exp(shape * (log_time - top)).sum() / ended.sum()) / shape)
    return float(scale), shape


HAZARDS: dict[str, Callable[[int], Hazard]] = {"pieces": Pieces, "weibull": Weibull}
