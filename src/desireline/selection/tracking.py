"""Runs sent to MLflow, when the environment names a tracking server; files in the workspace are kept in any case."""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

from desireline.core.errors import SettingError

URI = "MLFLOW_TRACKING_URI"
EXPERIMENT = "desireline"


def check_tracking() -> None:
    """Raise SettingError when a server is named but the library is not installed: before the work, not after it."""
    if os.environ.get(URI) and find_spec("mlflow") is None:
        raise SettingError(f"{URI} is set, but MLflow is not installed: pip install 'desireline[mlflow]'.")


def log_run(name: str, settings: Mapping[str, Any], figures: Mapping[str, float]) -> None:
    """Send one run where MLFLOW_TRACKING_URI points; nothing without it."""
    if not os.environ.get(URI):
        return
    import mlflow

    mlflow.set_experiment(EXPERIMENT)
    with mlflow.start_run(run_name=name):
        mlflow.log_params(dict(settings))
        mlflow.log_metrics(dict(figures))
