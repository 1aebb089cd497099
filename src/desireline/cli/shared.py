"""What all commands share: the application that they register with, common options, and how answers are printed."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from desireline.core.errors import SettingError

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
