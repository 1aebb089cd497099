"""Write a schema as `desireline.yaml`: each key with its meaning, each guess with its reason, ambiguity marked."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from desireline.core.files import write_text
from desireline.schema.model import EventSpec, EventType, FieldSpec, Schema
from desireline.schema.sample import Note

HEAD = """\
What an event is in this log, and the settings of every step after it. Made by `desireline init`; edit it freely.
"guessed" says why a line is as it is; "AMBIGUOUS" wants your eye, since the sample did not settle it.
Columns with spaces or signs in their names stand in `backticks` inside expressions."""
WIDTH = 118


def write(schema: Schema, notes: list[Note], path: Path) -> None:
    """Write a schema with comments; `model.load` reads it back equal.

    Parameters
    ----------
    schema
        What to write, every setting included.
    notes
        Guesses; each stands above the key that it names, or at the head of the file when that key is not written.
    path
        The file, replaced as a whole.

    Raises
    ------
    StoreError
        The file cannot be written.
    """
    write_text(path, text_of(schema, notes))


def text_of(schema: Schema, notes: Sequence[Note]) -> str:
    """The text that `write` writes."""
    placed: dict[str, list[Note]] = {}
    for note in notes:
        placed.setdefault(note.key, []).append(note)
    body = list(_mapping(schema, placed, "", 0))
    unplaced = [Note("", f"{note.key}: {note.text}", note.ambiguous) for kept in placed.values() for note in kept]
    head = [f"# {_plain(line)}" for line in HEAD.splitlines()]
    return "\n".join([*head, *itertools.chain.from_iterable(_comment(note, 0) for note in unplaced), "", *body]) + "\n"


def _mapping(model: BaseModel, placed: dict[str, list[Note]], prefix: str, depth: int) -> Iterator[str]:
    for name, info in type(model).model_fields.items():
        value = getattr(model, name)
        if isinstance(model, EventSpec) and not value:
            continue  # an event has one source; naming the other two would only suggest otherwise
        if depth == 0 and name not in ("version", "preset"):
            yield ""
        yield from _entry(name, value, f"{prefix}{name}", placed, depth, info.description)


def _entry(
    name: str, value: Any, key: str, placed: dict[str, list[Note]], depth: int, description: str | None
) -> Iterator[str]:
    margin = "  " * depth
    for note in placed.pop(key, []):
        yield from _comment(note, depth)
    head = f"{margin}{_flow(name)}:"
    if isinstance(value, (FieldSpec, EventType)):
        yield _beside(f"{head} {_flow(value.model_dump())}", description)
    elif isinstance(value, BaseModel):
        yield _beside(head, description)
        yield from _mapping(value, placed, f"{key}.", depth + 1)
    elif isinstance(value, Mapping) and value:
        yield _beside(head, description)
        for inner_name, inner_value in value.items():
            yield from _entry(str(inner_name), inner_value, f"{key}.{inner_name}", placed, depth + 1, None)
    elif isinstance(value, list) and value and isinstance(value[0], BaseModel):
        yield _beside(head, description)
        for rule in value:
            yield f"{margin}  - {_flow(rule.model_dump())}"
    else:
        yield _beside(f"{head} {_flow(value)}", description)


def _flow(value: object) -> str:
    """A value on one line, as YAML reads it back; safe inside braces and brackets."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_flow(key)}: {_flow(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_flow(inner) for inner in value) + "]"
    text = yaml.safe_dump([value], allow_unicode=True, width=float("inf"), default_flow_style=True)
    if len(text.splitlines()) != 1:  # a line break inside: only double quotes, without Unicode, keep it on one line
        text = yaml.safe_dump([value], width=float("inf"), default_flow_style=True, default_style='"')
    return text.strip().removeprefix("[").removesuffix("]")


def _comment(note: Note, depth: int) -> Iterator[str]:
    text = _plain(f"{'AMBIGUOUS' if note.ambiguous else 'guessed'}: {note.text}")
    line = "  " * depth + "#"
    start = line
    for word in text.split(" "):
        if len(line) + len(word) >= WIDTH and line != start:
            yield line
            line = start + "  "
        line += f" {word}"
    yield line


def _beside(line: str, description: str | None) -> str:
    return f"{line}  # {_plain(description)}" if description else line


def _plain(text: str) -> str:
    """One printable line: YAML forbids control characters in comments, and ends a comment at any kind of line break."""
    return "".join(sign if sign.isprintable() else " " for sign in " ".join(text.split()))
