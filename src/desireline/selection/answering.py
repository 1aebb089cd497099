"""Which models answer: models/current.json, read and written in one place, without loading what learns.

It holds of each task `evaluated` and `live` (an id, or null), and `earlier`, a list of ids; that is missing in
workspaces of before there were any. Who takes which place is for `selection/deploy.py` to say.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from desireline.core.files import read_json, write_json


def roles_of(folder: Path) -> dict[str, Any]:
    """The models of each task that is answered."""
    path = folder / "models" / "current.json"
    return dict(read_json(path)) if path.exists() else {}


def put_roles(folder: Path, task: str, roles: dict[str, Any]) -> None:
    """Name the models of a task."""
    write_json(folder / "models" / "current.json", roles_of(folder) | {task: roles})


def ids_of(roles: dict[str, Any]) -> list[str]:
    """A task's models: the one that answers for now first."""
    return [name for name in (roles["live"], roles["evaluated"], *roles.get("earlier", [])) if name]
