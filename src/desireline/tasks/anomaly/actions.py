"""What every account did, as a scan for fraud reads it: one row an event, in columns of small types.

Nothing is cleaned away but times that cannot be: what cleaning takes for a bot or a double click is what is looked for
here. Everything lies strictly before the moment of the question; what lies in the window before it is judged, what is
older tells what an account and an item used to do.

Cost: about 50 bytes an event beside its text, so ten million events need half a gigabyte.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import polars as pl

from desireline.events.clean import Limits
from desireline.events.cut import cut
from desireline.events.frame import ORDER, TIME
from desireline.events.histories import behaviour
from desireline.events.roles import Roles
from desireline.schema.model import Schema
from desireline.schema.names import plain
from desireline.schema.presets import ORDER_WORDS, RATING_WORDS, REVIEW_WORDS

COLUMNS: dict[str, pl.DataType | type[pl.DataType]] = {
    "account": pl.UInt32,  # row of `users`
    "item": pl.UInt32,  # row of `items`; null: about none
    "target": pl.UInt32,  # row of `targets`, who gains from the event: the seller if one is declared, else the item
    "time": TIME,
    "type": pl.UInt16,  # row of `types`
    "order": pl.Boolean,  # whether it is an order (a purchase)
    "returned": pl.Boolean,  # whether it takes something back (the role `negative`)
    "review": pl.Boolean,  # whether it is a review: of a type named like one, or with stars or words of its own
    "value": pl.Float64,  # null: none
    "rating": pl.Float64,  # stars; null: none
    "text": pl.String,  # a review's words; null: none
    "event_id": pl.Int64,  # in the log
    "inside": pl.Boolean,  # whether it lies in the window that is judged
}


@dataclass(frozen=True)
class Actions:
    """Events of A accounts before `end`, judged from `begin` on.

    events : frame with COLUMNS, ascending by account, then in the log's order
    users, items, targets : String Series, the values behind the codes;  types : the event types behind `type`
    step_us : the step of the log's clock in microseconds
    """

    events: pl.DataFrame
    users: pl.Series
    items: pl.Series
    targets: pl.Series
    types: Sequence[str]
    begin: datetime
    end: datetime
    step_us: int

    @property
    def judged(self) -> pl.DataFrame:
        """The events of the window."""
        return self.events.filter("inside")


def actions_of(events: pl.DataFrame, schema: Schema, limits: Limits, begin: datetime, end: datetime) -> Actions:
    """From an event frame; events at `end` or after it, or at impossible times, are left out."""
    kept = behaviour(cut(events, end)[0], schema)
    if limits.low is not None:
        kept = kept.filter(pl.col("time") >= limits.low)
    kept = kept.sort(ORDER)
    names, rating, text = schema.anomaly, rating_field(schema), text_field(schema)
    _, _, negative = Roles.of(schema).flags(kept)
    types = list(schema.types) + sorted(set(kept["event"].unique()) - set(schema.types))
    gains = pl.col("item") if names.seller is None else pl.coalesce(names.seller, "item")
    stars = pl.lit(None, pl.Float64) if rating is None else pl.col(rating)
    words = pl.lit(None, pl.String) if text is None else pl.col(text)
    coded, values = {}, {}
    for name, column in (("account", pl.col("user")), ("item", pl.col("item")), ("target", gains)):
        series = kept.select(column.alias(name)).to_series()
        values[name] = series.drop_nulls().unique().sort()
        coded[name] = _codes(series, values[name])
    kind = kept["event"].replace_strict(types, list(range(len(types))), return_dtype=pl.UInt16)
    frame = kept.select(
        coded["account"].alias("account"),
        coded["item"].alias("item"),
        coded["target"].alias("target"),
        "time",
        kind.alias("type"),
        order=pl.col("event").is_in(order_types(schema)),
        returned=pl.Series(negative),
        review=pl.col("event").is_in(review_types(schema)) | stars.is_not_null() | words.is_not_null(),
        value="value",
        rating=stars,
        text=words,
        event_id="event_id",
        inside=pl.col("time") >= pl.lit(begin).cast(TIME),
    )
    return Actions(frame, values["account"], values["item"], values["target"], types, begin, end, limits.resolution_us)


def _codes(series: pl.Series, values: pl.Series) -> pl.Series:
    """UInt32 places of a series' values in ascending `values`; null stays null."""
    return series.replace_strict(values, np.arange(len(values)), default=None, return_dtype=pl.UInt32)


def order_types(schema: Schema) -> list[str]:
    """The event types that are orders: as declared, else by their names, else all with the role `target`."""
    if schema.anomaly.orders is not None:
        return schema.anomaly.orders
    return [name for name in schema.types if plain(name) in ORDER_WORDS] or schema.types_with("target")


def review_types(schema: Schema) -> list[str]:
    """The event types that are reviews, by their names."""
    return [name for name in schema.types if plain(name) in REVIEW_WORDS]


def rating_field(schema: Schema) -> str | None:
    """The number field of events with a review's stars: as declared, else one named like it."""
    named = [n for n, field in schema.fields.items() if field.kind == "number" and field.of == "event"]
    return schema.anomaly.rating or next((n for n in named if plain(n) in RATING_WORDS), None)


def text_field(schema: Schema) -> str | None:
    """The text field of a review: as declared, else the first text field of events."""
    named = [n for n, field in schema.fields.items() if field.kind == "text" and field.of == "event"]
    return schema.anomaly.text or next(iter(named), None)
