"""Rejected rows, kept with where they stood and why: a Delta table in DIR/quarantine. A row is kept once."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl

from desireline.events import delta
from desireline.events.frame import content_hash


class Quarantine:
    """The rejected rows of one workspace: id, source, row, column, value, reason, raw, ingested_at."""

    def __init__(self, folder: Path) -> None:
        self.path = Path(folder) / "quarantine"

    def rows(self) -> pl.LazyFrame | None:
        """All of them, lazily; None when nothing was ever rejected."""
        if not delta.exists(self.path):
            return None
        files = delta.files_of(delta.open_table(self.path), self.path)
        return pl.scan_parquet(files, glob=False) if files else None

    def reasons(self) -> dict[str, int]:
        """Rows by reason, the most frequent first."""
        rows = self.rows()
        if rows is None:
            return {}
        # a reason begins with the row's place and its cell, by which no two would be alike
        fault = pl.col("reason").str.replace(r'(?s)^row \d+[^:]*: (".{0,80}")? ?', "")
        counted = rows.group_by("column", fault=fault).len().sort("len", "fault", descending=[True, False]).collect()
        return {f'column "{column}" {reason}' if column else reason: n for column, reason, n in counted.iter_rows()}

    def add(self, source: str, rejected: pl.DataFrame) -> None:
        """Keep rejected rows of a source that are not kept yet."""
        if rejected.height == 0:
            return
        place = pl.concat_str(pl.lit(source), pl.col("row"), pl.col("raw").fill_null(""), separator="\x1f")
        named = rejected.with_columns(
            id=content_hash(place),
            source=pl.lit(source),
            ingested_at=pl.lit(datetime.now(UTC)).cast(pl.Datetime("us", "UTC")),
        ).unique("id", maintain_order=True)
        known = self.rows()
        if known is not None:
            old = known.select("id").collect()["id"].to_numpy()
            named = named.filter(pl.Series(~np.isin(named["id"].to_numpy(), old)))
        if named.height:
            delta.append(
                self.path, named.select("id", "source", "row", "column", "value", "reason", "raw", "ingested_at")
            )
