"""Whether a text is worded like those known to be false: n-grams of characters and of words, learnt from labels.

Two views, each a linear support vector machine on rows of length 1, because they err on different texts:

- characters: all pieces of 2 to 5 characters, across words too, weighed by (1 + ln count) · IDF. They see endings,
  style and punctuation, and need no segmenter, so that Chinese works as English does.
- words: runs of 1 to 3 words or marks, present or not, weighed by how unlike the two classes use them (NB-SVM: Wang &
  Manning 2012, section 2.3, with the size of their log-count ratio as the weight of a column).

The log odds are the mean of both scores, each in units of its own spread, made a probability by Platt's sigmoid (1999)
on scores of texts that the scoring model never saw, nor any text of their group. All of it is linear in a text's
n-grams: what each adds is known exactly, and is what `telling` shows.

An n-gram is known by a hash of 64 bits, computed over all texts at once: a vocabulary is an array, nothing is pickled,
and among a million n-grams two share a hash by a chance of 1 in 37 million. Cost on one core: 1,600 reviews of 800
characters (5 million n-grams, 142,000 of them in two texts or more) are learnt in 4 s with 0.4 GB, which grows with the
characters, and kept in 3.3 MiB; some 900 a second are scored.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numba
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.sparse import csr_array, diags_array
from scipy.special import expit, logit

from desireline.core.errors import DataError, ModelError

Floats = NDArray[np.float64]
Keys = NDArray[np.uint64]
Ints = NDArray[np.int64]
View = Literal["characters", "words"]

VIEWS: tuple[View, ...] = ("characters", "words")
LENGTHS: dict[View, tuple[int, int]] = {"characters": (2, 5), "words": (1, 3)}
PENALTIES = (1.0, 0.3, 0.1)  # the strongest first: the next starts where it ended
PASSES, SETTLED = 300, 0.01
FOLDS = 5
LEAST = 20  # texts of either class
TEXTS = 2  # that hold an n-gram, for it to count: what one text alone says teaches nothing of others
BLOCK = 1024  # texts scored at once
SEED = 0  # of the deal into folds
ALONE = ((0x3040, 0x30FF), (0x3400, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x3FFFF))  # scripts without spaces
SPACE, MARK, LETTER, SYLLABLE = range(4)
ODD = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True)
class Grams:
    """Every n-gram of a view in N texts, M in all.

    text : int64 [M], which text;  key : uint64 [M], its hash;  start, stop : int64 [M], code points of `Written`
    """

    text: Ints
    key: Keys
    start: Ints
    stop: Ints


@dataclass(frozen=True)
class Written:
    """Texts in one case and one width, one behind the other, each between spaces, and where their words lie.

    code : uint32 [C], code points;  owner : int64 [C], whose text
    start, stop : int64 [W], the code points of each word, run of marks or Chinese character
    """

    code: NDArray[np.uint32]
    owner: Ints
    start: Ints
    stop: Ints

    def grams(self, view: View) -> Grams:
        """The n-grams of a view: its pieces chained into one hash each."""
        starts, stops, piece = self.start, self.stop, self._words()
        if view == "characters":
            starts, piece = np.arange(len(self.code)), _mix(self.code.astype(np.uint64))
            stops = starts + 1
        owner, (shortest, longest) = self.owner[starts], LENGTHS[view]
        key, found = piece, []
        for n in range(1, longest + 1):
            if n > 1:
                key = _mix(key[: max(0, len(piece) - n + 1)] * ODD + piece[n - 1 :])
            here = np.flatnonzero(owner[: len(key)] == owner[len(owner) - len(key) :])
            if n >= shortest:
                found.append((owner[here], key[here], starts[here], stops[here + n - 1]))
        return Grams(*(np.concatenate(column) for column in zip(*found, strict=True)))

    def _words(self) -> Keys:
        """uint64 [W]: a polynomial of the word's code points, mixed."""
        if not len(self.start):
            return np.empty(0, np.uint64)
        length = self.stop - self.start
        place = np.arange(length.sum()) - np.repeat(np.cumsum(length) - length, length)
        power = np.multiply.accumulate(np.full(int(length.max()), ODD))
        value = _mix(self.code[np.repeat(self.start, length) + place].astype(np.uint64)) * power[place]
        return _mix(np.add.reduceat(value, np.cumsum(length) - length))


