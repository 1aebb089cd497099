"""Reviews that were written together: bursts about one target, and texts that several accounts share.

Many false reviews at once make each of them look usual among the reviews of their days, so they are looked for as a
group. A burst is a day or three days in which a target gets more reviews than its share of all reviews before the
window, and the log's reviews of the same days, let expect; the tail is a negative binomial's, since a target of which
little is known may well be talked about (as in `graphs.associations`). Copies are texts that share half of their runs
of three words; how many honest reviews do is read off the reviews before the window.

Cost: one pass over the reviews, and a sparse product over the runs of words that few reviews share.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from desireline.tasks.anomaly.actions import Actions
from desireline.tasks.anomaly.spans import DAY_US, ahead, codes, greatest, starts, times
from desireline.tasks.anomaly.wording import SHORT, words_of

Ints = NDArray[np.int64]

WIDTHS_US = (DAY_US, 3 * DAY_US)
LEAST = 3  # accounts of a group
PRIOR, STEADY = 2.0, 6.0  # reviews that a target's past is worth before it is looked at; largest shape of the gamma
ALIKE = 0.5  # share of a text's runs of words that another must have, to be its copy
COMMON = 500  # reviews that share a run of words; what more share is a phrase of the language
PAST = 20_000  # latest reviews before the window in which copies are counted
NEW = 0.5  # shape of the gamma of a target without a past


@dataclass(frozen=True)
class Written:
    """accounts, targets : int64, ascending;  how : "burst" or "copied text";  log_p : corrected for all looked at

    excess : reviews by what was expected;  reason : in words
    """

    accounts: Ints
    targets: Ints
    how: str
    log_p: float
    excess: float
    reason: str


def review_groups(actions: Actions, alpha: float) -> list[Written]:
    """Groups with a p-value up to `alpha`; [] for a log without reviews."""
    reviews = actions.events.filter("review")
    if not reviews["inside"].any():
        return []
    return [*_bursts(actions, reviews, alpha), *_copies(reviews, alpha)]


def _bursts(actions: Actions, reviews: pl.DataFrame, alpha: float) -> Iterator[Written]:
    """Of each target the least likely of its fullest days and three days."""
    from scipy.stats import nbinom

    about = reviews.drop_nulls("target").sort("target", "time", "event_id")
    judged = about.filter("inside")
    if judged.height < LEAST or actions.step_us > DAY_US:
        return
    past = about.filter(~pl.col("inside"))
    had = np.bincount(codes(past, "target"), minlength=len(actions.targets)).astype(np.float64)
    share = (had + PRIOR / 2) / (past.height + len(had) * PRIOR / 2)
    time, target = times(judged), codes(judged, "target")
    start, every = starts(target), np.sort(time)
    one, size = target[start[:-1]], np.diff(start)
    looked = np.log(judged.height * len(WIDTHS_US))
    found: list[tuple[NDArray[Any], ...]] = []
    for width in WIDTHS_US:
        counts = ahead(time, start, width)
        fullest = counts == np.repeat(greatest(counts, start), size)
        first = np.flatnonzero(fullest)[np.searchsorted(np.flatnonzero(fullest), start[:-1])]
        count = counts[first].astype(np.float64)
        level = np.searchsorted(every, time[first] + width) - np.searchsorted(every, time[first]) - count
        new = had[one] < LEAST  # it may well be talked about as much as others, or far more
        mean = share[one] * np.maximum(level, 1)
        mean = np.where(new, np.maximum(mean, level / len(one)), mean)
        shape = np.where(new, NEW, np.minimum(had[one] + PRIOR, STEADY))
        log_p = nbinom.logsf(count - 1, shape, shape / (shape + mean)) + looked
        found.append((np.where(count >= LEAST, log_p, np.inf), first, count, mean, np.full(len(one), width)))
    least = np.argmin(np.stack([part[0] for part in found]), axis=0)
    log_p, first, count, mean, width = (np.choose(least, [part[n] for part in found]) for n in range(5))
    for group in np.flatnonzero(log_p <= np.log(alpha)).tolist():
        part = judged.slice(int(first[group]), int(count[group]))
        accounts = np.unique(codes(part, "account"))
        if len(accounts) < LEAST:
            continue
        stars = part["rating"].drop_nulls().mode().sort()
        said = f", {(part['rating'] == stars[0]).sum()} of them with {stars[0]:g} stars" if len(stars) else ""
        reason = (
            f"{part.height} reviews of {actions.targets[int(one[group])]} by {len(accounts)} accounts within "
            f"{'a day' if width[group] == DAY_US else 'three days'}{said}; {mean[group]:.1f} are expected"
        )
        excess = part.height / max(float(mean[group]), 0.1)
        yield Written(accounts, one[group : group + 1], "burst", float(log_p[group]), excess, reason)


def _copies(reviews: pl.DataFrame, alpha: float) -> Iterator[Written]:
    """Clusters of texts, of at least LEAST accounts, that hold more reviews than any before the window."""
    from scipy.stats import nbinom

    written = reviews.drop_nulls("text").sort("time", "event_id")
    past = written.filter(~pl.col("inside")).tail(PAST)
    judged = written.filter("inside")
    if judged.height < LEAST:
        return
    before = _clusters(past)
    copied = max((len(members) for members in before), default=0)  # of the commonest words that honest people share
    clusters = _clusters(judged)
    for members in clusters:
        part = judged[members]
        accounts = np.unique(codes(part, "account"))
        if len(accounts) < LEAST:
            continue
        known = past.height if past.height else judged.height - len(members)
        others = copied if past.height else max((len(m) for m in clusters if m is not members), default=0)
        mean = (others + 1) / (known + 2) * judged.height
        log_p = float(nbinom.logsf(len(members) - 1, STEADY, STEADY / (STEADY + mean)) + np.log(judged.height))
        if log_p > np.log(alpha):
            continue
        targets = np.unique(codes(part.drop_nulls("target"), "target"))
        named = f" about {len(targets)} targets" if len(targets) > 1 else ""
        reason = (
            f"{len(members)} reviews{named} by {len(accounts)} accounts share half of their words in a row; of "
            f"{known:,} {'reviews before' if past.height else 'other reviews'} at most {others} did"
        )
        yield Written(accounts, targets, "copied text", log_p, len(members) / max(mean, 0.1), reason)


def _clusters(reviews: pl.DataFrame) -> list[Ints]:
    """Rows of reviews of at least two accounts that copy each other."""
    if reviews.height < 2:
        return []
    words = words_of(reviews["text"])
    sizes = np.diff(words.offsets)
    review = np.repeat(np.arange(reviews.height), sizes)
    _, run, times_used = np.unique(words.shingles, return_inverse=True, return_counts=True)
    kept = (times_used[run] > 1) & (times_used[run] <= COMMON) & (words.count[review] >= SHORT)
    if not kept.any():
        return []
    shape = (reviews.height, int(run.max()) + 1)
    has = csr_array((np.ones(int(kept.sum())), (review[kept], run[kept])), shape=shape)
    both = (has @ has.T).tocoo()
    first, second = both.coords
    enough = (first < second) & (both.data >= ALIKE * np.minimum(sizes[first], sizes[second]))
    if not enough.any():
        return []
    edges = csr_array((np.ones(int(enough.sum())), (first[enough], second[enough])), shape=(shape[0], shape[0]))
    _, label = connected_components(edges, directed=False)
    account = codes(reviews, "account")
    found = []
    for one in np.unique(label[first[enough]]):
        members = np.flatnonzero(label == one).astype(np.int64)
        if len(np.unique(account[members])) > 1:
            found.append(members)
    return found
