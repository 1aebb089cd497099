"""A module imports only from floors below its own, and the check that says so can fail."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the real contract on the package `desireline` that lies in `folder`/src."""
    shutil.copy(Path(__file__).parents[2] / "pyproject.toml", folder)
    code = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True, no_logo=True))"
    environment = os.environ | {"PYTHONPATH": str(folder / "src"), "COLUMNS": "200"}
    return subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


@pytest.fixture
def house(root: Path, tmp_path: Path) -> Path:
    """A copy of the package's source, so that it can be spoilt."""
    shutil.copytree(
        root / "src" / "desireline",
        tmp_path / "src" / "desireline",
        ignore=shutil.ignore_patterns("__pycache__", "*.parquet"),
    )
    (
        tmp_path / "src" / "desireline" / "__init__.py"
    ).touch()  # without it the copy and the installed package would merge
    return tmp_path


def spoil(house: Path, module: str, line: str) -> None:
    path = house / "src" / "desireline" / module
    path.write_text(path.read_text(encoding="utf-8") + f"\n{line}\n", encoding="utf-8")


def test_every_module_imports_only_from_floors_below_its_own(house: Path) -> None:
    done = lint(house)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("core/errors.py", "import desireline.cli"),
        ("schema/model.py", "def late() -> None:\n    from desireline.events import cut"),
        ("evaluation/result.py", "import desireline.features"),  # a neighbour on the same floor
    ],
)
def test_an_import_from_the_same_floor_or_above_breaks_the_contract(house: Path, module: str, line: str) -> None:
    spoil(house, module, line)
    done = lint(house)
    assert done.returncode == 1
    assert "BROKEN" in done.stdout
    assert f"desireline.{module.removesuffix('.py').replace('/', '.')} -> desireline." in done.stdout


def test_a_new_package_must_be_given_a_floor(house: Path) -> None:
    (house / "src" / "desireline" / "attic").mkdir()
    (house / "src" / "desireline" / "attic" / "__init__.py").touch()
    done = lint(house)
    assert done.returncode == 1
    assert "attic" in done.stdout
