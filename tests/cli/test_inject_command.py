"""`desireline inject`: statuses, JSON, and a workspace that the other commands read."""

import json
import random

import polars as pl
import pytest


@pytest.fixture
def shop(tmp_path, call):
    rng, rows = random.Random(2), []
    for user in range(60):
        when = 1_700_000_000 + rng.randrange(86_400)
        for _ in range(rng.randrange(8, 40)):
            when += int(rng.expovariate(1 / 40_000))
            rows.append([f"u{user:03d}", f"i{rng.randrange(30):02d}", rng.choice(["view", "view", "purchase"]), when])
    columns = ["user_id", "item_id", "event_type", "timestamp"]
    pl.DataFrame(rows, schema=columns, orient="row").write_csv(tmp_path / "log.csv")
    assert call("init", tmp_path / "shop", "--from", tmp_path / "log.csv")[0] == 0
    assert call("ingest", tmp_path / "shop", tmp_path / "log.csv")[0] == 0
    return tmp_path / "shop"


def test_inject_speaks_json_and_makes_a_workspace(shop, call):
    out = shop.parent / "two"
    status, said, err = call("inject", shop, "--out", out, "--share", "0.1", "--seed", "3", "--json")
    assert status == 0, err
    told = json.loads(said)
    assert set(told) == {"out", "accounts", "events", "families", "not_applicable"}
    assert told["out"] == str(out)
    assert told["families"]["ring"] == {"accounts": 12, "events": told["families"]["ring"]["events"], "kind": "ring"}
    assert told["families"]["placebo"]["kind"] is None
    assert set(told["not_applicable"]) == {"ratings", "paraphrase"}
    assert told["accounts"] == sum(row["accounts"] for row in told["families"].values())
    status, said, err = call("check", out, "--json")
    assert status == 0, err
    takeovers = told["families"]["takeover"]["accounts"]
    assert json.loads(said)["users"] == 60 + told["accounts"] - takeovers


def test_inject_tells_people_what_was_planted_and_what_not(shop, call):
    words = ("--families", "brushing, ratings", "--intensity", "high", "--begin", "2023-11-18", "--end", "2023-11-22")
    status, said, err = call("inject", shop, "--out", shop.parent / "two", *words)
    assert status == 0, err
    assert "brushing" in said
    assert "Not planted: ratings, since it has no reviews" in said
    assert "truth" in said


def test_a_mistake_is_one_message(shop, call):
    out = shop.parent / "two"
    for words in [
        ("--out", shop),
        ("--out", out, "--families", "gossip"),
        ("--out", out, "--share", "2"),
        ("--out", out, "--begin", "1999-01-01", "--end", "1999-02-01"),
    ]:
        status, said, err = call("inject", shop, *words)
        assert status == 1, words
        assert err.count("Error: ") == 1
        assert "Traceback" not in err
        assert said == ""
    assert not out.exists()
    assert call("inject", shop)[0] == 2
    assert call("inject", shop, "--out", out, "--families", ",")[0] == 2
