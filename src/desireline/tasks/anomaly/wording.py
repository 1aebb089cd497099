"""How the words of a review compare with those of all others: near copies, templates, variety, shouting.

A letter run is a word; a character of a script without spaces (Chinese, Japanese, Thai and their like) is one by
itself. Three words in a row are a shingle, held as a 64-bit hash. Near copies are found by MinHash (Broder 1997) with
64 numbers in 16 bands: pairs with a Jaccard similarity of .7 meet in a band in 99 of 100 cases, those of .5 in 64. They
are then compared by their shingles, not by the estimate. In a band's bucket each review is compared with a neighbour
of its account and with the ends of the neighbouring accounts' runs, so that a thousand copies cost no million pairs.
About 12,000 reviews of 150 words a second on a core that others use too, half of it for the templates.
"""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np
import polars as pl
from numpy.typing import NDArray

from desireline.tasks.anomaly.spans import ascend, mixed

NUMBERS, BANDS = 64, 16  # of a signature
SHINGLE = 3  # words
SHORT = 8  # words, below which two reviews are alike by chance
VARIETY = 50  # words of a review, from its first on, whose variety is told
LEAST_VARIETY = 20  # words, below which it is not
TEMPLATE = 5  # other accounts that use a shingle, from which on it is one of a template
BLOCK = 50_000  # reviews whose characters are held at once


@dataclass(frozen=True)
class Words:
    """Words of R reviews.

    count, distinct : int64 [R], words, and distinct ones among the first VARIETY
    shingles : uint64 [S], ascending and distinct in a review;  offsets : int64 [R + 1]
    """

    count: NDArray[np.int64]
    distinct: NDArray[np.int64]
    shingles: NDArray[np.uint64]
    offsets: NDArray[np.int64]


def wording(texts: pl.Series, account: NDArray[np.int64], judged: NDArray[np.bool_]) -> pl.DataFrame:
    """What is measured of R texts; null where it is not defined.

    account : int64 [R], ascending;  judged : Boolean [R], texts whose likeness is asked for

    Returns `copied`, `own_copied` (greatest Jaccard similarity to a text of another account and to another one of the
    own), `template` (share of shingles that TEMPLATE other accounts use), `length` (characters), `shouted` (share of
    them that are capitals or exclamation marks) and `variety` (share of distinct words among the first VARIETY).
    """
    words = words_of(texts)
    other, own = likeness(words, account, judged)
    template = templates(words, account)
    long = words.count >= SHORT
    length = texts.str.len_chars().to_numpy()
    shouted = (texts.str.count_matches(r"\p{Lu}|[!！]")).to_numpy() / np.maximum(length, 1)
    variety = words.distinct / np.clip(words.count, 1, VARIETY)
    columns = {
        "copied": np.where(long, other, np.nan),
        "own_copied": np.where(long, own, np.nan),
        "template": np.where(long, template, np.nan),
        "length": length.astype(np.float64),
        "shouted": np.where(length > 0, shouted, np.nan),
        "variety": np.where(words.count >= LEAST_VARIETY, variety, np.nan),
    }
    return pl.DataFrame(columns).fill_nan(None)


def words_of(texts: pl.Series) -> Words:
    """Words and shingles of R texts, small and capital letters alike."""
    parts = [_block(texts.slice(begin, BLOCK)) for begin in range(0, len(texts), BLOCK)]
    if not parts:
        none = np.empty(0, np.int64)
        return Words(none, none, np.empty(0, np.uint64), np.zeros(1, np.int64))
    count, distinct, shingles, sizes = (np.concatenate([part[n] for part in parts]) for n in range(4))
    return Words(count, distinct, shingles, np.append(0, np.cumsum(sizes)))


def _block(
    texts: pl.Series,
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.uint64], NDArray[np.int64]]:
    small = texts.str.to_lowercase()
    ends = np.append(0, np.cumsum(small.str.len_chars().cast(pl.Int64).to_numpy()))
    points = np.frombuffer("".join(small.to_list()).encode("utf-32-le", "surrogatepass"), np.uint32)
    return _words(points, ends)


