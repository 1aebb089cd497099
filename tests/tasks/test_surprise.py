"""Surprise of events and accounts: against a slow plain version, and against draws from the model itself."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from unittest import mock

import numpy as np
import polars as pl
import pytest
import torch
from scipy.stats import kstest
from torch import nn
from torch.nn import functional as F

from desireline.core.errors import ModelError, SettingError
from desireline.encoders.embedding import Inputs
from desireline.schema.model import EncoderSettings
from desireline.sequences.ragged import Sequences
from desireline.sequences.vocabulary import FIRST
from desireline.tasks.anomaly import surprise as module
from desireline.tasks.anomaly.surprise import HEADS, Surprise, Surprises, surprise
from desireline.tasks.anomaly.surprise_facts import FACTS, evidence, surprise_facts
from desireline.training.losses import WaitingTime
from desireline.training.network import Network

ITEMS, TYPES, TEMPERATURE, SECOND = 40, 5, 0.2, 1_000_000


def network_of(encoder: str = "gru", items: int = ITEMS, layers: int = 1) -> Network:
    torch.manual_seed(3)
    width = 8
    heads = nn.ModuleDict(
        {"event_type": nn.Linear(width, TYPES), "item": nn.Linear(width, width), "wait": WaitingTime(width)}
    )
    settings = EncoderSettings(d_model=width, layers=layers, heads=2, length=6)
    network = Network(Inputs(items, TYPES), encoder, settings, heads).eval()
    heads["wait"].fit(torch.tensor([5.0, 60.0, 3600.0, 100.0, 900.0]))
    with torch.no_grad():
        network.embedding.items.weight.mul_(20)
        heads["event_type"].weight.mul_(3)
        heads["wait"].out.bias[8:24] = torch.cat([torch.linspace(-0.8, 0.8, 8), torch.full((8,), -1.0)])
    return network


def log_of(lengths: list[int], seed: int = 0) -> Sequences:
    rng = np.random.default_rng(seed)
    n = sum(lengths)
    gap = rng.integers(1, 4000, n) * SECOND * (rng.random(n) > 0.3)  # some share a moment
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    time = np.concatenate([np.cumsum(gap[a:b]) for a, b in pairwise(offsets)])
    columns = {
        "time": time.astype(np.int64),
        "event": rng.integers(2, TYPES, n).astype(np.int16),
        "item": rng.integers(0, ITEMS, n).astype(np.int32),
    }
    return Sequences(pl.Series("user", [f"u{k}" for k in range(len(lengths))]), offsets, columns)


def slow(network: Network, log: Sequences, from_us: int) -> dict[str, np.ndarray]:
    """nats and expected of each head by one event at a time, over the whole catalogue; waits by numeric integrals."""
    out = {f"{head} {what}": np.full(log.events, np.nan) for head in HEADS for what in ("nats", "expected")}
    out |= {name: np.full(log.events, np.nan) for name in ("low", "high", "type low", "type high", "u", "spacing")}
    unit = F.normalize(network.embedding.item_vectors(), dim=-1)
    wait = network.heads["wait"]
    for user in range(len(log)):
        begin, end = log.offsets[user : user + 2]
        for e in range(begin + 1, end):
            if log["time"][e] < from_us:
                continue
            columns = network.columns(log, np.arange(begin, e)[None])
            hidden = network.encoder(network.events(columns), torch.zeros(1, e - begin, dtype=torch.int64))[0, -1:]
            logits = network.heads["event_type"](hidden)[0, FIRST:].double()
            items = (F.normalize(network.heads["item"](hidden), dim=-1) @ unit.T)[0, FIRST:].double() / TEMPERATURE
            for head, scores, target in (("type", logits, log["event"][e]), ("item", items, log["item"][e])):
                p = scores.softmax(-1).numpy()
                out[f"{head} expected"][e] = -(p * np.log(p)).sum() if target >= FIRST else np.nan
                if target >= FIRST:
                    own, name = p[target - FIRST], "" if head == "item" else "type "
                    out[f"{head} nats"][e] = -np.log(own)
                    out[f"{name}low"][e], out[f"{name}high"][e] = p[p < own].sum(), p[p <= own].sum()
            gap = (log["time"][e] - log["time"][e - 1]) / SECOND
            if gap > 0:
                weight, mean, deviation, now = (a[0].double() for a in wait.mixture(hidden))

                def density(y, weight=weight, mean=mean, deviation=deviation):  # of log(1 + seconds)
                    z = ((y[:, None] - wait.centre) / wait.scale - mean) / deviation.exp()
                    normal = torch.exp(-0.5 * z * z - deviation) / math.sqrt(2 * math.pi) / wait.scale
                    return (weight.exp() * normal).sum(1)

                grid = torch.linspace(-10, 20, 1_501, dtype=torch.float64)
                f = density(grid).clamp(min=1e-300)
                passed = wait.cdf(hidden, torch.tensor([float(gap)]))[0, 0].double()
                later = (passed - now.sigmoid()) / (1 - now.sigmoid())
                known = max(0.0, (from_us - log["time"][e - 1]) / SECOND)
                before = wait.cdf(hidden, torch.tensor([known]))[0, 0].double()
                left = float(1 - (before - now.sigmoid()) / (1 - now.sigmoid()))
                if known == 0:
                    out["wait nats"][e] = -density(torch.tensor([math.log1p(gap)], dtype=torch.float64)).log()[0]
                    out["wait expected"][e] = -torch.trapezoid(f * f.log(), grid)
                out["spacing"][e] = -math.log((1 - float(later)) / left)
                out["u"][e] = 1 - (1 - float(later)) / left
    return out


@pytest.mark.parametrize("encoder", ["gru", "transformer"])
def test_surprise_equals_a_direct_computation_of_each_user_alone(encoder):
    network, log = network_of(encoder), log_of([1, 2, 15, 30, 7, 0, 3])
    found = surprise(network, log, 4_000 * SECOND, 0, TEMPERATURE)
    with torch.no_grad():
        expected = slow(network, log, 4_000 * SECOND)
    for head in HEADS:
        of = found.heads[head]
        np.testing.assert_allclose(of.nats, expected[f"{head} nats"], atol=1e-4)
        defined = np.isfinite(of.nats)
        tolerance = 0.08 if head == "wait" else 1e-4  # eight nodes a part
        error = of.expected[defined] - expected[f"{head} expected"][defined]
        assert np.abs(error).max() < tolerance
        assert abs(error.mean()) < tolerance / 4
        assert (np.isfinite(of.p) >= defined).all()
    for head, name in (("type", "type "), ("item", "")):
        p, known = found.heads[head].p, np.isfinite(found.heads[head].p)
        assert (p[known] >= expected[f"{name}low"][known] - 1e-5).all()
        assert (p[known] <= expected[f"{name}high"][known] + 1e-5).all()
    np.testing.assert_allclose(found.heads["wait"].p, expected["u"], atol=1e-4)
    np.testing.assert_allclose(found.spacing, expected["spacing"], atol=2e-3)


def test_nothing_is_said_where_there_is_nothing_to_say():
    log = log_of([1, 20, 20])
    log["item"][[12, 30]] = 1  # not known before the cut
    found = surprise(network_of(), log, 2_000 * SECOND, 0, TEMPERATURE)
    time, item = log["time"], log["item"]
    first = np.zeros(log.events, bool)
    first[log.offsets[:-1]] = True
    asked = ~first & (time >= 2_000 * SECOND)
    assert asked.any()
    np.testing.assert_array_equal(np.isfinite(found.heads["type"].nats), asked)
    np.testing.assert_array_equal(np.isfinite(found.heads["item"].nats), asked & (item >= FIRST))
    moved = np.diff(time, prepend=-1) != 0
    np.testing.assert_array_equal(np.isfinite(found.heads["wait"].p), asked & moved)
    assert np.isnan(found.open).all()


def test_neither_the_order_of_users_nor_the_batches_nor_a_later_event_matter():
    network, log = network_of(), log_of([9, 2, 15, 40, 7])
    plain = surprise(network, log, 3_000 * SECOND, 5, TEMPERATURE)
    order = np.array([3, 0, 4, 1, 2])
    places = np.concatenate([np.arange(*log.offsets[k : k + 2]) for k in order])
    offsets = np.concatenate([[0], np.cumsum(np.diff(log.offsets)[order])])
    turned = Sequences(log.users[order], offsets, {name: a[places] for name, a in log.columns.items()})
    with mock.patch.multiple(module, TOGETHER=10, SCORES=700):
        other = surprise(network, turned, 3_000 * SECOND, 5, TEMPERATURE)
    kept = np.delete(np.arange(log.events), log.offsets[1:] - 1)  # without each user's last event
    shorter = Sequences(log.users, log.offsets - np.arange(6), {name: a[kept] for name, a in log.columns.items()})
    earlier = surprise(network, shorter, 3_000 * SECOND, 5, TEMPERATURE)
    for head in HEADS:
        for what in ("nats", "expected", "p"):
            here = getattr(plain.heads[head], what)
            np.testing.assert_allclose(here[places], getattr(other.heads[head], what), atol=1e-5)
            np.testing.assert_allclose(here[kept], getattr(earlier.heads[head], what), atol=1e-5)


def test_a_recurrent_state_starts_a_window_before_and_attention_sees_all_that_it_ever_does():
    log = log_of([60])
    from_us = int(log["time"][50])
    changed = replace(log, columns={**log.columns, "item": np.where(np.arange(60) < 20, 3, log["item"])})
    with mock.patch.object(module, "LEAST_READ", 8):
        here, there = (surprise(network_of(), each, from_us, 0, TEMPERATURE) for each in (log, changed))
    np.testing.assert_array_equal(here.heads["item"].nats, there.heads["item"].nats)
    with mock.patch.object(module, "LEAST_READ", 8):
        short = surprise(network_of("transformer", layers=3), log, from_us, 0, TEMPERATURE)
    full = surprise(network_of("transformer", layers=3), log, from_us, 0, TEMPERATURE)
    np.testing.assert_allclose(short.heads["item"].nats, full.heads["item"].nats, atol=1e-5)


def test_a_sampled_catalogue_agrees_with_the_whole_within_its_error():
    network = network_of(items=2_000)
    rng = np.random.default_rng(0)
    log = log_of([20] * 60)
    log = replace(log, columns={**log.columns, "item": (FIRST + 1997 * rng.random(1200) ** 2).astype(np.int32)})
    whole = surprise(network, log, 0, 0, TEMPERATURE).heads["item"]
    with mock.patch.multiple(module, MOST_ITEMS=1_000, SAMPLE=600):
        some = surprise(network, log, 5_000 * SECOND, 0, TEMPERATURE).heads["item"]
    known = np.isfinite(some.nats)
    assert known.sum() > 500
    for what, most in (("nats", 0.15), ("expected", 0.15), ("p", 0.06)):
        error = getattr(some, what)[known] - getattr(whole, what)[known]
        assert 0 < np.abs(error).mean() < most
        assert abs(error.mean()) < most / 3


def drawn_from(network: Network, first: Sequences, step: int = 1) -> Sequences:
    """Users whose second event is drawn from the model's own forecast after the first, on a clock of such steps."""
    users = len(first)
    rng = np.random.default_rng(0)
    with torch.no_grad():
        hidden = network.encode(first, np.arange(users))
        kinds = network.heads["event_type"](hidden)[:, FIRST:].softmax(-1).double().numpy()
        unit = F.normalize(network.embedding.item_vectors(), dim=-1)[FIRST:]
        items = F.normalize(network.heads["item"](hidden), dim=-1) @ unit.T / TEMPERATURE
        weight, mean, deviation, _ = network.heads["wait"].mixture(hidden)
        part = torch.multinomial(weight.exp(), 1, generator=torch.Generator().manual_seed(0))
        y = mean.gather(1, part)[:, 0].numpy() + deviation.exp().gather(1, part)[:, 0].numpy() * rng.normal(size=users)
        seconds = np.expm1(np.clip(y * float(network.heads["wait"].scale) + float(network.heads["wait"].centre), 0, 30))

    def pick(p):
        return FIRST + (rng.random(users)[:, None] > p.cumsum(1)).sum(1).clip(max=p.shape[1] - 1)

    second = {"event": pick(kinds), "item": pick(items.softmax(-1).double().numpy())}
    gap = np.maximum(np.round(seconds * SECOND / step) * step, int(step == 1)).astype(np.int64)
    columns = {}
    for name, column in first.columns.items():
        later = column + gap if name == "time" else second[name]
        columns[name] = np.stack([column, later.astype(column.dtype)], axis=1).ravel()
    return Sequences(first.users, np.arange(users + 1) * 2, columns)


