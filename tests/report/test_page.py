"""The page from reports made by hand: harmless, whole whatever the figures, and plain about what lacks."""

import builtins
import json
import re
from dataclasses import replace
from datetime import UTC, datetime

import polars as pl
import pytest

from desireline.core.errors import SettingError
from desireline.decide.retention import Assumptions, decide
from desireline.evaluation.result import Metric, Result, Row
from desireline.report import Report, page
from desireline.report.gather import Example
from desireline.report.leaving import Leaving
from desireline.report.result_charts import curves, intervals, ranked
from desireline.tasks.churn.definition import DAY_US, Definition

NASTY = "</script><script>alert(1)</script><!-- &amp; ]]>\u2028"
LONG_AGO = datetime(2024, 1, 1, tzinfo=UTC)
HEALTH = {
    "events": 30,
    "users": 3,
    "items": 2,
    "types": {"view": 20, NASTY: 10},
    "hours": [1] * 24,
    "notes": [NASTY],
    "clock": {"has_times": True, "step": "second"},
    "lengths": {"0": 1, "0.5": 9, "1": 20},
    "repeat_share": 0.5,
    "removed": {"duplicate": 2},
    "rules": {"duplicate": NASTY},
    "clipped": 0,
    "quarantine": {NASTY: 1},
    "missing": {NASTY: 0.5},
    "gaps": [],
    "order": {"item": None, "type": None},
}


def result(task="recommend", primary="NDCG@10", values=(0.1, 0.3, 0.2), **changes):
    curve = {"losses": [2.0, 1.5], "validations": [-0.5, -0.4], "best_epoch": 2}
    rows = [
        Row(f"row-{v}", "model" if v == values[0] else "baseline", {primary: Metric(v, v - 0.05, v + 0.05)}, 1.0, 5)
        for v in values
    ]
    rows[0] = replace(rows[0], curves=[curve], notes=[NASTY])
    made = Result(task, "m", "temporal/1", "2024-01-02T00:00:00Z", 0, rows, 1.0, 1.0, primary, rows[1].name, "because")
    return replace(made, **changes)


@pytest.fixture
def report():
    moments = pl.DataFrame(
        {"time": [LONG_AGO] * 2, "event": ["view", NASTY], "count": [1, 3], "items": [[NASTY], ["i1"] * 3]},
        schema_overrides={"time": pl.Datetime("us", "UTC")},
    )
    answers = {
        "next_event": {
            "as_of": "2024-01-02T00:00:00Z",
            "events": [{"event": NASTY, "probability": 0.8}, {"event": "view", "probability": 0.2}],
            "items": [{"item": NASTY, "score": 1.0}],
            "time_to_next": {"median_s": 3600.0, "p10_s": 60.0, "p90_s": 1e9},
        },
        "recommend": {"error": f"no answer {NASTY}"},
    }
    start = pl.Series([datetime(2024, 1, 1)], dtype=pl.Datetime("us"))
    activity = pl.DataFrame({"start": start, "end": start.dt.offset_by("1d"), "event": [NASTY], "events": [30]})
    return Report(
        name=NASTY,
        timed=True,
        zone="UTC",
        first=LONG_AGO,
        last=LONG_AGO,
        health=HEALTH,
        period="day",
        activity=activity,
        funnel=pl.DataFrame({"event": ["view", NASTY], "users": [3, 1]}),
        results=[result()],
        others=[],
        examples=[Example(NASTY, moments, answers)],
        titles={NASTY: f"titled {NASTY}"},
    )


@pytest.fixture
def leaving():
    users = 40
    risks = pl.DataFrame(
        {
            "user": [NASTY, *(f"u{n}" for n in range(1, users))],
            "probability": [0.9 - n / 50 for n in range(users)],
            "segment": [f"new {NASTY}", *["established"] * (users - 1)],
            "value": [100.0] * users,
        }
    )
    return Leaving(
        word=NASTY,
        definition=Definition("purchase", 90 * DAY_US, 7 * DAY_US, 180 * DAY_US, 3.0),
        is_chosen=True,
        ladder=[{"horizon_d": 90.0, "gaps_covered": 0.8, "away": 0.3}],
        occasion="day",
        survival=pl.DataFrame({"group": ["all"] * 2, "occasions": [9] * 2, "days": [0.0, 90.0], "away": [1.0, 0.3]}),
        season=pl.DataFrame(
            {"time": [LONG_AGO] * 3, "level": [0.2, -0.2, 0.1], "low": [0.2, -0.2, -0.1], "high": [0.2, -0.2, 0.3]}
            | {"known": [True, True, False]}
        ),
        knows_year=False,
        decision=decide(risks, 30.0, Assumptions(1.0), "2024-01-02T00:00:00Z", 0),
        undecided="",
    )


def test_what_is_told_of_churn_is_harmless_and_stands_once(report, leaving):
    churn = result("churn", "log-loss")
    html = page(replace(report, leaving=leaving, results=[churn, churn]))
    assert "<script>alert" not in html
    assert "<!--" not in html
    assert specs_of(html)
    assert html.count("Whom would it pay to contact?") == 1
    assert "counted from 7 days after the question" in html
    assert "The list, the first 20 of 30" in html


def test_churn_is_told_where_a_model_answers_and_no_table_was_kept(report, leaving):
    html = markup(page(replace(report, leaving=leaving)))
    assert html.count('<h2 id="churn">') == 1
    assert html.count("<table") == html.count("<caption>")
    assert "Who would be caught?" not in html


