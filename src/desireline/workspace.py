"""One folder is one deployment: the object behind `dl.open`.

DIR/desireline.yaml   the schema and every setting
DIR/log/              the events, a Delta table
DIR/quarantine/       rejected rows with their reasons, a Delta table
DIR/prepared/         the log as of a cut
DIR/models/           models; current.json names those that answer
DIR/results/          tables of fit and compare, as JSON
DIR/tuning/           what `tune` tried, a journal a task, encoder and prepared log
DIR/training/         checkpoints of unfinished trainings
DIR/anomaly/          looks at the whole log for fraud, and what people said of alerts

What learns is imported by the methods that need it: an ingest does not wait for torch.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from desireline.core.errors import DataError, ModelError, SchemaError, SettingError, StoreError, UnknownUserError
from desireline.core.files import read_json, storage_error, write_json, write_lock, write_text
from desireline.core.progress import say
from desireline.events.health import Health, health
from desireline.events.history import read_history
from desireline.events.ingest import Counts, ingest
from desireline.events.quarantine import Quarantine
from desireline.events.sources import open_sources
from desireline.events.store import EventStore
from desireline.schema import write as schema_file
from desireline.schema.guess import Note, guess
from desireline.schema.model import Schema, load, save, with_settings
from desireline.schema.moment import Moment, parse_moment
from desireline.sequences.prepared import Prepared, iso, prepare

if TYPE_CHECKING:
    from desireline.decide.retention import Decision
    from desireline.evaluation.result import Result
    from desireline.selection.alerts import Queue, Verdict
    from desireline.selection.fitted import Fitted
    from desireline.selection.inject import Injected
    from desireline.selection.predict import Answer
    from desireline.selection.split import Split
    from desireline.selection.tune import Tuned
    from desireline.tasks.answers import Wishes
    from desireline.tasks.churn.answers import Explanation

SCHEMA_FILE = "desireline.yaml"


@dataclass(frozen=True)
class Model:
    """A fitted model of a workspace, with the table that it was fitted under."""

    workspace: Workspace
    fitted: Fitted
    result: Result

    @property
    def id(self) -> str:
        """The model's name in the workspace."""
        return self.fitted.id

    @property
    def chosen(self) -> str | None:
        """The row that `compare` chose; None after `fit`."""
        return self.result.chosen

    @property
    def why(self) -> str | None:
        """Why it was chosen, in words."""
        return self.result.why

    def table(self) -> pl.DataFrame:
        """The rows with their metrics and intervals."""
        return self.result.table()

    def evaluate(self, protocol: str | None = None) -> Result:
        """Ask the model the test questions of a protocol."""
        return self.workspace.evaluate(self.id, protocol)

    def predict(self, users: Sequence[str], k: int = 10) -> list[Answer]:
        """Answers for users of the log, as of its last moment."""
        return [self.workspace.predict(self.fitted.task.name, user, k=k, model=self.id) for user in users]

    def _repr_html_(self) -> str:
        return self.result._repr_html_()