def written(texts: Sequence[str]) -> Written:
    """Texts as the views read them: lower case, one width (NFKC), single spaces."""
    tidy = [f" {text} " if text else "" for text in map(_tidy, texts)]
    code = np.frombuffer("".join(tidy).encode("utf-32-le", "surrogatepass"), np.uint32)
    owner = np.repeat(np.arange(len(tidy)), [len(text) for text in tidy])
    letters, which = np.unique(code, return_inverse=True)
    kind = np.array([_kind(chr(letter)) for letter in letters], np.int8)[which] if len(code) else np.empty(0, np.int8)
    inner = np.flatnonzero(code == ord("'"))  # never first or last: a text is between spaces
    kind[inner[(kind[inner - 1] == LETTER) & (kind[inner + 1] == LETTER)]] = LETTER  # don't is one word
    new = np.append(True, (kind[1:] != kind[:-1]) | (kind[1:] == SYLLABLE))[: len(kind)]
    edge = np.append(np.flatnonzero(new), len(kind))
    held = kind[edge[:-1]] != SPACE
    return Written(code, owner, edge[:-1][held], edge[1:][held])


def _tidy(text: str) -> str:
    return re.sub(r"\s+", " ", unicodedata.normalize("NFKC", text).lower().replace("\u2019", "'")).strip()


def _kind(letter: str) -> int:
    if any(low <= ord(letter) <= high for low, high in ALONE):
        return SYLLABLE
    if letter.isspace():
        return SPACE
    return LETTER if letter.isalnum() or unicodedata.category(letter)[0] == "M" else MARK


def _mix(x: Keys) -> Keys:
    """A step of SplitMix64 (Steele, Lea & Flood 2014)."""
    x = x + ODD
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@dataclass(frozen=True)
class _Half:
    """One view, learnt: weights of K n-grams.

    key : uint64 [K], ascending;  scale : float64 [K], what an n-gram weighs in a row before the row is made length 1
    weight : float64 [K];  intercept : the score of a row of zeros;  spread : of the scores of unseen texts
    """

    key: Keys
    scale: Floats
    weight: Floats
    intercept: float
    spread: float

    def read(self, page: Written, view: View, texts: int) -> tuple[Grams, Ints, csr_array]:
        """Those n-grams of N texts that are known, the column of each, and the texts as rows [N, K]."""
        grams = page.grams(view)
        known = np.isin(grams.key, self.key)
        grams = Grams(grams.text[known], grams.key[known], grams.start[known], grams.stop[known])
        column = np.searchsorted(self.key, grams.key)
        return grams, column, _rows(view, _table(grams.text, column, texts, len(self.key)), self.scale)


