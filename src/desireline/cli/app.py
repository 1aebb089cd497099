"""The command `desireline`: what all commands share. Each command parses, calls the API and prints.

Answers go to stdout, as JSON with `--json`; bars, notes and errors go to stderr. Status 0: done; 1: an error of the
user's, in one message; 2: wrong usage.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from desireline.core.errors import DesirelineError, SettingError

app = typer.Typer(
    name="desireline",
    help="Read the trail that users leave in an event log, learn one sequence model of it, and ask it what comes next.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
stdout = Console(width=None if sys.stdout.isatty() else 120)

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="The workspace folder.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
Seed = Annotated[int, typer.Option(help="Of every random choice.")]
Cut = Annotated[
    str | None, typer.Option(help="The as-of moment, as 2011-09-01; what comes at it or after is held out.")
]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="A setting of desireline.yaml, by its name; may be given again."),
]
Protocol = Annotated[str | None, typer.Option(help="temporal or leave-one-out.")]


def settings(pairs: list[str] | None) -> dict[str, str]:
    """`KEY=VALUE` texts as a dict. Raises SettingError for a text without `=`."""
    found = {}
    for pair in pairs or []:
        key, sign, value = pair.partition("=")
        if not sign:
            raise SettingError(f"--set {pair}: write it as KEY=VALUE.")
        found[key.strip()] = value.strip()
    return found


def show(value: Any, as_json: bool) -> None:
    """Print an answer: as JSON for machines, as rich draws it for people."""
    if as_json:
        raw = (
            value.to_json()
            if hasattr(value, "to_json")
            else asdict(value)
            if is_dataclass(value) and not isinstance(value, type)
            else value
        )
        sys.stdout.write(json.dumps(raw, ensure_ascii=False, default=str, allow_nan=False) + "\n")
    else:
        stdout.print(value, soft_wrap=False)


def main() -> None:
    """Run the command line; the only place where an error becomes a message and a status."""
    if hasattr(signal, "SIGPIPE"):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    from desireline.cli import ask, demo, learn, log

    _ = (ask, demo, learn, log)  # importing them registers their commands
    try:
        app()
    except DesirelineError as error:
        _fail(str(error))
    except MemoryError:
        _fail("The machine has no memory left for this. Close other programs, or use a smaller log or catalogue.")
    except KeyboardInterrupt:
        sys.stderr.write("Stopped. What was stored is whole; run the same command to go on.\n")
        os._exit(130)


def _fail(message: str) -> None:
    sys.stderr.write(f"Error: {message}\n")
    raise SystemExit(1)
