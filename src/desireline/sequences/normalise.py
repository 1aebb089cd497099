"""Numbers as bins: quantiles with a bucket of its own for zero, fitted before the cut.

Bins suit the heavy tails of money and durations, need no assumption on the distribution, and clip what lies outside.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

NONE, ZERO, FIRST = 0, 1, 2


@dataclass(frozen=True)
class Bins:
    """Quantile bins of a number. `edges`: the inner edges, ascending, float64; `len(self)` ids in all."""

    edges: tuple[float, ...]

    @staticmethod
    def fit(sample: NDArray[np.floating], bins: int) -> Bins:
        """Edges at the quantiles of the values that are finite and not zero; equal edges are merged."""
        values = sample[np.isfinite(sample) & (sample != 0)]
        if len(values) == 0:
            return Bins(())
        inner = np.quantile(values, np.linspace(0, 1, bins + 1)[1:-1], method="lower")
        return Bins(tuple(float(edge) for edge in np.unique(inner)))

    def __len__(self) -> int:
        return FIRST + len(self.edges) + 1

    def encode(self, values: NDArray[np.floating]) -> NDArray[np.int16]:
        """int16 bin of each value: 0 for nan, 1 for zero."""
        found = np.searchsorted(np.asarray(self.edges), values, side="left").astype(np.int16) + np.int16(FIRST)
        found[values == 0] = ZERO
        found[~np.isfinite(values)] = NONE
        return found
