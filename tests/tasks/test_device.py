"""Networks on a CUDA card give what they give on the processor; without a card the settings say so."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
import torch
from torch import nn

from desireline.core.errors import SettingError
from desireline.encoders import ENCODERS
from desireline.encoders.attention import by_library
from desireline.encoders.embedding import Inputs
from desireline.schema.model import EncoderSettings, EventSpec, EventType, Schema, TrainSettings
from desireline.sequences.batches import batches
from desireline.sequences.ragged import POSITIVE, TARGET, Sequences
from desireline.sequences.vocabulary import FIRST
from desireline.tasks.anomaly.surprise import surprise
from desireline.tasks.interface import Teacher
from desireline.tasks.next_event import NextEvent
from desireline.tasks.questions import Questions
from desireline.tasks.recommend import Recommend
from desireline.training import graphs
from desireline.training.contrast import contrast
from desireline.training.device import device_of, path_of, pays_bfloat16
from desireline.training.hazard import Pieces
from desireline.training.loop import train
from desireline.training.network import Network

ITEMS, TYPES, SIZES = 300, 5, EncoderSettings(d_model=16, layers=2, heads=2, length=20, dropout=0.0)
SCHEMA = Schema(event=EventSpec(column="kind"), types={"buy": EventType(roles=["positive", "target"])})
PLAIN = {"precision": "float32", "batch_targets": 256, "epochs": 2, "warmup": 0.0}
PREPARED = SimpleNamespace(vocabularies={"event": range(TYPES), "item": range(ITEMS)})

card = pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch finds no CUDA card here")


def log_of(users: int, seed: int = 0) -> Sequences:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 60, users)
    n = int(lengths.sum())
    columns = {
        "time": np.cumsum(rng.integers(0, 10**10, n)),
        "event": rng.integers(FIRST, TYPES, n).astype(np.int16),
        "item": rng.integers(FIRST, ITEMS, n).astype(np.int32),
        "role": np.full(n, POSITIVE | TARGET, np.uint8),
    }
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return Sequences(pl.Series("user", [f"u{k}" for k in range(users)]), offsets, columns)


def network_of(teacher: Teacher, encoder: str, device: str) -> Network:
    torch.manual_seed(0)
    heads = teacher.heads(PREPARED, SIZES.d_model)
    return Network(Inputs(ITEMS, TYPES), encoder, SIZES, heads).to(device)


def test_a_card_that_is_asked_for_and_not_there_is_an_error(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SettingError, match=r"no CUDA card here.*set device to auto"):
        device_of(TrainSettings(device="cuda"))
    assert device_of(TrainSettings(device="auto")).type == "cpu"


def test_a_card_is_taken_where_there_is_one_unless_the_processor_is_named(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert device_of(TrainSettings()).type == "cuda"
    assert device_of(TrainSettings(device="cpu")).type == "cpu"


def test_bfloat16_by_itself_is_for_cards_that_multiply_it(monkeypatch):
    for capability, pays in (((7, 5), False), ((8, 0), True), ((9, 0), True)):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device, found=capability: found)
        assert pays_bfloat16("auto", torch.device("cuda")) is pays
    assert not pays_bfloat16("float32", torch.device("cuda"))


def test_where_networks_train_is_told_in_words(monkeypatch):
    assert path_of(TrainSettings(device="cpu", precision="float32")) == (
        "on the processor, products in float32, its own kernels in Numba"
    )
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "a card")
    assert (
        path_of(TrainSettings(precision="bfloat16"))
        == "on a card, products in bfloat16 where that pays, PyTorch's kernels"
    )


@card
@pytest.mark.parametrize("encoder", sorted(ENCODERS))
def test_hidden_states_are_those_of_the_processor(encoder):
    log, teacher = log_of(40), NextEvent()
    asked = np.random.default_rng(1).integers(0, log.events, 200)
    here, there = (network_of(teacher, encoder, device).eval() for device in ("cpu", "cuda"))
    found = there.encode(log, asked)
    assert found.device.type == "cuda"
    torch.testing.assert_close(found.cpu(), here.encode(log, asked), atol=1e-3, rtol=1e-3)


@card
@pytest.mark.parametrize("encoder", sorted(ENCODERS))
@pytest.mark.parametrize("teacher", [NextEvent(), Recommend()], ids=lambda teacher: teacher.name)
@pytest.mark.parametrize("loss", ["softmax", "sampled", "gbce"])
def test_losses_and_gradients_are_those_of_the_processor(encoder, teacher, loss):
    log, settings = log_of(30), TrainSettings(loss=loss, negatives=64, **PLAIN)
    labels = teacher.labels(log, int(log["time"].max()) + 1, SCHEMA)
    found = []
    for device in ("cpu", "cuda"):
        network = network_of(teacher, encoder, device)
        teacher.start(network, labels)
        batch = next(batches(log, network.encoder.layout, SIZES.length, 256, 0, 0))
        torch.manual_seed(3)
        value, targets = teacher.loss(network, *network(log, batch), labels, settings)
        value = value + contrast(network, log, batch, 0.1)
        value.backward()
        gradients = {name: p.grad.cpu() for name, p in network.named_parameters() if p.grad is not None}
        found.append((value.detach().cpu(), targets, gradients))
    (value, targets, gradients), (other, others, again) = found
    assert targets == others
    torch.testing.assert_close(value, other, rtol=1e-3, atol=1e-3)
    for name, gradient in gradients.items():
        size = float(gradient.norm())
        assert float((gradient - again[name]).norm()) <= 2e-2 * size + 1e-3, name


@card
@pytest.mark.parametrize("rowwise", [False, True])
def test_a_run_that_was_stopped_goes_on_from_its_checkpoint(tmp_path, rowwise):
    log, teacher = log_of(60), Recommend()
    settings = TrainSettings(loss="sampled", negatives=64, **PLAIN)
    labels = teacher.labels(log, None, SCHEMA)

    def run(stop: int, checkpoint: str | None) -> Network:
        network = network_of(teacher, "gru", "cuda")
        network.embedding.items.sparse = rowwise

        def failing(epoch: int):
            if epoch == stop:
                raise KeyboardInterrupt
            return batches(log, network.encoder.layout, SIZES.length, 256, 0, epoch)

        train(
            network,
            lambda batch: teacher.loss(network, *network(log, batch), labels, settings),
            failing,
            teacher.count(labels),
            settings,
            0,
            planned=2,
            checkpoint=None if checkpoint is None else tmp_path / checkpoint,
        )
        return network

    whole = run(9, None)
    with pytest.raises(KeyboardInterrupt):
        run(1, "kept")
    again = run(9, "kept")
    for one, other in zip(whole.parameters(), again.parameters(), strict=True):
        torch.testing.assert_close(one, other, atol=1e-3, rtol=1e-3)


@card
@pytest.mark.parametrize("encoder", sorted(name for name, kind in ENCODERS.items() if kind.layout == "packed"))
@pytest.mark.parametrize("teacher", [NextEvent(), Recommend()], ids=lambda teacher: teacher.name)
def test_a_replayed_pass_learns_what_a_launched_one_does(monkeypatch, encoder, teacher):
    log = log_of(80)
    settings = TrainSettings(loss="softmax", **{**PLAIN, "batch_targets": 64, "lr": 1e-3})
    labels = teacher.labels(log, int(log["time"].max()) + 1, SCHEMA)
    found = []
    for again in (10**9, graphs.AGAIN):
        monkeypatch.setattr(graphs, "AGAIN", again)
        network = network_of(teacher, encoder, "cuda")
        teacher.start(network, labels)
        done = train(
            network,
            lambda batch, network=network: teacher.loss(network, *network(log, batch), labels, settings),
            lambda epoch, network=network: batches(log, network.encoder.layout, SIZES.length, 64, 0, epoch),
            teacher.count(labels),
            settings,
            0,
            planned=2,
        )
        assert bool(network.replayed(("read", False), nn.Identity)._graphs) == (again < 10)
        found.append((done.losses, dict(network.named_parameters())))
    (losses, weights), (again, other) = found
    assert again == pytest.approx(losses, rel=1e-3)
    for name, weight in weights.items():
        torch.testing.assert_close(other[name], weight, atol=2e-3, rtol=2e-2, msg=name)


@card
def test_answers_are_those_of_the_processor():
    log = log_of(50)
    users = np.arange(50)
    place = log.offsets[1:] - 1
    questions = Questions(log, users, place, log["time"][place] + 10**9)
    for teacher in (NextEvent(), Recommend()):
        found = []
        for device in ("cpu", "cuda"):
            network = network_of(teacher, "transformer", device).eval()
            if isinstance(teacher, NextEvent):
                teacher.start(network, teacher.labels(log, None, SCHEMA))
            found.append(next(predicted for _, _, predicted in teacher.network_predictions(network, questions)))
        one, other = found
        parts = (
            [(one, other)]
            if teacher.name == "recommend"
            else [(getattr(one, n), getattr(other, n)) for n in ("types", "scores")]
        )
        for here, there in parts:
            np.testing.assert_allclose(here, there, atol=2e-3, rtol=2e-3)


@card
def test_surprise_is_that_of_the_processor():
    log, teacher = log_of(40), NextEvent()
    scored = []
    for device in ("cpu", "cuda"):
        network = network_of(teacher, "transformer", device).eval()
        teacher.start(network, teacher.labels(log, None, SCHEMA))
        scored.append(surprise(network, log, int(log["time"][log.events // 2]), 0, 0.2))
    for name, head in scored[0].heads.items():
        np.testing.assert_allclose(head.nats, scored[1].heads[name].nats, atol=5e-2, rtol=1e-2, err_msg=name)


@card
def test_a_hazard_and_attention_in_bfloat16_run_there():
    torch.manual_seed(0)
    waits, ended = torch.rand(50) * 30, torch.rand(50) > 0.3
    hazards = [Pieces(8).to(device) for device in ("cpu", "cuda")]
    hidden = torch.randn(50, 8)
    for hazard in hazards:
        hazard.fit(waits, ended)
    here, there = (
        h.loss(hidden.to(h.edges.device), waits.to(h.edges.device), ended.to(h.edges.device)) for h in hazards
    )
    torch.testing.assert_close(here, there.cpu(), rtol=1e-4, atol=1e-4)
    queries = torch.randn(2, 2, 16, 8, device="cuda", dtype=torch.bfloat16, requires_grad=True)
    bias = nn.Parameter(torch.zeros(2, 20, device="cuda", dtype=torch.bfloat16))
    first = torch.zeros(2, 16, dtype=torch.int64, device="cuda")
    by_library(queries, queries, queries, bias, first).sum().backward()
    assert torch.isfinite(bias.grad).all()
