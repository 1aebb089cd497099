"""Text files as sources: cells as Python's csv and json read them; a bad row costs itself only, and is named."""

import csv
import gzip
import io
import json
import random

import polars as pl
import pytest
from backports import zstd
from hypothesis import given, settings
from hypothesis import strategies as st

import desireline.events.cells as cells
from desireline.core.errors import SchemaError, SourceError
from desireline.events.cells import Layout, split
from desireline.events.delimited import Delimited
from desireline.events.jsonl import JsonLines
from desireline.events.text import line_blocks

CELL = st.text(st.sampled_from('ab,;"\n\r é🦊'), max_size=5)
LAYOUT = Layout(["a", "b", "c"], ",")


def read(source, rows=1000, columns=None):
    chunks = list(source.chunks(columns, rows))
    frame = pl.concat([chunk.frame for chunk in chunks])
    numbers = [n for chunk in chunks for n in chunk.numbers]
    rejected = pl.concat([chunk.rejected for chunk in chunks])
    return frame, numbers, rejected


def in_blocks(text: bytes, size: int):
    """Split in pieces of whole lines of about `size` bytes, as a file comes."""
    lines, held, out, number = io.BytesIO(text).readlines(), b"", [], 0
    for k, line in enumerate(lines):
        held += line
        if len(held) >= size or k == len(lines) - 1:
            found = split(held, LAYOUT, LAYOUT.names, at_end=k == len(lines) - 1)
            out += [(number + int(p), row) for p, row in zip(found.places, found.frame.rows(), strict=True)]
            number, held = number + found.records, found.rest
    assert held == b""
    return out


@given(rows=st.lists(st.tuples(CELL, CELL, CELL), min_size=1, max_size=12), size=st.integers(1, 60), data=st.data())
def test_well_formed_rows_are_read_as_python_reads_them(rows, size, data):
    ends = data.draw(st.sampled_from(["\n", "\r\n"]))
    quoting = data.draw(st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]))
    file = io.StringIO()
    csv.writer(file, lineterminator=ends, quoting=quoting).writerows(rows)
    expected = [(k, row) for k, row in enumerate(rows)]
    found = [(k, tuple(cell or "" for cell in row)) for k, row in in_blocks(file.getvalue().encode(), size)]
    assert found == expected


@settings(max_examples=200)
@given(text=st.lists(st.sampled_from([*'ab,"\n', "a,b,c\n", '"a","b","c"\n', "é", "\0"]), max_size=30))
def test_the_fast_and_the_exact_way_agree(text):
    block = "".join(text).encode()
    if not block.strip(b"\n"):
        return
    fast = cells._fast(block, LAYOUT, LAYOUT.names, at_end=True)
    if fast is None:
        return
    exact = cells._exact(block, LAYOUT, LAYOUT.names, at_end=True)
    plain = [tuple(cell or "" for cell in row) for row in fast.frame.rows()]
    assert plain == exact.frame.rows()
    assert fast.places.tolist() == exact.places.tolist()
    assert (fast.records, fast.lines, fast.rest) == (exact.records, exact.lines, exact.rest)
    assert [b[:2] for b in fast.bad] == [b[:2] for b in exact.bad]


def test_bad_rows_are_set_aside_and_all_others_come(tmp_path):
    good = [(f"u{k}", "view", f"i{k}") for k in range(9)]
    lines = [",".join(row) for row in good]
    lines.insert(2, "short,row")
    lines.insert(4, "one,too,many,cells")
    lines.insert(6, '"never closed,view,i')
    lines.insert(8, 'an "inch,view,i')  # quotes inside a cell without quotes are characters
    lines.insert(10, 'x,"5" pipe,i')
    lines.insert(12, "n\0l,view,i")
    (tmp_path / "log.csv").write_text("a,b,c\n" + "\n".join(lines) + "\n")
    frame, numbers, rejected = read(Delimited(tmp_path / "log.csv"))
    assert [row for row in frame.rows() if row[0] != 'an "inch'] == good
    assert 'an "inch' in frame["a"].to_list()
    assert rejected["row"].to_list() == [3, 5, 7, 11, 13]
    assert sorted(numbers + rejected["row"].to_list()) == list(range(1, 16))
    assert "line 4" in rejected["reason"][0]  # the header is line 1
    assert json.loads(rejected["raw"][1]) == "one,too,many,cells"


def test_bytes_that_are_no_text_cost_their_row_only(tmp_path):
    rows = [f"u{k},caf\u00e9,i".encode() for k in range(50)]
    rows[7] = b"u7,caf\xe9,i"
    (tmp_path / "log.csv").write_bytes(b"a,b,c\n" + b"\n".join(rows))
    frame, numbers, rejected = read(Delimited(tmp_path / "log.csv"))
    assert frame["b"].unique().to_list() == ["café"]
    assert rejected["row"].to_list() == [8]
    assert 8 not in numbers


def test_gbk_far_behind_an_english_beginning_is_read(tmp_path):
    english = b"u,view,i\n" * 3_000_000
    (tmp_path / "log.csv").write_bytes(b"a,b,c\n" + english + "张三,浏览,茶\n".encode("gbk"))
    last = list(Delimited(tmp_path / "log.csv").chunks(None, 10**7))[-1]
    assert last.frame.row(-1) == ("张三", "浏览", "茶")
    assert last.rejected.height == 0


