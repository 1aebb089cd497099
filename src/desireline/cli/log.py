"""The log's commands: init, ingest, check, prepare."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from desireline.cli.shared import AsJson, Cut, Folder, Set, app, settings, show, stdout


@app.command()
def init(
    folder: Folder,
    source: Annotated[
        str, typer.Option("--from", metavar="FILE", help="A file, folder or SQL URL to guess the schema from.")
    ],
    preset: Annotated[str | None, typer.Option(help="retail, finance, health or education; default: guessed.")] = None,
    as_json: AsJson = False,
) -> None:
    """Guess a schema from a file, write DIR/desireline.yaml, say what was guessed."""
    from desireline.workspace import SCHEMA_FILE, init_workspace

    workspace, notes = init_workspace(folder, source=source, preset=preset)
    path = workspace.folder / SCHEMA_FILE
    if as_json:
        show(
            {"schema": str(path), "notes": [{"key": n.key, "text": n.text, "ambiguous": n.ambiguous} for n in notes]},
            True,
        )
        return
    table = Table(title=f"Guessed from {source}", title_justify="left", show_header=False, box=None)
    for note in notes:
        table.add_row("[yellow]?[/]" if note.ambiguous else "✓", note.key, note.text)
    stdout.print(table)
    doubtful = sum(note.ambiguous for note in notes)
    stdout.print(
        f"Wrote {path}."
        + (f" {doubtful} guesses marked ? are ambiguous: look at them before you ingest." if doubtful else ""),
        highlight=False,
    )


@app.command()
def ingest(
    folder: Folder,
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE...", help="Files (csv, tsv, jsonl, parquet; gz, zst), folders, globs, SQL URLs."
        ),
    ],
    as_json: AsJson = False,
) -> None:
    """Store events; what is stored already is not stored twice, what is wrong goes to quarantine."""
    from desireline.workspace import open_workspace

    counts = open_workspace(folder).ingest(*sources)
    if as_json:
        show(counts, True)
        return
    stdout.print(
        f"read {counts.read:,} = stored {counts.stored:,} + duplicate {counts.duplicate:,} + quarantined "
        f"{counts.quarantined:,}",
        highlight=False,
    )
    if counts.quarantined:
        stdout.print(f"`desireline check {folder}` lists the reasons of the quarantined rows.", highlight=False)


@app.command()
def check(folder: Folder, as_json: AsJson = False) -> None:
    """The log's health on one screen."""
    from desireline.workspace import open_workspace

    show(open_workspace(folder).check(), as_json)


@app.command()
def prepare(folder: Folder, cut: Cut = None, set_: Set = None, as_json: AsJson = False) -> None:
    """Clean, encode, normalise, sessionise; features and sequences as of the cut."""
    from desireline.workspace import open_workspace

    prepared = open_workspace(folder).with_settings(settings(set_)).prepare(cut)
    before, after = prepared.before, prepared.after
    facts = {
        "prepared": prepared.folder.name,
        "cut": prepared.cut.isoformat().replace("+00:00", "Z"),
        "before": {"users": len(before), "events": before.events},
        "after": {"users": len(after), "events": after.events},
        "items": len(prepared.items),
        "features": len(prepared.features.columns) - 1,
        "removed": prepared.counts["removed"],
        "clipped": prepared.counts["clipped"],
    }
    if as_json:
        show(facts, True)
        return
    stdout.print(
        f"cut {facts['cut']}: {before.events:,} events of {len(before):,} users before it, {after.events:,} of "
        f"{len(after):,} after it; "
        f"{len(prepared.items):,} items, {facts['features']} features a user",
        highlight=False,
    )
    for rule, count in prepared.counts["removed"].items():
        stdout.print(f"  left out by cleaning, {rule}: {count:,}", highlight=False)
    if prepared.counts["clipped"]:
        stdout.print(f"  extreme values clipped: {prepared.counts['clipped']:,}", highlight=False)
