"""Runs sent to MLflow, when the environment names a tracking server; files in the workspace are kept in any case."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from desireline.core.errors import SettingError

URI = "MLFLOW_TRACKING_URI"
EXPERIMENT = "desireline"


def log_run(name: str, settings: Mapping[str, Any], figures: Mapping[str, float]) -> None:
    """Send one run where MLFLOW_TRACKING_URI points; nothing without it. Raises SettingError without the library."""
    if not os.environ.get(URI):
        return
    try:
        import mlflow
    except ImportError as error:
        raise SettingError(f"{URI} is set, but MLflow is not installed: pip install 'desireline[mlflow]'.") from error
    mlflow.set_experiment(EXPERIMENT)
    with mlflow.start_run(run_name=name):
        mlflow.log_params(dict(settings))
        mlflow.log_metrics({key: float(value) for key, value in figures.items()})
