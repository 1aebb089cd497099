"""Attacks to plant into a real log, so that what a scan finds can be counted where nobody has labels.

Every planted account replays a real one (see `replay`), and its malicious acts take the place of other events of that
history as long as a share of it is left: neither the number of events nor that of items gives it away. The control is
`placebo`, replay without malice: a good detector must not tell it from the real accounts.

The families follow the attacks that are described for shops: brushing with a bare and with a copied path, tight rings
(CopyCatch, Beutel et al. 2013) and slow ones, clicks that ride a hot item's coattails (ICDE 2021), bursts of
reviews by template and paraphrase, and accounts that change hands.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import polars as pl

from desireline.core.errors import DataError, SettingError
from desireline.events.frame import TIME, empty
from desireline.schema.model import Schema
from desireline.tasks.anomaly import acts
from desireline.tasks.anomaly.acts import Acts, Intensity
from desireline.tasks.anomaly.disguise import disguised, unused_names
from desireline.tasks.anomaly.replay import DRAFT, Integers, Material, draw_sources, material, replay
from desireline.tasks.anomaly.scene import NEEDS

TRUTH: dict[str, pl.DataType | type[pl.DataType]] = {
    "user": pl.String,
    "family": pl.String,
    "group": pl.String,  # of accounts that act together; null: it acts alone
    "kind": pl.String,  # key of fact.KINDS; null: placebo
    "first": TIME,  # of its malicious acts; a placebo's: of its events in the window
    "last": TIME,
    "events": pl.Int64,  # planted ones
    "acts": pl.Int64,  # malicious ones among them
}

# One number a knob; what each means stands in `acts.Intensity`.
INTENSITIES: dict[str, Intensity] = {
    "low": Intensity(
        orders=2, campaign=6, ring=6, targets=2, together_min=20, clicks=3, reviews=1, burst_h=72, stolen=1, taken=5,
        ticks=10, wobble=0.15, camouflage=0.8, spread=1.0,
    ),
    "middle": Intensity(
        orders=3, campaign=12, ring=12, targets=3, together_min=10, clicks=5, reviews=2, burst_h=24, stolen=2, taken=10,
        ticks=12, wobble=0.05, camouflage=0.5, spread=0.6,
    ),
    "high": Intensity(
        orders=10, campaign=25, ring=25, targets=5, together_min=3, clicks=12, reviews=3, burst_h=4, stolen=5, taken=25,
        ticks=60, wobble=0.0, camouflage=0.2, spread=0.3,
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Family:
    """One kind of attack.

    words : what it is;  kind : its own, a key of fact.KINDS, None for the control
    also : other kinds that are right for its accounts
    needs : what the log must have, keys of `scene.NEEDS`;  do : its acts, given the replayed histories
    size  : the knob with the number of accounts in a group that is whole only with all of them; None: any number
    takes : whether its accounts are real ones that somebody else goes on with
    """

    words: str
    kind: str | None
    needs: tuple[str, ...]
    do: Callable[[Material, pl.DataFrame, int, Intensity, np.random.Generator], Acts]
    size: str | None = None
    takes: bool = False
    also: tuple[str, ...] = ()

    @property
    def kinds(self) -> tuple[str, ...]:
        """What its accounts are rightly suspected of, its own kind first; none of the control's."""
        return () if self.kind is None else (self.kind, *self.also)


