"""A small, safe expression language over columns: `quantity * unit_price`, `rating >= 4 and country == "France"`.

An expression is parsed with Python's own parser and then compiled, node by node, to one Polars expression; nothing is
ever evaluated as Python. What the language has: column names (odd ones in backticks), numbers, strings, True and False,
`+ - * / %`, comparisons (chained, `in [...]`, `is None`), `and or not`, and the functions of `FUNCTIONS`.

Types meet as a person would expect of a CSV file, where everything is text: text that is calculated with or compared
with a number is read as a number (unreadable text is null), a number that is compared with text that is no number is
compared as text. Arithmetic is in float64; a division by zero is null, and so is any result that is not finite. A
comparison with null is null, which counts as false in a condition.
"""

from __future__ import annotations

import ast
import functools
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import polars as pl

from desireline.core.errors import SchemaError
from desireline.schema.binding import finite_or_null, float_text, let
from desireline.schema.syntax import Source, missing_columns

INT64_MAX = 2**63 - 1

Kind = Literal["integer", "number", "text", "boolean", "null", "other"]


@dataclass(frozen=True)
class Compiled:
    """A compiled expression: what it is, and the text columns that it reads as numbers."""

    expression: pl.Expr
    kind: Kind
    numeric_text: frozenset[str] = frozenset()
    literal: str | int | float | bool | None = None  # the value, where the expression is a constant


def columns_of(text: str) -> set[str]:
    """The names of the columns that an expression reads.

    Raises
    ------
    SchemaError
        The text is no expression.

    Examples
    --------
    >>> sorted(columns_of("`Unit Price` * quantity > 0 and lower(country) == 'france'"))
    ['Unit Price', 'country', 'quantity']
    """
    source = Source.of(text, "the expression")
    functions = {id(node.func) for node in ast.walk(source.tree) if isinstance(node, ast.Call)}
    names = (node for node in ast.walk(source.tree) if isinstance(node, ast.Name) and id(node) not in functions)
    return {source.column(node) for node in names}


def compile_expression(text: str, dtypes: Mapping[str, pl.DataType], where: str) -> pl.Expr:
    """Compile an expression to Polars.

    Parameters
    ----------
    text
        The expression, for instance ``quantity * unit_price``; a bare column name is one too.
    dtypes
        Names and types of the columns at hand (``frame.schema``).
    where
        What the expression is for, to begin an error with (``desireline.yaml, value``).

    Returns
    -------
    polars.Expr
        Int64, Float64, String or Boolean, by what the expression says.

    Raises
    ------
    SchemaError
        The syntax has something that the language does not, a column is missing, or types do not go together.

    Examples
    --------
    >>> frame = pl.DataFrame({"price": ["2.5", "x"], "n": [2, 3]})
    >>> frame.select(v=compile_expression("price * n", frame.schema, "value"))["v"].to_list()
    [5.0, None]
    """
    return compile_any(text, dtypes, where).expression


def compile_condition(text: str, dtypes: Mapping[str, pl.DataType], where: str) -> pl.Expr:
    """Compile an expression that must be true or false; where it is null it is false. Raises SchemaError otherwise."""
    compiled = compile_any(text, dtypes, where)
    if compiled.kind not in ("boolean", "null"):
        raise SchemaError(f"{where}: `{text}` is neither true nor false; compare it with something, as `{text} > 0`.")
    return compiled.expression.cast(pl.Boolean).fill_null(False)


def compile_number(text: str, dtypes: Mapping[str, pl.DataType], where: str) -> Compiled:
    """Compile an expression to a Float64, null where it is not finite; `numeric_text` names the text that it reads."""
    compiled = compile_any(text, dtypes, where)
    return _finite(_Compiler(Source.of(text, where), dtypes, where).number(compiled, text))


def number_column(name: str, dtypes: Mapping[str, pl.DataType], where: str) -> Compiled:
    """One column, whatever its name, as `compile_number` would give it."""
    compiler = _Compiler(Source("", ast.Name(name), {}), dtypes, where)
    return _finite(compiler.number(compiler.column(name), name))


def _finite(number: Compiled) -> Compiled:
    return Compiled(finite_or_null(number.expression.cast(pl.Float64)), "number", number.numeric_text)


def compile_any(text: str, dtypes: Mapping[str, pl.DataType], where: str) -> Compiled:
    """Compile an expression of any kind; see `compile_expression`."""
    source = Source.of(text, where)
    compiler = _Compiler(source, dtypes, where)
    compiled = compiler.compile(source.tree)  # first, so that forbidden syntax is named before a column it invents
    if compiler.missing:
        raise missing_columns(compiler.missing, dtypes, f"{where}: `{text}`")
    return compiled


