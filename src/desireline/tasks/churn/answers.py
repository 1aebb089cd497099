"""The answer of the task `churn` for one user, with its reasons in words and the events behind them.

The numbers of a snapshot fall into a few groups, each of which is one sentence. With trees the groups that move this
user's risk most are told first (Shapley values, summed over the group); other models give no such shares, and the
sentences stand in the order of `GROUPS`. What a network's state adds has no name: it is told as one share beside the
reasons, and never as a reason.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any

import numpy as np
import polars as pl
from rich.table import Table

from desireline.core.files import read_json, write_json
from desireline.events.frame import TIME
from desireline.events.roles import Roles
from desireline.features.definitions import definitions
from desireline.schema.model import Schema
from desireline.sequences.prepared import Prepared, iso
from desireline.tasks.churn.definition import DAY_US, Definition
from desireline.tasks.churn.models import SEQUENCE
from desireline.tasks.churn.questions import ChurnQuestions
from desireline.tasks.churn.snapshots import OWN, YEAR, is_asked, kept_path, present_rows

SHOWN = 4  # reasons of an answer
EVIDENCE = 10  # events behind a reason, the newest
NEW_HORIZONS = 1.0  # whose first purchase lies within so many horizons is new
GROUPS: dict[str, tuple[str, ...]] = {  # a number belongs to the first group one of whose beginnings it has
    "season": ("returns_year_ago",),
    "recency": ("days_since_return", "days_since_last", "days_since_positive", "days_since_target", "overdue"),
    "tenure": ("days_since_first",),
    "cancels": ("money_negative", "cancel_ratio"),
    "value": ("money", "value"),
    "breadth": ("distinct", "entropy", "repeat_ratio"),
    "rhythm": ("hour", "weekday"),
    "visits": ("sessions", "session", "dwell", "share_of"),
    "frequency": ("",),  # the rest: counts of events, days and gaps
}


@dataclass(frozen=True)
class Reason:
    """One fact about the user. `share` : what it adds to the log odds of leaving; None where the model tells none."""

    text: str
    share: float | None
    events: list[int]


@dataclass(frozen=True)
class ChurnAnswer:
    """Whether a user will be gone: no event of the kind within `horizon_s` seconds of `as_of`, the gap included.

    segment : tenure and value, or why the user is not among those asked about
    evidence : the ids of the events behind each reason;  level : how sure the season's level is, in words
    unnamed : which part of the score no fact stands for, in words; None where facts stand for all of it
    """

    user: str
    as_of: str
    horizon_s: float
    probability: float
    segment: str
    reasons: list[str]
    evidence: list[list[int]]
    level: str
    unnamed: str | None


def value_edges_at(prepared: Prepared, of: Definition) -> tuple[float, float]:
    """`value_edges` of the users asked about at a prepared log's cut, read again where they were found before."""
    path = kept_path(prepared, "edges", of).with_suffix(".json")
    if not path.exists():
        write_json(path, value_edges(present_rows(prepared, of).filter(is_asked(of))))
    low, high = read_json(path)
    return float(low), float(high)


def value_edges(rows: pl.DataFrame) -> tuple[float, float]:
    """What parts low, middle and high value among the users of past rows: thirds of the value of 365 days."""
    values = rows["value_365d"].drop_nulls()
    if len(values) == 0:
        return 0.0, 0.0
    return float(values.quantile(1 / 3) or 0.0), float(values.quantile(2 / 3) or 0.0)


def segments(rows: pl.DataFrame, of: Definition, edges: tuple[float, float]) -> list[str]:
    """The segment of each row of a snapshot."""
    tenure = (
        pl.when(pl.col("days_since_first_return") * DAY_US < NEW_HORIZONS * of.horizon_us)
        .then(pl.lit("new"))
        .otherwise(pl.lit("established"))
    )
    value = pl.col("value_365d").fill_null(0.0)
    level = (
        pl.when(value > edges[1])
        .then(pl.lit("high"))
        .when(value > edges[0])
        .then(pl.lit("middle"))
        .otherwise(pl.lit("low"))
    )
    named = pl.concat_str(tenure, pl.lit(", "), level, pl.lit(" value")) if edges[1] > 0 else tenure
    never = pl.lit("prospect") if of.by == "purchase" else pl.lit("new")
    told = pl.when(pl.col("returns") == 0).then(never).when(~is_asked(of)).then(pl.lit("lapsed")).otherwise(named)
    return rows.select(told.alias("segment"))["segment"].to_list()


