"""Float32 products by oneDNN: as exact as PyTorch's own, and only while they are asked for."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from desireline.encoders.embedding import Inputs
from desireline.schema.model import EncoderSettings
from desireline.training import device
from desireline.training.device import fast_products, is_rounded
from desireline.training.network import Network

CPU = torch.device("cpu")
FACTORS = torch.randn(2, 256, 256, generator=torch.Generator().manual_seed(5))


def precision() -> str:
    return torch.backends.mkldnn.matmul.fp32_precision


def test_products_stay_float32():
    left, right = FACTORS
    with fast_products(CPU):
        assert not is_rounded(left @ right.T, left, right)


def test_rounded_factors_are_noticed_and_then_nothing_changes(monkeypatch):
    left, right = FACTORS
    low = left.bfloat16().float() @ right.bfloat16().float().T
    assert is_rounded(low, left, right)
    before = precision()
    monkeypatch.setattr(device, "_rounds_when_it_may", lambda: True)
    with fast_products(CPU):
        assert precision() == before


def test_threads_that_cross_leave_what_was_there(monkeypatch):
    monkeypatch.setattr(device, "_rounds_when_it_may", lambda: False)
    before = precision()
    first, second = fast_products(CPU), fast_products(CPU)
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert precision() == "bf16"
    second.__exit__(None, None, None)
    assert precision() == before


def test_another_device_changes_nothing(monkeypatch):
    monkeypatch.setattr(device, "_rounds_when_it_may", lambda: False)
    before = precision()
    with fast_products(torch.device("cuda")):
        assert precision() == before


def test_what_held_before_holds_afterwards_whatever_happens(monkeypatch):
    monkeypatch.setattr(device, "_rounds_when_it_may", lambda: False)
    before = precision()
    with fast_products(CPU):
        with pytest.raises(ZeroDivisionError), fast_products(CPU):
            raise ZeroDivisionError
        assert precision() == "bf16"
    assert precision() == before


@pytest.mark.parametrize(
    ("encoder", "width", "fast"), [("transformer", 8, True), ("gru", 8, False), ("gru", 128, True)]
)
def test_walks_over_few_or_narrow_rows_keep_small_products(encoder, width, fast, monkeypatch):
    monkeypatch.setattr(device, "_rounds_when_it_may", lambda: False)
    settings = EncoderSettings(d_model=width, layers=1, heads=2, length=4)
    network = Network(Inputs(9, 4), encoder, settings, nn.Identity())
    with network.products(8_192):
        assert (precision() == "bf16") == fast
