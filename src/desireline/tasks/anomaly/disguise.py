"""What makes planted events look like the log's own: ids, values of one account or one order alone, words, order.

A field's value that only one account ever has (an invoice's number, a device) cannot be copied: a copy would be seen
with two accounts, as no real one is. It is made anew in the shape of the real ones, near those of the same time where
they count upwards. What all accounts of a country share is kept with the account that is replayed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from string import ascii_lowercase, ascii_uppercase, digits

import numpy as np
import polars as pl
from numpy.typing import NDArray

from desireline.core.errors import DataError
from desireline.events.frame import TIME, bucket_expression, frame_schema
from desireline.events.identity import NONE_KNOWN, identify
from desireline.schema.model import Schema
from desireline.tasks.anomaly.actions import rating_field, text_field
from desireline.tasks.anomaly.phrases import chained
from desireline.tasks.anomaly.replay import Material

MOSTLY = 0.95  # share of values, accounts or rows from which on a field counts as bound to something
PROBES = 1000  # numbers after a real one that are tried for a free one
CLASSES = (digits, ascii_lowercase, ascii_uppercase)


def disguised(
    of: Material,
    draft: pl.DataFrame,
    names: Sequence[str],
    sources: NDArray[np.int64],
    schema: Schema,
    generator: np.random.Generator,
) -> pl.DataFrame:
    """An event frame of a draft, with its columns `account` and `act` last; ascending by user and ORDER.

    names   : the user id of each account of the draft
    sources : int64, the real user that each one replays, or is

    An event that the log holds already, in every column, is left out.
    """
    frame = of.events[draft["template"].to_numpy()].select("value", *schema.fields)
    kind, account = draft["type"].to_numpy(), draft["account"].to_numpy()
    priced = np.zeros(len(of.types), bool)
    priced[np.unique(of.type[of.events["value"].is_not_null().to_numpy()])] = True
    user = pl.Series("user", names, pl.String)[account]
    item = draft["item"].to_numpy()
    frame = frame.with_columns(
        user=user,
        time=draft["time"].cast(TIME),
        event=pl.Series(of.types)[kind],
        item=pl.Series(np.where(item < 0, 0, item)).replace_strict(np.arange(len(of.items)), of.items)
        if len(of.items)
        else pl.lit(None, pl.String),
        value=pl.when(pl.Series(priced[kind])).then("value"),
        account=draft["account"],
        act=draft["act"],
        alias=pl.lit(None, pl.String),
    ).with_columns(item=pl.when(pl.Series(item >= 0)).then("item"))
    frame = _told(of, frame, draft, schema, generator)
    for name, field in schema.fields.items():
        if (field.kind, field.of) == ("category", "event"):
            frame = frame.with_columns(_bound(of, frame, name, sources, generator))
    frame = frame.with_columns(order=_order(of, frame, schema), bucket=bucket_expression(pl.col("user")))
    frame = frame.sort("user", "time", "order", maintain_order=True)
    return _identified(of, frame, schema, generator).select(*frame_schema(schema), "account", "act")


def unused_names(real: pl.Series, taken: set[str], count: int, generator: np.random.Generator) -> list[str]:
    """Ids as like to real ones as can be (length, letters at each place, range of numbers); from now on they are taken.

    Where all such ids are taken, other digits or letters at the places that vary, then at all, then one place more.

    >>> unused_names(pl.Series(["u10", "u11", "u19", "u28"]), {"u12"}, 2, np.random.default_rng(0))[0][0]
    'u'
    """
    made: list[str] = []
    taken.update(real)
    shapes = real.str.len_chars().to_numpy()
    like, wanted = np.unique(generator.choice(shapes, count), return_counts=True)
    for length, number in zip(like.tolist(), wanted.tolist(), strict=True):
        some = real.filter(pl.Series(shapes == length))
        alphabets = [sorted(set(some.str.slice(place, 1))) for place in range(length)]
        counted = some.str.contains(r"^\D*\d+$").all() and some.str.replace(r"\d+$", "").n_unique() == 1
        low, high = (min(some), max(some)) if counted else ("", "")
        for alphabet in _ever_wider(alphabets):
            for _ in range(20):
                drawn = np.array([generator.choice(letters, 4 * number) for letters in alphabet])
                for name in map("".join, drawn.T.tolist()):
                    inside = alphabet is not alphabets or not counted or low <= name <= high
                    if number and inside and name not in taken:
                        taken.add(name)
                        made.append(name)
                        number -= 1
            if not number:
                break
        if number:
            raise DataError(f"No {number} free user ids like {some[0]!r} are left: plant fewer accounts.")
    return [made[place] for place in generator.permutation(len(made))]


def _told(
    of: Material, frame: pl.DataFrame, draft: pl.DataFrame, schema: Schema, generator: np.random.Generator
) -> pl.DataFrame:
    """Stars and words: an act's own, a replayed review's own stars and new words."""
    stars, words = rating_field(schema), text_field(schema)
    reviews = of.review if of.review >= 0 else None
    act, own = draft["act"], draft["words"].is_not_null() | draft["stars"].is_not_null()
    silent = act & ~own  # an order that is an act says nothing
    if stars is not None:
        frame = frame.with_columns(pl.when(~silent).then(pl.coalesce(draft["stars"], stars)).alias(stars))
    if words is not None and reviews is not None:
        real = of.events[words].drop_nulls()
        again = (frame[words].is_not_null() & ~act).to_numpy()
        new = draft["words"].to_list()
        for place, text in zip(np.flatnonzero(again), chained(real, int(again.sum()), generator), strict=True):
            new[place] = text
        frame = frame.with_columns(pl.Series(words, new, pl.String))
    return frame


def _bound(
    of: Material, frame: pl.DataFrame, name: str, sources: NDArray[np.int64], generator: np.random.Generator
) -> pl.Series:
    """A category field's values: the account's, or new ones for values that only one account has, else the template's.

    New values are one an account, one a moment and type, or one a session, as the real ones are.
    """
    real = of.events.select("user", "time", value=name).filter(pl.col("value").is_not_null())
    if real.height == 0:
        return frame[name]
    users = real.group_by("user").agg(pl.col("value").n_unique() == 1, pl.col("value").last().alias("last"))
    values = real.group_by("value").agg(
        pl.len(), alone=pl.col("user").n_unique() == 1, moment=pl.col("time").n_unique() == 1
    )
    whose = float((values["alone"] * values["len"]).sum() / real.height) >= MOSTLY
    shaped = values["value"].str.contains(r"^\S*\d\S*$").mean()
    private = whose and isinstance(shaped, float) and shaped >= 0.9  # a query that one person typed is no id
    constant = users["value"].to_numpy().mean() >= MOSTLY
    lasts = dict(zip(users["user"], users["last"], strict=True))
    theirs = pl.Series([lasts.get(of.users[int(source)]) for source in sources], dtype=pl.String)
    own = frame.select(pl.coalesce(theirs[frame["account"].to_numpy()], name).alias(name)).to_series()
    if not private:
        return own if constant else frame[name]
    known = pl.Series([of.users[int(source)] for source in sources], dtype=pl.String)[frame["account"].to_numpy()]
    new = _anew(of, frame, name, constant, values["moment"].to_numpy().mean() >= MOSTLY, generator)
    kept = (frame["user"] == known) if constant else pl.repeat(False, frame.height, eager=True)  # taken over
    filled = pl.select(pl.when(kept).then(own).otherwise(new).alias(name)).to_series()
    return pl.select(pl.when(frame[name].is_not_null()).then(filled).alias(name)).to_series()


def _anew(
    of: Material, frame: pl.DataFrame, name: str, constant: bool, moment: bool, generator: np.random.Generator
) -> pl.Series:
    """New values of a field, one an account, a moment and type, or a session."""
    by = frame.select("account", "time", "event", row=pl.int_range(pl.len())).sort("account", "time")
    silent = (by["time"].diff().dt.total_microseconds() > of.session) | (by["account"].diff() != 0)
    by = by.with_columns(session=silent.fill_null(True).cum_sum())
    groups = by.group_by(["account"] if constant else ["account", "time", "event"] if moment else ["session"])
    told = groups.agg("row", at=pl.col("time").first(), kind=pl.col("event").first()).sort("at", pl.col("row").list[0])
    real = of.events.select("time", "event", value=name).filter(pl.col("value").is_not_null()).sort("time")
    made: list[str] = []
    taken, odd = set(of.known[name].drop_nulls()), []
    past = {key[0]: part for key, part in real.group_by("event", maintain_order=True)}
    for (kind,), part in told.group_by("kind", maintain_order=True):
        like = past.get(kind, real)
        places = like["time"].search_sorted(part["at"]).to_numpy().astype(np.int64) - 1
        for text in like["value"].gather(np.maximum(places, 0)).to_list():
            value = _next_free(text, taken)
            odd += [len(made)] if value is None else []
            made.append(value or "")
            taken.add(value or "")
    told = pl.concat([part for _, part in told.group_by("kind", maintain_order=True)])
    for place, value in zip(odd, unused_names(real["value"].unique().sort(), taken, len(odd), generator), strict=True):
        made[place] = value
    filled = told.with_columns(made=pl.Series(made, dtype=pl.String)).explode("row").sort("row")
    return filled["made"].alias(name)


def _next_free(like: str, taken: set[str]) -> str | None:
    """The next free number after one that counts upwards (`C536379`); None where the text is none, or all are taken."""
    found = re.fullmatch(r"([A-Za-z]{0,4}[-_/#]?)(\d{3,})", like)
    if found is None:
        return None
    prefix, number = found.groups()
    tried = (f"{prefix}{int(number) + step:0{len(number)}}" for step in range(1, PROBES))
    return next((value for value in tried if value not in taken), None)


def _order(of: Material, frame: pl.DataFrame, schema: Schema) -> pl.Series:
    """Ranks at equal times: the type's, else that of the real event before it in time."""
    if schema.tie_break == "event":
        ranks = {name: place for place, name in enumerate(schema.types)}
        return frame["event"].replace_strict(ranks, default=len(ranks), return_dtype=pl.Int64).alias("order")
    real = of.events.select("time", "order").sort("time", "order")
    before = real["time"].search_sorted(frame["time"], side="right").to_numpy().astype(np.int64) - 1
    return real["order"][np.maximum(before, 0)].alias("order")


