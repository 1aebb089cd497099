"""What unlike lists cost: NDCG@10 and the likeness within lists, by `evaluate.diversity`.

    python -m benchmarks.diversity [SET...] [--rows NAME...] [--json]

Sets as in benchmarks.quality. Each row (a baseline, its constants chosen on validation) is fitted once and asked the
test questions of task recommend; lists of ten are then chosen at each diversity, as `predict` chooses them. Likeness is
the mean cosine between two items of a list, in the vectors by which the lists are made unlike: how users' histories
overlap, as a truncated SVD. Differences are paired over users. Writes benchmarks/results/diversity.json.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.ingest import show
from benchmarks.quality import DATA, LOGS, ROOT, SETS
from benchmarks.record import machine, record
from desireline.evaluation.intervals import paired_difference, user_interval
from desireline.evaluation.lists import list_statistics
from desireline.evaluation.ranking import ranking_metrics
from desireline.selection.fit import run_baseline
from desireline.selection.lists import item_vectors, lists
from desireline.tasks.answers import Wishes
from desireline.tasks.questions import ItemQuestions, item_histories
from desireline.tasks.recommend import Recommend
from desireline.tasks.stages import stages
from desireline.workspace import init_workspace

K, SEED, RESAMPLES = 10, 0, 500
DIVERSITIES = (0.0, 0.1, 0.2, 0.3, 0.5, 0.7)
ROWS = ("tifu-knn", "item-knn")


def gains(ids: NDArray[np.int32], questions: ItemQuestions, items: int, masked: bool) -> NDArray[np.float64]:
    """float64 [Q]: NDCG@10 of lists [Q, K], the best first, 0 where a place is empty."""
    found = []
    for lo in range(0, len(ids), 512):
        hi = min(lo + 512, len(ids))
        scores = np.full((hi - lo, items), -np.inf, np.float32)
        np.put_along_axis(scores, ids[lo:hi].astype(np.int64), np.arange(K, 0, -1, dtype=np.float32)[None], axis=1)
        asked, targets = item_histories(questions, lo, hi), questions.targets.part(lo, hi)
        found.append(ranking_metrics(scores, asked, targets, [K], masked)[f"NDCG@{K}"])
    return np.concatenate(found)


def likeness(ids: NDArray[np.int32], vectors: NDArray[np.float32]) -> float:
    """The mean cosine of two items of a list [Q, K]; items without a direction are like nothing."""
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit = np.divide(vectors, length, out=np.zeros_like(vectors), where=length > 0)
    unit[0] = 0  # an empty place
    sums = unit[ids].sum(axis=1)
    own = (unit[ids] ** 2).sum(axis=(1, 2))
    return float((((sums**2).sum(axis=1) - own) / (K * (K - 1))).mean())


def run(name: str, rows: list[str]) -> list[dict[str, Any]]:
    """The table of one set."""
    folder, plan = ROOT / ".bench" / "diversity" / name, SETS[name]
    shutil.rmtree(folder, ignore_errors=True)
    workspace, _ = init_workspace(folder, source=plan["source"]())
    workspace.ingest(plan["source"]())
    task, schema = Recommend(), workspace.schema
    both = stages(folder, schema, plan.get("protocol", "temporal"), workspace.cut())
    questions = task.questions(both[0], schema), task.questions(both[1], schema)
    grids, test, found = task.baselines(both[1].prepared, schema), both[1], []
    items = len(test.prepared.vocabularies["item"])
    counts = np.bincount(np.asarray(test.train["item"]), minlength=items)
    for row in rows:
        fitted = run_baseline(task, row, grids[row], schema, both, questions).fitted
        plain, vectors = None, item_vectors(fitted, Wishes(K, diversity=max(DIVERSITIES)))
        assert vectors is not None
        for diversity in DIVERSITIES:
            wishes = Wishes(K, only_new=test.masks_seen, diversity=diversity)
            ids = np.concatenate([part for _, _, part, _ in lists(fitted, questions[1], wishes)])
            gain = gains(ids, questions[1], items, test.masks_seen)
            plain = gain if plain is None else plain
            metric = user_interval(gain, questions[1].user, RESAMPLES, SEED)
            price = paired_difference(gain, plain, questions[1].user, RESAMPLES, SEED)
            found.append(
                {
                    "set": name,
                    "row": row,
                    "diversity": diversity,
                    "NDCG@10": f"{metric.value:.4f} [{metric.low:.4f}, {metric.high:.4f}]",
                    "price": "–" if diversity == 0 else f"{price.value:+.4f} [{price.low:+.4f}, {price.high:+.4f}]",
                    "likeness": round(likeness(ids, vectors), 3),
                    "coverage@10": round(list_statistics(ids, counts)[f"coverage@{K}"], 3),
                }
            )
    return found


def main() -> None:
    """Run the named sets, all by default."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="*", choices=[*LOGS, []], help="default: all")
    parser.add_argument("--rows", nargs="+", default=list(ROWS), help="baselines of task recommend")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    begun, rows = machine(), []
    for name in options.sets or LOGS:
        if not SETS[name]["source"]().exists():
            sys.stderr.write(f"{name}: its data are not at {DATA}; DESIRELINE_DATA names another folder. Skipped.\n")
            continue
        rows += run(name, options.rows)
    if not rows:
        sys.exit("The data of none of these sets are there.")
    notes = [
        "Lists of ten by maximal marginal relevance (Carbonell & Goldstein 1998), chosen from the fifty best.",
        "`price`: what NDCG@10 changes against diversity 0, paired over users, 95 % by bootstrap. `likeness`: mean "
        "cosine of two items of a list, in the vectors by which lists are made unlike.",
    ]
    command = " ".join(["python -m benchmarks.diversity", *sys.argv[1:]])
    result = {"title": "What unlike lists cost", "command": command, "rows": rows}
    record("diversity", {"machine": begun, **result, "notes": notes})
    show(rows, options.json)


if __name__ == "__main__":
    main()
