"""Time until somebody comes back, as hazards that are constant within pieces of time: one model for every horizon.

The log-likelihood of a wait that ends in piece k is log h_k less the hazard passed through until then; a wait that was
still going on when observation ended counts by the latter alone (piecewise-constant hazard: Friedman 1982, Annals of
Statistics 10, 101; the discrete-time form is its coarse limit). With `pieces` 1 it is the exponential distribution.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

STEEPEST = 12.0  # log hazards beyond it, by the overall one, are no people


class Hazard(nn.Module):
    """Hazards from hidden states [T, d]; times in any one unit, the edges of the pieces spread by `fit`."""

    def __init__(self, d_model: int, pieces: int = 16) -> None:
        super().__init__()
        self.out = nn.Linear(d_model, pieces)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)
        self.register_buffer("edges", torch.arange(pieces, dtype=torch.float64))  # where each piece begins
        self.register_buffer("scale", torch.ones((), dtype=torch.float64))  # multiplies odds: see `calibrate`
        self.register_buffer("shift", torch.zeros((), dtype=torch.float64))

    edges: Tensor
    scale: Tensor
    shift: Tensor

    def fit(self, waits: Tensor, ended: Tensor) -> None:
        """Edges from waits [N] that `ended` [N], about as many in each piece; hazards start at each piece's own."""
        pieces, waits = len(self.edges), waits.to(self.edges.device)
        seen = waits[ended].double()
        if len(seen) == 0:
            return
        share = torch.linspace(0, 1, pieces + 1, dtype=torch.float64, device=seen.device)[:-1]
        edges = torch.quantile(seen[torch.randperm(len(seen))[:100_000]], share)
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
        """Summed negative log-likelihood of waits [T], `ended` bool [T] or still going on."""
        log_hazard = self._log_hazard(hidden)
        total = (log_hazard.exp() * self._passed(waits.double()).float()).sum()
        at = self._piece(waits[ended].double())
        return total - log_hazard[ended].gather(1, at[:, None]).sum()

    def cumulative(self, hidden: Tensor, times: Tensor) -> Tensor:
        """Hazard passed through by `times` [T], float64 [T]: minus the log of the share still away."""
        return (self._log_hazard(hidden).double().exp() * self._passed(times.double())).sum(1)

    def log_odds_away(self, hidden: Tensor, elapsed: Tensor, until: Tensor) -> Tensor:
        """float64 [T]: log odds of still being away at `until` [T] for who is at `elapsed` [T], times since then."""
        passed = self.cumulative(hidden, until) - self.cumulative(hidden, elapsed)
        passed = passed.clamp(min=1e-9)
        return -passed - torch.log(-torch.expm1(-passed))

    def _log_hazard(self, hidden: Tensor) -> Tensor:
        bias = self.out.bias
        return bias + (F.linear(hidden, self.out.weight)).clamp(-STEEPEST, STEEPEST)

    def _passed(self, times: Tensor) -> Tensor:
        """float64 [T, pieces]: how long each piece was gone through by `times` [T]."""
        ends = torch.cat([self.edges[1:], self.edges.new_full((1,), torch.inf)])
        return (torch.minimum(times[:, None], ends) - self.edges).clamp(min=0)

    def _piece(self, times: Tensor) -> Tensor:
        return (torch.searchsorted(self.edges, times.contiguous(), right=True) - 1).clamp(min=0)