@pytest.mark.parametrize("pack", [gzip.compress, zstd.compress])
def test_packed_files_hold_the_same_rows(tmp_path, pack):
    whole = b"a,b,c\n" + b"".join(b"u%d,view,i%d\n" % (k, k % 9) for k in range(60_000))
    (tmp_path / "plain.csv").write_bytes(whole)
    (tmp_path / "packed.csv.x").write_bytes(pack(whole[:200_000]) + pack(whole[200_000:]))  # two members
    plain, packed = (read(Delimited(tmp_path / name), 7_000) for name in ("plain.csv", "packed.csv.x"))
    assert packed[0].equals(plain[0])
    assert packed[1] == plain[1]


@pytest.mark.parametrize("pack", [gzip.compress, zstd.compress])
@pytest.mark.parametrize("reader", [Delimited, JsonLines])
def test_what_stands_before_a_break_comes_whole(tmp_path, pack, reader):
    noise = random.Random(0)
    made = [{"a": f"u{noise.random()}", "b": "view", "c": "i"} for _ in range(20_000)]
    lines = [json.dumps(r) if reader is JsonLines else ",".join(r.values()) for r in made]
    whole = pack("\n".join([*(["a,b,c"] if reader is Delimited else []), *lines]).encode())
    (tmp_path / "log").write_bytes(whole[: len(whole) * 2 // 3])
    came = []

    def take():
        for chunk in reader(tmp_path / "log").chunks(["a", "b", "c"], 1000):
            came.extend(chunk.frame.rows(named=True))
            assert chunk.rejected.height == 0

    with pytest.raises(SourceError, match="breaks off after row") as caught:
        take()
    assert 5_000 < len(came) < 20_000
    assert came == made[: len(came)]
    assert f"{len(came):,}" in str(caught.value)


def test_chunks_are_no_longer_than_asked(tmp_path):
    (tmp_path / "log.csv").write_text("a,b\n" + "x,y\n" * 2500)
    assert [len(c.numbers) for c in Delimited(tmp_path / "log.csv").chunks(None, 1000)] == [1000, 1000, 500]


@pytest.mark.parametrize(
    ("text", "columns"),
    [
        ("a;b;c\n1,5;2;3\n", ["a", "b", "c"]),
        ("a|b\n1|2\n", ["a", "b"]),
        ("sep=;\na;b\n1;2\n", ["a", "b"]),
        ("\n\r\na,b\n1,2\n", ["a", "b"]),
        ("a,b\r1,2\r3,4\r", ["a", "b"]),
        ('\ufeff"a",b\n1,2\n', ["a", "b"]),
    ],
)
def test_the_header_is_found(tmp_path, text, columns):
    (tmp_path / "log.csv").write_text(text, newline="")
    frame = Delimited(tmp_path / "log.csv").sample()
    assert frame.columns == columns
    assert frame.height >= 1


def test_a_table_without_a_mark_or_a_name_is_one_clear_error(tmp_path):
    path = tmp_path / "log.csv"
    path.write_bytes("a,b\n1,2\n".encode("utf-16-le"))
    with pytest.raises(SourceError, match="UTF-8"):
        Delimited(path).sample()
    path.write_text("a,b,a\n1,2,3\n")
    with pytest.raises(SchemaError, match="'a' stands twice"):
        Delimited(path).sample()
    path.write_text("\n\n\n")
    with pytest.raises(SourceError, match="no rows"):
        Delimited(path).sample()


@given(
    st.lists(
        st.fixed_dictionaries(
            {},
            optional={
                "id": st.integers(0, 10**25) | st.text(max_size=4) | st.none() | st.booleans(),
                "tags": st.lists(st.integers(0, 3), max_size=2),
            },
        ),
        min_size=1,
        max_size=8,
    )
)
def test_json_values_become_their_text(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("json") / "log.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows))
    frame, _, rejected = read(JsonLines(path), columns=["id", "tags"])

    def text(value):
        return value if value is None or isinstance(value, str) else json.dumps(value)

    assert rejected.height == 0
    assert frame.rows() == [(text(row.get("id")), text(row.get("tags"))) for row in rows]


def test_broken_json_lines_are_named_and_the_others_come(tmp_path):
    lines = ['{"a": 1}', "{broken", "", "[1]", '{"a": NaN}', '{"a": "x"} trailing', "null", '{"a": 2}', "5"]
    (tmp_path / "log.jsonl").write_text("\n".join(lines))
    frame, numbers, rejected = read(JsonLines(tmp_path / "log.jsonl"), columns=["a"])
    assert frame["a"].to_list() == ["1", "2"]
    assert numbers == [1, 8]
    assert rejected["row"].to_list() == [2, 4, 5, 6, 7, 9]
    (tmp_path / "array.jsonl").write_text('[{"a": 1}]')
    with pytest.raises(SourceError, match="jq"):
        read(JsonLines(tmp_path / "array.jsonl"))


def test_blocks_hold_whole_lines(tmp_path):
    text = b"".join(b"%d" % k + b"x" * (k % 50) + b"\n" for k in range(3000)) + b"the end"
    (tmp_path / "t").write_bytes(text)
    blocks = list(line_blocks(tmp_path / "t", 1000))
    assert b"".join(blocks) == text
    assert all(block.endswith(b"\n") for block in blocks[:-1])
    assert len(blocks) > 50