def likeness(
    words: Words, account: NDArray[np.int64], judged: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """float64 [R] each: greatest similarity to a review of another account, and to another review of the own.

    Near ones alone are found; 0 where there is none, NaN for reviews without a shingle and those not judged.
    """
    signature = _signatures(words.shingles, words.offsets, _factors())
    other, own = np.zeros(len(account)), np.zeros(len(account))
    rows = NUMBERS // BANDS
    for band in range(BANDS):
        key = _keys(signature[:, band * rows : (band + 1) * rows])
        order = np.lexsort((account, key))
        _compare(order, key, account, judged, words.shingles, words.offsets, other, own)
    unknown = (np.diff(words.offsets) == 0) | ~judged
    other[unknown], own[unknown] = np.nan, np.nan
    return other, own


def templates(words: Words, account: NDArray[np.int64]) -> NDArray[np.float64]:
    """float64 [R]: the share of each review's shingles that at least TEMPLATE other accounts use; NaN without any."""
    sizes = np.diff(words.offsets)
    whose = np.repeat(account, sizes)
    common = _common(np.argsort(words.shingles, kind="stable"), words.shingles, whose, TEMPLATE)
    held = np.append(0, np.cumsum(common))
    with np.errstate(invalid="ignore", divide="ignore"):
        return (held[words.offsets[1:]] - held[words.offsets[:-1]]) / np.where(sizes > 0, sizes, np.nan)


def _factors() -> NDArray[np.uint64]:
    """uint64 [NUMBERS, 2]: an odd factor and a summand of each hash function."""
    drawn = np.random.default_rng(0).integers(0, 2**63, (NUMBERS, 2), dtype=np.uint64)
    drawn[:, 0] |= np.uint64(1)
    return drawn


@numba.njit(cache=True, nogil=True)
def _part_of_word(point: int) -> int:  # pragma: no cover
    """0: none; 1: of a run of letters or digits; 2: a word by itself."""
    if point < 0x80:
        return 1 if 48 <= point <= 57 or 97 <= point <= 122 or 65 <= point <= 90 else 0
    if point < 0xC0 or point == 0xD7 or point == 0xF7:
        return 0
    if 0x2000 <= point <= 0x2BFF or 0x3000 <= point <= 0x303F or 0xFE10 <= point <= 0xFE6F:
        return 0  # signs and punctuation
    if 0xFF00 <= point <= 0xFF0F or 0xFF1A <= point <= 0xFF20 or 0xFF3B <= point <= 0xFF40 or 0xFF5B <= point <= 0xFF65:
        return 0  # full-width signs
    if 0x0E00 <= point <= 0x0EFF or 0x1000 <= point <= 0x109F or 0x1780 <= point <= 0x17FF:
        return 2  # Thai, Lao, Burmese, Khmer
    if 0x3040 <= point <= 0x30FF or 0x3400 <= point <= 0x9FFF or 0xF900 <= point <= 0xFAFF or point >= 0x1F000:
        return 2  # kana, Han, pictures
    return 1


@numba.njit(cache=True, nogil=True)
def _words(
    points: NDArray[np.uint32], ends: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.uint64], NDArray[np.int64]]:  # pragma: no cover
    """Words, distinct ones, shingles of all texts and how many of each."""
    texts = len(ends) - 1
    count, distinct, sizes = np.zeros(texts, np.int64), np.zeros(texts, np.int64), np.zeros(texts, np.int64)
    shingles, used = np.empty(len(points) + 1, np.uint64), 0
    word = np.empty(len(points) + 1, np.uint64)
    for text in range(texts):
        found, value, open_run = 0, np.uint64(0), False
        for place in range(ends[text], ends[text + 1]):
            kind = _part_of_word(int(points[place]))
            if open_run and kind != 1:
                word[found] = value
                found += 1
                open_run = False
            if kind == 2:
                word[found] = mixed(np.uint64(points[place]))
                found += 1
            elif kind == 1:
                value = mixed((value if open_run else np.uint64(0)) * np.uint64(31) + np.uint64(points[place]))
                open_run = True
        if open_run:
            word[found] = value
            found += 1
        count[text] = found
        early = word[: min(found, VARIETY)].copy()
        ascend(early)
        for n in range(len(early)):
            distinct[text] += n == 0 or early[n] != early[n - 1]
        begin = used
        for n in range(found - SHINGLE + 1):
            value = np.uint64(0)
            for m in range(SHINGLE):
                value = mixed(value * np.uint64(31) + word[n + m])
            shingles[used] = value
            used += 1
        ranked = shingles[begin:used].copy()
        ascend(ranked)
        used = begin
        for n in range(len(ranked)):
            if n == 0 or ranked[n] != ranked[n - 1]:
                shingles[used] = ranked[n]
                used += 1
        sizes[text] = used - begin
    return count, distinct, shingles[:used].copy(), sizes


