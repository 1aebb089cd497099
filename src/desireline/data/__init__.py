"""The real log that the package ships: what `desireline demo` reads.

Online Retail II, every transaction of a British online gift shop from 2009-12-01 to 2011-12-09. The README beside the
file says where it comes from, under which licence, and what was changed.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from desireline.core.errors import SourceError

ATTRIBUTION = (
    "Online Retail II by Daqing Chen (2019), UCI Machine Learning Repository, https://doi.org/10.24432/C5CG6D, "
    "licensed under CC BY 4.0 (https://creativecommons.org/licenses/by/4.0/); rebuilt from public copies of its two "
    "sheets, rows that stand in both kept once."
)
"""The line that has to stand wherever the data, or a figure or picture made of it, is shown."""


def online_retail_ii() -> Path:
    """The path of the shipped Online Retail II log, a Parquet file of 1,044,847 rows.

    Columns: `invoice, stock_code, description, quantity, invoice_date, unit_price, customer_id, country`. Show
    `ATTRIBUTION` with whatever is made of it.

    Raises
    ------
    SourceError
        When the installed package lacks the file, or lies in an archive that has no paths.

    Examples
    --------
    >>> import polars as pl
    >>> pl.scan_parquet(online_retail_ii()).select(pl.col("customer_id").drop_nulls().n_unique()).collect().item()
    5942
    """
    path = Path(str(files(__name__) / "online_retail_ii.parquet"))
    if not path.is_file():
        raise SourceError(
            f"{path} is missing from the installed package: "
            "install it again with `pip install --force-reinstall desireline`."
        )
    return path
