"""Facts of accounts: values known by hand for each family, nulls where a log cannot tell, and nothing of the future."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from desireline.core.errors import SettingError
from desireline.events.frame import frame_schema
from desireline.events.limits import Limits
from desireline.schema.model import EventSpec, EventType, FieldSpec, Schema
from desireline.tasks.anomaly import reviews
from desireline.tasks.anomaly.actions import Actions, actions_of
from desireline.tasks.anomaly.fact import KINDS
from desireline.tasks.anomaly.facts import FACTS, PARTS, account_facts, evidence_of
from desireline.tasks.anomaly.spans import acts, ahead, around, starts
from desireline.tasks.anomaly.wording import likeness, templates, words_of

BEGIN = datetime(2024, 5, 10, tzinfo=UTC)
END = BEGIN + timedelta(days=10)
SECOND, MINUTE, HOUR, DAY = (timedelta(seconds=n) for n in (1, 60, 3600, 86400))
SCHEMA = Schema(
    user="user",
    item="item",
    value="value",
    event=EventSpec(column="event"),
    types={
        "view": EventType(roles=["positive"]),
        "buy": EventType(roles=["target", "positive"]),
        "refund": EventType(roles=["negative"]),
        "review": EventType(),
    },
    fields={"stars": FieldSpec(column="stars", kind="number"), "words": FieldSpec(column="words", kind="text")},
)
Row = tuple[str, str | None, timedelta, str] | tuple[str, str | None, timedelta, str, dict[str, object]]


def frame(rows: list[Row]) -> pl.DataFrame:
    """An event frame of rows (user, item, time after BEGIN, type, further columns); ids count the rows."""
    plain = {"value": None, "order": 0, "bucket": 0, "stars": None, "words": None}
    made = [
        plain
        | {"event_id": number, "user": row[0], "item": row[1], "time": BEGIN + row[2], "event": row[3]}
        | (row[4] if len(row) == 5 else {})
        for number, row in enumerate(rows)
    ]
    return pl.DataFrame(made, schema=frame_schema(SCHEMA))


def log(rows: list[Row], step: timedelta = SECOND, begin: datetime = BEGIN) -> Actions:
    limits = Limits(resolution_us=step // timedelta(microseconds=1))
    return actions_of(frame(rows), SCHEMA, limits, begin, END)


def of(rows: list[Row], user: str, step: timedelta = SECOND) -> dict[str, float | None]:
    """The facts of one user."""
    actions = log(rows, step)
    found = account_facts(actions).filter(pl.col("account") == actions.users.to_list().index(user))
    return found.row(0, named=True)


def because(rows: list[Row], user: str, fact: str) -> list[int]:
    actions = log(rows)
    return evidence_of(actions)(actions.users.to_list().index(user), fact)


def buys(user: str, item: str, times: list[timedelta], value: float | None = None) -> list[Row]:
    return [(user, item, time, "buy", {"value": value}) for time in times]


# orders


def test_an_order_counts_with_what_the_account_did_to_the_item_before() -> None:
    rows: list[Row] = [
        ("u", "a", -DAY, "view"),
        ("u", "a", 0 * DAY, "buy"),  # looked at a day before
        ("u", "a", 1 * HOUR, "view"),
        ("u", "a", 2 * HOUR, "buy"),  # an hour after the first look since the order
        ("u", "b", 3 * HOUR, "buy"),  # never looked at
        ("u", "c", 4 * HOUR, "view"),
        ("u", "c", 4 * HOUR + 10 * SECOND, "buy"),
        ("v", "b", 1 * HOUR, "view"),  # somebody else's look
    ]
    found = of(rows, "u")
    assert found["unbrowsed_orders"] == 0.25
    assert found["seconds_to_order"] == 3600  # of 86,400, 3,600 and 10
    assert found["repeated_orders"] == 0.25
    assert found["looks_per_order"] == 0.5  # two in the window, four orders
    assert because(rows, "u", "unbrowsed_orders") == [4]
    assert because(rows, "u", "seconds_to_order") == [6, 3, 1]
    assert because(rows, "u", "repeated_orders") == [3]


def test_a_log_of_orders_alone_tells_nothing_of_looks_and_one_without_returns_nothing_of_them() -> None:
    found = of(buys("u", "a", [HOUR, 2 * HOUR, 3 * HOUR]), "u")
    for name in ("unbrowsed_orders", "seconds_to_order", "looks_per_order", "returned_orders", "seconds_until_order"):
        assert found[name] is None
    assert found["repeated_orders"] == pytest.approx(2 / 3)


def test_a_return_takes_back_the_latest_order_of_the_item_and_counts_within_a_week() -> None:
    rows: list[Row] = [
        *buys("u", "a", [0 * DAY, 1 * DAY]),
        ("u", "a", 8 * DAY, "refund"),  # seven days after the second
        ("u", "a", 9 * DAY, "refund"),  # nine after the first
        *buys("u", "b", [2 * DAY, 2 * DAY + HOUR]),
    ]
    assert of(rows, "u")["returned_orders"] == 0.25
    assert because(rows, "u", "returned_orders") == [1]
    both: list[Row] = [
        *buys("u", "a", [0 * DAY, 1 * DAY]),
        ("u", "a", 2 * DAY, "refund"),
        ("u", "a", 3 * DAY, "refund"),
    ]
    assert of(both, "u")["returned_orders"] == 1


def test_orders_that_crowd_on_one_target() -> None:
    rows = buys("u", "a", [0 * HOUR, 20 * MINUTE, 59 * MINUTE, 60 * MINUTE, 5 * HOUR]) + buys("u", "b", [DAY])
    found = of(rows, "u")
    assert (
        found["hour_orders"] == 3
    )  # an hour does not hold its end, and the next three lie in the one from 20 minutes on
    assert found["target_orders"] == 5
    share = np.array([5, 1]) / 6
    assert found["target_evenness"] == pytest.approx(-(share * np.log(share)).sum() / np.log(6))
    assert because(rows, "u", "hour_orders") == [0, 1, 2]
    assert of(buys("u", "a", [HOUR, 2 * HOUR]), "u")["target_evenness"] is None  # two orders do not spread


def test_lines_of_one_basket_are_one_act_but_on_a_clock_of_days_each_line_counts() -> None:
    rows = buys("u", "a", [DAY] * 4)
    assert of(rows, "u")["target_orders"] == 1
    by_day = of(rows, "u", step=DAY)
    assert by_day["target_orders"] == 4
    for name in (
        "hour_orders",
        "night_orders",
        "hour_concentration_most",
        "gap_scatter",
        "hours_change",
        "hour_events",
    ):
        assert by_day[name] is None


def test_values_against_what_the_item_was_ordered_for_before_the_window() -> None:
    past = [row for n in range(20) for row in buys(f"p{n}", "a", [-DAY - n * HOUR], 10.0 if n % 4 else 2.0)]
    rows = past + buys("u", "a", [HOUR], 2.0) + buys("u", "a", [2 * HOUR], 100.0) + buys("u", "new", [3 * HOUR], 1.0)
    found = of(rows, "u")
    assert found["unit_orders"] == 0.5
    far = sorted(abs(np.log(value / 10)) / 0.05 for value in (2.0, 100.0))  # the scatter is at its floor
    assert found["value_mismatch"] == pytest.approx(np.mean(far))
    assert because(rows, "u", "value_mismatch") == [21, 20]
    assert because(rows, "u", "unit_orders") == [20]
    young = of(rows[11:], "u")  # nine earlier orders do not tell what is usual
    assert young["unit_orders"] is None
    assert young["value_mismatch"] is None
    flat = [(*row[:4], {"value": 10.0}) for row in past]
    assert (
        of(flat + buys("u", "a", [HOUR], 10.0), "u")["unit_orders"] is None
    )  # an item of one price has no small order


def test_night_is_where_the_log_is_quiet() -> None:
    rows: list[Row] = [(f"p{n}", "a", -n * DAY + (9 + n % 10) * HOUR, "view") for n in range(1, 100)]
    rows += buys("u", "a", [3 * HOUR, 12 * HOUR])
    assert of(rows, "u")["night_orders"] == 0.5
    assert because(rows, "u", "night_orders") == [99]


def test_a_new_account_that_orders_at_once() -> None:
    rows: list[Row] = [
        ("old", "a", -DAY, "view"),
        *buys("old", "a", [HOUR]),
        ("new", "a", HOUR, "view"),
        *buys("new", "a", [HOUR + 30 * SECOND, 5 * HOUR]),
    ]
    assert of(rows, "new")["seconds_until_order"] == 30
    assert of(rows, "old")["seconds_until_order"] is None
    assert because(rows, "new", "seconds_until_order") == [3, 4]


# targets


def test_a_burst_is_measured_against_the_targets_past_and_the_level_of_the_log() -> None:
    past = [row for n in range(8) for row in buys(f"p{n}", "a" if n < 2 else "b", [-DAY - n * HOUR])]
    now = [row for n in range(5) for row in buys(f"q{n}", "a", [n * HOUR])] + buys("r", "b", [4 * HOUR])
    found = of(past + now, "q0")
    share = (2 + 1) / (8 + 2)  # of the past, one act more a target
    levels = {1: 1, 2: 2, 3: 3, 4: 4, 5: 6}  # orders of the target and of the log in the days that end with one
    assert found["order_burst_most"] == pytest.approx(max((n + 1) / (share * of + 1) for n, of in levels.items()))
    assert found["order_burst_mean"] == found["order_burst_most"]
    assert found["touch_burst_most"] is None  # nobody looks in this log
    assert of(now, "q0")["order_burst_most"] is None  # no past


def test_concentration_is_orders_a_buyer_in_the_most_crowded_hour() -> None:
    rows = buys("u", "a", [0 * MINUTE, 10 * MINUTE, 20 * MINUTE]) + buys("v", "a", [30 * MINUTE])
    rows += buys("v", "b", [HOUR, 3 * HOUR])
    found = of(rows, "v")
    assert found["hour_concentration_most"] == 2  # three by one buyer and one by another
    assert found["hour_concentration_mean"] == pytest.approx((2 * 1 + 1 * 2) / 3)
    assert because(rows, "v", "hour_concentration_most") == [3, 4, 5]
    late = buys("u", "a", [0 * HOUR]) + buys("v", "a", [2 * HOUR, 2 * HOUR + MINUTE])  # u has left the hour by then
    assert of(late, "u")["hour_concentration_most"] == 2


def test_an_account_learns_of_a_targets_other_buyers_not_of_itself() -> None:
    rows: list[Row] = [("old", item, -DAY, "view") for item in "xy"]
    rows += [row for n in range(3) for row in buys(f"new{n}", "a", [n * HOUR])] + buys("old", "a", [4 * HOUR, 5 * HOUR])
    rows += buys("old", "b", [6 * HOUR, 7 * HOUR, 8 * HOUR])
    assert of(rows, "old")["fresh_buyers_most"] == 1
    assert of(rows, "new0")["fresh_buyers_most"] == pytest.approx(2 / 3)
    assert of(rows, "old")["devoted_orders_most"] == 1
    assert of(rows, "new0")["devoted_orders_most"] == 0.5  # two of four; the old account orders mostly elsewhere
    assert of(rows[:-4], "new0")["devoted_orders_most"] == 1  # and now a third of its orders lies elsewhere no more
    assert of([row for row in rows if row[0] != "new2"], "old")["fresh_buyers_most"] is None  # two others are few


# reviews


def stars(user: str, item: str, time: timedelta, rating: float | None, text: str | None = None) -> Row:
    return (user, item, time, "review", {"stars": rating, "words": text})


def test_stars_are_compared_with_those_of_other_accounts() -> None:
    others = [stars(f"p{n}", "a", -DAY * (n + 1), rating) for n, rating in enumerate([4, 5, 3])]
    rows = [*others, stars("u", "a", HOUR, 1), stars("u", "a", 2 * HOUR, 1), stars("u", "b", 3 * HOUR, 3)]
    found = of(rows, "u")
    assert found["rating_deviation"] == 3  # from 4; its own second review is not among the others, b has none
    assert found["extreme_ratings"] == pytest.approx(2 / 3)
    assert found["single_review"] == 0
    assert found["reviews_in_day"] == 3
    assert because(rows, "u", "rating_deviation") == [3, 4]
    assert of([*others, stars("u", "a", HOUR, 1)], "u")["single_review"] == 1


def test_place_and_crowding_among_a_targets_reviews() -> None:
    days = [-30, -20, 0, 1, 3, 3.5]
    rows = [stars(f"p{n}", "a", day * DAY, 5) for n, day in enumerate(days)] + [stars("u", "a", 0 * DAY, 5)]
    found = of(rows, "u")
    assert found["review_crowding"] == pytest.approx(3 / 6)  # those of day 0, 1 and 3
    assert found["review_place"] == 3
    assert found["extreme_ratings"] is None  # the log knows five stars alone
    assert of(rows[2:], "u")["review_place"] is None  # four others are few


def test_a_review_wants_an_order_of_the_item_before_it() -> None:
    rows = [*buys("u", "a", [0 * DAY]), stars("u", "a", DAY, 5), stars("u", "b", DAY, 5), *buys("u", "b", [2 * DAY])]
    assert of(rows, "u")["reviews_without_order"] == 0.5
    assert because(rows, "u", "reviews_without_order") == [2]
    assert of([row for row in rows if row[3] != "buy"], "u")["reviews_without_order"] is None
    actions = log(rows[1:3])  # a log whose orders are its reviews knows no order of their own
    same = replace(actions, events=actions.events.with_columns(order=pl.col("review")))
    assert account_facts(same)["reviews_without_order"].to_list() == [None]


LONG = "the bag is light and strong and the colour is just as in the picture so my sister wants one now"
CHINESE = "这个包很轻也很结实颜色和图片上的一样我妹妹现在也想要一个"


@pytest.mark.parametrize("text", [LONG, CHINESE])
def test_borrowed_words_are_found_in_spaced_and_in_unspaced_scripts(text: str) -> None:
    other = text.upper().replace("SISTER", "MOTHER") + "!"
    rows = [
        stars("p", "a", -DAY, 5, other),
        stars("u", "b", DAY, 5, text),
        stars("u", "c", 2 * DAY, 5, "nothing like it at all, here is one more quite different sentence of words"),
        stars("v", "c", 2 * DAY, 5, "good"),
    ]
    found = of(rows, "u")
    left, right = (shingles(each) for each in (other, text))
    assert found["copied_text"] == pytest.approx(len(left & right) / len(left | right))
    assert found["copied_text"] > 0.6
    assert found["own_copied_text"] == 0
    assert because(rows, "u", "copied_text")[0] == 1
    assert of(rows, "v")["copied_text"] is None  # one word is alike by chance
    assert of(rows, "v")["text_length"] == 4


def shingles(text: str) -> set[tuple[str, ...]]:
    """Plain: three words in a row, a word being a letter run, or a Chinese character."""
    spaced = "".join(f" {c} " if "一" <= c <= "鿿" else c if c.isalnum() else " " for c in text.lower())
    words = spaced.split()
    return set(zip(words, words[1:], words[2:], strict=False))


def test_near_copies_are_found_as_by_comparing_all_pairs() -> None:
    random = np.random.default_rng(5)
    letters = [f"w{n}" for n in range(300)]
    texts, account = [], np.sort(random.integers(0, 40, 120))
    for n in range(120):
        words = list(random.choice(letters, 30)) if n < 40 else texts[random.integers(0, 40)].split()
        if n >= 40 and random.random() < 0.5:
            words[random.integers(0, 30)] = "other"
        texts.append(" ".join(words))
    order = random.permutation(120)
    texts = [texts[n] for n in order]
    other, own = likeness(words_of(pl.Series(texts)), account, np.ones(120, np.bool_))
    sets = [shingles(text) for text in texts]
    alike = np.array([[len(a & b) / len(a | b) for b in sets] for a in sets])
    np.fill_diagonal(alike, 0)
    same = account[:, None] == account
    for found, truth in ((other, np.where(same, 0, alike).max(1)), (own, np.where(same, alike, 0).max(1))):
        assert (found <= truth + 1e-12).all()
        assert np.mean(found >= truth - 0.1) > 0.95
        assert np.mean((found > 0.5) == (truth > 0.5)) > 0.97


def test_copies_of_an_account_do_not_hide_those_of_others() -> None:
    texts = pl.Series([LONG] * 9)
    other, own = likeness(words_of(texts), np.array([0, 1, 1, 1, 1, 1, 1, 1, 2]), np.ones(9, np.bool_))
    assert other.tolist() == [1.0] * 9
    assert own.tolist() == [0.0] + [1.0] * 7 + [0.0]


def test_words_end_at_signs_of_all_scripts() -> None:
    assert words_of(pl.Series(["a\xa0b «c» d—e、f，g 我们 ok"])).count.tolist() == [10]


def test_a_template_is_what_many_other_accounts_write() -> None:
    common = "alpha beta gamma delta"
    texts = [f"{common} word{n} own{n} more{n}" for n in range(6)] + [f"{common} six own6 more6"] * 3
    account = np.array([0, 1, 2, 3, 4, 5, 6, 6, 6])
    found = templates(words_of(pl.Series(texts)), account)
    assert found[0] == pytest.approx(2 / 5)  # of five shingles the two of the common words
    few = templates(words_of(pl.Series(texts[:5])), account[:5])  # four others
    assert few[0] == 0


def test_shouting_length_and_variety() -> None:
    rows = [stars("u", "a", DAY, 5, "BUY it! Now！"), stars("v", "a", DAY, 5, " ".join(["good", "bag"] * 15))]
    found = of(rows, "u")
    assert found["shouted_text"] == pytest.approx(6 / 12)
    assert found["text_length"] == 12
    assert found["word_variety"] is None
    assert of(rows, "v")["word_variety"] == pytest.approx(2 / 30)


# rhythm


def views(user: str, times: list[timedelta], item: str = "a") -> list[Row]:
    return [(user, f"{item}{n}", time, "view") for n, time in enumerate(times)]


def test_speed_counts_events_and_moments() -> None:
    rows = views("u", [0 * HOUR] * 5 + [30 * MINUTE, 61 * MINUTE, 20 * HOUR])
    found = of(rows, "u")
    assert (found["hour_events"], found["day_events"], found["hour_moments"], found["moment_events"]) == (6, 8, 2, 5)
    assert because(rows, "u", "hour_events") == [0, 1, 2, 3, 4, 5]
    assert because(rows, "u", "moment_events")[:5] == [0, 1, 2, 3, 4]


def test_a_script_is_regular_and_a_person_is_not() -> None:
    random = np.random.default_rng(1)
    script = views("s", [n * 10 * MINUTE + (n % 2) * SECOND for n in range(40)])
    person = views("p", [float(t) * SECOND for t in np.cumsum(random.lognormal(6, 1.5, 40)).round()])
    rows = script + person
    regular, odd = of(rows, "s"), of(rows, "p")
    assert regular["regular_gaps"] == 1
    assert regular["gap_scatter"] < 0.01
    gaps = np.diff([row[2] / SECOND for row in person])
    assert odd["gap_scatter"] == pytest.approx(np.log(gaps).std())
    assert odd["regular_gaps"] < 0.2
    assert of(views("s", [n * HOUR for n in range(10)]), "s")["gap_scatter"] is None  # nine gaps are few
    fast = views("s", [n * 3 * SECOND for n in range(40)])
    assert of(fast, "s")["regular_gaps"] is None  # three steps of the clock: all people of such speed look equal
    assert of(fast, "s")["gap_scatter"] == 0


def test_no_night() -> None:
    rows = views("bot", [n * HOUR for n in range(24 * 4)])
    rows += [row for day in range(4) for row in views("p", [day * DAY + (8 + n) * HOUR for n in range(12)])]
    bot, person = of(rows, "bot"), of(rows, "p")
    assert bot["hours_of_day"] == 24
    assert bot["daily_rest"] == 3600
    assert person["hours_of_day"] == 12
    assert person["daily_rest"] == 13 * 3600  # from 19 to 8
    for hour in range(0, 24, 4):  # two busy hours anywhere leave a rest on one of their sides
        brief = views("q", [DAY + hour * HOUR + n * 10 * MINUTE for n in range(12)])
        assert of(rows + brief, "q")["daily_rest"] >= 11 * 3600


def test_sessions_and_runs_that_repeat() -> None:
    kinds = ["view", "view", "buy"]
    rows: list[Row] = [("u", f"i{n}", day * DAY + n * MINUTE, kind) for day in range(5) for n, kind in enumerate(kinds)]
    rows[-1] = (*rows[-1][:3], "view")
    found = of(rows, "u")
    assert found["same_sessions"] == 0.8
    assert found["distinct_items"] == pytest.approx(3 / 15)
    assert found["items"] == 3
    assert found["repeated_runs"] == pytest.approx(8 / 12)  # twelve runs of four; the first three and the last are new
    share = np.array([11, 4]) / 15
    assert found["type_entropy"] == pytest.approx(-(share * np.log(share)).sum())


def test_full_minutes_and_identical_events() -> None:
    rows = views("u", [n * HOUR for n in range(6)] + [7 * HOUR + n * 61 * SECOND for n in range(1, 7)])
    assert of(rows, "u")["round_times"] == 0.5
    rows = [("u", "a", HOUR, "view"), ("u", "a", HOUR, "view"), ("u", "a", HOUR, "buy"), ("u", "b", HOUR, "view")]
    assert of(rows, "u")["identical_events"] == 0.5
    assert because(rows, "u", "identical_events") == [0, 1]


# takeover


def hijacked() -> list[Row]:
    """Twenty days of one view of old items at 9, then three of five purchases of new ones at 21."""
    rows: list[Row] = [("u", f"old{n % 2}", (n - 20) * DAY + 9 * HOUR, "view") for n in range(22)]
    rows += [("u", "x", n * DAY + 12 * HOUR, "buy", {"value": 10.0 + n}) for n in range(-6, 0)]
    late = [(day, n) for day in range(5, 8) for n in range(5)]
    return rows + [("u", f"new{day}{n}", day * DAY + 21 * HOUR + n * MINUTE, "buy", {"value": 60.0}) for day, n in late]


def test_a_hijacked_account_is_split_where_it_changes() -> None:
    rows = hijacked()
    found = of(rows, "u")
    assert found["split_change"] > 10
    assert found["new_targets_change"] == pytest.approx(1 - 3 / 28)
    assert found["hours_change"] > 0.3
    assert found["types_change"] > 0.2
    assert found["value_jump"] == pytest.approx(60 / 9)
    assert found["silence_before"] == (4 * DAY + 12 * HOUR) / SECOND
    days = np.array([1] * 16 + [2] * 6)  # moments of its days before
    mean, loose = days.mean(), max(1, days.var() / days.mean())
    assert found["rate_jump"] == pytest.approx((5 * np.log(5 / mean) - (5 - mean)) / loose)
    assert set(because(rows, "u", "split_change")) == set(range(28, 43))
    assert set(because(rows, "u", "new_targets_change")) == set(range(28, 43))
    assert because(rows, "u", "rate_jump") == [28, 29, 30, 31, 32]
    assert because(rows, "u", "silence_before") == [28]
    assert because(rows, "u", "value_jump") == [28]
    assert of(rows[:28], "u")["split_change"] is None  # two moments in the window are no stretch


def test_a_steady_account_shows_no_change() -> None:
    rows: list[Row] = [("u", f"i{n % 3}", (n - 30) * DAY + (9 + n % 3) * HOUR, "view") for n in range(40)]
    found = of(rows, "u")
    assert found["split_change"] < 3
    assert found["rate_jump"] == 0
    assert found["new_targets_change"] <= 0
    settled: list[Row] = [("u", f"i{min(n, 29) % 29}", (n - 30) * DAY, "view") for n in range(40)]
    assert of(settled, "u")["split_change"] == pytest.approx(0, abs=1e-6)  # fewer new targets are no sign


def test_an_order_is_a_record_only_after_some_others() -> None:
    rows = [row for n in range(5) for row in buys("u", "a", [(n - 5) * DAY], 10.0)] + buys("u", "a", [DAY], 30.0)
    assert of(rows, "u")["value_jump"] == 3
    assert of(rows[1:], "u")["value_jump"] is None


# all of them


def world() -> list[Row]:
    random = np.random.default_rng(3)
    rows: list[Row] = []
    for _ in range(600):
        user, item = f"u{random.integers(0, 25)}", f"i{random.integers(0, 12)}"
        time = timedelta(seconds=int(random.integers(-30 * 86400, 10 * 86400)))
        kind = str(random.choice(["view", "view", "view", "buy", "refund", "review"]))
        more: dict[str, object] = {}
        if kind == "buy":
            more = {"value": float(random.choice([1, 2, 10]))}
        if kind == "review":
            more = {"stars": float(random.integers(1, 6)), "words": " ".join(random.choice(LONG.split(), 24))}
        rows.append((user, item, time, kind, more))
    return rows


def test_all_facts_are_there_in_order_and_speak_in_sentences() -> None:
    actions = log(world())
    found = account_facts(actions)
    assert found.columns == ["account", *FACTS]
    assert set(found.schema.values()) == {pl.UInt32(), pl.Float64()}
    assert found["account"].to_list() == sorted(actions.judged["account"].unique())
    assert not any(found[name].is_nan().any() or found[name].is_infinite().any() for name in FACTS)
    undefined = [name for name in FACTS if found[name].null_count() == found.height]
    assert undefined == ["seconds_until_order", "daily_rest", "same_sessions", "repeated_runs"]
    for fact in FACTS.values():
        assert set(fact.kinds) <= set(KINDS)
        assert "{value}" in fact.words
        assert fact.clears


def test_evidence_are_judged_events_of_the_account_and_there_is_some_for_every_fact_above_zero() -> None:
    actions = log(world())
    found = account_facts(actions)
    for row in found.head(6).iter_rows(named=True):
        own = set(actions.judged.filter(pl.col("account") == row["account"])["event_id"])
        for name in FACTS:
            ids = evidence_of(actions)(row["account"], name)
            assert set(ids) <= own
            assert len(ids) == len(set(ids)) <= 20
            if row[name] is not None and row[name] > 0 and FACTS[name].side == "high":
                assert ids, name
    with pytest.raises(SettingError, match="No fact is named 'luck'"):
        evidence_of(actions)(0, "luck")


def test_what_happens_at_the_end_or_later_changes_nothing() -> None:
    rows = world()
    poison: list[Row] = [
        (f"u{n % 25}", f"i{n % 12}", END - BEGIN + n * SECOND, "buy", {"value": 9e9}) for n in range(300)
    ]
    poison += [stars(f"u{n}", "i0", END - BEGIN + n * HOUR, 1, LONG) for n in range(20)]
    assert account_facts(log(rows + poison)).equals(account_facts(log(rows)))


@pytest.mark.parametrize("step", [SECOND, MINUTE, DAY])
@pytest.mark.parametrize(
    "rows",
    [
        [("u", "a", HOUR, "buy")],  # one event
        [("u", None, n * HOUR, "view") for n in range(30)],  # no items
        [("u", "a", HOUR, "buy", {"value": 1.0})] * 1000,  # a thousand identical rows
        [(f"u{n}", "a", HOUR, "buy") for n in range(50)],  # all times equal
        [("u", "a", -HOUR, "view")],  # nobody in the window
        [],
    ],
)
def test_odd_logs_give_a_row_an_account_and_no_infinity(rows: list[Row], step: timedelta) -> None:
    actions = log(rows, step)
    found = account_facts(actions)
    assert found.height == actions.judged["account"].n_unique()
    assert found.columns == ["account", *FACTS]
    assert not any(found[name].is_nan().any() or found[name].is_infinite().any() for name in FACTS)
    for name in FACTS if found.height else ():
        evidence_of(actions)(0, name)


def test_a_thousand_identical_rows_are_one_order_and_all_identical() -> None:
    found = of([("u", "a", HOUR, "buy", {"value": 1.0})] * 1000, "u")
    assert (found["target_orders"], found["repeated_orders"], found["identical_events"]) == (1, 0, 1)
    assert (found["moment_events"], found["hour_moments"]) == (1000, 1)
    assert found["repeated_runs"] == pytest.approx(996 / 997)


def test_windows_are_counted_as_by_hand() -> None:
    random = np.random.default_rng(0)
    group = np.sort(random.integers(0, 5, 200))
    time = random.integers(0, 300, 200)
    time = time[np.lexsort((time, group))]
    start = starts(group)
    same = group[:, None] == group
    apart = time - time[:, None]
    later = np.arange(200) >= np.arange(200)[:, None]
    assert (ahead(time, start, 20) == (same & later & (apart < 20)).sum(1)).all()
    assert (around(time, start, 20) == (same & (np.abs(apart) <= 20)).sum(1)).all()


def test_acts_are_what_a_set_of_account_target_and_moment_holds() -> None:
    actions = log([*world(), *buys("u1", "i1", [HOUR] * 3), *buys("u1", "i2", [HOUR])])
    held: dict[tuple[int, int, datetime], int] = defaultdict(int)
    for row in actions.events.iter_rows(named=True):
        held[row["account"], row["target"], row["time"]] += 1
    assert acts(actions.events, 1).height == len(held) < actions.events.height
    assert acts(actions.events, 3_600_000_000).height == actions.events.height


def test_each_part_gives_its_own_columns() -> None:
    actions = log(world())
    for part in PARTS:
        assert part.measure(actions).columns == ["account", *part.facts]
    without = replace(actions, events=actions.events.with_columns(review=pl.lit(False)))
    found = account_facts(without).select(pl.col(list(reviews.FACTS)).is_null().all())
    assert found.row(0) == (True,) * len(reviews.FACTS)
