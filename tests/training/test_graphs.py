"""What a card records is the module's own pass, over aliases of its weights."""

from __future__ import annotations

import gc
import weakref

import torch
from torch import nn

from desireline.encoders.embedding import Inputs
from desireline.schema.model import EncoderSettings
from desireline.training import graphs
from desireline.training.graphs import Replayed
from desireline.training.network import Network


class Layers(nn.Module):
    """Two layers, one of them through a copy of its weights, and a table that is not read."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second, self.unread = nn.Linear(4, 8), nn.Linear(8, 2), nn.Embedding(5, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        low = {name: p.double() for name, p in self.second.named_parameters()}
        return torch.func.functional_call(self.second, low, (self.first(x).double(),)).sum()


def test_a_recorded_pass_gives_the_modules_values_and_gradients(monkeypatch):
    seen, collects = [], []

    def recorded(whole, samples, **_how):
        seen.append(samples)
        collects.append(gc.isenabled())
        return whole

    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: (0, 1))
    monkeypatch.setattr(torch.cuda, "make_graphed_callables", recorded)
    module, x = Layers(), torch.randn(3, 4, requires_grad=True)
    made = Replayed(module)._recorded((x,))
    found = torch.autograd.grad(made(x), [x, module.first.weight, module.second.bias])
    wanted = torch.autograd.grad(module(x), [x, module.first.weight, module.second.bias])
    torch.testing.assert_close(found, wanted)
    assert collects == [False]  # what Python frees of an earlier network's graphs would end the recording
    assert gc.isenabled()
    x_sample, *aliases = seen[0]
    assert x_sample.data_ptr() != x.data_ptr()  # the recording's own input, which each call fills
    for alias, weight in zip(aliases, module.parameters(), strict=True):
        assert alias.data_ptr() == weight.data_ptr()
        assert alias is not weight
        assert alias.requires_grad


def test_on_the_processor_nothing_is_recorded():
    module, replayed = Layers(), Replayed(Layers())
    x = torch.randn(3, 4)
    for _ in range(graphs.AGAIN + 2):
        torch.testing.assert_close(replayed(x), module(x))
    assert replayed._graphs == {}


def test_sizes_are_rounded_up_to_few():
    sizes = {graphs.rounded(size) for size in range(1, 40_000)}
    assert len(sizes) < 90
    assert all(size <= graphs.rounded(size) <= max(64, 1.15 * size + 64) for size in range(1, 40_000, 7))


def test_released_graphs_are_freed_although_they_hold_themselves():
    class Recorded:
        def __init__(self):
            self.own = self

    network = Network(Inputs(9, 4), "gru", EncoderSettings(d_model=8, layers=1), nn.Identity())
    graph = Recorded()
    network.replayed("read", Layers)._graphs["a shape"] = graph
    alive = weakref.ref(graph)
    del graph
    network.release()
    assert alive() is None
