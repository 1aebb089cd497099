"""Writes the reference pages that the code itself knows best: docs/reference/settings.md and docs/reference/cli.md.

python docs/generate.py            write both
python docs/generate.py --check    exit 1 when a committed page is not what the code says now
"""

from __future__ import annotations

import sys
import types
from collections.abc import Iterable, Iterator
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from desireline.schema.model import Schema

REFERENCE = Path(__file__).parent / "reference"

SETTINGS_HEAD = """\
# Settings

Every key of `desireline.yaml`, as the code declares it (this page is generated: `make docs`). `desireline init` writes
the file with a comment for each guess. `--set KEY=VALUE` changes a key for one run; KEY is the last part of its name,
as in `--set lr=0.001`, or the whole dotted name where the last part alone is ambiguous. A key that is not listed here
is an error. `NAME` stands for a name that you choose, `[]` for each entry of a list.
"""

CLI_HEAD = """\
# Commands

What `desireline COMMAND --help` prints, in one page (generated from the program: `make docs`). Every command that works
on a workspace takes its folder first. Answers go to stdout, progress and warnings to stderr. Exit status: 0 success, 1
an error that you can mend (one message, no traceback), 2 wrong usage.
"""


def settings_page() -> str:
    """Markdown of every setting of the schema's pydantic model."""
    lines = [SETTINGS_HEAD]
    groups = _groups()
    lines += _table("The log", [row for row in _rows(Schema, "") if row[0].split(".")[0] not in groups])
    for name, model in groups.items():
        lines += _table(f"`{name}`", list(_rows(model, f"{name}.")), (model.__doc__ or "").strip().split("\n")[0])
    return "\n".join(lines).rstrip() + "\n"


def setting_names() -> list[str]:
    """The dotted name of every setting, in the schema's order."""
    return [name for name, *_ in _rows(Schema, "")]


def cli_page() -> str:
    """Markdown of every command of the Typer program, its arguments and options."""
    lines = [CLI_HEAD]
    for name, command in commands().items():
        arguments = [p for p in command.params if _is_argument(p)]
        options = [p for p in command.params if not _is_argument(p) and not p.hidden and p.name != "help"]
        usage = " ".join(
            ["desireline", name, *(_argument_usage(a) for a in arguments), *(["[OPTIONS]"] if options else [])]
        )
        lines += [f"## {name}", "", _cell((command.help or "").strip(), keep_lines=True), "", f"```\n{usage}\n```", ""]
        described = [(f"`{_metavar(a)}`", _cell(a.help or ""), "required" if a.required else "") for a in arguments]
        described += [(_option_names(o), _cell(o.help or ""), _option_default(o)) for o in options]
        if described:
            lines += ["| argument or option | meaning | default |", "|---|---|---|"]
            lines += [f"| {names} | {meaning} | {default} |" for names, meaning, default in described]
            lines += [""]
    return "\n".join(lines).rstrip() + "\n"


def commands() -> dict[str, Any]:
    """The program's visible commands by name, in alphabetical order."""
    import pkgutil
    from importlib import import_module

    import typer

    import desireline.cli
    from desireline.cli.app import app

    for module in pkgutil.iter_modules(desireline.cli.__path__, "desireline.cli."):
        import_module(module.name)  # a command is registered when its module is imported
    group: Any = typer.main.get_command(app)
    return {name: command for name, command in sorted(group.commands.items()) if not command.hidden}


# Settings --------------------------------------------------------------------------------------------------------


def _groups() -> dict[str, type[BaseModel]]:
    """The groups of settings that get a table of their own."""
    kinds = {name: field.annotation for name, field in Schema.model_fields.items()}
    return {
        name: kind
        for name, kind in kinds.items()
        if isinstance(kind, type) and issubclass(kind, BaseModel) and kind.__name__.endswith("Settings")
    }


def _rows(model: type[BaseModel], prefix: str) -> Iterator[tuple[str, str, str, str]]:
    """Name, type, default, meaning of each leaf below a model."""
    for name, field in model.model_fields.items():
        inner, suffix = _inner(field.annotation)
        if inner is not None:
            yield from _rows(inner, f"{prefix}{name}{suffix}.")
        else:
            yield f"{prefix}{name}", _type(field), _default(field), field.description or ""


