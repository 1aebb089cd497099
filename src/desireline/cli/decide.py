"""The decisions' commands: explain, decide."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from desireline.cli.learn import TaskName
from desireline.cli.shared import AsJson, Folder, Seed, Set, app, settings, show, stdout

if TYPE_CHECKING:
    from desireline.decide.measured import Measured
    from desireline.decide.uplift import Evaluation
    from desireline.evaluation.result import Metric


@app.command()
def explain(
    folder: Folder,
    task: TaskName,
    user: Annotated[str, typer.Option(help="A user of the log.")],
    as_of: Annotated[str | None, typer.Option(help="The moment of the question; default: the log's last.")] = None,
    model: Annotated[str | None, typer.Option(help="Another model than the one that answers.")] = None,
    set_: Set = None,
    as_json: AsJson = False,
) -> None:
    """Why the answer for a user is what it is: facts, what each adds, and the events behind them."""
    from desireline.workspace import open_workspace

    found = open_workspace(folder).with_settings(settings(set_)).explain(task, user, as_of=as_of, model=model)
    show(found, as_json)


@app.command()
def decide(
    folder: Folder,
    what: Annotated[str, typer.Argument(metavar="churn", help="What to decide: churn, whom to keep.")],
    budget: Annotated[float, typer.Option(help="What all contacts together may cost.")],
    cost: Annotated[float, typer.Option(help="Of one contact.")],
    accept: Annotated[float, typer.Option(help="Share of leavers whom a contact keeps: an assumption.")] = 0.2,
    offer: Annotated[float, typer.Option(help="What the offer costs when somebody takes it.")] = 0.0,
    loyal_take: Annotated[float, typer.Option(help="Share of those who would stay anyway that take the offer.")] = 1.0,
    margin: Annotated[float, typer.Option(help="Share of a user's value that is profit.")] = 1.0,
    as_of: Annotated[str | None, typer.Option(help="The moment of the question; default: the log's last.")] = None,
    out: Annotated[Path | None, typer.Option(metavar="FILE.csv", help="Write the whole list there.")] = None,
    seed: Seed = 0,
    set_: Set = None,
    as_json: AsJson = False,
) -> None:
    """Whom to contact under a budget, with the expected profit."""
    from desireline.tasks.churn.answers import percent
    from desireline.workspace import open_workspace

    if what != "churn":
        raise typer.BadParameter(f"{what!r}: this version decides `churn`", param_hint="WHAT")
    workspace = open_workspace(folder).with_settings(settings(set_))
    found = workspace.decide(
        budget, cost, accept=accept, offer=offer, loyal_take=loyal_take, margin=margin, as_of=as_of, seed=seed
    )
    if out is not None:
        import polars as pl

        from desireline.core.files import write_text

        rows = [vars(contact) for contact in found.contacts]
        columns = {"user": pl.String, "probability": pl.Float64, "segment": pl.String, "value": pl.Float64}
        columns |= {"profit": pl.Float64, "uplift": pl.Float64}
        write_text(out, pl.DataFrame(rows, schema=columns).write_csv())
    if as_json:
        show(found, True)
        return
    known = found.measured is not None and found.measured.evaluation is not None
    kept = ["kept by it"] if known else []
    table = Table("", "user", "leaves", *kept, "segment", "value a year", "profit", box=None)
    for place, c in enumerate(found.contacts[:20], 1):
        kept = [f"{c.uplift:+.1%}"] if c.uplift is not None else []
        money = (f"{c.value:,.2f}", f"{c.profit:,.2f}")
        table.add_row(str(place), c.user, percent(c.probability), *kept, c.segment, *money)
    stdout.print(table)
    more = f", the first 20 shown{'' if out is None else f', all in {out}'}" if len(found.contacts) > 20 else ""
    if not found.contacts and budget < cost:
        stdout.print(f"A budget of {budget:g} does not pay for one contact at {cost:g}.", highlight=False)
    beside = ", ".join(f"{name} {profit:,.0f}" for name, profit in found.others.items())
    stdout.print(
        f"{len(found.contacts):,} of {found.users:,} users are worth a contact within the budget{more}. Expected "
        f"profit {found.profit:,.0f} [{found.low:,.0f}, {found.high:,.0f}] for {found.spent:,.0f}; the same budget by "
        f"{beside}. Who leaves is taken to take a year's value along. "
        + ("" if known else f"That a contact keeps {accept:.0%} of leavers is an assumption; ")
        + f"{'Its' if known else 'its'} effect is {found.uplift}.",
        highlight=False,
    )
    if found.measured is not None and found.measured.evaluation is not None:
        show_measured(found.measured, found.measured.evaluation)
    swings = Table("if", "is", "contacts", "profit", box=None)
    for told in found.sensitivity:
        swings.add_row(told["assumption"], f"{told['value']:g}", f"{told['contacts']:,}", f"{told['profit']:,.0f}")
    stdout.print(swings)
    if found.experiment["users_per_arm"] and not known:
        stdout.print(
            f"To measure it: {found.experiment['users_per_arm']:,} users an arm. {found.experiment['how']}",
            highlight=False,
        )


def show_measured(measured: Measured, evaluation: Evaluation) -> None:
    """The experiment's effect, and what it would have been worth to contact by it."""

    def told(metric: Metric) -> str:
        return f"{100 * metric.value:.1f} [{100 * metric.low:.1f}, {100 * metric.high:.1f}]"

    average = evaluation.average
    sure = (
        ""
        if average.low > 0 or average.high < 0
        else " (not distinguishable from none: see the profit at either end, last lines)"
    )
    left_out = ", ".join(f"{count:,} {why}" for why, count in measured.dropped.items() if count)
    stdout.print(
        f"The experiment: {measured.treated:,} treated, {measured.users - measured.treated:,} controls"
        f"{f' (left out: {left_out})' if left_out else ''}; {measured.check.why}. A contact keeps {told(average)} of "
        f"100 users{sure}. Of 100 users, by contacting some, are kept:",
        highlight=False,
    )
    table = Table("contacted", "by uplift", "by risk", "at random", "uplift less risk", "", box=None)
    for policy in evaluation.policies:
        figures = (told(m) for m in (policy.uplift, policy.risk, policy.random, policy.difference))
        table.add_row(f"{policy.share:.0%}", *figures, policy.verdict)
    stdout.print(table)
