"""A written schema loads back equal, and says what was guessed."""

from __future__ import annotations

from pathlib import Path

import polars as pl
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from desireline.schema.guess import Note, guess
from desireline.schema.model import Schema, load, parse
from desireline.schema.write import text_of, write

ANY = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
COLUMN = st.one_of(
    ANY,
    st.sampled_from(
        ["a, b: [c]", "# no comment", "null", "1", "yes", "2024-01-01", "a\nb", "\x85", "😀", "- x", "用户", "\0"]
    ),
)


def made(column: str, kind: str, text: str) -> Schema:
    return parse(
        {
            "user": column,
            "time": {"column": column, "format": text},
            "event": {"rules": [{"when": text, "type": kind}]},
            "value": text,
            "fields": {"field": {"column": column, "kind": "text", "of": "item"}},
            "types": {kind: {"roles": ["target"]}, "other": {}},
            "alias": {"column": column},
            "clean": {"near_duplicate_s": None},
            "train": {"lr": 1e-7},
        },
        "test",
    )


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(column=COLUMN, kind=COLUMN, text=COLUMN, remark=ANY)
def test_whatever_the_names_the_file_loads_back_equal(
    tmp_path: Path, column: str, kind: str, text: str, remark: str
) -> None:
    schema = made(column, kind, text)
    notes = [Note(key, remark) for key in ("user", f"types.{kind}", "fields", "nowhere", "time.zone", "clean.bots")]
    write(schema, notes, tmp_path / "desireline.yaml")
    assert load(tmp_path / "desireline.yaml") == schema


def test_every_note_is_written_where_it_belongs_or_at_the_head(tmp_path: Path) -> None:
    schema = parse({"user": "u", "event": {"constant": "buy"}, "types": {"buy": {}}}, "test")
    notes = [
        Note("user", "by its name"),
        Note("time.format", "both fit", True),
        Note("event.rules", "gone"),
        Note("types.buy", "b"),
    ]
    lines = text_of(schema, notes).splitlines()
    assert lines[lines.index("# guessed: by its name") + 1].startswith("user: u")
    assert lines[lines.index("  # AMBIGUOUS: both fit") + 1].startswith("  format: auto")
    assert lines[lines.index("  # guessed: b") + 1].startswith("  buy:")
    assert "# guessed: event.rules: gone" in lines[:8]


def test_every_setting_is_written_with_its_meaning() -> None:
    schema = parse({"user": "u", "event": {"constant": "buy"}, "types": {"buy": {}}}, "test")
    lines = text_of(schema, []).splitlines()
    for section in ("clean", "prepare", "encoder", "train", "evaluate"):
        for name, info in type(getattr(schema, section)).model_fields.items():
            line = next(line for line in lines if line.startswith(f"  {name}:"))
            assert not info.description or line.endswith(f"# {info.description}")


def test_a_guess_goes_to_a_file_and_back(tmp_path: Path) -> None:
    frame = pl.DataFrame({"Nutzer": [1, 1], "user id": [1, 2], "when": ["01/02/2024"] * 2, "behavior": ["1", "2"]})
    found = guess(frame, "log.csv")
    write(found.schema, found.notes, tmp_path / "desireline.yaml")
    assert load(tmp_path / "desireline.yaml") == found.schema
    text = (tmp_path / "desireline.yaml").read_text()
    assert text.count("# AMBIGUOUS") == sum(note.ambiguous for note in found.notes)
    assert "month-first" in text
