"""Where networks train and answer: the processor, or a CUDA card where there is one.

Logs, questions and answers stay NumPy arrays in main memory; a network takes what it reads to its own device, and who
wants its answer as an array fetches it from there.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from desireline.core.errors import SettingError
from desireline.schema.model import TrainSettings


def device_of(settings: TrainSettings) -> torch.device:
    """The device that the settings name; `auto`: a CUDA card, else the processor. Raises SettingError without one."""
    there = torch.cuda.is_available()
    if settings.device == "cuda" and not there:
        raise SettingError(
            "device is cuda, but PyTorch finds no CUDA card here: install a CUDA build of PyTorch and the card's "
            "driver, or set device to auto."
        )
    return torch.device("cuda" if there and settings.device != "cpu" else "cpu")


def pays_bfloat16(precision: str, device: torch.device) -> bool:
    """Whether products run in bfloat16: when asked for, or by itself where the device multiplies it natively."""
    if precision == "auto" and device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if precision == "auto":
        return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    return precision == "bfloat16"


_SWITCH = threading.Lock()  # the choice of a library is the whole process's
_inside: list[str] = []  # what was chosen before, once for each that is inside


@contextmanager
def fast_products(device: torch.device) -> Iterator[None]:
    """On a processor products of float32 by oneDNN instead of MKL, which multiplies half as fast on AMD's.

    PyTorch asks oneDNN where factors may be rounded to bfloat16. A processor of Intel's or AMD's kind without matrix
    tiles gains nothing from that, and oneDNN multiplies in float32 there: tried once, and where factors are rounded all
    stays as it is. Meanwhile `torch.get_float32_matmul_precision` raises, in whatever thread.
    """
    if device.type != "cpu" or _rounds_when_it_may():
        yield
        return
    with _by_onednn():
        yield


@contextmanager
def _by_onednn() -> Iterator[None]:
    products = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
    with _SWITCH:
        _inside.append(products.fp32_precision)
        products.fp32_precision = "bf16"
    try:
        yield
    finally:
        with _SWITCH:
            products.fp32_precision = _inside.pop()  # the last to leave, whoever that is, takes what was there first


@cache
def _rounds_when_it_may() -> bool:
    left, right = torch.randn(2, 256, 256, generator=torch.Generator().manual_seed(0))
    with _by_onednn():
        return is_rounded(left @ right.T, left, right)


def is_rounded(product: Tensor, left: Tensor, right: Tensor) -> bool:
    """Whether left @ right.T [n, n] of normal factors [n, n] came from factors in bfloat16: errors of .1, not 1e-5."""
    return not torch.allclose(product.double(), left.double() @ right.double().T, rtol=0, atol=1e-3)


def path_of(settings: TrainSettings) -> str:
    """Where and in which numbers networks train, in words."""
    device = device_of(settings)
    where = f"on {torch.cuda.get_device_name(device)}" if device.type == "cuda" else "on the processor"
    kernels = ", its own kernels in Numba" if device.type == "cpu" else ", PyTorch's kernels"
    low = pays_bfloat16(settings.precision, device)  # recurrent encoders stay in float32 even so
    return f"{where}, products in {'bfloat16 where that pays' if low else 'float32'}{kernels}"


def beside(tensor: Tensor, array: NDArray[Any]) -> Tensor:
    """An array as a tensor where another one lies; on the processor it shares the array's memory.

    Nobody waits until it has come to a card: whoever uses it there comes after it in the card's own order.
    """
    found = torch.from_numpy(array)
    return found if tensor.device.type == "cpu" else found.pin_memory().to(tensor.device, non_blocking=True)


def fetched(tensor: Tensor) -> NDArray[Any]:
    """A tensor, wherever it lies, as an array; one on the processor shares its memory."""
    found: NDArray[Any] = tensor.detach().cpu().numpy()
    return found
