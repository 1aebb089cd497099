"""Lists of a large catalogue: the index finds what a look at every item finds, and keeps to every wish."""

from __future__ import annotations

import re
from datetime import datetime, timedelta

import numpy as np
import polars as pl
import pytest
import torch

from desireline.core.errors import ModelError
from desireline.schema.model import EventSpec, Schema, TimeSpec
from desireline.selection import fitted as models
from desireline.selection.indexed import unit_vectors
from desireline.selection.lists import lists
from desireline.tasks import nearest
from desireline.tasks.answers import Wishes, asked_now
from desireline.workspace import init_workspace

ITEMS, USERS, GROUPS = 20_000, 1_500, 200
START = datetime(2024, 1, 1)
SCHEMA = Schema(
    user="user",
    time=TimeSpec(column="time"),
    event=EventSpec(column="event"),
    item="item",
    types={"view": {"roles": ["positive", "target"]}, "login": {}},
)
TINY = {"d_model": "32", "layers": "1", "length": "30", "dropout": "0", "loss": "sampled", "bootstrap": "50"}


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """Users who stay within groups of a hundred items; each item comes at least once, to a fitted gru of one epoch."""
    rng = np.random.default_rng(0)
    user = np.repeat(np.arange(USERS), 30)
    group = np.where(rng.random(len(user)) < 0.8, user % GROUPS, rng.integers(0, GROUPS, len(user)))
    within = rng.integers(0, ITEMS // GROUPS, len(user))
    item = group * (ITEMS // GROUPS) + within
    item[rng.permutation(len(user))[:ITEMS]] = rng.permutation(ITEMS)
    frame = pl.DataFrame(
        {
            "user": [f"u{u}" for u in user],
            "time": [START + timedelta(minutes=int(m)) for m in np.sort(rng.integers(0, 90 * 1440, len(user)))],
            "event": "view",
            "item": [f"i{i}" for i in item],
        }
    )
    guests = pl.DataFrame({"user": ["guest"], "time": [START + timedelta(days=1)], "event": ["login"], "item": [None]})
    folder = tmp_path_factory.mktemp("lists")
    pl.concat([frame, guests.cast(frame.schema)]).write_parquet(folder / "log.parquet")
    workspace, _ = init_workspace(folder / "shop", schema=SCHEMA)
    workspace.ingest(folder / "log.parquet")
    workspace = workspace.with_settings(TINY)
    workspace.fit("recommend", "gru", epochs=1)
    return workspace


def opened(shop, above):
    """The answering model under a limit, and everybody's questions as of the log's end."""
    under = shop.with_settings({"approximate_above": str(above)})
    fitted, at = under._answering("recommend", None, None)
    asked = asked_now(fitted.prepared.timeline, int(at.timestamp() * 1e6))
    return fitted, asked


def answered(fitted, asked, wishes):
    """Ids and scores [Q, k] of all questions."""
    parts = list(lists(fitted, asked, wishes))
    return np.concatenate([ids for _, _, ids, _ in parts]), np.concatenate([scores for *_, scores in parts])


def overlap(some, others):
    return np.mean([np.isin(one, other).mean() for one, other in zip(some, others, strict=True)])


def test_the_index_finds_nearly_all_of_the_exact_lists_in_their_order(shop):
    near, asked = opened(shop, 1_000)
    whole, _ = opened(shop, 0)
    assert near.nearest is not None
    assert whole.nearest is None
    wishes = Wishes(k=10)
    ids, scores = answered(near, asked, wishes)
    exact, values = answered(whole, asked, wishes)
    assert overlap(exact, ids) >= 0.95
    assert (np.diff(scores, axis=1) <= 0).all()
    same = ids == exact
    assert same.mean() > 0.8
    np.testing.assert_allclose(scores[same], values[same], atol=1e-6)
    true = unit_vectors(near.predictor)
    hidden = near.predictor.encode(asked.timeline, asked.place[:20])
    unit = torch.nn.functional.normalize(hidden, dim=-1).numpy()
    for row in range(20):
        np.testing.assert_allclose(scores[row], true(ids[row].astype(np.int64)) @ unit[row], atol=1e-6)


@pytest.mark.parametrize("diversity", [0.0, 0.4])
def test_lists_keep_to_every_wish_and_stay_full(shop, diversity):
    fitted, asked = opened(shop, 1_000)
    name = fitted.prepared.vocabularies["item"].value_of
    first, _ = answered(fitted, asked, Wishes(k=10))
    deny = {name(int(i)) for i in np.unique(first[:, 0])}
    known = {name(i) for i in range(2, len(fitted.prepared.vocabularies["item"]))}
    stock = {item for item in known if int(item[1:]) % 3}
    ids, scores = answered(fitted, asked, Wishes(10, only_new=True, deny=deny, stock=stock, diversity=diversity))
    assert (ids > 0).all()
    assert np.isfinite(scores).all()
    timeline = asked.timeline
    for row, user in enumerate(asked.user):
        shown = {name(int(i)) for i in ids[row]}
        assert len(shown) == 10
        assert not shown & deny
        assert shown <= stock
        had = timeline["item"][timeline.offsets[user] : asked.place[row] + 1]
        assert not set(ids[row].tolist()) & set(had.tolist())


def test_a_stock_of_few_items_is_answered_from_all(shop):
    fitted, asked = opened(shop, 1_000)
    whole, _ = opened(shop, 0)
    few = Wishes(k=10, stock=[f"i{n}" for n in range(0, ITEMS, 1_000)])
    np.testing.assert_array_equal(answered(fitted, asked, few)[0], answered(whole, asked, few)[0])


def test_a_user_gets_the_same_list_alone_and_among_all(shop, tmp_path):
    under = shop.with_settings({"approximate_above": "1000"})
    under.predict_all("recommend", tmp_path / "all.parquet", k=5, only_new=True)
    everybody = pl.read_parquet(tmp_path / "all.parquet")
    for user in ("u0", "u7", "u411", "u1499", "guest"):
        alone = [i.item for i in under.predict("recommend", user, k=5, only_new=True).items]
        assert len(alone) == 5
        assert everybody.filter(pl.col("user") == user)["item"].to_list() == alone


def test_the_index_is_made_once_kept_beside_the_model_and_made_again_when_missing(shop, monkeypatch):
    fitted, asked = opened(shop, 1_000)
    folder = shop.folder / "models" / fitted.id / "nearest"
    made = answered(fitted, asked, Wishes(k=10))[0]
    assert sorted(p.name for p in folder.iterdir()) == ["items.faiss", "nearest.json"]
    before = (folder / "items.faiss").read_bytes()
    with monkeypatch.context() as patched:
        patched.setattr(nearest, "build", lambda *_: pytest.fail("made again"))
        np.testing.assert_array_equal(answered(opened(shop, 1_000)[0], asked, Wishes(k=10))[0], made)
    (folder / "items.faiss").write_bytes(before[: len(before) // 2])
    with pytest.raises(ModelError, match="damaged: delete the folder"):
        _ = opened(shop, 1_000)[0].nearest
    for path in folder.iterdir():
        path.unlink()
    assert opened(shop, 1_000)[0].nearest is not None
    assert (folder / "items.faiss").read_bytes() == before  # made by the same steps, whatever the machine does beside


def test_saving_the_model_again_drops_the_index_of_the_older_weights(shop):
    fitted, _ = opened(shop, 1_000)
    assert fitted.nearest is not None
    models.save(fitted, shop.folder / "models")
    assert not (shop.folder / "models" / fitted.id / "nearest").exists()


def test_without_the_extra_lists_are_exact_and_one_line_says_so(shop, monkeypatch, capsys):
    monkeypatch.setattr(nearest, "is_installed", lambda: False)
    fitted, asked = opened(shop, 1_000)
    whole, _ = opened(shop, 0)
    for _ in range(2):
        found = answered(fitted, asked, Wishes(k=10))
    np.testing.assert_array_equal(found[0], answered(whole, asked, Wishes(k=10))[0])
    said = re.sub(r"\s+", " ", capsys.readouterr().err)
    assert said.count("pip install 'desireline[ann]'") == 1


def test_an_index_that_finds_too_little_is_not_used_and_says_so(shop, monkeypatch, capsys):
    fitted, asked = opened(shop, 1_000)
    whole, _ = opened(shop, 0)
    found = fitted.nearest
    monkeypatch.setattr(nearest, "opened", lambda *_: nearest.Nearest(found.index, 0.9, 1, 10))
    poor, _ = opened(shop, 1_000)
    np.testing.assert_array_equal(answered(poor, asked, Wishes(k=10))[0], answered(whole, asked, Wishes(k=10))[0])
    assert "finds 90% of the best ten" in re.sub(r"\s+", " ", capsys.readouterr().err)
