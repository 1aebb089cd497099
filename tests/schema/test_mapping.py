"""Rows to events: what is kept untouched, what is rejected, and in which words."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import polars as pl
import pytest

from desireline.core.errors import SchemaError
from desireline.events.frame import frame_schema
from desireline.schema.mapping import Mapped, map_rows
from desireline.schema.model import Schema, parse

NOW = datetime(2024, 6, 1, tzinfo=UTC)


def schema(**changes: object) -> Schema:
    raw: dict[str, object] = {
        "user": "user",
        "time": {"column": "ts", "format": "iso"},
        "event": {"column": "event"},
        "item": "item",
        "types": {"view": {}, "buy": {}},
    }
    return parse({k: v for k, v in (raw | changes).items() if v is not ...}, "test")


def rows(**columns: list[object]) -> pl.DataFrame:
    n = max(len(c) for c in columns.values())
    base = {"user": ["u"] * n, "ts": ["2024-01-01T00:00:00Z"] * n, "event": ["view"] * n, "item": ["i"] * n}
    return pl.DataFrame(base | columns, strict=False)


def mapped(frame: pl.DataFrame, **changes: object) -> Mapped:
    return map_rows(frame, schema(**changes), 1, NOW)


def reason(frame: pl.DataFrame, **changes: object) -> str:
    done = mapped(frame, **changes)
    assert len(done.rejected) == 1, done.rejected
    return done.rejected["reason"][0]


ODD_IDS = [
    "__proto__",
    "../../x",
    "'; DROP TABLE users",
    "😀",
    "007",
    "17850.0",
    " u ",
    "e\u0301",
    "{}",
    "用户",
    "nan",
    "null",
]


def test_ids_are_text_and_stay_as_they_are() -> None:
    done = mapped(rows(user=ODD_IDS, item=ODD_IDS))
    assert done.events["user"].to_list() == ODD_IDS
    assert done.events["item"].to_list() == ODD_IDS
    assert done.rejected.is_empty()


@pytest.mark.parametrize(
    ("cells", "dtype", "ids"),
    [
        ([17850.0, 1.5, -3.0], pl.Float64, ["17850", "1.5", "-3"]),
        ([17850, 2**63], pl.UInt64, ["17850", "9223372036854775808"]),
        ([7], pl.Int8, ["7"]),
        ([Decimal("17850.00")], pl.Decimal(10, 2), ["17850"]),
        (["x"], pl.Categorical, ["x"]),
    ],
)
def test_ids_of_every_type_become_text(cells: list[object], dtype: pl.DataType, ids: list[str]) -> None:
    frame = rows(user=["u"] * len(cells)).with_columns(pl.Series("user", cells, dtype=dtype))
    assert mapped(frame).events["user"].to_list() == ids


def test_a_row_without_a_user_is_rejected_and_one_without_an_item_is_not() -> None:
    done = mapped(rows(user=["u", None, "", " \t", "u"], item=[None, "i", "i", "i", "  "]))
    assert done.events["item"].to_list() == [None, None]
    assert done.rejected["row"].to_list() == [2, 3, 4]
    assert done.rejected["column"].to_list() == ["user"] * 3
    assert mapped(rows(user=[float("nan")])).rejected["row"].to_list() == [1]


def test_an_id_that_can_be_none_is_rejected() -> None:
    assert "more than 512 characters" in reason(rows(item=["é" * 513]))
    assert mapped(rows(item=["é" * 512])).rejected.is_empty()  # characters, not bytes
    assert "NUL" in reason(rows(user=["a\0b"]))


def test_rejected_rows_carry_place_cell_and_the_whole_row() -> None:
    frame = rows(ts=["2024-01-01", "13/25/2011"], item=["i", 'say "é"'])
    done = map_rows(frame, schema(), 1041, NOW)
    assert done.events["row"].to_list() == [1041]
    assert done.rejected.rows(named=True)[0]["reason"] == (
        'row 1042, column "ts": "13/25/2011" is no date; declare time.format in desireline.yaml'
    )
    assert done.rejected["value"][0] == "13/25/2011"
    assert json.loads(done.rejected["raw"][0]) == frame.rows(named=True)[1]


def test_a_row_is_listed_once_with_its_first_fault_in_the_order_of_the_file() -> None:
    done = mapped(rows(user=["u", None, "u"], ts=["x", "x", "2024-01-01"], event=["no", "no", "no"]))
    assert done.rejected["row"].to_list() == [1, 2, 3]
    assert done.rejected["column"].to_list() == ["ts", "user", "event"]


def test_columns_and_types_are_those_of_an_event_frame() -> None:
    changes = {
        "fields": {"price": {"column": "p", "kind": "number"}, "kind": {"column": "k", "kind": "category"}},
        "alias": {"column": "other"},
    }
    frame = rows(p=["1.5"], k=[3], other=[None])
    for source in (frame, frame.clear()):
        events = mapped(source, **changes).events
        wanted = {k: v for k, v in frame_schema(schema(**changes)).items() if k not in ("event_id", "bucket")}
        assert dict(events.schema) == wanted | {"declared_id": pl.String, "row": pl.Int64}
        assert mapped(source).rejected.schema == pl.Schema(
            {"row": pl.Int64, "column": pl.String, "value": pl.String, "reason": pl.String, "raw": pl.String}
        )


def test_event_types_are_known_ones_unless_others_are_kept() -> None:
    frame = rows(event=["view", " buy ", "stare", None, 3])
    done = mapped(frame)
    assert done.events["event"].to_list() == ["view", "buy"]
    assert '"stare" is not in types' in done.rejected["reason"][0]
    kept = mapped(frame, unknown_types="keep")
    assert kept.events["event"].to_list() == ["view", "buy", "stare", "3"]
    assert kept.events["order"].to_list() == [0, 1, 2, 2]
    assert kept.rejected["row"].to_list() == [4]


def test_rules_are_tried_in_turn() -> None:
    rules = {"rules": [{"when": "quantity > 9", "type": "bulk"}, {"when": "quantity > 0", "type": "buy"}]}
    done = mapped(rows(quantity=["12", "3", "0", "x", None]), event=rules, types={"buy": {}, "bulk": {}})
    assert done.events["event"].to_list() == ["bulk", "buy"]
    assert done.rejected["row"].to_list() == [3, 4, 5]
    assert "no rule" in done.rejected["reason"][0]
    assert done.rejected["column"].to_list() == [None] * 3
    assert 'event type "bulk" is not in types' in reason(rows(quantity=[12]), event=rules)


def test_a_value_is_a_number_or_null_or_the_row_is_rejected() -> None:
    done = mapped(rows(price=["2.5", " 3 ", "", None, "nan", "inf", "cheap"]), value="price")
    assert done.events["value"].to_list() == [2.5, 3.0, None, None, None, None]
    assert 'column "price": "cheap" is no number' in done.rejected["reason"][0]
    product = mapped(rows(quantity=[2, 0], price=["1.5", "x"]), value="quantity * price")
    assert product.events["value"].to_list() == [3.0]
    assert mapped(rows(a=[1, 2]), value="5").events["value"].to_list() == [5.0, 5.0]
    assert mapped(rows(a=[1.0, float("nan")]), value="a").events["value"].to_list() == [1.0, None]


def test_fields_by_kind() -> None:
    kinds = {"n": "number", "c": "category", "d": "duration", "t": "text", "b": "category"}
    fields = {k: {"column": f"a `{k}", "kind": v} for k, v in kinds.items()}
    columns = {
        "n": ["1", "x"],
        "c": [3.0, 4.0],
        "d": [timedelta(seconds=90)] * 2,
        "t": [" ", "Nice, red"],
        "b": [True, None],
    }
    done = mapped(rows(**{f"a `{k}": v for k, v in columns.items()}), fields=fields)
    assert done.events.select(*kinds).rows() == [(1.0, "3", 90.0, None, "true")]
    assert done.rejected["column"].to_list() == ["a `n"]
    with pytest.raises(SchemaError, match="no single value"):
        mapped(rows(**{f"a `{k}": v for k, v in (columns | {"c": [[1], [2]]}).items()}), fields=fields)


def test_order_at_equal_times() -> None:
    frame = rows(event=["buy", "view", "buy"], n=["2", "10.0", "x"])
    assert mapped(frame).events["order"].to_list() == [1, 0, 1]
    assert map_rows(frame, schema(tie_break="row"), 11, NOW).events["order"].to_list() == [11, 12, 13]
    done = mapped(frame, tie_break="n")
    assert done.events["order"].to_list() == [2, 10]  # as numbers, not by the alphabet
    assert "no number, and orders equal times" in done.rejected["reason"][0]


def test_an_alias_event_names_who_is_merged() -> None:
    frame = rows(user=["u", "u", "u"], event=["view", "alias", "alias"], anonymous=["a", "a", None])
    done = mapped(frame, alias={"column": "anonymous"})
    assert done.events["alias"].to_list() == [None, "a"]
    assert "merge" in done.rejected["reason"][0]


def test_declared_event_ids() -> None:
    done = mapped(rows(id=[1.0, None, 3.0]), event_id="id")
    assert done.events["declared_id"].to_list() == ["1", "3"]
    assert "event_id: null" in done.rejected["reason"][0]
    assert mapped(rows(id=[1])).events["declared_id"].to_list() == [None]


def test_no_user_and_no_time_count_rows() -> None:
    frame = pl.DataFrame({"item": ["i", "j"]})
    done = map_rows(frame, schema(user=None, time={}, event={"constant": "view"}), 7, NOW)
    assert done.events["user"].to_list() == ["row-7", "row-8"]
    assert done.events["time"].to_list() == [datetime(1970, 1, 1, 0, 0, s, tzinfo=UTC) for s in (7, 8)]


def test_missing_columns_are_named_together_with_their_neighbours() -> None:
    frame = pl.DataFrame({"User_ID": [], "ts": [], "evnt": [], "item": []})
    with pytest.raises(SchemaError) as caught:
        mapped(frame, user="user_id")
    message = str(caught.value)
    assert '"user_id" (did you mean User_ID?)' in message
    assert '"event" (did you mean evnt?)' in message
    assert "It has: User_ID, ts, evnt, item" in message


def test_a_rejected_row_may_hold_bytes_lists_and_moments() -> None:
    frame = rows(user=[None], blob=[b"\xff\0"], tags=[["a", None]], day=[date(2024, 1, 1)], deep=[[b"\xff"]])
    raw = json.loads(mapped(frame).rejected["raw"][0])
    assert raw["tags"] == ["a", None]
    assert raw["blob"] == "/wA="
    assert raw["deep"] is None
    with pytest.raises(SchemaError, match="no single value"):
        mapped(frame, user="blob")


def test_read_is_events_plus_rejected() -> None:
    n = 500
    frame = rows(
        user=[None if k % 7 == 0 else f"u{k}" for k in range(n)],
        ts=["x" if k % 5 == 0 else "2024-01-01" for k in range(n)],
        event=["odd" if k % 3 == 0 else "buy" for k in range(n)],
    )
    done = mapped(frame)
    both = [*done.events["row"], *done.rejected["row"]]
    assert sorted(both) == list(range(1, n + 1))
    assert done.events["row"].to_list() == [k + 1 for k in range(n) if k % 7 and k % 5 and k % 3]