# Which kinds are right. A campaign of fake orders has several accounts order the same two targets, so they act together
# as well; a ring that orders the same few targets places orders that nobody needs and lifts those: of both families
# either kind is true, and an alert is right under either. Coattails are clicks, so nothing is ordered. Those who write
# false reviews are to be caught by that name, though campaigns of them act together too. Somebody in another's account
# and a script are alone.
FAMILIES: dict[str, Family] = {
    "brushing": Family("fake orders without browsing", "brushing", ("orders",), acts.brushing, also=("ring",)),
    "brushing-browse": Family(
        "fake orders, each after a copied browse path",
        "brushing",
        ("orders", "browsing", "paths"),
        acts.browsed,
        also=("ring",),
    ),
    "ring": Family(
        "the same few targets within minutes of each other", "ring", ("orders",), acts.ring, "ring", also=("brushing",)
    ),
    "drip": Family(
        "the same few targets over the window, never together",
        "ring",
        ("orders",),
        acts.drip,
        "ring",
        also=("brushing",),
    ),
    "coattails": Family("a hot item and a cold target by turns", "ring", ("browsing", "items"), acts.coattails, "ring"),
    "ratings": Family("a burst of extreme ratings by template", "review", ("reviews",), acts.ratings),
    "paraphrase": Family("a burst of ratings in mixed words", "review", ("reviews", "texts"), acts.paraphrase),
    "takeover": Family(
        "an old account in other hands", "takeover", ("orders", "veterans"), acts.takeover, takes=True
    ),
    "script": Family("a timer that walks over items", "bot", ("items", "clock"), acts.script),
    "placebo": Family("replay without malice, the control", None, (), acts.nothing),
}  # fmt: skip


@dataclass(frozen=True)
class Planted:
    """What was planted.

    events : event frame of the planted events alone;  acts : Int64 Series, event_ids of the malicious ones
    truth  : TRUTH, one row a planted account
    """

    events: pl.DataFrame
    acts: pl.Series
    truth: pl.DataFrame


def applicable(schema: Schema, events: pl.DataFrame, begin: datetime, end: datetime, step_us: int) -> dict[str, str]:
    """The families that cannot be planted here -> why. Parameters, and what it raises: as `plant`."""
    return missing(material(events, schema, begin, end, step_us))


def missing(of: Material) -> dict[str, str]:
    """The families that cannot be planted into a log -> why."""
    why = {name: reason for name, test in NEEDS.items() if (reason := test(of)) is not None}
    lacks = {name: [why[need] for need in family.needs if need in why] for name, family in FAMILIES.items()}
    return {name: reasons[0] for name, reasons in lacks.items() if reasons}


def plant(
    events: pl.DataFrame,
    schema: Schema,
    begin: datetime,
    end: datetime,
    *,
    families: Sequence[str],
    intensity: str,
    accounts: int,
    seed: int,
    step_us: int,
) -> Planted:
    """Attacks for a log, as events of accounts that are not in it (or, taken over, are).

    Parameters
    ----------
    events
        Event frame of the real log, the columns of `events.frame`. Of what lies at `end` or after it only the ids are
        looked at: they are taken.
    begin, end
        The window that is judged: every malicious act lies in it, camouflage before it as well.
    families
        Names in FAMILIES.
    intensity
        A name in INTENSITIES.
    accounts
        Of each family. A ring comes whole: the number is rounded to rings, one at least.
    step_us
        The step of the log's clock in microseconds.

    Raises
    ------
    SettingError
        An unknown family or intensity, or fewer than one account.
    DataError
        A family that the log does not allow, or a log that allows none: no users or times, an empty window, too few
        accounts or items.
    """
    check_names(families, intensity)
    if accounts < 1:
        raise SettingError(f"{accounts} accounts of each family: plant at least one.")
    return planted(material(events, schema, begin, end, step_us), schema, families, intensity, accounts, seed)


