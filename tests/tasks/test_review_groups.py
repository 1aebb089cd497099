"""Reviews that were written together, on a made-up shop."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl

from desireline.events.clean import Limits
from desireline.events.frame import bucket_expression, frame_schema
from desireline.schema.model import EventSpec, FieldSpec, Schema, TimeSpec
from desireline.tasks.anomaly.actions import Actions, actions_of
from desireline.tasks.anomaly.groups import find_groups
from desireline.tasks.anomaly.review_groups import review_groups

SCHEMA = Schema(
    user="u",
    time=TimeSpec(column="t"),
    event=EventSpec(column="e"),
    item="i",
    fields={"rating": FieldSpec(column="r", kind="number"), "words": FieldSpec(column="w", kind="text")},
    types={"view": {"roles": ["positive"]}, "review": {"roles": ["explicit"]}},
)
START, CUT, END = (datetime(2024, month, 1, tzinfo=UTC) for month in (1, 4, 5))
WORDS = [f"word{n}" for n in range(400)]


def sentence(generator: np.random.Generator, length: int = 25) -> str:
    return " ".join(generator.choice(WORDS, length))


def honest(generator: np.random.Generator, count: int = 1200) -> list[dict]:
    """Reviews by everybody, of 40 items, of which the first are talked about most."""
    span = (END - START).total_seconds()
    return [
        {
            "user": f"u{generator.integers(300)}",
            "time": START + timedelta(seconds=float(generator.uniform(0, span - 1))),
            "item": f"i{int(40 * generator.uniform() ** 2)}",
            "rating": float(generator.integers(1, 6)),
            "words": sentence(generator),
        }
        for _ in range(count)
    ]


def log(rows: list[dict]) -> Actions:
    frame = pl.DataFrame(rows).with_columns(
        event_id=pl.int_range(pl.len()), event=pl.lit("review"), value=pl.lit(None, pl.Float64), order=pl.lit(0)
    )
    frame = frame.with_columns(bucket=bucket_expression(pl.col("user")))
    frame = frame.select(pl.col(name).cast(kind) for name, kind in frame_schema(SCHEMA).items())
    return actions_of(frame, SCHEMA, Limits(resolution_us=1_000_000), CUT, END)


def burst(generator: np.random.Generator, texts: list[str], accounts: int = 15, item: str = "i35") -> list[dict]:
    begin = CUT + timedelta(days=9)
    return [
        {
            "user": f"new{n}",
            "time": begin + timedelta(hours=float(generator.uniform(0, 20))),
            "item": item,
            "rating": 5.0,
            "words": texts[n % len(texts)],
        }
        for n in range(accounts)
    ]


def test_honest_reviews_are_no_group():
    for seed in range(3):
        assert review_groups(log(honest(np.random.default_rng(seed))), 0.05) == []


def test_a_burst_of_reviews_in_own_words_is_found_whole():
    generator = np.random.default_rng(1)
    actions = log(honest(generator) + burst(generator, [sentence(generator) for _ in range(15)]))
    (found,) = [group for group in find_groups(actions) if group.kind == "review"]
    users = {actions.users[account] for account in found.accounts.tolist()}
    assert len({f"new{n}" for n in range(15)} & users) >= 14  # a day that begins with somebody else's may end early
    assert len(users) <= 17  # who honestly reviewed the item in those days is in it too
    assert found.how == ("burst",)
    assert "with 5 stars" in found.reasons[0]
    assert [str(actions.targets[target]) for target in found.targets.tolist()] == ["i35"]


def test_copied_texts_are_found_over_targets_and_weeks():
    generator = np.random.default_rng(2)
    text = sentence(generator, 30)
    rows = [
        {
            "user": f"copy{n}",
            "time": CUT + timedelta(days=2 * n),
            "item": f"i{3 * n}",
            "rating": 5.0,
            "words": f"{text} {sentence(generator, 4)}",
        }
        for n in range(8)
    ]
    actions = log(honest(generator) + rows)
    (found,) = [group for group in find_groups(actions) if group.kind == "review"]
    assert {actions.users[account] for account in found.accounts.tolist()} == {f"copy{n}" for n in range(8)}
    assert found.how == ("copied text",)
    assert found.p_value < 1e-3


def test_phrases_that_honest_people_share_make_copies_usual():
    generator = np.random.default_rng(3)
    rows, text = honest(generator), sentence(generator, 30)
    for n in range(0, len(rows), 3):  # a third of all reviews ends in a form's words
        rows[n]["words"] = f"{sentence(generator, 6)} {text}"
    assert [g for g in review_groups(log(rows), 0.05) if g.how == "copied text"] == []


def test_a_new_item_may_be_talked_about():
    generator = np.random.default_rng(4)
    few = burst(generator, [sentence(generator) for _ in range(4)], 4, "brand new")
    assert review_groups(log(honest(generator) + few), 0.01) == []


def test_a_log_without_reviews_has_no_groups_of_them():
    generator = np.random.default_rng(5)
    actions = log(honest(generator, 50))
    quiet = Actions(**{**vars(actions), "events": actions.events.with_columns(review=pl.lit(False))})
    assert review_groups(quiet, 0.5) == []
