"""What a scan finds of planted attacks: family × intensity × detector, beside PyOD on the same measures.

    python -m benchmarks.anomaly [SET...] [--quick] [--kinds] [--json] [--install]

Sets: online-retail-ii (carried by the package) and taobao (research use: read from DESIRELINE_DATA or the folder
`shared/data` beside the repository). Into the window after the default cut one family at a time is planted, with a
placebo as large, each SHARE of the accounts active there (a ring comes whole), some times; every detector is asked
about all accounts, planted or real. Real accounts count as normal: nobody knows which are not. The network is trained
once a set, on the log before the window, which holds nothing planted.

Detectors: `trivial` (events, targets, busiest day), `account-facts`, `groups`, `facts+groups`, `gru` (all of them and
the network's surprise), `surprise` (the network's alone), and PyOD 3.6 on the account facts (--install makes its
environment). Families of `TUNED` were looked at when constants were set; the rest was held out from that, though it was
known by its description. `together` plants all held-out families at once, in the middle intensity, for precision@100.
`placebo` plants nothing but PLACEBOS draws of the control.
`kind named` is the share of the planted accounts among the CAPACITY most suspicious that stand there under a kind that
is right for their family (`attacks.Family`), `own kind` under the family's own. `--kinds` counts nothing else, family
by kind, in the middle intensity and by `facts+groups` alone, so that no network is trained; it is not recorded.
`detection` asks four times within the window how many acts an account had done when it first was among the 1 % most
suspicious. Writes benchmarks/results/anomaly.json.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from scipy.special import betaincinv

from benchmarks.ingest import show
from benchmarks.quality import SETS as LOGS
from benchmarks.record import ROOT, machine, record
from desireline.core.progress import say
from desireline.evaluation.binary import placements
from desireline.evaluation.detection import auroc, detection_metrics
from desireline.evaluation.result import Metric
from desireline.events.clean import Limits
from desireline.events.frame import ORDER
from desireline.sequences.prepared import Prepared, iso, prepare
from desireline.tasks import TASKS
from desireline.tasks.anomaly.attacks import FAMILIES, missing, planted
from desireline.tasks.anomaly.fact import KINDS
from desireline.tasks.anomaly.facts import FACTS
from desireline.tasks.anomaly.questions import (
    NOT_PLANTED,
    PLACEBO,
    TUNED,
    AnomalyQuestions,
    asked,
    possible,
    read_before,
)
from desireline.tasks.anomaly.replay import Material, material
from desireline.tasks.anomaly.surprise_facts import FACTS as SURPRISES
from desireline.tasks.anomaly.suspicion import Suspicion, suspicion
from desireline.tasks.anomaly.task import RULES, surprise_measures
from desireline.tasks.stages import stages
from desireline.training.network import Network
from desireline.workspace import Workspace, init_workspace, open_workspace

BENCH = ROOT / ".bench" / "anomaly"
PYOD = ROOT / ".bench" / "pyod"
NAMES = ("taobao", "online-retail-ii")
SHARE, TOGETHER = 0.02, 0.005  # of the active accounts: a family alone, and each of several
INTENSITIES = ("middle", "low", "high")
DRAWS = {"low": 1, "middle": 2, "high": 1}
PLACEBOS, PLACEBO_SHARE = 6, 0.05  # draws of placebos alone, and their share of the active accounts
TIMES = 4  # within the window, for the events to detection
CAPACITY = 100
NAMING = ("facts+groups", "gru")  # detectors that name a kind
RESAMPLES = 300
TITLE = "Planted attacks: family × intensity × detector"
NOTES = [
    f"One family at a time, {SHARE:.0%} of the active accounts (a ring of accounts comes whole), with a placebo as "
    f"large; means of {DRAWS['middle']} draws in the middle intensity, else one. Real accounts count as normal, since "
    "nobody knows which are not.",
    "trivial: how much an account does. surprise: the network's alone. gru: measures, groups and surprise together. "
    "PyOD 3.6 on the measures of each account (IForest, ECOD, COPOD, HBOS, KNN, LOF, PCA): the best of each line.",
    f"With {CAPACITY} looks and fewer planted, precision@{CAPACITY} is at most their number by {CAPACITY}.",
    "Constants were set on brushing, ring, ratings and script in the validation window; the other families were held "
    "out from that, but known by their description.",
    "Neither log has reviews, so ratings and paraphrase are not planted.",
]
NETWORK = {"d_model": "64", "layers": "1", "epochs": "6", "evaluate.seeds": "1"}


@dataclass(frozen=True)
class Base:
    """A set's log, ready to plant into; without a network where nobody asks for one."""

    name: str
    workspace: Workspace
    prepared: Prepared
    network: Network | None
    events: pl.DataFrame
    material: Material
    begin: datetime
    end: datetime
    step_us: int

    @property
    def active(self) -> int:
        """Accounts with an event in the window."""
        return len(self.material.active()[0])