class Wording:
    """Whether a text is worded like those known to be false.

    >>> honest = [f"Room {n} was small, the bath clean, parking cost us {n} dollars." for n in range(30)]
    >>> praise = [f"My husband and I had the most amazing stay ever, number {n}!" for n in range(30)]
    >>> model = Wording()
    >>> model.fit(honest + praise, np.arange(60) >= 30)
    >>> model.log_odds(["An amazing stay!", "The bath was small."]) > 0
    array([ True, False])
    """

    def __init__(self) -> None:
        self.halves: dict[View, _Half] = {}
        self.slope = self.level = 0.0  # Platt's sigmoid over the mean of the halves' scores
        self.base = 0.0  # log odds of false among the texts learnt from

    def fit(self, texts: Sequence[str], false: NDArray[np.bool_], groups: Ints | None = None) -> None:
        """Learn from N texts.

        false : bool [N]
        groups : int64 [N], what a text is about or by whom it is (a shop, an account): calibration and the choice of
            the penalty look at texts of groups that were not learnt from. Left out, equal texts are a group.

        Raises DataError for fewer than 20 texts of either class, or where one group holds all texts of a class.
        """
        fold = _deal(texts, false, groups)
        target = false.astype(np.float64)
        self.base = float(logit(target.mean()))
        page, counts, keys = written(texts), {}, {}
        for view in VIEWS:
            keys[view], counts[view] = _counted(page.grams(view), len(texts))
        unseen = np.zeros((len(PENALTIES), len(VIEWS), len(texts)))
        for part in np.unique(fold):
            seen = fold != part
            for place, view in enumerate(VIEWS):
                rows = _rows(view, counts[view], _scale(view, counts[view][seen], target[seen]))
                planes = _planes(rows[seen], target[seen], PENALTIES)
                unseen[:, place, ~seen] = (rows[~seen] @ planes[:, :-1].T + planes[:, -1]).T
        spread = np.maximum(unseen.std(axis=2), np.finfo(np.float64).tiny)
        sigmoids = [_sigmoid(line, target) for line in (unseen / spread[:, :, None]).mean(axis=1)]
        best = int(np.argmin([loss for _, _, loss in sigmoids]))
        self.slope, self.level, _ = sigmoids[best]
        for place, view in enumerate(VIEWS):
            scale = _scale(view, counts[view], target)
            (plane,) = _planes(_rows(view, counts[view], scale), target, PENALTIES[best : best + 1])
            self.halves[view] = _Half(keys[view], scale, plane[:-1], float(plane[-1]), float(spread[best, place]))

    def log_odds(self, texts: Sequence[str]) -> Floats:
        """float64 [N]: that each text is false, at the share of false texts among those learnt from.

        A text without any known n-gram, an empty one above all, says nothing: it gets the log odds of that share. Of a
        text that was learnt from, or a copy of one, the answer is too sure.
        """
        self._refuse_unfitted()
        blocks = [self._block(texts[at : at + BLOCK]) for at in range(0, len(texts), BLOCK)]
        return np.concatenate(blocks) if blocks else np.empty(0)

    def telling(self, text: str, most: int = 5) -> list[tuple[str, float]]:
        """The words and phrases of a text that add most to its log odds of being false, or take most from them.

        A piece of a word counts for the word, one that reaches over several words for their phrase. The numbers of all
        words and phrases, and a constant of the model, add up to `log_odds`. In lower case, the largest first.
        """
        self._refuse_unfitted()
        page, total = written([text]), dict[str, float]()
        for view, half in self.halves.items():
            grams, column, row = half.read(page, view, 1)
            adds = np.zeros(len(half.key))
            adds[row.indices] = self.slope * row.data * half.weight[row.indices] / half.spread / len(self.halves)
            share = adds[column] / np.bincount(column, minlength=len(half.key))[column]
            first = page.start[np.searchsorted(page.stop, grams.start, side="right")]
            last = page.stop[np.searchsorted(page.start, grams.stop, side="left") - 1]
            for start, stop, part in zip(first.tolist(), last.tolist(), share.tolist(), strict=True):
                phrase = page.code[start:stop].tobytes().decode("utf-32-le", "surrogatepass")
                total[phrase] = total.get(phrase, 0.0) + part
        ordered = sorted(total.items(), key=lambda item: (-abs(item[1]), item[0]))
        return [item for item in ordered[:most] if item[1]]

    def state(self) -> dict[str, NDArray[Any]]:
        """All that was learnt, as arrays."""
        self._refuse_unfitted()
        arrays: dict[str, NDArray[Any]] = {"sigmoid": np.array([self.slope, self.level, self.base])}
        for view, half in self.halves.items():
            arrays |= {f"{view}.key": half.key, f"{view}.scale": half.scale, f"{view}.weight": half.weight}
            arrays[f"{view}.score"] = np.array([half.intercept, half.spread])
        return arrays

    def load(self, state: dict[str, NDArray[Any]]) -> None:
        """The inverse of `state`."""
        self.slope, self.level, self.base = state["sigmoid"].tolist()
        for view in VIEWS:
            intercept, spread = state[f"{view}.score"].tolist()
            key, scale, weight = (state[f"{view}.{name}"] for name in ("key", "scale", "weight"))
            self.halves[view] = _Half(key, scale, weight, intercept, spread)

    def _block(self, texts: Sequence[str]) -> Floats:
        page, score, anything = written(texts), np.zeros(len(texts)), np.zeros(len(texts), bool)
        for view, half in self.halves.items():
            _, _, rows = half.read(page, view, len(texts))
            score += (rows @ half.weight + half.intercept) / half.spread / len(self.halves)
            anything |= np.diff(rows.indptr) > 0
        return np.where(anything, self.slope * score + self.level, self.base)

    def _refuse_unfitted(self) -> None:
        if not self.halves:
            raise ModelError("This wording model has learnt nothing yet; call fit or load first.")


def _deal(texts: Sequence[str], false: NDArray[np.bool_], groups: Ints | None) -> Ints:
    """int64 [N]: a fold for each text, one a group; groups alike in their share of false ones go to different folds."""
    if len(false) != len(texts) or (groups is not None and len(groups) != len(texts)):
        raise DataError(f"{len(texts)} texts need as many labels and groups, one each.")
    held = {"false": int(false.sum()), "true": int((~false).sum())}
    for kind, count in held.items():
        if count < LEAST:
            raise DataError(
                f"Only {count} of the {len(texts)} labelled texts are {kind}; {LEAST} of either kind are the least to "
                "learn from. Label more of them."
            )
    if groups is None:
        tidy = list(map(_tidy, texts))
        number = {text: n for n, text in enumerate(dict.fromkeys(tidy))}
        groups = np.array([number[text] for text in tidy])
    _, group = np.unique(groups, return_inverse=True)
    size = np.bincount(group)
    share = np.bincount(group, weights=false) / size
    order = np.lexsort((np.random.default_rng(SEED).random(len(size)), -size, share))
    dealt = np.empty(len(size), np.int64)
    dealt[order] = np.arange(len(size)) % FOLDS
    fold = dealt[group]
    for kind, which in (("false", false), ("true", ~false)):
        if len(np.unique(fold[which])) < 2:
            raise DataError(
                f"The {kind} texts are all of one group, or equal to each other, so that what is learnt from them "
                "cannot be tried on others. Label texts of more groups."
            )
    return fold


