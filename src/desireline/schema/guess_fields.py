"""Guess which of the remaining columns are fields, of which kind, and whether they describe the event or its item."""

from __future__ import annotations

import re

import polars as pl

from desireline.schema.model import FieldSpec, Kind
from desireline.schema.names import field_name, plain, words
from desireline.schema.presets import RATING_WORDS
from desireline.schema.sample import Column, Sample

FEW = 20  # so many different whole numbers may as well be names of something
CODES = {
    "id",
    "ids",
    "code",
    "no",
    "number",
    "nr",
    "key",
    "zip",
    "postcode",
    "category",
    "class",
    "type",
    "group",
    "level",
}
CODES |= {
    "segment",
    "cluster",
    "brand",
    "label",
    "flag",
    "status",
    "channel",
    "store",
    "shop",
    "country",
    "region",
    "city",
}
CODES |= {"invoice", "order", "basket", "receipt", "ticket", "session", "visit", "bill", "account", "customer", "user"}
CODE_ENDING = r"(?:id|编号|订单|类别|类目|品类|分类)$"
KEPT = ("propensity", "propensityscore", "pscore", "actionprobability", "actionprob")  # wanted even when constant
SPANS = {"duration", "dwell", "seconds", "elapsed", "secs"}
SPANS |= {
    "dwelltime",
    "watchtime",
    "timespent",
    "timeonpage",
    "responsetime",
    "playtime",
    "停留时长",
    "时长",
    "观看时长",
}
_FILES: tuple[tuple[Kind, str], ...] = (
    ("image", r"(?i)\.(?:jpe?g|png|webp|gif|bmp)(?:\?.*)?$"),
    ("audio", r"(?i)\.(?:mp3|wav|flac|ogg|m4a|opus)(?:\?.*)?$"),
)


def guess_fields(view: Sample, item: str | None) -> dict[str, FieldSpec]:
    """Fields of the columns that have no meaning yet, in the file's order; the guesses go into the sample's notes."""
    view.leave_out((c for c in view.free if c.is_nested), "lists and structures")
    view.leave_out((c for c in view.free if not c.filled), "empty in the sample")
    view.leave_out((c for c in view.free if _is_constant(c, view)), "the same in every row of the sample")
    view.leave_out((c for c in view.free if _is_moment(c)), "a further time")
    view.leave_out((c for c in view.free if _is_unique(c, view)), "different in nearly every row, so nothing repeats")
    fields: dict[str, FieldSpec] = {}
    for column in view.free:
        name = field_name(column.name, fields)
        kind = _kind(view, column, name)
        of_item = item is not None and _depends(view.column(item), column, kind)
        fields[name] = FieldSpec(column=column.name, kind=kind, of="item" if of_item else "event")
        if of_item:
            view.note(f"fields.{name}", f"of the item: rows with the same {item} have the same {column.name}")
    return fields


def _is_constant(column: Column, view: Sample) -> bool:
    return column.distinct == 1 and view.height > 1 and plain(column.name) not in KEPT


def _is_moment(column: Column) -> bool:
    dtype = column.values.dtype
    return dtype.is_temporal() and dtype != pl.Duration


def _is_unique(column: Column, view: Sample) -> bool:
    named = column.is_string and column.numbers is None and not column.is_text
    counted = column.is_whole and bool(set(words(column.name)) & CODES)
    return (named or counted) and view.height >= 100 and column.distinct > 0.9 * view.height and not _file_kind(column)


def _kind(view: Sample, column: Column, name: str) -> Kind:
    key = f"fields.{name}"
    parts = set(words(column.name))
    if isinstance(column.values.dtype, pl.Duration):
        return "duration"
    if column.numbers is None:
        kind = _file_kind(column) or ("text" if column.is_text else "category")
        if kind != "category":
            view.note(key, f"{kind}, as {str(column.values.drop_nulls()[0])[:40]!r}")
        return kind
    if (
        column.leads_with_zero
        or parts & CODES
        or re.search(r"(?:id|编号|订单|类别|类目|品类|分类)$", plain(column.name))
    ):
        return "category"
    if (parts | {plain(column.name)}) & SPANS:
        view.note(key, "a duration by its name; its unit is taken to be seconds", True)
        return "duration"
    if plain(column.name) in RATING_WORDS:
        view.note(key, "stars by its name: a number")
        return "number"
    if _is_code(view, column):
        return "category"
    # A source with types keeps whole numbers as floats only when they are amounts, or when some are missing.
    amounts = column.values.dtype.is_float() and not column.empty
    if column.is_whole and not amounts and column.distinct <= FEW and column.distinct < 0.5 * column.filled:
        text = f"{column.distinct} different whole numbers, taken as a category; write kind: number if they are amounts"
        view.note(key, text, column.distinct > 2)
        return "category"
    return "number"


def _is_code(view: Sample, column: Column) -> bool:
    """Text that looks like whole numbers and is none: the source has types and chose text, or not every cell is one."""
    if not (column.is_string and column.is_whole):
        return False
    typed = any(other.values.dtype.is_numeric() for other in view.columns)
    return typed or (column.numbers is not None and len(column.numbers) < column.filled)


def _file_kind(column: Column) -> Kind | None:
    if not column.is_string:
        return None
    cells = column.values.drop_nulls().head(1_000)
    return next((kind for kind, ending in _FILES if cells.str.contains(ending).mean() == 1), None)


def _depends(item: Column, column: Column, kind: Kind) -> bool:
    """Whether the item settles the column: knowing it avoids nine in ten of the errors of always saying the commonest.

    Spelling varies in text, so there half the errors will do. Items that occur once say nothing and do not count.
    """
    pairs = pl.DataFrame({"item": item.values, "value": column.values}).drop_nulls()
    counts = pairs.group_by("item", "value").len().with_columns(rows=pl.col("len").sum().over("item"))
    counts = counts.filter(pl.col("rows") >= 2)
    total = int(counts["len"].sum())
    if total < 20:
        return False
    common = counts.group_by("value").agg(pl.col("len").sum()).sort("len")["len"][-1]
    settled = counts.group_by("item").agg(pl.col("len").max())["len"].sum()
    wrong, wrong_given_item = total - int(common), total - int(settled)
    return wrong > 0 and wrong_given_item <= (0.5 if kind == "text" else 0.1) * wrong
