"""What a user gets by `pip install`: the demo's data, the licence, the types; nothing of the machine that built it."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import polars as pl
import pytest

from desireline.data import ATTRIBUTION, online_retail_ii
from desireline.version import __version__


def test_the_shipped_log_is_the_published_one() -> None:
    log = pl.read_parquet(online_retail_ii())
    # UCI, data set 502: 1,067,371 rows in two sheets, 22,523 of them in both; the public copies lack one more
    assert log.height == 1_067_371 - 22_523 - 1
    assert log["customer_id"].drop_nulls().n_unique() == 5_942  # the published number of customers
    assert str(log["invoice_date"].min()) == "2009-12-01 07:45:00"
    assert str(log["invoice_date"].max()) == "2011-12-09 12:50:00"


def test_the_shipped_log_equals_the_set_beside_the_repository(shared_data: Path) -> None:
    assert pl.read_parquet(online_retail_ii()).equals(
        pl.read_parquet(shared_data / "online_retail_ii" / "online_retail_ii.parquet")
    )


@pytest.mark.parametrize("name", ["README.md", "README.zh.md", "docs/index.md", "src/desireline/data/README.md"])
def test_the_data_is_attributed_wherever_it_is_named(root: Path, name: str) -> None:
    text = (root / name).read_text(encoding="utf-8")
    for part in ["Chen", "10.24432/C5CG6D", "CC BY 4.0"]:
        assert part in text
        assert part in ATTRIBUTION


def test_no_file_names_a_machine(root: Path) -> None:
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=root, capture_output=True, text=True, check=False)
    if tracked.returncode:
        pytest.skip("not a git checkout")
    # written in pieces, so that this file does not find itself
    folders = r"(?<![\w.~-])/(?:" + "|".join(["ro" + "ot", "ho" + "me", "wo" + "rk"]) + r")/"
    hosts = "|".join(
        re.escape(".".join(parts))
        for parts in [("pypi", "org"), ("pythonhosted", "org"), ("deb", "debian", "org"), ("registry", "npmjs", "org")]
    )
    pattern = re.compile(f"{folders}|{hosts}".encode())
    named = []
    for name in filter(None, tracked.stdout.split("\0")):
        path = root / name
        if path.suffix in {".parquet", ".png"} or not path.is_file():
            continue
        named += [
            f"{name}:{number}: {line.decode()}"
            for number, line in enumerate(path.read_bytes().splitlines(), 1)
            if pattern.search(line)
        ]
    assert not named


def test_the_wheel_holds_data_types_and_licence(root: Path, tmp_path: Path) -> None:
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "wheel",
            "--quiet",
            "--no-deps",
            "--no-build-isolation",
            "--wheel-dir",
            str(tmp_path),
            str(root),
        ],
        check=True,
    )
    (wheel,) = tmp_path.glob("desireline-*.whl")
    assert wheel.name.startswith(f"desireline-{__version__}-")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert {"desireline/py.typed", "desireline/data/online_retail_ii.parquet", "desireline/data/README.md"} <= names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert not [name for name in names if name.startswith(("tests/", "docs/", "benchmarks/"))]
