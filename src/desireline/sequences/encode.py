"""Events under the ids of a prepared log: how a model reads any history, from the log, a file or a live request."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from desireline.events.clean import Limits, clean
from desireline.events.sessions import with_sessions
from desireline.schema.model import Schema
from desireline.sequences.prepare import category_fields, local_columns, number_fields
from desireline.sequences.prepared import Prepared
from desireline.sequences.ragged import Sequences


def encode_events(events: pl.DataFrame, prepared: Prepared) -> Sequences:
    """An event frame of whole users, in the order of `events.frame.ORDER`, as sequences under the log's ids.

    Cleaned by the same rules and limits as the prepared log; what is unknown gets id 1.
    """
    return encode_cleaned(cleaned(events, prepared), prepared)


def encode_with_ids(events: pl.DataFrame, prepared: Prepared) -> tuple[Sequences, NDArray[np.int64]]:
    """As `encode_events`, and int64 [N]: the id in the log of each event that cleaning leaves, in the same order."""
    rows = cleaned(events, prepared)
    return encode_cleaned(rows, prepared), rows["event_id"].to_numpy()


def cleaned(events: pl.DataFrame, prepared: Prepared) -> pl.DataFrame:
    """What cleaning by the prepared log's rules and limits leaves of an event frame of whole users."""
    return clean(events, prepared.schema.clean, Limits.from_json(prepared.counts["limits"])).events


def encode_cleaned(events: pl.DataFrame, prepared: Prepared) -> Sequences:
    """As `encode_events`, of events that are clean already: all of them, in their order."""
    schema: Schema = prepared.schema
    rows = with_sessions(events, schema.prepare.session_gap_s)
    codes: dict[str, NDArray[np.int32]] = {"item": prepared.vocabularies["item"].encode(rows["item"])}
    for name in category_fields(schema, "event"):
        codes[name] = prepared.vocabularies[f"field_{name}"].encode(rows[name])
    sequences = local_columns(rows, codes, schema)
    columns: dict[str, NDArray[Any]] = dict(sequences.columns)
    columns["value_bin"] = prepared.bins["value_bin"].encode(columns["value"])
    for name in number_fields(schema):
        columns[f"bin_{name}"] = prepared.bins[f"bin_{name}"].encode(columns[f"number_{name}"])
    return Sequences(sequences.users, sequences.offsets, columns)
