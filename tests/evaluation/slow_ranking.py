"""Ranking metrics from their definitions, in plain Python: every order of tied items is drawn up and averaged over."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import groupby, permutations, product


def orders(scores: dict[int, float]) -> Iterator[list[int]]:
    """Every ranking of items by falling score; items with equal scores in each possible order."""
    ranked = sorted(scores, key=lambda item: -scores[item])
    groups = [list(group) for _, group in groupby(ranked, key=lambda item: scores[item])]
    for chosen in product(*(permutations(group) for group in groups)):
        yield [item for group in chosen for item in group]


def metrics_of_order(order: list[int], targets: list[int], k: int) -> dict[str, float]:
    hits = [place for place, item in enumerate(order[:k], start=1) if item in targets]
    best = sum(1 / math.log2(1 + place) for place in range(1, min(k, len(targets)) + 1))
    return {
        f"HR@{k}": float(bool(hits)),
        f"Recall@{k}": len(hits) / len(targets),
        f"NDCG@{k}": sum(1 / math.log2(1 + place) for place in hits) / best,
        f"MRR@{k}": 1 / hits[0] if hits else 0.0,
    }


def expected(line: list[float], masked: set[int], targets: list[int], k: int) -> dict[str, float]:
    """The mean of each metric over all fair orders of the items that may be ranked; nan without targets."""
    if not targets:
        return {f"{name}@{k}": math.nan for name in ("HR", "Recall", "NDCG", "MRR")}
    scores = {item: line[item] for item in range(2, len(line)) if item not in masked and line[item] != -math.inf}
    found = [metrics_of_order(order, targets, k) for order in orders(scores)]
    return {name: sum(f[name] for f in found) / len(found) for name in found[0]}


def all_expected(line: list[float], seen: list[int], targets: list[int], k: int) -> dict[str, float]:
    """Plain, new and repeat metrics of one question."""
    held = set(seen)
    new, old = [t for t in targets if t not in held or t < 2], [t for t in targets if t in held and t >= 2]
    parts = [("", set(), targets), (" new", held, new), (" repeat", set(), old)]
    return {n + suffix: v for suffix, mask, some in parts for n, v in expected(line, mask, some, k).items()}
