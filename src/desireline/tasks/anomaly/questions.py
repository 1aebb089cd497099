"""Who is judged as of a moment; and, for a test, attacks planted among them.

A log says of nobody that they are false. So a stage's questions are asked of a copy of the log with attacks planted in
its window (`attacks.py`), built from replayed trajectories of its own accounts, and a control that must not be found.
The validation plants some families, the test all of them: what is chosen on the validation meets strangers there.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
from numpy.typing import NDArray

from desireline.core.errors import DataError
from desireline.events.clean import Limits
from desireline.events.cut import cut
from desireline.events.frame import BUCKETS, ORDER, content_hash
from desireline.events.histories import behaviour
from desireline.events.store import EventStore
from desireline.schema.model import Schema
from desireline.sequences.encode import encode_cleaned
from desireline.sequences.prepared import Prepared, iso, to_us
from desireline.sequences.ragged import Sequences
from desireline.tasks.anomaly.actions import actions_of
from desireline.tasks.anomaly.attacks import FAMILIES, applicable, plant
from desireline.tasks.anomaly.scan import Scan, scan
from desireline.tasks.anomaly.surprise import Surprises, surprise
from desireline.tasks.answers import asked_now
from desireline.tasks.questions import Questions
from desireline.tasks.stages import Stage
from desireline.training.network import Network

TUNED = ("brushing", "ring", "ratings", "script")  # families of the validation; the test plants these and all others
SHARE = 0.02  # of the accounts judged, that are planted for a test
MOST_ACCOUNTS = 20_000  # of a log, that a test is made with
NOT_PLANTED, PLACEBO = "real", "placebo"


@dataclass(frozen=True)
class AnomalyQuestions(Questions):
    """Is the account false? One question an account of the scan, in its order.

    scan : what was found without a network;  from_us : the window's first moment;  step_us : of the log's clock
    family : String Series [Q], the planted family, PLACEBO, or NOT_PLANTED; only a test's measures may read it
    event_ids : int64 [N], the ids in the log of the timeline's events
    """

    scan: Scan
    from_us: int
    step_us: int
    family: pl.Series
    event_ids: NDArray[np.int64]

    @property
    def truth(self) -> NDArray[np.float64]:
        """float64 [Q]: 1 for a planted attacker, 0 for everybody else, the control included."""
        return (~self.family.is_in([NOT_PLANTED, PLACEBO])).to_numpy().astype(np.float64)


def anomaly_questions(stage: Stage, schema: Schema) -> AnomalyQuestions:
    """A stage's questions: the accounts of its window, with attacks planted among them.

    Raises DataError when the window holds too few accounts to plant among.
    """
    prepared, limits = stage.prepared, Limits.from_json(stage.prepared.counts["limits"])
    begin, end = prepared.cut, datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=stage.until_us)
    events = sampled(possible(read_before(prepared, end), limits))
    judged = events.filter(pl.col("time") >= begin)["user"].n_unique()
    if judged == 0:
        raise DataError(f"Between {iso(begin)} and {iso(end)} no account has an event: name an earlier --cut.")
    refused = applicable(schema, events, begin, end, limits.resolution_us)
    wanted = FAMILIES if stage.name == "test" else TUNED
    families = [name for name in wanted if name not in refused and name != PLACEBO]
    seed = int(hashlib.sha256(prepared.folder.name.encode()).hexdigest()[:8], 16)
    planted = plant(
        events,
        schema,
        begin,
        end,
        families=[*families, PLACEBO],
        intensity="middle",
        accounts=max(1, round(SHARE * judged)),
        seed=seed,
        step_us=limits.resolution_us,
    )
    both = pl.concat([events, planted.events.select(events.columns)]).sort("bucket", *ORDER)
    found = asked(both, prepared, schema, begin, end)
    family = dict(planted.truth.select("user", "family").iter_rows())
    named = pl.Series("family", [family.get(user, NOT_PLANTED) for user in found.scan.users], dtype=pl.String)
    return replace(found, family=named)


def asked(events: pl.DataFrame, prepared: Prepared, schema: Schema, begin: datetime, end: datetime) -> AnomalyQuestions:
    """One question an account with an event in [begin, end), from an event frame of whole users; nothing is planted."""
    limits = Limits.from_json(prepared.counts["limits"])
    kept = possible(behaviour(cut(events, end)[0], schema), limits)
    found = scan(actions_of(kept, schema, limits, begin, end))
    timeline = encode_cleaned(kept, prepared)
    now = asked_now(timeline, to_us(end))
    place_of = pl.DataFrame({"user": timeline.users.gather(now.user), "row": now.user, "place": now.place})
    rows = found.users.to_frame("user").join(place_of, on="user", how="left", maintain_order="left")
    moments = np.full(len(found), to_us(end), np.int64)
    nobody = pl.Series("family", [NOT_PLANTED] * len(found), dtype=pl.String)
    ids = kept["event_id"].to_numpy()
    user, place = rows["row"].to_numpy(), rows["place"].to_numpy()
    return AnomalyQuestions(timeline, user, place, moments, found, to_us(begin), limits.resolution_us, nobody, ids)


def surprises(network: Network, questions: AnomalyQuestions, timeline: Sequences) -> Surprises:
    """What a network thinks of the window's events of a timeline, the questions' or that of some of its users.

    As long a stretch before the window is scored beside it: an account is held against itself, too.
    """
    end = int(questions.as_of.max(initial=questions.from_us))
    return surprise(
        network,
        timeline,
        questions.from_us - (end - questions.from_us),
        0,
        network.temperature,
        begin_us=questions.from_us,
        until_us=end,
        step_us=questions.step_us,
    )


def read_before(prepared: Prepared, end: datetime) -> pl.DataFrame:
    """Every event before a moment, as an event frame in the order of the store."""
    store = EventStore(prepared.workspace, prepared.schema)
    return behaviour(cut(store.read_bucket(0, BUCKETS, before=end), end)[0], prepared.schema)


def possible(events: pl.DataFrame, limits: Limits) -> pl.DataFrame:
    """The events whose times can be; nothing else is cleaned away."""
    return events if limits.low is None else events.filter(pl.col("time") >= limits.low)


def sampled(events: pl.DataFrame) -> pl.DataFrame:
    """At most MOST_ACCOUNTS users' events: of those whose ids hash lowest, the same at every run."""
    users = events["user"].unique(maintain_order=True).to_frame()
    if users.height <= MOST_ACCOUNTS:
        return events
    kept = users.sort(content_hash(pl.col("user"))).head(MOST_ACCOUNTS)
    return events.join(kept, on="user", how="semi", maintain_order="left")
