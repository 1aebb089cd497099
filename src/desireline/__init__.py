"""desireline: one sequence model of a user event log, and the answers that come out of it.

>>> import desireline as dl
>>> dl.__version__
'0.1.0'
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from desireline.core.errors import (
    BusyError,
    DataError,
    DesirelineError,
    ModelError,
    SchemaError,
    SettingError,
    SourceError,
    StoreError,
    UnknownModelError,
    UnknownUserError,
)
from desireline.version import __version__

if TYPE_CHECKING:
    from desireline.evaluation.result import Result
    from desireline.schema.model import Schema
    from desireline.sequences.prepared import Prepared
    from desireline.workspace import Model, Workspace

__all__ = [
    "BusyError",
    "DataError",
    "DesirelineError",
    "Model",
    "ModelError",
    "Prepared",
    "Result",
    "Schema",
    "SchemaError",
    "SettingError",
    "SourceError",
    "StoreError",
    "UnknownModelError",
    "UnknownUserError",
    "Workspace",
    "__version__",
    "init",
    "open",
]

_LATER = {
    "Model": "desireline.workspace",
    "Workspace": "desireline.workspace",
    "Result": "desireline.evaluation.result",
    "Schema": "desireline.schema.model",
    "Prepared": "desireline.sequences.prepared",
}


def open(folder: str | Path) -> Workspace:
    """Open a workspace folder.

    Raises
    ------
    SchemaError
        when the folder has no readable `desireline.yaml`
    """
    from desireline.workspace import open_workspace

    return open_workspace(folder)


def init(
    folder: str | Path,
    *,
    source: str | Path | None = None,
    preset: str | None = None,
    schema: Schema | str | Path | None = None,
) -> Workspace:
    """Make a workspace: from a schema (an object or a YAML file), or by guessing one from a `source` file.

    Raises
    ------
    SchemaError
        when the folder is a workspace already, or no schema can be guessed
    """
    from desireline.workspace import init_workspace

    return init_workspace(folder, source=source, preset=preset, schema=schema)[0]


def __getattr__(name: str) -> Any:  # torch and polars are loaded when first needed, not by `import desireline`
    if name in _LATER:
        return getattr(import_module(_LATER[name]), name)
    raise AttributeError(f"module 'desireline' has no attribute {name!r}")