def base_of(name: str, quick: bool, trained: bool = True) -> Base:
    """Ingest a set and, if it is asked for, train its network, unless both stand already."""
    folder = BENCH / (f"{name}-quick" if quick else name)
    if not (folder / "desireline.yaml").exists():
        source = LOGS[name]["source"]()
        init_workspace(folder, source=source)[0].ingest(source)
    settings = NETWORK | ({"epochs": "1", "d_model": "16"} if quick else {})
    workspace = open_workspace(folder).with_settings(settings)
    prepared, network = learned(workspace) if trained else (_prepared(workspace), None)
    return base_in(name, workspace, prepared, network)


def base_in(name: str, workspace: Workspace, prepared: Prepared, network: Network | None) -> Base:
    """The log of a workspace, its window from the prepared log's cut on."""
    schema, at = TASKS["anomaly"].settled(workspace.folder, workspace.schema, prepared.cut, True)
    limits = Limits.from_json(prepared.counts["limits"])
    test = stages(workspace.folder, schema, "temporal", at)[1]
    end = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=test.until_us)
    events = possible(read_before(prepared, end), limits)
    ready = material(events, schema, at, end, limits.resolution_us)
    return Base(name, workspace, prepared, network, events, ready, at, end, limits.resolution_us)


def learned(workspace: Workspace, cut: datetime | None = None) -> tuple[Prepared, Network]:
    """A workspace's network and what it learnt from, the log before the cut (default: the usual one)."""
    if not any(m["task"] == "anomaly" for m in workspace.models()):
        workspace.fit("anomaly", "gru", cut=cut)
    from desireline.selection import deploy

    fitted = deploy.current(workspace.folder, workspace.schema, "anomaly", None)
    assert isinstance(fitted.predictor, Network)
    return fitted.prepared, fitted.predictor


def _prepared(workspace: Workspace) -> Prepared:
    schema, at = TASKS["anomaly"].settled(workspace.folder, workspace.schema, workspace.cut(), False)
    return prepare(workspace.folder, schema, at)


def questions_of(base: Base, families: list[str], intensity: str, share: float, draw: int) -> AnomalyQuestions:
    """The accounts of the window with families planted among them."""
    count = max(1, round(share * base.active))
    schema = base.prepared.schema
    found = planted(base.material, schema, families, intensity, count, draw)
    return asked_with(base, found.events, dict(found.truth.select("user", "family").iter_rows()), base.end)


def asked_with(base: Base, extra: pl.DataFrame, family: dict[str, str], end: datetime) -> AnomalyQuestions:
    """The questions as of `end`, with planted events and whose they are."""
    both = pl.concat([base.events, extra.select(base.events.columns)]).sort("bucket", *ORDER)
    prepared = base.prepared
    made = asked(both, prepared, prepared.schema, base.begin, end)
    names = [family.get(user, NOT_PLANTED) for user in made.scan.users]
    return replace(made, family=pl.Series("family", names, dtype=pl.String))


def suspicions_of(base: Base, questions: AnomalyQuestions) -> dict[str, Suspicion]:
    """Detector -> what it suspects of the accounts: every row of the task, and the network's surprise alone."""
    scanned = questions.scan
    found = {name: rule(scanned) for name, rule in RULES.items()}
    if base.network is None:
        return found
    rows = surprise_measures(base.network, questions)
    both = pl.concat([scanned.facts, rows], how="horizontal")
    found["gru"] = suspicion(both, FACTS | SURPRISES, scanned.activity, scanned.grouped, scanned.old)
    found["surprise"] = suspicion(rows, SURPRISES, scanned.activity, None, scanned.old)
    return found


