"""Each recommender against its formula written out plainly, and the published figures on Beauty."""

import numpy as np
import polars as pl
import pytest

from desireline.classical.ease import FAR_BELOW, Ease
from desireline.classical.neighbours import ItemKNN, Markov
from desireline.classical.own import OwnFrequency, RepeatLast
from desireline.classical.popularity import Popularity, RecentPopularity
from desireline.classical.users import SessionKNN, TifuKNN
from desireline.evaluation.queries import Histories, Targets
from desireline.evaluation.ranking import ranking_metrics
from desireline.graphs.pairs import strongest

DAY = 86_400_000_000
ITEMS = 30


def histories(*events, as_of=1000):
    """From lists of (day, item)."""
    offsets = np.cumsum([0, *map(len, events)]).astype(np.int64)
    flat = [event for line in events for event in line]
    time = np.array([int(day * DAY) for day, _ in flat], np.int64)
    return Histories(
        offsets, np.array([i for _, i in flat], np.int32), time, np.full(len(events), as_of * DAY, np.int64)
    )


def walks(users=25, seed=0):
    rng = np.random.default_rng(seed)
    return [[(day, int(i)) for day, i in enumerate(rng.integers(2, ITEMS, rng.integers(1, 12)))] for _ in range(users)]


def first_and_all(seed=3):
    """Histories up to some place, the whole ones, and how many events of each come after it; one user is new."""
    lines = walks(seed=seed)
    kept = [len(line) * n % 5 if n else 0 for n, line in enumerate(lines)]
    kept = [min(k, len(line)) for k, line in zip(kept, lines, strict=True)]
    first = [line[:k] for k, line in zip(kept, lines, strict=True)]
    return first, lines, np.array([len(line) - k for k, line in zip(kept, lines, strict=True)])


@pytest.mark.parametrize("backward", [0.0, 0.15, 1.0])
def test_neighbours_that_learn_later_events_are_those_fitted_on_all(backward):
    first, lines, fresh = first_and_all()
    whole, grown, single = (ItemKNN(backward=backward, two_hop=0.0) for _ in range(3))
    whole.fit(histories(*lines), ITEMS)
    for made in (grown, single):
        made.fit(histories(*first), ITEMS)
    assert np.abs(grown.score(histories(*lines)) - whole.score(histories(*lines))).max() > 1e-2
    grown.learn(histories(*lines), fresh)
    for line, count in zip(lines, fresh.tolist(), strict=True):
        for k in range(len(line) - count, len(line)):  # event by event, as they come
            single.learn(histories(line[: k + 1]), np.ones(1, np.int64))
    asked = histories(*lines)
    for made in (grown, single):
        np.testing.assert_allclose(made.score(asked), whole.score(asked), rtol=1e-4, atol=1e-6)
        again = ItemKNN(backward=backward, two_hop=0.0)
        again.load(made.state())
        np.testing.assert_array_equal(again.score(asked), made.score(asked))


def test_followers_are_the_strongest_of_each_items_row():
    made = ItemKNN()
    made.fit(histories(*walks()), ITEMS + 1)  # the last item is in no history
    made.learn(histories([(0, 5), (1, 6), (2, 5)]), np.array([3]))
    strength = (made.neighbours + made.later).toarray() * (made.seen + 1) ** np.float32(-0.1)
    for most in (1, 4, 40):
        ids, shares = made.followers(most)
        for item in range(ITEMS + 1):
            order = [i for i in np.lexsort((np.arange(ITEMS + 1), -strength[item])) if strength[item, i] > 0][:most]
            assert ids[item, : len(order)].tolist() == order
            np.testing.assert_allclose(
                shares[item, : len(order)], strength[item, order] / strength[item, order].sum(), 1e-5
            )
            assert not ids[item, len(order) :].any()
            assert not shares[item, len(order) :].any()
        assert not shares[ITEMS].any()