def _inner(annotation: Any) -> tuple[type[BaseModel] | None, str]:
    """The model inside an annotation, and what stands for its place: X, X | None, list[X], dict[str, X]."""
    places: dict[Any, str] = {list: "[]", dict: ".NAME"}
    for part in [annotation, *get_args(annotation)]:
        if isinstance(part, type) and issubclass(part, BaseModel):
            return part, places.get(get_origin(annotation), "")
    return None, ""


def _type(field: FieldInfo) -> str:
    return _words(field.annotation) + _bounds(field.metadata)


def _bounds(rules: Iterable[Any]) -> str:
    """What a number must keep to, with a comma before it."""
    told = [
        f"{sign} {getattr(rule, name):g}"
        for rule in rules
        for name, sign in [("ge", "≥"), ("gt", ">"), ("le", "≤"), ("lt", "<")]
        if getattr(rule, name, None) is not None
    ]
    return f", {', '.join(told)}" if told else ""


def _words(annotation: Any) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return " or ".join(f"`{value}`" for value in arguments)
    if origin in (Union, types.UnionType):
        return " or ".join(_words(part) for part in arguments)
    if origin is Annotated:
        return _words(arguments[0]) + _bounds(rule for told in arguments[1:] for rule in told.metadata)
    if origin is list:
        return f"list of {_words(arguments[0])}"
    names = {str: "text", int: "whole number", float: "number", bool: "true or false", type(None): "null"}
    return names[annotation]


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    return "" if value is PydanticUndefined else f"`{_yaml(value)}`"


def _yaml(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return f"{value:g}" if isinstance(value, float) else str(value)


def _table(title: str, rows: list[tuple[str, str, str, str]], note: str = "") -> list[str]:
    lines = [f"## {title}", "", *([_cell(note), ""] if note else [])]
    lines += ["| setting | takes | default | meaning |", "|---|---|---|---|"]
    lines += [f"| `{name}` | {kind} | {default} | {_cell(meaning)} |" for name, kind, default, meaning in rows]
    return [*lines, ""]


# Commands --------------------------------------------------------------------------------------------------------


def _is_argument(parameter: Any) -> bool:
    return not any(name.startswith("-") for name in parameter.opts)


def _metavar(parameter: Any) -> str:
    name: str = parameter.metavar or parameter.name.upper()
    return name + "..." if parameter.nargs == -1 and not name.endswith("...") else name


def _argument_usage(parameter: Any) -> str:
    return _metavar(parameter) if parameter.required else f"[{_metavar(parameter)}]"


def _option_names(option: Any) -> str:
    names = ", ".join(f"`{name}`" for name in [*option.opts, *option.secondary_opts])
    return names if option.is_flag else f"{names} {_option_value(option)}"


def _option_value(option: Any) -> str:
    """What stands after an option: its metavar, its choices, or its type."""
    annotation = option.type_descriptor.annotation
    parts = [annotation, *get_args(annotation)]
    for part in parts:
        if isinstance(part, type) and issubclass(part, Enum):
            return " or ".join(f"`{member.value}`" for member in part)
        if get_origin(part) is Literal:
            return " or ".join(f"`{value}`" for value in get_args(part))
    if option.metavar:
        return f"`{option.metavar}`"
    names = {int: "INTEGER", float: "NUMBER", Path: "PATH"}
    return f"`{next((names[part] for part in parts if part in names), 'TEXT')}`"


def _option_default(option: Any) -> str:
    if option.required:
        return "required"
    value = option.default.value if isinstance(option.default, Enum) else option.default
    return "" if value is None or callable(value) or (option.is_flag and not value) else f"`{_yaml(value)}`"


def _cell(text: str, keep_lines: bool = False) -> str:
    """Text that may stand in a table's cell: one line, no bare bars."""
    return text if keep_lines else " ".join(text.split()).replace("|", "\\|")


PAGES = {"settings.md": settings_page, "cli.md": cli_page}


def main(arguments: list[str]) -> int:
    stale = []
    for name, page in PAGES.items():
        path, text = REFERENCE / name, page()
        if "--check" in arguments:
            if not path.is_file() or path.read_text(encoding="utf-8") != text:
                stale.append(name)
        else:
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
    if stale:
        print(
            f"docs/reference/{' and '.join(stale)} is not what the code says: run `python docs/generate.py`.",
            file=sys.stderr,
        )
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
