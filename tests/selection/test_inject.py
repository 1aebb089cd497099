"""A workspace with planted attacks: everything real is still there, the truth adds up, and nothing is half made."""

from __future__ import annotations

import json
import random
from collections import Counter
from itertools import pairwise
from pathlib import Path

import polars as pl
import pytest

from desireline.core.errors import DataError, SettingError, StoreError
from desireline.events.store import EventStore
from desireline.workspace import Workspace, init_workspace, open_workspace


def made(folder: Path, types: tuple[str, ...] = ("view", "view", "view", "purchase")) -> Workspace:
    generator, rows = random.Random(1), []
    for user in range(120):
        when = 1_700_000_000 + generator.randrange(200_000)
        for _ in range(generator.randrange(5, 40)):
            when += int(generator.expovariate(1 / 60_000))
            item = int(generator.paretovariate(0.8)) % 50
            rows.append((f"u{user + 200}", f"i{item:02d}", generator.choice(types), when, 1.5 + item))
    folder.mkdir(exist_ok=True)
    names = ["user_id", "item_id", "event_type", "timestamp", "price"]
    pl.DataFrame(rows, schema=names, orient="row").write_csv(folder / "log.csv")
    workspace, _ = init_workspace(folder / "shop", source=folder / "log.csv")
    workspace.ingest(folder / "log.csv")
    return workspace


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return made(tmp_path_factory.mktemp("inject"))


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_real_events_stay_and_the_planted_ones_are_those_of_the_truth(shop: Workspace, tmp_path: Path) -> None:
    before = content(shop.folder)
    told = shop.inject(tmp_path / "two", share=0.05, seed=7)
    assert content(shop.folder) == before
    two = open_workspace(tmp_path / "two")
    assert (tmp_path / "two/desireline.yaml").read_bytes() == (shop.folder / "desireline.yaml").read_bytes()
    real, both = shop.store.read_bucket(0, 64), two.store.read_bucket(0, 64)
    truth = pl.read_parquet(tmp_path / "two/truth/events.parquet")
    accounts = pl.read_parquet(tmp_path / "two/truth/planted.parquet")
    plan = json.loads((tmp_path / "two/truth/plan.json").read_text())
    assert both.columns == real.columns
    assert both["event_id"].n_unique() == both.height
    assert real.join(both, on=real.columns, how="anti", nulls_equal=True).height == 0
    added = both.join(real, on="event_id", how="anti")
    assert set(added["event_id"]) == set(truth["event_id"])
    assert added.select("event_id", "user").join(truth, on=["event_id", "user"], how="anti").height == 0
    assert told.events == truth.height == both.height - real.height
    assert told.accounts == accounts.height
    assert Counter(truth["user"]) == dict(accounts.select("user", "events").iter_rows())
    assert {name: row["accounts"] for name, row in told.families.items()} == Counter(accounts["family"])
    assert {name: row["events"] for name, row in told.families.items()} == Counter(truth["family"])
    assert plan["counts"]["families"] == told.families
    assert plan["window"]["begin"] == shop.store.default_cut().isoformat().replace("+00:00", "Z")
    assert set(told.not_applicable) == {"ratings", "paraphrase"} == set(plan["not_applicable"])
    assert two.check() is not None


def test_the_files_of_the_log_do_not_keep_planted_events_apart(shop: Workspace, tmp_path: Path) -> None:
    shop.inject(tmp_path / "two", share=0.05)
    truth = set(pl.read_parquet(tmp_path / "two/truth/events.parquet")["event_id"])
    files = list((tmp_path / "two/log").glob("*.parquet"))
    assert len(files) == len(list((shop.folder / "log").glob("*.parquet")))
    rows = pl.read_parquet(files[0])
    flags = [i in truth for i in rows["event_id"]]
    assert sum(flags) == len(truth)
    changes = sum(a != b for a, b in pairwise(flags))
    assert changes > 0.3 * len(truth)


def test_a_seed_makes_the_same_log(shop: Workspace, tmp_path: Path) -> None:
    logs = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        shop.inject(tmp_path / name, families=["ring", "placebo"], share=0.05, seed=seed)
        logs.append(open_workspace(tmp_path / name).store.read_bucket(0, 64))
    assert logs[0].equals(logs[1])
    assert not logs[0].equals(logs[2])


def test_a_window_bounds_the_acts_and_what_comes_after_it_stays(shop: Workspace, tmp_path: Path) -> None:
    first, last = shop.store.span()
    begin, end = first + 0.4 * (last - first), first + 0.6 * (last - first)
    shop.inject(tmp_path / "two", begin=begin, end=end, share=0.05)
    accounts = pl.read_parquet(tmp_path / "two/truth/planted.parquet")
    assert accounts["first"].min() >= begin
    assert accounts["last"].max() < end
    after = [w.store.read_bucket(0, 64).filter(pl.col("time") >= end) for w in (shop, open_workspace(tmp_path / "two"))]
    assert after[0].equals(after[1])


def test_a_folder_that_holds_something_is_left_alone(shop: Workspace, tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("mine")
    for taken in (tmp_path, tmp_path / "note.txt", shop.folder):
        with pytest.raises(StoreError, match="holds something already"):
            shop.inject(taken)
    assert (tmp_path / "note.txt").read_text() == "mine"
    (tmp_path / "empty").mkdir()
    shop.inject(tmp_path / "empty", families=["placebo"])
    assert (tmp_path / "empty/truth/plan.json").exists()


def test_a_failure_leaves_nothing_behind(shop: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: EventStore, events: pl.DataFrame) -> None:
        raise StoreError("No space is left.")

    monkeypatch.setattr(EventStore, "append", full)
    with pytest.raises(StoreError, match="No space"):
        shop.inject(tmp_path / "two")
    assert list(tmp_path.iterdir()) == []


def test_what_is_asked_wrongly_is_said(shop: Workspace, tmp_path: Path) -> None:
    for wrong, match in (
        ({"share": 0.0}, "share above 0"),
        ({"share": 0.9}, "share above 0"),
        ({"families": ["gossip"]}, "'gossip' is no family"),
        ({"intensity": "mad"}, "'mad' is no intensity"),
        ({"begin": "2023-12-01", "end": "2023-11-01"}, "stand before --end"),
    ):
        with pytest.raises(SettingError, match=match):
            shop.inject(tmp_path / "two", **wrong)
    with pytest.raises(DataError, match="paraphrase cannot be planted: it has no reviews"):
        shop.inject(tmp_path / "two", families=["paraphrase"])
    assert list(tmp_path.iterdir()) == []


def test_a_log_of_positions_is_refused(tmp_path: Path) -> None:
    rows = [(f"u{k % 20}", f"i{k % 30}", "view", k // 20) for k in range(400)]
    names = ["user_id", "item_id", "event_type", "timestamp"]
    pl.DataFrame(rows, schema=names, orient="row").write_csv(tmp_path / "log.csv")
    workspace, _ = init_workspace(tmp_path / "shop", source=tmp_path / "log.csv")
    workspace.ingest(tmp_path / "log.csv")
    with pytest.raises(DataError, match=r"positions and no times|no times of its own"):
        workspace.inject(tmp_path / "two")


def test_a_log_of_orders_alone_gets_what_it_allows(tmp_path: Path) -> None:
    told = made(tmp_path / "one", ("purchase",)).inject(tmp_path / "two", share=0.05)
    assert set(told.not_applicable) == {"brushing-browse", "coattails", "ratings", "paraphrase"}
    assert "no event type is browsing" in told.not_applicable["coattails"]
    assert {"brushing", "ring", "drip", "placebo"} <= set(told.families)
