"""The training loop: AdamW with warm-up and cosine, averaged weights, early stopping, exact resume.

Tables that a loss reads row by row (`nn.Embedding.sparse`) are updated row by row, by Adagrad: a step costs what it
touches, not the catalogue.

Every random choice of an epoch follows from the seed and the epoch's number, and a checkpoint stands after each epoch:
a run that was killed goes on from the last whole epoch and ends with the same weights as an undisturbed one: to the bit
on a processor, up to rounding on a card, whose sums have no fixed order.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from desireline.core.errors import ModelError
from desireline.core.files import write_bytes
from desireline.core.progress import progress
from desireline.schema.model import TrainSettings
from desireline.sequences.batches import Batch
from desireline.training.average import Average

BETAS = (0.9, 0.98)
# Adagrad's rate for rows, in learning rates. Taobao, gru, on validation: recommend NDCG@10 .0273 with 20, .0277 with 6;
# next_event log-loss .477 with 20, .449 with 6: items are learnt by heart before types are
ROW_PACE = 6.0


@dataclass
class Trained:
    """What a run did. `targets` counts real targets, no padding, over all epochs; `validations` are to be maximised."""

    epochs: int = 0
    targets: int = 0
    seconds: float = 0.0
    losses: list[float] = field(default_factory=list)  # mean loss of a target, an epoch each
    validations: list[float] = field(default_factory=list)
    best_epoch: int = 0

    def summary(self) -> dict[str, float]:
        """The contract's `training` object."""
        rate = self.targets / self.seconds if self.seconds else 0.0
        return {
            "epochs": self.epochs,
            "targets": self.targets,
            "seconds": round(self.seconds, 3),
            "targets_per_s": round(rate, 1),
        }


def train(
    model: nn.Module,
    loss: Callable[[Batch], tuple[Tensor, int]],
    epoch_batches: Callable[[int], Iterable[Batch]],
    targets_an_epoch: int,
    settings: TrainSettings,
    seed: int,
    *,
    planned: int,
    stop_after: int | None = None,
    validate: Callable[[], float] | None = None,
    checkpoint: Path | None = None,
    label: str = "training",
) -> Trained:
    """Train `model` in place; it holds the averaged weights of the best epoch afterwards.

    loss : a batch's summed loss and its number of targets
    planned : epochs over which the learning rate falls;  stop_after : end after so many of them (default: all)
    validate : a figure to maximise, asked after each epoch under the averaged weights; without it the last is kept
    checkpoint : a file for exact resume, removed at the end
    """
    use_threads(settings)
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    optimiser = Optimiser(model, parameters, settings)
    average = Average(parameters, settings.ema, frozenset(optimiser.rows))
    best = {name: p.detach().clone() for name, p in parameters.items()}
    done = Trained()
    if checkpoint is not None and checkpoint.exists():
        done = _resume(checkpoint, parameters, average, best, optimiser)
    steps = max(1, planned * math.ceil(targets_an_epoch / settings.batch_targets))
    last = min(planned, stop_after or planned)
    with progress(label, (last - done.epochs) * targets_an_epoch, "targets") as advance:
        while done.epochs < last and not _is_stale(done, settings, validate):
            begun = time.perf_counter()
            torch.manual_seed(seed * 1_000_003 + done.epochs)
            model.train()
            seen = 0
            losses: list[Tensor] = []  # read at the epoch's end: to read each would wait for the device at each step
            for batch in epoch_batches(done.epochs):
                value, targets = loss(batch)
                if targets == 0:
                    continue
                optimiser.zero_grad()
                (value / targets).backward()  # type: ignore[no-untyped-call]
                average.before(optimiser.clipped())
                optimiser.step(settings.lr * _pace(average.step / steps, settings.warmup))
                average.after()
                losses.append(value.detach().clone())  # a card overwrites what it gave
                seen += targets
                advance(targets)
            summed = sum(torch.stack(losses).tolist()) if losses else 0.0
            if not math.isfinite(summed):
                raise ModelError(
                    f"The loss is no longer finite in epoch {done.epochs + 1}: lower the learning rate (--set "
                    f"lr={settings.lr / 3:g}) or use --set precision=float32."
                )
            done.epochs, done.targets = done.epochs + 1, done.targets + seen
            done.losses.append(summed / max(1, seen))
            done.seconds += time.perf_counter() - begun
            _validated(model, parameters, average.whole(), best, done, validate)
            if checkpoint is not None:
                _save(checkpoint, parameters, average, best, optimiser, done)
    _load(parameters, best)
    model.eval()
    if checkpoint is not None:
        checkpoint.unlink(missing_ok=True)
    return done


def use_threads(settings: TrainSettings) -> None:
    """Let torch use as many threads as the settings say; 0: one for four cores, at least one.

    The products of one step are small: threads that wait for each other cost more than they bring, and on a machine
    that is busy with other work many times more.
    """
    torch.set_num_threads(settings.threads or max(1, (os.cpu_count() or 1) // 4))


def _validated(
    model: nn.Module,
    parameters: dict[str, nn.Parameter],
    average: dict[str, Tensor],
    best: dict[str, Tensor],
    done: Trained,
    validate: Callable[[], float] | None,
) -> None:
    """Ask the figure under the averaged weights and keep them when they are the best so far."""
    if validate is None:
        done.best_epoch = done.epochs
    else:
        trained = {name: p.detach().clone() for name, p in parameters.items()}
        _load(parameters, average)
        model.eval()
        with torch.no_grad():
            done.validations.append(validate())
        _load(parameters, trained)
        if done.validations[-1] > max(done.validations[:-1], default=-math.inf):
            done.best_epoch = done.epochs
    if done.best_epoch == done.epochs:
        for name in best:
            best[name].copy_(average[name])


def _is_stale(done: Trained, settings: TrainSettings, validate: Callable[[], float] | None) -> bool:
    return validate is not None and done.epochs - done.best_epoch >= settings.patience


def _pace(share: float, warmup: float) -> float:
    """Linear warm-up, then a cosine to 1 %."""
    if share < warmup:
        return share / warmup + 1e-3
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, (share - warmup) / (1 - warmup))))


