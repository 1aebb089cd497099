"""Every encoder: forward, extend and step give the same numbers, and no position sees its future."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from desireline.encoders import ENCODERS, Encoder, state_bytes
from desireline.schema.model import EncoderSettings

SETTINGS = EncoderSettings(d_model=16, layers=2, heads=2, length=5, dropout=0.3)
NAMES = sorted(ENCODERS)


def made(name: str) -> Encoder:
    torch.manual_seed(1)
    encoder = ENCODERS[name](SETTINGS).eval()
    with torch.no_grad():  # biases begin at zero, where a mistake in them would not show
        for parameter in encoder.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return encoder


def whole(encoder: Encoder, x: torch.Tensor) -> torch.Tensor:
    return encoder(x, torch.zeros(x.shape[:2], dtype=torch.int64))


@pytest.mark.parametrize("name", NAMES)
@given(lengths=st.lists(st.integers(1, 14), min_size=1, max_size=4), seed=st.integers(0, 99), data=st.data())
def test_reading_in_pieces_equals_reading_at_once(name, lengths, seed, data):
    encoder = made(name)
    torch.manual_seed(seed)
    histories = [torch.randn(n, 16) for n in lengths]
    alone = [whole(encoder, h[None])[0] for h in histories]
    state, read = encoder.initial(len(lengths)), [0] * len(lengths)
    pieces: list[list[torch.Tensor]] = [[] for _ in lengths]
    while any(r < n for r, n in zip(read, lengths, strict=True)):
        sizes = [data.draw(st.integers(0, min(4, n - r))) for r, n in zip(read, lengths, strict=True)]
        if not any(sizes):
            sizes = [min(1, n - r) for r, n in zip(read, lengths, strict=True)]
        x = torch.randn(len(lengths), max(sizes), 16)  # what is not overwritten is padding
        for row, (history, begin, size) in enumerate(zip(histories, read, sizes, strict=True)):
            x[row, :size] = history[begin : begin + size]
        hidden, state = encoder.extend(x, torch.tensor(sizes), state)
        for row, size in enumerate(sizes):
            pieces[row].append(hidden[row, :size])
            read[row] += size
    for row, expected in enumerate(alone):
        torch.testing.assert_close(torch.cat(pieces[row]), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_step_by_step_equals_forward(name):
    encoder, x = made(name), torch.randn(3, 17, 16)
    state, hidden = encoder.initial(3), []
    for place in range(x.shape[1]):
        h, state = encoder.step(x[:, place], state)
        hidden.append(h)
    torch.testing.assert_close(torch.stack(hidden, 1), whole(encoder, x), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_no_position_sees_its_future(name):
    encoder, x = made(name), torch.randn(2, 9, 16, requires_grad=True)
    for place in (0, 4, 8):
        (gradient,) = torch.autograd.grad(whole(encoder, x)[:, place].sum(), x)
        assert not gradient[:, place + 1 :].any()
        assert gradient[:, place].abs().max() > 0


@pytest.mark.parametrize("name", [n for n in NAMES if ENCODERS[n].layout == "packed"])
def test_packed_segments_do_not_see_each_other(name):
    encoder = made(name)
    first, second = torch.randn(4, 16), torch.randn(5, 16)
    row = torch.cat([first, second])[None]
    start = torch.tensor([[0] * 4 + [4] * 5])
    packed = encoder(row, start)[0]
    torch.testing.assert_close(packed[:4], whole(encoder, first[None])[0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(packed[4:], whole(encoder, second[None])[0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_a_state_is_as_large_after_many_events_as_before_the_first(name):
    encoder = made(name)
    state = encoder.initial(1)
    size = sum(t.numel() * t.element_size() for t in state.values())
    _, state = encoder.extend(torch.randn(1, 50, 16), torch.tensor([50]), state)
    assert sum(t.numel() * t.element_size() for t in state.values()) == size == state_bytes(encoder)
