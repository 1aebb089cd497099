"""The queue: what is most suspicious, as much as people can look at, with a card each; and what they said of it.

Members of a group are one alert, so that a ring costs one look. A share of the queue is drawn at random among all other
accounts of the window: what is found false among those is the only unbiased word on what the rest of the queue misses.
Verdicts are kept beside the log, by the alert's own id, which follows from its kind and its users. A dismissed alert
comes back only when the account has done something new since.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
from scipy.stats import beta

from desireline.core.errors import SettingError
from desireline.core.files import read_json, write_json
from desireline.selection.suspects import Look, keep_labels
from desireline.tasks.anomaly.cards import Nearest
from desireline.tasks.anomaly.suspicion import false_discoveries

Verdict = Literal["confirmed", "dismissed"]

LEAST_VERDICTS = 5  # in a band of scores, before its precision is told by them
BANDS = (0.0, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0)  # lower ends, in −log10 p


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

    score : −log10 of `p_value`;  fdr : least false-discovery rate at which it would be let into the queue
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
    """What `alerts` answers. dismissed, confirmed : how many alerts of the window a person has judged so far"""

    as_of: str
    window: list[str]
    capacity: int
    accounts: int
    confirmed: int
    dismissed: int
    alerts: list[Alert]


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

    audit : share of them drawn at random;  fdr, p_value : let in only what is under both
    tested : bands of scores with the accounts and the planted ones of the model's own test
    """
    said = verdicts(folder)
    ranked = _ranked(found)
    rates = false_discoveries(np.array([alert["p_value"] for alert in ranked])) if ranked else np.zeros(0)
    random = min(int(np.ceil(audit * capacity)), capacity) if audit else 0
    chosen: list[Alert] = []
    for alert, rate in zip(ranked, rates.tolist(), strict=True):
        if len(chosen) == capacity - random:
            break
        if _is_done(alert, said) or (fdr is not None and rate > fdr):
            continue
        if p_value is None or alert["p_value"] <= p_value:
            chosen.append(_card(alert, rate, found.window, precision(alert["score"], said, tested), False))
    shown = {user for alert in chosen for user in alert.users}
    rest = [a for a in ranked if len(a["users"]) == 1 and a["users"][0] not in shown and a["id"] not in said]
    generator = np.random.default_rng([seed, int(hashlib.sha256(as_of.encode()).hexdigest()[:8], 16)])
    for at in generator.permutation(len(rest))[:random].tolist():
        chosen.append(_card(rest[at], 1.0, found.window, None, True))
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


def _ranked(found: Look) -> list[dict[str, Any]]:
    """Every group and every account outside of them as an alert, the least probable first."""
    kind_of = dict(found.accounts.select("user", "kind").iter_rows())
    alerts, grouped = [], set()
    for group in found.groups:
        grouped |= {user for user in group["users"] if kind_of.get(user) == "ring"}
        alerts.append(
            {
                "kind": "ring",
                "users": group["users"],
                "score": -np.log10(max(group["p_value"], 1e-300)).item(),
                "p_value": group["p_value"],
                "reasons": group["reasons"],
                "evidence": group["event_ids"],
                "clears": ["one household, firm or school behind the accounts, or one offer that all were sent"],
                "nearest": None,
            }
        )
    for user, score, p, kind in found.accounts.select("user", "score", "p_value", "kind").iter_rows():
        if user in grouped:
            continue
        told = next((k for k in found.told.get(user, []) if k["kind"] == kind), None)
        alerts.append(
            {
                "kind": kind,
                "users": [user],
                "score": score,
                "p_value": p,
                "reasons": told["reasons"] if told else [],
                "evidence": told["evidence"] if told else [],
                "clears": told["clears"] if told else [],
                "nearest": found.nearest.get(user),
            }
        )
    for alert in alerts:
        alert["id"] = alert_id(alert["kind"], alert["users"])
    return sorted(alerts, key=lambda a: (a["p_value"], a["id"]))


def alert_id(kind: str, users: Sequence[str]) -> str:
    """Ten hex digits that follow from what is suspected of whom."""
    return hashlib.sha256(json.dumps([kind, sorted(users)]).encode()).hexdigest()[:10]


