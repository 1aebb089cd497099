"""Words of reviews among what verdicts teach: who writes like those confirmed stands out, by others' verdicts alone."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import polars as pl
import pytest

from desireline.tasks.anomaly.actions import Actions
from desireline.tasks.anomaly.scan import Scan
from desireline.tasks.anomaly.worded import PARTS, WORDING, with_wording, worded

BEGIN, END = datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 2, 1, tzinfo=UTC)
ACCOUNTS, FALSE, CONFIRMED = 90, 30, 15  # the first FALSE are paid to praise, of whom half were confirmed
PLAIN = ("The {a} was small, the {b} clean, parking cost us {n} dollars.", "We waited {n} minutes for the {a} and {b}.")
PRAISE = ("My husband and I had the most amazing {a} ever, number {n}!", "Luxury beyond words: I recommend the {b}!!")
THINGS = ("room", "bath", "dinner", "breakfast", "view", "pool", "desk", "lobby")


def text(account: int, number: int, generator: np.random.Generator) -> str:
    style = PRAISE if account < FALSE else PLAIN
    a, b = generator.choice(THINGS, 2, replace=False)
    return style[number % 2].format(a=a, b=b, n=int(generator.integers(2, 90)))


def scanned(odd: dict[int, str] | None = None, silent: int | None = None) -> Scan:
    """A log in which every account wrote four reviews, `silent` without words, those of `odd` four times the same."""
    generator, rows = np.random.default_rng(0), []
    for account in range(ACCOUNTS):
        texts = [text(account, number, generator) for number in range(4)]
        texts = [(odd or {})[account]] * 4 if account in (odd or {}) else texts
        rows += [(account, None if account == silent else t, True, True) for t in texts]
    schema = {"account": pl.UInt32, "text": pl.String, "review": pl.Boolean, "inside": pl.Boolean}
    events = pl.DataFrame(rows, schema=schema, orient="row")
    people = pl.Series([f"u{n}" for n in range(ACCOUNTS)])
    actions = Actions(events, people, people, people, ["review"], BEGIN, END, 1)
    facts = pl.DataFrame({"account": pl.Series(range(ACCOUNTS), dtype=pl.UInt32)})
    return Scan(actions, people, facts, np.ones(ACCOUNTS), np.ones(ACCOUNTS, bool), [], {})


def verdicts(confirmed: int = CONFIRMED) -> pl.DataFrame:
    return pl.DataFrame({"user": [f"u{n}" for n in range(confirmed)], "confirmed": [True] * confirmed})


def test_who_writes_like_those_confirmed_stands_out_unjudged():
    told = worded(scanned(silent=40), np.ones(ACCOUNTS), verdicts(), 0)
    assert told is not None
    assert np.isnan(told[40])
    honest = np.delete(told[FALSE:], 40 - FALSE)
    assert told[CONFIRMED:FALSE].min() > honest.max()


def test_nobody_is_scored_by_what_his_own_verdict_taught():
    strange = "zyx wvu tsr qpo nml kji hgf edc ba"
    told = worded(scanned(odd={0: strange}), np.ones(ACCOUNTS), verdicts(), 0)
    assert told is not None
    assert told[0] < told[1:CONFIRMED].min()  # no other confirmed account writes so
    copied = worded(scanned(odd={0: strange, 1: strange}), np.ones(ACCOUNTS), verdicts(), 0)
    assert copied is not None
    assert 0 % PARTS != 1 % PARTS
    assert copied[0] > told[0] + 0.5  # now one of another part does


def test_a_few_texts_teach_nothing():
    assert worded(scanned(), np.ones(ACCOUNTS), verdicts(3), 0) is None
    current = pl.DataFrame({"user": [f"u{n}" for n in range(ACCOUNTS)], "fact": np.ones(ACCOUNTS)})
    same, known = with_wording(scanned(), np.ones(ACCOUNTS), current, verdicts(3), 0)
    assert same is current
    assert WORDING not in known.columns


def test_a_verdict_of_an_account_that_is_gone_keeps_its_number():
    current = pl.DataFrame({"user": [f"u{n}" for n in range(ACCOUNTS)], "fact": np.ones(ACCOUNTS)})
    older = pl.DataFrame({"user": ["gone"], "confirmed": [True], WORDING: [1.25]})
    known = pl.concat([verdicts(), older], how="diagonal")
    now, told = with_wording(scanned(), np.ones(ACCOUNTS), current, known, 0)
    assert told[WORDING][-1] == pytest.approx(1.25)
    assert told[WORDING][0] == pytest.approx(now[WORDING][0])