def test_equally_strong_entries_keep_their_order():
    begin, columns = np.array([0, 4, 4, 6]), np.array([7, 5, 9, 2, 3, 4], np.int32)
    ids, strengths = strongest(begin, columns, np.array([1, 2, 1, 2, 0, 3], np.float32), 3)
    assert ids.tolist() == [[5, 2, 7], [0, 0, 0], [4, 0, 0]]
    assert strengths.tolist() == [[2, 2, 1], [0, 0, 0], [3, 0, 0]]


def test_what_a_loaded_model_learns_does_not_reach_what_was_saved():
    made, again = ItemKNN(), ItemKNN()
    made.fit(histories(*walks()), ITEMS)
    saved = made.state()
    again.load(saved)
    before = made.score(histories(*walks())).copy()
    again.learn(histories([(0, 5), (1, 6)]), np.array([2]))
    np.testing.assert_array_equal(made.score(histories(*walks())), before)
    made.learn(histories([(0, 5), (1, 6)]), np.array([2]))  # nor what the model itself learns
    kept = ItemKNN()
    kept.load(saved)
    np.testing.assert_array_equal(kept.score(histories(*walks())), before)


def test_popularity_counts_events_and_recent_popularity_halves_them_with_age():
    train = histories([(0, 3), (100, 4)], [(90, 4), (100, 3)])
    plain, recent = Popularity(), RecentPopularity(half_life=0.1)  # of a span of 100 days
    plain.fit(train, 6)
    recent.fit(train, 6)
    assert plain.score(histories([]))[0].tolist() == [0, 0, 0, 2, 2, 0]
    assert recent.score(histories([]))[0, 3:5] == pytest.approx([1 + 2**-10, 1 + 2**-1], abs=1e-5)


def test_repeat_last_says_the_newest_first_then_what_is_popular():
    made = RepeatLast()
    made.fit(histories([(0, 9), (1, 9), (2, 8)]), 12)
    scores = made.score(histories([(1, 4), (2, 5), (3, 4), (4, 6)]))[0]
    assert np.argsort(-scores)[:5].tolist() == [6, 4, 5, 9, 8]


def test_own_frequency_decays_with_days_and_a_long_silence_changes_no_order():
    made = OwnFrequency(decay=0.5)
    made.fit(histories([(0, 9), (100, 8)]), 12)  # a span of 100 days: falls by e in 50
    line = [(10, 4), (10, 4), (60, 5)]
    soon, late = made.score(histories(line, as_of=61))[0], made.score(histories(line, as_of=100_000))[0]
    assert soon[4] / soon[5] == pytest.approx(2 * np.exp(-1), rel=1e-4)
    np.testing.assert_allclose(soon, late, rtol=1e-6)
    assert soon[5] > soon[4] > soon[9] == soon[8] > soon[3]


def test_markov_counts_what_followed_the_last_known_item():
    made = Markov()
    made.fit(histories([(0, 3), (1, 4), (2, 3), (3, 4), (4, 3), (5, 5)], [(0, 6), (1, 6)]), 8)
    scores = made.score(histories([(0, 6), (1, 3)]))[0]
    share = np.array([0, 0, 0, 3, 2, 1, 2, 0]) / 8
    follow = np.array([0, 0, 0, 0, 2, 1, 0, 0])
    np.testing.assert_allclose(scores, follow + 0.5 * share, rtol=1e-6)


