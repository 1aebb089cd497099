"""What is found out of a log's health, before it is drawn or put into words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from desireline.events.estimate import Estimate
from desireline.events.limits import Limits
from desireline.events.order import Order


@dataclass(frozen=True)
class Facts:
    """All that `desireline check` says. Shares lie between 0 and 1, moments are ISO 8601.

    activity     : events of each hour, day or month (`period`, by the log's length), silent ones as zeros
    hours        : events of each hour of the day, in the schema's zone
    silent_days  : days without an event within the window; `gaps` the longest stretches of them
    clock        : the clock's step, shares of events at exact hours and at midnight, events in the future, the hour
                   at which the quietest five hours begin
    missing      : column -> share of events without a value
    quarantine   : reason -> rows that never came in
    outside      : events before the window of possible times, and after it
    repeated     : events that equal another in user, time, type and item, whether cleaning takes them or not
    removed      : rule -> events that cleaning leaves out; `rules` says each in words
    bots         : the busiest users left out as bots -> their events
    lengths      : quantile -> events of a user, after cleaning
    repeat_share : of targets on an item, those on an item that was a target before; None: no such targets
    """

    events: int
    users: int
    items: int
    first: str
    last: str
    types: dict[str, int]
    period: str
    activity: list[tuple[str, int]]
    hours: list[int]
    silent_days: int
    gaps: list[dict[str, Any]]
    clock: dict[str, Any]
    missing: dict[str, float]
    quarantine: dict[str, int]
    outside: dict[str, int]
    repeated: int
    removed: dict[str, int]
    rules: dict[str, str]
    clipped: int
    bots: dict[str, int]
    lengths: dict[str, int]
    targets: int
    repeat_share: float | None
    order: Order
    prepare: Estimate
    epoch: Estimate
    limits: Limits
