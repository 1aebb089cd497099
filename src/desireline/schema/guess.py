"""Guess a schema from a sample of a file, and say in words what was guessed.

Names decide first (`presets.py`), what stands in the columns second. A guess that the sample cannot settle (a date that
fits both day-first and month-first, two columns that could be the user) is taken all the same, named, and marked.
"""

from __future__ import annotations

import re

import polars as pl

from desireline.core.errors import SchemaError
from desireline.schema.guess_fields import guess_fields
from desireline.schema.guess_time import guess_time
from desireline.schema.guess_types import guess_event
from desireline.schema.model import PrepareSettings, Schema
from desireline.schema.names import plain
from desireline.schema.presets import PRESETS, domain_of
from desireline.schema.sample import Guess, Note, Sample

__all__ = ["Guess", "Note", "guess"]


def guess(sample: pl.DataFrame, name: str, preset: str | None = None) -> Guess:
    """Guess the schema of an event log.

    Parameters
    ----------
    sample
        Rows of the file with its columns as they were read: the first hundred thousand will do, all are welcome.
    name
        The file's name, for messages.
    preset
        `retail`, `finance`, `health` or `education`; by default the one whose columns these most look like.

    Returns
    -------
    Guess
        The schema, and a note for every guess under the dotted key that it stands at.

    Raises
    ------
    SchemaError
        The sample has no rows, the preset is unknown, or nothing in it looks like an event.

    Examples
    --------
    >>> log = pl.DataFrame({"UserID": [1, 2], "ts": [1511544070, 1511561733], "action": ["pv", "buy"]})
    >>> found = guess(log, "log.csv")
    >>> found.schema.user, found.schema.time.format, list(found.schema.types)
    ('UserID', 'epoch_s', ['pv', 'buy'])
    """
    if preset is not None and preset not in PRESETS:
        raise SchemaError(f'There is no preset "{preset}"; choose one of {", ".join(PRESETS)}.')
    _check_table(sample, name)
    domain = preset or domain_of(sample.columns)
    view = Sample.of(sample, PRESETS[domain])
    view.note("preset", f"{'given' if preset else 'by the names of the columns'}: {domain}")
    view.leave_out_indices()
    user = _user(view)
    time, tie_break = guess_time(view)
    item = _item(view)
    event_id = _event_id(view)
    event = guess_event(view, has_item=item is not None)
    if user is None:
        _check_events(view, name, time.column, item, event.source)
    elif time.column is None and item is None and event.source is None and event.value is None:
        raise SchemaError(
            f"{name} has a user ({user}) but no time, item, event type or value: it is a list of users. "
            f"An event log is needed. The columns are: {_list(sample.columns)}."
        )
    fields = guess_fields(view, item)
    gap = PRESETS[domain].session_gap_s
    view.note("prepare.session_gap_s", f"usual for {domain}")
    schema = Schema(
        preset=domain,
        user=user,
        time=time,
        event=event.spec,
        item=item,
        value=event.value,
        event_id=event_id,
        fields=fields,
        types=event.types,
        tie_break=tie_break,
        prepare=PrepareSettings(session_gap_s=gap),
    )
    return Guess(schema, view.notes)


def _check_table(sample: pl.DataFrame, name: str) -> None:
    if sample.width == 0 or sample.is_empty():
        raise SchemaError(f"{name} has no rows to guess from; give a file with events in it.")
    if sample.width == 1 and any(sign in sample.columns[0] for sign in ";\t|,"):
        raise SchemaError(
            f'{name} has one column, "{sample.columns[0][:80]}": its delimiter was not recognised. '
            "Save it with commas or tabs between the columns."
        )
    numbers = [column for column in sample.columns if re.fullmatch(r"-?\d+(?:\.\d+)?", column)]
    if len(numbers) >= max(2, sample.width / 2):
        raise SchemaError(
            f"{name} seems to have no header: its columns would be called {_list(sample.columns)}. "
            "Add a first line with names, as user_id,item_id,event_type,timestamp."
        )


def _check_events(view: Sample, name: str, time: str | None, item: str | None, event: str | None) -> None:
    """Without a user a table is a log only if rows happen: they have times, types, or are reviews of repeated items."""
    if time is not None or event is not None:
        return
    wordy = [c for c in view.columns if c.is_text and c.mean_length >= 60]
    if item is None:
        wordy = [c for c in wordy if plain(c.name).endswith(view.preset.columns["text"])]
    elif view.column(item).distinct == view.column(item).filled:
        wordy = []
    if wordy:
        return
    raise SchemaError(
        f"{name} has no column that could be a user, a time or an event type: it looks like a table of items. "
        f"An event log is needed. The columns are: {_list([c.name for c in view.columns])}. "
        "If one of them is the user, write desireline.yaml by hand."
    )


def _user(view: Sample) -> str | None:
    found = view.named("user")
    if not found:
        endings = ("userid", "customerid", "clientid", "memberid", "visitorid", "studentid", "patientid", "用户id")
        found = [c for c in view.free if plain(c.name).endswith(endings)]
    weak = not found
    found = [c for c in found or view.named("session") if not c.is_fraction and c.filled]
    if not found:
        view.note("user", "no column looks like a user: every row is a user of its own, with one event", True)
        return None
    chosen = view.take(found[0])
    if weak:
        view.note("user", f"no user's column; {chosen.name} stands in for it, so nobody is known for longer", True)
    elif len(found) > 1:
        others = ", ".join(c.name for c in found[1:])
        view.note("user", f"{chosen.name} was taken; {others} could be the user as well", True)
    else:
        view.note("user", "by its name")
    if chosen.empty:
        rows = f"{chosen.empty} of the sample's {view.height} rows ({chosen.empty / view.height:.1%})"
        view.note("user", f"empty in {rows}, which go to quarantine")
    if chosen.distinct == chosen.filled and view.height > 20:
        view.note("user", "every row of the sample has another user, so there are no sequences in it", True)
    return chosen.name


def _item(view: Sample) -> str | None:
    found = view.named("item")
    if not found:
        endings = ("itemid", "productid", "articleid", "商品id")
        found = [c for c in view.free if plain(c.name).endswith(endings)]
    found = [c for c in found if c.filled and not c.is_fraction and not c.is_nested and c.mean_length < 100]
    if not found:
        names = [
            c.name for c in view.free if c.is_string and c.numbers is None and not c.is_nested and c.mean_length < 100
        ]
        may = f"; one of {_list(names)} might be it" if names else ""
        view.note("item", f"no column looks like an item: events are about nothing in particular{may}", bool(names))
        return None
    chosen = view.take(found[0])
    others = f"; {', '.join(c.name for c in found[1:])} became fields" if len(found) > 1 else ""
    view.note("item", f"by its name{others}")
    return chosen.name


def _event_id(view: Sample) -> str | None:
    for column in view.named("event_id") + [c for c in view.free if plain(c.name) == "id" and not c.counts_rows]:
        if column.distinct == view.height > 1:
            view.take(column)
            view.note(
                "event_id",
                f"{column.name} is different in all {view.height} rows of the sample; an event whose id was "
                "stored already is a duplicate. Set it to null if ids are used again",
            )
            return column.name
    return None


def _list(names: list[str]) -> str:
    names = [name or "(one without a name)" for name in names]
    return ", ".join(names[:40]) + (f" and {len(names) - 40} more" if len(names) > 40 else "")