def _card(alert: dict[str, Any], rate: float, window: list[str], known: Precision | None, audit: bool) -> Alert:
    near = Nearest(**alert["nearest"]) if alert["nearest"] else None
    reasons = alert["reasons"]
    if audit:
        reasons = ["drawn at random, so that what the queue misses can be estimated", *reasons]
    elif not reasons:
        reasons = ["no single measure stands out; the sum of many does"]
    return Alert(
        alert["id"],
        alert["kind"],
        alert["users"],
        alert["score"],
        alert["p_value"],
        reasons,
        alert["evidence"],
        alert["clears"],
        near,
        known,
        rate,
        window,
        audit,
    )


def _is_done(alert: dict[str, Any], said: dict[str, dict[str, Any]]) -> bool:
    """Whether a person has judged the alert, and nothing new stands behind it."""
    verdict = said.get(alert["id"])
    return verdict is not None and set(alert["evidence"]) <= set(verdict["evidence"])


def precision(score: float, said: dict[str, dict[str, Any]], tested: Sequence[dict[str, float]]) -> Precision | None:
    """How often alerts of the same band of scores were right: by verdicts where enough are there, else by the test."""
    low = max(b for b in BANDS if b <= max(score, 0.0))
    high = min((b for b in BANDS if b > low), default=float("inf"))
    judged = [v["verdict"] for v in said.values() if low <= v["score"] < high and not v["audit"]]
    if len(judged) >= LEAST_VERDICTS:
        return _share(judged.count("confirmed"), len(judged), f"{len(judged)} verdicts on alerts of this band")
    band = next((b for b in tested if b["from"] == low), None)
    if band is None or not band["accounts"]:
        return None
    what = f"attacks planted among the log's accounts for the model's test: {band['planted']:.0f} of the "
    return _share(int(band["planted"]), int(band["accounts"]), f"{what}{band['accounts']:.0f} in this band")


def _share(right: int, of: int, by: str) -> Precision:
    """With the interval of Jeffreys (Brown, Cai & DasGupta 2001)."""
    low, high = beta.ppf([0.025, 0.975], right + 0.5, of - right + 0.5)
    return Precision(right / of, float(low) if right else 0.0, float(high) if right < of else 1.0, by)


def verdicts(folder: Path) -> dict[str, dict[str, Any]]:
    """Alert's id -> what a person said of it."""
    path = folder / "anomaly" / "verdicts.json"
    found: dict[str, dict[str, Any]] = read_json(path) if path.exists() else {}
    return found


def judge(found: Look, folder: Path, name: str, verdict: Verdict, at: datetime) -> dict[str, Any]:
    """Keep what a person says of an alert. Raises SettingError for an id that is no alert of this window."""
    alert = next((a for a in _ranked(found) if a["id"] == name), None)
    said = verdicts(folder)
    if alert is None and name not in said:
        raise SettingError(f"There is no alert {name!r}: take an id from `desireline alerts {folder}`.")
    kept = {key: (alert or said[name])[key] for key in ("kind", "users", "score", "evidence")}
    audit = name in _audited(folder)
    said[name] = {"verdict": verdict, "at": at.isoformat(), "audit": audit, **kept}
    keep_labels(folder, found, name, said[name]["users"], verdict == "confirmed")
    write_json(folder / "anomaly" / "verdicts.json", said)
    return {"id": name, **said[name]}


def remember_audit(folder: Path, found: Queue) -> None:
    """Keep which alerts were shown for their own sake and which by chance, until they are judged."""
    drawn = sorted({alert.id for alert in found.alerts if alert.audit} | _audited(folder))
    write_json(folder / "anomaly" / "audited.json", drawn)


def _audited(folder: Path) -> set[str]:
    path = folder / "anomaly" / "audited.json"
    return set(read_json(path)) if path.exists() else set()


def bands_of(results: Sequence[Any], name: str) -> list[dict[str, float]]:
    """The bands of the newest test of a row of the task, from a workspace's kept results."""
    for result in reversed(list(results)):
        if result.task == "anomaly":
            for row in result.rows:
                if row.name == name and row.plots.get("bands"):
                    found: list[dict[str, float]] = row.plots["bands"]
                    return found
    return []


def as_rows(found: Queue) -> pl.DataFrame:
    """The queue as a frame, one row an alert."""
    return pl.DataFrame([asdict(alert) for alert in found.alerts], infer_schema_length=None)
