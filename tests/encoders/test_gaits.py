"""Every encoder: forward, extend and step give the same numbers, and no position sees its future."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from desireline.core.errors import SettingError
from desireline.encoders import ENCODERS, Encoder, Events, state_bytes
from desireline.encoders.windowed import View
from desireline.schema.model import EncoderSettings

SETTINGS = EncoderSettings(d_model=16, layers=2, heads=2, length=5, dropout=0.3)
MADE = {name: (name, SETTINGS) for name in sorted(ENCODERS)}
MADE["transformer, gated"] = ("transformer", SETTINGS.model_copy(update={"gate": True}))
NAMES = list(MADE)


def made(name: str) -> Encoder:
    torch.manual_seed(1)
    kind, settings = MADE[name]
    encoder = ENCODERS[kind](settings).eval()
    with torch.no_grad():  # biases begin at zero, where a mistake in them would not show
        for parameter in encoder.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return encoder


def drawn(*shape: int) -> Events:
    """Events with few items, so that they come again, and times that ascend."""
    time = torch.randint(1, 10_000_000_000, shape).cumsum(-1)
    return Events(torch.randn(*shape, 16), torch.randint(0, 4, shape), time)


def part(events: Events, *index: object) -> Events:
    return Events(events.x[index], events.item[index], events.time[index])


def joined(*several: Events) -> Events:
    return Events(*(torch.cat([getattr(e, name) for e in several]) for name in ("x", "item", "time")))


def whole(encoder: Encoder, events: Events) -> torch.Tensor:
    return encoder(events, torch.zeros(events.item.shape, dtype=torch.int64))


@pytest.mark.parametrize("name", NAMES)
@given(lengths=st.lists(st.integers(1, 14), min_size=1, max_size=4), seed=st.integers(0, 99), data=st.data())
def test_reading_in_pieces_equals_reading_at_once(name, lengths, seed, data):
    encoder = made(name)
    torch.manual_seed(seed)
    histories = [drawn(n) for n in lengths]
    alone = [whole(encoder, part(h, None))[0] for h in histories]
    state, read = encoder.initial(len(lengths)), [0] * len(lengths)
    pieces: list[list[torch.Tensor]] = [[] for _ in lengths]
    while any(r < n for r, n in zip(read, lengths, strict=True)):
        sizes = [data.draw(st.integers(0, min(4, n - r))) for r, n in zip(read, lengths, strict=True)]
        if not any(sizes):
            sizes = [min(1, n - r) for r, n in zip(read, lengths, strict=True)]
        events = drawn(len(lengths), max(sizes))  # what is not overwritten is padding
        for row, (history, begin, size) in enumerate(zip(histories, read, sizes, strict=True)):
            for column, source in zip(vars(events).values(), vars(history).values(), strict=True):
                column[row, :size] = source[begin : begin + size]
        hidden, state = encoder.extend(events, torch.tensor(sizes), state)
        for row, size in enumerate(sizes):
            pieces[row].append(hidden[row, :size])
            read[row] += size
    for row, expected in enumerate(alone):
        torch.testing.assert_close(torch.cat(pieces[row]), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_step_by_step_equals_forward(name):
    encoder, events = made(name), drawn(3, 17)
    state, hidden = encoder.initial(3), []
    for place in range(17):
        h, state = encoder.step(part(events, slice(None), place), state)
        hidden.append(h)
    torch.testing.assert_close(torch.stack(hidden, 1), whole(encoder, events), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", NAMES)
@given(lengths=st.lists(st.integers(1, 17), min_size=1, max_size=5), seed=st.integers(0, 99))
def test_the_latest_state_equals_the_last_of_all(name, lengths, seed):
    encoder = made(name)
    torch.manual_seed(seed)
    events = drawn(len(lengths), max(lengths))  # what is beyond a row's length is padding
    expected = torch.stack([whole(encoder, part(events, [k], slice(n)))[0, -1] for k, n in enumerate(lengths)])
    found = encoder.latest(events, torch.tensor(lengths))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", [n for n in NAMES if made(n).reach])
def test_a_state_depends_on_what_is_within_reach_alone(name):
    encoder, events = made(name), drawn(2, 23)
    reach = encoder.reach
    events.x.requires_grad_()
    (gradient,) = torch.autograd.grad(whole(encoder, events)[:, -1].sum(), events.x)
    assert reach < 23
    assert not gradient[:, :-reach].any()
    found = encoder.latest(part(events, slice(None), slice(-reach, None)), torch.tensor([reach, reach]))
    torch.testing.assert_close(found, whole(encoder, events)[:, -1], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_no_position_sees_its_future(name):
    encoder, events = made(name), drawn(2, 9)
    events.x.requires_grad_()
    expected = whole(encoder, events)
    for place in (0, 4, 8):
        (gradient,) = torch.autograd.grad(expected[:, place].sum(), events.x, retain_graph=True)
        assert not gradient[:, place + 1 :].any()
        assert gradient[:, place].abs().max() > 0
        later = drawn(2, 9)  # items and times have no gradient: change those that are to come
        changed = Events(events.x, events.item.clone(), events.time.clone())
        changed.item[:, place + 1 :], changed.time[:, place + 1 :] = (
            later.item[:, place + 1 :],
            later.time[:, place + 1 :],
        )
        torch.testing.assert_close(whole(encoder, changed)[:, : place + 1], expected[:, : place + 1])


@pytest.mark.parametrize("name", [n for n in NAMES if ENCODERS[MADE[n][0]].layout == "packed"])
def test_packed_segments_do_not_see_each_other(name):
    encoder = made(name)
    first, second = drawn(4), drawn(5)
    start = torch.tensor([[0] * 4 + [4] * 5])
    packed = encoder(part(joined(first, second), None), start)[0]
    torch.testing.assert_close(packed[:4], whole(encoder, part(first, None))[0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(packed[4:], whole(encoder, part(second, None))[0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_the_order_of_a_batch_has_no_effect(name):
    encoder, events = made(name), drawn(4, 7)
    order = torch.tensor([2, 0, 3, 1])
    torch.testing.assert_close(whole(encoder, part(events, order)), whole(encoder, events)[order], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_a_state_is_as_large_after_many_events_as_before_the_first(name):
    encoder = made(name)
    state = encoder.initial(1)
    size = sum(t.numel() * t.element_size() for t in state.values())
    _, state = encoder.extend(drawn(1, 50), torch.tensor([50]), state)
    assert sum(t.numel() * t.element_size() for t in state.values()) == size == state_bytes(encoder)


@pytest.mark.parametrize("name", [n for n in NAMES if ENCODERS[MADE[n][0]].trains_in_bfloat16])
def test_what_trains_in_bfloat16_follows_float32(name):
    encoder, events = made(name), drawn(3, 9)
    expected = whole(encoder, events)
    low = encoder.to(torch.bfloat16)
    found = whole(low, Events(events.x.to(torch.bfloat16), events.item, events.time))
    assert found.dtype == torch.bfloat16
    assert float((found.float() - expected).detach().norm() / expected.detach().norm()) < 0.05


def test_the_graph_network_reads_the_neighbours_of_its_item():
    encoder = made("gnn")
    again = drawn(1, 5)
    again.item[:] = torch.tensor([1, 2, 3, 1, 0])  # 1 comes back: 2 followed it
    again.x.requires_grad_()
    view = View(torch.zeros(1, 5, dtype=torch.int64), again.item, again.time)
    said, _ = encoder.blocks[0](again.x, None, view)
    (gradient,) = torch.autograd.grad(said[0, 3].sum(), again.x)
    touched = gradient[0].abs().sum(-1) > 0
    assert touched.tolist() == [False, True, True, True, False]  # 2 followed the first 1, 3 led to the second


@pytest.mark.parametrize("name", ["transformer", "hstu"])
def test_a_width_that_heads_cannot_share_is_an_error_with_a_remedy(name):
    with pytest.raises(SettingError, match="heads 3"):
        ENCODERS[name](EncoderSettings(d_model=16, heads=3))
