"""What cleaning measures against: the log's window in time, its clock, and a fence for values.

Fitted in one streamed pass over histograms (hours of time, steps of a logarithm), so memory does not grow with the log,
and robust: no small number of wild rows moves them. Callers pass the events before the cut only; what comes after the
cut can then change nothing, and is itself cleaned by the same limits.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from desireline.schema.model import CleanSettings

SECOND = 1_000_000  # microseconds
HOUR = 3600 * SECOND
DAY = 24 * HOUR
CLOCKS = {DAY: "day", HOUR: "hour", 60 * SECOND: "minute", SECOND: "second", 1000: "millisecond", 1: "microsecond"}
POSITIONS_END = datetime(1971, 1, 1, tzinfo=UTC)  # no log was kept then: such "times" are positions in a sequence
TAIL = 0.005  # of the events on either side of the core
CLIFF = 0.05  # a step outwards that holds less than so much of the step before it ends the window
ENOUGH = 20  # events in a step, before its neighbour's emptiness says anything
STEPS_PER_E = 32  # of the values' histogram, one step is 3 %
FENCE = 3.0  # Tukey's outer fence
LEAST_VALUES = 100  # fewer tell nothing about a tail


@dataclass(frozen=True)
class Limits:
    """What `clean` compares events with.

    low, high     : the window of possible times; None: no limit
    clock         : False when the log has positions and no times
    resolution_us : the step of the log's clock in microseconds (60,000,000: whole minutes)
    fences        : event type -> largest plausible magnitude of a value
    """

    low: datetime | None = None
    high: datetime | None = None
    clock: bool = True
    resolution_us: int = 1
    fences: dict[str, float] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """A JSON object; `from_json` reads it."""
        return asdict(self) | {"low": self.low and self.low.isoformat(), "high": self.high and self.high.isoformat()}

    @staticmethod
    def from_json(raw: dict[str, Any]) -> Limits:
        """The inverse of `to_json`."""
        moments = {key: datetime.fromisoformat(raw[key]) if raw[key] else None for key in ("low", "high")}
        return Limits(**(raw | moments))


def fit_limits(events: pl.LazyFrame, settings: CleanSettings) -> Limits:
    """Measure a log.

    Parameters
    ----------
    events
        Event frame, those before the cut only; the columns `time`, `event` and `value` are read, in one streamed pass.
    settings
        The rules that are on; a rule that is off costs nothing and yields no limit.

    Returns
    -------
    Limits
        Without any limit for an empty log.

    Notes
    -----
    The core of the log lies between its 0.5 % and 99.5 % quantiles of time. From its lower end we walk outwards in
    steps of 5 % of its span (a day at least; up to the whole span in a log of few events, where silence means little),
    one at least, until a step holds less than 5 % of the events of the step before, or, where there are only a few,
    half the span is silent: there the window ends. So a log that grew slowly keeps its early days, and rows that stand
    apart, or are sprinkled thinly before a beginning, are outside.
    Upwards the limit is ten spans, ten years at least, since time goes on after the cut; it is there for 2038 and its
    like. Values: the outer Tukey fence, three interquartile ranges above the upper quartile of log |value|.
    """
    micro = pl.col("time").cast(pl.Int64)
    clocks = [(micro % unit == 0).sum().alias(name) for unit, name in CLOCKS.items()]
    hours = events.select("time").group_by(at=micro // HOUR).agg(pl.len().cast(pl.Int64).alias("n"), *clocks)
    magnitude = (pl.col("value").abs().log() * STEPS_PER_E).floor().cast(pl.Int32)
    usable = pl.col("value").is_finite() & (pl.col("value") != 0)
    steps = (
        events.select("event", "value").filter(usable).group_by("event", step=magnitude).agg(n=pl.len().cast(pl.Int64))
    )
    queries = [hours, steps] if settings.extreme_values else [hours]
    histogram, *values = pl.collect_all(queries, engine="streaming")
    if histogram.height == 0:
        return Limits()
    histogram = histogram.sort("at")
    clock = _quantile(histogram["at"].to_numpy(), histogram["n"].to_numpy(), 0.5) * HOUR >= _micro(POSITIONS_END)
    low, high = _window(histogram) if clock and settings.impossible_times else (None, None)
    return Limits(low, high, bool(clock), _resolution(histogram), _fences(values[0]) if values else {})


def _micro(moment: datetime) -> int:
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def _moment(hour: float) -> datetime | None:
    """The start of an hour counted from 1970; None where the calendar has none."""
    try:
        return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(hours=math.floor(hour))
    except OverflowError:
        return None


def _quantile(values: NDArray[Any], counts: NDArray[Any], share: float) -> int:
    """The smallest value that at least `share` of the weight does not exceed; `values` ascending."""
    return int(values[np.searchsorted(np.cumsum(counts), share * counts.sum())])


def _resolution(histogram: pl.DataFrame) -> int:
    total = int(histogram["n"].sum())
    return next(unit for unit, name in CLOCKS.items() if histogram[name].sum() >= 0.999 * total)


def _window(histogram: pl.DataFrame) -> tuple[datetime | None, datetime | None]:
    hours, counts = histogram["at"].to_numpy(), histogram["n"].to_numpy()
    total = int(counts.sum())
    tail = max(TAIL, min(3.0, total // 10) / total)  # three wild rows in a small log are still wild
    first, last = _quantile(hours, counts, tail), _quantile(hours, counts, 1 - tail)
    span = last - first + 1
    step = max(24, math.ceil(span * max(0.05, min(1.0, 50 / total))))
    reach = max(step, span // 2)

    def events(start: int, end: int) -> int:
        return int(counts[(hours >= start) & (hours < end)].sum())

    inner, edge, here = events(first, first + step), first, events(first - step, first)
    while edge > hours[0]:
        cliff = here < CLIFF * inner if inner >= ENOUGH else events(edge - reach, edge) == 0
        if cliff and edge < first:
            break
        edge -= step  # the first step always belongs to the window: near is not far outside
        if cliff:
            break
        inner, here = here, events(edge - step, edge)
    return _moment(edge), _moment(last + 1 + max(10 * span, 24 * 3653))


def _fences(steps: pl.DataFrame) -> dict[str, float]:
    fences = {}
    for (event,), part in sorted(steps.sort("step").group_by("event"), key=lambda pair: str(pair[0])):
        step, counts = part.sort("step")["step"].to_numpy(), part.sort("step")["n"].to_numpy()
        low, high = (_quantile(step, counts, share) for share in (0.25, 0.75))
        if counts.sum() >= LEAST_VALUES and high > low:  # without a spread there is no scale to call a value extreme on
            fences[str(event)] = math.exp((high + 1 + FENCE * (high - low)) / STEPS_PER_E)
    return fences
