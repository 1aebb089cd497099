"""A log's health on one screen: figures, small plots of block characters, and what to look at, in words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from desireline.events.health_facts import Facts
    from desireline.events.order import Comparison

BLOCKS = " ▁▂▃▄▅▆▇█"
WIDTH = 60  # characters of a plot


def sparkline(values: Sequence[float], width: int = WIDTH) -> str:
    """Bars of block characters, the highest full; neighbouring values are summed until they fit the width.

    Examples
    --------
    >>> sparkline([0, 1, 4, 8])
    ' ▁▄█'
    """
    if not values:
        return ""
    each = math.ceil(len(values) / width)
    sums = [sum(values[i : i + each]) for i in range(0, len(values), each)]
    top = max(sums)
    return "".join(BLOCKS[math.ceil(8 * value / top)] if top > 0 else BLOCKS[0] for value in sums)


def notes(health: Facts) -> list[str]:
    """What a person should look at, each with what to do."""
    clock, events = health.clock, health.events
    found = []
    if not clock["has_times"]:
        found.append("Times are positions: order counts, waiting times and churn mean nothing here.")
    else:
        found += _time_notes(health)
    unseen = sum(health.quarantine.values())
    if unseen > 0.01 * (events + unseen):
        found.append(
            f"{unseen:,} rows are in quarantine ({_share(unseen, events + unseen)}): the schema may not fit them."
        )
    if health.removed["duplicate"] == 0 and health.repeated:
        found.append(
            f"{health.repeated:,} events equal another in user, time, type and item and stay: the clock's step is a "
            f"{clock['step']}, so they may be lines of one basket."
        )
    for rule, n in health.removed.items():
        if n > 0.01 * events:
            found.append(f"Cleaning leaves out {n:,} events ({_share(n, events)}), rule {rule}: {health.rules[rule]}.")
    if health.clipped > 0.01 * events:
        found.append(f"{health.clipped:,} values are clipped: clean.extreme_values may not suit this log.")
    empty = [name for name, share in health.missing.items() if share == 1]
    if empty:
        found.append(f"Never filled: {', '.join(empty)}. Take them out of the schema, or map another column.")
    if health.targets == 0:
        found.append("No event is a target: give a type the role `target` in desireline.yaml.")
    if health.lengths and health.lengths["0.5"] < 3:
        found.append("Half of the users have fewer than 3 events: little can be learnt of their order.")
    if health.repeat_share is not None and health.repeat_share > 0.3:
        found.append(
            f"{health.repeat_share:.0%} of targets repeat an item: a user's own items will be a strong baseline."
        )
    return found


def _time_notes(health: Facts) -> list[str]:
    clock, found = health.clock, []
    if clock["future"]:
        found.append(f"{clock['future']:,} events lie in the future: a wrong clock, or a wrong time.format.")
    if sum(health.outside.values()):
        found.append(
            f"{health.outside['before']:,} events before the window and {health.outside['after']:,} after it: "
            "the rule impossible_times leaves them out."
        )
    if clock["step"] != "day" and clock["midnights"] > 0.05:
        found.append(f"{clock['midnights']:.0%} of events are at midnight: some sources seem to know the day only.")
    elif clock["step"] not in ("day", "hour") and clock["exact_hours"] > 0.2:
        found.append(f"{clock['exact_hours']:.0%} of events are at exact hours: some times are rounded.")
    quiet = (clock["quietest_from"] + 2) % 24  # the middle
    if clock["step"] not in ("day",) and _has_night(health.hours) and not (quiet <= 7 or quiet >= 22):
        shift = (quiet - 3) % 24
        shift = shift - 24 if shift > 12 else shift
        found.append(
            f"The quietest hours are around {quiet}:00 in {clock['zone']}: if people sleep then, the times' zone is "
            f"off by about {abs(shift)} h; check time.zone."
        )
    for gap in health.gaps[:1]:
        if gap["days"] > 3:
            found.append(f"No event for {gap['days']} days after {gap['after']}: is a file missing?")
    return found


def _has_night(hours: list[int]) -> bool:
    """Whether activity falls off over one stretch: a flat day, or one with two quiet times, says nothing of zones."""
    total, window = sum(hours), [sum(hours[(h + i) % 24] for i in range(5)) for h in range(24)]
    return sum(n > 0 for n in hours) >= 18 and min(window) < 0.3 * total * 5 / 24


def screen(health: Facts) -> RenderableType:
    """The whole as something that rich prints."""
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="bold", no_wrap=True)
    facts.add_column()
    for name, value in _facts(health):
        facts.add_row(name, value)
    parts: list[RenderableType] = [facts]
    remarks = notes(health)
    if remarks:
        parts.append(Text("\n".join(["", *(f"! {note}" for note in remarks)]), style="yellow"))
    return Panel(Group(*parts), title="health of the log", title_align="left")


def _facts(health: Facts) -> list[tuple[str, str]]:
    h, clock = health, health.clock
    types = "  ".join(f"{name} {n:,} ({_share(n, h.events)})" for name, n in list(h.types.items())[:6])
    rows = [
        ("log", f"{h.events:,} events   {h.users:,} users   {h.items:,} items"),
        ("types", types),
    ]
    if clock["has_times"]:
        longest = "; ".join(f"{g['days']} d after {g['after']}" for g in h.gaps) or "none of two days"
        rows += [
            ("span", f"{h.first[:16]} to {h.last[:16]}   clock: {clock['step']}s, {clock['zone']}"),
            (f"by {h.period}", sparkline([n for _, n in h.activity])),
            ("by hour", f"{sparkline(h.hours)}  0 to 23 h"),
            ("silence", f"{h.silent_days:,} days without events; longest: {longest}"),
            ("clock", f"{clock['exact_hours']:.1%} at exact hours, {clock['midnights']:.1%} at midnight"),
            ("future", f"{clock['future']:,} events"),
            ("outside", f"{h.outside['before']:,} before the window, {h.outside['after']:,} after it"),
        ]
    left_out = "  ".join(f"{rule} {n:,}" for rule, n in h.removed.items() if rule in h.rules)
    missing = "  ".join(f"{name} {share:.1%}" for name, share in h.missing.items())
    kept_out = "  ".join(f"{reason}: {n:,}" for reason, n in sorted(h.quarantine.items(), key=lambda p: -p[1])[:4])
    lengths = "  ".join(f"{_quantile_name(q)} {n:,}" for q, n in h.lengths.items())
    rows += [
        ("quarantine", kept_out or "empty"),
        ("cleaning", f"{left_out}   clipped {h.clipped:,}" if h.rules else "off"),
        ("missing", missing),
        ("lengths", lengths),
        ("repeats", _repeats(h)),
        ("order", f"next item, HR@10: {_comparison(h.order.item)}"),
        ("", f"next type, log-loss: {_comparison(h.order.type)}"),
        (
            "prepare",
            f"about {_time(h.prepare.seconds)}, {h.prepare.memory_mib:,.0f} MiB; disk {h.prepare.disk_mib:,.0f} MiB",
        ),
        ("training", f"about {_time(h.epoch.seconds)} an epoch, {h.epoch.memory_mib:,.0f} MiB"),
    ]
    return rows


def _repeats(health: Facts) -> str:
    if health.repeat_share is None:
        return "no targets on items"
    return f"{health.repeat_share:.1%} of {health.targets:,} targets are on an item that the user had before"


def _comparison(found: Comparison | None) -> str:
    if found is None:
        return "too few events"
    verdict = "order helps" if found.low > 0 else "order does not help" if found.high < 0 else "no clear difference"
    return (
        f"{found.true:.3f}, shuffled {found.shuffled:.3f} "
        f"(gain {found.difference:+.3f}, {found.low:+.3f} to {found.high:+.3f}): {verdict}"
    )


def _quantile_name(quantile: str) -> str:
    return {"0": "least", "0.5": "median", "1": "most"}.get(quantile, f"{float(quantile):.0%}")


def _share(n: int, of: int) -> str:
    return f"{n / of:.1%}"


def _time(seconds: float) -> str:
    return (
        f"{seconds:.0f} s"
        if seconds < 120
        else f"{seconds / 60:.0f} min"
        if seconds < 7200
        else f"{seconds / 3600:.1f} h"
    )
