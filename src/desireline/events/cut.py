"""The one cut in time.

Everything learned, computed or labelled is as of a moment: it may see events strictly before it; labels come from
events at it and after. All code that needs a cut calls this function.
"""

from __future__ import annotations

from datetime import datetime
from typing import TypeVar

import polars as pl

Frame = TypeVar("Frame", pl.DataFrame, pl.LazyFrame)


def cut(events: Frame, at: datetime) -> tuple[Frame, Frame]:
    """Split events into those strictly before `at` and those at it or after.

    >>> from datetime import datetime, timezone
    >>> moment = datetime(2011, 9, 1, tzinfo=timezone.utc)
    >>> before, after = cut(pl.DataFrame({"time": [moment]}), moment)
    >>> before.height, after.height
    (0, 1)
    """
    moment = pl.lit(at).cast(pl.Datetime("us", "UTC"))
    return events.filter(pl.col("time") < moment), events.filter(pl.col("time") >= moment)