def churn_answer(
    questions: ChurnQuestions, row: int, log_odds: float, segment: str, why: list[Reason], unnamed: float | None
) -> ChurnAnswer:
    """The answer for one question from its log odds.

    unnamed : what the state of a network adds to them; None without one
    """
    known = questions.rows.row(row, named=True)
    return ChurnAnswer(
        str(known["user"]),
        iso(known["as_of"]),
        (questions.horizon_us[row].item() + questions.of.gap_us) / 1e6,
        float(1 / (1 + np.exp(-log_odds))),
        segment,
        [reason.text for reason in why],
        [reason.events for reason in why],
        level_told(questions, row, log_odds),
        None if unnamed is None else unnamed_told(unnamed),
    )


def percent(share: float) -> str:
    """A share in whole percent, without a claim of certainty."""
    return "<1%" if share < 0.01 else ">99%" if share > 0.99 else f"{share:.0%}"


def unnamed_told(share: float) -> str:
    """That a part of the log odds comes from the sequence as a whole, and which way it moves the risk."""
    way = "raises" if share > 0 else "lowers"
    return (
        f"what a network read in the sequence of events {way} the risk ({share:+.2f} of the log odds); it has no name"
    )


def level_told(questions: ChurnQuestions, row: int, log_odds: float) -> str:
    """How far the probability may be off because nobody knows what the season will bring."""
    error = questions.level.error
    if not np.isfinite(error):
        return "one past moment only: how far the season moves the level is not known"
    low, high = (float(1 / (1 + np.exp(-(log_odds + sign * error)))) for sign in (-1, 1))
    span = f"the probability lies between {percent(low)} and {percent(high)}, two times in three, for the season alone"
    if questions.level.knows_year:
        return f"set by the same season a year earlier: {span}"
    return f"the log holds no same season a year earlier, so the level is uncertain: {span}"


def group_of(name: str) -> str:
    """The group that a number of a snapshot belongs to."""
    return next(group for group, starts in GROUPS.items() if name.startswith(starts))


def reasons(
    row: Mapping[str, object],
    shares: Mapping[str, float] | None,
    events: pl.DataFrame,
    schema: Schema,
    of: Definition,
    groups: Collection[str] = tuple(GROUPS),
) -> list[Reason]:
    """Sentences about one user, those that move the risk most first.

    shares : what each number adds to the log odds; None for a model that does not tell;  events : the user's own
    groups : what the model looks at; nothing else is a reason
    """
    by_group: dict[str, float] = {}
    named = {name: share for name, share in (shares or {}).items() if name != SEQUENCE}
    for name, share in named.items():
        by_group[group_of(name)] = by_group.get(group_of(name), 0.0) + share
    order = sorted((group for group in GROUPS if group in groups), key=lambda group: -abs(by_group.get(group, 0.0)))
    facts, told = _Facts.of_user(row, events, schema, of), []
    blind = shares is not None and "days_since_return" not in named  # knows when the last event was, not of what kind
    for group in order:
        text, evidence = facts.silence() if group == "recency" and blind else facts.sentence(group)
        if not text:
            continue
        moves = by_group.get(group) if shares is not None else None
        if moves is not None:
            text = f"{'raises' if moves > 0 else 'lowers'} the risk: {text}"
        told.append(Reason(text, moves, [int(i) for i in evidence["event_id"].tail(EVIDENCE)]))
        if len(told) == SHOWN:
            break
    return told


