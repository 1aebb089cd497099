"""Which events are positive, targets or negative, for a whole frame and for one event, by one rule."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from desireline.events.frame import frame_schema
from desireline.schema.expression import compile_condition
from desireline.schema.model import Schema


@dataclass(frozen=True)
class Roles:
    """The roles of event types, and the expression that overrides them.

    An event is positive where the schema's `positive` holds, or, without that, by its type; a target by its type, and
    only where `positive` holds too, if declared; negative by its type.
    """

    positive: frozenset[str]
    target: frozenset[str]
    negative: frozenset[str]
    condition: pl.Expr | None
    columns: dict[str, pl.DataType]  # of the event frame, for the condition

    @staticmethod
    def of(schema: Schema) -> Roles:
        """The roles that a schema declares. Raises SchemaError when `positive` is no condition over an event."""
        columns = dict(pl.DataFrame(schema=frame_schema(schema)).schema)
        condition = None
        if schema.positive:
            condition = compile_condition(schema.positive, columns, "desireline.yaml, positive")
        return Roles(
            frozenset(schema.types_with("positive")),
            frozenset(schema.types_with("target")),
            frozenset(schema.types_with("negative")),
            condition,
            columns,
        )

    def flags(self, events: pl.DataFrame) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.bool_]]:
        """Boolean [N] each: positive, target, negative."""
        by_type = [pl.col("event").is_in(sorted(names)) for names in (self.positive, self.target, self.negative)]
        if self.condition is not None:
            by_type[:2] = [self.condition, by_type[1] & self.condition]
        frame = events.select(*(flag.fill_null(False).alias(str(i)) for i, flag in enumerate(by_type)))
        positive, target, negative = (column.to_numpy() for column in frame)
        return positive, target, negative

    def of_event(self, event: Mapping[str, Any]) -> tuple[bool, bool, bool]:
        """Whether one event is positive, a target, negative."""
        kind = event["event"]
        if self.condition is None:
            return kind in self.positive, kind in self.target, kind in self.negative
        row = pl.DataFrame({name: [event.get(name)] for name in self.columns}, schema=self.columns)
        positive = bool(row.select(self.condition.fill_null(False)).item())
        return positive, positive and kind in self.target, kind in self.negative
