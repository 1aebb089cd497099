"""What an item is like: the categories and words that it shares with a history's items, whoever had it before.

The one recommender that speaks of an item which nobody had yet. Two items are as alike as their fields together: a
shared category counts by its rarity, ln(N / n) / ln N where n of N items have it; texts by the cosine of their words'
TF-IDF (Spärck Jones 1972). A history is the decayed sum of its items.

Cost of a question: the items of each word and category that the history's items have, never items × items.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.sparse import csr_array, hstack

from desireline.classical.arrays import FIRST, TAIL, age_rank, counts, matrix, shares
from desireline.classical.products import dense_product
from desireline.classical.sparse_state import from_arrays, narrow, to_arrays
from desireline.evaluation.queries import Histories

WORD = r"\p{Han}|[\p{L}\p{N}--\p{Han}]+"  # Chinese is written without spaces: each character counts as a word
WORDS = 20  # of a text that are kept, those that weigh most
BACK = 8  # lives of a reader's memory, after which an event counts no more


class Content:
    """Items by what they share with those of the history; see the module.

    age    : events over which the reader's memory falls by e
    fame   : exponent of an item's events by which it is favoured; 0 asks for likeness alone. ¼ serves
        Online Retail II, Amazon Beauty and Taobao alike
    categories, texts : the items' fields, each a String series in the order of ids from FIRST on, for `fit` alone.
        Without any, items stand in the order of popularity
    """

    name: ClassVar[str] = "content"
    grid: ClassVar[list[dict[str, Any]]] = [{"age": age} for age in (1.5, 5.0, 25.0, 100.0)]

    def __init__(
        self,
        age: float = 25.0,
        fame: float = 0.25,
        categories: Sequence[pl.Series] = (),
        texts: Sequence[pl.Series] = (),
    ) -> None:
        self.age, self.fame, self.categories, self.texts = age, fame, categories, texts

    def fit(self, train: Histories, items: int) -> None:
        fields = [shared_values(values) for values in self.categories] + [shared_words(texts) for texts in self.texts]
        self._index(csr_array(hstack(fields, format="csr")) if fields else csr_array((items, 1), dtype=np.float32))
        self.favour = ((counts(train, items) + 1) ** self.fame).astype(np.float32)
        self.popular = shares(train, items)

    def _index(self, about: csr_array) -> None:
        self.about = narrow(about)  # [items, terms]
        self.holders = narrow(csr_array(about.T.tocsr()))  # [terms, items]

    def score(self, asked: Histories) -> NDArray[np.float32]:
        rank = age_rank(asked)
        weights = np.where(rank < BACK * self.age, np.exp(-rank / self.age), 0)
        reader = matrix(asked, len(self.popular), weights)
        reader.eliminate_zeros()
        alike = dense_product(csr_array(reader @ self.about), self.holders)
        alike *= self.favour
        return alike + TAIL * self.popular

    def state(self) -> dict[str, NDArray[Any]]:
        return to_arrays("about", self.about) | {"favour": self.favour, "popular": self.popular}

    def load(self, state: dict[str, NDArray[Any]]) -> None:
        self._index(from_arrays("about", state))
        self.favour, self.popular = state["favour"], state["popular"]

    @property
    def parameters(self) -> int:
        return int(self.about.nnz)


def shared_values(values: pl.Series) -> csr_array:
    """float32 [items, values]: a category as items' weights, the product of two items with one value its rarity."""
    held = _by_term(values.to_frame("term").with_row_index("item", offset=FIRST).drop_nulls())
    return _as_matrix(held.with_columns(weight=pl.col("rarity").sqrt()), len(values) + FIRST)


def shared_words(texts: pl.Series) -> csr_array:
    """float32 [items, words]: TF-IDF, each text's of length 1, of the words that several texts have."""
    words = pl.col("term").str.to_lowercase().str.extract_all(WORD)
    lines = texts.to_frame("term").with_row_index("item", offset=FIRST).with_columns(words).explode("term").drop_nulls()
    held = _by_term(lines).with_columns(weight=(1 + pl.col("times").log()) * pl.col("rarity"))
    held = held.sort("item", "weight", "term", descending=[False, True, False])
    held = held.group_by("item", maintain_order=True).head(WORDS)
    length = pl.col("weight").pow(2).sum().over("item").sqrt()
    return _as_matrix(held.with_columns(weight=pl.col("weight") / length), len(texts) + FIRST)


def _by_term(lines: pl.DataFrame) -> pl.DataFrame:
    """From lines of item and term: each pair once, the times it stands, the items of the term, and its rarity."""
    described = max(2, lines["item"].n_unique())
    pairs = lines.group_by("item", "term").len("times").with_columns(items=pl.len().over("term"))
    rarity = (described / pl.col("items")).log() / math.log(described)
    return pairs.with_columns(rarity=rarity).filter(pl.col("rarity") > 0)


def _as_matrix(held: pl.DataFrame, items: int) -> csr_array:
    """The weights of terms that several items have: one of a single item tells of no other."""
    held = held.filter(pl.col("items") > 1).sort("item", "term")
    term = held["term"].rank("dense").to_numpy().astype(np.int64) - 1
    weights = held["weight"].to_numpy().astype(np.float32)
    return csr_array(
        (weights, (held["item"].to_numpy().astype(np.int64), term)), shape=(items, int(term.max(initial=0)) + 1)
    )