class Workspace:
    """A folder with a schema; see the module. Opened by `desireline.open`, made by `desireline.init`."""

    def __init__(self, folder: Path, schema: Schema) -> None:
        self.folder, self.schema = folder, schema

    def __repr__(self) -> str:
        return f"Workspace({str(self.folder)!r})"

    @property
    def store(self) -> EventStore:
        """The event store."""
        return EventStore(self.folder, self.schema)

    def with_settings(self, settings: dict[str, str]) -> Workspace:
        """The same folder under changed settings (`{"lr": "0.001"}`); the YAML file stays as it is."""
        return Workspace(self.folder, with_settings(self.schema, settings)) if settings else self

    def ingest(self, *sources: str | Path) -> Counts:
        """Store the events of files, folders, globs or SQL URLs; what is stored already is not stored twice."""
        return ingest(self.folder, self.schema, [str(source) for source in sources])

    def check(self) -> Health:
        """The log's health."""
        reasons, cores = Quarantine(self.folder).reasons(), os.cpu_count() or 1
        return health(self.store, self.schema, datetime.now(UTC), quarantine=reasons, cores=cores)

    def prepare(self, cut: Moment = None) -> Prepared:
        """Clean, encode, normalise, sessionise: the log as of `cut` (default: a tenth of the events is held out)."""
        at = parse_moment(cut) if cut is not None else self.store.default_cut()
        with write_lock(self.folder, "desireline prepare"):
            prepared = prepare(self.folder, self.schema, at)
            write_json(self.folder / "prepared" / "current.json", {"cut": iso(at)})
        return prepared

    def cut(self, cut: Moment = None) -> datetime:
        """The cut that holds: the given one, else the last prepared one, else the default."""
        if cut is not None:
            return parse_moment(cut)
        path = self.folder / "prepared" / "current.json"
        if path.exists():
            return parse_moment(read_json(path)["cut"])
        at = self.store.default_cut()
        say(
            f"Not prepared yet: preparing with the cut {iso(at)}, the last {self.schema.prepare.horizon:.0%} of "
            "the events held out."
        )
        self.prepare(at)
        return at

    def fit(
        self,
        task: str,
        encoder: str = "gru",
        *,
        adapt: str | None = None,
        cut: Moment = None,
        protocol: str | None = None,
        seed: int = 0,
        epochs: int | None = None,
    ) -> Model:
        """Train one encoder for a task and test it beside the cheapest baselines.

        adapt : of churn "frozen" or "fused": it learns next behaviour, and trees read its states, alone or beside the
        aggregates; None: it learns the task itself
        """
        if epochs is not None and epochs < 1:
            raise SettingError(f"--epochs {epochs}: train at least one.")
        from desireline.selection import compare as comparing
        from desireline.selection import deploy

        at, name = self.cut(cut), protocol or self.schema.evaluate.protocol
        with write_lock(self.folder, "desireline fit"):
            done = comparing.fit(
                self.folder, self.schema, task, encoder, at, name, seed, epochs, named=cut is not None, adapt=adapt
            )
            answers_now = deploy.take_up(self.folder, self.schema, done.fitted, named=cut is not None, refits=False)
            self._keep(done.result, "-".join(["fit", task, encoder, *([adapt] if adapt else [])]), answers_now)
        return Model(self, done.fitted, done.result)

    def compare(
        self,
        task: str,
        encoders: Sequence[str] | None = None,
        *,
        cut: Moment = None,
        protocol: str | None = None,
        seed: int = 0,
    ) -> Model:
        """Train encoders and baselines with equal budgets, choose on validation, confirm on the test.

        encoders : None: all, for churn the gru alone
        """
        from desireline.selection import compare as comparing
        from desireline.selection import deploy

        if isinstance(encoders, str):
            raise SettingError(f"encoders is one text, {encoders!r}: give a list of names.")
        at, name = self.cut(cut), protocol or self.schema.evaluate.protocol
        with write_lock(self.folder, "desireline compare"):
            done = comparing.compare(self.folder, self.schema, task, encoders, at, name, seed, named=cut is not None)
            say(f"Chosen: {done.result.chosen}.")
            answers_now = deploy.take_up(self.folder, self.schema, done.fitted, named=cut is not None, refits=True)
            self._keep(done.result, f"compare-{task}", answers_now)
        return Model(self, done.fitted, done.result)

    def tune(
        self,
        task: str,
        encoders: Sequence[str] = ("gru",),
        *,
        trials: int,
        minutes: float | None = None,
        cut: Moment = None,
        protocol: str | None = None,
        seed: int = 0,
    ) -> Tuned:
        """Search the settings of encoders on validation, `trials` each; what was tried before counts."""
        from desireline.selection.tune import tune

        at = self.cut(cut)
        with write_lock(self.folder, "desireline tune"):
            found = tune(
                self.folder,
                self.schema,
                task,
                list(encoders),
                at,
                protocol or self.schema.evaluate.protocol,
                trials,
                minutes,
                seed,
                named=cut is not None,
            )
            write_json(self.folder / "tuning" / f"{task}.json", found.to_json())
        return found

    def evaluate(self, model: str, protocol: str | None = None, seed: int = 0) -> Result:
        """Ask a saved model the test questions of a protocol."""
        from desireline.selection import compare as comparing
        from desireline.selection import fitted as models

        fitted = models.load(self.folder, self.schema, model)
        default = str(fitted.info["protocol"]).split("/")[0]
        return comparing.evaluate(self.folder, self.schema, fitted, protocol or default, seed)

    def show_split(self, user: str, protocol: str | None = None, cut: Moment = None) -> Split:
        """What each split sees, learns from and asks of one user."""
        from desireline.selection.split import show_split

        return show_split(self.folder, self.schema, protocol or self.schema.evaluate.protocol, self.cut(cut), user)

    def report(self, out: str | Path | None = None) -> Path:
        """Write one self-contained HTML page; returns its path."""
        from desireline.report import gather, page

        path = Path(out) if out is not None else self.folder / "report.html"
        write_text(path, page(gather(self)))
        return path

    def predict(
        self,
        task: str,
        user: str | None = None,
        *,
        history: str | Path | None = None,
        as_of: Moment = None,
        k: int = 10,
        only_new: bool = False,
        deny: Iterable[str] = (),
        stock: Iterable[str] | None = None,
        model: str | None = None,
    ) -> Answer:
        """The answer of a task for one user of the log, or for somebody unknown from a file of events.

        Raises UnknownUserError when the user has no event before `as_of`, DataError for a history without an event,
        but for recommend: that answers with what everybody does of late, and says so.
        """
        from desireline.selection.predict import answer
        from desireline.tasks.answers import check_wishes

        at = self._asked_at(as_of)
        wishes = self._wishes(k, only_new, deny, stock)
        if user is None and history is None:
            raise SettingError("Name a user, give a history, or ask for all.")
        if history is not None:
            events = read_history(Path(history), self.schema, at)
            if events.height == 0 and task != "recommend":
                raise DataError(f"The history {history} holds no event.")
            newest, late = events["time"].max(), int((events["time"] >= at).sum())
            if as_of is None and isinstance(newest, datetime):
                at = max(at, newest + timedelta(microseconds=1))
            elif late:
                say(f"{history}: {late} of {events.height} events lie at or after {iso(at)} and are left out.")
        else:
            events = self._events_of(str(user), at)  # before a model is loaded, or even trained, for nobody
        fitted, name = self._model(task, as_of, model), "history" if history is not None else str(user)
        check_wishes(wishes, fitted.prepared)
        return answer(fitted, events, name, at, wishes, stranger=history is not None)

    def explain(self, task: str, user: str, *, as_of: Moment = None, model: str | None = None) -> Explanation:
        """Why the answer of a task for a user of the log is what it is; so far for churn.

        Raises SettingError for another task, UnknownUserError when the user has no event before `as_of`.
        """
        from desireline.selection.leaving import explanation
        from desireline.selection.predict import no_history

        if task != "churn":
            raise SettingError(f"Explanations for {task} are not there yet: this version explains churn.")
        at = self._asked_at(as_of)
        events = self._events_of(user, at)  # before a model is loaded, or even trained, for nobody
        told = explanation(self._model(task, as_of, model), events, at)
        if told is None:
            raise no_history(user, at)
        return told

    def decide(
        self,
        budget: float,
        cost: float,
        *,
        accept: float = 0.2,
        offer: float = 0.0,
        loyal_take: float = 1.0,
        margin: float = 1.0,
        as_of: Moment = None,
        model: str | None = None,
        seed: int = 0,
    ) -> Decision:
        """Whom to contact, so that they stay, under a budget; the shares are assumptions that no log tells.

        budget, cost, offer : in the log's unit of value;  cost : of one contact;  offer : of what who takes it gets
        accept : share of leavers whom a contact keeps;  loyal_take : share of stayers who take the offer too
        margin : share of value that is profit

        Where `churn.treatment` names an experiment's arm and the arm passes for random, the effect of a contact is
        learnt from it, and `accept` is not asked.

        Raises SettingError for a negative cost or budget or a share outside 0 … 1, DataError for a log without values,
        or an experiment that cannot be read: see `read_trial`.
        """
        from desireline.decide.measured import measure
        from desireline.decide.retention import Assumptions, decide
        from desireline.selection.leaving import effects, risks
        from desireline.tasks.churn.trial import read_trial

        assumptions, churn = Assumptions(cost, offer, accept, loyal_take, margin), self.schema.churn
        fitted, at = self._answering("churn", as_of, model)
        if churn.treatment is None:
            return decide(risks(self.folder, fitted, at), budget, assumptions, iso(at), seed)
        measured, effect = measure(read_trial(fitted.prepared, churn, at), churn.learner, seed)
        asked = risks(self.folder, fitted, at)
        if effect is not None:
            uplift = effects(self.folder, fitted, at, churn.treatment, effect)
            asked = asked.join(uplift, on="user", how="left", maintain_order="left")
            asked = asked.with_columns(pl.col("uplift").fill_null(0.0))  # known by assignments alone
        return decide(asked, budget, assumptions, iso(at), seed, measured)

    def alerts(
        self,
        capacity: int | None = None,
        *,
        as_of: Moment = None,
        fdr: float | None = None,
        p_value: float | None = None,
        model: str | None = None,
        seed: int = 0,
    ) -> Queue:
        """The most suspicious accounts and groups, as many as people can look at, with evidence.

        capacity : None: the schema's;  fdr, p_value : let in only what is under both
        Raises SettingError for a capacity below 1 or a rate outside 0 … 1.
        """
        from desireline.selection import alerts as queues
        from desireline.selection.suspects import look

        size = self.schema.anomaly.capacity if capacity is None else capacity
        if size < 1:
            raise SettingError(f"--capacity {size}: look at one alert at least.")
        for name, rate in (("fdr", fdr), ("p-value", p_value)):
            if rate is not None and not 0 < rate <= 1:
                raise SettingError(f"--{name} {rate}: give a share above 0 and up to 1.")
        fitted, at = self._answering("anomaly", as_of, model)
        audit = self.schema.anomaly.audit
        tested = queues.bands_of(self.results(), fitted.name)
        found = queues.queue(
            look(self.folder, fitted, at),
            self.folder,
            iso(at),
            size,
            audit,
            seed,
            fdr=fdr,
            p_value=p_value,
            tested=tested,
        )
        queues.remember_audit(self.folder, found)
        return found

    def judge_alert(
        self, name: str, verdict: Verdict, *, as_of: Moment = None, model: str | None = None
    ) -> dict[str, Any]:
        """Keep what a person found an alert to be. Raises SettingError for an id that is no alert's."""
        from desireline.selection import alerts as queues
        from desireline.selection.suspects import last_look

        fitted, at = self._answering("anomaly", as_of, model)
        with write_lock(self.folder, "desireline alerts"):
            return queues.judge(last_look(self.folder, fitted, at), self.folder, name, verdict, datetime.now(UTC))

    def predict_all(
        self,
        task: str,
        out: str | Path,
        *,
        as_of: Moment = None,
        k: int = 10,
        only_new: bool = False,
        deny: Iterable[str] = (),
        stock: Iterable[str] | None = None,
        model: str | None = None,
    ) -> int:
        """Write the answers for every user into a Parquet file, whole or not at all; returns the number of rows."""
        from desireline.selection.predict import answer_all
        from desireline.tasks.answers import check_wishes

        fitted, at = self._answering(task, as_of, model)
        wishes = self._wishes(k, only_new, deny, stock)
        check_wishes(wishes, fitted.prepared)
        path = Path(out)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary, parts = path.with_name(f".{path.name}.tmp"), path.with_name(f".{path.name}.parts")
        rows = 0
        try:
            shutil.rmtree(parts, ignore_errors=True)
            parts.mkdir()
            for number, frame in enumerate(answer_all(self.folder, fitted, at, wishes)):
                frame.write_parquet(parts / f"{number:08}.parquet")
                rows += frame.height
            if rows == 0:
                raise DataError(f"No user has an event before {iso(at)}: nothing was written.")
            pl.scan_parquet(parts / "*.parquet").sink_parquet(temporary)
            temporary.replace(path)
        except OSError as error:
            raise error if isinstance(error, StoreError) else storage_error(error, path) from error
        finally:
            temporary.unlink(missing_ok=True)
            shutil.rmtree(parts, ignore_errors=True)
        return rows

    def inject(
        self,
        out: str | Path,
        *,
        families: Sequence[str] | None = None,
        intensity: str = "middle",
        share: float = 0.01,
        seed: int = 0,
        begin: Moment = None,
        end: Moment = None,
    ) -> Injected:
        """Write a second workspace: this log with planted attacks, and the truth beside it.

        families : names in `tasks.anomaly.attacks.FAMILIES`; None: all that the log allows
        share : accounts of each family, as a share of those active in the window
        begin, end : the window; default: from the default cut to the log's end

        Raises SettingError for an unknown name or a share outside 0 … 0.5, StoreError for a folder that holds
        something, DataError for a log into which nothing can be planted.
        """
        from desireline.selection.inject import inject

        window = tuple(None if at is None else parse_moment(at) for at in (begin, end))
        return inject(self.folder, self.schema, Path(out), families, intensity, share, seed, *window)

    def models(self) -> list[dict[str, Any]]:
        """What `models/` holds, with a mark at those that answer."""
        from desireline.selection.answering import ids_of, roles_of

        answering = {name for roles in roles_of(self.folder).values() for name in ids_of(roles)}
        found = [read_json(p) for p in sorted((self.folder / "models").glob("*/model.json"))]
        return [
            {key: m[key] for key in ("id", "task", "name", "kind", "cut", "seed", "protocol")}
            | {"answers": m["id"] in answering}
            for m in found
        ]

    def answered_tasks(self) -> list[str]:
        """The tasks for which a model answers."""
        from desireline.selection.answering import roles_of
        from desireline.tasks import TASKS

        answered = roles_of(self.folder)
        return [task for task in TASKS if task in answered]

    def results(self) -> list[Result]:
        """The kept tables of fit and compare."""
        from desireline.evaluation.result import Result

        return [Result.from_json(read_json(path)) for path in sorted((self.folder / "results").glob("*.json"))]

    def _events_of(self, user: str, at: datetime) -> pl.DataFrame:
        """The events of whom a name stands for as of a moment: who is merged later is somebody else yet."""
        events = self.store.users_events(user, before=at)
        if events.height == 0:
            raise UnknownUserError(
                f"User {user!r} is not in the log of {self.folder}. Check the id, or give a history with "
                "--history FILE."
            )
        return events

    def _keep(self, result: Result, name: str, answers_now: bool) -> None:
        """Keep a table in place of the last of its name, or beside it where its model answers for earlier moments."""
        own = name if answers_now else f"earlier-{parse_moment(result.cut):%Y%m%dT%H%M%S}-{name}"
        write_json(self.folder / "results" / f"{own}.json", result.to_json())

    def _wishes(self, k: int, only_new: bool, deny: Iterable[str], stock: Iterable[str] | None) -> Wishes:
        """Raises SettingError for a list of no length, or a text in the place of a list."""
        if not isinstance(k, int) or k < 1:
            raise SettingError(f"k is {k}: ask for a whole number of items, at least one.")
        for name, items in (("deny", deny), ("stock", stock)):
            if isinstance(items, str):
                raise SettingError(f"{name} is one text, {items!r}: give a list of items.")
        from desireline.tasks.answers import Wishes

        denied, listed = tuple(map(str, deny)), None if stock is None else tuple(map(str, stock))
        return Wishes(k, only_new, denied, listed, self.schema.evaluate.diversity)

    def _answering(self, task: str, as_of: Moment, model: str | None) -> tuple[Fitted, datetime]:
        """The model that answers, trained where there is none, and the moment of the question."""
        at = self._asked_at(as_of)
        return self._model(task, as_of, model), at

    def _asked_at(self, as_of: Moment) -> datetime:
        """The moment of a question. Raises DataError where no event lies before it."""
        last = self.store.observed_end()
        if as_of is None:
            return last + timedelta(microseconds=1)
        at, first = parse_moment(as_of), self.store.span()[0]
        if at <= first:
            raise DataError(
                f"The log of {self.folder} begins {iso(first)}: as of {iso(at)} nothing is known yet, so nothing can "
                "be answered. Name a later moment."
            )
        if at > last + timedelta(days=1):
            say(f"The log ends {iso(last)}: of the time from then to {iso(at)} nothing is known.")
        return at

    def _model(self, task: str, as_of: Moment, model: str | None) -> Fitted:
        """The named model, or else the one that answers for a task; none that has learned from what came after.

        Raises ModelError for a model of another task, DataError where all have learned from events after `as_of`.
        """
        from desireline.selection import compare as comparing
        from desireline.selection import deploy
        from desireline.selection import fitted as models

        unasked = comparing.task_named(task).unasked
        moment = parse_moment(as_of) if as_of is not None else None
        if model is None:
            if not deploy.is_answered(self.folder, task):
                how = "training the default one (gru)" if unasked == "fit" else "comparing some, to choose one"
                say(f"No model answers for {task} yet: {how}.")
                self.fit(task) if unasked == "fit" else self.compare(task)
            fitted = deploy.current(self.folder, self.schema, task, moment)
        else:
            fitted = models.load(self.folder, self.schema, model)
            if fitted.task.name != task:
                raise ModelError(
                    f"Model {model} is of task {fitted.task.name}, asked was {task}: `desireline models {self.folder}` "
                    "lists those of each task."
                )
            cut = fitted.prepared.cut
            if moment is not None and moment < cut:
                raise DataError(
                    f"Model {model} has learned from events up to {iso(cut)}, so it may not answer as of "
                    f"{iso(moment)}: name a model whose cut is not later, or make one with `desireline compare "
                    f"{self.folder} --task {task} --cut {iso(moment)}`."
                )
        models.check_settled(self.schema, fitted)
        return fitted


