"""Planted attacks: what each family does, counted anew, and that nothing else tells the planted from the real."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import numpy as np
import polars as pl
import pytest

from desireline.core.errors import DataError, SettingError
from desireline.events.frame import bucket_expression, frame_schema
from desireline.schema.model import EventSpec, EventType, FieldSpec, Schema, TimeSpec
from desireline.tasks.anomaly.attacks import FAMILIES, TRUTH, Planted, applicable, plant
from desireline.tasks.anomaly.fact import KINDS
from desireline.tasks.anomaly.phrases import clauses, from_clauses, from_template

SECOND = 1_000_000
DAY = timedelta(days=1)
START = datetime(2024, 3, 4, tzinfo=UTC)
BEGIN, END = START + 40 * DAY, START + 60 * DAY

SCHEMA = Schema(
    user="u",
    time=TimeSpec(column="t"),
    event=EventSpec(column="e"),
    item="i",
    value="v",
    fields={
        "kind": FieldSpec(column="k", kind="category", of="item"),
        "invoice": FieldSpec(column="n", kind="category"),
        "country": FieldSpec(column="c", kind="category"),
        "device": FieldSpec(column="d", kind="category"),
        "rating": FieldSpec(column="r", kind="number"),
        "words": FieldSpec(column="w", kind="text"),
    },
    types={
        "view": EventType(roles=["positive"]),
        "purchase": EventType(roles=["target", "positive"]),
        "review": EventType(roles=["positive"]),
    },
)
PARTS = ["the cup is thin", "it came late", "my cat likes it", "would buy again", "colours are pale", "box was torn"]


def shop(seed: int = 0, users: int = 150, items: int = 80) -> pl.DataFrame:
    """Sixty days of people who look at items, often buy the last one, and sometimes review it."""
    generator = np.random.default_rng(seed)
    weights = 1 / np.arange(1, items + 1)
    weights /= weights.sum()
    rows, invoice = [], 5000
    for user in range(users):
        night = user % 3 == 0
        for session in range(int(generator.integers(3, 12))):
            hour = generator.integers(20, 24) if night else generator.integers(9, 18)
            day = int(generator.integers(0, 20 if session < 2 else 60))
            at = START + timedelta(days=day, hours=int(hour), seconds=int(generator.integers(0, 3600)))
            for item in generator.choice(items, int(generator.integers(1, 5)), p=weights):
                rows.append((user, at, "view", int(item), None, None, None, None))
                at += timedelta(seconds=int(generator.integers(20, 240)))
            if generator.random() < 0.5:
                rows.append((user, at, "purchase", int(item), 3.0 + item, f"A{invoice}", None, None))
                invoice += int(generator.integers(2, 5))
                if generator.random() < 0.6:
                    said = ". ".join(generator.permutation(PARTS)[:4]) + "."
                    at += timedelta(hours=2)
                    stars = float(generator.integers(2, 6))
                    rows.append((user, at, "review", int(item), None, None, stars, said))
    frame = pl.DataFrame(
        rows, schema=["n", "time", "event", "i", "value", "invoice", "rating", "words"], orient="row"
    ).with_columns(
        user=pl.format("c{}", pl.col("n") * 7 + 1000),
        item=pl.format("p{}", pl.col("i") + 100),
        kind=pl.format("k{}", pl.col("i") % 4),
        country=pl.when(pl.col("n") % 5 == 0).then(pl.lit("Norway")).otherwise(pl.lit("Chad")),
        device=pl.format("d{}", pl.col("n") * 13 + 3000),
        order=pl.col("event").replace_strict({"view": 0, "purchase": 1, "review": 2}),
        event_id=pl.Series(generator.integers(-(1 << 62), 1 << 62, len(rows))),
        bucket=bucket_expression(pl.format("c{}", pl.col("n") * 7 + 1000)),
    )
    return frame.select(list(frame_schema(SCHEMA))).cast(frame_schema(SCHEMA))


@pytest.fixture(scope="module")
def log() -> pl.DataFrame:
    return shop()


def planted(log: pl.DataFrame, *families: str, accounts: int = 12, seed: int = 3, **more: object) -> Planted:
    options = {"intensity": "middle", "schema": SCHEMA, "step_us": SECOND} | more
    schema = options.pop("schema")
    return plant(log, schema, BEGIN, END, families=families, accounts=accounts, seed=seed, **options)


def acts_of(found: Planted) -> pl.DataFrame:
    return found.events.filter(pl.col("event_id").is_in(found.acts.implode())).sort("user", "time")


def test_every_attack_has_a_kind_of_its_own_and_the_control_none() -> None:
    for name, family in FAMILIES.items():
        assert set(family.kinds) <= set(KINDS)
        assert len(set(family.kinds)) == len(family.kinds)
        assert (family.kinds[:1] == (family.kind,)) == (name != "placebo")
    review = {name for name, family in FAMILIES.items() if "review" in family.kinds}
    assert review == {"ratings", "paraphrase"}


def test_a_seed_plants_the_same_and_another_seed_something_else(log: pl.DataFrame) -> None:
    one, two, three = (planted(log, *FAMILIES, seed=seed) for seed in (3, 3, 4))
    assert one.events.equals(two.events)
    assert one.truth.equals(two.truth)
    assert not one.events.equals(three.events)
    # what a family does does not hang on which others are planted
    alone = planted(log, "ring")
    assert set(acts_of(alone)["item"]) <= set(one.events["item"])
    assert alone.truth["acts"].to_list() == one.truth.filter(pl.col("family") == "ring")["acts"].to_list()


def test_every_kind_is_planted_and_the_truth_adds_up(log: pl.DataFrame) -> None:
    found = planted(log, *FAMILIES)
    truth, events = found.truth, found.events
    assert truth.columns == list(TRUTH)
    assert set(truth["kind"].drop_nulls()) == set(KINDS)
    assert set(truth["family"]) == set(FAMILIES)
    assert truth["user"].n_unique() == truth.height
    counted = Counter(events["user"])
    assert dict(truth.select("user", "events").iter_rows()) == counted
    acts = acts_of(found)
    assert truth["acts"].sum() == acts.height == len(found.acts)
    assert acts["time"].min() >= BEGIN
    assert events["time"].max() < END
    for user, first, last in truth.filter(pl.col("acts") > 0).select("user", "first", "last").iter_rows():
        times = acts.filter(pl.col("user") == user)["time"]
        assert (times.min(), times.max()) == (first, last)
    assert (truth.filter(pl.col("family") != "placebo")["acts"] > 0).all()
    assert truth.filter(pl.col("family") == "placebo")["acts"].sum() == 0


def test_no_column_tells_planted_events_from_real_ones(log: pl.DataFrame) -> None:
    found = planted(log, *FAMILIES)
    events, new = found.events, found.truth.filter(pl.col("family") != "takeover")["user"]
    assert events.schema == log.schema
    assert not set(new) & set(log["user"])
    assert new.str.contains(r"^c[12]\d{3}$").all()
    low, high = log["user"].min(), log["user"].max()
    assert new.is_between(low, high).mean() > 0.9
    ids = pl.concat([log["event_id"], events["event_id"]])
    assert ids.n_unique() == len(ids)
    assert 0.45 < (events["event_id"] < 0).mean() < 0.55
    assert (events["time"].dt.microsecond() == 0).all()
    assert (events["bucket"] == events.select(bucket_expression(pl.col("user"))).to_series()).all()
    assert events.select(
        (pl.col("order") == pl.col("event").replace_strict({"view": 0, "purchase": 1, "review": 2})).all()
    ).item()
    # what belongs to an item, or has a price, is as in the log
    items = log.select("item", "kind").unique()
    assert events.join(items, on=["item", "kind"], how="anti").height == 0
    prices = log.filter(pl.col("event") == "purchase").select("item", "value").unique()
    bought = events.filter(pl.col("event") == "purchase")
    assert bought.join(prices, on=["item", "value"], how="anti").height == 0
    assert events.filter(pl.col("event") != "purchase")["value"].null_count() == events.height - bought.height
    assert events.filter(pl.col("event") != "review")["words"].null_count() == (events["event"] != "review").sum()
    # no event before its item was there
    first = log.group_by("item").agg(born=pl.col("time").min())
    assert events.join(first, on="item").filter(pl.col("time") < pl.col("born")).height == 0


def test_values_that_one_account_alone_has_are_made_anew(log: pl.DataFrame) -> None:
    found = planted(log, *FAMILIES)
    both = pl.concat([log, found.events])
    for field in ("invoice", "device"):
        owners = both.drop_nulls(field).group_by(field).agg(pl.col("user").n_unique())
        assert owners["user"].max() == 1, field
    orders = found.events.filter(pl.col("event") == "purchase")
    assert orders["invoice"].str.contains(r"^A\d{4}$").all()
    assert found.events.group_by("user").agg(pl.col("device").n_unique())["device"].max() == 1
    assert found.events.group_by("user").agg(pl.col("country").n_unique())["country"].max() == 1
    taken = found.truth.filter(pl.col("family") == "takeover")["user"]
    own = log.filter(pl.col("user").is_in(taken.implode())).select("user", "device", "country").unique()
    assert found.events.filter(pl.col("user").is_in(taken.implode())).join(own, on=own.columns, how="anti").height == 0


def test_a_placebo_is_a_history_at_other_times_with_half_of_its_items(log: pl.DataFrame) -> None:
    found = planted(log, "placebo", accounts=40)
    real = log.select("time", "event", "item").unique()
    copied = found.events.join(real, on=["time", "event", "item"], how="semi").height
    assert copied < 0.05 * found.events.height
    words = log["words"].drop_nulls()
    assert found.events["words"].drop_nulls().is_in(words.implode()).mean() < 0.2
    window = found.events.filter(pl.col("time") >= BEGIN)
    assert set(window["user"]) == set(found.truth["user"])
    hours = [set(frame["time"].dt.hour()) for frame in (window, log.filter(pl.col("time") >= BEGIN))]
    assert hours[0] <= hours[1] | {hour + 1 for hour in hours[1]} | {hour - 1 for hour in hours[1]}


def auroc(planted: list[int], real: list[int]) -> float:
    """The share of pairs in which the planted one has more, ties half: by counting all pairs."""
    won = sum((p > r) + 0.5 * (p == r) for p in planted for r in real)
    return won / (len(planted) * len(real))


@pytest.mark.parametrize(("family", "off"), [("placebo", 0.03), ("brushing", 0.3), ("ring", 0.3)])
def test_no_trivial_count_finds_an_attack_of_middle_intensity(log: pl.DataFrame, family: str, off: float) -> None:
    found: list[list[float]] = []
    for seed in range(4):
        truth = planted(log, family, accounts=36, seed=seed)
        window = pl.concat([log, truth.events]).filter(pl.col("time") >= BEGIN)
        days = window.group_by("user", pl.col("time").dt.date()).len().group_by("user").agg(n=pl.col("len").max())
        counts = [window.group_by("user").agg(n=n) for n in (pl.len(), pl.col("item").n_unique())]
        ours = truth.truth["user"].implode()
        split = [(c.filter(pl.col("user").is_in(ours)), c.filter(~pl.col("user").is_in(ours))) for c in [*counts, days]]
        found.append([auroc(planted["n"].to_list(), real["n"].to_list()) for planted, real in split])
    assert np.abs(np.mean(found, axis=0) - 0.5).max() <= off


def test_a_placebo_shares_its_days_with_nobody_more_than_real_accounts_do(log: pl.DataFrame) -> None:
    def shared(some: pl.DataFrame) -> float:
        """The mean share of what an account touches on a day that its likest real account touches that day too."""
        pairs = some.join(real, on=["item", "day"]).filter(pl.col("user") != pl.col("user_right"))
        most = pairs.group_by("user", "user_right").len().group_by("user").agg(pl.col("len").max())
        both = some.group_by("user").len("n").join(most, on="user", how="left").fill_null(0)
        return float((both["len"] / both["n"]).mean())

    real, *made = (
        frame.filter(pl.col("time") >= BEGIN).select("user", "item", day=pl.col("time").dt.date()).unique()
        for frame in (log, *(planted(log, "placebo", accounts=40, seed=seed).events for seed in range(3)))
    )
    assert np.mean([shared(some) for some in made]) <= shared(real) + 0.03


def test_what_comes_after_the_window_is_not_copied_but_its_ids_are_taken(log: pl.DataFrame) -> None:
    end = END - 15 * DAY
    late = log.with_columns(user=pl.when(pl.col("time") >= end).then("user").otherwise(pl.lit("c1000")))
    late = late.filter(pl.col("time") >= end)
    both = pl.concat([log.filter(pl.col("time") < end), late])
    found = plant(
        both,
        SCHEMA,
        BEGIN,
        end,
        families=["brushing", "placebo"],
        intensity="high",
        accounts=20,
        seed=1,
        step_us=SECOND,
    )
    assert found.events["time"].max() < end
    owners = pl.concat([both, found.events]).drop_nulls("invoice").group_by("invoice").agg(pl.col("user").n_unique())
    assert owners["user"].max() == 1
    born = both.group_by("item").agg(first=pl.col("time").min()).filter(pl.col("first") >= end)["item"]
    assert not set(found.events["item"]) & set(born)
    # the same, where only somebody after the window holds the numbers that are next
    newest = both.filter(pl.col("time") < end)["invoice"].drop_nulls().str.slice(1).cast(pl.Int64).max()
    crowd = pl.concat([late.head(1)] * 300).with_columns(
        event=pl.lit("purchase"), invoice=pl.format("A{}", newest + pl.int_range(1, 301)), event_id=pl.int_range(300)
    )
    held = plant(
        pl.concat([both, crowd]),
        SCHEMA,
        BEGIN,
        end,
        families=["brushing"],
        intensity="high",
        accounts=20,
        seed=1,
        step_us=SECOND,
    )
    assert not set(held.events["invoice"].drop_nulls()) & set(crowd["invoice"])


def test_brushing_orders_two_targets_again_and_again_without_a_look(log: pl.DataFrame) -> None:
    found = planted(log, "brushing")
    acts = acts_of(found)
    assert set(acts["event"]) == {"purchase"}
    for group in found.truth["group"].unique():
        members = found.truth.filter(pl.col("group") == group)["user"]
        assert acts.filter(pl.col("user").is_in(members.implode()))["item"].n_unique() <= 2
    orders = log.filter(pl.col("event") == "purchase").group_by("item").len()
    before = log.filter(pl.col("time") < BEGIN, pl.col("event") == "purchase")
    assert set(acts["item"]) <= set(before["item"])
    assert orders.filter(pl.col("item").is_in(acts["item"].implode()))["len"].max() < orders["len"].max()
    looks = found.events.filter(pl.col("event") == "view").select("user", "item", seen="time")
    looked = acts.join(looks, on=["user", "item"]).filter(
        pl.col("time") - pl.col("seen") < timedelta(minutes=30), pl.col("time") > pl.col("seen")
    )
    assert looked["event_id"].n_unique() < 0.1 * acts.height


def test_brushing_with_a_copied_path_looks_at_the_target_before_each_order(log: pl.DataFrame) -> None:
    found = planted(log, "brushing-browse")
    acts = acts_of(found)
    orders = acts.filter(pl.col("event") == "purchase")
    looks = acts.filter(pl.col("event") == "view").select("user", "item", seen="time")
    looked = orders.join(looks, on=["user", "item"]).filter(
        pl.col("seen") < pl.col("time"), pl.col("time") - pl.col("seen") < timedelta(minutes=150)
    )
    assert looked["event_id"].n_unique() == orders.height > 12


@pytest.mark.parametrize("family", ["ring", "drip"])
def test_a_ring_orders_the_same_targets_together_or_never_together(log: pl.DataFrame, family: str) -> None:
    found = planted(log, family, accounts=24)
    assert found.truth.group_by("group").len()["len"].to_list() == [12, 12]
    orders = acts_of(found).filter(pl.col("event") == "purchase").join(found.truth, on="user")
    for (group,), part in orders.group_by("group"):
        assert part["item"].n_unique() == 3, group
        assert part.group_by("user").agg(pl.col("item").n_unique())["item"].min() >= 2
        for _, target in part.group_by("item"):
            times = sorted(target["time"])
            gaps = [b - a for a, b in pairwise(times)]
            if family == "ring":
                assert times[-1] - times[0] <= timedelta(minutes=10)
            else:
                assert min(gaps) >= (END - BEGIN) / 12 / 2 - timedelta(hours=2)  # the log may end before END
                assert times[-1] - times[0] > (END - BEGIN) / 2


def test_coattails_click_a_hot_and_a_cold_item_by_turns(log: pl.DataFrame) -> None:
    found = planted(log, "coattails")
    acts = acts_of(found)
    assert set(acts["event"]) == {"view"}
    assert acts["item"].n_unique() == 2
    popular = log.group_by("item").len().sort("len", descending=True)["item"].to_list()
    ranks = sorted(popular.index(item) for item in acts["item"].unique())
    assert ranks[0] < 20 < ranks[1]
    for _, part in acts.group_by("user"):
        items = part.sort("time")["item"].to_list()
        assert all(a != b for a, b in pairwise(items))


def test_a_burst_of_ratings_is_extreme_short_and_by_template(log: pl.DataFrame) -> None:
    found = planted(log, "ratings", accounts=24)
    acts = acts_of(found).join(found.truth, on="user")
    assert set(acts["event"]) == {"review"}
    for (group, _), part in acts.group_by("group", "item"):
        assert part["rating"].n_unique() == 1, group
        assert part["rating"][0] in (2.0, 5.0)
        assert part["time"].max() - part["time"].min() <= timedelta(hours=24)
        assert part["words"].n_unique() <= 3
    assert acts["words"].n_unique() > acts.select("group", "item").n_unique()
    assert acts["user"].n_unique() == 24


def test_a_paraphrase_has_many_texts_of_real_clauses(log: pl.DataFrame) -> None:
    found = planted(log, "paraphrase", accounts=12)
    acts = acts_of(found)
    assert acts["words"].n_unique() > 0.8 * acts.height
    for text in acts["words"]:
        assert all(clause.strip(". ") in PARTS for clause in clauses(text)), text


def test_wording_keeps_a_template_and_mixes_clauses() -> None:
    texts = [f"one {k}. two {k}. three {k}." for k in range(30)]
    say = from_template(texts, np.random.default_rng(1))
    told = {say() for _ in range(50)}
    assert len(told) <= 3
    assert len({text.rsplit(" three", 1)[0] for text in told}) == 1
    say = from_clauses(texts, np.random.default_rng(1))
    assert len({say() for _ in range(50)}) > 20
    for text in ("好看。物流快，包装好！", "no sign", "a, b; c?!", "…"):
        assert "".join(clauses(text)) == text


def test_a_taken_account_is_old_keeps_its_past_and_lives_at_other_hours(log: pl.DataFrame) -> None:
    found = planted(log, "takeover", accounts=20)
    acts = acts_of(found)
    assert set(found.truth["user"]) <= set(log["user"])
    assert found.events.height == acts.height
    assert acts["time"].min() >= BEGIN + 0.55 * (END - BEGIN)
    first = log.group_by("user").agg(pl.col("time").min(), n=(pl.col("time") < BEGIN).sum())
    old = first.filter(pl.col("user").is_in(found.truth["user"].implode()))
    assert (old["time"] < BEGIN - (END - BEGIN)).all()
    assert (old["n"] >= 10).all()
    other = 0
    for (user,), part in acts.group_by("user"):
        own = log.filter(pl.col("user") == user)
        usual = own["time"].dt.hour().median() >= 19
        other += (part["time"].dt.hour().median() >= 19) != usual
        assert not set(part.filter(pl.col("event") == "view")["item"]) & set(own["item"])
        assert (part["event"] == "purchase").sum() >= 1
    assert other > 10


def test_a_script_walks_the_catalogue_on_a_timer(log: pl.DataFrame) -> None:
    found = planted(log, "script")
    listed = sorted(log.filter(pl.col("time") < BEGIN)["item"].unique())
    for _, part in acts_of(found).group_by("user"):
        gaps = np.diff(part.sort("time")["time"].dt.epoch("s").to_numpy())
        assert gaps.std() < 0.15 * gaps.mean()
        items = part.sort("time")["item"].to_list()
        begin = listed.index(items[0])
        assert items == [(listed + listed)[begin + k] for k in range(len(items))]


def test_more_intensity_is_more_acts(log: pl.DataFrame) -> None:
    for family in ("brushing", "coattails", "script", "takeover"):
        acts = [planted(log, family, intensity=level).truth["acts"].mean() for level in ("low", "middle", "high")]
        assert acts[0] < acts[1] < acts[2], family


def test_a_log_of_baskets_gets_baskets() -> None:
    log = shop(1).filter(pl.col("event") == "purchase")
    lines = [log] + [
        log.with_columns(
            item=pl.format("p{}", 100 + (pl.col("item").str.slice(1).cast(pl.Int64) + k) % 80),
            event_id=pl.col("event_id") + k,
        )
        for k in (1, 2, 3)
    ]
    log = pl.concat(lines).with_columns(kind=pl.lit("k0"), time=pl.col("time").dt.truncate("1m"))
    found = planted(log, "brushing", "ring", step_us=60 * SECOND)
    assert (found.events["time"].dt.second() == 0).all()
    sizes = acts_of(found).group_by("user", "time").len()["len"]
    assert sizes.max() > 2
    assert sizes.max() <= 8
    assert found.events.group_by("user", "time").agg(pl.col("invoice").n_unique())["invoice"].max() == 1
    # two lines of a basket never become one item twice
    copies = [
        f.select(pl.struct("user", "time", "item").is_duplicated().mean()).item()
        for f in (log, planted(log, "placebo", accounts=60).events)
    ]
    assert copies[1] <= copies[0] + 0.01


def test_a_campaign_works_for_one_seller_and_ratings_need_no_words(log: pl.DataFrame) -> None:
    sold = SCHEMA.model_copy(update={"anomaly": SCHEMA.anomaly.model_copy(update={"seller": "kind"})})
    found = planted(log, "brushing", "ring", schema=sold, accounts=24)
    orders = acts_of(found).filter(pl.col("event") == "purchase").join(found.truth, on="user")
    assert orders.group_by("group").agg(pl.col("kind").n_unique())["kind"].max() == 1
    silent = log.with_columns(words=pl.lit(None, pl.String))
    assert applicable(SCHEMA, silent, BEGIN, END, SECOND).keys() == {"paraphrase"}
    found = planted(silent, "ratings")
    assert acts_of(found)["rating"].is_not_null().all()
    assert found.events["words"].null_count() == found.events.height


def test_families_that_a_log_does_not_allow_are_named_with_the_reason(log: pl.DataFrame) -> None:
    assert applicable(SCHEMA, log, BEGIN, END, SECOND) == {}
    bare = SCHEMA.model_copy(update={"fields": {}})
    orders = log.filter(pl.col("event") == "purchase").select(list(frame_schema(bare)))
    why = applicable(bare, orders, BEGIN, END, SECOND)
    assert set(why) - {"takeover"} == {"brushing-browse", "coattails", "ratings", "paraphrase"}
    with pytest.raises(DataError, match=r"coattails cannot be planted.*browsing"):
        planted(orders, "coattails", schema=bare)
    assert set(applicable(SCHEMA, log, BEGIN, END, 24 * 3600 * SECOND)) == {"script"}


def test_what_cannot_be_is_said_in_plain_words(log: pl.DataFrame) -> None:
    with pytest.raises(SettingError, match=r"'theft' is no family.*brushing"):
        planted(log, "theft")
    with pytest.raises(SettingError, match="'huge' is no intensity"):
        planted(log, "ring", intensity="huge")
    with pytest.raises(SettingError, match="0 accounts"):
        planted(log, "ring", accounts=0)
    with pytest.raises(DataError, match="500 accounts are to be planted"):
        planted(log, "placebo", accounts=500)
    with pytest.raises(DataError, match="No event lies in the window"):
        planted(log.filter(pl.col("time") < BEGIN), "ring")
    with pytest.raises(DataError, match="3 accounts"):
        planted(log.filter(pl.col("user").is_in(sorted(set(log.filter(pl.col("time") >= BEGIN)["user"]))[:3])), "ring")
    positions = SCHEMA.model_copy(update={"time": TimeSpec(column=None)})
    with pytest.raises(DataError, match="has no times"):
        planted(log, "ring", schema=positions)
