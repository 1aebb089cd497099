"""The command demo: the whole way on real data that the package carries."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import polars as pl
import typer

from desireline.cli.shared import AsJson, Seed, app, show, stdout
from desireline.core.errors import StoreError
from desireline.core.progress import say
from desireline.data import ATTRIBUTION, online_retail_ii
from desireline.workspace import SCHEMA_FILE, init_workspace


@app.command()
def demo(
    out: Annotated[Path, typer.Option(metavar="DIR", help="The workspace that is made.")] = Path("demo"),
    quick: Annotated[
        bool, typer.Option("--quick", help="A tenth of the customers, one encoder, one seed: under two minutes.")
    ] = False,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Two real years of a British gift shop: learn, recommend, compare, choose, report."""
    if (out / SCHEMA_FILE).exists():
        say(f"{out} is there already: made anew.")
        shutil.rmtree(out)
    elif out.exists() and any(out.iterdir()):
        raise StoreError(f"{out} is a folder with other things in it: name an empty one with --out.")
    say(f"Data: {ATTRIBUTION}")
    source = _source(out, quick)
    say("1/6 init: guessing the schema")
    workspace, notes = init_workspace(out, source=source)
    for note in notes:
        say(f"    {note.key}: {note.text}")
    say("2/6 ingest")
    counts = workspace.ingest(source)
    say(
        f"    read {counts.read:,} = stored {counts.stored:,} + duplicate {counts.duplicate:,} + quarantined "
        f"{counts.quarantined:,}"
    )
    say("3/6 check")
    if not as_json:
        stdout.print(workspace.check())
    say("4/6 prepare")
    prepared = workspace.prepare()
    say(
        f"    {prepared.before.events:,} events of {len(prepared.before):,} customers before the cut "
        f"{prepared.cut:%Y-%m-%d}"
    )
    say("5/6 compare")
    results = []
    for task, encoders, settings in _plan(quick):
        model = workspace.with_settings(settings).compare(task, encoders, seed=seed)
        results.append(model.result)
        if not as_json:
            stdout.print(model.result)
    say("6/6 report")
    path = workspace.report()
    if as_json:
        show({"results": [r.to_json() for r in results], "report": str(path)}, True)
    else:
        stdout.print(f"Report: {path}", highlight=False)


def _plan(quick: bool) -> list[tuple[str, list[str], dict[str, str]]]:
    """Task, encoders and settings of each comparison: small networks, sized for two cores and a coffee."""
    small = {"d_model": "32", "layers": "1", "length": "50"}
    if quick:
        few = small | {"seeds": "1", "epochs": "2"}
        return [("recommend", ["gru"], few), ("next_event", ["gru"], few)]
    return [
        ("recommend", ["transformer"], small | {"epochs": "2", "batch_targets": "1024"}),
        ("next_event", ["gru"], small | {"epochs": "1", "batch_targets": "2048"}),
    ]


def _source(out: Path, quick: bool) -> Path:
    """The shipped file, or for a quick look the rows of every tenth customer."""
    whole = online_retail_ii()
    if not quick:
        return whole
    rows = pl.read_parquet(whole)
    hashed = pl.col("customer_id").cast(pl.Int64, strict=False) % 10 == 0
    out.mkdir(parents=True, exist_ok=True)
    path = out / "every_tenth_customer.parquet"
    rows.filter(hashed).write_parquet(path)
    say(f"Quick: every tenth customer, {rows.filter(hashed).height:,} of {rows.height:,} rows.")
    return path