def open_workspace(folder: str | Path) -> Workspace:
    """Open a workspace. Raises SchemaError when the folder has no readable `desireline.yaml`."""
    path = Path(folder)
    if not path.is_dir():
        raise SchemaError(f"{path} is no folder: make a workspace with `desireline init {path} --from FILE`.")
    return Workspace(path, load(path / SCHEMA_FILE))


def init_workspace(
    folder: str | Path,
    *,
    source: str | Path | None = None,
    preset: str | None = None,
    schema: Schema | str | Path | None = None,
) -> tuple[Workspace, list[Note]]:
    """Make a workspace from a schema, or by guessing one from a file; returns it with what was guessed.

    Raises SchemaError when the folder is a workspace already.
    """
    path = Path(folder)
    if (path / SCHEMA_FILE).exists():
        raise SchemaError(f"{path / SCHEMA_FILE} exists already: edit it, or delete it to guess anew.")
    notes: list[Note] = []
    if schema is not None:
        made = schema if isinstance(schema, Schema) else load(Path(schema))
    elif source is not None:
        found = open_sources([str(source)])[0]
        guessed = guess(found.sample(), found.name, preset)
        made, notes = guessed.schema, guessed.notes
    else:
        raise SettingError("Give a file to guess the schema from (--from FILE), or a schema.")
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise storage_error(error, path) from error
    if notes:
        schema_file.write(made, notes, path / SCHEMA_FILE)
    else:
        save(made, path / SCHEMA_FILE)
    return Workspace(path, made), notes
