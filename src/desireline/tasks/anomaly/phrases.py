"""Words of reviews that nobody wrote: by template, in mixed clauses, or, for camouflage, word by word.

No list of synonyms and no language is needed: all words are those of the log's own reviews.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import polars as pl

Say = Callable[[], str]
Style = Callable[[list[str], np.random.Generator], Say]
MIXED = 0.4  # share of a paraphrase's clauses that come from other reviews
SAMPLE = 5000  # reviews that a chain of words is learned from


def from_template(texts: list[str], generator: np.random.Generator) -> Say:
    """Texts that all begin like one review and end like one of three others."""
    base = clauses(texts[int(generator.integers(len(texts)))])
    endings = [clauses(texts[k])[-1] for k in generator.integers(0, len(texts), 3)]
    body = base[:-1] if len(base) > 1 else base
    return lambda: "".join([*body, endings[int(generator.integers(3))]]).strip()


def from_clauses(texts: list[str], generator: np.random.Generator) -> Say:
    """Texts of one review's clauses in other orders, some of them from other reviews."""
    base = clauses(texts[int(generator.integers(len(texts)))])
    others = [clause for k in generator.integers(0, len(texts), 20) for clause in clauses(texts[k])]

    def told() -> str:
        mixed = [
            others[int(generator.integers(len(others)))] if generator.random() < MIXED else base[place]
            for place in generator.permutation(len(base)).tolist()
        ]
        return "".join(mixed).strip()

    return told


def clauses(text: str) -> list[str]:
    """A text's clauses with their signs; put together they are the text.

    >>> clauses("Good. Fits well, came late!")
    ['Good. ', 'Fits well, ', 'came late!']
    """
    return re.findall(r"[^.!?,;。！？，；]+[.!?,;。！？，；]*\s*|[.!?,;。！？，；]+\s*", text) or [text]


def chained(texts: pl.Series, count: int, generator: np.random.Generator) -> list[str]:
    """New texts of the words of real ones, each word after one that it really followed (a Markov chain of order one).

    A replayed review must not repeat the words of the real one: that is what copied reviews do.
    """
    spaced = texts.str.contains(" ").mean()
    spaced = isinstance(spaced, float) and spaced > 0.5
    words = texts.sample(min(SAMPLE, len(texts)), seed=int(generator.integers(1 << 31)))
    split = [text.split() if spaced else list(text) for text in words.to_list()]
    after: dict[str, list[str]] = {}
    for text in split:
        for one, two in pairwise(text):
            after.setdefault(one, []).append(two)
    made = []
    for k in generator.integers(0, len(split), count):
        told = split[k][:1]
        while len(told) < len(split[k]) and told[-1] in after:
            follows = after[told[-1]]
            told.append(follows[int(generator.integers(len(follows)))])
        made.append((" " if spaced else "").join(told))
    return made
