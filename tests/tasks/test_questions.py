"""What a stage asks: from which events on, and what then came."""

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from desireline.schema.model import EventSpec, Schema, TimeSpec
from desireline.tasks.next_event import NextEvent
from desireline.tasks.questions import event_questions, item_histories, item_questions
from desireline.tasks.recommend import Recommend
from desireline.tasks.stages import stages
from desireline.workspace import init_workspace

START = datetime(2024, 1, 1, tzinfo=UTC)
SCHEMA = Schema(
    user="user",
    time=TimeSpec(column="time"),
    event=EventSpec(column="event"),
    item="item",
    types={"view": {"roles": ["positive"]}, "buy": {"roles": ["positive", "target"]}, "back": {"roles": ["negative"]}},
    clean={"near_duplicate_s": None},
)
# user, day, event, item
ROWS = [
    ("a", 0, "view", "x"),
    ("a", 1, "buy", "x"),
    ("a", 2, "buy", "y"),
    ("a", 11, "view", "z"),
    ("a", 12, "buy", "y"),
    ("a", 12, "buy", "x"),
    ("a", 12, "buy", "new"),
    ("a", 14, "back", "y"),
    ("a", 15, "buy", "z"),
    ("b", 3, "buy", "z"),
    ("b", 4, "buy", "z"),
    ("b", 5, "buy", "y"),
    ("d", 3, "buy", "x"),
    ("d", 16, "view", "y"),  # at the same moment as the purchase: not part of its history
    ("d", 16, "buy", "z"),
    ("c", 13, "buy", "x"),  # first seen after the cut: nothing to read at the first question
    ("c", 14, "buy", "y"),
]


@pytest.fixture
def both(tmp_path):
    return made(tmp_path, "temporal")


def made(tmp_path, protocol):
    rows = [(u, (START + timedelta(days=d)).replace(tzinfo=None), e, i) for u, d, e, i in ROWS]
    pl.DataFrame(rows, schema=["user", "time", "event", "item"], orient="row").write_parquet(tmp_path / "log.parquet")
    workspace, _ = init_workspace(tmp_path / "w", schema=SCHEMA)
    workspace.ingest(tmp_path / "log.parquet")
    return stages(workspace.folder, SCHEMA, protocol, START + timedelta(days=10))


def named(stage, ids):
    vocabulary = stage.prepared.vocabularies["item"]
    return ["?" if i == 1 else vocabulary.value_of(int(i)) for i in ids]


def read(stage, questions):
    found = []
    for q in range(len(questions)):
        asked = item_histories(questions, q, q + 1)
        t = questions.targets.part(q, q + 1)
        user = questions.timeline.users[int(questions.user[q])]
        found.append((user, named(stage, asked.item), sorted(named(stage, t.item))))
    return found


def test_targets_roll_and_a_basket_is_one_question(both):
    test = both[1]
    asked = read(test, item_questions(test, "time"))
    # the item z was known before the cut by b's purchases
    first, second = (pair for pair in asked if pair[0] == "a")
    assert first == ("a", ["x", "x", "y", "z"], ["?", "x", "y"])
    assert second[2] == ["z"]
    assert sorted(second[1]) == sorted(["x", "x", "y", "z", "x", "y"])


def test_an_item_unknown_before_the_cut_is_a_cold_target_and_no_history(both):
    test = both[1]
    asked = read(test, item_questions(test, "time"))
    basket = next(targets for user, _, targets in asked if user == "a" and len(targets) == 3)
    assert "?" in basket
    assert all("?" not in history for _, history, _ in asked)


def test_events_of_the_same_moment_are_not_part_of_the_history(both):
    histories = [history for user, history, _ in read(both[1], item_questions(both[1], "time")) if user == "d"]
    assert histories == [["x"]]


def test_a_user_without_an_earlier_event_is_not_asked(both):
    users = [user for user, _, _ in read(both[1], item_questions(both[1], "time"))]
    assert users.count("c") == 1


def test_leave_one_out_asks_the_last_and_the_one_before(tmp_path):
    validation, test = made(tmp_path, "leave-one-out")
    asked = {(user, *targets) for user, _, targets in read(test, item_questions(test, "time"))}
    assert ("b", "y") in asked
    assert ("a", "z") in asked
    assert not any(user == "c" for user, _ in asked)
    assert {(u, *t) for u, _, t in read(validation, item_questions(validation, "time"))} >= {("b", "z")}
    learned = validation.train
    row = learned.users.index_of("b")
    assert learned.offsets[row + 1] - learned.offsets[row] == 1


def test_the_next_event_is_asked_from_every_event_and_the_last_is_censored(both):
    test = both[1]
    questions = event_questions(test)
    names = [str(questions.timeline.users[int(u)]) for u in questions.user]
    end = test.until_us
    of_a = [k for k, name in enumerate(names) if name == "a"]
    assert len(of_a) == 7  # from the last event before the cut on, each of the seven events but the first is asked
    # nothing came between the last event before the cut and the cut: that silence is known
    assert questions.as_of[of_a[0]] == test.from_us
    assert questions.wait_s[of_a[0]] == pytest.approx(86_400)
    assert questions.censored[of_a].tolist() == [False] * 6 + [True]
    of_b = names.index("b")
    assert questions.censored[of_b]
    assert questions.wait_s[of_b] == pytest.approx((end - test.from_us) / 1e6)


def test_labels_point_to_the_next_occasion(both):
    train = both[1].train
    labels = Recommend().labels(train, both[1].end_us, SCHEMA)
    place = int(train.offsets[train.users.index_of("a")])  # the first view of a
    here = slice(int(labels.first[place]), int(labels.end[place]))
    assert named(both[1], labels.items[here]) == ["x", "y"]
    assert labels.first[place + 2] == labels.end[place + 2]  # after the last buy before the cut there is none
    events = NextEvent().labels(train, both[1].end_us, SCHEMA)
    assert events.censored[train.offsets[1:] - 1].all()
    last = int(train.offsets[train.users.index_of("a") + 1]) - 1
    assert events.gap_s[last] == pytest.approx(8 * 86_400)
    assert np.isfinite(events.gap_s).all()
