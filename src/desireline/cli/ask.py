"""The answers' commands: predict, report, version."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from desireline.cli.learn import TaskName
from desireline.cli.shared import AsJson, Folder, Set, app, settings, show, stdout
from desireline.core.errors import SourceError
from desireline.core.words import duration


@app.command()
def predict(
    folder: Folder,
    task: TaskName,
    user: Annotated[str | None, typer.Option(help="A user of the log.")] = None,
    history: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Events of somebody unknown, as JSON lines.")
    ] = None,
    everybody: Annotated[bool, typer.Option("--all", help="Answer for every user, into --out.")] = False,
    out: Annotated[Path | None, typer.Option(metavar="FILE.parquet", help="Where --all writes.")] = None,
    k: Annotated[int, typer.Option(help="Items in a list.")] = 10,
    only: Annotated[str | None, typer.Option(help="`new`: nothing that the user already had.")] = None,
    deny: Annotated[Path | None, typer.Option(metavar="FILE", help="Items never shown, one a line.")] = None,
    stock: Annotated[Path | None, typer.Option(metavar="FILE", help="Show these items only, one a line.")] = None,
    as_of: Annotated[str | None, typer.Option(help="The moment of the question; default: the log's last.")] = None,
    model: Annotated[str | None, typer.Option(help="Another model than the one that answers.")] = None,
    set_: Set = None,
    as_json: AsJson = False,
) -> None:
    """What a user does next, or what to show."""
    from desireline.tasks.anomaly.cards import AnomalyAnswer
    from desireline.tasks.churn.answers import ChurnAnswer, percent
    from desireline.workspace import open_workspace

    if sum([user is not None, history is not None, everybody]) != 1:
        raise typer.BadParameter("name exactly one of --user U, --history FILE and --all")
    if everybody and out is None:
        raise typer.BadParameter("--all needs --out FILE.parquet")
    if out is not None and not everybody:
        raise typer.BadParameter("--out belongs to --all; the answer for one is printed, with --json for machines")
    if only not in (None, "new"):
        raise typer.BadParameter("--only knows `new` alone")
    workspace = open_workspace(folder).with_settings(settings(set_))
    filters: dict[str, Any] = {"as_of": as_of, "k": k, "only_new": only == "new", "model": model}
    filters |= {"deny": _items(deny) or [], "stock": _items(stock)}
    if everybody:
        assert out is not None
        rows = workspace.predict_all(task, out, **filters)
        if as_json:
            show({"out": str(out), "rows": rows}, True)
        else:
            stdout.print(f"Wrote {rows:,} rows to {out}.", highlight=False)
        return
    answer = workspace.predict(task, user, history=history, **filters)
    if as_json:
        show(answer, True)
        return
    stdout.print(f"{task} for {answer.user} as of {answer.as_of}", highlight=False)
    for part in ("events", "items"):
        rows_of = getattr(answer, part, [])
        if rows_of:
            shown = [name for name in vars(rows_of[0]) if name != "evidence"]  # ids of events tell a person nothing
            table = Table(*shown, box=None)
            for row in rows_of:
                values = [getattr(row, name) for name in shown]
                table.add_row(
                    *(
                        f"{v:.4f}" if isinstance(v, float) else "; ".join(v) if isinstance(v, list) else str(v)
                        for v in values
                    )
                )
            stdout.print(table)
    if isinstance(answer, ChurnAnswer):
        away = f"gone for {duration(answer.horizon_s)} with {percent(answer.probability)}"
        stdout.print(f"{away} · {answer.segment}", highlight=False)
        for reason in answer.reasons:
            stdout.print(f"  {reason}", highlight=False)
        if answer.unnamed is not None:
            stdout.print(answer.unnamed, highlight=False)
        stdout.print(answer.level, style="dim", highlight=False)
    if isinstance(answer, AnomalyAnswer):
        rare = (
            f"as improbable as 1 account in {1 / answer.p_value:,.0f}" if answer.p_value < 0.1 else "nothing stands out"
        )
        stdout.print(rare, highlight=False)
        for kind in answer.kinds:
            stdout.print(f"  {kind.kind}: score {kind.score:.1f}", highlight=False)
            for reason in kind.reasons:
                stdout.print(f"    {escape(reason)}", highlight=False)
    waited = getattr(answer, "time_to_next", None)
    if waited is not None and waited.median_s is not None:
        stdout.print(
            f"next event in {duration(waited.median_s)}; eight times in ten between {duration(waited.p10_s)} and "
            f"{duration(waited.p90_s)}",
            highlight=False,
        )


def _items(path: Path | None) -> list[str] | None:
    if path is None:
        return None
    try:
        return [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"The item list {path} cannot be read: {error}.") from error


@app.command()
def report(
    folder: Folder,
    out: Annotated[Path | None, typer.Option(metavar="FILE.html", help="Default: DIR/report.html.")] = None,
    as_json: AsJson = False,
) -> None:
    """One self-contained HTML page: the log's health, the tables, the plots, examples."""
    from desireline.workspace import open_workspace

    path = open_workspace(folder).report(out)
    if as_json:
        show({"out": str(path)}, True)
    else:
        stdout.print(f"Wrote {path}.", highlight=False)


@app.command()
def version(as_json: AsJson = False) -> None:
    """The versions of desireline and of what its results depend on."""
    import platform

    import numpy
    import polars
    import torch

    from desireline.version import __version__

    found = {
        "desireline": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "polars": polars.__version__,
        "numpy": numpy.__version__,
    }
    if as_json:
        show(found, True)
    else:
        stdout.print(" · ".join(f"{name} {number}" for name, number in found.items()), highlight=False)
