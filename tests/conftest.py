"""What every test may use: the real data beside the repository, servers' programs, and how much hypothesis tries.

HYPOTHESIS_PROFILE=thorough tries fifty times as many examples; DESIRELINE_DATA names the folder of the real data sets;
`--slow` also runs what takes more than ten seconds.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

if "PYTEST_XDIST_WORKER" in os.environ:  # before torch, polars and numba are imported: one core a worker
    for variable in ("OMP_NUM_THREADS", "POLARS_MAX_THREADS", "NUMBA_NUM_THREADS"):
        os.environ.setdefault(variable, "1")

import pytest
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).resolve().parents[1]

# The first call into a jitted kernel or a cold frame engine takes seconds: a deadline would only measure that.
settings.register_profile(
    "quick", max_examples=20, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("thorough", max_examples=1000, deadline=None, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="also run the tests marked slow")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--slow"):
        skip = pytest.mark.skip(reason="takes more than ten seconds; `make test ARGS=--slow` runs it")
        for item in items:
            if item.get_closest_marker("slow"):
                item.add_marker(skip)


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository's root."""
    return ROOT


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of the real data sets; a test that asks for it is skipped where there is none."""
    folder = Path(os.environ.get("DESIRELINE_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"the real data sets are not at {folder}; DESIRELINE_DATA names another folder")
    return folder


@pytest.fixture(scope="session")
def program() -> Callable[[str], Path]:
    """`program("postgres")` is the path of a server's program; the test is skipped by name where there is none."""

    def find(name: str) -> Path:
        debian = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))  # Debian keeps these off the PATH
        found = shutil.which(name) or (str(debian[-1]) if debian else None)
        if found is None:
            pytest.skip(f"{name} is not installed; `make servers` installs it")
        return Path(found)

    return find


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """`call(*words)` -> status, stdout, stderr."""

    from desireline.cli.app import main

    def run(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["desireline", *map(str, words)])
        try:
            main()
            status = 0
        except SystemExit as stop:
            status = stop.code or 0
        said = capsys.readouterr()
        return status, said.out, said.err

    return run