def test_under_the_model_itself_p_values_are_uniform_and_excess_is_0_in_the_mean():
    network = network_of()
    found = surprise(network, drawn_from(network, log_of([1] * 4_000)), 0, 0, TEMPERATURE)
    for head in HEADS:
        of = found.heads[head]
        p, excess = of.p[np.isfinite(of.p)], of.excess[np.isfinite(of.nats)]
        assert kstest(p, "uniform").pvalue > 0.005
        assert abs(excess.mean()) < 4 * excess.std() / math.sqrt(len(excess))
    assert kstest(found.spacing[np.isfinite(found.spacing)], "expon").pvalue > 0.005


def test_a_coarse_clock_is_allowed_for():
    network, step, one = network_of(), 60 * SECOND, log_of([1])
    users = pl.Series("user", [f"u{k}" for k in range(4_000)])
    alike = Sequences(users, np.arange(4_001), {name: np.repeat(a, 4_000) for name, a in one.columns.items()})
    log = drawn_from(network, alike, step)
    later = log["time"][1::2] > log["time"][::2]  # what rounds to 0 is a line of the same moment
    here, blind = (surprise(network, log, 0, 0, TEMPERATURE, step_us=s).heads["wait"].p[1::2] for s in (step, 0))
    with torch.no_grad():
        passed = network.heads["wait"].cdf(network.encode(one, np.zeros(1, np.int64)), torch.tensor([0.0, 30.0]))[0]
    least = float((passed[1] - passed[0]) / (1 - passed[0]))  # a gap that rounds to a step has half of one behind it
    assert 0.05 < least < 0.5

    def uniform_above(u):
        return np.clip((u - least) / (1 - least), 0, 1)

    assert kstest(here[later], uniform_above).pvalue > 0.005
    assert kstest(blind[later], uniform_above).pvalue < 1e-6


