"""The losses against plain float32 references, values and gradients."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch.nn import functional as F

from desireline.training.kernels import move_rows
from desireline.training.losses import WaitingTime, binary_loss, cosine, positive_power, sampled_loss, softmax_loss


def example(tokens: int = 700, items: int = 300, d: int = 16):
    torch.manual_seed(0)
    hidden, table = F.normalize(torch.randn(tokens, d), dim=-1) / 0.1, torch.randn(items, d)
    targets = torch.randint(2, items, (tokens, 3))
    weights = torch.tensor([0.5, 0.3, 0.2]).repeat(tokens, 1)
    weights[::7] = 0  # tokens without a target
    return hidden.detach().requires_grad_(), table.detach().requires_grad_(), targets, weights


def plain(hidden, table, targets, weights):
    scores = (hidden @ F.normalize(table, dim=-1).T).index_fill(1, torch.tensor([0, 1]), -torch.inf)
    return -(F.log_softmax(scores, dim=-1).gather(1, targets) * weights).sum()


@pytest.mark.parametrize(("low", "tolerance"), [(False, 1e-5), (True, 2e-2)])
def test_softmax_loss_equals_the_plain_cross_entropy(low, tolerance):
    hidden, table, targets, weights = example()
    expected = plain(hidden, table, targets, weights)
    wanted = torch.autograd.grad(expected, (hidden, table))
    found = softmax_loss(hidden, table, targets, weights, low=low)
    gradients = torch.autograd.grad(2 * found, (hidden, table))
    assert float(found.detach()) == pytest.approx(float(expected.detach()), rel=tolerance)
    for gradient, reference in zip(gradients, wanted, strict=True):
        assert float((gradient / 2 - reference).norm() / reference.norm()) < tolerance


def test_sampling_every_item_equals_the_full_softmax():
    hidden, table, targets, weights = example(tokens=50, items=40)
    targets = targets[:, :1]
    weights = torch.ones(50, 1)
    everything = torch.arange(2, 40)
    # each item once with K·q = 1: the estimate of the partition is the partition
    log_q = torch.full((38,), -math.log(38))
    unit = F.normalize(table, dim=-1)
    found = sampled_loss(hidden, unit[targets], unit[everything], targets, everything, log_q, weights)
    expected = plain(hidden, table, targets, weights)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-4)
    wanted = torch.autograd.grad(expected, (hidden, table), retain_graph=True)
    for gradient, reference in zip(torch.autograd.grad(found, (hidden, table)), wanted, strict=True):
        torch.testing.assert_close(gradient, reference, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("low", "tolerance"), [(False, 1e-5), (True, 2e-2)])
def test_sampled_loss_equals_its_plain_form_with_masked_collisions(low, tolerance):
    hidden, table, targets, weights = example(tokens=60, items=40)
    drawn = torch.randint(2, 40, (64,))  # many of them are somebody's target, some twice
    log_q = torch.rand(40).add(0.1).log()
    unit = F.normalize(table, dim=-1)
    found = sampled_loss(hidden, unit[targets], unit[drawn], targets, drawn, log_q[drawn], weights, low)
    others = (hidden @ unit[drawn].T - log_q[drawn] - math.log(64))[:, None].expand(-1, 3, -1)
    others = others.masked_fill(drawn == targets[..., None], -torch.inf)
    positive = (unit[targets] * hidden[:, None]).sum(-1)
    expected = ((torch.logsumexp(torch.cat([positive[..., None], others], -1), -1) - positive) * weights).sum()
    assert float(found.detach()) == pytest.approx(float(expected.detach()), rel=tolerance)
    wanted = torch.autograd.grad(expected, (hidden, table), retain_graph=True)
    for gradient, reference in zip(torch.autograd.grad(found, (hidden, table)), wanted, strict=True):
        assert float((gradient - reference).norm() / reference.norm()) < tolerance * 2


def test_binary_loss_equals_its_plain_form_and_leaves_out_own_targets():
    hidden, table, targets, weights = example(tokens=20, items=30)
    drawn = torch.randint(2, 30, (12,))
    found = binary_loss(hidden, table[targets], table[drawn], targets, drawn, weights, 0.3)
    expected = torch.zeros(())
    for t in range(20):
        mine = {int(i) for i, w in zip(targets[t], weights[t], strict=True) if w > 0}
        for item, w in zip(targets[t], weights[t], strict=True):
            expected = expected - w * 0.3 * F.logsigmoid(hidden[t] @ table[item])
        for item in drawn:
            if int(item) not in mine:
                expected = expected - weights[t].sum() * F.logsigmoid(-(hidden[t] @ table[item]))
    torch.testing.assert_close(found, expected / 13, rtol=1e-5, atol=1e-5)


def test_the_power_of_gbce_calibrates_at_one_and_is_plain_at_zero():
    assert positive_power(256, 12_000, 0.0) == pytest.approx(1.0)
    assert positive_power(256, 12_000, 1.0) == pytest.approx(256 / 11_999)
    assert positive_power(256, 257, 0.75) == pytest.approx(1.0)


def test_logq_makes_the_sampled_partition_unbiased():
    torch.manual_seed(1)
    hidden, table = cosine(torch.randn(1, 8), torch.randn(60, 8), 0.5)
    target = torch.tensor([[5]])
    share = torch.rand(60)
    share[:2] = 0
    share = share / share.sum()
    true = float(torch.exp(hidden @ table.T)[0, 2:].sum())
    estimates = []
    for _ in range(3000):
        drawn = torch.multinomial(share, 32, replacement=True)
        loss = sampled_loss(hidden, table[target], table[drawn], target, drawn, share[drawn].log(), torch.ones(1, 1))
        estimates.append(math.exp(float(loss)) * math.exp(float((hidden @ table[5]).item())))
    error = np.std(estimates) / math.sqrt(len(estimates))
    assert abs(np.mean(estimates) - true) < 4 * error + 0.01 * true


def test_a_forecast_that_is_too_sure_is_widened_until_its_levels_hold():
    head = WaitingTime(4)
    pit = torch.distributions.Beta(0.4, 0.4).sample((5_000,))  # truth falls into the tails too often
    head.calibrate(pit)
    low, high = (float(head.levels[k]) for k in (10, 90))
    assert low < 0.1 < 0.9 < high
    assert float(((pit >= low) & (pit <= high)).double().mean()) == pytest.approx(0.8, abs=0.01)
    untouched = WaitingTime(4)
    untouched.calibrate(pit[:50])
    assert torch.equal(untouched.levels, torch.linspace(0, 1, 101, dtype=torch.float64))


def test_waiting_time_is_the_mixture_that_scipy_computes():
    torch.manual_seed(2)
    head = WaitingTime(4, parts=3)
    head.fit(torch.tensor([10.0, 300.0, 86_400.0]))
    hidden, gap = torch.randn(6, 4), torch.tensor([0.0, 3.0, 60.0, 3_600.0, 86_400.0, 1e6])
    weight, mean, deviation, at_once = (t.detach().double().numpy() for t in head.mixture(hidden))
    y = (np.log1p(gap.numpy().astype(float)) - float(head.centre)) / float(head.scale)
    density = (np.exp(weight) * stats.norm.pdf(y[:, None], mean, np.exp(deviation))).sum(1) / float(head.scale)
    survival = (np.exp(weight) * stats.norm.sf(y[:, None], mean, np.exp(deviation))).sum(1)
    now = 1 / (1 + np.exp(-at_once))
    likelihood = np.where(gap.numpy() == 0, now, (1 - now) * density)  # a wait of 0 is counted, not measured
    nothing = torch.zeros(6, dtype=torch.bool)
    assert float(head.loss(hidden, gap, nothing).detach()) == pytest.approx(-np.log(likelihood).sum(), rel=1e-4)
    assert float(head.loss(hidden, gap, ~nothing).detach()) == pytest.approx(
        -np.log((1 - now) * survival).sum(), rel=1e-4
    )
    passed = head.cdf(hidden, gap).diagonal().detach()
    np.testing.assert_allclose(passed, now + (1 - now) * (1 - survival), rtol=1e-4, atol=1e-6)


def test_waits_of_nothing_are_learnt_as_often_as_they_come():
    torch.manual_seed(3)
    head = WaitingTime(4)
    gap = torch.where(torch.rand(4_000) < 0.7, 0.0, torch.randn(4_000).exp() * 3_600)
    head.fit(gap)
    with torch.no_grad():
        head.out.weight.zero_()
    share = float((gap == 0).double().mean())
    assert head.cdf(torch.zeros(1, 4), torch.zeros(1)).item() == pytest.approx(share, abs=0.01)
    assert float(head.scale) == pytest.approx(1.0, abs=0.1)  # of the others alone


def test_rows_that_move_are_those_of_the_plain_formula():
    torch.manual_seed(0)
    averages, weights = torch.randn(2, 40, 12)
    rows, kept = torch.tensor([3, 39, 0, 7]), torch.tensor([0.0, 1.0, 0.5, 0.25])
    expected = averages.clone()
    expected[rows] = weights[rows] + (averages[rows] - weights[rows]) * kept[:, None]
    aside = averages.clone().T.contiguous().T  # laid out otherwise: no kernel
    move_rows(averages, weights, rows, kept)
    move_rows(aside, weights, rows, kept)
    torch.testing.assert_close(averages, expected)
    torch.testing.assert_close(aside, expected)
