"""Trees on the states of an encoder that learned next behaviour, on every tenth customer of two real years."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import polars.testing
import pytest

from desireline.core.errors import SettingError
from desireline.features.definitions import definitions
from desireline.selection.adapted import adaptation_of
from desireline.selection.deploy import refit
from desireline.selection.fitted import Fitted, load, save
from desireline.sequences.prepared import to_us
from desireline.sequences.ragged import Sequences
from desireline.tasks import TASKS
from desireline.tasks.churn.answers import ChurnAnswer
from desireline.tasks.churn.baselines import ChurnBaseline
from desireline.tasks.churn.definition import DAY_US
from desireline.tasks.churn.models import SEQUENCE
from desireline.tasks.churn.questions import ChurnQuestions
from desireline.tasks.churn.snapshots import OWN, past_rows
from desireline.tasks.stages import stages, whole_log
from desireline.training.network import Network
from desireline.workspace import Model, Workspace

CUT = "2011-08-01"
QUICK = {"d_model": "16", "layers": "1", "bootstrap": "50"}


@pytest.fixture(scope="module")
def shop(retail_slice: Callable[[int], Workspace]) -> Workspace:
    return retail_slice(10).with_settings(QUICK)


@pytest.fixture(scope="module")
def models(shop: Workspace) -> dict[str, Model]:
    return {adapt: shop.fit("churn", adapt=adapt, epochs=1, cut=CUT) for adapt in ("frozen", "fused")}


@pytest.fixture(params=["frozen", "fused"])
def model(models: dict[str, Model], request: pytest.FixtureRequest) -> Model:
    return models[request.param]


@pytest.fixture
def fused(models: dict[str, Model]) -> Model:
    return models["fused"]


@pytest.fixture(scope="module")
def regular(shop: Workspace) -> str:
    """The customer with most events before the cut."""
    counts = shop.store.read_bucket(0, 64).filter(pl.col("time").dt.date() < pl.date(2011, 7, 1))["user"].value_counts()
    return str(counts.sort("count", "user")["user"][-1])


def reader_of(fitted: Fitted) -> ChurnBaseline:
    assert isinstance(fitted.predictor, ChurnBaseline)
    return fitted.predictor


def asked(shop: Workspace, fitted: Fitted) -> ChurnQuestions:
    """The questions of the test stage, with all that came after the cut in their timeline."""
    schema, at = fitted.prepared.schema, fitted.prepared.cut
    test = stages(shop.folder, schema, "temporal", at, fitted.task.earlier_cut(schema, at))[1]
    return fitted.task.questions(test, schema)


def log_odds(fitted: Fitted, questions: ChurnQuestions) -> np.ndarray:
    return np.concatenate([odds for _, _, odds in fitted.predictions(questions)])


def poisoned(timeline: Sequences, from_us: int) -> Sequences:
    """Everything at a moment or after it made another item, type and value."""
    later = np.asarray(timeline["time"]) >= from_us
    columns = {name: np.asarray(column).copy() for name, column in timeline.columns.items()}
    for name in ("item", "event", "value", "value_bin", "role"):
        columns[name][later] = columns[name][later][::-1] if name != "item" else 2
    return Sequences(timeline.users, timeline.offsets, columns)


def test_a_row_is_better_than_chance_and_counts_the_network(model: Model) -> None:
    row = next(row for row in model.result.rows if row.kind == "model")
    assert row.name == model.fitted.name
    assert row.metrics["AUROC"].low > 0.5
    assert row.parameters > reader_of(model.fitted).scorer.parameters


def test_what_is_saved_answers_as_what_was_fitted(shop: Workspace, model: Model) -> None:
    again = load(shop.folder, shop.schema, model.fitted.id)
    questions = asked(shop, model.fitted)
    np.testing.assert_array_equal(log_odds(model.fitted, questions), log_odds(again, questions))


@pytest.mark.parametrize("poison", ["cut off", "changed"])
def test_a_state_knows_nothing_from_its_moment_on(shop: Workspace, fused: Model, poison: str) -> None:
    embedding, timeline = reader_of(fused.fitted).embedding, asked(shop, fused.fitted).timeline
    assert embedding is not None
    rows = past_rows(fused.fitted.prepared, embedding.of, 9)
    for moment, here in rows.group_by("as_of", maintain_order=True):
        at = to_us(moment[0])
        other = timeline.take(np.asarray(timeline["time"]) < at) if poison == "cut off" else poisoned(timeline, at)
        pl.testing.assert_frame_equal(embedding.beside(here, timeline), embedding.beside(here, other), check_exact=True)


def test_a_state_knows_the_part_of_a_day_before_its_moment_and_no_more(shop: Workspace, fused: Model) -> None:
    embedding, timeline = reader_of(fused.fitted).embedding, asked(shop, fused.fitted).timeline
    assert embedding is not None
    time, owner = np.asarray(timeline["time"]), timeline.rows()
    same_day = (owner[1:] == owner[:-1]) & (time[1:] // DAY_US == time[:-1] // DAY_US) & (time[1:] > time[:-1])
    within = np.flatnonzero(same_day)[::20]
    assert len(within) > 5
    for place in within:  # asked between two events of one day
        user, at = owner[place : place + 1], int(time[place + 1])
        states = embedding.states(timeline, user, at)
        np.testing.assert_array_equal(states, embedding.states(timeline.take(time < at), user, at))


def test_a_state_moves_with_what_came_before_its_moment(shop: Workspace, fused: Model) -> None:
    embedding, questions = reader_of(fused.fitted).embedding, asked(shop, fused.fitted)
    assert embedding is not None
    now = fused.fitted.prepared.cut_us
    other = embedding.states(poisoned(questions.timeline, now - 60 * 86_400_000_000), questions.user, now)
    assert (embedding.states(questions.timeline, questions.user, now) != other).any(axis=1).mean() > 0.3


def test_the_level_of_the_season_is_added_as_it_is(shop: Workspace, model: Model) -> None:
    questions = asked(shop, model.fitted)
    plain = log_odds(model.fitted, questions)
    later = replace(questions, level=replace(questions.level, log_odds=questions.level.log_odds + 0.25))
    np.testing.assert_allclose(log_odds(model.fitted, later) - plain, 0.25, atol=1e-9)


def test_named_facts_and_what_has_no_name_add_up_to_the_score(shop: Workspace, model: Model) -> None:
    reader, questions = reader_of(model.fitted), asked(shop, model.fitted)
    shares = reader.shares(questions)
    assert shares is not None
    first = replace(questions, rows=questions.rows[:1], user=questions.user[:1], place=questions.place[:1])
    others = replace(questions, rows=questions.rows[1:2], user=questions.user[1:2], place=questions.place[1:2])
    trees = [reader.scorer.log_odds(reader.embedding.beside(q.rows, q.timeline))[0] for q in (first, others)]
    theirs = reader.shares(others)
    assert theirs is not None
    assert sum(shares.values()) - sum(theirs.values()) == pytest.approx(trees[0] - trees[1], abs=1e-5)
    assert abs(shares[SEQUENCE]) > 0


def test_an_answer_says_that_a_part_has_no_name_and_names_no_column(
    shop: Workspace, model: Model, regular: str
) -> None:
    answer = shop.predict("churn", regular, as_of=CUT, model=model.fitted.id)
    told = shop.explain("churn", regular, as_of=CUT, model=model.fitted.id)
    assert isinstance(answer, ChurnAnswer)
    assert answer.unnamed is not None
    assert "no name" in answer.unnamed
    assert told.unnamed is not None
    assert f"{told.unnamed:+.2f}" in answer.unnamed
    assert answer.reasons
    if model.fitted.name == "embedding+lightgbm":
        (reason,) = answer.reasons  # all that it knows by name
        assert re.fullmatch(r"(raises|lowers) the risk: last event \d+ (days|hours) ago", reason)
    raw = {name for name in set(definitions(shop.schema)) | set(OWN) if "_" in name}
    words = " ".join([*answer.reasons, answer.unnamed]).split()
    assert not any(word in raw or word.startswith("sequence_") for word in words)
    assert {number["name"] for number in told.numbers} == set(definitions(shop.schema)) | set(OWN)


def test_trees_on_aggregates_have_no_part_without_a_name(shop: Workspace, fused: Model, regular: str) -> None:
    fitted = fused.fitted
    plain = fitted.task.baseline("aggregates+lightgbm", {}, fitted.prepared.schema, fitted.prepared)
    test = stages(shop.folder, fitted.prepared.schema, "temporal", fitted.prepared.cut)[1]
    plain.fit(test)
    shares = plain.shares(asked(shop, fitted))
    assert shares is not None
    assert SEQUENCE not in shares


def test_one_and_all_and_the_list_rest_on_the_same_model(shop: Workspace, fused: Model, tmp_path: Path) -> None:
    shop.predict_all("churn", tmp_path / "all.parquet", as_of=CUT, model=fused.fitted.id)
    table = pl.read_parquet(tmp_path / "all.parquet")
    for user in table["user"].gather_every(150):
        answer = shop.predict("churn", user, as_of=CUT, model=fused.fitted.id)
        row = table.row(by_predicate=pl.col("user") == user, named=True)
        assert answer.probability == pytest.approx(row["probability"], abs=1e-4)
    assert shop.decide(50, 2, as_of=CUT, model=fused.fitted.id).contacts


def test_a_model_fitted_on_the_whole_log_is_of_the_same_kind(shop: Workspace, fused: Model, regular: str) -> None:
    live = refit(shop.folder, shop.schema, fused.fitted)
    assert live.prepared.cut > fused.fitted.prepared.cut
    kept = ("name", "adapt", "encoder_name", "epochs", "encoder", "train", "churn")
    assert {key: live.info[key] for key in kept} == {key: fused.fitted.info[key] for key in kept}
    save(live, shop.folder / "models")
    answer = shop.predict("churn", regular, model=live.id)
    assert isinstance(answer, ChurnAnswer)
    assert answer.unnamed is not None


def test_a_task_without_such_rows_says_so(shop: Workspace) -> None:
    with pytest.raises(SettingError, match="recommend does not know --adapt fused"):
        shop.fit("recommend", adapt="fused", epochs=1)
    with pytest.raises(SettingError, match="it knows frozen, fused"):
        shop.fit("churn", adapt="lora", epochs=1, cut=CUT)


def test_rows_on_the_same_states_read_each_history_once(
    shop: Workspace, fused: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, schema = reader_of(fused.fitted).embedding, fused.fitted.prepared.schema
    assert network is not None
    stage, read = whole_log(fused.fitted.prepared, masks_seen=False), []
    encode = Network.encode
    monkeypatch.setattr(Network, "encode", lambda *asked: read.append(len(asked[2])) or encode(*asked))
    adaptation = adaptation_of(TASKS["churn"])

    def fitted(adapts: list[str]) -> list[np.ndarray]:
        readers = adaptation.readers(adapts, network.network, schema)
        for reader in readers.values():
            reader.fit(stage)
        return [reader.state()["scorer/booster/0"] for reader in readers.values()]

    alone = [fitted([adapt])[0] for adapt in ("frozen", "fused")]
    apart = sum(read)
    read.clear()
    together = fitted(["frozen", "fused"])
    assert 2 * sum(read) == apart
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one, other)
