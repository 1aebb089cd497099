"""A look at the whole log as of a moment: every account's suspicion, kept on disk so that one answer costs one read.

A look is a function of the log, the model, the moment, the settings and, once there are enough to learn from, of what
people judged; its folder under `anomaly/` is named after them, so that nothing old is ever read. It is made anew as the
log grows: what is rare is rare in the log of today.

Cost: that of the scan and of a pass of the network, and once more that of the measures for the reasons of all accounts
that stand out; a reason then costs its account's own events.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from desireline.core.errors import DataError
from desireline.core.files import new_folder, read_json, write_bytes, write_json
from desireline.core.progress import progress
from desireline.events.cut import cut
from desireline.events.histories import behaviour
from desireline.events.store import EventStore
from desireline.schema.model import Schema
from desireline.selection.fitted import Fitted
from desireline.sequences.prepared import iso
from desireline.tasks.anomaly.cards import EVIDENCE, AnomalyAnswer, KindScore, Normal, kind_scores, telling, together
from desireline.tasks.anomaly.fact import KINDS, Evidence
from desireline.tasks.anomaly.facts import FACTS, evidence_of
from desireline.tasks.anomaly.groups import Group
from desireline.tasks.anomaly.learned import LEAST_CONFIRMED, confirmed, features, learned, taught
from desireline.tasks.anomaly.questions import AnomalyQuestions, asked, read_before, surprises
from desireline.tasks.anomaly.spans import by_account
from desireline.tasks.anomaly.surprise_facts import FACTS as SURPRISES
from desireline.tasks.anomaly.surprise_facts import evidence as surprise_evidence
from desireline.tasks.anomaly.suspicion import Suspicion
from desireline.tasks.anomaly.worded import with_wording
from desireline.training.network import Network

KEPT = 4  # looks on disk, the newest
TOLD = 5_000  # accounts, at most, whose reasons and evidence are kept
SUSPECT = 0.05  # p-value up to which they are
KNOWN = FACTS | SURPRISES
FRAMES = ("accounts", "features", "evidence")
VERSION = 6  # of a look on disk; another as soon as the same log gives another look


@dataclass(frozen=True)
class Look:
    """What stands in a look's folder.

    accounts : frame: user, score, p_value, kind (the likeliest), and one p-value column a kind
    told : user -> its kinds with reasons and evidence, of accounts that stand out;  nearest : user -> a normal case
    groups : each with users, targets, how, p_value, excess, reasons, event_ids, kind
    window : the first moment that is judged, and the one after the last
    features : frame of `learned.features`, a row an account
    evidence : frame: event_id, time of every event that speaks for anything told
    taught : how many confirmed accounts the ranking has learned from; 0: of none yet
    """

    accounts: pl.DataFrame
    features: pl.DataFrame
    evidence: pl.DataFrame
    told: dict[str, list[dict[str, Any]]]
    nearest: dict[str, dict[str, Any]]
    groups: list[dict[str, Any]]
    window: list[str]
    taught: int


def look(folder: Path, fitted: Fitted, as_of: datetime) -> Look:
    """The look of a model as of a moment, made unless it stands already.

    Raises DataError when no account has an event in the window.
    """
    verdicts = labelled(folder)
    judged = verdicts.hash_rows().sum() if confirmed(verdicts) >= LEAST_CONFIRMED else 0
    path = folder / "anomaly" / f"look-{_key(folder, fitted, as_of)}-{_digest(judged)}"
    if not (path / "look.json").exists():
        made = _made(fitted, window_begin(fitted.prepared.schema, as_of), as_of, verdicts)
        with new_folder(path) as temporary:
            for name in FRAMES:
                getattr(made, name).write_parquet(temporary / f"{name}.parquet")
            rest = {name: value for name, value in vars(made).items() if name not in FRAMES}
            write_json(temporary / "look.json", rest)
        _forget_old(path.parent)
    return _read(path)


def last_look(folder: Path, fitted: Fitted, as_of: datetime) -> Look:
    """As `look`, but one that stands will do whatever was judged since: a verdict on the next alert has not to wait."""
    standing = (folder / "anomaly").glob(f"look-{_key(folder, fitted, as_of)}-*/look.json")
    newest = max(standing, key=lambda path: path.stat().st_mtime, default=None)
    return look(folder, fitted, as_of) if newest is None else _read(newest.parent)


def _key(folder: Path, fitted: Fitted, as_of: datetime) -> str:
    """What a look follows from beside verdicts."""
    schema = fitted.prepared.schema
    return _digest([VERSION, fitted.id, EventStore(folder, schema).version(), iso(as_of), schema.anomaly.model_dump()])


def _digest(what: Any) -> str:
    return hashlib.sha256(json.dumps(what, sort_keys=True, default=str).encode()).hexdigest()[:12]


def _read(path: Path) -> Look:
    kept: dict[str, Any] = {name: pl.read_parquet(path / f"{name}.parquet") for name in FRAMES}
    return Look(**kept, **read_json(path / "look.json"))


def labelled(folder: Path) -> pl.DataFrame:
    """What people judged so far: the features of the accounts as they were, and `confirmed`; empty before any."""
    path = folder / "anomaly" / "labelled.parquet"
    if path.exists():
        return pl.read_parquet(path)
    return pl.DataFrame(schema={"user": pl.String, "alert": pl.String, "confirmed": pl.Boolean})


def keep_labels(folder: Path, found: Look, alert: str, users: Sequence[str], confirmed: bool) -> None:
    """Add an alert's accounts, as they stand in a look, to what people judged; an alert judged again is replaced.

    Accounts that the look does not hold, since the window has moved on, stay as they were when they were judged first.
    """
    rows = found.features.filter(pl.col("user").is_in(list(users)))
    before = labelled(folder)
    again = before.filter(pl.col("alert") == alert, ~pl.col("user").is_in(rows["user"].implode())).drop("confirmed")
    rows = pl.concat([again, rows.with_columns(alert=pl.lit(alert))], how="diagonal_relaxed")
    rows = rows.with_columns(confirmed=pl.lit(confirmed))
    buffer = BytesIO()
    pl.concat([before.filter(pl.col("alert") != alert), rows], how="diagonal_relaxed").write_parquet(buffer)
    write_bytes(folder / "anomaly" / "labelled.parquet", buffer.getvalue())


def window_begin(schema: Schema, as_of: datetime) -> datetime:
    """The first moment that is judged."""
    assert schema.anomaly.window_d is not None, "a fitted model's settings are settled"
    return as_of - timedelta(days=schema.anomaly.window_d)


def answer_of(found: Look, user: str, as_of: datetime) -> AnomalyAnswer:
    """The answer for one user of the log; against one without an event in the window nothing speaks."""
    row = found.accounts.filter(pl.col("user") == user)
    if row.height == 0:
        kinds = [KindScore(kind, 0.0, []) for kind in KINDS]
        return AnomalyAnswer(user, iso(as_of), 0.0, 1.0, kinds, found.window)
    one = row.row(0, named=True)
    plain = [{"kind": kind, "score": 0.0 - np.log10(one[kind]).item(), "evidence": []} for kind in KINDS]
    told = found.told.get(user) or sorted(plain, key=lambda k: -k["score"])
    kinds = [KindScore(**kind) for kind in told]
    return AnomalyAnswer(user, iso(as_of), one["score"], one["p_value"], kinds, found.window)


def answers_of(folder: Path, found: Look, fitted: Fitted, as_of: datetime) -> pl.DataFrame:
    """`user, score, p_value, kind` of every user with an event before `as_of`; kind is null for the quiet ones."""
    store = EventStore(folder, fitted.prepared.schema)
    events = behaviour(cut(store.scan(["user", "time", "event"]), as_of)[0], store.schema)
    users = events.select("user").unique().collect(engine="streaming")
    merged = store.aliases(as_of)
    users = users.select(pl.col("user").replace(merged)).unique().sort("user")
    told = users.join(found.accounts.select("user", "score", "p_value", "kind"), on="user", how="left")
    return told.with_columns(pl.col("score").fill_null(0.0), pl.col("p_value").fill_null(1.0)).sort("p_value", "user")


def answer_once(fitted: Fitted, events: pl.DataFrame, user: str, as_of: datetime) -> AnomalyAnswer:
    """The answer for somebody unknown, from an event frame of theirs, judged among all accounts of the log.

    Raises DataError when no event of theirs lies in the window.
    """
    prepared, schema = fitted.prepared, fitted.prepared.schema
    begin = window_begin(schema, as_of)
    log = read_before(prepared, as_of)
    own = events.with_columns(user=pl.lit(user)).select(log.columns)
    questions = asked(pl.concat([log.filter(pl.col("user") != user), own]), prepared, schema, begin, as_of)
    found, _, _ = _predicted(fitted, questions, labelled(prepared.workspace))
    place = questions.scan.users.index_of(user)
    if place is None:
        raise DataError(f"The history holds no event between {iso(begin)} and {iso(as_of)}, the window that is judged.")
    kinds = _told(fitted, questions, found, [int(place)])[0]
    score, p = float(found.score[place]), float(found.p_value[place])
    return AnomalyAnswer(user, iso(as_of), score, p, kinds, [iso(begin), iso(as_of)])


def _made(fitted: Fitted, begin: datetime, as_of: datetime, verdicts: pl.DataFrame) -> Look:
    prepared, schema = fitted.prepared, fitted.prepared.schema
    questions = asked(read_before(prepared, as_of), prepared, schema, begin, as_of)
    if len(questions) == 0:
        raise DataError(
            f"Between {iso(begin)} and {iso(as_of)} no account has an event: name another --as-of, or fit again with a "
            "longer window (--set anomaly.window_d=…)."
        )
    scanned = questions.scan
    found, columns, count = _predicted(fitted, questions, verdicts)
    users = scanned.users
    accounts = pl.DataFrame(
        {"user": users, "score": found.score, "p_value": found.p_value, "kind": found.likeliest}
        | {kind: found.kinds[:, column] for column, kind in enumerate(KINDS)}
    ).sort("p_value", "user")
    rows = np.flatnonzero(found.p_value < SUSPECT)
    rows = rows[np.argsort(found.p_value[rows], kind="stable")][:TOLD]
    named = users.to_list()
    told, nearest, normal = {}, {}, Normal.of(found)
    for row, kinds in zip(rows.tolist(), _told(fitted, questions, found, rows.tolist()), strict=True):
        told[named[row]] = [asdict(kind) for kind in kinds]
        names = telling(found, row, kinds[0].kind, KNOWN) or together(found, row)
        near = normal.nearest(row, names, KNOWN, named)
        if near is not None:
            nearest[named[row]] = asdict(near)
    groups = [_group(questions, group) for group in scanned.groups]
    ids = {event for kinds in told.values() for kind in kinds for event in kind["evidence"]}
    ids |= {event for group in groups for event in group["event_ids"]}
    behind = scanned.actions.judged.filter(pl.col("event_id").is_in(list(ids))).select("event_id", "time")
    return Look(accounts, columns, behind, told, nearest, groups, [iso(begin), iso(as_of)], count)


def _predicted(
    fitted: Fitted, questions: AnomalyQuestions, verdicts: pl.DataFrame
) -> tuple[Suspicion, pl.DataFrame, int]:
    """What the model suspects, set right by what people judged; the features; how many confirmed accounts taught it."""
    ((_, _, found),) = fitted.predictions(questions)
    columns = features(questions.scan, found)
    if confirmed(verdicts) >= LEAST_CONFIRMED:
        columns, verdicts = with_wording(questions.scan, found.p_value, columns, verdicts, seed=0)
    odds = learned(columns, verdicts, seed=0)
    if odds is None:
        return found, columns, 0
    return taught(found, odds), columns, confirmed(verdicts)


def _group(questions: AnomalyQuestions, group: Group) -> dict[str, Any]:
    actions = questions.scan.actions
    return {
        "users": actions.users.gather(group.accounts).to_list(),
        "targets": actions.targets.gather(group.targets).to_list(),
        "how": list(group.how),
        "p_value": group.p_value,
        "excess": group.excess,
        "reasons": group.reasons,
        "event_ids": group.event_ids,
        "kind": group.kind,
    }


def _told(fitted: Fitted, questions: AnomalyQuestions, found: Suspicion, rows: list[int]) -> list[list[KindScore]]:
    """Kinds with reasons and evidence of some accounts of a scan."""
    scanned = questions.scan
    account = scanned.facts["account"].to_numpy()
    in_groups: dict[int, list[Group]] = {}
    for group in scanned.groups:
        for member in group.accounts.tolist():
            in_groups.setdefault(member, []).append(group)
    by_facts, by_network = evidence_of(scanned.actions), _behind_surprise(fitted, questions, found, rows)

    @cache  # a fact may speak for several kinds
    def behind(row: int, fact: str) -> list[int]:
        return by_facts(int(account[row]), fact) if fact in FACTS else by_network(row, fact)

    events_of, made = by_account(scanned.actions.judged), []
    with progress("anomaly: reasons", len(rows), "accounts") as advance:
        for row in rows:
            groups = sorted(in_groups.get(int(account[row]), []), key=lambda g: g.p_value)
            said = {kind: [r for g in groups if g.kind == kind for r in g.reasons] for kind in scanned.grouped}
            kinds = kind_scores(found, row, KNOWN, behind, said)
            theirs = set(events_of(int(account[row]))["event_id"]) if groups else set()
            made.append([_with_group_events(kind, groups, theirs) for kind in kinds])
            advance()
    return made


def _with_group_events(kind: KindScore, groups: list[Group], theirs: set[int]) -> KindScore:
    """Before a kind's own evidence the account's events, `theirs`, that its groups of the kind rest on."""
    groups = [group for group in groups if group.kind == kind.kind]
    if not groups:
        return kind
    ids = [event for group in groups for event in group.event_ids if event in theirs]
    return replace(kind, evidence=list(dict.fromkeys([*ids, *kind.evidence]))[:EVIDENCE])


def _behind_surprise(fitted: Fitted, questions: AnomalyQuestions, found: Suspicion, rows: list[int]) -> Evidence:
    """A function of (row, fact) that gives the ids of the events behind a network's surprise."""
    if not isinstance(fitted.predictor, Network):
        return lambda row, fact: []
    users = questions.user[rows]
    keep: NDArray[np.bool_] = np.isin(questions.timeline.rows(), users)
    sequences = questions.timeline.take(keep)
    ids = questions.event_ids[keep]
    told = surprises(fitted.predictor, questions, sequences)

    def behind(row: int, fact: str) -> list[int]:
        value = float(found.measures[fact][row])
        places = surprise_evidence(told, int(questions.user[row]), fact, value)
        return [int(event) for event in ids[places]]

    return behind


def _forget_old(folder: Path) -> None:
    looks = sorted((p for p in folder.glob("look-*") if p.is_dir()), key=lambda p: p.stat().st_mtime)
    for old in looks[:-KEPT]:
        shutil.rmtree(old, ignore_errors=True)
