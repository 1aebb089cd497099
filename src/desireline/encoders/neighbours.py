"""What an item's vector gains from the items that follow it in all users' histories.

The weighted mean of their vectors, by one learnt projection for candidates (a round of propagation as in LightGCN, He
et al. 2020, arXiv 2002.02126, equation 3) and another one for the items of events (as from GCE-GNN's global graph, Wang
et al. 2020, arXiv 2106.05081). The graph is a buffer: it is saved with the network and knows what its training knew.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numba
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

SHARE = 0.5  # of the mean in an item's first vector

Turned: TypeAlias = tuple[Tensor, Tensor, Tensor]


class Neighbours(nn.Module):
    """Means [n, d] of the neighbours of items; `most` neighbours an item."""

    ids: Tensor
    shares: Tensor

    def __init__(self, items: int, most: int, d_model: int) -> None:
        super().__init__()
        self.most = most
        self.register_buffer("ids", torch.zeros(items, most, dtype=torch.int32))
        self.register_buffer("shares", torch.zeros(items, most))
        self.of_candidates, self.of_events = (nn.Linear(d_model, d_model, bias=False) for _ in range(2))
        with torch.no_grad():
            for projection in (self.of_candidates, self.of_events):
                projection.weight.copy_(SHARE * torch.eye(d_model))
        self._turned: Turned | None = None  # for gradients: a network that was loaded only answers

    def start(self, ids: NDArray[np.int32], shares: NDArray[np.float32]) -> None:
        """Take each item's neighbours and their shares [items, most], as `ItemKNN.followers` gives them."""
        self.ids.copy_(torch.from_numpy(ids))
        self.shares.copy_(torch.from_numpy(shares))
        self._turned = turned(self.ids, self.shares)

    def forward(self, table: nn.Embedding, ids: Tensor | None) -> Tensor:
        """Of items `ids` [n], or of all; `table` holds the items' own vectors."""
        if ids is None and self._turned is not None and not table.sparse:
            found: Tensor = _AllMeans.apply(table.weight, self.ids, self.shares, *self._turned)  # type: ignore[no-untyped-call]
            return found
        near, shares = (self.ids, self.shares) if ids is None else (self.ids[ids], self.shares[ids])
        if near.device.type == "cpu":
            some: Tensor = _SomeMeans.apply(table.weight, near, shares, table.sparse)  # type: ignore[no-untyped-call]
            return some
        return F.embedding_bag(near, table.weight, mode="sum", per_sample_weights=shares, sparse=table.sparse)


def turned(ids: Tensor, shares: Tensor) -> Turned:
    """Of each item those whose neighbour it is [E], where each item's begin [items], and its shares in them [E]."""
    item = torch.arange(len(ids), device=ids.device, dtype=ids.dtype)
    real = shares > 0
    of, owner, share = ids[real], item[:, None].expand_as(ids)[real], shares[real]
    order = torch.argsort(of, stable=True)
    return owner[order], torch.searchsorted(of[order], item).to(ids.dtype), share[order]


class _AllMeans(torch.autograd.Function):
    """The means of all items. The gradient is the same sum over the graph turned round, in a fifth of the time that
    PyTorch's own takes."""

    @staticmethod
    def forward(
        ctx: Any, table: Tensor, ids: Tensor, shares: Tensor, owner: Tensor, begin: Tensor, back: Tensor
    ) -> Tensor:
        ctx.save_for_backward(owner, begin, back)
        return F.embedding_bag(ids, table, mode="sum", per_sample_weights=shares)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        owner, begin, back = ctx.saved_tensors
        summed = F.embedding_bag(owner, grads[0].contiguous(), begin, mode="sum", per_sample_weights=back)
        return summed, None, None, None, None, None


class _SomeMeans(torch.autograd.Function):
    """The means of some items. A sparse gradient of the table holds each neighbour's row once, where PyTorch's own has
    one for each of everybody's neighbours."""

    @staticmethod
    def forward(ctx: Any, table: Tensor, ids: Tensor, shares: Tensor, sparse: bool) -> Tensor:
        ctx.save_for_backward(ids, shares)
        ctx.size, ctx.sparse = table.shape, sparse
        return F.embedding_bag(ids, table, mode="sum", per_sample_weights=shares)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        ids, shares = ctx.saved_tensors
        rows, place = torch.unique(ids, return_inverse=True) if ctx.sparse else (None, ids.long())
        summed = grads[0].new_zeros(ctx.size[0] if rows is None else len(rows), ctx.size[1])
        _sum_back(grads[0].contiguous().numpy(), place.numpy(), shares.numpy(), summed.numpy())
        if rows is not None:
            at = rows[None].long()
            summed = torch.sparse_coo_tensor(at, summed, ctx.size, is_coalesced=True, check_invariants=False)
        return summed, None, None, None


@numba.njit(cache=True, fastmath=True, nogil=True)
def _sum_back(
    change: NDArray[np.float32], place: NDArray[np.int64], shares: NDArray[np.float32], to: NDArray[np.float32]
) -> None:  # pragma: no cover
    """Add each row of `change` [n, d] to its neighbours' rows of `to` at `place` [n, most], by their shares."""
    for n in range(place.shape[0]):
        for m in range(place.shape[1]):
            share, row = shares[n, m], place[n, m]
            if share != 0:
                for k in range(change.shape[1]):
                    to[row, k] += share * change[n, k]