def test_silence_up_to_the_end_counts_from_the_windows_begin():
    network, log = network_of(), log_of([30, 30])
    last = log["time"][log.offsets[1:] - 1]
    begin, until = int(last.min()) + 300 * SECOND, int(last.max()) + 5_000 * SECOND
    assert begin < last.max()
    found = surprise(network, log, 0, 0, TEMPERATURE, begin_us=begin, until_us=until)
    hidden = network.encode(log, log.offsets[1:] - 1)
    edges = torch.tensor(np.stack([np.maximum(begin - last, 0), until - last], axis=1) / SECOND).float()
    with torch.no_grad():
        left = 1 - network.heads["wait"].cdf(hidden, edges)
    np.testing.assert_allclose(found.open, -torch.log(left[:, 1] / left[:, 0]).numpy(), rtol=1e-3)


def test_what_cannot_be_asked_is_refused():
    network, log = network_of(), log_of([5])
    with pytest.raises(SettingError, match="begins before"):
        surprise(network, log, 10, 0, TEMPERATURE, begin_us=5)
    with pytest.raises(SettingError, match="end of observation"):
        surprise(network, log, 0, 0, TEMPERATURE, until_us=1)
    network.heads = nn.Linear(8, 1)
    with pytest.raises(ModelError, match="event_type"):
        surprise(network, log, 0, 0, TEMPERATURE)


