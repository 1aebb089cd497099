"""Texts told apart by their wording: the n-grams, what is learnt, what is said of it, and what is refused."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load, save
from sklearn.svm import LinearSVC

from desireline.classical.wording import Wording, _counted, _planes, _rows, _scale, _sigmoid, written
from desireline.core.errors import DataError, ModelError

WORDS = [f"{a}{b}{c}" for a in "bdklm" for b in "aeo" for c in ("n", "r", "st")]
SIGNS = "房间很大早餐不错位置方便服务一般电梯太慢空调有点吵价格合理前台热情"


def corpus(texts, share, cue, told, other, seed=0, words=WORDS, space=" "):
    """Random words; a share of texts is false, and holds the cue with chance `told`, the rest with chance `other`."""
    generator = np.random.default_rng(seed)
    false = generator.random(texts) < share
    lines = []
    for lie in false:
        line = list(generator.choice(list(words), 18))
        if generator.random() < (told if lie else other):
            line.insert(int(generator.integers(0, 18)), cue)
        lines.append(space.join(line))
    return lines, false


@pytest.fixture(scope="module")
def learnt():
    model = Wording()
    model.fit(*corpus(400, 0.5, "my husband", 0.95, 0.05))
    return model


@given(st.lists(st.text("aA b'!?,.房間é\n", max_size=25), max_size=4))
def test_grams_are_the_pieces_and_the_runs_of_words_that_a_plain_reading_finds(texts):
    page = written(texts)
    for view, (low, high) in {"characters": (2, 5), "words": (1, 3)}.items():
        grams = page.grams(view)
        said = ["".join(map(chr, page.code[a:b])) for a, b in zip(grams.start, grams.stop, strict=True)]
        for n, text in enumerate(texts):
            tidy = re.sub(r"\s+", " ", text).strip().lower()
            if view == "characters":
                tidy = f" {tidy} " if tidy else ""
                plain = Counter(tidy[i : i + k] for k in range(low, high + 1) for i in range(len(tidy) - k + 1))
                assert Counter(s for s, t in zip(said, grams.text, strict=True) if t == n) == plain
            else:
                words = re.findall(r"[房間]|[abé]+(?:'[abé]+)*|[^\s\wab房間é]+", tidy)
                runs = Counter(tuple(words[i : i + k]) for k in range(low, high + 1) for i in range(len(words) - k + 1))
                held = Counter(grams.key[grams.text == n].tolist())
                assert sorted(held.values()) == sorted(runs.values())
        if view == "characters":
            assert (
                len(set(zip(said, grams.key.tolist(), strict=True))) == len(set(said)) == len(set(grams.key.tolist()))
            )


def test_the_plane_is_the_one_that_liblinear_finds():
    lines, false = corpus(120, 0.4, "my husband", 0.8, 0.2)
    target = false.astype(float)
    _, counts = _counted(written(lines).grams("words"), len(lines))
    rows = _rows("words", counts, _scale("words", counts, target))
    for penalty, plane in zip((1.0, 0.1), _planes(rows, target, (1.0, 0.1)), strict=True):
        peer = LinearSVC(C=1 / (2 * penalty), tol=1e-6, max_iter=20_000).fit(rows, false)
        np.testing.assert_allclose(plane, np.append(peer.coef_[0], peer.intercept_), atol=0.02)


def test_a_cue_is_learnt_and_named(learnt):
    fresh, false = corpus(300, 0.5, "my husband", 0.95, 0.05, seed=1)
    assert ((learnt.log_odds(fresh) > 0) == false).mean() > 0.9
    phrase, adds = learnt.telling("baron my husband lest")[0]
    assert "husband" in phrase
    assert adds > 0


def test_what_the_phrases_add_is_the_whole_difference_of_two_texts(learnt):
    one, other = "baron My  husband kest lan, lan", "Kor kon kor!"
    adds = [sum(part for _, part in learnt.telling(text, 10**9)) for text in (one, other)]
    assert adds[0] - adds[1] == pytest.approx(float(np.subtract(*learnt.log_odds([one, other]))), abs=1e-9)


def test_the_largest_comes_first_and_no_more_than_asked_for(learnt):
    sizes = [abs(part) for _, part in learnt.telling("ban my husband dan kan lan", 4)]
    assert len(sizes) == 4
    assert sizes == sorted(sizes, reverse=True)


def test_case_width_and_spaces_do_not_matter(learnt):
    odds = learnt.log_odds(["my husband’s ban", "  ＭＹ Husband's\n\tban "])
    assert odds[0] == odds[1]


def test_a_contraction_is_one_word_and_a_chinese_character_another():
    page = written(["Don't 'go' there!! 房間 ok"])
    said = ["".join(map(chr, page.code[a:b])) for a, b in zip(page.start, page.stop, strict=True)]
    assert said == ["don't", "'", "go", "'", "there", "!!", "房", "間", "ok"]


def test_a_text_scores_the_same_in_any_company(learnt):
    lines, _ = corpus(1500, 0.5, "my husband", 0.95, 0.05, seed=2)  # more than a block
    np.testing.assert_array_equal(learnt.log_odds(lines)[[3, 1400]], learnt.log_odds([lines[3], lines[1400]]))


def test_arrays_carry_the_whole_model(learnt):
    again = Wording()
    again.load(load(save(learnt.state())))
    lines = [*corpus(50, 0.5, "my husband", 0.95, 0.05, seed=3)[0], "", "房间"]
    np.testing.assert_array_equal(again.log_odds(lines), learnt.log_odds(lines))
    assert again.telling(lines[0]) == learnt.telling(lines[0])


def test_learning_twice_gives_the_same():
    lines, false = corpus(80, 0.5, "my husband", 0.8, 0.1)
    one, other = Wording(), Wording()
    one.fit(lines, false)
    other.fit(lines, false)
    assert all((other.state()[name] == array).all() for name, array in one.state().items())


def test_probabilities_mean_what_they_say_on_new_texts():
    model = Wording()
    model.fit(*corpus(900, 0.3, "my husband", 0.7, 0.2, seed=4))
    fresh, false = corpus(2000, 0.3, "my husband", 0.7, 0.2, seed=5)
    probability = 1 / (1 + np.exp(-model.log_odds(fresh)))
    assert probability.mean() == pytest.approx(false.mean(), abs=0.03)
    for part in np.array_split(np.argsort(probability), 4):
        assert probability[part].mean() == pytest.approx(false[part].mean(), abs=0.1)


def test_labels_without_a_cue_leave_the_base_rate():
    model = Wording()
    model.fit(*corpus(300, 0.25, "my husband", 0.5, 0.5, seed=6))
    probability = 1 / (1 + np.exp(-model.log_odds(corpus(200, 0.25, "my husband", 0.5, 0.5, seed=7)[0])))
    assert np.abs(probability - 0.25).max() < 0.2


def test_scores_that_point_the_wrong_way_are_given_no_weight():
    target = np.repeat([0.0, 1.0], [60, 20])
    slope, level, _ = _sigmoid(np.random.default_rng(0).normal(-target), target)
    assert slope == 0
    assert level == pytest.approx(np.log(20 / 60))


def test_copies_of_a_text_are_no_evidence():
    lines, false = corpus(60, 0.5, "my husband", 0.5, 0.5, seed=8)
    model = Wording()
    model.fit([line for line in lines for _ in range(8)], np.repeat(false, 8))
    fresh, _ = corpus(200, 0.5, "my husband", 0.5, 0.5, seed=9)
    assert np.abs(model.log_odds(fresh)).mean() < 0.7


def test_what_is_true_of_one_group_alone_is_not_believed():
    """Each group has a word of its own and one class: only a split by group sees that the words help nowhere else."""
    lines, false = corpus(400, 0.5, "my husband", 0.5, 0.5, seed=10)
    group = (np.arange(400) % 10 + 10 * false).astype(np.int64)
    told = [f"{line} shop{chr(97 + g)} shop{chr(97 + g)}" for line, g in zip(lines, group, strict=True)]
    by_group, by_text = Wording(), Wording()
    by_group.fit(told, false, group)
    by_text.fit(told, false)
    assert by_group.slope < by_text.slope / 10


def test_chinese_needs_no_spaces():
    model = Wording()
    model.fit(*corpus(300, 0.5, "老公非常满意", 0.95, 0.03, words=SIGNS, space=""))
    fresh, false = corpus(200, 0.5, "老公非常满意", 0.95, 0.03, seed=1, words=SIGNS, space="")
    assert ((model.log_odds(fresh) > 0) == false).mean() > 0.9
    phrase, adds = model.telling("房间很大老公非常满意电梯太慢")[0]
    assert phrase in "老公非常满意"
    assert adds > 0


@pytest.mark.parametrize("text", ["", " \n", "中"])
def test_a_text_that_says_nothing_gets_the_base_rate(text):
    lines, false = corpus(200, 0.3, "my husband", 0.9, 0.1)
    model = Wording()
    model.fit(lines, false)
    assert model.log_odds([text])[0] == pytest.approx(np.log(false.mean() / (1 - false.mean())))
    assert model.telling(text) == []


def test_no_texts_give_no_numbers(learnt):
    assert learnt.log_odds([]).shape == (0,)


def test_odd_characters_do_no_harm(learnt):
    assert np.isfinite(learnt.log_odds(["\ud800 \x00 😀😀 \u202e", "'", "''a'", "ﬀ" * 3])).all()


def test_too_few_labels_are_refused():
    lines, false = corpus(100, 0.5, "my husband", 0.9, 0.1)
    few = np.flatnonzero(false)[:19]
    kept = np.sort(np.append(few, np.flatnonzero(~false)))
    with pytest.raises(DataError, match=r"Only 19 of the \d+ labelled texts are false; 20"):
        Wording().fit([lines[k] for k in kept], false[kept])


def test_one_group_of_false_texts_is_refused():
    lines, false = corpus(100, 0.5, "my husband", 0.9, 0.1)
    with pytest.raises(DataError, match="false texts are all of one group"):
        Wording().fit(lines, false, np.where(false, 0, np.arange(100)))


def test_arrays_of_other_lengths_are_refused():
    lines, false = corpus(100, 0.5, "my husband", 0.9, 0.1)
    with pytest.raises(DataError, match="100 texts need as many labels"):
        Wording().fit(lines, false[:-1])


def test_a_model_that_learnt_nothing_says_so():
    with pytest.raises(ModelError, match="call fit or load"):
        Wording().log_odds(["a"])
