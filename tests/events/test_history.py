"""A history of somebody unknown: what is wrong in it is said as it was written, and what is not read is named."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from desireline.core.errors import DataError, SourceError
from desireline.events.history import read_history
from desireline.schema.model import EventSpec, FieldSpec, Schema, TimeSpec

SCHEMA = Schema(
    user="who",
    time=TimeSpec(column="at", format="%d/%m/%Y"),
    event=EventSpec(column="kind"),
    item="sku",
    fields={"country": FieldSpec(column="land", kind="category")},
    types={"view": {"roles": ["positive", "target"]}},
)
AT = datetime(2024, 3, 1, tzinfo=UTC)


@pytest.fixture
def history(tmp_path):
    def written(*events):
        (tmp_path / "visitor.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
        return tmp_path / "visitor.jsonl"

    return written


@pytest.mark.parametrize("time", ["2099-01-01", 4_102_444_800, "1970-01-02T00:00:00Z"])
def test_a_time_that_cannot_be_is_shown_as_it_was_written(history, time):
    path = history({"event": "view"}, {"event": "view", "time": time})
    with pytest.raises(DataError) as caught:
        read_history(path, SCHEMA, AT)
    said = str(caught.value)
    assert f"{path}, event 2: the time {json.dumps(time)} lies " in said
    assert "as-of" in said
    assert "time.format" not in said


def test_keys_that_are_not_read_are_named_once(history, capsys):
    typo = {"event": "view", "itme": "568695"}
    path = history(typo, typo, {"event": "view", "item": "a", "fields": {"country": "FR", "colour": "red"}})
    assert read_history(path, SCHEMA, AT)["item"].to_list() == [None, None, "a"]
    said = " ".join(capsys.readouterr().err.split())
    assert 'not read: "itme" (in 2 of 3), "fields.colour" (in 1 of 3).' in said
    assert "its fields: country" in said
    read_history(history({"event": "view", "item": "a", "fields": {"country": "FR"}}), SCHEMA, AT)
    assert capsys.readouterr().err == ""


def test_times_come_as_they_are_written(history):
    path = history({"event": "view", "time": "2024-02-01T10:00:00.25Z"}, {"event": "view", "time": 1706781599})
    second, first = datetime(2024, 2, 1, 10, 0, 0, 250_000, UTC), datetime(2024, 2, 1, 9, 59, 59, tzinfo=UTC)
    assert read_history(path, SCHEMA, AT)["time"].to_list() == [first, second]


def test_a_log_of_positions_takes_a_history_without_times(history):
    schema = SCHEMA.model_copy(update={"time": TimeSpec()})
    at = datetime(1970, 1, 1, 0, 0, 50, tzinfo=UTC)
    times = read_history(history({"event": "view"}, {"event": "view"}), schema, at)["time"]
    assert at - timedelta(seconds=1) < times[0] < times[1] < at


@pytest.mark.parametrize("line", ['["view"]', '{"item": "a"}', '{"event": "view", "fields": ["FR"]}', "{"])
def test_a_line_that_is_no_event_is_named(tmp_path, line):
    (tmp_path / "visitor.jsonl").write_text('{"event": "view"}\n\n' + line + "\n")
    with pytest.raises(SourceError, match="line 3: no event of the form"):
        read_history(tmp_path / "visitor.jsonl", SCHEMA, AT)
