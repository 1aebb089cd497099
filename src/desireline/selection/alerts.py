"""The queue: what is most suspicious, as much as people can look at, with a card each; and what they said of it.

Members of a group are one alert, so that a ring costs one look. A share of the queue is drawn at random among all other
accounts of the window: what is found false among those is the only unbiased word on what the rest of the queue misses.
Verdicts are kept beside the log, by the alert's own id, which follows from its kind and its users. A judged alert comes
back only when an event since is evidence for it.
"""

from __future__ import annotations

import hashlib
import heapq
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import polars as pl
from scipy.special import betaincinv

from desireline.core.errors import SettingError
from desireline.core.files import read_json, write_json
from desireline.evaluation.result import Result
from desireline.selection.suspects import SUSPECT, Look, keep_labels
from desireline.tasks.anomaly.cards import ALL_TOGETHER, Nearest
from desireline.tasks.anomaly.peers import LEAST
from desireline.tasks.anomaly.suspicion import BANDS, false_discoveries

Verdict = Literal["confirmed", "dismissed"]

LEAST_VERDICTS = 5  # in a band of scores, before its precision is told by them
LEAST_TESTED = 5  # accounts of the model's own test in a band, before its precision is told by them
CLEARS = {
    "ring": "one household, firm or school behind the accounts, or one offer that all were sent",
    "review": "a launch, a sampling campaign or an appeal for reviews that reached these accounts",
}


@dataclass(frozen=True)
class Precision:
    """How many of a band's alerts are right: the share, its 95 % interval, and what says so."""

    value: float
    low: float
    high: float
    by: str


@dataclass(frozen=True)
class Alert:
    """One line of the queue.

    score : −log10 of `p_value`, a group's being that of its most suspicious account
    fdr : least false-discovery rate at which it would be let into the queue
    evidence : event ids in the log;  audit : drawn at random, not for its score
    """

    id: str
    kind: str
    users: list[str]
    score: float
    p_value: float
    reasons: list[str]
    evidence: list[int]
    clears: list[str]
    nearest: Nearest | None
    precision: Precision | None
    fdr: float
    window: list[str]
    audit: bool = False


@dataclass(frozen=True)
class Queue:
    """What `alerts` answers.

    capacity : alerts at most;  accounts : active in the window;  confirmed, dismissed : verdicts so far, of any window
    """

    as_of: str
    window: list[str]
    capacity: int
    accounts: int
    confirmed: int
    dismissed: int
    alerts: list[Alert]


class Line(NamedTuple):
    """An alert before it has a card, so that a log of a million accounts is ranked in little memory.

    group : its place in the look's groups; null: an account alone
    """

    p_value: float
    id: str
    kind: str
    users: list[str]
    group: int | None = None


def queue(
    found: Look,
    folder: Path,
    as_of: str,
    capacity: int,
    audit: float,
    seed: int,
    *,
    fdr: float | None = None,
    p_value: float | None = None,
    tested: Sequence[dict[str, float]] = (),
) -> Queue:
    """The most suspicious alerts, as many as people can look at.

    audit : share of them drawn at random, below 1: one alert at least is there for its own sake
    fdr, p_value : let in only what is under both
    tested : bands of scores with the accounts and the planted ones of the model's own test
    """
    said, (ranked, members) = verdicts(folder), _lines(found)
    rates = false_discoveries(np.array([line.p_value for line in ranked]))
    random = min(int(np.ceil(audit * capacity)), capacity - 1)
    chosen: list[Alert] = []
    for line, rate in zip(ranked, rates.tolist(), strict=True):
        if len(chosen) == capacity - random:
            break
        if _is_done(found, line, said) or (fdr is not None and rate > fdr):
            continue
        if p_value is None or line.p_value <= p_value:
            chosen.append(_card(found, line, rate, precision(0.0 - np.log10(line.p_value).item(), said, tested), False))
    known = {user for alert in chosen for user in alert.users}
    known |= {user for line in [*ranked, *members] if _is_done(found, line, said) for user in line.users}
    rest = [line for line in [*ranked, *members] if line.group is None and line.users[0] not in known]
    for line in heapq.nsmallest(random, rest, key=lambda one: _drawn(seed, as_of, one.users[0])):
        chosen.append(_card(found, line, 1.0, None, True))
    count = [v["verdict"] for v in said.values()]
    return Queue(
        as_of,
        found.window,
        capacity,
        found.accounts.height,
        count.count("confirmed"),
        count.count("dismissed"),
        chosen,
    )