CHAIN = np.array([[0.7, 0.2, 0.1], [0.2, 0.5, 0.3], [0.4, 0.1, 0.5]])
DAY = 86_400 * SECOND


def simulated(lengths: np.ndarray, seed: int = 0, bias: float = 0.0, lines: int = 1) -> Surprises:
    """Types of a Markov chain and a Poisson process a user over ten days, with the probabilities known exactly.

    bias : deviation of what is added to an account's every surprise;  lines : copies of each event at its moment
    """
    rng = np.random.default_rng(seed)
    time, state, wait, opened, counts = [], [], [], [], []
    for length in lengths:
        moments = np.cumsum(rng.exponential(10 / length, size=int(3 * length + 50)))
        moments = moments[moments < 10]
        edges = np.concatenate([[0.0], moments])
        chain = [int(rng.integers(3))]
        for _ in moments:
            chain.append(int(rng.choice(3, p=CHAIN[chain[-1]])))
        time.append(edges)
        state.append(chain)
        wait.append(np.concatenate([[np.nan], np.diff(edges) * length / 10]))
        opened.append((10 - edges[-1]) * length / 10)
        counts.append(len(edges))
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    came, gone = np.concatenate(state), np.concatenate([[0], np.concatenate(state)[:-1]])
    law = CHAIN[gone]
    own = law[np.arange(len(came)), came]
    nats, entropy = -np.log(own), -(law * np.log(law)).sum(1)
    p = (law * (law < own[:, None])).sum(1) + rng.random(len(came)) * own
    nats = nats + np.repeat(bias * rng.standard_normal(len(lengths)), counts)
    first = offsets[:-1]
    for array in (nats, entropy, p):
        array[first] = np.nan
    spacing = np.concatenate(wait)
    rate = np.repeat(lengths / 10, counts)
    times = (np.concatenate(time) * DAY).astype(np.int64) + 1

    def f(array):
        return np.repeat(array, lines).astype(np.float32)

    nothing = f(np.full(len(came), np.nan))
    alone = np.where(np.arange(len(came) * lines) % lines == 0, 1.0, np.nan).astype(np.float32)
    waits = [-np.log(rate) + spacing, 1 - np.log(rate) + 0 * spacing, 1 - np.exp(-spacing)]
    heads = {
        "type": Surprise(f(nats), f(entropy), f(p)),
        "item": Surprise(nothing, nothing, nothing),
        "wait": Surprise(*(f(array) * alone for array in waits)),
    }
    users = pl.Series("user", [f"u{k}" for k in range(len(lengths))])
    log = Sequences(users, offsets * lines, {"time": np.repeat(times, lines)})
    return Surprises(log, heads, f(spacing) * alone, np.array(opened, np.float32), 0)


