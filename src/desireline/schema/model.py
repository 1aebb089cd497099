"""What an event is: the pydantic model behind `desireline.yaml`.

The schema maps the columns of any source to one event: `user, time, event` and optional `item`, `value`, `event_id` and
named fields. Nothing below this floor knows a column's name. The same file holds the settings of every later step, so
that one YAML file (and `--set KEY=VALUE`) reaches all of them.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from desireline.core.errors import SchemaError
from desireline.core.files import write_text

Role = Literal["target", "positive", "negative", "explicit"]
Kind = Literal["category", "number", "duration", "text", "image", "audio"]
RESERVED = ("event_id", "user", "time", "event", "item", "value", "order", "bucket", "alias")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", validate_assignment=True)


class TimeSpec(_Strict):
    """Where an event's moment stands and how it is written."""

    column: str | None = Field(None, description="the column; null: the source has no time, its rows' order counts")
    format: str = Field(
        "auto",
        description="iso, epoch_s, epoch_ms, epoch_us, position (order only) or a strptime pattern; "
        "auto: the column's own type",
    )
    zone: str = Field("UTC", description="IANA zone of times that carry none")


class Rule(_Strict):
    """One line of a derived event type: the first rule whose expression holds names the type."""

    when: str = Field(description="an expression over the source's columns, as `quantity > 0`")
    type: str = Field(description="the event type of the rows where it holds")


class EventSpec(_Strict):
    """Where an event's type comes from: a column, rules over columns, or a constant."""

    column: str | None = Field(None, description="the column that names the type")
    rules: list[Rule] = Field(default_factory=list)
    constant: str | None = Field(None, description="the one type of every row")

    @model_validator(mode="after")
    def _one_source(self) -> EventSpec:
        if sum([self.column is not None, bool(self.rules), self.constant is not None]) != 1:
            raise ValueError("give exactly one of column, rules, constant")
        return self


class FieldSpec(_Strict):
    """A further column of an event, or of the item that it is about."""

    column: str = Field(description="the source's column")
    kind: Kind = Field(description="what its values are")
    of: Literal["event", "item"] = Field("event", description="what it describes: this event, or the item for good")


class EventType(_Strict):
    """A known event type and the roles that it plays."""

    roles: list[Role] = Field(
        default_factory=list,
        description="target: what is predicted; positive, negative: liked, disliked; explicit: said, not inferred",
    )


class AliasSpec(_Strict):
    """The event type that merges two user ids: `column` holds the id that is merged into the row's user."""

    event: str = Field("alias", description="the event type that merges two user ids")
    column: str = Field(description="the column of the id that is merged into the row's user")


class CleanSettings(_Strict):
    """Rules of `events/clean.py`; each can be switched off by setting it to null or false."""

    duplicates: bool = Field(True, description="leave out exact repeats of user, time, event and item")
    near_duplicate_s: float | None = Field(
        1.0, description="leave out the same user, event and item within so many seconds; null: keep"
    )
    impossible_times: bool = Field(True, description="leave out times far outside the log's own span")
    extreme_values: bool = Field(True, description="clip values beyond the outer fence to it, and count them")
    bots: bool = Field(True, description="leave out users whose rate or regularity no person has")
    max_events_per_day: int = Field(5_000, description="a user above it on any day is a bot")


class PrepareSettings(_Strict):
    """Settings of `desireline prepare`."""

    session_gap_s: float = Field(1800.0, description="a longer silence starts a new session, in seconds")
    min_item_count: int = Field(1, ge=1, description="items seen less often before the cut become unknown")
    max_categories: int = Field(10_000, ge=1, description="values kept per category field, by frequency")
    value_bins: int = Field(16, ge=2, description="quantile bins of a number, beside the zero bucket")
    horizon: float = Field(0.1, gt=0, lt=0.5, description="share of the log's events held out when no cut is named")
    workers: int = Field(0, ge=0, description="processes; 0: one a core")