def _groups(model: nn.Module, dense: Iterable[nn.Parameter], settings: TrainSettings) -> list[dict[str, object]]:
    """Weight decay for the matrices of layers only: not for embeddings, biases and norms."""
    tables = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    decayed: list[nn.Parameter] = []
    free: list[nn.Parameter] = []
    for parameter in dense:
        (decayed if parameter.ndim >= 2 and id(parameter) not in tables else free).append(parameter)
    return [{"params": decayed, "weight_decay": settings.weight_decay}, {"params": free, "weight_decay": 0.0}]


def _load(parameters: dict[str, nn.Parameter], values: dict[str, Tensor]) -> None:
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(values[name])


class Optimiser:
    """AdamW for what is dense, Adagrad for the rows of large tables (lazy Adam forgets what it does not touch); both
    are clipped as one."""

    def __init__(self, model: nn.Module, parameters: dict[str, nn.Parameter], settings: TrainSettings) -> None:
        self.clip = settings.clip
        tables = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding) and m.sparse}
        self.rows = {name: p for name, p in parameters.items() if id(p) in tables}
        self.dense = [p for p in parameters.values() if id(p) not in tables]
        self.parts: list[torch.optim.Optimizer] = [
            torch.optim.AdamW(_groups(model, self.dense, settings), lr=settings.lr, betas=BETAS, fused=True)
        ]
        if self.rows:
            torch.sparse.check_sparse_tensor_invariants.disable()  # type: ignore[no-untyped-call]  # else it warns
            self.parts.append(torch.optim.Adagrad(list(self.rows.values()), lr=settings.lr))

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for part in self.parts:
            part.zero_grad(set_to_none=True)

    def clipped(self) -> dict[str, Tensor]:
        """Scale all gradients so that their common norm is at most `clip`; returns the rows [n] that will change."""
        for parameter in self.rows.values():
            if parameter.grad is not None:
                parameter.grad = parameter.grad.coalesce()
        changing = {name: p.grad for name, p in self.rows.items() if p.grad is not None}
        found = [p.grad for p in self.dense if p.grad is not None] + [g.values() for g in changing.values()]
        norm = nn.utils.get_total_norm(found)
        torch._foreach_mul_(found, (self.clip / (norm + 1e-6)).clamp(max=1.0))
        return {name: gradient.indices()[0] for name, gradient in changing.items()}

    def step(self, lr: float) -> None:
        """Move the weights."""
        for part, pace in zip(self.parts, (1.0, ROW_PACE), strict=False):
            for group in part.param_groups:
                group["lr"] = lr * pace
            part.step()

    def state(self, parameter: nn.Parameter) -> dict[str, Any]:
        """The moments of one weight and its number of steps."""
        part = self.parts[-1 if any(parameter is p for p in self.rows.values()) else 0]
        found: dict[str, Any] = part.state[parameter]
        return found

    def take_back(self, parameter: nn.Parameter, key: str, value: Tensor) -> None:
        """One number or moment of a weight as `state` gave it; each optimiser says where it wants its steps counted."""
        held = self.state(parameter)
        held[key] = value.to(held[key].device if key in held else parameter.device)


def _save(
    path: Path,
    parameters: dict[str, nn.Parameter],
    average: Average,
    best: dict[str, Tensor],
    optimiser: Optimiser,
    done: Trained,
) -> None:
    tensors: dict[str, Tensor] = {}
    averages = average.whole()
    for name, parameter in parameters.items():
        tensors |= {f"weight/{name}": parameter.detach(), f"average/{name}": averages[name], f"best/{name}": best[name]}
        for key, value in optimiser.state(parameter).items():
            tensors[f"{key}/{name}"] = torch.as_tensor(value)
    told = {"done": json.dumps(asdict(done)), "step": str(average.step)}
    write_bytes(path, save({k: t.contiguous() for k, t in tensors.items()}, told))


def _resume(
    path: Path,
    parameters: dict[str, nn.Parameter],
    average: Average,
    best: dict[str, Tensor],
    optimiser: Optimiser,
) -> Trained:
    try:
        with safe_open(path, "pt") as file:
            done = Trained(**json.loads(file.metadata()["done"]))
            names = set(file.keys())
            for name, parameter in parameters.items():
                with torch.no_grad():
                    parameter.copy_(file.get_tensor(f"weight/{name}"))
                best[name].copy_(file.get_tensor(f"best/{name}"))
                for key in ("step", "exp_avg", "exp_avg_sq", "sum"):
                    if f"{key}/{name}" in names:
                        optimiser.take_back(parameter, key, file.get_tensor(f"{key}/{name}"))
            averages = {name: file.get_tensor(f"average/{name}") for name in parameters}
            average.load(averages, int(file.metadata()["step"]))
    except (SafetensorError, KeyError, RuntimeError) as error:
        raise ModelError(f"The checkpoint {path} is damaged ({error}). Delete it to train from the start.") from error
    return done