def _drawn(seed: int, as_of: str, user: str) -> bytes:
    """Bits by which accounts are drawn: as one is judged, the others that were drawn stay."""
    return hashlib.sha256(json.dumps([seed, as_of, user]).encode()).digest()


def _lines(found: Look) -> tuple[list[Line], list[Line]]:
    """Every group and every account outside of them, the least probable first; and the accounts that groups stand for.

    A group stands for its members that are suspected of its kind first of all, and where the most suspicious of them
    would stand alone: nobody sinks for being in a group, and what verdicts taught holds for groups as well. Where it
    stands for nobody it counts for one account of all, as its p-value is corrected for the whole log.
    """
    alone, grouped = found.accounts.select("user", "p_value", "kind"), set()
    of_kind = {user: (kind, p) for user, p, kind in alone.iter_rows()}
    ranked = []
    for place, group in enumerate(found.groups):
        kind = group["kind"]
        held = [user for user in group["users"] if user in of_kind and of_kind[user][0] == kind]
        p = min((of_kind[user][1] for user in held), default=max(group["p_value"] / max(1, alone.height), LEAST))
        ranked.append(Line(p, alert_id(kind, group["users"]), kind, group["users"], place))
        grouped.update(held)
    single = [Line(p, alert_id(kind, [user]), kind, [user]) for user, p, kind in alone.iter_rows()]
    ranked += [line for line in single if line.users[0] not in grouped]
    return sorted(ranked, key=lambda line: line[:2]), [line for line in single if line.users[0] in grouped]


def _behind(found: Look, line: Line) -> dict[str, Any]:
    """Reasons, evidence and what would clear an alert; empty where nothing of it was told."""
    if line.group is not None:
        group = found.groups[line.group]
        return {"reasons": group["reasons"], "evidence": group["event_ids"], "clears": [CLEARS[group["kind"]]]}
    told = next((kind for kind in found.told.get(line.users[0], []) if kind["kind"] == line.kind), None)
    return told or {"reasons": [], "evidence": [], "clears": []}


def alert_id(kind: str, users: Sequence[str]) -> str:
    """Ten hex digits that follow from what is suspected of whom."""
    return hashlib.sha256(json.dumps([kind, sorted(users)]).encode()).hexdigest()[:10]


def _card(found: Look, line: Line, rate: float, known: Precision | None, audit: bool) -> Alert:
    told = _behind(found, line)
    near = found.nearest.get(line.users[0]) if line.group is None else None
    reasons = told["reasons"]
    if audit:
        reasons = ["drawn at random, so that what the queue misses can be estimated", *reasons]
    elif not reasons:
        reasons = [ALL_TOGETHER if line.p_value < SUSPECT else "nothing stands out"]
    return Alert(
        line.id,
        line.kind,
        line.users,
        0.0 - np.log10(line.p_value).item(),
        line.p_value,
        reasons,
        told["evidence"],
        told["clears"],
        Nearest(**near) if near else None,
        known,
        rate,
        found.window,
        audit,
    )


def _is_done(found: Look, line: Line, said: dict[str, dict[str, Any]]) -> bool:
    """Whether a person has judged the alert, and no event since stands behind it.

    That an older event is evidence now, since the window has moved or others have changed, is nothing new.
    """
    verdict = said.get(line.id)
    if verdict is None:
        return False
    unseen = set(_behind(found, line)["evidence"]) - set(verdict["evidence"])
    since = datetime.fromisoformat(verdict["as_of"])
    late = found.evidence.filter(pl.col("event_id").is_in(list(unseen)), pl.col("time") >= since)
    return late.height == 0


