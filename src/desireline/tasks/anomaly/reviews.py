"""What is measured of an account's reviews: stars against those of others, crowding in time, no order, borrowed words.

Who gives stars is compared with everybody else at the same target, own reviews left out. Without text about two
seconds for a million reviews; words cost far more (see `wording`). A log without reviews costs nothing.

Sources: Mukherjee et al., What Yelp fake review filter might be doing (ICWSM 2013); Rastogi et al. 2020; rank and
cumulative transforms (arXiv 2012.13905) are left to the score.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import polars as pl

from desireline.tasks.anomaly.actions import Actions
from desireline.tasks.anomaly.fact import Evidence, Fact
from desireline.tasks.anomaly.spans import (
    DAY_US,
    ahead,
    around,
    by_account,
    codes,
    crowded,
    greatest,
    starts,
    strongest,
    times,
)
from desireline.tasks.anomaly.wording import wording

RATED = 3  # stars of others at a target, from which on a deviation is told
REVIEWED = 5  # other reviews of a target, from which on place and crowding among them are told
BURST_US = 3 * DAY_US  # to either side of a review
PIECE = 16  # characters of a text by which near copies are looked up

TASTE = "taste, or an item that changed"
HABIT = "a person's habit of writing"
FACTS: dict[str, Fact] = {
    "rating_deviation": Fact(
        ("review",), "high", "stars {value} away from what others give the same, on average", "ratio", TASTE
    ),
    "extreme_ratings": Fact(
        ("review",), "high", "{value} of the stars at the end of the scale", "share", "a person who rates when moved"
    ),
    "reviews_in_day": Fact(
        ("review", "bot"), "high", "{value} reviews within a day", "count", "an old list of purchases worked through"
    ),
    "review_crowding": Fact(
        ("review",),
        "high",
        "{value} of a target's other reviews within three days of the account's",
        "share",
        "a launch, or a mail that asks buyers for reviews",
    ),
    "review_place": Fact(
        ("review",), "low", "review number {value} of a target, half of the times", "count", "an early customer"
    ),
    "single_review": Fact(
        ("review",), "high", "{value} of one review that the account ever wrote", "share", "a first review"
    ),
    "reviews_without_order": Fact(
        ("review",),
        "high",
        "{value} of the reviews without an order of the item before",
        "share",
        "a purchase elsewhere, as a guest, or before the log begins",
    ),
    "copied_text": Fact(
        ("review",), "high", "{value} of a review's words as in one of another account", "share", "a quotation"
    ),
    "own_copied_text": Fact(
        ("review", "bot"), "high", "{value} of a review's words as in another of its own", "share", "like items"
    ),
    "template_text": Fact(
        ("review",),
        "high",
        "{value} of the phrases used by at least five other accounts",
        "share",
        "set phrases",
    ),
    "text_length": Fact(("review",), "both", "{value} characters, half of the times", "count", HABIT),
    "shouted_text": Fact(
        ("review",), "high", "{value} of the characters capitals or exclamation marks", "share", HABIT
    ),
    "word_variety": Fact(("review",), "low", "{value} of the words of a review distinct", "share", HABIT),
}


def review_facts(actions: Actions) -> pl.DataFrame:
    """`account` and a column a fact in FACTS, a row an account with a judged review."""
    if not actions.events["review"].any():
        return pl.DataFrame(schema={"account": pl.UInt32} | dict.fromkeys(FACTS, pl.Float64))
    reviews = judged_reviews(actions)
    every = actions.events.filter("review").group_by("account").agg(written=pl.len())
    facts = reviews.group_by("account").agg(
        rating_deviation=pl.col("deviation").mean(),
        extreme_ratings=pl.col("extreme").mean(),
        review_crowding=pl.col("crowding").mean(),
        review_place=pl.col("place").median(),
        reviews_without_order=pl.col("without_order").mean(),
        copied_text=pl.col("copied").max(),
        own_copied_text=pl.col("own_copied").max(),
        template_text=pl.col("template").mean(),
        text_length=pl.col("length").median(),
        shouted_text=pl.col("shouted").mean(),
        word_variety=pl.col("variety").mean(),
    )
    time, start = times(reviews), starts(codes(reviews, "account"))
    days = {
        "account": reviews["account"].gather(start[:-1]),
        "reviews_in_day": greatest(ahead(time, start, DAY_US), start),
    }
    facts = facts.join(pl.DataFrame(days), on="account").join(every, on="account")
    return facts.with_columns(single_review=(pl.col("written") == 1).cast(pl.Float64)).select("account", *FACTS)


def review_evidence(actions: Actions) -> Evidence:
    """Judged reviews of an account behind a fact, the most telling first."""
    judged = cache(lambda: by_account(judged_reviews(actions)))

    def behind(account: int, fact: str) -> list[int]:
        reviews = judged()(account)
        if fact == "reviews_in_day":
            crowd = crowded(times(reviews), starts(codes(reviews, "account")), DAY_US)
            return strongest(reviews.filter(crowd), pl.lit(1.0))
        true = pl.lit(1.0)
        weights = {
            "rating_deviation": pl.col("deviation"),
            "extreme_ratings": pl.when(pl.col("extreme")).then(true),
            "review_crowding": pl.col("crowding"),
            "review_place": -pl.col("place"),
            "single_review": true,
            "reviews_without_order": pl.when(pl.col("without_order")).then(true),
            "copied_text": pl.col("copied"),
            "own_copied_text": pl.col("own_copied"),
            "template_text": pl.col("template"),
            "text_length": -(pl.col("length") - pl.col("length").median()).abs(),
            "shouted_text": pl.col("shouted"),
            "word_variety": -pl.col("variety"),
        }
        return strongest(reviews, weights[fact])

    return behind


def judged_reviews(log: Actions) -> pl.DataFrame:
    """The judged reviews, ascending by account, with what is known of each.

    Beside the columns of events: `deviation` (stars from the mean of the others), `extreme`, `crowding` (share of the
    target's other reviews within BURST_US), `place` (among the target's reviews, from 1), `without_order`, and the
    columns of `wording`.
    """
    reviews = log.events.filter("review").with_row_index("row")
    judged = reviews.filter("inside")
    pair = ["target", "account"]
    rating = pl.col("rating")
    sums = [rating.sum(), rating.count()]
    total, given = (each.over("target") - each.over(pair) for each in sums)
    low, high = log.events.select(low=rating.min(), high=rating.max()).row(0)
    scale = low is not None and low < high
    stars = reviews.filter(rating.is_not_null()).select(
        "row",
        deviation=pl.when(pl.col("target").is_not_null() & (given >= RATED)).then((rating - total / given).abs()),
        extreme=rating.is_in([low, high]) if scale else pl.lit(None, pl.Boolean),
    )
    at = reviews.filter(pl.col("target").is_not_null()).sort("target", "time", maintain_order=True)
    time, start = times(at), starts(codes(at, "target"))
    size = np.repeat(np.diff(start), np.diff(start))
    moment = starts(codes(at, "target"), time)
    first = np.repeat(moment[:-1], np.diff(moment)) - np.repeat(start[:-1], np.diff(start))
    enough = size > REVIEWED
    placed = at.select(
        "row",
        crowding=pl.Series(np.where(enough, (around(time, start, BURST_US) - 1) / np.maximum(size - 1, 1), np.nan)),
        place=pl.Series(np.where(enough, first + 1.0, np.nan)),
    ).fill_nan(None)
    bought = pl.col("order") & ~pl.col("review") & pl.col("item").is_not_null()
    known = bool(log.events.select(bought.any()).item())
    orders = log.events.filter(bought).group_by("account", "item").agg(ordered=pl.col("time").min())
    without = pl.col("ordered").is_null() | (pl.col("ordered") > pl.col("time"))
    written = reviews.filter(pl.col("text").str.len_chars() > 0)
    words = wording(written["text"], codes(written, "account"), written["inside"].to_numpy())
    joined = judged
    for part in (stars, placed, words.with_columns(written["row"])):
        joined = joined.join(part, on="row", how="left", maintain_order="left")
    return joined.join(orders, on=["account", "item"], how="left", maintain_order="left").with_columns(
        without_order=pl.when(pl.col("item").is_not_null() & known).then(without)
    )
