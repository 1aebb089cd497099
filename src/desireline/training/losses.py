"""Losses: the item softmax that never holds tokens × catalogue, sampled softmax with logQ, the waiting time.

Hidden states and items are compared by cosine / temperature: scores are bounded, so the softmax needs no maximum and
its exponentials are safe in bfloat16.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from desireline.sequences.vocabulary import FIRST
from desireline.training.device import fast_products
from desireline.training.kernels import across_rows, exp_and_sum, take_targets, unit_rows

RARE = 12.0  # logit of a wait of 0 in a log that has none
LEAST_PIT = 200  # fewer observed waits say too little of how a forecast errs
CHUNK = 512  # tokens, at most, whose scores over the whole catalogue stand in memory at once on a processor
CELLS = 1 << 28  # and scores on a card, which is idle between small products
GRAIN = 64  # chunks are multiples of it: a product of a new shape costs its compilation


class _Softmax(torch.autograd.Function):
    """Σ over tokens of −Σ_j w_j log softmax(h·Eᵀ)_j, gradients computed chunk by chunk on the way forward.

    Three products a chunk: scores, the gradient of the hidden states, the gradient of the items. Memory is chunk ×
    catalogue, whatever the number of tokens; `low` runs the products in bfloat16 (sums stay in float32).
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, items: Tensor, targets: Tensor, weights: Tensor, low: bool) -> Tensor:
        kind = torch.bfloat16 if low else torch.float32
        table, lengths = unit_rows(items, kind, GRAIN * math.ceil(len(items) / GRAIN))
        tokens = len(hidden)
        most = CHUNK if items.device.type == "cpu" else GRAIN * max(1, CELLS // (GRAIN * len(table)))
        size = GRAIN * math.ceil(tokens / (GRAIN * math.ceil(tokens / most)))  # of equal chunks
        spare = -tokens % size  # weightless rows fill up the last one
        filled = F.pad(hidden, (0, 0, 0, spare))
        share = F.pad(weights.sum(dim=1), (0, spare))  # [T], 1 for a token with a target, 0 for one without
        grad_filled, grad_items = torch.empty_like(filled), torch.zeros_like(items)
        scores = _buffer(size * len(table), kind, items.device).view(size, -1)  # one for all chunks
        loss = hidden.new_zeros(())
        with fast_products(items.device):
            for lo in range(0, len(filled), size):
                h, kept = filled[lo : lo + size], share[lo : lo + size]
                torch.mm(h.to(kind), table.T, out=scores)
                total = exp_and_sum(scores, FIRST, len(items))  # [C]; padding and unknown are no candidates
                loss += (total.log() * kept).sum()
                scale = (kept / total)[:, None]
                grad_filled[lo : lo + size] = (scores @ table).float() * scale
                grad_items += (scores.T @ (h * scale).to(kind))[: len(items)]
        grad_hidden = grad_filled[:tokens]
        loss -= take_targets(hidden, items, lengths, targets, weights, grad_hidden, grad_items)
        ctx.save_for_backward(grad_hidden, grad_items, items, lengths)
        return loss

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        grad_hidden, grad_items, items, lengths = ctx.saved_tensors
        across_rows(grad_items, items, lengths, grads[0])
        return grad_hidden * grads[0], grad_items, None, None, None


_BUFFERS: dict[torch.dtype, Tensor] = {}


def _buffer(size: int, kind: torch.dtype, device: torch.device) -> Tensor:
    """Scratch memory; a processor's is kept from step to step, where new pages cost as much as the products."""
    if device.type != "cpu":
        return torch.empty(size, dtype=kind, device=device)
    held = _BUFFERS.get(kind)
    if held is None or len(held) < size:
        held = _BUFFERS[kind] = torch.empty(size, dtype=kind)
    return held[:size]


def softmax_loss(hidden: Tensor, items: Tensor, targets: Tensor, weights: Tensor, low: bool = False) -> Tensor:
    """Summed cross-entropy over the whole catalogue.

    Scores are the products of hidden [T, d] (scaled before) with the directions of items [V, d]; targets int64 [T, M]
    with weights [T, M] that sum to 1 a token (0 everywhere: the token counts nothing). Can be differentiated once.
    """
    result: Tensor = _Softmax.apply(hidden, items, targets, weights, low)  # type: ignore[no-untyped-call]
    return result


def spread(hidden: Tensor, picked: Tensor, weights: Tensor, mean: Tensor) -> Tensor:
    """What label smoothing of 1 adds to a summed softmax loss (Szegedy et al. 2016, section 7).

    The target's scores no longer count, the catalogue's mean score does: hidden [T, d], targets' vectors picked
    [T, M, d] with weights [T, M], `mean` [d] of all items' vectors.
    """
    sure = weights.sum(1, keepdim=True)
    return (hidden * ((picked * weights[..., None]).sum(1) - sure * mean)).sum()


class _Partition(torch.autograd.Function):
    """[T]: Σ_k share_k · exp(h·n_k) for hidden [T, d], negatives [K, d] and their shares [K]."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, negatives: Tensor, share: Tensor, low: bool) -> Tensor:
        kind = torch.bfloat16 if low else torch.float32
        raised = hidden.to(kind) @ negatives.to(kind).T
        exp_and_sum(raised, 0, len(negatives))
        ctx.save_for_backward(hidden, negatives, share, raised)
        return (raised @ share.to(kind)).float()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None]:
        hidden, negatives, share, raised = ctx.saved_tensors
        kind, towards = raised.dtype, grads[0][:, None]
        grad_hidden = (raised @ (negatives * share[:, None]).to(kind)).float() * towards
        grad_negatives = (raised.T @ (hidden * towards).to(kind)).float() * share[:, None]
        return grad_hidden, grad_negatives, None, None


def sampled_loss(
    hidden: Tensor,
    picked: Tensor,
    negatives: Tensor,
    targets: Tensor,
    negative_ids: Tensor,
    log_q: Tensor,
    weights: Tensor,
    low: bool = False,
) -> Tensor:
    """Summed sampled softmax with shared negatives.

    picked [T, M, d] are the targets' vectors, negatives [K, d] those of `negative_ids` [K], drawn with probability
    exp(log_q) [K] each. A negative counts 1 / (K·q) times, which makes the sum an unbiased estimate of the partition's
    other part; the target is always there and is not corrected (arXiv 2507.09331). A negative that is the token's own
    target is taken out of the sum again. Scores must be within ±80. Cost: tokens × negatives, whatever M is.
    """
    positive = (picked * hidden[:, None]).sum(-1)  # [T, M]
    share = torch.exp(-log_q) / len(log_q)
    others = _Partition.apply(hidden, negatives, share, low)  # type: ignore[no-untyped-call]
    drawn, order = negative_ids.sort()
    flat = targets.contiguous()
    first, end = torch.searchsorted(drawn, flat), torch.searchsorted(drawn, flat, right=True)
    own = (end - first) * share[order][first.clamp(max=len(drawn) - 1)] * positive.exp()  # [T, M]
    rest = (others[:, None] - own).clamp(min=0)
    return ((torch.log(positive.exp() + rest) - positive) * weights).sum()


def binary_loss(
    hidden: Tensor,
    picked: Tensor,
    negatives: Tensor,
    targets: Tensor,
    negative_ids: Tensor,
    weights: Tensor,
    power: float = 1.0,
) -> Tensor:
    """Summed binary cross-entropy of each target against shared negatives; with `power` < 1 the generalised one.

    −(power · log σ(positive) + Σ log(1 − σ(negative))) / (K + 1) a token (gBCE: Petrov & Macdonald 2023, arXiv
    2308.07192, equation 8), targets [T, M] with weights [T, M]; a negative that is a target of the token is left out.
    """
    positive = (picked * hidden[:, None]).sum(-1)
    own = ((negative_ids == targets[..., None]) & (weights > 0)[..., None]).any(1)  # [T, K]
    others = F.softplus(hidden @ negatives.T).masked_fill(own, 0.0).sum(1) * weights.sum(1)
    return (power * (F.softplus(-positive) * weights).sum() + others.sum()) / (len(negative_ids) + 1)


def positive_power(negatives: int, items: int, calibration: float) -> float:
    """β of gBCE: what makes σ(score) a calibrated probability at calibration 1; at 0 it is 1, the plain loss."""
    rate = min(1.0, negatives / max(1, items - 1))
    return rate * (calibration * (1 - 1 / rate) + 1 / rate)


class WaitingTime(nn.Module):
    """Time to the next event: at once, or later as a mixture of log-normals (Shchur et al. 2020, arXiv 1909.12127,
    equation 7).

    The lines of one basket share a moment: a wait of exactly 0 s has a probability of its own. The mixture works on
    y = log(1 + seconds) of the other waits, centred and scaled by what was seen before the cut.
    """

    def __init__(self, d_model: int, parts: int = 8) -> None:
        super().__init__()
        self.parts = parts
        self.out = nn.Linear(d_model, 3 * parts + 1)
        self.register_buffer("centre", torch.zeros(()))
        self.register_buffer("scale", torch.ones(()))
        self.register_buffer("levels", torch.linspace(0, 1, 101, dtype=torch.float64))
        with torch.no_grad():  # the parts start spread over two deviations
            self.out.bias[parts : 2 * parts] = torch.linspace(-2, 2, parts)
            self.out.bias[-1] = -RARE

    centre: Tensor
    scale: Tensor
    levels: Tensor  # where the forecast's levels must be read to hold what they say

    def fit(self, gaps_s: Tensor) -> None:
        """Take centre, scale and the share of waits of 0 from observed gaps in seconds."""
        y = torch.log1p(gaps_s[gaps_s > 0].double())
        if len(y) > 1:
            self.centre.fill_(float(y.mean()))
            self.scale.fill_(max(float(y.std()), 1e-3))
        at_once = (gaps_s <= 0).double().mean().logit().clamp(-RARE, RARE)
        with torch.no_grad():
            self.out.bias[-1] = float(at_once)

    def calibrate(self, pit: Tensor) -> None:
        """Read quantiles at other levels from now on: those under which the PIT [Q] of later data is uniform."""
        if len(pit) >= LEAST_PIT:
            inner = torch.linspace(0, 1, 101, dtype=torch.float64)[1:-1]
            self.levels[1:-1] = torch.quantile(pit.double(), inner)

    def mixture(self, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """log weights, means, log deviations, each [T, parts], of the scaled y; the logit [T] of a wait of 0."""
        out = self.out(hidden)
        weight, mean, deviation = out[:, :-1].chunk(3, dim=-1)
        return weight.log_softmax(-1), mean, deviation.clamp(-5, 3), out[:, -1]

    def loss(self, hidden: Tensor, gap_s: Tensor, censored: Tensor) -> Tensor:
        """Summed negative log-likelihood in nats of y; a censored gap [T] counts by its log-survival."""
        y = ((torch.log1p(gap_s.clamp(min=0)) - self.centre) / self.scale)[:, None]
        weight, mean, deviation, at_once = self.mixture(hidden)
        z = (y - mean) * torch.exp(-deviation)
        density = -0.5 * z * z - deviation - 0.5 * math.log(2 * math.pi) - self.scale.log()
        survival = torch.special.log_ndtr(-z)
        later = torch.logsumexp(weight + torch.where(censored[:, None], survival, density), dim=-1)
        now = (gap_s <= 0) & ~censored
        return -torch.where(now, F.logsigmoid(at_once), F.logsigmoid(-at_once) + later).sum()

    def cdf(self, hidden: Tensor, seconds: Tensor) -> Tensor:
        """P(gap ≤ seconds) [T, S] for seconds [S] or [T, S]."""
        y = (torch.log1p(seconds) - self.centre) / self.scale
        y = y.expand(len(hidden), -1) if y.ndim == 1 else y
        weight, mean, deviation, at_once = self.mixture(hidden)
        z = (y[..., None] - mean[:, None]) * torch.exp(-deviation)[:, None]
        later = (weight.exp()[:, None] * torch.special.ndtr(z)).sum(-1)
        now = at_once.sigmoid()[:, None]
        return now + (1 - now) * later


def cosine(hidden: Tensor, items: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Both sides scaled to length 1, the hidden states also by 1 / temperature: their product is bounded."""
    return F.normalize(hidden, dim=-1) / temperature, F.normalize(items, dim=-1)
