"""Why an item is shown: facts of the user's own events, or of what others did, each with the user's events behind it.

An item that the user had is told by how often, in which rhythm and how lately, one fact an event type. A new one by the
strongest of what followed the user's items in the log before the cut: the share of the users of an item who had the new
one soon after it, by the lower end of its interval, so that three users of three do not outdo 50 of 60. It is told only
where it is surely above the share among all users: what everybody comes to follows from nothing.

Of a new item that follows none surely it is told which category it shares with the history, and how many events of
others are about it.

Cost: one compiled pass over the log's columns, some milliseconds a million events, for all items of one list together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import NDArray

from desireline.sequences.prepare import category_fields
from desireline.sequences.prepared import Prepared
from desireline.sequences.ragged import POSITIVE, Sequences
from desireline.sequences.vocabulary import FIRST
from desireline.tasks.questions import DAY_US, Questions

RHYTHM_DAYS = 3  # days with the item before a rhythm is told
DUE = 0.8  # of the usual gap, from which on the item is due
LEAST_USERS = 3  # who had the one and then the other: fewer tell who somebody is, not what they do
Z = 3.0  # standard errors below a share that its lower end lies: the strongest of hundreds of items is told
SPANS = (("1 hour", 3_600), ("1 day", 86_400), ("7 days", 604_800), ("30 days", 2_592_000), ("365 days", 31_536_000))
SPAN_EVENTS = 10  # where a log has an order and no times
SAMPLE = 100_000  # events from which the usual wait is read, the first: a hash orders the users


@dataclass(frozen=True)
class Reason:
    """A fact in words, and the user's own events behind it: their ids in the log, the oldest first."""

    fact: str
    evidence: list[int]


@dataclass(frozen=True)
class Own:
    """The N positive item events that one question may look at, the oldest first.

    item, time, event : as in Sequences;  event_id : int64 [N], in the log;  as_of : the question's moment
    """

    item: NDArray[np.int32]
    time: NDArray[np.int64]
    event: NDArray[np.int16]
    event_id: NDArray[np.int64]
    as_of: int

    @staticmethod
    def of(questions: Questions, row: int, event_id: NDArray[np.int64]) -> Own:
        """Those of question `row`; `event_id` [N] belongs to the events of the questions' timeline."""
        timeline = questions.timeline
        span = slice(int(timeline.offsets[questions.user[row]]), int(questions.place[row]) + 1)
        positive = (timeline["role"][span] & POSITIVE > 0) & (timeline["item"][span] >= FIRST)
        item, time, event = (np.asarray(timeline[name][span])[positive] for name in ("item", "time", "event"))
        return Own(item, time, event, event_id[span][positive], int(questions.as_of[row]))

    def events_about(self, item: int) -> list[int]:
        """The ids of the events about an item."""
        found: list[int] = self.event_id[self.item == item].tolist()
        return found


def reasons(items: Sequence[int], own: Own, prepared: Prepared, timed: bool) -> list[list[Reason]]:
    """The facts behind each of some known items; `timed`: whether the log's times mean anything."""
    had = set(own.item.tolist())
    after = followers([item for item in items if item not in had], own, prepared, timed)
    return [
        own_facts(item, own, prepared, timed)
        if item in had
        else [after[item]]
        if item in after
        else [*alike(item, own, prepared), known(item, prepared, timed)]
        for item in items
    ]


def own_facts(item: int, own: Own, prepared: Prepared, timed: bool) -> list[Reason]:
    """How often, in which rhythm and how lately the user had an item: the latest type of the schema's order first."""
    facts = []
    here = own.item == item
    for kind in np.unique(own.event[here])[::-1]:
        places = np.flatnonzero(here & (own.event == kind))
        name = prepared.vocabularies["event"].value_of(int(kind)) if kind >= FIRST else "event"
        said = _rhythm(own.time[places], own.as_of) if timed else f"; last {_count(len(own.item) - places[-1])} ago"
        facts.append(Reason(f"{name} × {len(places)}{said}", own.event_id[places].tolist()))
    return facts