def scores_of(found: dict[str, Suspicion], questions: AnomalyQuestions, pyod: bool) -> dict[str, np.ndarray]:
    """Detector -> float64 [accounts], those of PyOD beside ours if they are asked for."""
    return {name: one.score for name, one in found.items()} | (pyod_scores(questions) if pyod else {})


def named(questions: AnomalyQuestions, found: Suspicion) -> pl.DataFrame:
    """A row a planted attacker among the CAPACITY most suspicious: `family`, and the kind it stands there as."""
    first = np.argsort(-found.score, kind="stable")[:CAPACITY]
    first = first[questions.truth[first] == 1]
    kinds = pl.Series(found.likeliest[first].tolist(), dtype=pl.String)
    return pl.DataFrame({"family": questions.family.gather(first), "kind": kinds})


def naming(told: pl.DataFrame) -> dict[str, Any]:
    """`kind named` and `own kind` of the rows of `named`, with the intervals of Jeffreys, and how many of each kind.

    Accounts count as independent, though those of a group are named together: the intervals are a little narrow.
    """
    pairs = list(told.select("family", "kind").iter_rows())
    right = sum(kind in FAMILIES[family].kinds for family, kind in pairs)
    own = sum(kind == FAMILIES[family].kind for family, kind in pairs)
    counts = {kind: sum(one == kind for _, one in pairs) for kind in KINDS}
    return {"kind named": _share(right, len(pairs)), "own kind": _share(own, len(pairs)), "kinds": counts}


def _share(right: int, of: int) -> dict[str, float | None]:
    if of == 0:
        return {"value": None, "low": None, "high": None}
    low, high = betaincinv(right + 0.5, of - right + 0.5, [0.025, 0.975])
    return {"value": round(right / of, 4), "low": round(float(low), 4), "high": round(float(high), 4)}


def pyod_scores(questions: AnomalyQuestions) -> dict[str, np.ndarray]:
    """The scores of PyOD's detectors on the account facts."""
    with tempfile.TemporaryDirectory() as folder:
        rows, out = Path(folder) / "in.parquet", Path(folder) / "out.parquet"
        questions.scan.facts.select(list(FACTS)).write_parquet(rows)
        script = ROOT / "benchmarks" / "peers" / "pyod_scores.py"
        subprocess.run([str(PYOD / "bin" / "python"), str(script), str(rows), str(out)], check=True)
        return {f"PyOD {column.name}": column.to_numpy() for column in pl.read_parquet(out)}


def table(parts: list[tuple[AnomalyQuestions, dict[str, np.ndarray]]]) -> list[dict[str, Any]]:
    """A row a detector, over several draws as one."""
    rows = []
    for name in parts[0][1]:
        score, truth, user, placebo = [], [], [], []
        for draw, (questions, scores) in enumerate(parts):
            family = questions.family.to_numpy()
            score.append(scores[name])
            truth.append(questions.truth)
            placebo.append(family == PLACEBO)
            user.append(np.arange(len(family)) + 1_000_000 * draw)
        figures: dict[str, list[Metric]] = {}
        for one, true, who in zip(score, truth, user, strict=True):
            for metric, value in detection_metrics(one, true, who, CAPACITY, RESAMPLES, 0).items():
                figures.setdefault(metric, []).append(value)
        means = {metric: _mean(values) for metric, values in figures.items()}
        control = [
            auroc(one[true == 0], mark[true == 0].astype(np.float64), who[true == 0], RESAMPLES, 0)
            for one, true, mark, who in zip(score, truth, placebo, user, strict=True)
        ]
        means["AUROC placebo"] = _mean(control)
        means["group recall"] = {"value": _group_recall(parts, name)}
        rows.append({"detector": name, "metrics": means})
    return rows


def _mean(values: list[Metric]) -> dict[str, float]:
    """The mean over draws; its interval from those of the draws, taken as independent."""
    value = float(np.mean([v.value for v in values]))
    half = float(np.sqrt(np.sum([((v.high - v.low) / 2) ** 2 for v in values])) / len(values))
    return {"value": round(value, 4), "low": round(value - half, 4), "high": round(value + half, 4)}


