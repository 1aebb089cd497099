"""Dropout by pooled masks: as nn.Dropout in distribution, repeatable by torch's seed."""

from __future__ import annotations

import pytest
import torch

from desireline.encoders.dropout import POOL, Dropout


@pytest.mark.parametrize("size", [1_000, POOL // 8, POOL // 2 + 1])
@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_the_share_is_dropped_and_the_mean_kept(size, kind):
    torch.manual_seed(3)
    x = torch.ones(size, dtype=kind, requires_grad=True)
    out = Dropout(0.25)(x)
    out.sum().backward()
    dropped = out == 0
    assert float(dropped.float().mean()) == pytest.approx(0.25, abs=5 * (0.25 * 0.75 / size) ** 0.5)
    torch.testing.assert_close(out[~dropped], torch.full_like(out[~dropped], 1 / 0.75))
    assert torch.equal(x.grad, out)


def test_masks_differ_from_call_to_call_and_come_again_with_the_seed():
    layer, x = Dropout(0.5), torch.ones(40, 50)
    torch.manual_seed(1)
    first, second = layer(x), layer(x)
    assert 0.4 < float((first == second).float().mean()) < 0.6
    torch.manual_seed(1)
    assert torch.equal(layer(x), first)


def test_nothing_is_dropped_outside_training_or_by_a_share_of_nothing():
    x = torch.randn(7, 3)
    assert torch.equal(Dropout(0.5).eval()(x), x)
    assert torch.equal(Dropout(0.0)(x), x)
