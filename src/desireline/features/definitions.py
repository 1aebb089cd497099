"""Every feature of a user, declared once: name, unit, meaning, and the two whole numbers that it is the ratio of.

A feature is `top / (per * scale)`, or the root of `top` in its place, where `top` and `per` name *statistics*: integers
that both forms count, the batch form over arrays (`batch.py`), the live form event by event (`live.py`). Times are
microseconds, money is in millionths, entropies are sums of a table of integers; so nothing is added up in floating
point, the order of addition cannot matter, and the two forms agree to the bit. A new feature of known statistics is
one line here; a new statistic is one line in each form.

Windows are [as_of - w, as_of). Days, hours and weekdays are those of the schema's time zone.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from desireline.features.entropy import ENTROPY_ONE
from desireline.schema.model import Schema

DAY_US = 86_400_000_000
SECOND_US = 1_000_000
MONEY_ONE = 1_000_000  # money is counted in millionths
WINDOWS = {"1d": 1, "7d": 7, "30d": 30, "90d": 90}  # name -> days
HOURS = ("00_04", "04_08", "08_12", "12_16", "16_20", "20_24")
WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


@dataclass(frozen=True)
class Feature:
    """One number about a user as of a moment; null where `per` is zero or a statistic is missing."""

    name: str
    unit: str
    meaning: str
    group: str
    top: str
    per: str | None = None
    scale: float = 1.0
    root: bool = False

    def values(self, statistics: Mapping[str, NDArray[np.float64]]) -> NDArray[np.float64]:
        """The feature of many users; nan where there is none. Numpy divides exactly, polars by a reciprocal."""
        top, per = statistics[self.top], 1.0 if self.per is None else statistics[self.per]
        with np.errstate(divide="ignore", invalid="ignore"):
            divided = (np.sqrt(top) if self.root else top) / (per * self.scale)
        return np.where(per == 0, np.nan, divided)

    def value(self, statistics: Mapping[str, int | None]) -> float:
        """The feature of one user; nan where there is none."""
        top, per = statistics[self.top], 1 if self.per is None else statistics[self.per]
        if top is None or per is None or per == 0:
            return math.nan
        return (math.sqrt(float(top)) if self.root else float(top)) / (float(per) * self.scale)


def _table(*features: Feature) -> dict[str, Feature]:
    return {feature.name: feature for feature in features}


def _windowed(name: str, unit: str, meaning: str) -> list[Feature]:
    inside = [
        Feature(f"{name}_{window}", unit, f"{meaning} in the last {days} d", "activity", f"{name}_{window}")
        for window, days in WINDOWS.items()
    ]
    return [*inside, Feature(name, unit, f"{meaning}, ever", "activity", name)]


def _since(what: str, meaning: str) -> Feature:
    return Feature(f"days_since_{what}", "days", f"time since the {meaning}", "recency", f"age_{what}", scale=DAY_US)


def _dwell(name: str, unit: str, meaning: str, top: str, per: str, scale: float = 1.0) -> Feature:
    return Feature(name, unit, meaning, "dwell", top, per, scale)


def _gaps(name: str, meaning: str, top: str, per: str | None = None, root: bool = False) -> Feature:
    return Feature(name, "days", meaning, "frequency", top, per, root=root)


def _money(name: str, meaning: str, per: str | None = None) -> Feature:
    return Feature(name, "value", meaning, "money", name if per is None else "money", per, MONEY_ONE)


def _profile(name: str, parts: Iterable[str], meaning: str) -> list[Feature]:
    return [Feature(f"{name}_{p}", "share", meaning.format(p), "rhythm", f"{name}_{p}", "events") for p in parts]


DEFINITIONS: dict[str, Feature] = _table(
    *_windowed("events", "events", "events"),
    *_windowed("active_days", "days", "days with an event"),
    *_windowed("sessions", "sessions", "sessions with an event"),
    *_windowed("targets", "events", "target events"),
    _since("first", "first event"),
    _since("last", "last event"),
    _since("positive", "last positive event"),
    _since("target", "last target event"),
    _dwell("dwell_mean_s", "seconds", "mean gap to the session's next event", "dwell_us", "dwells", SECOND_US),
    _dwell("dwell_censored_share", "share", "events that end a session: their dwell is unseen", "sessions", "events"),
    _dwell("session_length_mean_s", "seconds", "mean time from first event to last", "dwell_us", "sessions", SECOND_US),
    _dwell("session_events_mean", "events", "mean events of a session", "events", "sessions"),
    _gaps("target_days", "days with a target event", "target_days"),
    _gaps("target_gap_mean_d", "mean gap between neighbouring days with a target", "target_gap_sum", "target_gaps"),
    _gaps("target_gap_std_d", "population deviation of these gaps", "target_gap_spread", "target_gaps", root=True),
    _gaps("target_gap_last_d", "the latest of these gaps", "target_gap_last"),
    _money("money_30d", "value of target events in the last 30 d"),
    _money("money_90d", "value of target events in the last 90 d"),
    _money("money", "value of target events, ever"),
    _money("money_mean", "mean value of the target events that have one", "valued"),
    _money("money_negative", "magnitude of the value of negative events, ever"),
    Feature(
        "money_trend",
        "value/day",
        "target value a day in the last 30 d less that in the 60 d before",
        "money",
        "money_trend",
        scale=60 * MONEY_ONE,
    ),
    *_profile("hour", HOURS, "events in the hours {}"),
    *_profile("weekday", WEEKDAYS, "events on {}"),
    Feature("repeat_ratio", "share", "targets on an item that was one before", "ratios", "repeats", "item_targets"),
    Feature("cancel_ratio", "ratio", "negative events to target events", "ratios", "negatives", "targets"),
)
"""The features that every schema has; `definitions` adds those of its items, categories and event types."""


def definitions(schema: Schema) -> dict[str, Feature]:
    """All features under a schema, in the order of their columns.

    Examples
    --------
    >>> from desireline.schema.model import EventSpec, EventType
    >>> shop = Schema(event=EventSpec(constant="buy"), types={"buy": EventType(roles=["target"])})
    >>> [name for name in definitions(shop) if name not in DEFINITIONS]
    ['distinct_item', 'entropy_item', 'share_of_buy']
    """
    more = []
    for name in counted_columns(schema):
        what, distinct, entropy = (
            "items" if name == "item" else f"values of {name}",
            f"distinct_{name}",
            f"entropy_{name}",
        )
        more += [
            Feature(distinct, "values", f"different {what}", "diversity", distinct),
            Feature(entropy, "nats", f"entropy over {what}", "diversity", entropy, f"present_{name}", ENTROPY_ONE),
        ]
    for name in schema.types:
        more.append(Feature(f"share_of_{name}", "share", f"events of type {name}", "mix", f"type_{name}", "events"))
    return DEFINITIONS | _table(*more)


def counted_columns(schema: Schema) -> list[str]:
    """The columns whose values are counted: the item and each category field."""
    return ["item", *(name for name, field in schema.fields.items() if field.kind == "category")]