class EncoderSettings(_Strict):
    """Size of the network."""

    d_model: int = Field(128, ge=4, description="width of a hidden state")
    layers: int = Field(2, ge=1, description="blocks of the network, one on the other")
    heads: int = Field(2, ge=1, description="heads of each attention; they share d_model")
    length: int = Field(100, ge=2, description="events a window holds in training, and attention looks back on")
    dropout: float = Field(0.4, ge=0, lt=1, description="share of hidden values left out in training")
    items: Literal["spectral", "random"] = Field(
        "spectral", description="item vectors begin from the graph of items that stand near each other, or at random"
    )
    neighbours: Literal["auto"] | Annotated[int, Field(ge=0)] = Field(
        "auto",
        description="of an item, those that follow it most in all histories, whose mean its vector gains; 0: none; "
        "auto: 10 for recommend where what is asked is new to the user and histories have an order (most of what "
        "follows does so at a later moment), else none",
    )
    gate: bool = Field(False, description="transformer: scale each branch by a learnt gate of its input (LiGR)")


class TrainSettings(_Strict):
    """Settings of the training loop."""

    loss: Literal["auto", "softmax", "sampled", "bce", "gbce"] = Field(
        "auto",
        description="item loss: full or sampled softmax, (generalised) binary; auto: softmax by catalogue",
    )
    negatives: int = Field(1024, ge=1, description="negatives that the targets of a step share; softmax needs none")
    negatives_from: Literal["mixed", "uniform", "popularity", "batch"] = Field(
        "mixed", description="the catalogue, the training events, half of each, or the step's own targets"
    )
    next_items: int = Field(3, ge=1, description="a position's target: the next so many items, weights halving")
    positions: Literal["every", "last"] = Field(
        "every",
        description="what a window learns: the targets of all its events, or of its last alone, each prefix of a "
        "history being one; that reads an event as often as windows hold it",
    )
    temperature: float = Field(
        0.07, ge=0.0125, description="of the cosine between hidden state and item; below .0125 exponentials overflow"
    )
    label_smoothing: float = Field(
        0.0, ge=0, lt=1, description="share of an item target spread over the catalogue; softmax losses"
    )
    contrastive: float = Field(
        0.0, ge=0, description="weight of telling a step's windows apart by changed copies (CL4SRec); 0: off"
    )
    batch_targets: int = Field(512, ge=16, description="targets in one optimiser step")
    lr: float = Field(1.5e-3, gt=0, description="learning rate after the warm-up")
    weight_decay: float = Field(0.01, ge=0, description="not applied to embeddings, biases and norms")
    warmup: float = Field(0.1, ge=0, lt=1, description="share of the steps")
    epochs: int = Field(10, ge=1, description="at most; early stopping ends sooner")
    patience: int = Field(3, ge=1, description="epochs without a better validation")
    ema: float = Field(0.998, ge=0, lt=1, description="decay of the averaged weights; 0: off")
    clip: float = Field(5.0, gt=0, description="largest gradient norm")
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="of the network's products; auto: bfloat16 where the device multiplies it natively"
    )
    threads: int = Field(0, ge=0, description="processor threads of one training; 0: one for four cores")
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="where networks train and answer; auto: a CUDA card where there is one, else the processor"
    )


class EvaluateSettings(_Strict):
    """Settings of evaluation and choice."""

    protocol: Literal["temporal", "leave-one-out"] = Field(
        "temporal", description="one cut for all, or each user's last event"
    )
    occasion: Literal["time", "day"] = Field(
        "time", description="events of one user that are asked for together: equal times or one day"
    )
    seeds: int = Field(3, ge=1, description="training runs of each model in a comparison")
    bootstrap: int = Field(500, ge=50, description="resamples of users behind an interval")
    k: list[int] = Field(default_factory=lambda: [5, 10, 20], description="list lengths of HR, NDCG and MRR")
    diversity: float = Field(
        0.0, ge=0, le=1, description="share of a list's score given to being unlike the items above"
    )
    approximate_above: int = Field(
        200_000,
        ge=0,
        description="items above which a network's lists come from an index of them (extra ann), not a look at all; "
        "0: never",
    )