LENGTHS = np.round(np.exp(np.random.default_rng(7).uniform(np.log(5), np.log(200), 1_000)))


def test_facts_do_not_grow_with_the_length_of_an_account():
    found = simulated(LENGTHS)
    facts = surprise_facts(found)
    events = np.log(np.diff(found.sequences.offsets))
    assert facts.columns == ["user", *FACTS]
    for name in ("type_excess", "type_likelihood", "type_change", "wait_change", "wait_rhythm", "wait_excess"):
        z = facts[name].to_numpy()
        known = np.isfinite(z)
        assert known.mean() > 0.9, name
        assert abs(np.corrcoef(np.abs(z[known]), events[known])[0, 1]) < 0.09, name
        assert 0.85 < z[known].std() < 1.15, name
        assert abs(z[known].mean()) < 0.15, name
    foretold = np.log(LENGTHS)
    pace = facts["wait_pace"].to_numpy()
    assert abs(np.corrcoef(np.abs(pace), foretold)[0, 1]) < 0.09
    assert facts["item_excess"].null_count() == facts.height


def test_where_accounts_differ_for_good_the_long_ones_are_not_the_odd_ones():
    found = simulated(LENGTHS, bias=0.3)
    events = np.log(np.diff(found.sequences.offsets))
    z = np.abs(surprise_facts(found)["type_excess"].to_numpy())
    of = found.heads["type"].excess
    row = found.sequences.rows()
    mean = np.array([np.nanmean(of[row == k]) for k in range(len(LENGTHS))])
    plain = np.abs(mean) * np.sqrt(np.exp(events))
    assert np.corrcoef(plain, events)[0, 1] > 0.4
    assert abs(np.corrcoef(z, events)[0, 1]) < 0.1


