"""How surprised a next-event network is by each event of a window: of what type it is, about which item, and when.

Each head gives three numbers an event: the surprise −log p in nats; what the model expected that to be (the entropy of
its own forecast), so that surprise − expected is a martingale difference where the model is right, however long the
history; and a conditional p-value that is uniform where the model is right. A p-value near 0 is an event that the
model held for unlikely, one near 1 a type or an item that it held for the likeliest of all. Of a wait it is the time
that the model saw pass: near 0 sooner than forecast, near 1 later.

Two events at one moment have no wait between them: only the first event of a moment has one, and its forecast is that
of the later gaps, the moment's own further lines set aside. Where a gap reaches over the border of a window only what
lies behind the border is asked, since an account without an event in the window would not be looked at.

Cost: every event is read once. A token of the largest product, hidden × catalogue, costs 2 · d FLOP an item and one exp
an item, in a fused pass over scores that never stand for more than SCORES at once; above MOST_ITEMS a sample stands for
the catalogue: its commonest items as they are, and of the others a share that counts for all of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from desireline.core.errors import ModelError, SettingError
from desireline.evaluation.blocks import over_blocks
from desireline.events.frame import content_hash
from desireline.sequences.batches import places_within
from desireline.sequences.ragged import Sequences
from desireline.sequences.vocabulary import FIRST
from desireline.tasks.anomaly.surprise_kernels import item_rows, silences, wait_rows
from desireline.tasks.next_event import masked_types
from desireline.training.device import beside, fetched
from desireline.training.network import Network

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]

HEADS = ("type", "item", "wait")
MODULES = {"type": "event_type", "item": "item", "wait": "wait"}  # what the network calls them
MOST_ITEMS = 20_000  # a larger catalogue is sampled
SAMPLE = 8_192  # items of a sample, half of them the commonest
TOGETHER = 1 << 16  # events whose hidden states are held at once, or those of one account
SCORES = 1 << 20  # scores of tokens × items at once
LEAST_READ = 200  # events before the first scored one that a recurrent state is made of, at least


@dataclass(frozen=True)
class Surprise:
    """One head, float32 [N] each, nan where the head says nothing about an event.

    nats : −log of the model's probability of what came, of a wait its density in log(1 + seconds)
    expected : the mean of `nats` under the model's own forecast
    p : uniform on [0, 1] where the model is right, see the module
    """

    nats: Floats
    expected: Floats
    p: Floats

    @property
    def excess(self) -> Floats:
        """float32 [N]: the surprise beyond what the model expected; its mean is 0 where the model is right."""
        return self.nats - self.expected

    @staticmethod
    def empty(events: int) -> Surprise:
        """Of so many events, nothing said yet."""
        return Surprise(*(np.full(events, np.nan, np.float32) for _ in range(3)))


@dataclass(frozen=True)
class Surprises:
    """What the network says to the events of N events of U users.

    heads : by the names of HEADS
    spacing : float32 [N], −log of the share of the forecast wait that was still to come when the event came: Exp(1)
        where the model is right; nan where there is no wait
    open : float32 [U], the same of the silence from the user's last event to `until_us`; nan: not asked
    begin_us : begin of the window that is judged; events scored before it are the accounts' own past
    """

    sequences: Sequences
    heads: dict[str, Surprise]
    spacing: Floats
    open: Floats
    begin_us: int


@dataclass(frozen=True)
class Window:
    """The times that decide what is asked, in microseconds: see `surprise`."""

    from_us: int
    begin_us: int
    until_us: int | None
    step_us: int


def surprise(
    network: Network,
    sequences: Sequences,
    from_us: int,
    seed: int,
    temperature: float,
    begin_us: int | None = None,
    until_us: int | None = None,
    step_us: int = 0,
) -> Surprises:
    """Score every event at or after `from_us` that has an earlier event of the same user.

    Parameters
    ----------
    network : trained on next events, in evaluation mode
    sequences : all users; events before `from_us` are read and not scored. A recurrent encoder starts from nothing the
        longer of LEAST_READ events and its training window before the first scored event of a user: what is older is
        not seen, which moves an event's surprise by 1e-4 nats in the mean (gru on Online Retail II; 50 events: 1e-2).
        Attention sees all that it ever does.
    seed : of the draws within the jumps of a forecast; an event's draw depends on it, on the user's name and on the
        event's place in the history, on nothing else
    temperature : of the item head's cosines in training
    begin_us : begin of the judged window, not before `from_us`; null: `from_us`
    until_us : the end of observation, after the last event; null: not known, silences at the end are not asked
    step_us : step of the log's clock: a wait is known to half of it, and drawn within

    Raises
    ------
    ModelError when the network lacks a head of the next-event task, SettingError when the times are out of order.
    """
    window = Window(from_us, from_us if begin_us is None else begin_us, until_us, step_us)
    _check(network, sequences, window)
    out = Surprises(
        sequences,
        {name: Surprise.empty(sequences.events) for name in HEADS},
        np.full(sequences.events, np.nan, np.float32),
        np.full(len(sequences), np.nan, np.float32),
        window.begin_us,
    )
    names = sequences.users.rename("user").to_frame().select(content_hash(pl.col("user"))).to_series()
    draws = names.to_numpy().view(np.uint64) ^ _mixed(np.full(1, seed, np.uint64))
    with torch.inference_mode():
        items = ItemTable.of(network, sequences, from_us, seed, temperature)
        for part in _parts(network, sequences, from_us):
            hidden = network.encode(part.history, part.place)
            scored = part.last == 0
            event, after = part.event[scored], hidden[beside(hidden, scored)]
            drawn = _uniform(draws[part.user[scored]], event - sequences.offsets[part.user[scored]])
            _types(network, after, event, sequences, drawn[0], out.heads["type"])
            items.score(network, after, event, sequences, drawn[1], out.heads["item"])
            if network.inputs.timed:
                _waits(network, hidden, part, sequences, window, drawn[2], out)
    return out


def _check(network: Network, sequences: Sequences, window: Window) -> None:
    held = set(network.heads.keys()) if isinstance(network.heads, nn.ModuleDict) else set()
    missing = [name for name in MODULES.values() if name not in held]
    if missing:
        raise ModelError(
            f"The network has no head {', '.join(missing)}: it was trained for another task; "
            "fit one of the task anomaly or next_event."
        )
    if window.begin_us < window.from_us:
        raise SettingError("The judged window begins before the first scored moment: score from its begin or earlier.")
    if window.until_us is not None and sequences.events and window.until_us < int(np.max(sequences["time"])):
        raise SettingError("Events lie after the end of observation: cut the log there first.")


@dataclass(frozen=True)
class Part:
    """Some users, what is read of them, and the P places of it that are asked.

    history : their events from where reading starts;  place : int64 [P] in it, ascending
    event : int64 [P], the place in the whole log of the event that came next, where `last` is 0
    last : uint8 [P], 1 at a user's last event;  user : int64 [P], row in the whole log
    """

    history: Sequences
    place: Ints
    event: Ints
    last: NDArray[np.uint8]
    user: Ints


def _parts(network: Network, sequences: Sequences, from_us: int) -> Iterator[Part]:
    """Users with something to score, about TOGETHER events at once."""
    time, offsets = sequences["time"], sequences.offsets
    late = np.concatenate([[0], np.cumsum(np.asarray(time) >= from_us)])
    end = offsets[1:]
    first = np.maximum(end - (late[end] - late[offsets[:-1]]), offsets[:-1] + 1)  # scored events begin here
    read = max(LEAST_READ, network.length)
    begin = np.maximum(offsets[:-1], first - read) if network.encoder.reach is None else offsets[:-1]
    users = np.flatnonzero(first < end)
    sizes = np.cumsum((end - begin)[users])
    cuts = np.searchsorted(sizes, np.arange(TOGETHER, sizes[-1] if len(sizes) else 0, TOGETHER), side="left") + 1
    for rows in np.split(users, np.unique(cuts)):
        if not len(rows):
            continue
        length = (end - begin)[rows]
        inside = np.repeat(begin[rows], length) + places_within(length)
        starts = np.concatenate([[0], np.cumsum(length)]).astype(np.int64)
        columns = {name: column[inside] for name, column in sequences.columns.items()}
        asked = (end - first)[rows] + 1  # the scored ones' forerunners, and the last event
        place = np.repeat(starts[1:] - asked, asked) + places_within(asked)
        yield Part(
            Sequences(sequences.users[rows], starts, columns),
            place,
            inside[place] + 1,
            (places_within(asked) == np.repeat(asked - 1, asked)).astype(np.uint8),
            np.repeat(rows, asked),
        )


def _mixed(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """SplitMix64's finish (Steele, Lea & Flood 2014): bits that look drawn, from any integers."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(x ^ (x >> np.uint64(31)))