class ChurnSettings(_Strict):
    """What counts as leaving; what is null is chosen from the log and told."""

    by: Literal["auto", "purchase", "activity"] = Field(
        "auto", description="what stays away: target events, or events of any type; auto: targets where people repeat"
    )
    horizon_d: float | None = Field(
        None, gt=0, description="days without it after which a user counts as gone; null: most gaps are shorter"
    )
    gap_d: float = Field(0.0, ge=0, description="days between the question and the horizon's begin: time to act")
    active_d: float | None = Field(
        None, gt=0, description="asked are users with an event in the last so many days; null: twice the horizon"
    )
    own_gaps: float | None = Field(
        None, gt=0, description="end the horizon after so many of the user's own median gaps, if that is sooner"
    )
    hazard: Literal["pieces", "weibull"] = Field(
        "pieces", description="law of the time until a return that networks learn: constant in pieces, or Weibull's"
    )
    dates: int = Field(9, ge=1, description="as-of dates to learn from, beside those of the season a year earlier")
    treatment: str | None = Field(
        None,
        description="category field of events whose presence says that the user was assigned to an arm of an "
        "experiment at that moment, and to which; null: there was none",
    )
    treated: str | None = Field(
        None, coerce_numbers_to_str=True, description="value of that field for who was contacted; the other is control"
    )
    learner: Literal["dr", "x", "t"] = Field(
        "dr", description="what learns from the experiment whom a contact keeps: DR-, X- or T-learner"
    )

    @model_validator(mode="after")
    def _both_arms(self) -> ChurnSettings:
        if (self.treatment is None) != (self.treated is None):
            raise ValueError("treatment and treated belong together: name the field of the arm, and the value treated")
        return self


class AnomalySettings(_Strict):
    """What is looked at for fraud; what is null is read off the schema and the log, and told."""

    window_d: float | None = Field(
        None, gt=0, description="days up to the question whose events are judged; null: as many as the cut holds out"
    )
    orders: list[str] | None = Field(
        None, description="event types that are orders; null: those named like a purchase, else the targets"
    )
    seller: str | None = Field(
        None, description="category field of who gains from an event (seller, shop, merchant); null: the item gains"
    )
    rating: str | None = Field(None, description="number field with a review's stars; null: a field named like it")
    text: str | None = Field(None, description="text field of a review; null: the first text field of events")
    capacity: int = Field(100, ge=1, description="alerts that people can look at; the queue's length")
    audit: float = Field(
        0.05, ge=0, lt=1, description="share of the queue drawn at random, so that what is missed can be estimated"
    )


class Schema(_Strict):
    """One deployment's whole configuration; see the fields' comments in a written `desireline.yaml`."""

    version: Literal[1] = Field(1, description="of this file's form")
    preset: Literal["retail", "finance", "health", "education"] = Field(
        "retail", description="the domain whose defaults `init` started from"
    )
    user: str | None = Field(None, description="the user's column; null: every row is a user of its own")
    time: TimeSpec = Field(default_factory=TimeSpec)
    event: EventSpec
    item: str | None = Field(None, description="the column of the item that an event is about")
    value: str | None = Field(None, description="a column, or an arithmetic expression over columns")
    event_id: str | None = Field(None, description="the column that identifies an event; null: its content does")
    fields: dict[str, FieldSpec] = Field(default_factory=dict)
    types: dict[str, EventType] = Field(description="known event types, in the order that they take at equal times")
    unknown_types: Literal["quarantine", "keep"] = Field(
        "quarantine", description="what becomes of rows whose type is not named in `types`"
    )
    positive: str | None = Field(
        None, description='an expression over an event, as `rating >= 4`; null: the types with the role "positive"'
    )
    tie_break: str = Field(
        "event", description="order at equal times: `event` (the types'), `row` (the source's), or a numeric column"
    )
    alias: AliasSpec | None = None
    clean: CleanSettings = Field(default_factory=CleanSettings)
    prepare: PrepareSettings = Field(default_factory=PrepareSettings)
    encoder: EncoderSettings = Field(default_factory=EncoderSettings)
    train: TrainSettings = Field(default_factory=TrainSettings)
    churn: ChurnSettings = Field(default_factory=ChurnSettings)
    anomaly: AnomalySettings = Field(default_factory=AnomalySettings)
    evaluate: EvaluateSettings = Field(default_factory=EvaluateSettings)

    @model_validator(mode="after")
    def _names(self) -> Schema:
        for name in self.fields:
            if name in RESERVED or not name.isidentifier():
                raise ValueError(f"field {name!r}: the name is reserved or no identifier")
        if not self.types:
            raise ValueError("types: name at least one event type")
        arm = self.churn.treatment
        if arm is not None and not (arm in self.fields and self.fields[arm].kind == "category"):
            raise ValueError(f"churn.treatment: {arm!r} is no category field; declare it under `fields`")
        if arm is not None and self.fields[arm].of != "event":
            raise ValueError(f"churn.treatment: the field {arm!r} describes the item; an arm is of an event")
        asked = self.anomaly
        for key, field, kind in (
            ("seller", asked.seller, "category"),
            ("rating", asked.rating, "number"),
            ("text", asked.text, "text"),
        ):
            if field is not None and (field not in self.fields or self.fields[field].kind != kind):
                raise ValueError(f"anomaly.{key}: {field!r} is no {kind} field; declare it under `fields`")
        wrong = [name for name in self.anomaly.orders or [] if name not in self.types]
        if wrong:
            raise ValueError(f"anomaly.orders: {wrong[0]!r} is no event type; known are {', '.join(self.types)}")
        return self

    def types_with(self, role: Role) -> list[str]:
        """The event types that play a role, in their declared order."""
        return [name for name, kind in self.types.items() if role in kind.roles]

    def source_columns(self) -> list[str]:
        """Every column that a source must have, in the order of the schema, each once."""
        from desireline.schema.expression import columns_of

        names: list[str | None] = [self.user, self.time.column, self.event.column, self.item, self.event_id]
        for text in [self.value, *(rule.when for rule in self.event.rules)]:
            names += sorted(columns_of(text)) if text else []
        names += [field.column for field in self.fields.values()]
        names += [self.alias.column] if self.alias else []
        names += [self.tie_break] if self.tie_break not in ("event", "row") else []
        return list(dict.fromkeys(name for name in names if name is not None))


