"""The expression language: equal to plain Python on random rows, and closed to everything else."""

from __future__ import annotations

import math

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from desireline.core.errors import SchemaError
from desireline.schema.expression import columns_of, compile_condition, compile_expression, compile_number

# Pairs (our text, Python's text): they differ where a column of text is read as a number, and in the functions' names.
Pair = tuple[str, str]
NUMBERS = [("a", "a"), ("x", "x"), ("`Unit Price`", "price"), ("digits", "float(digits)"), ("3", "3"), ("0.5", "0.5")]
TEXTS = [("s", "s"), ("t", "t"), ("'ab'", "'ab'"), ('"`"', '"`"'), ("lower(s)", "s.lower()"), ("upper(t)", "t.upper()")]


def _binary(sign: str, left: Pair, right: Pair) -> Pair:
    return f"({left[0]} {sign} {right[0]})", f"({left[1]} {sign} {right[1]})"


def _divided(sign: str, left: Pair, right: Pair) -> Pair:  # never by zero
    return f"({left[0]} {sign} (abs({right[0]}) + 1))", f"({left[1]} {sign} (abs({right[1]}) + 1))"


def _grow_number(inner: st.SearchStrategy[Pair]) -> st.SearchStrategy[Pair]:
    return st.one_of(
        st.builds(_binary, st.sampled_from("+-*"), inner, inner),
        st.builds(_divided, st.sampled_from("/%"), inner, inner),
        inner.map(lambda p: (f"-{p[0]}", f"-{p[1]}")),
        inner.map(lambda p: (f"abs({p[0]})", f"abs({p[1]})")),
        st.sampled_from([("length(s)", "len(s)")]),
    )


number = st.recursive(st.sampled_from(NUMBERS), _grow_number, max_leaves=5)
text = st.sampled_from(TEXTS)
signs = st.sampled_from(["<", "<=", ">", ">=", "==", "!="])
tests = st.one_of(
    st.builds(_binary, signs, number, number),
    st.builds(_binary, signs, text, text),
    st.builds(lambda a, b, c: (f"({a[0]} < {b[0]} <= {c[0]})", f"({a[1]} < {b[1]} <= {c[1]})"), number, number, number),
    number.map(lambda p: (f"{p[0]} in [1, 2, 0.5]", f"{p[1]} in [1, 2, 0.5]")),
    text.map(lambda p: (f"{p[0]} not in ['ab', 'b']", f"{p[1]} not in ['ab', 'b']")),
    st.builds(lambda a, b: (f"startswith({a[0]}, {b[0]})", f"{a[1]}.startswith({b[1]})"), text, text),
    st.builds(lambda a, b: (f"contains({a[0]}, {b[0]})", f"({b[1]} in {a[1]})"), text, text),
    st.builds(lambda a, b: (f"endswith({a[0]}, {b[0]})", f"{a[1]}.endswith({b[1]})"), text, text),
)


def _grow_test(inner: st.SearchStrategy[Pair]) -> st.SearchStrategy[Pair]:
    return st.one_of(
        st.builds(_binary, st.sampled_from(["and", "or"]), inner, inner),
        inner.map(lambda p: (f"(not {p[0]})", f"(not {p[1]})")),
    )


condition = st.recursive(tests, _grow_test, max_leaves=4)
row = st.fixed_dictionaries(
    {
        "a": st.integers(-5, 5),
        "x": st.sampled_from([-2.5, -1.0, 0.0, 0.5, 1.0, 3.25]),
        "price": st.sampled_from([0.25, 1.0, 2.0]),
        "digits": st.sampled_from(["1", "-2", " 3.5 ", "0"]),
        "s": st.sampled_from(["", "ab", "Ab", "b", "`x`", "é"]),
        "t": st.sampled_from(["a", "AB", "b", "ß"]),
    }
)


def _frame(rows: list[dict[str, object]]) -> pl.DataFrame:
    return pl.DataFrame(rows).rename({"price": "Unit Price"})


def _python(text: str, values: dict[str, object]) -> object:
    return eval(text, {"abs": abs, "len": len, "float": float}, dict(values))


@settings(max_examples=150, deadline=None)
@given(pair=condition, rows=st.lists(row, min_size=1, max_size=4))
def test_a_condition_is_what_python_says(pair: Pair, rows: list[dict[str, object]]) -> None:
    frame = _frame(rows)
    ours = frame.with_columns(v=compile_condition(pair[0], frame.schema, "rule"))["v"].to_list()
    assert ours == [_python(pair[1], values) for values in rows], pair


@settings(max_examples=150, deadline=None)
@given(pair=number, rows=st.lists(row, min_size=1, max_size=4))
def test_arithmetic_is_what_python_says(pair: Pair, rows: list[dict[str, object]]) -> None:
    frame = _frame(rows)
    ours = frame.with_columns(v=compile_number(pair[0], frame.schema, "value").expression)["v"].to_list()
    for value, values in zip(ours, rows, strict=True):
        assert math.isclose(value, _python(pair[1], values), rel_tol=1e-9, abs_tol=1e-9), pair


def _values(text: str, **columns: object) -> list[object]:
    frame = pl.DataFrame(columns)
    return frame.select(compile_expression(text, frame.schema, "value")).to_series().to_list()