def _rhythm(time: NDArray[np.int64], as_of: int) -> str:
    """Of the moments when an item was had: `, every 31 days; last 33 days ago: due`."""
    ago = (as_of - int(time[-1])) / DAY_US
    last = f"; last {_days(ago)} ago"
    days = np.unique(time // DAY_US)
    if len(days) < RHYTHM_DAYS:
        return last
    gap = float(np.median(np.diff(days)))
    return f", every {_days(gap).removeprefix('1 ')}{last}{': due' if ago >= DUE * gap else ''}"


def _days(days: float) -> str:
    whole = round(days)
    return "less than a day" if days < 1 else "1 day" if whole == 1 else f"{whole} days"


def _count(events: int) -> str:
    return "1 event" if events == 1 else f"{events} events"


def alike(item: int, own: Own, prepared: Prepared) -> list[Reason]:
    """The rarest category that an item shares with items of the history; nothing where it shares none."""
    shared = []
    for name in category_fields(prepared.schema, "item"):
        values = prepared.items[name]
        value = values[item - FIRST]
        if value is None:
            continue
        same = values.gather(own.item - FIRST).eq(value).fill_null(False).to_numpy()
        if same.any():
            fact = f"{name} {value}, as {same.sum()} of this user's {_count(len(own.item))}"
            shared.append((int(values.eq(value).sum()), Reason(fact, own.event_id[same].tolist())))
    return [min(shared, key=lambda pair: pair[0])[1]] if shared else []


def known(item: int, prepared: Prepared, timed: bool) -> Reason:
    """What is known of an item that says nothing of this user: how many events are about it."""
    row = prepared.items.row(item - FIRST, named=True)
    last = f", the last on {row['last']:%Y-%m-%d}" if timed else ""
    about = "1 event of others is" if row["count"] == 1 else f"{row['count']:,} events of others are"
    return Reason(f"new to this user; {about} about it{last}", [])


def followers(items: Sequence[int], own: Own, prepared: Prepared, timed: bool) -> dict[int, Reason]:
    """Item -> the strongest of what it followed, for those of `items` that surely follow an item of the history."""
    had = np.unique(own.item[::-1], return_index=True)
    sources = had[0][np.argsort(had[1])]  # the latest first: it is told where two are equally strong
    if not len(sources) or not items:
        return {}
    before = prepared.before
    counted = counted_users(before, sources, np.asarray(items, np.int32), len(prepared.items) + FIRST, own.as_of, timed)
    name = prepared.vocabularies["item"].value_of
    found = {}
    for b, item in enumerate(items):
        base = counted.ever[b] / max(1, counted.all_users)
        lowest = np.where(counted.both[:, b] >= LEAST_USERS, lower_share(counted.both[:, b], counted.users), 0)
        a = int(np.argmax(lowest))
        if lowest[a] <= base:
            continue
        both, users = int(counted.both[a, b]), int(counted.users[a])
        share = both / users
        fact = (
            f"those who had {name(int(sources[a]))} then had this within {counted.span}: {_short(100 * share)} % "
            f"({both:,} of {users:,} users), {_short(share / base)} times as often as all users"
        )
        found[item] = Reason(fact, own.events_about(int(sources[a])))
    return found


def _short(number: float) -> str:
    return f"{number:.0f}" if number >= 9.95 else f"{number:.1f}"


@dataclass(frozen=True)
class Counted:
    """Users of a log, by what they had soon after what.

    users : int64 [A], who had an item of the history;  both : int64 [A, B], and then a shown one within the span
    ever  : int64 [B], who had a shown item within the span of anything;  all_users : who had anything
    """

    users: NDArray[np.int64]
    both: NDArray[np.int64]
    ever: NDArray[np.int64]
    all_users: int
    span: str


def counted_users(
    before: Sequences, sources: NDArray[np.int32], shown: NDArray[np.int32], catalogue: int, as_of: int, timed: bool
) -> Counted:
    """Users of the log by `sources` [A] and `shown` [B], ids below `catalogue`, over events before `as_of`."""
    columns = np.full((2, catalogue), -1, np.int32)  # of each item among sources, and shown
    columns[0, sources], columns[1, shown] = np.arange(len(sources)), np.arange(len(shown))
    span, length = usual_span(before) if timed else (_count(SPAN_EVENTS), SPAN_EVENTS)
    time = np.asarray(before["time"]) if timed else np.arange(before.events, dtype=np.int64)
    until = as_of if timed else np.iinfo(np.int64).max  # a model named by hand may have learned from later events
    users, both = np.zeros(len(sources), np.int64), np.zeros((len(sources), len(shown)), np.int64)
    ever = np.zeros(len(shown), np.int64)
    log = (before.offsets, time, np.asarray(before["item"]), np.asarray(before["role"]))
    everybody = _count_users(*log, columns[0], columns[1], until, length, users, both, ever)
    return Counted(users, both, ever, everybody, span)


@numba.njit(cache=True, nogil=True)
def _count_users(
    offsets: NDArray[np.int64],
    time: NDArray[np.int64],
    item: NDArray[np.int32],
    role: NDArray[np.uint8],
    source: NDArray[np.int32],
    shown: NDArray[np.int32],
    until: int,
    span: int,
    users: NDArray[np.int64],
    both: NDArray[np.int64],
    ever: NDArray[np.int64],
) -> int:  # pragma: no cover
    """Fill users [A], both [A, B] and ever [B]; returns all users. source, shown: int32 [items], a column or −1."""
    last_users, last_both, last_ever = np.full_like(users, -1), np.full_like(both, -1), np.full_like(ever, -1)
    everybody = 0
    for u in range(len(offsets) - 1):
        counted = False
        for n in range(offsets[u], offsets[u + 1]):
            if time[n] >= until:
                break
            if role[n] & POSITIVE == 0 or item[n] < FIRST:
                continue
            if not counted:
                everybody += 1
                counted = True
            a, b = source[item[n]], shown[item[n]]
            if a >= 0 and last_users[a] != u:
                last_users[a] = u
                users[a] += 1
            if b < 0:
                continue
            m = n - 1
            while m >= offsets[u] and time[n] - time[m] <= span:
                if time[m] < time[n] and role[m] & POSITIVE > 0 and item[m] >= FIRST:
                    if last_ever[b] != u:
                        last_ever[b] = u
                        ever[b] += 1
                    a = source[item[m]]
                    if a >= 0 and last_both[a, b] != u:
                        last_both[a, b] = u
                        both[a, b] += 1
                m -= 1
    return everybody


def usual_span(before: Sequences) -> tuple[str, int]:
    """The shortest of SPANS in which at least half of the users' returns fall, in words and in microseconds.

    A return is the first event of a session, its wait that since the event before.
    """
    end = min(SAMPLE, before.events)
    time, session = np.asarray(before["time"][:end]), np.asarray(before["session"][:end])
    returns = np.diff(session, prepend=0) > 0
    starts = before.offsets[:-1]
    returns[starts[starts < end]] = False
    waits = np.diff(time, prepend=0)[returns]
    median = float(np.median(waits)) if len(waits) else 0.0
    words, seconds = next((span for span in SPANS if span[1] * 1_000_000 >= median), SPANS[-1])
    return words, seconds * 1_000_000


def lower_share(hits: NDArray[np.int64], of: NDArray[np.int64]) -> NDArray[np.float64]:
    """The lower end of the interval of hits / of, Z standard errors wide to either side (Wilson 1927).

    >>> lower_share(np.array([3, 50]), np.array([3, 60])).round(2).tolist()
    [0.25, 0.65]
    """
    n = np.maximum(of, 1)
    share, square = hits / n, Z**2 / n
    middle, spread = share + square / 2, Z * np.sqrt(share * (1 - share) / n + square / (4 * n))
    return np.asarray((middle - spread) / (1 + square), np.float64)


def told(facts: Sequence[Reason]) -> tuple[list[str], list[int]]:
    """The words of some facts, and the ids behind them, each once."""
    return [fact.fact for fact in facts], list(dict.fromkeys(i for fact in facts for i in fact.evidence))
