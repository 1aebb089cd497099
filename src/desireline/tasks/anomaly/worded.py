"""How like the reviews of accounts that people confirmed an account's reviews are worded: a number for the trees.

Texts of confirmed accounts are told from those of dismissed ones and of some that nobody judged (`classical/wording`).
A text is scored by a model that learned from no text of its account: the accounts are dealt into parts, each scored by
what the others teach. About a minute where all limits below are reached.
"""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray

from desireline.classical.wording import LEAST, Wording
from desireline.core.progress import progress
from desireline.tasks.anomaly.scan import Scan

WORDING = "wording"  # the column's name
PARTS = 3
OTHERS = 3  # texts of other accounts for each of a confirmed one
MOST = 1_000  # texts of confirmed accounts that a part's model learns from
SCORED = 30_000  # texts, of the most suspicious accounts


def with_wording(
    found: Scan, p_value: NDArray[np.float64], current: pl.DataFrame, verdicts: pl.DataFrame, seed: int
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """`learned.features` and what people judged with a column WORDING, where there is enough to learn it from.

    An account of a verdict that the scan does not hold keeps the number that it had then.
    """
    told = worded(found, p_value, verdicts, seed)
    if told is None:
        return current, verdicts
    current = current.with_columns(pl.Series(WORDING, told, nan_to_null=True))
    then = pl.col(WORDING) if WORDING in verdicts.columns else pl.lit(None, pl.Float64)
    now = current.select("user", now=WORDING)
    known = verdicts.join(now, on="user", how="left", maintain_order="left")
    return current, known.with_columns(pl.coalesce("now", then).alias(WORDING)).drop("now")


def worded(found: Scan, p_value: NDArray[np.float64], verdicts: pl.DataFrame, seed: int) -> NDArray[np.float64] | None:
    """float64 [A]: the mean log odds of an account's judged reviews, NaN where none has words; None: too few to learn.

    p_value : float64 [A], by which accounts come first where there are more texts than time
    verdicts : `user` and `confirmed`
    """
    texts = _texts(found, verdicts).sample(fraction=1.0, shuffle=True, seed=seed)
    part = texts["account"].to_numpy() % PARTS
    lessons = [_lesson(texts.filter(pl.Series(part != number))) for number in range(PARTS)]
    if any(lesson is None for lesson in lessons):
        return None
    asked = texts.filter("inside").join(
        pl.DataFrame({"account": found.facts["account"], "p": p_value}), on="account", how="left", maintain_order="left"
    )
    asked = asked.sort("p", "account", maintain_order=True).head(SCORED)
    total, count = np.zeros(len(found.actions.users)), np.zeros(len(found.actions.users))
    with progress("anomaly: words of reviews", asked.height, "texts") as advance:
        for number, lesson in enumerate(lessons):
            assert lesson is not None
            here = asked.filter(pl.col("account") % PARTS == number)
            model = Wording()
            model.fit(lesson["text"].to_list(), lesson["false"].to_numpy(), lesson["account"].to_numpy())
            owner = here["account"].to_numpy()
            np.add.at(total, owner, model.log_odds(here["text"].to_list()))
            np.add.at(count, owner, 1)
            advance(here.height)
    rows = found.facts["account"].to_numpy()
    with np.errstate(invalid="ignore"):
        return np.asarray((total / count)[rows], np.float64)


def _texts(found: Scan, verdicts: pl.DataFrame) -> pl.DataFrame:
    """Every review with words: `account`, `text`, `inside`, and `false`: null where nobody judged its account."""
    users = found.actions.users
    last = verdicts.group_by("user", maintain_order=True).agg(false=pl.col("confirmed").any())
    label = pl.DataFrame({"user": users, "account": np.arange(len(users), dtype=np.uint32)}).join(last, on="user")
    reviews = found.actions.events.filter("review", pl.col("text").str.len_chars() > 0)
    return reviews.select("account", "text", "inside").join(
        label.select("account", "false"), on="account", how="left", maintain_order="left"
    )


def _lesson(texts: pl.DataFrame) -> pl.DataFrame | None:
    """Texts to learn from, of texts in random order; None where too few of a kind, or all of one account."""
    false = texts.filter(pl.col("false").fill_null(False)).head(MOST)
    judged, free = (texts.filter(pl.col("false").eq_missing(kind)) for kind in (pl.lit(False), pl.lit(None)))
    true = pl.concat([judged, free]).head(OTHERS * false.height).with_columns(false=pl.lit(False))
    if min(false.height, true.height) < LEAST or min(false["account"].n_unique(), true["account"].n_unique()) < 2:
        return None
    return pl.concat([false, true])