def _uniform(user: NDArray[np.uint64], place: Ints) -> NDArray[np.float64]:
    """float64 [3, T] within (0, 1): one draw a head for events at `place` [T] of users with hashes [T]."""
    event = _mixed(user ^ _mixed(place.astype(np.uint64)))
    bits = np.stack([_mixed(event + np.uint64(head + 1)) for head in range(len(HEADS))])
    return np.asarray(((bits >> np.uint64(12)).astype(np.float64) + 0.5) / 2.0**52)


def _types(
    network: Network, hidden: Tensor, event: Ints, sequences: Sequences, drawn: NDArray[np.float64], out: Surprise
) -> None:
    kind = sequences["event"][event].astype(np.int64)
    known = np.flatnonzero(kind >= FIRST)
    event, target = event[known], beside(hidden, kind[known])[:, None]
    logs = masked_types(_head(network, "type")(hidden[beside(hidden, known)])).log_softmax(-1)  # [T, types]
    shares, own = logs.exp(), logs.gather(1, target)
    below = torch.where(logs < own, shares, 0).sum(1)
    ties = torch.where(logs == own, shares, 0).sum(1)
    out.nats[event] = -fetched(own[:, 0])
    out.expected[event] = -fetched(torch.where(shares > 0, shares * logs, 0).sum(1))
    out.p[event] = fetched(below) + drawn[known] * fetched(ties)


