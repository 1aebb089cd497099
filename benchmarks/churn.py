"""Churn on real logs, as of several dates each, beside a LightGBM that knows nothing of ours.

    python -m benchmarks.churn [SET...] [--quick] [--json] [--cuts DATE...] [--install]

Sets: online-retail-ii (carried by the package), cdnow and taobao (research use: read from DESIRELINE_DATA or the folder
`shared/data` beside the repository; taobao asks who shows no activity at all). As of each date `compare` runs as its
command does, with one seed, in a process of its own, and then `peers/plain_churn.py` is asked about the same users. On
Online Retail II CoLES of pytorch-lifestream (`peers/ptls_coles.py`) learns from the events before the same cut, and
the same trees read its embeddings; `--install` makes its environment in .bench/ptls.
Then: the published fits of CDNOW, and what it costs to score a million customers. A run over all sets and dates writes
benchmarks/results/churn.json.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.stats import rankdata

from benchmarks.ingest import show
from benchmarks.peers import plain_churn
from benchmarks.published import published_fits
from benchmarks.quality import DATA
from benchmarks.record import ROOT, machine, measured, record
from desireline.data import online_retail_ii
from desireline.evaluation.binary import binary_metrics, expected_calibration_error
from desireline.evaluation.result import Metric
from desireline.workspace import Workspace, init_workspace, open_workspace

Floats = NDArray[np.float64]
BENCH = ROOT / ".bench" / "churn"
SEED = 0
RESAMPLES = 500
CHANCE = 200  # logs drawn from the probabilities themselves
PTLS = ROOT / ".bench" / "ptls"  # the environment of CoLES
LEAST = 200  # users of a segment whose calibration is told
METRICS = ("AUROC", "AUPRC", "lift@5%", "lift@10%", "Brier", "ECE", "log-loss")
READ = ("embedding+lightgbm", "fused+lightgbm")  # rows that read the states of an encoder
SCORED = ("aggregates+lightgbm", "bg-nbd")
CHILD = """
import json, sys
from benchmarks import churn
if __name__ == "__main__":
    print(json.dumps(getattr(churn, sys.argv[1])(*sys.argv[2:])))
