"""The models' commands: fit, compare, tune, evaluate, models."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from desireline.cli.shared import AsJson, Cut, Folder, Protocol, Seed, Set, app, settings, show, stdout

TaskName = Annotated[str, typer.Option("--task", help="next_event, recommend, churn or anomaly.")]


def listed(names: str) -> list[str]:
    """`a, b` as a list."""
    return [name.strip() for name in names.split(",") if name.strip()]


@app.command()
def fit(
    folder: Folder,
    task: TaskName,
    encoder: Annotated[str, typer.Option(help="rnn, lstm, gru, seqcnn, gnn, transformer or hstu.")] = "gru",
    epochs: Annotated[
        int | None, typer.Option(help="Train exactly so many; default: until validation no longer gains.")
    ] = None,
    adapt: Annotated[
        str | None,
        typer.Option(
            help="Of churn: let the encoder learn next behaviour, and trees read its states: frozen (these alone) or "
            "fused (beside the aggregates). Default: it learns the task itself."
        ),
    ] = None,
    protocol: Protocol = None,
    cut: Cut = None,
    seed: Seed = 0,
    set_: Set = None,
    as_json: AsJson = False,
) -> None:
    """Train one encoder for a task and test it."""
    from desireline.workspace import open_workspace

    model = (
        open_workspace(folder)
        .with_settings(settings(set_))
        .fit(task, encoder, adapt=adapt, cut=cut, protocol=protocol, seed=seed, epochs=epochs)
    )
    show(model.result, as_json)


@app.command()
def compare(
    folder: Folder,
    task: TaskName,
    encoders: Annotated[str | None, typer.Option(help="Names, with commas between them; default: all.")] = None,
    protocol: Protocol = None,
    cut: Cut = None,
    seed: Seed = 0,
    set_: Set = None,
    as_json: AsJson = False,
) -> None:
    """Train all, baselines included, and choose the best by the one-standard-error rule."""
    from desireline.workspace import open_workspace

    names = None if encoders is None else listed(encoders)
    model = (
        open_workspace(folder).with_settings(settings(set_)).compare(task, names, cut=cut, protocol=protocol, seed=seed)
    )
    show(model.result, as_json)


@app.command()
def tune(
    folder: Folder,
    task: TaskName,
    trials: Annotated[int, typer.Option(help="Of each encoder, those of earlier runs included.")],
    encoders: Annotated[str, typer.Option(help="Names, with commas between them.")] = "gru",
    minutes: Annotated[float | None, typer.Option(help="End after so many; a trial that runs is finished.")] = None,
    protocol: Protocol = None,
    cut: Cut = None,
    seed: Seed = 0,
    set_: Set = None,
    as_json: AsJson = False,
) -> None:
    """Search an encoder's settings on validation; goes on where an earlier search stopped."""
    from desireline.workspace import open_workspace

    workspace = open_workspace(folder).with_settings(settings(set_))
    found = workspace.tune(
        task, listed(encoders), trials=trials, minutes=minutes, cut=cut, protocol=protocol, seed=seed
    )
    show(found, as_json)


@app.command()
def evaluate(
    folder: Folder,
    model: Annotated[str | None, typer.Option(help="A name that `desireline models` lists.")] = None,
    protocol: Protocol = None,
    show_split: Annotated[
        str | None,
        typer.Option(
            "--show-split", metavar="USER", help="Print what each split sees, learns from and asks of one user."
        ),
    ] = None,
    cut: Cut = None,
    seed: Seed = 0,
    set_: Set = None,
    as_json: AsJson = False,
) -> None:
    """Ask a saved model the test questions, or show one user's split."""
    from desireline.workspace import open_workspace

    workspace = open_workspace(folder).with_settings(settings(set_))
    if show_split is not None:
        show(workspace.show_split(show_split, protocol, cut), as_json)
        return
    if model is None:
        raise typer.BadParameter("name a model (--model NAME) or a user (--show-split USER)")
    if cut is not None:
        raise typer.BadParameter("--cut belongs to --show-split: a model is asked what came after its own cut")
    show(workspace.evaluate(model, protocol, seed), as_json)


@app.command()
def models(folder: Folder, as_json: AsJson = False) -> None:
    """The models of a workspace; those that answer are marked."""
    from desireline.workspace import open_workspace

    found = open_workspace(folder).models()
    if as_json:
        show({"models": found}, True)
        return
    table = Table("", "model", "task", "row", "cut", "seed", "protocol", box=None)
    for m in found:
        table.add_row(
            "→" if m["answers"] else "", m["id"], m["task"], m["name"], m["cut"], str(m["seed"]), m["protocol"]
        )
    stdout.print(table if found else "No model yet: run `desireline compare`.")
