"""Small shops of real purchases."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from desireline.data import online_retail_ii
from desireline.workspace import Workspace, init_workspace


@pytest.fixture(scope="session")
def retail_slice(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Workspace]:
    """Makes a workspace of every so-manieth customer of Online Retail II, ingested."""

    def made(every: int) -> Workspace:
        folder: Path = tmp_path_factory.mktemp("retail")
        rows = pl.read_parquet(online_retail_ii())
        kept = rows["customer_id"].drop_nulls().unique().sort().gather_every(every)
        rows.filter(pl.col("customer_id").is_in(kept.implode())).write_parquet(folder / "log.parquet")
        workspace, _ = init_workspace(folder / "shop", source=folder / "log.parquet")
        workspace.ingest(folder / "log.parquet")
        return workspace

    return made