def test_the_lines_of_one_moment_count_once():
    one, three = (surprise_facts(simulated(LENGTHS[:200], lines=lines)) for lines in (1, 3))
    for name in ("type_excess", "type_expected", "type_likelihood", "type_change", "wait_rhythm", "wait_pace"):
        np.testing.assert_allclose(one[name].to_numpy(), three[name].to_numpy(), atol=1e-4)


def test_a_clock_a_change_of_hands_and_a_stranger_are_found_with_their_evidence():
    found = simulated(np.full(300, 40.0))
    offsets = found.sequences.offsets
    rng = np.random.default_rng(3)
    of, spacing = found.heads["type"], found.spacing
    for row, part in ((0, slice(1, None)), (1, slice(25, None))):  # unlikely throughout, and from an event on
        here = np.arange(*offsets[row : row + 2])[part]
        of.p[here] = 0.02 * rng.random(len(here))
        of.nats[here] = of.expected[here] + 2
    before = int(offsets[1]) + 5
    of.p[before] = 1e-6  # as odd as what comes after the change, but before it
    clock = np.arange(offsets[2] + 1, offsets[3])
    spacing[clock] = 1.0
    facts = surprise_facts(found)
    assert facts["type_excess"][0] > 6
    assert facts["type_likelihood"][0] < -6
    assert facts["type_unlikely"][0] > 4
    assert facts["type_change"][1] > 4
    assert facts["wait_rhythm"][2] < -4
    told = evidence(found, 1, "type_change", facts["type_change"][1])
    assert len(told) == 5
    assert (told >= offsets[1] + 24).all()
    assert (told < offsets[2]).all()
    unlikely = evidence(found, 0, "type_unlikely", 5.0)
    assert set(unlikely) == set(offsets[0] + 1 + np.argsort(of.p[offsets[0] + 1 : offsets[1]])[:5])
    assert set(evidence(found, 2, "wait_rhythm", -5.0)) <= set(clock)
    with pytest.raises(SettingError, match="no fact"):
        evidence(found, 0, "type_size", 1.0)


def test_a_shift_from_an_accounts_own_past_is_found():
    found = replace(simulated(np.full(300, 40.0)), begin_us=5 * DAY)
    here = np.flatnonzero((found.sequences.rows() == 4) & (found.sequences["time"] >= 5 * DAY))
    found.heads["type"].nats[here] += 2
    facts = surprise_facts(found)
    z = facts.filter(pl.col("user") == "u4")["type_shift"][0]
    assert z > 5
    others = facts.filter(pl.col("user") != "u4")["type_shift"].to_numpy()
    assert 0.85 < np.nanstd(others) < 1.15
    assert set(facts["user"]) <= set(found.sequences.users)
    assert (evidence(found, 4, "type_shift", z) >= here[0]).all()
