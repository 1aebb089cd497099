"""PyOD's detectors on a table of numbers, run by an environment that holds PyOD and nothing of ours.

    python pyod_scores.py IN.parquet OUT.parquet

Every column of IN is a measure of an account; missing ones become the column's median, heavy tails are logged, columns
are standardised, as its users do. OUT holds a column of scores a detector, higher for the more anomalous.
"""

from __future__ import annotations

import sys
import warnings

import numpy as np
import polars as pl
from pyod.models.copod import COPOD
from pyod.models.ecod import ECOD
from pyod.models.hbos import HBOS
from pyod.models.iforest import IForest
from pyod.models.knn import KNN
from pyod.models.lof import LOF
from pyod.models.pca import PCA

DETECTORS = {
    "IForest": lambda: IForest(n_estimators=200, random_state=0),
    "ECOD": ECOD,
    "COPOD": COPOD,
    "HBOS": HBOS,
    "KNN": lambda: KNN(n_neighbors=10),
    "LOF": lambda: LOF(n_neighbors=20),
    "PCA": lambda: PCA(random_state=0),
}


def table(frame: pl.DataFrame) -> np.ndarray:
    """float64 [A, F], finite, columns that vary."""
    columns = []
    for column in frame:
        values = column.cast(pl.Float64).to_numpy().astype(np.float64)
        known = np.isfinite(values)
        if known.sum() < 2:
            continue
        values = np.where(known, values, np.median(values[known]))
        values = np.sign(values) * np.log1p(np.abs(values))
        if values.std() > 0:
            columns.append((values - values.mean()) / values.std())
    return np.stack(columns, axis=1)


def main() -> None:
    """Score every row by every detector."""
    warnings.filterwarnings("ignore")
    rows = table(pl.read_parquet(sys.argv[1]))
    found = {}
    for name, make in DETECTORS.items():
        detector = make()
        detector.fit(rows)
        found[name] = np.asarray(detector.decision_scores_, np.float64)
    pl.DataFrame(found).write_parquet(sys.argv[2])


if __name__ == "__main__":
    main()
