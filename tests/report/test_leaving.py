"""What the report tells of churn on real purchases, held against slow counts in plain Python."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from desireline.core.errors import DataError
from desireline.data import online_retail_ii
from desireline.report import churn_charts as charts
from desireline.report import gather, page
from desireline.report import leaving as gathering
from desireline.report.leaving import COST, Leaving, gather_leaving
from desireline.selection import deploy
from desireline.sequences.ragged import TARGET
from desireline.workspace import Workspace, init_workspace

TINY = {"seeds": "1", "epochs": "1", "d_model": "8", "layers": "1", "length": "20", "bootstrap": "50"}
DAY_S = 86_400


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Every twentieth customer of two real years, compared for churn."""
    folder = tmp_path_factory.mktemp("retail")
    rows = pl.read_parquet(online_retail_ii())
    kept = rows["customer_id"].drop_nulls().unique().sort().gather_every(20)
    rows.filter(pl.col("customer_id").is_in(kept.implode())).write_parquet(folder / "log.parquet")
    workspace, _ = init_workspace(folder / "shop", source=folder / "log.parquet")
    workspace.ingest(folder / "log.parquet")
    workspace.with_settings(TINY).compare("churn", ["gru"], cut="2011-08-01")
    return workspace


@pytest.fixture(scope="module")
def leaving(shop: Workspace) -> Leaving:
    """Of that shop."""
    return gather_leaving(shop)


def occasions(shop: Workspace) -> tuple[list[tuple[float, bool, float]], float]:
    """Of every day with a purchase: seconds to the next one or the cut, whether one came, the year's value so far."""
    prepared = deploy.current(shop.folder, shop.schema, "churn", None).prepared
    before, found = prepared.before, []
    for user in range(len(before)):
        lo, hi = int(before.offsets[user]), int(before.offsets[user + 1])
        bought = [
            (int(before["time"][n]), float(before["value"][n])) for n in range(lo, hi) if before["role"][n] & TARGET
        ]
        for n, (time, _) in enumerate(bought):
            after = bought[n + 1][0] if n + 1 < len(bought) else None
            if after is not None and after // (DAY_S * 10**6) == time // (DAY_S * 10**6):
                continue  # not the day's last
            worth = sum(value for then, value in bought[: n + 1] if time - then <= 365 * DAY_S * 10**6)
            end = prepared.cut_us if after is None else after
            found.append(((end - time) / 1e6, after is not None, worth))
    return found, prepared.cut_us


def product_limit(waits: list[tuple[float, bool]], at: float) -> float:
    """Kaplan and Meier's share of waits longer than `at`, moment after moment."""
    left = 1.0
    for moment in sorted({wait for wait, came in waits if came and wait <= at}):
        risk = sum(wait >= moment for wait, _ in waits)
        left *= 1 - sum(came and wait == moment for wait, came in waits) / risk
    return left


def test_the_curve_is_kaplan_and_meiers(shop: Workspace, leaving: Leaving) -> None:
    found = [(wait, came) for wait, came, _ in occasions(shop)[0]]
    everybody = leaving.survival.filter(pl.col("group") == "all")
    assert set(everybody["occasions"]) == {len(found)}
    for row in (7, 20, 60):
        days, away = everybody.select("days", "away").row(row)
        assert away == pytest.approx(product_limit(found, days * DAY_S), abs=1e-9)
    for step in leaving.ladder:
        assert step["away"] == pytest.approx(product_limit(found, step["horizon_d"] * DAY_S), abs=1e-9)
    assert [step["horizon_d"] for step in leaving.ladder] == sorted(step["horizon_d"] for step in leaving.ladder)


def test_thirds_are_of_the_value_known_when_a_wait_begins(shop: Workspace, leaving: Leaving) -> None:
    found = occasions(shop)[0]
    low, high = np.quantile([worth for _, _, worth in found], [1 / 3, 2 / 3])
    least = [(wait, came) for wait, came, worth in found if worth <= low]
    most = [(wait, came) for wait, came, worth in found if worth > high]
    for name, waits in (("low value", least), ("high value", most)):
        days, away = leaving.survival.filter(pl.col("group") == name).select("days", "away").row(20)
        assert away == pytest.approx(product_limit(waits, days * DAY_S), abs=0.01)  # values are kept in float32


def test_the_season_ends_with_the_forecast_of_now(leaving: Leaving, shop: Workspace) -> None:
    assert leaving.season["known"].to_list() == [True] * (leaving.season.height - 1) + [False]
    assert leaving.season["time"].is_sorted()
    assert leaving.season["time"][-1] > shop.store.span()[1]
    low, level, high = leaving.season.select("low", "level", "high").row(-1)
    assert low < level < high


def test_the_list_is_that_of_decide_at_its_stated_assumptions(leaving: Leaving, shop: Workspace) -> None:
    found = leaving.decision
    assert found is not None
    same = shop.decide(found.budget, found.assumptions.cost)
    assert found == same
    assert found.assumptions.cost == float(f"{found.assumptions.cost:.0e}")
    assert found.budget == pytest.approx(np.ceil(0.1 * found.users) * found.assumptions.cost)
    mean = found.assumptions.cost / COST  # to one digit
    assert 0.5 * mean < np.mean([c.value for c in shop.decide(1e12, 0.0).contacts]) < 2 * mean


def test_the_page_tells_it(shop: Workspace) -> None:
    html = page(gather(shop))
    for words in ("Gone is who has no purchase for", "The season", "Who would be caught?", "Whom would it pay"):
        assert words in html
    assert "share that left" in html
    assert "established, high value" in html


def test_its_charts_can_be_drawn(shop: Workspace, leaving: Leaving) -> None:
    vl_convert = pytest.importorskip("vl_convert")
    result = next(r for r in shop.results() if r.task == "churn")
    assert [row.name for row in charts.caught_rows(result)][1:] == ["recency", "rfm"]
    assert leaving.decision is not None
    specs = [charts.gains(result), charts.survival(leaving), charts.season(leaving), charts.profit(leaving.decision)]
    for spec in specs:
        assert spec is not None
        assert vl_convert.vegalite_to_svg(spec | {"width": 300}).count("<path") > 3


def test_a_log_without_values_says_why_there_is_no_list(shop: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    def without(*_: object) -> pl.DataFrame:
        raise DataError("No event of the last year has a value.")

    monkeypatch.setattr(gathering, "risks", without)
    found = gather_leaving(shop)
    assert found.decision is None
    assert "No event of the last year has a value." in page(replace(gather(shop), leaving=found))


def test_no_model_no_chapter(shop: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Workspace, "answered_tasks", lambda self: [])
    monkeypatch.setattr(Workspace, "results", lambda self: [])
    html = page(gather(shop))
    assert "Whom would it pay" not in html
    assert "Who is leaving" not in html
    assert "desireline compare shop --task churn" in html