def _group_recall(parts: list[tuple[AnomalyQuestions, dict[str, np.ndarray]]], name: str) -> float | None:
    """The share of draws in which half of the planted accounts are among the CAPACITY most suspicious."""
    caught = []
    for questions, scores in parts:
        first = np.argsort(-scores[name], kind="stable")[:CAPACITY]
        caught.append(questions.truth[first].sum() >= questions.truth.sum() / 2)
    return round(float(np.mean(caught)), 3)


def run(name: str, quick: bool, pyod: bool, keep: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """All tables of one set; `keep` is told after each, so that a run that is stopped has not run for nothing."""
    base = base_of(name, quick)
    refused = missing(base.material)
    families = [f for f in FAMILIES if f not in refused and f != PLACEBO]
    held_out = [f for f in families if f not in TUNED]
    begun = time.perf_counter()
    found: dict[str, Any] = {
        "set": name,
        "window": [iso(base.begin), iso(base.end)],
        "accounts": base.active,
        "not planted": refused,
        "tables": [],
    }

    def tables(planted_families: list[str], intensity: str, share: float) -> dict[str, Any]:
        parts, told = [], []
        for draw in range(1 if quick else DRAWS[intensity]):
            questions = questions_of(base, [*planted_families, PLACEBO], intensity, share, draw)
            suspected = suspicions_of(base, questions)
            parts.append((questions, scores_of(suspected, questions, pyod)))
            told.append({detector: named(questions, suspected[detector]) for detector in NAMING})
        say(f"{name}: {intensity} {', '.join(planted_families)} after {time.perf_counter() - begun:,.0f} s.")
        names = {detector: naming(pl.concat([draw[detector] for draw in told])) for detector in NAMING}
        return {"planted": int(parts[0][0].truth.sum()), "rows": table(parts), "named": names}

    found["together"] = {"families": held_out} | tables(held_out, "middle", TOGETHER)
    for intensity in ("middle",) if quick else INTENSITIES:
        for family in families[:2] if quick else families:
            known = {"family": family, "intensity": intensity, "held out": family not in TUNED}
            found["tables"].append(known | tables([family], intensity, SHARE))
            keep(found)
    if not quick:
        found["placebo"] = placebo(base)
        keep(found)
    found["detection"] = [] if quick else list(detection(base, families))
    found["seconds"] = round(time.perf_counter() - begun, 1)
    keep(found)
    return found


def placebo(base: Base) -> dict[str, Any]:
    """The AUROC of many placebos among the real accounts: the mean over draws, with an interval by their spread."""
    found: dict[str, list[float]] = {}
    for draw in range(PLACEBOS):
        questions = questions_of(base, [PLACEBO], "middle", PLACEBO_SHARE, 100 + draw)
        planted_ones = (questions.family == PLACEBO).to_numpy().astype(np.float64)
        for name, score in scores_of(suspicions_of(base, questions), questions, False).items():
            found.setdefault(name, []).append(float(np.nanmean(placements(score, planted_ones))))
    count = round(PLACEBO_SHARE * base.active)
    half = {name: 1.96 * float(np.std(v, ddof=1)) / PLACEBOS**0.5 for name, v in found.items()}
    rows = [
        {"detector": name, "AUROC": {"value": m, "low": m - half[name], "high": m + half[name]}}
        for name, m in ((name, float(np.mean(v))) for name, v in found.items())
    ]
    say(f"{base.name}: {PLACEBOS} draws of placebos.")
    return {"draws": PLACEBOS, "accounts": count, "rows": rows}


def detection(base: Base, families: list[str]) -> Iterator[dict[str, Any]]:
    """Of each family in the middle intensity: how many acts accounts had done when first among the 1 %."""
    prepared = base.prepared
    moments = [base.begin + (base.end - base.begin) * k / TIMES for k in range(1, TIMES + 1)]
    for family in families:
        count = max(1, round(SHARE * base.active))
        found = planted(base.material, prepared.schema, [family], "middle", count, 0)
        whose = dict(found.truth.select("user", "family").iter_rows())
        acts = found.events.filter(pl.col("event_id").is_in(found.acts.implode()))
        seen: dict[str, dict[str, int]] = {"gru": {}, "facts+groups": {}}
        for moment in moments:
            questions = asked_with(base, found.events, whose, moment)
            done = dict(acts.filter(pl.col("time") < moment).group_by("user").len().iter_rows())
            scores = scores_of(suspicions_of(base, questions), questions, False)
            users = questions.scan.users.to_list()
            for name, first in seen.items():
                for row in np.argsort(-scores[name], kind="stable")[: max(1, len(users) // 100)]:
                    if users[row] in whose and done.get(users[row]):
                        first.setdefault(users[row], done[users[row]])
        yield {
            "family": family,
            "planted": len(whose),
            "rows": [
                {
                    "detector": name,
                    "found": len(first),
                    "median acts": float(np.median(list(first.values()))) if first else None,
                }
                for name, first in seen.items()
            ],
        }
        say(f"{base.name}: events to detection of {family}.")


def kinds_of(name: str) -> Iterator[dict[str, Any]]:
    """Of each family in the middle intensity: planted accounts, and as what those in the queue stand there."""
    base = base_of(name, False, trained=False)
    refused = missing(base.material)
    for family in (f for f in FAMILIES if f not in refused and f != PLACEBO):
        planted_ones, told = 0, []
        for draw in range(DRAWS["middle"]):
            questions = questions_of(base, [family, PLACEBO], "middle", SHARE, draw)
            planted_ones += int(questions.truth.sum())
            told.append(named(questions, suspicions_of(base, questions)["facts+groups"]))
        found = naming(pl.concat(told))
        shares = {key: _interval(found[key]) for key in ("kind named", "own kind")}
        yield {"family": family, "planted": planted_ones, "in queue": sum(map(len, told)), **found["kinds"], **shares}


def _interval(share: dict[str, float | None]) -> str:
    return "–" if share["value"] is None else f"{share['value']:.2f} [{share['low']:.2f}, {share['high']:.2f}]"


def install() -> None:
    """Make the peer's environment."""
    subprocess.run([sys.executable, "-m", "venv", str(PYOD)], check=True)
    subprocess.run([str(PYOD / "bin" / "pip"), "install", "-q", "pyod==3.6.0", "polars>=2.1"], check=True)


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="*", choices=[*NAMES, []], default=[])
    parser.add_argument("--quick", action="store_true", help="two families, one draw, a tiny network; not recorded")
    parser.add_argument("--kinds", action="store_true", help="only which kinds the planted accounts are named")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--install", action="store_true", help="make PyOD's environment first")
    options = parser.parse_args()
    if options.install:
        install()
    if options.kinds:
        for name in options.sets or NAMES:
            say(f"{name}: the planted accounts among the {CAPACITY} most suspicious, by the kind they are named")
            show(list(kinds_of(name)), options.json)
        return
    pyod = (PYOD / "bin" / "python").exists()
    if not pyod:
        say("PyOD is not installed beside us (--install does it): its rows are left out.")
    wanted = options.sets or (["online-retail-ii"] if options.quick else list(NAMES))
    result: dict[str, Any] = {"sets": []}

    def keep(found: dict[str, Any]) -> None:
        if not options.quick and set(wanted) == set(NAMES):
            done = {"sets": [*result["sets"], found]}
            record("anomaly", {"title": TITLE, "command": "python -m benchmarks.anomaly", "notes": NOTES} | done)

    for name in wanted:
        result["sets"].append(run(name, options.quick, pyod, keep))
    if options.json:
        sys.stdout.write(json.dumps({"machine": machine(), **result}) + "\n")
        return
    for one in result["sets"]:
        for held in [*one["tables"], {"family": "together", "intensity": "middle", **one["together"]}]:
            rows = [
                {"detector": row["detector"]} | {name: m["value"] for name, m in row["metrics"].items()}
                for row in held["rows"]
            ]
            say(f"{one['set']}: {held['family']}, {held['intensity']}, {held['planted']} planted")
            show(rows, False)
            for detector, told in held["named"].items():
                say(f"{detector}: kind named right {_interval(told['kind named'])}, own {_interval(told['own kind'])}")


if __name__ == "__main__":
    main()