@dataclass(frozen=True)
class _Facts:
    """One user: the snapshot's row, all events, and those that are targets, negative, and returns.

    word : what must stay away, with its article
    """

    row: Mapping[str, object]
    of: Definition
    events: pl.DataFrame
    bought: pl.DataFrame
    gone: pl.DataFrame
    back: pl.DataFrame
    word: str

    @staticmethod
    def of_user(row: Mapping[str, object], events: pl.DataFrame, schema: Schema, of: Definition) -> _Facts:
        _, target, negative = Roles.of(schema).flags(events)
        bought, gone = events.filter(pl.Series(target)), events.filter(pl.Series(negative))
        back = bought if of.by == "purchase" else events
        word = " or ".join(schema.types_with("target")) if of.by == "purchase" else "event"
        return _Facts(row, of, events, bought, gone, back, word)

    def number(self, name: str) -> float | None:
        value = self.row.get(name)
        return float(value) if isinstance(value, int | float) and value == value else None

    def sentence(self, group: str) -> tuple[str, pl.DataFrame]:
        """What a group says of the user, and the events that say it; "" where it has nothing to say."""
        a_word, year_ago = f"{'an' if self.word[:1] in 'aeiou' else 'a'} {self.word}", self._as_of() - YEAR
        match group:
            case "recency":
                return self._recency()
            case "frequency":
                days, half = self.number("returns_365d") or 0.0, self.number("returns_180d") or 0.0
                lately = f", {half:.0f} of them in its last half" if days else ""
                return f"{_count(days, 'day')} with {a_word} in the last year{lately}", self.back
            case "value" if self.bought["value"].is_not_null().any():
                bought, gone = (part.filter(pl.col("time") >= year_ago) for part in (self.bought, self.gone))
                spent, returned = float(bought["value"].abs().sum()), float(gone["value"].abs().sum())
                less = f", {returned:,.2f} of it taken back" if returned else ""
                worth = f"value of {spent:,.2f}" if spent else "nothing of value"
                return f"{worth} in the last year{less}", bought.sort("value", nulls_last=False)
            case "tenure" if (first := self.number("days_since_first_return")) is not None:
                return f"first {self.word} {_days(first)} ago", self.back.head(1)
            case "season" if (then := self.number("returns_year_ago")) is not None:
                begins = year_ago + timedelta(microseconds=self.of.gap_us)
                ends = begins + timedelta(microseconds=self.of.horizon_us)
                if self.back.filter(pl.col("time") < ends).height:  # else the user came after it
                    inside = self.back.filter(pl.col("time") >= begins, pl.col("time") < ends)
                    return f"{_count(then, 'day')} with {a_word} in the same season a year ago", inside
            case "cancels" if self.gone.height:
                return f"{self.gone.height} taken back, worth {self.gone['value'].abs().sum():,.2f}", self.gone
            case "breadth" if (different := self.number("distinct_item")) is not None:
                return f"{_count(different, 'different item')} so far", self.back
        return "", self.events.clear()

    def _recency(self) -> tuple[str, pl.DataFrame]:
        since, gap = self.number("days_since_return"), self.number("return_gap_median_d")
        if since is None:
            return f"no {self.word} so far", self.events.tail(1)
        usual = ""
        if gap:
            late = f"{since / gap:.1f} times" if since >= gap else "within"
            usual = f", {late} the usual gap of {_days(gap)}"
        return f"last {self.word} {_days(since)} ago{usual}", _newest(self.back)

    def silence(self) -> tuple[str, pl.DataFrame]:
        """How long ago the last event was, whatever its kind, and that event."""
        return f"last event {_days(self.number('days_since_last') or 0.0)} ago", _newest(self.events)

    def _as_of(self) -> pl.Expr:
        return pl.lit(self.row["as_of"]).cast(TIME)


def _newest(events: pl.DataFrame) -> pl.DataFrame:
    return events.filter(pl.col("time") == events["time"].max())


def _days(days: float) -> str:
    return f"{days:.0f} days" if days >= 2 else f"{days * 24:.0f} hours"


def _count(number: float, what: str) -> str:
    return f"{number:.0f} {what}{'' if number == 1 else 's'}"


@dataclass(frozen=True)
class Explanation:
    """A churn answer with all that it rests on.

    reasons : text, share of the log odds (None where the model tells none) and the ids of the events behind it
    unnamed : what the state of a network adds to the log odds, which no fact stands for; None without one
    numbers : name, unit, meaning, value and share of every number of the snapshot, the weightiest first
    """

    user: str
    as_of: str
    task: str
    model: str
    horizon_s: float
    probability: float
    segment: str
    reasons: list[dict[str, Any]]
    unnamed: float | None
    numbers: list[dict[str, Any]]

    def to_json(self) -> dict[str, Any]:
        """As the command prints it."""
        return asdict(self)

    def __rich__(self) -> Table:
        days = self.horizon_s / 86_400
        title = f"{self.user} · as of {self.as_of} · gone for {days:g} days with {percent(self.probability)}"
        title += f" · {self.segment}"
        told = any(reason["share"] is not None for reason in self.reasons)
        how = None if told else "This model does not tell what each fact adds; only facts that it looks at are named."
        table = Table("", "share of the log odds", "events", title=title, caption=how, title_justify="left", box=None)
        for reason in self.reasons:
            share = "" if reason["share"] is None else f"{reason['share']:+.2f}"
            table.add_row(reason["text"], share, ", ".join(str(event) for event in reason["events"][:3]))
        if self.unnamed is not None:
            table.add_row("what a network read in the sequence, without a name", f"{self.unnamed:+.2f}", "")
        return table


def explained(
    answer: ChurnAnswer,
    model: str,
    row: Mapping[str, object],
    shares: Mapping[str, float] | None,
    why: list[Reason],
    schema: Schema,
) -> Explanation:
    """The explanation of an answer from the snapshot's row and the model's shares."""
    meanings = {name: (feature.unit, feature.meaning) for name, feature in definitions(schema).items()} | OWN
    numbers = [
        {"name": name, "unit": meanings[name][0], "meaning": meanings[name][1], "value": row.get(name)}
        | {"share": None if shares is None else shares.get(name, 0.0)}
        for name in sorted(meanings, key=lambda name: -abs((shares or {}).get(name, 0.0)))
    ]
    return Explanation(
        answer.user,
        answer.as_of,
        "churn",
        model,
        answer.horizon_s,
        answer.probability,
        answer.segment,
        [asdict(reason) for reason in why],
        None if shares is None else shares.get(SEQUENCE),
        numbers,
    )