@dataclass(frozen=True)
class ItemTable:
    """What an item's probability is computed over.

    unit : float32 [items, d], every item's direction over the temperature
    ids : int64 [K], the items that stand for the catalogue;  weight : float32 [K], how many each stands for
    place : int64 [items], where an item stands among `ids`; −1: not there
    """

    unit: Tensor
    ids: Ints
    weight: Floats
    place: Ints

    @staticmethod
    def of(network: Network, sequences: Sequences, from_us: int, seed: int, temperature: float) -> ItemTable:
        """The whole catalogue, or a sample of it by how common items were before `from_us`."""
        items = network.inputs.items
        unit = F.normalize(network.embedding.item_vectors(), dim=-1) / temperature
        ids, weight = np.arange(FIRST, items), np.ones(max(0, items - FIRST), np.float32)
        if items - FIRST > MOST_ITEMS:
            item = np.asarray(sequences["item"])[np.asarray(sequences["time"]) < from_us]
            common = np.argsort(-np.bincount(item, minlength=items)[FIRST:], kind="stable") + FIRST
            first, others = common[: SAMPLE // 2], np.sort(common[SAMPLE // 2 :])
            some = np.random.default_rng(seed).choice(others, SAMPLE - len(first), replace=False)
            ids = np.sort(np.concatenate([first, some]))
            weight = np.where(np.isin(ids, some), np.float32(len(others) / len(some)), np.float32(1))
        place = np.full(items, -1, np.int64)
        place[ids] = np.arange(len(ids))
        return ItemTable(unit, ids, weight.astype(np.float32), place)

    def score(
        self,
        network: Network,
        hidden: Tensor,
        event: Ints,
        sequences: Sequences,
        drawn: NDArray[np.float64],
        out: Surprise,
    ) -> None:
        """Fill in `out` at the places `event` [T] of the events that came after hidden states [T, d]."""
        item = sequences["item"][event].astype(np.int64)
        known = np.flatnonzero((item >= FIRST) & (item < len(self.place)))
        candidates = self.unit[beside(self.unit, self.ids)].T.contiguous()
        size = max(16, SCORES // max(1, len(self.ids)))
        scores = self.unit.new_empty(size, len(self.ids))
        for lo in range(0, len(known), size):
            rows = known[lo : lo + size]
            h = F.normalize(_head(network, "item")(hidden[beside(hidden, rows)]), dim=-1)
            own = fetched((h * self.unit[beside(h, item[rows])]).sum(1))
            held = scores[: len(rows)]
            torch.mm(h, candidates, out=held)
            found = np.empty((len(rows), 3), np.float32)
            place, draws = self.place[item[rows]], drawn[rows]
            over_blocks(len(rows), partial(item_rows, fetched(held), own, place, draws, self.weight, found))
            out.nats[event[rows]], out.expected[event[rows]], out.p[event[rows]] = found.T


def _waits(
    network: Network,
    hidden: Tensor,
    part: Part,
    sequences: Sequences,
    window: Window,
    drawn: NDArray[np.float64],
    out: Surprises,
) -> None:
    """Fill in the waits of a part's events, and the silences after its users' last ones."""
    head, time = _head(network, "wait"), sequences["time"]
    weight, mean, deviation, _ = head.mixture(hidden)
    parts = np.stack([fetched(t) for t in (weight, mean, deviation)], axis=1).astype(np.float64)  # [P, 3, parts]
    centre, scale = float(head.centre), float(head.scale)
    scored = np.flatnonzero(part.last == 0)
    event = part.event[scored]
    before, came = time[event - 1], time[event]
    later = came > before
    scored, event, before, came, drawn = scored[later], event[later], before[later], came[later], drawn[later]
    known_s = np.zeros(len(event))  # how long the gap is known to be, only because the event lies in the window
    for border in (window.from_us, window.begin_us):
        crosses = (before < border) & (came >= border)
        known_s[crosses] = (border - before[crosses]) / 1e6
    gap_s, found = (came - before) / 1e6, np.empty((len(event), 4), np.float32)
    half_s = window.step_us / 2e6
    over_blocks(
        len(event),
        partial(wait_rows, parts, scored, gap_s, known_s, half_s, drawn, centre, scale, found),
    )
    mine = out.heads["wait"]
    mine.nats[event], mine.expected[event], mine.p[event], out.spacing[event] = found.T
    if window.until_us is not None:
        ends = np.flatnonzero(part.last == 1)
        last = time[part.event[ends] - 1]
        silence = np.empty(len(ends), np.float32)
        silences(
            parts,
            ends,
            np.maximum(0, window.begin_us - last) / 1e6,
            (window.until_us - last) / 1e6,
            centre,
            scale,
            silence,
        )
        out.open[part.user[ends]] = silence


def _head(network: Network, name: str) -> Any:
    return cast(nn.ModuleDict, network.heads)[MODULES[name]]