def test_item_knn_equals_its_formula_in_dense_matrices():
    """RECIPES: directed decayed counts, .15 backwards, .15 two-hop, tempered rows and columns, a decayed reader."""
    train = walks()
    made = ItemKNN()
    made.fit(histories(*train), ITEMS)
    counted, seen = np.zeros((ITEMS, ITEMS)), np.zeros(ITEMS)
    for line in train:
        items = [i for _, i in line]
        for b in range(len(items)):
            seen[items[b]] += 1
            for a in range(b):
                counted[items[a], items[b]] += np.exp(-(b - a - 1) / 6)
    counted = counted + 0.15 * counted.T
    rows = counted.sum(axis=1)
    ratio = counted / (rows + 1)[:, None]
    table = counted + 0.15 * rows[:, None] * (ratio @ ratio)
    np.fill_diagonal(table, 0)
    table = (seen + 1)[:, None] ** -0.5 * table * (seen + 1) ** -0.1
    asked = [(0, 4), (1, 7), (2, 4), (3, 9)]
    wanted = sum(np.exp(-age / 1.5) * table[i] for age, i in enumerate([9, 4, 7, 4]))
    found = made.score(histories(asked))[0]
    np.testing.assert_allclose(found[2:], wanted[2:], rtol=1e-4, atol=1e-6)


def test_item_knn_keeps_the_strongest_neighbours_of_each_item(monkeypatch):
    train = histories(*walks(60))
    whole = ItemKNN()
    whole.fit(train, ITEMS)
    monkeypatch.setattr("desireline.classical.neighbours.MOST", 5)
    monkeypatch.setattr("desireline.classical.neighbours.LEAST", 5)
    short = ItemKNN(two_hop=0.0)
    short.fit(train, ITEMS)
    plain = ItemKNN(two_hop=0.0)
    monkeypatch.setattr("desireline.classical.neighbours.MOST", 500)
    plain.fit(train, ITEMS)
    assert np.diff(short.neighbours.indptr).max() == 5
    for item in range(2, ITEMS):
        kept = short.neighbours[[item]].toarray()[0]
        raw = plain.neighbours[[item]].toarray()[0]
        assert raw[kept > 0].min() >= np.where(kept > 0, -1, raw).max() * (1 - 1e-6)
        np.testing.assert_allclose(kept[kept > 0], plain.neighbours[[item]].toarray()[0][kept > 0], rtol=1e-6)


@pytest.mark.parametrize("users", [60, 9])  # fewer users than items go another way
def test_ease_equals_its_closed_form(users):
    train = walks(users)
    made = Ease(penalty=10.0)
    made.fit(histories(*train), ITEMS)
    x = np.zeros((users, ITEMS))
    for user, line in enumerate(train):
        x[user, [i for _, i in line]] = 1
    inverse = np.linalg.inv(x[:, 2:].T @ x[:, 2:] + 10 * np.eye(ITEMS - 2))
    weights = np.eye(ITEMS - 2) - inverse / np.diag(inverse)
    asked = np.zeros(ITEMS - 2)
    asked[[3, 5]] = 1
    found = made.score(histories([(0, 5), (1, 7), (2, 5)]))[0]
    had = x[:, 2:].any(axis=0)
    np.testing.assert_allclose(found[2:][had], (asked @ weights)[had], atol=1e-4)
    assert (found[2:][~had] <= FAR_BELOW).all()


def test_ease_of_a_large_catalogue_puts_the_rest_far_below_by_popularity():
    train = histories(*[[(0, 2), (1, 3), (2, 4)]] * 5, *[[(0, 2), (1, 5)]] * 3, [(0, 6)])
    made = Ease(most=3)
    made.fit(train, 8)
    scores = made.score(histories([(0, 2)]))[0]
    assert made.kept.tolist() == [2, 3, 4]
    assert scores[[2, 3, 4]].min() > FAR_BELOW / 2 > scores[5] > scores[6] > scores[7]


def test_tifu_vectors_equal_the_papers_two_levels_of_decay():
    """Nine baskets in groups of seven: the oldest group holds two. Item 5 comes twice in a basket and counts once."""
    baskets = [[2], [3], [5, 5], [2], [4], [2], [3], [4], [2, 3]]
    line = [(day, i) for day, basket in enumerate(baskets) for i in basket]
    wanted = np.zeros(8)
    for group, members in enumerate([[0, 1], [2, 3, 4, 5, 6, 7, 8]]):
        for place, basket in enumerate(members):
            for item in set(baskets[basket]):
                within = 0.9 ** (len(members) - 1 - place)
                wanted[item] += within / len(members) * 0.7 ** (1 - group) / 2
    found = TifuKNN().vectors(histories([(0, 2)], line, []), 8).toarray()
    np.testing.assert_allclose(found[1], wanted, rtol=1e-6)
    np.testing.assert_allclose(found[0], [0, 0, 1, 0, 0, 0, 0, 0])