def _identified(of: Material, frame: pl.DataFrame, schema: Schema, generator: np.random.Generator) -> pl.DataFrame:
    """With ids as `ingest` gives them; without the events that the log holds already."""
    known = of.known["event_id"].sort().to_numpy()
    if schema.event_id is not None:  # the hash of an id that the source declares
        drawn = np.unique(generator.integers(-(1 << 63), (1 << 63) - 1, 2 * frame.height + 8))
        free = generator.permutation(drawn[~np.isin(drawn, known)])
        return frame.with_columns(event_id=pl.Series(free[: frame.height]))
    names = ["user", "time", "event", "item", "value", *schema.fields, *(["alias"] if schema.alias else [])]
    found, _ = identify(frame.select(names), names, NONE_KNOWN, known)
    return frame.with_columns(event_id=pl.Series(found.ids)).filter(pl.Series(found.fresh))


def _ever_wider(alphabets: list[list[str]]) -> list[list[list[str]]]:
    """Letters at each place: those seen, then all of their class where several were, then everywhere, then one more."""

    def whole(letters: list[str]) -> list[str]:
        return sorted({letter for c in CLASSES if set(letters) & set(c) for letter in c} | set(letters))

    varied = [whole(letters) if len(letters) > 1 else letters for letters in alphabets]
    every = [whole(letters) for letters in alphabets]
    return [alphabets, varied, every, [*every, every[-1]] if every else every]
