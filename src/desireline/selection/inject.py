"""A second workspace: the log of the first with planted attacks in it, and the truth beside it.

DIR/desireline.yaml        as it was
DIR/log/                   all events, real and planted, in one order by content: nothing in it tells which is which
DIR/truth/planted.parquet  one row a planted account: user, family, group, kind, first, last, events, acts
DIR/truth/events.parquet   one row a planted event: event_id, user, family, act (malicious, or camouflage)
DIR/truth/plan.json        what was asked and what came of it

Cost: the log is read twice, once whole for planting, once bucket by bucket for copying.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl

from desireline.core.errors import DataError, SettingError, StoreError
from desireline.core.files import new_folder, write_json
from desireline.core.progress import progress
from desireline.events.clean import fit_limits
from desireline.events.frame import BUCKETS
from desireline.events.store import FILE_ROWS, EventStore
from desireline.schema.model import Schema
from desireline.sequences.prepared import iso
from desireline.tasks.anomaly.attacks import FAMILIES, Planted, check_names, missing, planted
from desireline.tasks.anomaly.replay import material

MOST = 0.5  # share of the active accounts that a family may plant


@dataclass(frozen=True)
class Injected:
    """What was planted where.

    out : the new workspace;  accounts, events : planted, over all families
    families : name -> accounts, events, kind (None: the control)
    not_applicable : families that were asked for and cannot be planted into this log -> why
    """

    out: Path
    accounts: int
    events: int
    families: dict[str, dict[str, Any]]
    not_applicable: dict[str, str]

    def to_json(self) -> dict[str, Any]:
        """As the command prints it."""
        return {
            "out": str(self.out),
            "accounts": self.accounts,
            "events": self.events,
            "families": self.families,
            "not_applicable": self.not_applicable,
        }


def inject(
    folder: Path,
    schema: Schema,
    out: Path,
    families: Sequence[str] | None = None,
    intensity: str = "middle",
    share: float = 0.01,
    seed: int = 0,
    begin: datetime | None = None,
    end: datetime | None = None,
) -> Injected:
    """Plant attacks into a copy of a workspace's log; `out` is made whole or not at all.

    See `Workspace.inject` for the parameters and what it raises.
    """
    check_names(families or [], intensity)
    if not 0 < share <= MOST:
        raise SettingError(f"--share {share:g}: give a share above 0 and up to {MOST:g}.")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise StoreError(f"{out} holds something already: name a folder that is empty or not there yet.")
    store = EventStore(folder, schema)
    limits = fit_limits(store.scan(), schema.clean)
    if not limits.clock:
        raise DataError("The log has positions and no times: nothing can be planted at a moment.")
    begin = begin or store.default_cut()
    end = end or store.observed_end() + timedelta(microseconds=limits.resolution_us)
    if begin >= end:
        raise SettingError(f"The window begins {iso(begin)} and ends {iso(end)}: let --begin stand before --end.")
    events = store.read_bucket(0, BUCKETS, before=end)
    of = material(events, schema, begin, end, limits.resolution_us)
    asked = list(dict.fromkeys(families or FAMILIES))
    refused = {name: why for name, why in missing(of).items() if name in asked}
    able = [name for name in asked if name not in refused]
    if not able:
        raise DataError("; ".join(f"{name} cannot be planted: {why}" for name, why in refused.items()) + ".")
    accounts = max(1, round(share * len(of.active()[0])))
    found = planted(of, schema, able, intensity, accounts, seed)
    told = _told(found, out, able, refused)
    with new_folder(out) as temporary:
        shutil.copyfile(folder / "desireline.yaml", temporary / "desireline.yaml")
        _write_log(store, EventStore(temporary, schema), found.events)
        _write_truth(temporary / "truth", found)
        plan = {
            "seed": seed,
            "families": able,
            "intensity": intensity,
            "share": share,
            "window": {"begin": iso(begin), "end": iso(end)},
            "counts": {"accounts": told.accounts, "events": told.events, "families": told.families},
            "not_applicable": refused,
        }
        write_json(temporary / "truth" / "plan.json", plan)
    return told


def _told(found: Planted, out: Path, families: Sequence[str], refused: dict[str, str]) -> Injected:
    counts = found.truth.group_by("family").agg(pl.len(), pl.col("events").sum())
    by_family = {name: (accounts, events) for name, accounts, events in counts.iter_rows()}
    rows = {
        name: {"accounts": by_family[name][0], "events": by_family[name][1], "kind": FAMILIES[name].kind}
        for name in families
    }
    return Injected(out, found.truth.height, found.events.height, rows, refused)


def _write_log(store: EventStore, into: EventStore, events: pl.DataFrame) -> None:
    """Real and planted events, some buckets at a time, ordered by their ids: a row's place tells nothing."""
    total = store.count()
    width = max(1, min(BUCKETS, BUCKETS * FILE_ROWS // max(1, total)))
    with progress("writing the log", total) as advance:
        for low in range(0, BUCKETS, width):
            real = store.scan(buckets=(low, low + width)).collect(engine="streaming")
            new = events.filter(pl.col("bucket") >= low, pl.col("bucket") < low + width)
            into.append(pl.concat([real, new.select(real.columns)]).sort("event_id"))
            advance(real.height)


def _write_truth(folder: Path, found: Planted) -> None:
    folder.mkdir()
    found.truth.write_parquet(folder / "planted.parquet")
    families = found.truth.select("user", "family")
    events = found.events.select("event_id", "user").join(families, on="user", how="left", maintain_order="left")
    events = events.with_columns(act=pl.col("event_id").is_in(found.acts.implode()))
    events.select("event_id", "user", "family", "act").write_parquet(folder / "events.parquet")