def precision(score: float, said: dict[str, dict[str, Any]], tested: Sequence[dict[str, float]]) -> Precision | None:
    """How often alerts of the same band of scores were right: by verdicts where enough are there, else by the test."""
    low = max(b for b in BANDS if b <= max(score, 0.0))
    high = min((b for b in BANDS if b > low), default=float("inf"))
    judged = [v["verdict"] for v in said.values() if low <= v["score"] < high and not v["audit"]]
    if len(judged) >= LEAST_VERDICTS:
        return _share(judged.count("confirmed"), len(judged), f"{len(judged)} verdicts on alerts of this band")
    band = next((b for b in tested if b["from"] == low), None)
    if band is None or band["accounts"] < LEAST_TESTED:
        return None
    by = f"planted attacks among {band['accounts']:.0f} accounts of the model's test; no forecast of real ones"
    return _share(int(band["planted"]), int(band["accounts"]), by)


def _share(right: int, of: int, by: str) -> Precision:
    """With the interval of Jeffreys (Brown, Cai & DasGupta 2001)."""
    low, high = betaincinv(right + 0.5, of - right + 0.5, [0.025, 0.975])
    return Precision(right / of, float(low) if right else 0.0, float(high) if right < of else 1.0, by)


def verdicts(folder: Path) -> dict[str, dict[str, Any]]:
    """Alert's id -> what a person said of it."""
    path = folder / "anomaly" / "verdicts.json"
    found: dict[str, dict[str, Any]] = read_json(path) if path.exists() else {}
    return found


def judge(found: Look, folder: Path, name: str, verdict: Verdict, at: datetime) -> dict[str, Any]:
    """Keep what a person says of an alert; the last word counts.

    Raises SettingError for an id that is no alert of this window and was never judged.
    """
    said = verdicts(folder)
    line = next((one for lines in _lines(found) for one in lines if one.id == name), None)
    if line is not None:
        score, evidence = 0.0 - np.log10(line.p_value).item(), _behind(found, line)["evidence"]
        kept = {"kind": line.kind, "users": line.users, "score": score, "evidence": evidence}
        kept["as_of"] = found.window[1]
    elif name in said:
        kept = {key: said[name][key] for key in ("kind", "users", "score", "evidence", "as_of")}
    else:
        raise SettingError(f"There is no alert {name!r}: take an id from `desireline alerts {folder}`.")
    said[name] = {"verdict": verdict, "at": at.isoformat(), "audit": name in _audited(folder), **kept}
    keep_labels(folder, found, name, kept["users"], verdict == "confirmed")
    write_json(folder / "anomaly" / "verdicts.json", said)
    return {"id": name, **said[name]}


def remember_audit(folder: Path, found: Queue) -> None:
    """Keep which alerts were shown by chance alone: what is found of these is no word on the queue's own choice."""
    before = _audited(folder)
    own = {alert.id for alert in found.alerts if not alert.audit}
    drawn = (before - own) | {alert.id for alert in found.alerts if alert.audit}
    if drawn != before:
        write_json(folder / "anomaly" / "audited.json", sorted(drawn))


def _audited(folder: Path) -> set[str]:
    path = folder / "anomaly" / "audited.json"
    return set(read_json(path)) if path.exists() else set()


def bands_of(results: Sequence[Result], name: str) -> list[dict[str, float]]:
    """The bands of a row's test, from a workspace's kept results: of several the one with the latest cut."""
    tests = [(result.cut, row) for result in results if result.task == "anomaly" for row in result.rows]
    told = [(at, row.plots["bands"]) for at, row in tests if row.name == name and row.plots.get("bands")]
    found: list[dict[str, float]] = max(told, key=lambda one: one[0])[1] if told else []
    return found
