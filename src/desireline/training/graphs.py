"""Passes that a CUDA card is given whole: recorded once for a shape, then replayed.

The kernels of a network this narrow take less time than their launches, and a processor that launches them one by one
leaves the card idle. A CUDA graph launches all of a pass at once.
"""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call

AGAIN = 3  # a shape that came so often will come again: recording costs as much as some twenty passes
MOST = 16  # graphs of one module
STEPS = 8  # sizes between a number and its double that `rounded` gives

Key: TypeAlias = tuple[tuple[torch.Size, torch.dtype], ...]


class Replayed:
    """A module that reads tensors and gives one; with gradients wanted on a card it is recorded and replayed.

    The module must do the same for every input of a shape: no choice by values, no reading back. What it gives is
    overwritten by the next call of the same shape.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self._seen: Counter[Key] = Counter()
        self._graphs: dict[Key, Callable[..., Tensor]] = {}
        self._pool: Any = None

    def __call__(self, *tensors: Tensor) -> Tensor:
        if tensors[0].device.type != "cuda" or not torch.is_grad_enabled():
            return cast(Tensor, self.module(*tensors))
        key = tuple((tensor.shape, tensor.dtype) for tensor in tensors)
        if key not in self._graphs:
            self._seen[key] += 1
            if self._seen[key] < AGAIN or len(self._graphs) == MOST:
                return cast(Tensor, self.module(*tensors))
            self._graphs[key] = self._recorded(tensors)
        return self._graphs[key](*tensors)

    def _recorded(self, tensors: tuple[Tensor, ...]) -> Callable[..., Tensor]:
        """The module's pass over tensors of these shapes, and the one back.

        It is recorded over aliases of the weights: same memory, but leaves of a graph of their own. The weights' own
        leaves belong to the stream that launches the rest of the step, which a recording may not touch.
        """
        names, weights = zip(*self.module.named_parameters(), strict=True)
        count = len(tensors)

        def whole(*given: Tensor) -> Tensor:
            named = dict(zip(names, given[count:], strict=True))
            return cast(Tensor, functional_call(self.module, named, given[:count]))

        samples = [t.detach().clone().requires_grad_(t.requires_grad) for t in tensors]
        aliases = [w.detach().requires_grad_(w.requires_grad) for w in weights]
        self._pool = self._pool or torch.cuda.graph_pool_handle()  # graphs of one module are never in use at once
        with _undisturbed():
            made = torch.cuda.make_graphed_callables(
                whole, (*samples, *aliases), allow_unused_input=True, pool=self._pool
            )
        return lambda *given: cast(Tensor, made(*given, *weights))


@contextmanager
def _undisturbed() -> Iterator[None]:
    """While a pass is recorded Python collects no garbage: what it frees of an earlier network's graphs would end the
    recording. And PyTorch is not to warn of the streams of its own warm-up, whose gradients nobody adds up."""
    collects = gc.isenabled()
    gc.disable()
    torch.autograd.graph.set_warn_on_accumulate_grad_stream_mismatch(False)
    try:
        yield
    finally:
        torch.autograd.graph.set_warn_on_accumulate_grad_stream_mismatch(True)
        if collects:
            gc.enable()


def rounded(size: int) -> int:
    """The next of few sizes from `size` up, at most an eighth above it: shapes that differ a little become one."""
    grain = max(64, (1 << size.bit_length()) // (2 * STEPS))
    return -(-size // grain) * grain
