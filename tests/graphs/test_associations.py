"""Targets that go together all of a sudden."""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_array

from desireline.graphs import associations as module
from desireline.graphs.associations import LEAST, MOST, associations


def shop(seed: int, accounts: int = 600, targets: int = 300, mean: float = 12.0) -> np.ndarray:
    """Who had to do with what, with popular and rare targets and no bonds."""
    generator = np.random.default_rng(seed)
    popularity = generator.pareto(1.5, targets) + 0.2
    return generator.uniform(size=(accounts, targets)) < np.minimum(1, mean * popularity / popularity.sum())


def test_counts_are_those_of_a_plain_loop_whatever_the_slices(monkeypatch):
    now = shop(0)
    plain = {
        (i, j): int((now[:, i] & now[:, j]).sum())
        for i in range(now.shape[1])
        for j in range(i + 1, now.shape[1])
        if (now[:, i] & now[:, j]).any()
    }
    for part in (2_000, 37):
        monkeypatch.setattr(module, "PART", part)
        found = associations(csr_array(now.astype(float)), csr_array(shop(1).astype(float)))
        told = dict(zip(zip(found.first.tolist(), found.second.tolist(), strict=True), found.shared, strict=True))
        assert told == {pair: count for pair, count in plain.items() if count >= LEAST}
        assert found.tried == len(plain)


def test_independent_targets_are_not_bound():
    found = associations(csr_array(shop(2).astype(float)), csr_array(shop(3).astype(float)))
    assert (found.p * found.tried).min() > 0.05


def test_a_new_bond_is_found_and_one_that_always_was_is_not():
    now, past = shop(4), shop(5)
    rare = np.argsort(now.sum(axis=0))[20:24]
    now[:12, rare[:2]] = True  # nothing bound these before
    now[12:24, rare[2:]] = True
    past[50:170, rare[2:]] = True  # these always went together
    found = associations(csr_array(now.astype(float)), csr_array(past.astype(float)))
    p = {(i, j): q for i, j, q in zip(found.first.tolist(), found.second.tolist(), found.p * found.tried, strict=True)}
    assert p[tuple(sorted(rare[:2].tolist()))] < 1e-3
    assert p[tuple(sorted(rare[2:].tolist()))] > 0.01


def test_a_log_without_a_past_still_answers():
    now = shop(6)
    rare = np.argsort(now.sum(axis=0))[10:12]
    now[:15, rare] = True
    found = associations(csr_array(now.astype(float)), csr_array(now.shape))
    assert tuple(sorted(rare.tolist())) == (found.first[found.p.argmin()], found.second[found.p.argmin()])


def test_an_account_with_everything_costs_no_more_than_its_rarest_targets():
    now = np.zeros((5, 4 * MOST), bool)
    now[0] = True
    now[1:4, :MOST] = True
    found = associations(csr_array(now.astype(float)), csr_array(now.shape))
    assert found.tried <= 2 * MOST * (MOST - 1) // 2


def test_nothing_gives_nothing():
    assert len(associations(csr_array((4, 3)), csr_array((4, 3))).p) == 0
