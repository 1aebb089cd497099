"""Times as sources write them, against Python's own datetime."""

from __future__ import annotations

from datetime import UTC, date, datetime
from zoneinfo import ZoneInfo

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from desireline.core.errors import SchemaError
from desireline.schema.mapping import map_rows
from desireline.schema.model import TimeSpec, parse
from desireline.schema.times import Moments, read_times

NOW = datetime(2024, 6, 1, tzinfo=UTC)


def read(cells: list[object], fmt: str = "auto", zone: str = "UTC", dtype: pl.DataType | None = None) -> Moments:
    column = pl.Series("ts", cells, dtype=dtype)
    return read_times(column, TimeSpec(column="ts", format=fmt, zone=zone))


def moments(*arguments: object, **more: object) -> list[datetime | None]:
    return read(*arguments, **more).time.to_list()  # type: ignore[arg-type]


def rejected(cells: list[object], fmt: str = "auto", zone: str = "UTC", dtype: pl.DataType | None = None) -> list[str]:
    schema = parse(
        {
            "user": "u",
            "time": {"column": "ts", "format": fmt, "zone": zone},
            "event": {"constant": "e"},
            "types": {"e": {}},
        },
        "test",
    )
    frame = pl.DataFrame({"u": ["u"] * len(cells), "ts": pl.Series(cells, dtype=dtype)})
    return map_rows(frame, schema, 1, NOW).rejected["reason"].to_list()


def test_native_types_need_no_format() -> None:
    naive = datetime(2011, 7, 1, 12)
    assert moments([naive], zone="Europe/London") == [datetime(2011, 7, 1, 11, tzinfo=UTC)]
    aware = pl.Series("ts", [naive]).dt.replace_time_zone("Asia/Tokyo")
    assert read_times(aware, TimeSpec(column="ts", zone="Europe/London")).time[0] == datetime(2011, 7, 1, 3, tzinfo=UTC)
    assert moments([date(2011, 7, 1)], zone="Europe/London") == [datetime(2011, 6, 30, 23, tzinfo=UTC)]
    for unit in ("ms", "us", "ns"):
        assert moments([naive], dtype=pl.Datetime(unit)) == [naive.replace(tzinfo=UTC)]


def test_iso_with_mixed_shapes_and_offsets() -> None:
    cells = ["2024-01-02 03:04", "2024-01-02T03:04:05Z", "2024-01-02T03:04:05.25+02:00", "2024-01-02 03:04:05,5 -0530"]
    cells += ["2024-01-02", " 2024-01-02T03:04:05 UTC ", "2024-01-02T03:04:05+01", "nonsense", None, "2024-02-30"]
    tokyo = ZoneInfo("Asia/Tokyo")
    wanted: list[datetime | None] = [
        datetime(2024, 1, 2, 3, 4, tzinfo=tokyo),
        datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC),
        datetime.fromisoformat("2024-01-02T03:04:05.250+02:00"),
        datetime.fromisoformat("2024-01-02T03:04:05.500-05:30"),
        datetime(2024, 1, 2, tzinfo=tokyo),
        datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC),
        datetime.fromisoformat("2024-01-02T03:04:05+01:00"),
        None,
        None,
        None,
    ]
    for shift in range(len(cells)):  # whichever comes first decides what is tried first, never what comes out
        order = cells[shift:] + cells[:shift]
        assert moments(order, "iso", "Asia/Tokyo") == wanted[shift:] + wanted[:shift]


@settings(max_examples=100, deadline=None)
@given(
    times=st.lists(
        st.datetimes(datetime(1971, 1, 2), datetime(2037, 1, 1), timezones=st.none() | st.just(UTC)),
        min_size=1,
        max_size=5,
    ),
    separator=st.sampled_from([" ", "T"]),
)
def test_what_isoformat_writes_is_read_back(times: list[datetime], separator: str) -> None:
    wanted = [t if t.tzinfo else t.replace(tzinfo=UTC) for t in times]
    assert moments([t.isoformat(separator) for t in times], "auto") == wanted


def test_epochs_and_positions() -> None:
    wanted = [datetime(2017, 11, 24, 17, 21, 10, tzinfo=UTC)]
    for cell, fmt in [(1511544070, "epoch_s"), ("1511544070", "epoch_s"), (" 1.51154407e9 ", "epoch_s")]:
        assert moments([cell], fmt) == wanted
    assert moments([1511544070000], "epoch_ms") == wanted
    assert moments([1511544070000000], "epoch_us") == wanted
    assert moments([1511544070.25], "epoch_s")[0].microsecond == 250_000  # type: ignore[union-attr]
    assert moments(["1511544070", "1511544070.5", "x"], "epoch_s")[2] is None
    position = moments([3, 1, 2], "position")
    assert sorted(range(3), key=lambda k: position[k]) == [1, 2, 0]  # type: ignore[arg-type,return-value]
    assert rejected([0, 3, 1_000_000], "position") == []


