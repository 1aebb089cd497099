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

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components
from scipy.stats import nbinom

from desireline.tasks.anomaly.actions import Actions
from desireline.tasks.anomaly.spans import DAY_US, ahead, codes, starts, times
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

    excess : reviews by what was expected;  reason : in words;  event_ids : of the reviews
    """

    accounts: Ints
    targets: Ints
    how: str
    log_p: float
    excess: float
    reason: str
    event_ids: list[int]


def review_groups(actions: Actions, alpha: float) -> list[Written]:
    """Groups with a p-value up to `alpha`; [] for a log without reviews."""
    reviews = actions.events.filter("review")
    if not reviews["inside"].any():
        return []
    found = [*_bursts(actions, reviews), *_copies(actions, reviews)]
    return [one for one in found if one.log_p <= np.log(alpha)]


def _bursts(actions: Actions, reviews: pl.DataFrame) -> Iterator[Written]:
    about = reviews.drop_nulls("target").sort("target", "time", "event_id")
    judged = about.filter("inside")
    if judged.height < LEAST or actions.step_us > DAY_US:
        return
    past = about.filter(~pl.col("inside"))
    had = np.bincount(codes(past, "target"), minlength=len(actions.targets)).astype(np.float64)
    share = (had + PRIOR / 2) / (past.height + len(actions.targets) * PRIOR / 2)
    time, target = times(judged), codes(judged, "target")
    start, every = starts(target), np.sort(time)
    looked = np.log(judged.height * len(WIDTHS_US))
    for group in range(len(start) - 1):
        rows = slice(start[group], start[group + 1])
        if start[group + 1] - start[group] < LEAST:
            continue
        best: tuple[float, int, int, float, int] | None = None
        for width in WIDTHS_US:
            counts = ahead(time[rows], np.array([0, rows.stop - rows.start]), width)
            first = int(np.argmax(counts))
            lo, count = rows.start + first, int(counts[first])
            level = int(np.searchsorted(every, time[lo] + width) - np.searchsorted(every, time[lo])) - count
            one = int(target[rows.start])
            mean, shape = share[one] * max(level, 1), min(had[one] + PRIOR, STEADY)
            if had[one] < LEAST:  # new: it may well be talked about as much as others, or far more
                mean, shape = max(mean, level / (len(start) - 1)), NEW
            log_p = float(nbinom.logsf(count - 1, shape, shape / (shape + mean))) + looked
            if best is None or log_p < best[0]:
                best = log_p, lo, count, mean, width
        assert best is not None
        log_p, lo, count, mean, width = best
        part = judged.slice(lo, count)
        accounts = np.unique(codes(part, "account"))
        if len(accounts) < LEAST:
            continue
        stars = part["rating"].mode().to_list() if part["rating"].is_not_null().any() else []
        alike = int((part["rating"] == stars[0]).sum()) if stars else 0
        said = f", {alike} of them with {stars[0]:g} stars" if stars else ""
        span = "a day" if width == DAY_US else "three days"
        reason = (
            f"{count} reviews of {actions.targets[int(target[lo])]} by {len(accounts)} accounts within {span}{said}; "
            f"{mean:.1f} are expected"
        )
        ids = part["event_id"].to_list()
        yield Written(accounts, np.unique(codes(part, "target")), "burst", log_p, count / max(mean, 0.1), reason, ids)


def _copies(actions: Actions, reviews: pl.DataFrame) -> Iterator[Written]:
    written = reviews.drop_nulls("text").sort("time", "event_id")
    past = written.filter(~pl.col("inside")).tail(PAST)
    judged = written.filter("inside")
    if judged.height < LEAST:
        return
    before = _clusters(past)
    copied = max((len(members) for members in before), default=0)  # of the commonest words that honest people share
    for members in (clusters := _clusters(judged)):
        part = judged[members]
        accounts = np.unique(codes(part, "account"))
        if len(accounts) < LEAST:
            continue
        known = past.height if past.height else judged.height - len(members)
        others = copied if past.height else max((len(m) for m in clusters if m is not members), default=0)
        mean = (others + 1) / (known + 2) * judged.height
        log_p = float(nbinom.logsf(len(members) - 1, STEADY, STEADY / (STEADY + mean)) + np.log(judged.height))
        targets = np.unique(codes(part.drop_nulls("target"), "target"))
        named = f" about {len(targets)} targets" if len(targets) > 1 else ""
        reason = (
            f"{len(members)} reviews{named} by {len(accounts)} accounts share half of their words in a row; of "
            f"{known:,} {'reviews before' if past.height else 'other reviews'} at most {others} did"
        )
        yield Written(
            accounts, targets, "copied text", log_p, len(members) / max(mean, 0.1), reason, part["event_id"].to_list()
        )


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