def planted(of: Material, schema: Schema, families: Sequence[str], intensity: str, accounts: int, seed: int) -> Planted:
    """As `plant`, for a log that is read already."""
    refused = missing(of)
    for name in families:
        if name in refused:
            raise DataError(f"The family {name} cannot be planted into this log: {refused[name]}.")
    drafts, truths, sources, taken, offset = [], [], [], [], 0
    for name in dict.fromkeys(families):
        generator = np.random.default_rng([seed, zlib.crc32(name.encode())])
        draft, found, groups = _drafted(of, FAMILIES[name], INTENSITIES[intensity], accounts, generator)
        family = FAMILIES[name]
        drafts.append(draft.with_columns(pl.col("account") + offset))
        truths.append(
            pl.DataFrame(
                {
                    "account": np.arange(offset, offset + len(found)),
                    "family": [name] * len(found),
                    "group": [None if g < 0 else f"{name}-{g + 1}" for g in groups.tolist()],
                    "kind": [family.kind] * len(found),
                },
                schema={"account": pl.Int64, "family": pl.String, "group": pl.String, "kind": pl.String},
            )
        )
        sources.append(found)
        taken += [family.takes] * len(found)
        offset += len(found)
    if not drafts:
        return Planted(empty(schema), pl.Series("event_id", [], pl.Int64), pl.DataFrame(schema=TRUTH))
    generator, all_sources = np.random.default_rng([seed, zlib.crc32(b"names")]), np.concatenate(sources)
    held = {name for column in {"user", "alias"} & set(of.known.columns) for name in of.known[column].drop_nulls()}
    new = iter(unused_names(of.users, held, offset - sum(taken), generator))
    names = [of.users[int(s)] if old else next(new) for s, old in zip(all_sources, taken, strict=True)]
    frame = disguised(of, pl.concat(drafts), names, all_sources, schema, generator)
    inside = pl.col("time") >= pl.lit(of.begin).cast(TIME)
    spoken = pl.col("time").filter(pl.col("act") | (~pl.col("act").any() & inside))
    told = frame.group_by("account", "user").agg(
        first=spoken.min(), last=spoken.max(), events=pl.len().cast(pl.Int64), acts=pl.col("act").sum().cast(pl.Int64)
    )
    truth = pl.concat(truths).join(told, on="account", how="inner", maintain_order="left").select(list(TRUTH))
    return Planted(frame.drop("account", "act"), frame.filter("act")["event_id"], truth)


def check_names(families: Sequence[str], intensity: str) -> None:
    """Raises SettingError for a family or an intensity that is none."""
    for name in families:
        if name not in FAMILIES:
            raise SettingError(f"{name!r} is no family of attacks; known are {', '.join(FAMILIES)}.")
    if intensity not in INTENSITIES:
        raise SettingError(f"{intensity!r} is no intensity; write {', '.join(INTENSITIES)}.")


def _drafted(
    of: Material, family: Family, level: Intensity, accounts: int, generator: np.random.Generator
) -> tuple[pl.DataFrame, Integers, Integers]:
    """The draft of one family, the real user behind each account, and its group, -1 for none."""
    if family.size is not None:
        size = getattr(level, family.size)
        accounts = size * max(1, round(accounts / size))
    if accounts > len(of.active()[0]):
        raise DataError(
            f"{accounts} accounts are to be planted, and {len(of.active()[0])} are active in the window: plant fewer, "
            "or name a longer window."
        )
    sources = draw_sources(of, accounts, generator)
    history = pl.DataFrame(schema=DRAFT) if family.takes else replay(of, sources, generator)
    done = family.do(of, history, accounts, level, generator)
    if done.victims is not None:
        sources = done.victims
    history = _thinned(of, history, done.draft, level.camouflage, generator)
    return pl.concat([history, done.draft]), sources, done.groups


def _thinned(
    of: Material, history: pl.DataFrame, done: pl.DataFrame, camouflage: float, generator: np.random.Generator
) -> pl.DataFrame:
    """Histories without as many events of the window as the acts bring, a share of them left in any case."""
    brought = done.group_by("account").agg(brought=pl.len())
    inside = history.with_columns(
        inside=pl.col("time") >= of.begin, drawn=pl.Series(generator.random(history.height))
    ).join(brought, on="account", how="left", maintain_order="left")
    rank = pl.when("inside").then("drawn").rank("ordinal").over("account")
    spared = (pl.col("inside").sum().over("account") * (1 - camouflage)).floor()
    gone = (rank <= pl.min_horizontal(spared, pl.col("brought").fill_null(0))).fill_null(False)
    return inside.filter(~gone).select(list(DRAFT))