def test_null_is_neither_true_nor_false() -> None:
    assert _values("a > 1", a=[2, 0, None]) == [True, False, None]
    assert _values("a > 1 or b", a=[None, None], b=[True, False]) == [True, None]
    assert _values("a is None", a=[None, 1]) == [True, False]
    assert _values("a is not None and a > 0", a=[None, 1]) == [False, True]
    frame = pl.DataFrame({"a": [None, 1]})
    assert frame.select(compile_condition("a > 0", frame.schema, "rule")).to_series().to_list() == [False, True]


def test_text_is_read_as_a_number_only_where_a_number_is_wanted() -> None:
    assert _values("price > 9", price=["10", "9", "x", None]) == [True, False, None, None]
    assert _values("price > '9'", price=["10", "95"]) == [False, True]  # both text: by the alphabet
    assert _values("price", price=["10", "x"]) == ["10", "x"]
    assert _values("code == '007'", code=["007", "7"]) == [True, False]
    assert _values("code == 7", code=["007", "7"]) == [True, True]
    assert _values("code in ['POST', '12']", code=[12, 13]) == [True, False]  # one file has text, another numbers
    assert _values("code == 'POST'", code=[12, 13]) == [False, False]
    assert _values("startswith(invoice, '17')", invoice=[17850.0, 18.0]) == [True, False]
    assert _values("gift == True", gift=["true", "0", "maybe"]) == [True, False, None]


def test_what_is_not_finite_is_null() -> None:
    assert _values("a / b", a=[1, 0, 6], b=[0, 0, 3]) == [None, None, 2.0]
    assert _values("a % b", a=[7, -7, 7], b=[0, 3, -3]) == [None, 2.0, -2.0]
    assert _values("a == a", a=[float("nan"), 1.0]) == [None, True]
    frame = pl.DataFrame({"a": [math.inf, math.nan, 1.0], "t": ["inf", "nan", "2"]})
    for name in frame.columns:
        assert (
            frame.select(compile_number(name, frame.schema, "value").expression).to_series().to_list()[:2] == [None] * 2
        )


def test_nested_divisions_cost_what_they_look_like() -> None:
    text = "a"
    for _ in range(45):  # each looks at its divisor twice: 2^45 evaluations, if they were not shared
        text = f"1 / (a + {text})"
    golden = _values(text, a=[1.0])[0]
    assert golden == pytest.approx((math.sqrt(5) - 1) / 2)  # the continued fraction of ones


def test_small_integers_do_not_overflow() -> None:
    frame = pl.DataFrame({"q": pl.Series([100], dtype=pl.Int8)})
    assert frame.select(compile_expression("q * 100", frame.schema, "value")).item() == 10_000
    assert frame.select(compile_expression("q < 1000", frame.schema, "value")).item() is True
    large = pl.DataFrame({"id": [2**53 + 1]})  # a float would forget the last bit
    assert large.select(compile_expression(f"id == {2**53}", large.schema, "rule")).item() is False


def test_names_are_taken_as_the_file_has_them() -> None:
    assert columns_of("`a b` + c > lower(d) and lower") == {"a b", "c", "d", "lower"}
    assert columns_of("'`not a column`' == x") == {"x"}
    assert columns_of("数量 * 单价") == {"数量", "单价"}
    assert columns_of("ﬁeld") == {"ﬁeld"}  # Python itself would look for "field"
    assert _values("`class` * `2nd price` - `it's`", **{"class": [2], "2nd price": [3], "it's": [1]}) == [5.0]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("__import__('os')", "no function"),
        ("price.real", "Attribute"),
        ("price[0]", "Subscript"),
        ("[p for p in price]", "ListComp"),
        ("lambda: 1", "Lambda"),
        ("f'{price}'", "JoinedStr"),
        ("price ** 9", "Pow"),
        ("price // 2", "FloorDiv"),
        ("price if price > 1 else 2", "IfExp"),
        ("(y := 2)", "NamedExpr"),
        ("price > None", "is None"),
        ("price is 5", "None only"),
        ("price in 'abc'", "contains"),
        ("price in [name]", "numbers and strings only"),
        ("abs(price, 2)", "abs(number)"),
        ("lower(*name)", "lower(text)"),
        ("name + 'x'", "no number"),
        ("price > 'many'", "none"),
        ("price and True", "true or false"),
        ("b'x' == name", "Constant"),
        ("1j", "Constant"),
        ("price >", "cannot be read"),
        ("Unit Price", "backticks"),
        ("`open", "backtick"),
        ("  ", "empty"),
        ("-" * 9_000 + "1", "deep"),
        ("1e999", "too large"),
        ("1 + " * 9_000 + "1", "characters"),
        ("price\0", "null bytes"),
    ],
)
def test_everything_else_is_refused_in_words(text: str, says: str) -> None:
    dtypes = {"price": pl.Float64(), "name": pl.String(), "number": pl.Int64()}
    with pytest.raises(SchemaError, match=r"desireline\.yaml, value") as caught:
        compile_expression(text, dtypes, "desireline.yaml, value")
    assert says in str(caught.value)


def test_a_missing_column_names_its_neighbours() -> None:
    with pytest.raises(SchemaError) as caught:
        compile_expression("quantity * unitprice", {"Quantity": pl.Int64(), "unit_price": pl.Float64()}, "value")
    message = str(caught.value)
    assert '"quantity" (did you mean Quantity?)' in message
    assert '"unitprice" (did you mean unit_price?)' in message


def test_a_condition_must_be_one() -> None:
    with pytest.raises(SchemaError, match="neither true nor false"):
        compile_condition("quantity", {"quantity": pl.Int64()}, "rule")
