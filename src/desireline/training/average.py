"""An exponential moving average of weights, in which rows of large tables that no step touched cost nothing."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from desireline.training.kernels import move_rows

LEAST = 10  # steps: early on the average follows the weights closely, else it would remember the initialisation


class Average:
    """Averages of named weights: dense ones are moved at every step, of `rowwise` ones the rows that changed.

    A row that did not change for a while moved towards a constant: the decays of that while are multiplied when it
    changes next, or when everything is asked for, and the result is that of moving it at every step.
    """

    def __init__(self, weights: Mapping[str, Tensor], decay: float, rowwise: frozenset[str] = frozenset()) -> None:
        self.decay, self.weights = decay, dict(weights)
        self.dense = [name for name in weights if name not in rowwise]
        self.values = {name: w.detach().clone() for name, w in weights.items()}
        device = next((w.device for w in weights.values()), None)
        self.moved = {n: torch.zeros(len(weights[n]), dtype=torch.int64, device=device) for n in sorted(rowwise)}
        self.logs = torch.zeros(1, dtype=torch.float64, device=device)  # of the product of all decays up to each step
        self.step = 0

    def before(self, changing: Mapping[str, Tensor]) -> None:
        """Bring rows [n] of rowwise weights up to date; to be called before a step changes them."""
        for name, rows in changing.items():
            self._catch_up(name, rows)

    def after(self) -> None:
        """Move the dense averages towards the weights that a step has left; rowwise rows follow later."""
        self.step += 1
        decay = self.decay_at(self.step)
        if len(self.logs) <= self.step:
            self._reach(2 * self.step)
        dense = [self.values[name] for name in self.dense]
        torch._foreach_lerp_(dense, [self.weights[name].detach() for name in self.dense], 1 - decay)

    def decay_at(self, step: int) -> float:
        """What is kept of the average at a step, counted from 1."""
        return min(self.decay, step / (step + LEAST))

    def whole(self) -> dict[str, Tensor]:
        """All averages, up to date."""
        for name, moved in self.moved.items():
            self._catch_up(name, torch.arange(len(moved), device=moved.device))
        return self.values

    def load(self, values: Mapping[str, Tensor], step: int) -> None:
        """Take back what `whole` gave, as of a step."""
        for name, value in values.items():
            self.values[name].copy_(value)
        self.step = step
        self._reach(step)
        for moved in self.moved.values():
            moved.fill_(step)

    def _reach(self, step: int) -> None:
        """Know the decays up to a step."""
        more = torch.tensor([self.decay_at(s) for s in range(len(self.logs), step + 1)], dtype=torch.float64)
        further = more.to(self.logs.device).clamp(min=1e-30).log().cumsum(0)
        self.logs = torch.cat([self.logs, self.logs[-1] + further])

    def _catch_up(self, name: str, rows: Tensor) -> None:
        value, weight, moved = self.values[name], self.weights[name].detach(), self.moved[name]
        kept = torch.exp(self.logs[self.step] - self.logs[moved[rows]]).to(value.dtype)
        move_rows(value, weight, rows, kept)
        moved[rows] = self.step
