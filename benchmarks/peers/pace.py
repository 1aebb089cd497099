"""The rate of a training once it is under way; shared by the drivers, whichever interpreter runs them."""

from __future__ import annotations

import time

WARM = 10  # steps that compile kernels, fill pools and caches, on both sides


class Pace:
    """Counts real targets step by step, and the seconds from the first step after WARM to the end."""

    def __init__(self) -> None:
        self.steps = 0
        self.targets = 0  # of all steps
        self._before = 0  # of the first WARM steps
        self._began = 0.0

    def step(self, targets: int) -> None:
        """A step begins that learns `targets` targets."""
        if self.steps == WARM:
            self._before, self._began = self.targets, time.perf_counter()
        self.steps += 1
        self.targets += targets

    def told(self) -> dict[str, float]:
        """What the driver prints; call it as soon as training has ended."""
        seconds = time.perf_counter() - self._began if self.steps > WARM else float("nan")
        return {"targets": self.targets, "steady": round((self.targets - self._before) / seconds, 1)}