def test_churn_has_its_table_where_no_model_answers(report):
    html = page(replace(report, results=[result("churn", "log-loss")]))
    assert "Who is leaving: churn" in html
    assert "Gone is who" not in html


def test_a_log_of_positions_is_not_asked_who_is_leaving(report):
    without_times = page(replace(report, timed=False))
    assert not any(f"--task {task}" in without_times for task in ("churn", "anomaly"))


@pytest.mark.parametrize(("known", "drawn"), [(0, False), (1, False), (2, True)])
def test_a_season_needs_two_known_moments(report, leaving, known, drawn):
    short = replace(leaving, season=leaving.season.tail(1 + known))
    assert ("<h3>The season" in page(replace(report, leaving=short))) is drawn


def markup(html):
    """The page without what its scripts hold."""
    return re.sub(r"(<script[^>]*>).*?</script>", r"\1</script>", html, flags=re.S)


def specs_of(html):
    """The charts as a browser reads them: the element ends at the first `</script`."""
    start = html.index('id="specs">') + len('id="specs">')
    return json.loads(html[start : html.index("</script", start)])


def test_text_of_the_log_is_harmless_and_stays_what_it_is(report):
    html = page(report)
    assert "<script>alert" not in html
    assert "<!--" not in html
    specs = specs_of(html)
    assert NASTY in json.dumps(specs, ensure_ascii=False).replace("\\u2028", "\u2028")
    assert html.count("<script") == 3  # the charts, the library, what draws them


def test_the_page_forbids_the_network(report):
    html = markup(page(report))
    assert "default-src 'none'" in html
    assert not re.search(r"<(script|link|img|iframe)[^>]+(src|href)=", html)


def test_every_chart_says_what_it_shows_and_every_table_names_its_rows(report):
    whole = page(report)
    html = markup(whole)
    charts = re.findall(r'<div id="(chart-\d+)" class="chart" role="img" aria-label="([^"]+)"', html)
    assert {name for name, _ in charts} == set(specs_of(whole))
    assert all(len(label) > 5 for _, label in charts)
    assert html.count("<table") == html.count("<caption>")
    assert len(re.findall(r"<tr[^>]*><th scope=\"(?:row|col)\"", html)) == html.count("<tr")
    assert html.count("<h1") == 1


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_figures_that_are_no_numbers_leave_the_page_whole(report, value):
    bad = replace(
        result().rows[0],
        metrics={"NDCG@10": Metric(value, value, value)},
        curves=[{"losses": [value, 1.0], "validations": [value, 0.1], "best_epoch": 2}],
        plots={"reliability": [{"confidence": 0.8, "right": 0.7, "n": 3}], "pit": [value, 1.0]},
    )
    broken = result(rows=[bad, *result().rows[1:]])
    html = page(replace(report, results=[broken]))
    assert specs_of(html)
    assert "NaN" not in json.dumps(specs_of(html))


def test_rows_stand_best_first_whichever_way_the_metric_goes():
    assert [r.name for r in ranked(result())] == ["row-0.3", "row-0.2", "row-0.1"]
    loss = result("next_event", "log-loss")
    assert [r.name for r in ranked(loss)] == ["row-0.1", "row-0.2", "row-0.3"]


def test_a_loss_on_validation_is_drawn_as_a_loss():
    def values(spec):
        return [row["value"] for row in spec["data"]["values"]]

    assert values(curves(result("next_event", "log-loss"), "validations")) == [0.5, 0.4]  # kept as -0.5, -0.4
    assert values(curves(result("next_event", "log-loss"), "losses")) == [2.0, 1.5]
    assert values(curves(result(), "validations")) == [-0.5, -0.4]


def test_only_the_chosen_row_is_marked():
    spec = intervals(result(), "NDCG@10")
    rows = spec["data"]["values"]
    assert [row["name"] for row in rows if row["chosen"]] == ["row-0.3"]
    assert {row["name"]: (row["low"], row["high"]) for row in rows}["row-0.3"] == (0.25, 0.35)


def test_a_page_without_tables_says_which_commands_make_them(report):
    html = page(replace(report, name="shop", results=[]))
    assert "desireline compare shop --task next_event" in html
    assert "desireline compare shop --task recommend" in html


def test_one_task_is_enough_and_the_other_is_offered(report):
    html = page(replace(report, name="shop"))
    assert "desireline compare shop --task next_event" in html
    assert "--task recommend" not in html


def test_a_log_without_items_is_offered_no_recommendations(report):
    html = page(replace(report, name="shop", results=[], health=HEALTH | {"items": 0}))
    assert "--task next_event" in html
    assert "--task recommend" not in html
    assert "<dt>items" not in html


def test_a_log_of_positions_names_no_day(report):
    positions = pl.DataFrame({"start": [0], "end": [5], "event": ["view"], "events": [30]})
    html = page(replace(report, name="shop", timed=False, period="", activity=positions))
    assert "without times" in html
    assert "Events by hour" not in html
    assert "2024-01-01" not in markup(html).replace("2024-01-02", "")


def test_a_missing_extra_is_named_with_its_remedy(report, monkeypatch):
    real = builtins.__import__

    def without(name, *words, **more):
        if name in ("altair", "vl_convert"):
            raise ImportError(name)
        return real(name, *words, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(SettingError, match=r"pip install 'desireline\[report\]'"):
        page(report)