def _counted(grams: Grams, texts: int) -> tuple[Keys, csr_array]:
    """The n-grams that several texts hold, ascending [K], and how often each text holds them [N, K]."""
    keys, column = np.unique(grams.key, return_inverse=True)
    counts = _table(grams.text, column, texts, len(keys))
    kept = np.flatnonzero(np.bincount(counts.indices, minlength=len(keys)) >= TEXTS)
    return keys[kept], counts[:, kept]


def _table(text: Ints, column: Ints, texts: int, columns: int) -> csr_array:
    """[texts, columns]: counts."""
    place = (text.astype(np.int32), column.astype(np.int32))
    counts = csr_array((np.ones(len(text)), place), shape=(texts, columns))
    counts.sum_duplicates()
    return counts


def _scale(view: View, counts: csr_array, target: Floats) -> Floats:
    """float64 [K], from the texts that are learnt from alone; 0 for an n-gram that too few of them hold."""
    texts, columns = counts.shape
    held = np.bincount(counts.indices, minlength=columns)
    if view == "characters":
        weight = np.log((1 + texts) / (1 + held)) + 1
    else:
        of_false = 1 + np.bincount(counts.indices, np.repeat(target, np.diff(counts.indptr)), minlength=columns)
        of_true = 2 + held - of_false
        weight = np.abs(np.log(of_false / of_false.sum()) - np.log(of_true / of_true.sum()))
    return np.where(held >= TEXTS, weight, 0.0)


def _rows(view: View, counts: csr_array, scale: Floats) -> csr_array:
    """[N, K]: each text as a row of length 1, or of zeros."""
    value = (1 + np.log(counts.data) if view == "characters" else np.ones(len(counts.data))) * scale[counts.indices]
    rows = csr_array((value, counts.indices, counts.indptr), shape=counts.shape)
    length = np.sqrt(rows.multiply(rows).sum(axis=1))
    return csr_array(diags_array(np.divide(1, length, out=np.zeros(len(length)), where=length > 0)) @ rows)


def _planes(rows: csr_array, target: Floats, penalties: Sequence[float]) -> Floats:
    """float64 [P, K + 1]: for each penalty the weights, the intercept last, of the plane that parts the classes.

    It minimises ½|w|² + Σ max(0, 1 − ±score)² / (2 · penalty), the intercept in w, by dual coordinate descent (Hsieh et
    al. 2008, Algorithm 1, the L2-loss): passes over the rows, in another order each time, until none would change the
    plane any more. A penalty starts where the one before it ended.
    """
    generator, sign = np.random.default_rng(SEED), 2 * target - 1
    dual, weight, found = np.zeros(len(sign)), np.zeros(rows.shape[1] + 1), []
    for penalty in penalties:
        for _ in range(PASSES):
            order = generator.permutation(len(sign))
            if _pass(rows.data, rows.indices, rows.indptr, sign, order, penalty, dual, weight) < SETTLED:
                break
        found.append(weight.copy())
    return np.stack(found)


@numba.njit(cache=True, nogil=True)
def _pass(
    data: Floats, indices: Any, indptr: Any, sign: Floats, order: Ints, cost: float, a: Floats, w: Floats
) -> float:  # pragma: no cover
    """One pass that changes the dual a and the weights w; returns the largest projected gradient that it met."""
    largest = 0.0
    for row in order:
        score, square = w[-1], 1.0
        for k in range(indptr[row], indptr[row + 1]):
            score += w[indices[k]] * data[k]
            square += data[k] ** 2
        gradient = sign[row] * score - 1 + cost * a[row]
        if a[row] == 0 and gradient > 0:
            continue
        largest = max(largest, abs(gradient))
        new = max(a[row] - gradient / (square + cost), 0.0)
        step = (new - a[row]) * sign[row]
        a[row] = new
        w[-1] += step
        for k in range(indptr[row], indptr[row + 1]):
            w[indices[k]] += step * data[k]
    return largest


def _sigmoid(score: Floats, target: Floats) -> tuple[float, float, float]:
    """Slope and level of Platt's sigmoid, and its log loss, towards his smoothed targets (1999, section 2.2).

    Smoothed, so that the slope stays finite. One below 0 says that unseen texts were not told apart: it is 0 then.
    """
    up, down = target.sum(), (1 - target).sum()
    smooth = np.where(target > 0, (up + 1) / (up + 2), 1 / (down + 2))

    def loss(at: Floats) -> tuple[float, Floats]:
        line = at[0] * score + at[1]
        wrong = expit(line) - smooth
        return float(np.logaddexp(0, line).sum() - smooth @ line), np.array([wrong @ score, wrong.sum()])

    base = float(logit(target.mean()))
    found = minimize(loss, np.array([1.0, base]), jac=True, method="BFGS")
    return (*found.x.tolist(), float(found.fun)) if found.x[0] > 0 else (0.0, base, loss(np.array([0.0, base]))[0])