_ARITHMETIC: dict[type[ast.operator], Callable[[pl.Expr, pl.Expr], pl.Expr]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: lambda a, b: let(lambda x, y: pl.when(y != 0).then(x / y), a, b),
    # The remainder has the divisor's sign, as in Python.
    ast.Mod: lambda a, b: let(lambda x, y: pl.when(y != 0).then(x - (x / y).floor() * y), a, b),
}
_ORDERING: dict[type[ast.cmpop], Callable[[pl.Expr, pl.Expr], pl.Expr]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
_EQUALITY: dict[type[ast.cmpop], Callable[[pl.Expr, pl.Expr], pl.Expr]] = {ast.Eq: operator.eq, ast.NotEq: operator.ne}
FUNCTIONS = {
    "lower": "lower(text)",
    "upper": "upper(text)",
    "startswith": "startswith(text, beginning)",
    "endswith": "endswith(text, ending)",
    "contains": "contains(text, part)",
    "abs": "abs(number)",
    "length": "length(text), in characters",
}


class _Compiler:
    """Turns one tree into a Polars expression; keeps the source for names and the place for errors."""

    def __init__(self, source: Source, dtypes: Mapping[str, pl.DataType], where: str) -> None:
        self.source, self.dtypes, self.where = source, dtypes, where
        self.missing: list[str] = []

    def compile(self, node: ast.expr) -> Compiled:
        match node:
            case ast.Name():
                return self.column(self.source.column(node))
            case ast.Constant(value=bool() | int() | float() | str()):
                return self.constant(node.value)  # type: ignore[arg-type]
            case ast.UnaryOp(op=ast.Not()):
                inner = self.boolean(node.operand)
                return Compiled(~inner.expression, "boolean", inner.numeric_text)
            case ast.UnaryOp(op=ast.USub() | ast.UAdd()):
                return self.signed(node)
            case ast.BinOp() if type(node.op) in _ARITHMETIC:
                left, right = self.arithmetic(node.left), self.arithmetic(node.right)
                result = _ARITHMETIC[type(node.op)](left.expression, right.expression)
                return Compiled(result, "number", left.numeric_text | right.numeric_text)
            case ast.BoolOp():
                parts = [self.boolean(value) for value in node.values]
                join = operator.and_ if isinstance(node.op, ast.And) else operator.or_
                expression = functools.reduce(join, (p.expression for p in parts))
                return Compiled(expression, "boolean", frozenset().union(*(p.numeric_text for p in parts)))
            case ast.Compare():
                return self.comparisons(node)
            case ast.Call():
                return self.call(node)
        raise self.refused(node)

    def column(self, name: str) -> Compiled:
        dtype, column = self.dtypes.get(name, pl.Null()), pl.col(name)
        if name not in self.dtypes and name not in self.missing:
            self.missing.append(name)
        if dtype == pl.Null:
            return Compiled(pl.lit(None), "null")
        if dtype == pl.UInt64 or dtype.is_decimal():
            return Compiled(column.cast(pl.Float64), "number")
        if dtype.is_integer():
            return Compiled(column.cast(pl.Int64), "integer")
        if dtype.is_float():
            return Compiled(finite_or_null(column.cast(pl.Float64)), "number")
        if dtype in (pl.String, pl.Categorical, pl.Enum):
            return Compiled(column.cast(pl.String), "text")
        return Compiled(column, "boolean" if dtype == pl.Boolean else "other")

    def constant(self, value: bool | int | float | str) -> Compiled:
        if isinstance(value, bool):
            return Compiled(pl.lit(value), "boolean", literal=value)
        if isinstance(value, str):
            return Compiled(pl.lit(value), "text", literal=value)
        if abs(value) > 1e300:
            raise SchemaError(f"{self.where}: a number in `{self.source.text[:200]}` is too large.")
        if isinstance(value, int) and abs(value) <= INT64_MAX:
            return Compiled(pl.lit(value, pl.Int64), "integer", literal=value)
        return Compiled(pl.lit(float(value)), "number", literal=float(value))

    def signed(self, node: ast.UnaryOp) -> Compiled:
        negative = isinstance(node.op, ast.USub)
        inner = self.compile(node.operand)
        if isinstance(inner.literal, (int, float)) and not isinstance(inner.literal, bool):
            return self.constant(-inner.literal if negative else inner.literal)
        number = self.arithmetic(node.operand)
        return Compiled(-number.expression if negative else number.expression, "number", number.numeric_text)

    def arithmetic(self, node: ast.expr) -> Compiled:
        number = self.number(self.compile(node), self.words(node))
        return Compiled(number.expression.cast(pl.Float64), "number", number.numeric_text)

    def number(self, value: Compiled, words: str) -> Compiled:
        """The value as a number: Int64 as it is, else Float64 with null for what is none."""
        if value.kind in ("integer", "number"):
            return value
        if value.kind == "null":
            return Compiled(pl.lit(None, pl.Float64), "number")
        if value.kind == "boolean":
            return Compiled(value.expression.cast(pl.Int64), "integer", value.numeric_text)
        if value.kind == "text" and not isinstance(value.literal, str):
            read = finite_or_null(value.expression.str.strip_chars().cast(pl.Float64, strict=False))
            return Compiled(read, "number", value.numeric_text | frozenset(value.expression.meta.root_names()))
        raise SchemaError(
            f"{self.where}: `{words}` in `{self.source.text[:200]}` is no number, and cannot be read as one."
        )

    def boolean(self, node: ast.expr) -> Compiled:
        value = self.compile(node)
        if value.kind == "null":
            return Compiled(pl.lit(None, pl.Boolean), "boolean")
        if value.kind != "boolean":
            raise SchemaError(
                f"{self.where}: `{self.words(node)}` stands where true or false is wanted; "
                f"compare it with something, as `{self.words(node)} > 0`."
            )
        return value

    def text(self, node: ast.expr) -> Compiled:
        return self.as_text(self.compile(node), self.words(node))

    def as_text(self, value: Compiled, words: str) -> Compiled:
        if value.kind == "other":
            raise SchemaError(
                f"{self.where}: `{words}` holds neither text nor numbers; only `is None` may be asked of it."
            )
        expression = value.expression
        if value.kind == "number":
            expression = float_text(expression)
        return Compiled(expression.cast(pl.String), "text", value.numeric_text)

    def comparisons(self, node: ast.Compare) -> Compiled:
        nodes = [node.left, *node.comparators]
        parts = [self.compare(a, op, b) for a, op, b in zip(nodes, node.ops, nodes[1:], strict=False)]
        expression = functools.reduce(operator.and_, (p.expression for p in parts))
        return Compiled(expression, "boolean", frozenset().union(*(p.numeric_text for p in parts)))

    def compare(self, left: ast.expr, op: ast.cmpop, right: ast.expr) -> Compiled:
        if isinstance(op, (ast.Is, ast.IsNot)):
            if not (isinstance(right, ast.Constant) and right.value is None):
                raise SchemaError(f"{self.where}: `is` may be followed by None only; use == to compare.")
            value = self.compile(left)
            null = value.expression.is_null()
            return Compiled(~null if isinstance(op, ast.IsNot) else null, "boolean", value.numeric_text)
        if isinstance(op, (ast.In, ast.NotIn)):
            found = self.within(left, right)
            return Compiled(
                ~found.expression if isinstance(op, ast.NotIn) else found.expression, "boolean", found.numeric_text
            )
        if any(isinstance(side, ast.Constant) and side.value is None for side in (left, right)):
            raise SchemaError(f"{self.where}: nothing equals None; write `is None` or `is not None`.")
        a, b = self.meet(
            self.compile(left), self.compile(right), type(op) in _EQUALITY, (self.words(left), self.words(right))
        )
        operation = (_EQUALITY | _ORDERING)[type(op)]
        return Compiled(operation(a.expression, b.expression), "boolean", a.numeric_text | b.numeric_text)

    def meet(self, a: Compiled, b: Compiled, equality: bool, words: tuple[str, str]) -> tuple[Compiled, Compiled]:
        """Both sides of a comparison in one type."""
        kinds = {a.kind, b.kind}
        if "other" in kinds:
            if a.kind == b.kind and a.literal is None and b.literal is None:
                return a, b  # two moments, two dates
            raise SchemaError(f"{self.where}: `{words[0]}` and `{words[1]}` cannot be compared; their types differ.")
        if kinds <= {"text", "null"}:
            return self.as_text(a, words[0]), self.as_text(b, words[1])
        for value in (a, b):
            if isinstance(value.literal, str):  # a word beside a number or a truth
                if _readable(value.literal) and "boolean" not in kinds:
                    a, b = (self.constant(float(v.literal)) if v is value else v for v in (a, b))  # type: ignore[arg-type]
                    break
                if not equality:
                    raise SchemaError(f'{self.where}: "{value.literal}" is compared with a number, and is none.')
                return self.as_text(a, words[0]), self.as_text(b, words[1])
        if kinds == {"text", "boolean"}:
            return self.truth(a), self.truth(b)
        return self.number(a, words[0]), self.number(b, words[1])

    def truth(self, value: Compiled) -> Compiled:
        if value.kind == "boolean":
            return value
        word = value.expression.str.strip_chars().str.to_lowercase()
        read = pl.when(word.is_in(["true", "1"])).then(True).when(word.is_in(["false", "0"])).then(False)
        return Compiled(read, "boolean", value.numeric_text)

    def within(self, left: ast.expr, right: ast.expr) -> Compiled:
        if not isinstance(right, (ast.List, ast.Tuple, ast.Set)) or not right.elts:
            raise SchemaError(
                f"{self.where}: `in` wants a list of constants, as `in [1, 2]`; for a part of a text use contains()."
            )
        value = self.compile(left)
        literals = [self.compile(node).literal for node in right.elts]
        words = [x for x in literals if isinstance(x, str)]
        numbers = [x for x in literals if isinstance(x, (int, float)) and not isinstance(x, bool)]
        if len(words) + len(numbers) < len(literals):
            raise SchemaError(f"{self.where}: a list after `in` may hold numbers and strings only.")
        if value.kind in ("integer", "number"):
            numbers += [float(x) for x in words if _readable(x)]
            words = [x for x in words if not _readable(x)]
        tests, read = [], value.numeric_text
        if numbers:
            number = self.number(value, self.words(left))
            whole = number.kind == "integer" and all(isinstance(x, int) for x in numbers)
            members = pl.lit(
                numbers if whole else [float(x) for x in numbers], dtype=pl.List(pl.Int64 if whole else pl.Float64)
            )
            tests.append(number.expression.cast(pl.Int64 if whole else pl.Float64).is_in(members))
            read |= number.numeric_text
        if words:
            tests.append(
                self.as_text(value, self.words(left)).expression.is_in(pl.lit(words, dtype=pl.List(pl.String)))
            )
        return Compiled(functools.reduce(operator.or_, tests), "boolean", read)

    def call(self, node: ast.Call) -> Compiled:
        name = node.func.id if isinstance(node.func, ast.Name) else None
        if name not in FUNCTIONS:
            raise SchemaError(
                f"{self.where}: `{self.words(node.func)}(...)` is no function here; "
                f"there are {', '.join(FUNCTIONS.values())}."
            )
        wanted = 2 if name in ("startswith", "endswith", "contains") else 1
        if len(node.args) != wanted or node.keywords or any(isinstance(a, ast.Starred) for a in node.args):
            raise SchemaError(f"{self.where}: `{self.words(node)}`: it is called as {FUNCTIONS[name]}.")
        if name == "abs":
            number = self.arithmetic(node.args[0])
            return Compiled(number.expression.abs(), "number", number.numeric_text)
        texts = [self.text(argument) for argument in node.args]
        first, read = texts[0].expression, frozenset[str]().union(*(t.numeric_text for t in texts))
        match name:
            case "lower":
                return Compiled(first.str.to_lowercase(), "text", read)
            case "upper":
                return Compiled(first.str.to_uppercase(), "text", read)
            case "length":
                return Compiled(first.str.len_chars().cast(pl.Int64), "integer", read)
            case "startswith":
                return Compiled(first.str.starts_with(texts[1].expression), "boolean", read)
            case "endswith":
                return Compiled(first.str.ends_with(texts[1].expression), "boolean", read)
        return Compiled(first.str.contains(texts[1].expression, literal=True), "boolean", read)

    def words(self, node: ast.expr) -> str:
        text = ast.get_source_segment(self.source.text, node) or ""
        for placeholder, name in self.source.quoted.items():
            text = text.replace(placeholder, f"`{name}`")
        return text[:200]

    def refused(self, node: ast.expr) -> SchemaError:
        what = type(node.op).__name__ if isinstance(node, (ast.BinOp, ast.UnaryOp)) else type(node).__name__
        return SchemaError(
            f"{self.where}: `{self.words(node)}` is not allowed ({what}). An expression may hold columns, numbers, "
            f"strings, + - * / %, comparisons, in [...], is None, and, or, not, and {', '.join(FUNCTIONS)}."
        )


def _readable(text: str) -> bool:
    try:
        return abs(float(text)) <= 1e300
    except ValueError:
        return False
