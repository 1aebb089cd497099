"""The commands about fraud: inject."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from desireline.cli.shared import AsJson, Folder, Seed, app, show, stdout


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
        str | None, typer.Option(help="The window's begin; default: the cut that holds out the log's last tenth.")
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
