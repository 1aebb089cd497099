"""Polars expressions that use a value more than once and compute it once."""

from __future__ import annotations

from collections.abc import Callable

import polars as pl


def let(body: Callable[..., pl.Expr], *values: pl.Expr) -> pl.Expr:
    """`body(*values)` with each value computed once.

    Polars computes an expression as often as it is written, so that nested divisions, which look at their divisor
    twice, would cost 2^depth. The fields of a structure are references.
    """
    fields = [f"{k}" for k in range(len(values))]
    bound = pl.struct(value.alias(name) for name, value in zip(fields, values, strict=True))
    return bound.struct.with_fields(body(*map(pl.field, fields)).alias("result")).struct.field("result")


def finite_or_null(number: pl.Expr) -> pl.Expr:
    """The number, null where it is infinite or NaN."""
    return let(lambda x: pl.when(x.is_finite()).then(x), number)


def float_text(number: pl.Expr) -> pl.Expr:
    """Floats as text, whole ones without a point: 17850.0 is "17850", as the integer that it once was; NaN is null."""

    def written(x: pl.Expr) -> pl.Expr:
        whole = (x == x.floor()) & (x.abs() < 2**53)
        text = pl.when(whole).then(x.cast(pl.Int64, strict=False).cast(pl.String)).otherwise(x.cast(pl.String))
        return pl.when(x.is_finite()).then(text)

    return let(written, number)
