"""The command line: statuses, JSON on stdout alone, one message an error."""

import json
import random

import polars as pl
import pytest


@pytest.fixture
def shop(tmp_path, call):
    rng, rows = random.Random(1), []
    for user in range(40):
        when = 1_700_000_000 + rng.randrange(86_400)
        for _ in range(rng.randrange(3, 25)):
            when += int(rng.expovariate(1 / 40_000))
            event = rng.choice(["view", "view", "cart", "purchase"])
            rows.append([f"u{user:02d}", f"i{rng.randrange(15):02d}", event, when, 5.5])
    table = pl.DataFrame(rows, schema=["user_id", "item_id", "event_type", "timestamp", "price"], orient="row")
    table.write_csv(tmp_path / "log.csv")
    status, out, err = call("init", tmp_path / "shop", "--from", tmp_path / "log.csv")
    assert status == 0, err
    assert "desireline.yaml" in out
    return tmp_path / "shop"


TINY = ["--set", "d_model=8", "--set", "layers=1", "--set", "heads=1", "--set", "bootstrap=50"]


def test_the_whole_way_speaks_json(shop, call):
    def ask(*words):
        status, out, err = call(*words, "--json")
        assert status == 0, err
        return json.loads(out)

    counts = ask("ingest", shop, shop.parent / "log.csv")
    assert counts["read"] == counts["stored"] > 0
    assert ask("ingest", shop, shop.parent / "log.csv")["stored"] == 0
    assert ask("check", shop)["users"] == 40
    assert ask("prepare", shop)["before"]["users"] > 30
    done = ask("fit", shop, "--task", "next_event", "--encoder", "gru", "--epochs", "2", *TINY)
    assert done["training"]["epochs"] == 2
    assert done["training"]["targets"] > 0
    assert done["peak_rss_mib"] > 10
    answer = ask("predict", shop, "--task", "next_event", "--user", "u07")
    assert sum(e["probability"] for e in answer["events"]) == pytest.approx(1)
    assert ask("models", shop)["models"][0]["answers"]
    assert ask("evaluate", shop, "--show-split", "u07")["events"]
    assert ask("evaluate", shop, "--model", done["model"])["rows"][0]["name"] == "gru"
    assert "desireline" in ask("version")


def test_a_user_error_is_one_message_and_status_one(tmp_path, shop, call):
    for words in [
        ("ingest", tmp_path / "nowhere", "x.csv"),
        ("ingest", shop, tmp_path / "missing.csv"),
        ("check", shop),
        ("init", shop, "--from", tmp_path / "log.csv"),
        ("prepare", shop, "--cut", "yesterday"),
        ("fit", shop, "--task", "astrology"),
        ("fit", shop, "--task", "recommend", "--set", "lr"),
    ]:
        status, out, err = call(*words)
        assert status == 1, words
        assert err.startswith("Error: "), words
        assert "Traceback" not in err
        assert out == ""


def test_wrong_usage_is_status_two(shop, call):
    for words in [
        ("no-such-command",),
        ("fit", shop),
        ("predict", shop, "--task", "recommend"),
        ("predict", shop, "--task", "recommend", "--all"),
        ("predict", shop, "--task", "recommend", "--user", "u07", "--out", "list.parquet"),
        ("evaluate", shop, "--model", "m", "--cut", "2024-01-01"),
        ("predict", shop, "--task", "recommend", "--user", "a", "--only", "old"),
        ("evaluate", shop),
    ]:
        assert call(*words)[0] == 2, words


def test_a_history_with_a_fault_names_its_line(shop, call):
    call("ingest", shop, shop.parent / "log.csv")
    call("fit", shop, "--task", "recommend", "--epochs", "1", *TINY)
    path = shop.parent / "history.jsonl"
    path.write_text('{"event": "view", "item": "i01"}\nnonsense\n')
    status, _, err = call("predict", shop, "--task", "recommend", "--history", path)
    assert status == 1
    assert "line 2" in err
    path.write_text('{"event": "dance", "item": "i01"}\n')
    status, _, err = call("predict", shop, "--task", "recommend", "--history", path)
    assert status == 1
    assert "dance" in err
    path.write_text(
        '{"event": "view", "item": "never seen", "time": "2023-11-20T10:00:00Z"}\n{"event": "view", "item": null}\n'
    )
    status, out, err = call("predict", shop, "--task", "recommend", "--history", path, "--json")
    assert status == 0, err
    assert len(json.loads(out)["items"]) == 10
    assert "left out" not in err
    path.write_text(
        '{"event": "view", "item": "i01", "time": "2023-11-15T10:00:00Z"}\n'
        '{"event": "view", "item": "i02", "time": "2023-11-24T00:00:00Z"}\n{"event": "view", "item": "i03"}\n'
    )
    status, _, err = call("predict", shop, "--task", "recommend", "--history", path, "--as-of", "2023-11-24")
    assert status == 0, err
    assert "1 of 3 events lie at or after 2023-11-24T00:00:00Z and are left out" in " ".join(err.split())


def test_a_recommendation_carries_reasons_evidence_and_source_and_a_stranger_gets_one_too(shop, call):
    call("ingest", shop, shop.parent / "log.csv")
    call("fit", shop, "--task", "recommend", "--epochs", "1", *TINY)
    status, out, err = call("predict", shop, "--task", "recommend", "--user", "u07", "--k", "15", "--json")
    assert status == 0, err
    items = json.loads(out)["items"]
    assert len(items) == 15
    for item in items:
        assert set(item) == {"item", "score", "reasons", "evidence", "source"}
        assert item["source"] == "gru"
        assert all(isinstance(reason, str) for reason in item["reasons"])
        assert all(isinstance(event, int) for event in item["evidence"])
    assert any(" × " in item["reasons"][0] and item["evidence"] for item in items)
    nobody = shop.parent / "nobody.jsonl"
    nobody.write_text("")
    status, out, err = call("predict", shop, "--task", "recommend", "--history", nobody, "--k", "4")
    assert status == 0, err
    assert out.count("no history") == 4
    status, out, err = call("predict", shop, "--task", "next_event", "--history", nobody, "--set", "epochs=1", *TINY)
    assert status == 1
    assert "holds no event" in err
    assert call("predict", shop, "--task", "recommend", "--user", "nobody")[0] == 1