def test_tifu_blends_own_items_with_those_of_the_most_alike():
    made = TifuKNN(neighbours=2, alpha=0.6)
    made.fit(histories([(0, 2), (0, 3)], [(0, 2), (0, 3), (0, 4)], [(0, 9)], [(0, 2), (0, 7), (0, 8), (0, 6)]), 10)
    scores = made.score(histories([(0, 2), (0, 3)]))[0]
    assert scores[[2, 4]] == pytest.approx([0.6 + 0.4, 0.4 * 0.5], abs=1e-5)
    assert scores[9] < 1e-5


def test_session_knn_equals_its_formula():
    train = walks(40)
    made = SessionKNN(neighbours=7, memory=3)
    made.fit(histories(*train), ITEMS)
    sets = [{i for _, i in line[-12:]} for line in train]
    rarity = np.array([np.log(40 / max(1, sum(i in s for s in sets))) for i in range(ITEMS)])
    asked = [4, 9, 12, 20]
    weight = {20: 1.0, 12: 2 / 3, 9: 1 / 3}
    likeness = np.array([sum(w * rarity[i] for i, w in weight.items() if i in s) / len(s) ** 0.5 for s in sets])
    near = [u for u in np.argsort(-likeness, kind="stable")[:7] if likeness[u] > 0]
    wanted = np.array([sum(likeness[u] for u in near if i in sets[u]) / 7 * (1 + rarity[i]) for i in range(ITEMS)])
    found = made.score(histories([(d, i) for d, i in enumerate(asked)]))[0]
    np.testing.assert_allclose(found[2:], wanted[2:], atol=1e-5)


@pytest.mark.parametrize(
    ("made", "hit", "ndcg"),
    [
        pytest.param(ItemKNN(), 0.0867, 0.0548, id="item-knn"),
        pytest.param(Ease(penalty=100.0, most=20_000), 0.0694, 0.0374, id="ease", marks=pytest.mark.slow),
    ],
)
def test_figures_on_beauty_are_the_known_ones(shared_data, made, hit, ndcg):
    """Leave-one-out, full ranking, seen items masked: figures of another implementation, RECIPES.md."""
    log = pl.read_parquet(shared_data / "amazon_beauty_5core" / "sequences.parquet").sort("user", "position")
    item, position = (log["item"] + 1).to_numpy().astype(np.int32), log["position"].to_numpy().astype(np.int64)
    counts = log.group_by("user", maintain_order=True).len()["len"].to_numpy().astype(np.int64)
    ends = np.cumsum(counts)

    def without_last(n, lo=0, hi=None):
        keep = np.ones(len(item), bool)
        for back in range(1, n + 1):
            keep[ends - back] = False
        whole = np.concatenate([[0], np.cumsum(counts - n)])
        at = whole[lo : None if hi is None else hi + 1]
        part = slice(at[0], at[-1])
        return Histories(at - at[0], item[keep][part], position[keep][part], np.full(len(at) - 1, 10**9, np.int64))

    made.fit(without_last(2), int(item.max()) + 1)
    found = []
    for lo in range(0, len(ends), 2_000):
        hi = min(lo + 2_000, len(ends))
        asked, truth = without_last(1, lo, hi), item[ends[lo:hi] - 1]
        found.append(ranking_metrics(made.score(asked), asked, Targets(np.arange(hi - lo + 1), truth), (10,), True))
    assert np.concatenate([f["HR@10"] for f in found]).mean() == pytest.approx(hit, abs=1e-4)
    assert np.concatenate([f["NDCG@10"] for f in found]).mean() == pytest.approx(ndcg, abs=1e-4)