"""


@dataclass(frozen=True)
class Set:
    """A log, the moments that are asked about, and its settings beside one seed."""

    source: Callable[[], Path]
    cuts: tuple[str, ...]
    settings: dict[str, str] = field(default_factory=dict)


SETS = {
    "online-retail-ii": Set(online_retail_ii, ("2011-03-01", "2011-05-01", "2011-07-01", "2011-09-01")),
    "cdnow": Set(lambda: DATA / "cdnow" / "cdnow_master.parquet", ("1997-10-01", "1997-12-01", "1998-02-01")),
    "taobao": Set(
        lambda: DATA / "taobao_userbehavior_sample" / "userbehavior_head.parquet",
        ("2017-11-30T16:00", "2017-12-01T16:00", "2017-12-02T12:00"),
        {"churn.by": "activity"},
    ),
}


def opened(name: str, folder: str | Path) -> Workspace:
    """The workspace of a set with its settings."""
    return open_workspace(folder).with_settings({"evaluate.seeds": "1"} | SETS[name].settings)


def child(what: str, *words: str, whole_tree: bool = False) -> dict[str, Any]:
    """A function of this module in a process of its own: what it returns, and what the process cost."""
    done = measured([sys.executable, "-c", CHILD, what, *words], {"PYTHONPATH": _path()}, whole_tree=whole_tree)
    cost = {"peak MiB": done.get("tree_mib", done["peak_mib"]), "CPU seconds": done["cpu_s"]}
    return cost | json.loads(done["stdout"].splitlines()[-1])


def _path() -> str:
    return os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])


def as_of(name: str, folder: str, source: str, cut: str) -> dict[str, Any]:
    """Everything about one date: the comparison, the outside row, calibration and season of the chosen row."""
    from desireline.selection.compare import compare
    from desireline.tasks import TASKS
    from desireline.tasks.churn.questions import ChurnQuestions
    from desireline.tasks.stages import stages

    schema, at, task = opened(name, folder).schema, _moment(cut), TASKS["churn"]
    done = compare(Path(folder), schema, "churn", ("gru",), at, "temporal", SEED)
    result = done.result
    schema, at = task.settled(Path(folder), schema, at, True)
    test = stages(Path(folder), schema, "temporal", at, task.earlier_cut(schema, at))[1]
    asked = task.questions(test, schema)
    assert isinstance(asked, ChurnQuestions)
    trees = task.baseline("aggregates+lightgbm", {}, schema, test.prepared)  # ours on aggregates, chosen or not
    trees.fit(test)
    known = np.isfinite(asked.churned)
    ours, of_trees = (
        task.measure(model.predictions(asked), asked, schema, False).arrays["probability"][known]
        for model in (done.fitted, trees)
    )
    read = {name: _saved(folder, schema, name, at, asked)[known] for name in READ}
    gone = asked.churned[known]
    users = asked.timeline.users.gather(asked.user[known]).to_list()
    begun, plan = time.perf_counter(), plain_churn.PLANS[name]
    plain, learnt = plain_churn.predictions(Path(source), at.replace(tzinfo=None), asked.of.span, users, plan)
    seconds = round(time.perf_counter() - begun, 1)
    outside = binary_metrics(plain, gone, asked.user[known], RESAMPLES, SEED)
    share, level = float(gone.mean()), asked.level
    rows = [
        {"row": row.name, "kind": row.kind, "seconds": row.seconds, "metrics": _told(row.metrics)}
        | {"validation log-loss": _metric(row.validation) if row.validation else None}
        for row in result.rows
    ]
    rows.append({"row": "plain LightGBM", "kind": "outside", "seconds": seconds, "metrics": _told(outside)} | learnt)
    if name == "online-retail-ii" and (PTLS / "bin" / "python").exists():
        rows += coles_rows(test, asked, schema)
    return {
        "set": name,
        "as of": cut,
        "horizon_d": schema.churn.horizon_d,
        "by": schema.churn.by,
        "users": len(gone),
        "left": round(share, 4),
        "chosen": result.chosen,
        "model": result.model,
        "why": result.why,
        "rows": rows,
        "chosen minus plain": _metric(paired_auroc(ours, plain, gone)),
        "aggregates+lightgbm minus plain": _metric(paired_auroc(of_trees, plain, gone)),
        **{f"{name} minus aggregates+lightgbm": _metric(paired_auroc(read[name], of_trees, gone)) for name in READ},
        "calibration": _calibration(ours, gone),
        "segments": _segments(result.analysis, asked, schema, known, ours),
        "season": {
            "forecast": round(level.log_odds, 3),
            "error": round(level.error, 3) if np.isfinite(level.error) else None,
            "knows a year": level.knows_year,
            "missed by": round(_logit(share) - _logit(float(ours.mean())), 3),
        },
        "seconds": result.seconds,
    }


def coles_rows(test: Any, asked: Any, schema: Any) -> list[dict[str, Any]]:
    """CoLES in the place of our encoder: the same past moments, users, aggregates and trees."""
    from desireline.tasks import TASKS
    from desireline.tasks.churn.adaptation import ROWS, TREES
    from desireline.tasks.churn.baselines import ChurnBaseline
    from desireline.tasks.churn.definition import Definition
    from desireline.tasks.churn.snapshots import past_rows

    of, task, begun, found = Definition.of(schema.churn), TASKS["churn"], time.perf_counter(), []
    states = coles_states(test.prepared.before, [past_rows(test.prepared, of, schema.churn.dates), asked.rows])
    spent = time.perf_counter() - begun
    for adapt, row in ROWS.items():
        begun = time.perf_counter()
        made = ChurnBaseline(TREES[adapt](), of, schema.churn.dates, states)
        made.fit(test)
        measured = task.measure(made.predictions(asked), asked, schema, False)
        metrics, seconds = task.metrics(measured, RESAMPLES, SEED), spent + time.perf_counter() - begun
        found.append(
            {"row": f"CoLES {row}", "kind": "outside", "seconds": round(seconds, 1), "metrics": _told(metrics)}
        )
    return found


@dataclass(frozen=True)
class States:
    """Embeddings by user and moment, in the place of `tasks.churn.embedding.Embedding`."""

    of_row: pl.DataFrame

    def beside(self, rows: pl.DataFrame, events: Any) -> pl.DataFrame:
        """The rows with their embeddings."""
        return rows.join(self.of_row, on=["user", "as_of"], how="left", maintain_order="left", validate="m:1")


def coles_states(events: Any, asked: list[pl.DataFrame]) -> States:
    """CoLES learns from all events before the cut and reads each row's user strictly before the row's moment."""
    time_us, owner = np.asarray(events["time"]), events.rows()
    first = np.diff(owner, prepend=-1) != 0
    log = pl.DataFrame(
        {
            "user": owner,
            "gap": np.where(first, 0.0, np.diff(time_us, prepend=0) / 86_400e6),
            **{name: np.asarray(events[name]) for name in ("value", "event", "item")},
        }
    )
    rows = pl.concat([frame.select("user", "as_of") for frame in asked]).unique(maintain_order=True)
    row_of = pl.DataFrame({"user": events.users, "owner": np.arange(len(events))})
    of_row = rows.join(row_of, on="user", how="left", maintain_order="left")["owner"].to_numpy()
    moment, place = rows["as_of"].dt.epoch("us").to_numpy(), np.zeros(rows.height, np.int64)
    for at in np.unique(moment):
        earlier = np.diff(np.concatenate([[0], np.cumsum(time_us < at)])[events.offsets])
        place[moment == at] = (events.offsets[:-1] + earlier - 1)[of_row[moment == at]]
    with tempfile.TemporaryDirectory() as folder:
        paths = [str(Path(folder) / f"{name}.parquet") for name in ("events", "places", "out")]
        log.write_parquet(paths[0])
        pl.DataFrame({"place": place}).write_parquet(paths[1])
        script = ROOT / "benchmarks" / "peers" / "ptls_coles.py"
        command = [str(PTLS / "bin" / "python"), str(script), *paths]
        subprocess.run(command, check=True, stdout=sys.stderr)
        return States(rows.hstack(pl.read_parquet(paths[2])))


def install() -> None:
    """Make the environment of CoLES."""
    subprocess.run([sys.executable, "-m", "venv", str(PTLS)], check=True)
    subprocess.run([str(PTLS / "bin" / "pip"), "install", "-q", "pytorch-lifestream==0.7.0"], check=True)


def _saved(folder: str, schema: Any, name: str, at: datetime, asked: Any) -> Floats:
    """The probabilities [Q] of the newest row of a name that a comparison at this cut has saved."""
    from desireline.selection.fitted import load
    from desireline.sequences.prepared import iso
    from desireline.tasks import TASKS

    paths = (Path(folder) / "models").glob(f"churn-{name}-*/model.json")
    kept = [path for path in paths if json.loads(path.read_text())["cut"] == iso(at)]
    newest = max(kept, key=lambda path: path.stat().st_mtime)
    fitted = load(Path(folder), schema, newest.parent.name)
    return TASKS["churn"].measure(fitted.predictions(asked), asked, schema, False).arrays["probability"]


def paired_auroc(one: Floats, other: Floats, gone: Floats) -> Metric:
    """The difference of two AUROCs on the same users, with its interval by bootstrap over users."""
    generator, found = np.random.default_rng(SEED), []
    for _ in range(RESAMPLES):
        drawn = generator.integers(0, len(gone), len(gone))
        found.append(_auroc(one[drawn], gone[drawn]) - _auroc(other[drawn], gone[drawn]))
    low, high = np.nanquantile(found, [0.025, 0.975])
    return Metric(_auroc(one, gone) - _auroc(other, gone), float(low), float(high))


def _auroc(probability: Floats, gone: Floats) -> float:
    """By ranks (Mann & Whitney), ties counting half."""
    up = gone.sum()
    ranks = rankdata(probability)[gone > 0].sum()
    return float((ranks - up * (up + 1) / 2) / (up * (len(gone) - up))) if 0 < up < len(gone) else float("nan")


def _calibration(probability: Floats, gone: Floats) -> dict[str, float]:
    """ECE, what a forecast that is right by construction gets, and what is left once the level is known.

    by chance, at most : mean and 95 % quantile of the ECE where who leaves is drawn from the probabilities themselves
    level known : the ECE after all log odds were moved by what makes their mean the share that left
    """
    generator = np.random.default_rng(SEED)
    drawn = [
        expected_calibration_error(probability, (generator.random(len(gone)) < probability).astype(np.float64))
        for _ in range(CHANCE)
    ]
    return {
        "ECE": round(expected_calibration_error(probability, gone), 4),
        "by chance": round(float(np.mean(drawn)), 4),
        "at most": round(float(np.quantile(drawn, 0.95)), 4),
        "level known": round(expected_calibration_error(_moved(probability, float(gone.mean())), gone), 4),
    }


def _moved(probability: Floats, share: float) -> Floats:
    """The probabilities with one number added to all log odds, so that their mean is `share`."""
    odds, low, high = np.log(probability) - np.log1p(-probability), -10.0, 10.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if float((1 / (1 + np.exp(-odds - middle))).mean()) < share else (low, middle)
    return np.asarray(1 / (1 + np.exp(-odds - low)), np.float64)


def _segments(
    analysis: list[dict[str, Any]], asked: Any, schema: Any, known: NDArray[np.bool_], probability: Floats
) -> list[dict[str, Any]]:
    """The segments of LEAST users or more, the worst calibrated first, each with the ECE that chance alone gives."""
    from desireline.tasks.churn.answers import segments, value_edges

    of_user = np.array(segments(asked.rows, asked.of, value_edges(asked.rows)))[known]
    found = []
    for row in analysis:
        if row["by"] == "segment" and row["questions"] >= LEAST:
            inside = of_user == row["group"]
            chance = _calibration(probability[inside], asked.churned[known][inside])
            told = {"segment": row["group"], "users": row["questions"], "ECE": round(row["ECE"], 4)}
            shares = {"left": round(row["left"], 4), "probability": round(row["probability"], 4)}
            found.append(told | shares | {key: chance[key] for key in ("by chance", "at most")})
    return sorted(found, key=lambda row: -row["ECE"])


def score_million(name: str, folder: str, cut: str, scorer: str, count: str) -> dict[str, Any]:
    """Log odds of so many customers by one fitted row.

    Their numbers are drawn from the real snapshot; each has been a customer for up to a year longer than whom it is
    drawn from, since a law of lifetimes looks at customers with equal numbers once.
    """
    from desireline.selection.compare import peak_rss_mib
    from desireline.tasks import TASKS
    from desireline.tasks.churn.baselines import ChurnBaseline
    from desireline.tasks.churn.snapshots import present_rows
    from desireline.tasks.stages import stages

    task, at = TASKS["churn"], _moment(cut)
    schema, at = task.settled(Path(folder), opened(name, folder).schema, at, True)
    test = stages(Path(folder), schema, "temporal", at, task.earlier_cut(schema, at))[1]
    made = task.baseline(scorer, {}, schema, test.prepared)
    assert isinstance(made, ChurnBaseline)
    made.fit(test)
    rows = present_rows(test.prepared, made.of).sample(int(count), with_replacement=True, seed=SEED)
    longer = pl.Series(np.random.default_rng(SEED).integers(0, 365, rows.height).astype(np.float64))
    rows = rows.with_columns(pl.col("days_since_return", "days_since_first_return", "days_since_first") + longer)
    before, begun, used = peak_rss_mib(), time.perf_counter(), time.process_time()
    odds = made.scale[0] + made.scale[1] * made.scorer.log_odds(rows)
    seconds, used = time.perf_counter() - begun, time.process_time() - used
    if not np.isfinite(odds).all():
        raise RuntimeError(f"{scorer}: {int((~np.isfinite(odds)).sum())} log odds are no numbers.")
    return {
        "what": f"{scorer}: log odds from numbers",
        "customers": len(odds),
        "seconds": round(seconds, 2),
        "CPU seconds": round(used, 2),
        "customers/s": round(len(odds) / seconds),
        "peak MiB before": round(before),
    }


def deploy(name: str, folder: str, model: str) -> dict[str, Any]:
    """Let a chosen model answer, fitted on the whole log, as the command `compare` does."""
    from desireline.selection import deploy as deploying
    from desireline.selection.fitted import load

    schema, begun = opened(name, folder).schema, time.perf_counter()
    fitted = load(Path(folder), schema, model)
    deploying.deploy(Path(folder), fitted, deploying.refit(Path(folder), schema, fitted))
    return {"seconds": round(time.perf_counter() - begun, 1)}


def answer_all(name: str, folder: Path, chosen: dict[str, Any]) -> list[dict[str, Any]]:
    """`predict --all` from its start to its file, twice, by the row chosen as of the last date."""
    child("deploy", name, str(folder), chosen["model"])
    out, rows = folder / "answers.parquet", []
    command = "from desireline.cli.app import main; main()"
    words = ["predict", str(folder), "--task", "churn", "--all", "--out", str(out), "--json"]
    events = opened(name, folder).store.count()
    for what in ("predict --all", "predict --all, again"):
        done = measured([sys.executable, "-c", command, *words])
        users = json.loads(done["stdout"])["rows"]
        rows.append(
            {"what": f"{what} ({chosen['chosen']}), {events:,} events", "customers": users, "seconds": done["wall_s"]}
            | {"CPU seconds": done["cpu_s"], "customers/s": round(users / done["wall_s"])}
            | {"peak MiB": done["peak_mib"], "peak MiB before": None}
        )
    return rows


def tenth(source: Path, name: str) -> Path:
    """Every tenth customer of a file, as a file."""
    column = "user_id" if name == "taobao" else "customer_id"
    log, path = pl.read_parquet(source), BENCH / f"{name}-tenth.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    kept = log.select(pl.col(column).drop_nulls().unique().sort().gather_every(10))
    log.join(kept, on=column, how="semi", maintain_order="left").write_parquet(path)
    return path


def run_set(name: str, cuts: list[str], quick: bool, notes: list[str]) -> list[dict[str, Any]]:
    """The dates of one set; what fails is told in `notes`."""
    source, folder = SETS[name].source(), BENCH / name
    shutil.rmtree(folder, ignore_errors=True)
    if quick:
        source = tenth(source, name)
    workspace, _ = init_workspace(folder, source=source)
    workspace.ingest(source)
    found = []
    for cut in cuts:
        load = round(os.getloadavg()[0], 2)
        try:
            found.append(child("as_of", name, str(folder), str(source), cut, whole_tree=True) | {"load before": load})
        except RuntimeError as error:
            notes.append(f"{name} as of {cut} failed: {str(error).strip().splitlines()[-1]}")
            continue
        sys.stderr.write(f"{name} {cut}: {found[-1]['chosen']}, {found[-1]['seconds']:.0f} s\n")
    return found


def scoring(name: str, last: dict[str, Any], count: int, notes: list[str]) -> list[dict[str, Any]]:
    """What answers cost, as of the last date of a set."""
    rows, folder = [], BENCH / name
    for scorer in SCORED:
        try:
            rows.append(child("score_million", name, str(folder), last["as of"], scorer, str(count)))
        except RuntimeError as error:
            notes.append(f"Scoring by {scorer} failed: {str(error).strip().splitlines()[-1]}")
    try:
        rows += answer_all(name, folder, last)
    except RuntimeError as error:
        notes.append(f"predict --all failed: {str(error).strip().splitlines()[-1]}")
    order = ("what", "customers", "seconds", "CPU seconds", "customers/s", "peak MiB", "peak MiB before")
    return [{key: row[key] for key in order} for row in rows]


def flat(date: dict[str, Any]) -> dict[str, Any]:
    """One date on one line of a terminal."""
    metrics = {row["row"]: row["metrics"] for row in date["rows"]}
    return (
        {key: date[key] for key in ("set", "as of", "users", "left", "chosen")}
        | {name: metrics[date["chosen"]][name]["value"] for name in ("AUROC", "ECE")}
        | {"by chance": date["calibration"]["by chance"]}
        | {"plain AUROC": metrics["plain LightGBM"]["AUROC"]["value"], "seconds": round(date["seconds"])}
    )


def _moment(cut: str) -> datetime:
    return datetime.fromisoformat(cut).replace(tzinfo=UTC)


def _metric(metric: Metric) -> dict[str, float]:
    return {"value": round(metric.value, 4), "low": round(metric.low, 4), "high": round(metric.high, 4)}


def _told(metrics: dict[str, Metric]) -> dict[str, dict[str, float]]:
    return {name: _metric(metrics[name]) for name in METRICS if name in metrics}


def _logit(share: float) -> float:
    return float(np.log(share) - np.log1p(-share))


def main() -> None:
    """Run the named sets, all by default."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="*", choices=[*SETS, []], help="default: all")
    parser.add_argument("--quick", action="store_true", help="one set, one date, every tenth customer; not recorded")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--install", action="store_true", help="make the environment of CoLES first")
    parser.add_argument("--cuts", nargs="+", metavar="DATE", help="other dates than the usual ones; not recorded")
    options = parser.parse_args()
    if options.install:
        install()
    begun, notes = machine(), []  # before the run: the commit may move on while it lasts
    dates: list[dict[str, Any]] = []
    if not (PTLS / "bin" / "python").exists():
        notes.append(
            "pytorch-lifestream is not installed beside us (--install does it): the rows of CoLES are left out."
        )
    for name in (options.sets or list(SETS))[: 1 if options.quick else None]:
        if not SETS[name].source().exists():
            notes.append(f"{name}: its data are not there; DESIRELINE_DATA names another folder. Skipped.")
            continue
        cuts = options.cuts or SETS[name].cuts
        dates += run_set(name, list(cuts)[-1 if options.quick else None :], options.quick, notes)
    shop = [date for date in dates if date["set"] == "online-retail-ii"]
    costs = scoring("online-retail-ii", shop[-1], 100_000 if options.quick else 1_000_000, notes) if shop else []
    fits = published_fits() if not options.quick and SETS["cdnow"].source().exists() else []
    found = {"title": "Churn", "command": "python -m benchmarks.churn", "seed": SEED}
    found |= {"dates": dates, "fits": fits, "scoring": costs, "notes": notes}
    if not (options.quick or options.sets or options.cuts):
        record("churn", {"machine": begun} | found)
    if options.json:
        sys.stdout.write(json.dumps(found) + "\n")
        return
    for rows in ([flat(date) for date in dates], fits, costs):
        if rows:
            show(rows, False)
    for note in notes:
        sys.stderr.write(f"{note}\n")


if __name__ == "__main__":
    main()
