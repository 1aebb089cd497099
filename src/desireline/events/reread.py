"""Whether a source is in the log already, read under another mapping: stored again, its events would stand there twice.

An event's id is its content as the schema maps it, so under another mapping the same row is another event. Beside its
events the log keeps the mappings that it was read under, and nothing of its sources. Where one of them is not today's,
a source's first rows are read under both: what the log holds of them under the earlier one is looked up by its ids.
So a file is known again by its events, under any name, packed or not, longer than it was, or from a database; another
file is not, though it has the old one's name; and a change that gives the stored events the same ids (a rule for rows
for which none held) is let through. It costs nothing while the mapping stays as it is, else the reading of a source's
first rows once for each earlier mapping. A mapping is kept before the first event under it: one too many does no harm.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl
from pydantic import ValidationError

from desireline.core.errors import DesirelineError, SchemaError, StoreError
from desireline.core.files import read_json, write_json
from desireline.events.chunk import Source
from desireline.events.identity import NONE_KNOWN, Ids, content_columns, contents, identify, within
from desireline.schema.mapping import map_rows
from desireline.schema.model import AliasSpec, EventSpec, FieldSpec, Schema, TimeSpec

FILE = "_mappings.json"  # in DIR/log, to go with it; Delta's readers and its clean-up pass over names with a _
FIRST_ROWS = 200_000  # of a source, by which it is known again
SAME = 0.1  # share of them that the log holds, from which the source is taken for one that was ingested

Mapping = dict[str, Any]


def mapping_of(schema: Schema) -> Mapping:
    """What of a schema decides what a row becomes, and which event it is."""
    fields = [{"name": name, "column": field.column, "kind": field.kind} for name, field in schema.fields.items()]
    return {
        "user": schema.user,
        "time": schema.time.model_dump(),
        "event": schema.event.model_dump(),
        "item": schema.item,
        "value": schema.value,
        "event_id": schema.event_id,
        "alias": schema.alias.model_dump() if schema.alias else None,
        "fields": fields,  # in their order, which the ids depend on
    }


def keep_mapping(log: Path, schema: Schema) -> None:
    """Remember that events of the log were read under a schema; called by who holds the workspace's write lock."""
    kept, mapping = _kept(log), mapping_of(schema)
    if mapping not in kept:
        write_json(log / FILE, {"mappings": [*kept, mapping]})


def refuse_reread(log: Path, schema: Schema, sources: Sequence[Source], known: Ids) -> None:
    """Raise SchemaError for the first source whose events the log holds as another mapping read them.

    known : the ids of all stored events, ascending
    """
    today = mapping_of(schema)
    earlier = [mapping for mapping in _kept(log) if mapping != today] if len(known) else []
    if not earlier:
        return
    for source in sources:
        for mapping in reversed(earlier):
            old = _schema_under(mapping, schema, log)
            held, read = _read_otherwise(source, old, schema, known)
            if held:
                same_ids = schema.event_id is not None and schema.event_id == old.event_id
                outcome = "keep them as they are" if same_ids else "hold them twice"
                raise SchemaError(
                    f"{source.name} is in the log already, read under another mapping: "
                    f"{_differences(mapping, today)}. The log holds {held:,} of its first {read:,} events, and would "
                    f"{outcome}; nothing was stored. To read everything anew, delete "
                    f"{log} and {log.parent / 'quarantine'} and ingest all sources again (the rest is made again from "
                    "the log); or put the mapping back in desireline.yaml, or start another workspace."
                )


def _kept(log: Path) -> list[Mapping]:
    path = log / FILE
    if not path.exists():  # nothing stored yet, or by a version that did not keep them
        return []
    try:
        return list(read_json(path)["mappings"])
    except (KeyError, TypeError) as error:
        raise _damaged(path) from error


def _damaged(path: Path) -> StoreError:
    return StoreError(f"{path} is damaged: it lists no mappings. Delete it; no event is lost with it.")


def _schema_under(mapping: Mapping, schema: Schema, log: Path) -> Schema:
    """The schema with an earlier mapping in it, and what decides nothing of an id left out."""
    try:
        changed = {
            **{key: mapping[key] for key in ("user", "item", "value", "event_id")},
            "time": TimeSpec(**mapping["time"]),
            "event": EventSpec(**mapping["event"]),
            "alias": AliasSpec(**mapping["alias"]) if mapping["alias"] else None,
            "fields": {f["name"]: FieldSpec(column=f["column"], kind=f["kind"]) for f in mapping["fields"]},
            "unknown_types": "keep",  # types that are no longer named
            "tie_break": "row",
        }
    except (KeyError, TypeError, ValidationError) as error:
        raise _damaged(log / FILE) from error
    return schema.model_copy(update=changed)


def _read_otherwise(source: Source, old: Schema, new: Schema, known: Ids) -> tuple[int, int]:
    """How many of the first rows the log holds as events under `old`, and of how many; 0 where nothing is amiss.

    Nothing is amiss where they are too few to be the same source, or come to the same events under `new`.
    """
    columns = list(dict.fromkeys([*old.source_columns(), *new.source_columns()]))
    try:
        chunk = next(source.chunks(columns, FIRST_ROWS))
        before = map_rows(chunk.frame, old, chunk.numbers).events
        now = map_rows(chunk.frame, new, chunk.numbers).events
    except (DesirelineError, StopIteration):  # it has not the columns of both, or cannot be read, as ingest will say
        return 0, 0
    names = content_columns(old)
    found, _ = identify(before, None if old.event_id else names, NONE_KNOWN, known)
    stored = pl.Series(within(found.ids, known))
    held = int(stored.sum())
    if held == 0 or held < SAME * before.height:
        return 0, 0
    was = before.select("row", was=pl.Series(contents(before, names))).filter(stored)
    both = was.join(now.select("row", now=pl.Series(contents(now, content_columns(new)))), on="row")
    others = both.filter(pl.col("was") != pl.col("now")).height if old.event_id == new.event_id else both.height
    return (held, before.height) if others else (0, 0)


def _differences(old: Mapping, new: Mapping) -> str:
    """What changed from one mapping to another, in the keys of desireline.yaml."""
    was, now = _flat(old), _flat(new)
    names = [name for name in dict.fromkeys([*was, *now]) if was.get(name) != now.get(name)]
    told = [f"{name} was {_shown(was.get(name))} and is {_shown(now.get(name))}" for name in names]
    return "; ".join(told) or "the fields stand in another order"


def _flat(mapping: Mapping) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in mapping.items():
        if isinstance(value, dict):
            flat |= {f"{key}.{part}": inner or None for part, inner in value.items()}
        elif key == "fields":
            flat |= {f"fields.{f['name']}": {"column": f["column"], "kind": f["kind"]} for f in value}
        else:
            flat[key] = value
    return flat


def _shown(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
