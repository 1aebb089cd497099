"""The loop: exact resume after a kill, early stopping, weight decay that spares embeddings."""

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from desireline.core.errors import ModelError
from desireline.schema.model import TrainSettings
from desireline.training.average import Average
from desireline.training.loop import _groups, train

SETTINGS = TrainSettings(epochs=6, batch_targets=16, lr=0.05, ema=0.9, patience=2, threads=1)


class Toy(nn.Module):
    """Learns y = x·w with dropout, so that every step draws random numbers."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.drop = nn.Linear(4, 1), nn.Dropout(0.3)

    def loss(self, batch):
        x = torch.tensor([[b, b % 3, b % 5, 1.0] for b in batch]) / 10
        return ((self.layer(self.drop(x)) - x.sum(1, keepdim=True)) ** 2).sum(), len(batch)


class Rows(Toy):
    """Learns a number for each of 64 things, of which a step touches 16: its table is updated row by row."""

    def __init__(self, sparse=True):
        super().__init__()
        self.table = nn.Embedding(100, 4, sparse=sparse)

    def loss(self, batch):
        wanted = torch.tensor([[b, b % 3, b % 5, 1.0] for b in batch]) / 10
        return ((self.layer(self.table(torch.tensor(batch))) - wanted.sum(1, keepdim=True)) ** 2).sum(), len(batch)


def epoch(number):
    order = torch.randperm(64, generator=torch.Generator().manual_seed(number)).tolist()
    return [order[lo : lo + 16] for lo in range(0, 64, 16)]


def run(checkpoint=None, validate=None, kind=Toy, **more):
    toy = kind()
    done = train(toy, toy.loss, epoch, 64, SETTINGS, 3, planned=6, validate=validate, checkpoint=checkpoint, **more)
    return toy, done


KILLED = """
    import os, signal, sys
    sys.path.insert(0, {tests!r})
    import test_loop
    from pathlib import Path
    def epoch(number):
        for k, batch in enumerate(test_loop.epoch(number)):
            if number == 3 and k == 2:
                os.kill(os.getpid(), signal.SIGKILL)
            yield batch
    toy = test_loop.{kind}()
    test_loop.train(toy, toy.loss, epoch, 64, test_loop.SETTINGS, 3, planned=6, checkpoint=Path({path!r}))
"""


@pytest.mark.parametrize("kind", [Toy, Rows])
def test_a_killed_training_ends_with_the_weights_of_an_undisturbed_one(tmp_path, kind):
    path = tmp_path / "checkpoint.safetensors"
    script = textwrap.dedent(KILLED.format(tests=str(Path(__file__).parent), path=str(path), kind=kind.__name__))
    killed = subprocess.run([sys.executable, "-c", script], env=os.environ, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert path.exists()
    whole, done = run(kind=kind)
    resumed, after = run(checkpoint=path, kind=kind)
    assert after.epochs == done.epochs == 6
    assert after.losses == done.losses
    for one, other in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(one, other)
    assert not path.exists()


def test_early_stopping_keeps_the_weights_of_the_best_epoch():
    figures = iter([0.1, 0.5, 0.4, 0.3, 0.9, 0.9])
    kept = []
    toy = Toy()

    def validate():
        kept.append(toy.layer.weight.detach().clone())
        return next(figures)

    done = train(toy, toy.loss, epoch, 64, SETTINGS, 3, planned=6, validate=validate)
    assert (done.epochs, done.best_epoch) == (4, 2)
    assert torch.equal(toy.layer.weight, kept[1])


def test_stopping_after_an_epoch_walks_the_same_path_as_the_longer_run():
    path: list[torch.Tensor] = []
    toy = Toy()

    def validate():
        path.append(toy.layer.weight.detach().clone())
        return float(len(path))

    train(toy, toy.loss, epoch, 64, SETTINGS, 3, planned=6, validate=validate)
    short, _ = run(stop_after=3)
    assert torch.equal(short.layer.weight, path[2])


def test_a_damaged_checkpoint_is_named_and_not_silently_ignored(tmp_path):
    path = tmp_path / "checkpoint.safetensors"
    path.write_bytes(b"\x00" * 100)
    with pytest.raises(ModelError, match="damaged"):
        run(checkpoint=path)


def test_a_loss_that_explodes_is_an_error_with_a_remedy():
    toy = Toy()
    with pytest.raises(ModelError, match="lr="):
        train(toy, lambda b: (toy.loss(b)[0] * float("nan"), len(b)), epoch, 64, SETTINGS, 3, planned=6)


def test_rows_that_no_step_touches_stay_and_the_others_learn():
    before = Rows().table.weight.detach().clone()
    rows, done = run(kind=Rows)
    changed = (rows.table.weight != before).any(1)
    assert changed[:64].all()
    assert not changed[64:].any()
    assert done.losses[-1] < 0.5 * done.losses[0]


def test_an_average_that_skips_untouched_rows_equals_one_of_every_step():
    torch.manual_seed(0)
    table, other = torch.randn(6, 3), torch.randn(2)
    average = Average({"table": table, "other": other}, 0.95, frozenset({"table"}))
    expected = {"table": table.clone(), "other": other.clone()}
    for step in range(1, 40):
        rows = torch.randint(0, 5, (2,)).unique()
        average.before({"table": rows})
        table[rows] += torch.randn(len(rows), 3)
        other += 1
        average.after()
        for name, weight in (("table", table), ("other", other)):
            expected[name].lerp_(weight, 1 - average.decay_at(step))
    for name, value in average.whole().items():
        torch.testing.assert_close(value, expected[name], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("values", [[float("nan"), 1.0], [float("inf"), float("-inf")]], ids=str)
def test_a_loss_that_is_no_longer_finite_ends_the_run_and_says_what_to_do(values):
    toy = Toy()

    def loss(batch):
        value, targets = toy.loss(batch)
        return value + values[batch[0] % 2], targets

    with pytest.raises(ModelError, match="no longer finite in epoch 1: lower the learning rate"):
        train(toy, loss, lambda number: [[0, 1], [1, 2]], 4, SETTINGS, 3, planned=1)


def test_weight_decay_spares_embeddings_biases_and_norms():
    module = nn.ModuleDict({"table": nn.Embedding(5, 4), "layer": nn.Linear(4, 4), "norm": nn.LayerNorm(4)})
    decayed, free = (group["params"] for group in _groups(module, module.parameters(), SETTINGS))
    assert [p is module["layer"].weight for p in decayed] == [True]
    assert len(free) == 4


def test_checkpoints_are_safetensors(tmp_path):
    path = tmp_path / "checkpoint.safetensors"

    class StopError(Exception):
        pass

    def validate():
        if path.exists():
            raise StopError
        return 0.0

    with pytest.raises(StopError):
        run(checkpoint=path, validate=validate)
    assert "average/layer.weight" in load_file(path)
