"""The commands about fraud: alerts, inject."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from desireline.cli.shared import AsJson, Folder, Seed, Set, app, settings, show, stdout

if TYPE_CHECKING:
    from desireline.selection.alerts import Alert, Verdict

SHOWN = 8  # users of a group that a card names


@app.command()
def inject(
    folder: Folder,
    out: Annotated[Path, typer.Option(metavar="DIR2", help="The new workspace: a folder that is empty or not there.")],
    families: Annotated[
        str | None, typer.Option(metavar="A,B", help="Families of attacks; default: all that the log allows.")
    ] = None,
    intensity: Annotated[str, typer.Option(help="low, middle or high.")] = "middle",
    share: Annotated[
        float, typer.Option(help="Accounts of each family, as a share of those active in the window.")
    ] = 0.01,
    seed: Seed = 0,
    begin: Annotated[
        str | None,
        typer.Option(help="The window's begin; default: the cut that holds out the last tenth of the events."),
    ] = None,
    end: Annotated[str | None, typer.Option(help="The window's end; default: the log's.")] = None,
    as_json: AsJson = False,
) -> None:
    """Plant known attacks into a copy of the log, to measure what a scan finds of them."""
    from desireline.workspace import open_workspace

    names = None if families is None else [name.strip() for name in families.split(",") if name.strip()]
    if names == []:
        raise typer.BadParameter("name at least one family", param_hint="--families")
    found = open_workspace(folder).inject(
        out, families=names, intensity=intensity, share=share, seed=seed, begin=begin, end=end
    )
    if as_json:
        show(found, True)
        return
    table = Table("family", "accounts", "events", "what it is", box=None)
    for name, row in found.families.items():
        table.add_row(name, f"{row['accounts']:,}", f"{row['events']:,}", row["kind"] or "none, the control")
    stdout.print(table)
    for name, why in found.not_applicable.items():
        stdout.print(f"Not planted: {name}, since {why}.", highlight=False)
    stdout.print(
        f"{found.events:,} events of {found.accounts:,} accounts were planted into {found.out}; the truth stands in "
        f"{found.out / 'truth'}, outside the log.",
        highlight=False,
    )


@app.command()
def alerts(
    folder: Folder,
    capacity: Annotated[int | None, typer.Option(help="Alerts that people can look at; default: the schema's.")] = None,
    confirm: Annotated[str | None, typer.Option(metavar="ID", help="Keep that this alert was right.")] = None,
    dismiss: Annotated[str | None, typer.Option(metavar="ID", help="Keep that this alert was wrong.")] = None,
    fdr: Annotated[
        float | None, typer.Option(help="Let in only what keeps the share of false alarms below this.")
    ] = None,
    p_value: Annotated[float | None, typer.Option(help="Let in only what is as improbable as this.")] = None,
    as_of: Annotated[str | None, typer.Option(help="The moment of the question; default: the log's last.")] = None,
    model: Annotated[str | None, typer.Option(help="Another model than the one that answers.")] = None,
    seed: Seed = 0,
    set_: Set = None,
    as_json: AsJson = False,
) -> None:
    """The most suspicious accounts and groups, with the facts, the events behind them and what would clear them."""
    from desireline.workspace import open_workspace

    if confirm is not None and dismiss is not None:
        raise typer.BadParameter("an alert is either right or wrong: give --confirm or --dismiss")
    workspace = open_workspace(folder).with_settings(settings(set_))
    name = confirm if confirm is not None else dismiss
    if name is not None:
        verdict: Verdict = "confirmed" if confirm is not None else "dismissed"
        said = workspace.judge_alert(name, verdict, as_of=as_of, model=model)
        if as_json:
            show(said, True)
        else:
            stdout.print(f"{verdict.capitalize()}: {said['kind']}, {escape(_named(said['users']))}.", highlight=False)
        return
    found = workspace.alerts(capacity, as_of=as_of, fdr=fdr, p_value=p_value, model=model, seed=seed)
    if as_json:
        show(found, True)
        return
    for place, alert in enumerate(found.alerts, 1):
        _print_card(place, alert)
    stdout.print(
        f"{len(found.alerts):,} alerts of {found.accounts:,} accounts active from {found.window[0]} to "
        f"{found.window[1]}; {found.confirmed:,} confirmed and {found.dismissed:,} dismissed so far.",
        highlight=False,
    )


def _named(users: Sequence[str]) -> str:
    """The first of some users by name, the rest by number."""
    more = len(users) - SHOWN
    return ", ".join(users[:SHOWN]) + (f" and {more} more" if more > 0 else "")


def _print_card(place: int, alert: Alert) -> None:
    """One alert as a person reads it."""
    who = escape(_named(alert.users))
    mark = " · audit" if alert.audit else ""
    head = f"{place:>4}  [bold]{alert.kind}[/bold]  {who}  score {alert.score:.1f}{mark}  [dim]{alert.id}[/dim]"
    stdout.print(head, highlight=False)
    for reason in alert.reasons:
        stdout.print(f"      {escape(reason)}", highlight=False)
    beside = []
    if alert.nearest is not None and alert.nearest.differs:
        beside.append(f"normal and most alike: {alert.nearest.user} ({'; '.join(alert.nearest.differs)})")
    if alert.clears:
        beside.append(f"would clear it: {'; '.join(alert.clears)}")
    if alert.precision is not None:
        known = alert.precision
        beside.append(f"of this band {known.value:.0%} ({known.low:.0%} to {known.high:.0%}) were right: {known.by}")
    for line in beside:
        stdout.print(f"      {escape(line)}", style="dim", highlight=False)