def test_whole_numbers_need_a_format() -> None:
    with pytest.raises(SchemaError, match="epoch_s, epoch_ms, epoch_us, position"):
        read([1511544070])
    assert moments([20240102], "%Y%m%d") == [datetime(2024, 1, 2, tzinfo=UTC)]


@pytest.mark.parametrize(
    ("text", "pattern", "wanted"),
    [
        ("1/12/2010 8:26", "%d/%m/%Y %H:%M", datetime(2010, 12, 1, 8, 26)),
        ("12/1/2010 8:26", "%m/%d/%Y %H:%M", datetime(2010, 12, 1, 8, 26)),
        ("01.12.10", "%d.%m.%y", datetime(2010, 12, 1)),
        ("12/1/10 08:26 PM", "%m/%d/%y %I:%M %p", datetime(2010, 12, 1, 20, 26)),
        ("2010-12-01 08:26:00.5", "%Y-%m-%d %H:%M:%S.%f", datetime(2010, 12, 1, 8, 26, 0, 500_000)),
        ("2010-12-01 08:26 +0200", "%Y-%m-%d %H:%M %z", datetime(2010, 12, 1, 6, 26)),
        ("2010年12月1日", "%Y年%m月%d日", datetime(2010, 12, 1)),
        ("1 Dec 2010", "%d %b %Y", datetime(2010, 12, 1)),
    ],
)
def test_patterns(text: str, pattern: str, wanted: datetime) -> None:
    assert moments([text, None, "x"], pattern) == [wanted.replace(tzinfo=UTC), None, None]


@pytest.mark.parametrize("pattern", ["%d/%m", "%H:%M", "%Q", "iso8601", "%Y-%m-%d %I:%M", "%Y-%m-%d %Z", "%Y %f"])
def test_a_pattern_that_cannot_work_is_an_error_before_any_row(pattern: str) -> None:
    with pytest.raises(SchemaError, match=r"time\.format"):
        read(["2024-01-01"], pattern)


def test_daylight_saving() -> None:
    # London, 2011: clocks went forward on 27 March at 1:00, back on 30 October at 2:00.
    gap, fold = "2011-03-27 01:30:00", "2011-10-30 01:30:00"
    assert moments([fold], "iso", "Europe/London") == [datetime(2011, 10, 30, 0, 30, tzinfo=UTC)]  # the earlier of two
    [message] = rejected([gap, fold], "iso", "Europe/London")
    assert '"2011-03-27 01:30:00" does not exist in Europe/London' in message
    assert rejected([gap], "iso", "UTC") == []
    assert rejected([gap + "Z"], "iso", "Europe/London") == []
    for fmt in ("%Y-%m-%d %H:%M:%S", "iso"):
        assert len(rejected([fold, gap], fmt, "Europe/London")) == 1
    assert len(rejected([datetime(2011, 3, 27, 1, 30)], zone="Europe/London")) == 1


def test_a_day_whose_midnight_is_skipped_begins_an_hour_later() -> None:
    # São Paulo, 2017-10-15: clocks went from 0:00 to 1:00.
    wanted = [datetime(2017, 10, 15, 3, tzinfo=UTC)]
    assert moments([date(2017, 10, 15)], zone="America/Sao_Paulo") == wanted
    assert moments(["2017-10-15"], "iso", "America/Sao_Paulo") == wanted
    assert moments(["15.10.2017"], "%d.%m.%Y", "America/Sao_Paulo") == wanted
    assert moments(["2017-10-15 00:30"], "iso", "America/Sao_Paulo") == [None]


def test_times_that_cannot_be_true() -> None:
    cells = ["1970-01-01", "1970-12-31 23:59:59", "1971-01-01", "2024-06-01 23:59", "2024-06-02 00:00:01", "2038-01-19"]
    messages = rejected(cells, "iso")
    assert [m.split(":")[0] for m in messages] == [f'row {k}, column "ts"' for k in (1, 2, 5, 6)]
    assert "before 1971" in messages[0]
    assert "future (now is 2024-06-01)" in messages[2]
    # Milliseconds taken for seconds, and numbers that would overflow 64 bits: never a wrong time.
    for cell in (1511544070000, 2**62, -(2**62), 1e300):
        assert len(rejected([cell], "epoch_s", dtype=pl.Float64 if isinstance(cell, float) else pl.Int64)) == 1
    assert "epoch_s" in rejected([2**62], "epoch_s")[0]


def test_empty_times_and_unknown_zones() -> None:
    assert ["no time" in m for m in rejected([None, " ", "2024-01-01"], "iso")] == [True, True]
    assert len(rejected([None, None], "iso", dtype=pl.Null)) == 2
    with pytest.raises(SchemaError, match="IANA"):
        read(["2024-01-01"], zone="Mars/Olympus")
    with pytest.raises(SchemaError, match="no time"):
        read([True])
    with pytest.raises(SchemaError, match="position"):
        read([date(2024, 1, 1)], "position")
