"""Likeness of items by what is said of them."""

from __future__ import annotations

import math
import re
from collections import Counter

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from desireline.classical.content import WORDS, Content
from desireline.evaluation.queries import Histories

DAY = 86_400_000_000


def histories(*lines: list[int]) -> Histories:
    offsets = np.cumsum([0, *map(len, lines)]).astype(np.int64)
    item = np.array([i for line in lines for i in line], np.int32)
    return Histories(offsets, item, np.arange(len(item), dtype=np.int64) * DAY, np.full(len(lines), 900 * DAY))


def likeness(texts: list[str | None]) -> np.ndarray:
    """Cosines of TF-IDF, word by word, as the books write it."""
    words = [Counter(re.findall(r"[a-z0-9]+", (text or "").lower())) for text in texts]
    described = max(2, sum(bool(w) for w in words))
    held = Counter(word for w in words for word in w)
    vectors = [
        {t: (1 + math.log(n)) * math.log(described / held[t]) / math.log(described) for t, n in w.items()}
        for w in words
    ]
    norms = [math.sqrt(sum(v * v for v in vector.values())) or 1.0 for vector in vectors]
    return np.array(
        [
            [
                sum(v * b.get(t, 0) for t, v in a.items() if held[t] > 1) / m / n
                for b, n in zip(vectors, norms, strict=True)
            ]
            for a, m in zip(vectors, norms, strict=True)
        ]
    )


@given(
    st.lists(
        st.none() | st.lists(st.sampled_from(["red", "Blue", "lamp", "of", "42"]), max_size=6).map(" ".join), min_size=1
    )
)
def test_likeness_of_texts_is_the_cosine_of_their_words(texts):
    model = Content(age=1.0, texts=[pl.Series(texts, dtype=pl.String)])
    model.fit(histories([]), len(texts) + 2)
    scores = model.score(histories(*([n + 2] for n in range(len(texts)))))
    np.testing.assert_allclose(scores[:, 2:], likeness(texts), atol=1e-5)


def test_an_item_that_nobody_had_stands_above_all_that_share_nothing():
    """Item 6 was never had, item 5 by everybody; a history of the lamp 2 asks for lamps."""
    titles = pl.Series(["red lamp", "teapot", "cup", "saucer", "green lamp"])
    kind = pl.Series(["light", "table", "table", "table", "light"])
    model = Content(texts=[titles], categories=[kind])
    model.fit(histories(*[[5, 3, 5]] * 9, [2]), 7)
    scores = model.score(histories([2]))[0]
    assert np.argsort(-scores[2:])[:2].tolist() == [0, 4]
    assert scores[6] > 0.3
    assert scores[5] < 1e-5


def test_a_rare_category_says_more_than_a_common_one():
    kinds = ["common"] * 6 + ["rare"] * 2 + [None] * 4
    model = Content(age=1.0, categories=[pl.Series(kinds, dtype=pl.String)])
    model.fit(histories([]), len(kinds) + 2)
    common, rare, none = model.score(histories([2], [8], [11]))
    assert common[3] == pytest.approx(math.log(8 / 6) / math.log(8), abs=1e-6)
    assert rare[9] == pytest.approx(math.log(8 / 2) / math.log(8), abs=1e-6)
    assert none[12] == common[9] == 0  # a missing value is shared with nobody


def test_chinese_is_read_by_characters():
    model = Content(texts=[pl.Series(["红色手机", "手机壳", "红茶", "茶杯", "书"])])
    model.fit(histories([]), 7)
    phone = model.score(histories([2]))[0]
    assert phone[3] > phone[4] > 0
    assert phone[5] == phone[6] == 0


def test_later_events_count_more_and_fame_favours_what_is_had():
    kinds = [pl.Series(["a", "a", "b", "b", "c", "d"])]
    model = Content(age=5.0, fame=0.0, categories=kinds)
    model.fit(histories([3, 3, 3, 5]), 8)
    scores = model.score(histories([2, 4], [4, 2]))
    assert scores[0, 5] > scores[0, 3]
    assert scores[1, 3] > scores[1, 5]
    famous = Content(age=5.0, fame=1.0, categories=kinds)
    famous.fit(histories([3, 3, 3, 5]), 8)
    assert famous.score(histories([2, 4]))[0, 3] > famous.score(histories([2, 4]))[0, 5]


def test_a_long_text_keeps_its_weightiest_words():
    common = [f"w{n}" for n in range(100)]
    texts = [" ".join(common), " ".join(common), " ".join(["odd", *common]), "odd", *["w1 w2"] * 8]
    model = Content(texts=[pl.Series(texts)])
    model.fit(histories([]), len(texts) + 2)
    assert np.diff(model.about.indptr).max() == WORDS
    assert model.score(histories([5]))[0, 4] > 0  # by `odd`, the rarest of them