@numba.njit(cache=True, nogil=True)
def _signatures(
    shingles: NDArray[np.uint64], offsets: NDArray[np.int64], factors: NDArray[np.uint64]
) -> NDArray[np.uint32]:  # pragma: no cover
    """uint32 [R, NUMBERS]: the least hash of a review's shingles by each function."""
    found = np.full((len(offsets) - 1, len(factors)), np.uint32(0xFFFFFFFF), np.uint32)
    for row in range(len(offsets) - 1):
        for n in range(offsets[row], offsets[row + 1]):
            for function in range(len(factors)):
                value = np.uint32((shingles[n] * factors[function, 0] + factors[function, 1]) >> np.uint64(32))
                if value < found[row, function]:
                    found[row, function] = value
    return found


@numba.njit(cache=True, nogil=True)
def _keys(band: NDArray[np.uint32]) -> NDArray[np.uint64]:  # pragma: no cover
    found = np.zeros(len(band), np.uint64)
    for row in range(len(band)):
        for n in range(band.shape[1]):
            found[row] = mixed(found[row] * np.uint64(31) + np.uint64(band[row, n]))
    return found


@numba.njit(cache=True, nogil=True)
def _jaccard(left: NDArray[np.uint64], right: NDArray[np.uint64]) -> float:  # pragma: no cover
    both, n, m = 0, 0, 0
    while n < len(left) and m < len(right):
        if left[n] == right[m]:
            both, n, m = both + 1, n + 1, m + 1
        elif left[n] < right[m]:
            n += 1
        else:
            m += 1
    return both / (len(left) + len(right) - both) if len(left) + len(right) else 0.0


@numba.njit(cache=True, nogil=True)
def _compare(
    order: NDArray[np.int64],
    key: NDArray[np.uint64],
    account: NDArray[np.int64],
    judged: NDArray[np.bool_],
    shingles: NDArray[np.uint64],
    offsets: NDArray[np.int64],
    other: NDArray[np.float64],
    own: NDArray[np.float64],
) -> None:  # pragma: no cover
    """Raise `other` and `own` by the pairs of one band: `order` ascends by key, then by account."""
    rows = len(order)
    opens = np.zeros(rows, np.int64)  # first place of the run of one key and account
    for place in range(1, rows):
        row, before = order[place], order[place - 1]
        opens[place] = opens[place - 1] if key[row] == key[before] and account[row] == account[before] else place
    end = rows  # first place after the run
    for place in range(rows - 1, -1, -1):
        row = order[place]
        if place + 1 < rows and opens[place + 1] != opens[place]:
            end = place + 1
        if not judged[row]:
            continue
        mine = shingles[offsets[row] : offsets[row + 1]]
        for where in (place - 1, place + 1, opens[place] - 1, end):
            if where < 0 or where >= rows or key[order[where]] != key[row]:
                continue
            mate = order[where]
            best = own if account[mate] == account[row] else other
            if best[row] < 1.0:
                best[row] = max(best[row], _jaccard(mine, shingles[offsets[mate] : offsets[mate + 1]]))


@numba.njit(cache=True, nogil=True)
def _common(
    order: NDArray[np.int64], shingles: NDArray[np.uint64], whose: NDArray[np.int64], others: int
) -> NDArray[np.bool_]:  # pragma: no cover
    """Boolean [S]: shingles that at least so many other accounts use; `order` ascends by shingle, then by account."""
    found = np.zeros(len(order), np.bool_)
    begin = 0
    for end in range(1, len(order) + 1):
        if end == len(order) or shingles[order[end]] != shingles[order[begin]]:
            accounts = 1
            for n in range(begin + 1, end):
                accounts += whose[order[n]] != whose[order[n - 1]]
            for n in range(begin, end):
                found[order[n]] = accounts > others
            begin = end
    return found
