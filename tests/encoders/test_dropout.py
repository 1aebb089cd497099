"""Dropout keeps the mean, leaves out the share, and repeats with the seed."""

from __future__ import annotations

import pytest
import torch

from desireline.encoders.dropout import Dropout


def test_the_share_is_left_out_and_the_mean_kept():
    torch.manual_seed(0)
    out = Dropout(0.3)(torch.ones(400, 300))
    assert float((out == 0).double().mean()) == pytest.approx(0.3, abs=0.005)
    assert float(out.mean()) == pytest.approx(1.0, abs=0.01)
    assert out.sum(0).std() > 0
    assert out.sum(1).std() > 0


def test_a_seed_repeats_the_mask_and_the_next_one_differs():
    torch.manual_seed(4)
    dropout, x = Dropout(0.5), torch.ones(8, 8)
    first, second = dropout(x), dropout(x)
    torch.manual_seed(4)
    assert torch.equal(dropout(x), first)
    assert not torch.equal(first, second)


def test_nothing_is_left_out_of_answers():
    x = torch.randn(5, 5)
    assert torch.equal(Dropout(0.5).eval()(x), x)
