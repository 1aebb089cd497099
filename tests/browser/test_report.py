"""The report: whole, harmless whatever the log holds, and drawn by a real browser without an error."""

import re
import subprocess

import polars as pl
import pytest

from desireline.report import gather, page
from desireline.schema.model import EventSpec, FieldSpec, Schema, TimeSpec
from desireline.workspace import init_workspace

NASTY = "</script><script>document.documentElement.dataset.owned = 1</script><!-- "
TINY = {"d_model": "8", "layers": "1", "heads": "1", "length": "20", "epochs": "2", "seeds": "1", "bootstrap": "50"}


@pytest.fixture(scope="module")
def html(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    schema = Schema(
        user="user",
        time=TimeSpec(column="time", format="epoch_s"),
        event=EventSpec(column="event"),
        item="item",
        fields={"title": FieldSpec(column="title", kind="text", of="item")},
        types={"view": {"roles": ["positive", "target"]}, "buy": {"roles": ["positive", "target"]}},
    )
    rows = [
        {
            "user": f"u{k % 12}{NASTY if k % 12 == 3 else ''}",
            "time": 1_700_000_000 + 7_000 * k,
            "event": "buy" if k % 4 == 0 else "view",
            "item": f"i{(k * 7) % 9}{NASTY if k % 9 == 0 else ''}",
            "title": f"a thing {NASTY}",
        }
        for k in range(600)
    ]
    pl.DataFrame(rows).write_parquet(folder / "log.parquet")
    workspace, _ = init_workspace(folder / "shop", schema=schema)
    workspace.ingest(folder / "log.parquet")
    empty = page(gather(workspace))
    small = workspace.with_settings(TINY)
    small.compare("recommend", ["gru"])
    small.compare("next_event", ["gru"])
    path = workspace.report(folder / "report.html")
    return empty, path


def test_a_report_before_any_model_says_which_command_makes_one(html):
    assert "desireline compare" in html[0]


def test_the_page_needs_nothing_from_the_network(html):
    text = html[1].read_text()
    assert not re.search(r'<(script|link|img)[^>]+(src|href)="http', text)
    assert len(text) < 2_500_000


def test_text_of_the_log_is_never_markup(html):
    assert NASTY not in html[1].read_text()


def test_a_browser_draws_every_chart_without_an_error(html, program, tmp_path):
    chromium = program("chromium")
    words = [
        str(chromium),
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--virtual-time-budget=10000",
        f"--user-data-dir={tmp_path}",
        "--dump-dom",
        html[1].as_uri(),
    ]
    dom = subprocess.run(words, capture_output=True, text=True, timeout=120, check=True).stdout
    head = dom[: dom.index("<head")]
    assert "data-errors" not in head
    assert "data-owned" not in head
    drawn = re.search(r'data-drawn="(\d+)"', head)
    assert drawn
    assert int(drawn.group(1)) == dom.count('class="chart') > 10
    assert dom.count("<svg") >= int(drawn.group(1))