Settings = Annotated[dict[str, str], "KEY=VALUE pairs as typed"]


def load(path: Path) -> Schema:
    """Read `desireline.yaml`. Raises SchemaError naming the line's key and what it may hold."""
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise SchemaError(f"{path} is missing: write it with `desireline init {path.parent} --from FILE`.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SchemaError(f"{path} is no YAML: {error}") from error
    return parse(raw, str(path))


def parse(raw: object, where: str) -> Schema:
    """Validate a mapping as a schema. Raises SchemaError with every fault, one a line."""
    if not isinstance(raw, dict):
        raise SchemaError(f"{where} holds no mapping; the first line should be `version: 1`.")
    try:
        return Schema.model_validate(raw)
    except ValidationError as error:
        raise SchemaError(f"{where}: {_faults(error)}.") from error


def _faults(error: ValidationError) -> str:
    """Every fault with its place; of a setting that takes one thing or another, what each would have been."""
    told: dict[str, list[str]] = {}
    for fault in error.errors():
        place = ".".join(str(part) for part in fault["loc"] if not str(part).startswith(("literal[", "constrained-")))
        told.setdefault(place or "top level", []).append(fault["msg"].removeprefix("Value error, "))
    return "; ".join(f"{place}: {', or: '.join(messages)}" for place, messages in told.items())


def save(schema: Schema, path: Path) -> None:
    """Write a schema without comments; `schema/write.py` writes it with them."""
    write_text(path, yaml.safe_dump(schema.model_dump(exclude_none=True), sort_keys=False, allow_unicode=True))


def with_settings(schema: Schema, settings: dict[str, str]) -> Schema:
    """A copy of the schema with `--set` pairs applied.

    A key is a setting's name (`lr`) or its dotted path (`train.lr`). Values are read as YAML. Raises SettingError for
    an unknown or ambiguous key, or a value that the setting does not take.
    """
    from desireline.core.errors import SettingError

    raw = schema.model_dump()
    paths = _paths(raw, ())
    for key, text in settings.items():
        found = [p for p in paths if ".".join(p) == key] or [p for p in paths if p[-1] == key]
        if len(found) != 1:
            why = "is no setting of desireline.yaml"
            if found:
                why = f"names {' and '.join('.'.join(p) for p in found)}; write the dotted path"
            raise SettingError(f"--set {key}={text}: {key!r} {why}.")
        place = raw
        for part in found[0][:-1]:
            place = place[part]
        place[found[0][-1]] = yaml.safe_load(text)
        if isinstance(place[found[0][-1]], str):  # YAML 1.1 reads 2e-3 as text
            with suppress(ValueError):
                place[found[0][-1]] = float(text)
    try:
        return parse(raw, "--set " + " ".join(f"{k}={v}" for k, v in settings.items()))
    except SchemaError as error:
        raise SettingError(str(error)) from error


def _paths(raw: dict[str, object], prefix: tuple[str, ...]) -> list[tuple[str, ...]]:
    found: list[tuple[str, ...]] = []
    for name, value in raw.items():
        if isinstance(value, dict) and name not in ("fields", "types"):
            found += _paths(value, (*prefix, name))
        else:
            found.append((*prefix, name))
    return found
