"""An expression's text, with its backticked column names, read into Python's syntax tree."""

from __future__ import annotations

import ast
import difflib
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from desireline.core.errors import SchemaError

MAX_LENGTH = 10_000  # characters; a longer text is a mistake, and Python's parser recurses on it
MAX_DEPTH = 100


@dataclass(frozen=True)
class Source:
    """An expression's text on one line, its backticked names replaced, and its tree."""

    text: str
    tree: ast.expr
    quoted: Mapping[str, str]  # placeholder -> column name

    @staticmethod
    def of(text: str, where: str) -> Source:
        """Parse a text. Raises SchemaError, beginning with `where`, when it is no expression."""
        if not text.strip():
            raise SchemaError(f"{where}: the expression is empty; write a column's name or take the key away.")
        if len(text) > MAX_LENGTH:
            raise SchemaError(f"{where}: the expression has {len(text)} characters; {MAX_LENGTH} are allowed.")
        line, quoted = _replace_backticks(text, where)
        try:
            tree = ast.parse(line, mode="eval").body
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            reason = error.msg if isinstance(error, SyntaxError) else "it is nested too deeply or holds a NUL"
            raise SchemaError(
                f"{where}: `{text[:200]}` cannot be read as an expression ({reason}). "
                "Put a column's name in `backticks` when it has spaces or signs in it."
            ) from error
        _check_depth(tree, where)
        return Source(line, tree, quoted)

    def column(self, node: ast.Name) -> str:
        """The column that a name means."""
        # The parser NFKC-normalises identifiers, so a name is taken from the text, where it is as the file has it.
        raw = ast.get_source_segment(self.text, node) or node.id
        return self.quoted.get(raw, raw)


def _replace_backticks(text: str, where: str) -> tuple[str, dict[str, str]]:
    prefix = "quoted_"
    while prefix in text:
        prefix += "_"
    parts: list[str] = []
    quoted: dict[str, str] = {}
    position, text = 0, " ".join(text.strip().splitlines())
    while position < len(text):
        sign = text[position]
        end = position + 1
        if sign in "'\"`":
            while end < len(text) and text[end] != sign:
                end += 2 if text[end] == "\\" and sign != "`" else 1
            end += 1
        if sign == "`":
            if end > len(text) or end - position == 2:
                raise SchemaError(f"{where}: `{text[:200]}` has a backtick without its partner or a name between them.")
            name = f"{prefix}{len(quoted)}"
            quoted[name] = text[position + 1 : end - 1]
            parts.append(name)
        else:
            parts.append(text[position:end])
        position = end
    return "".join(parts), quoted


def _check_depth(tree: ast.expr, where: str) -> None:
    level: list[ast.AST] = [tree]
    for _ in range(MAX_DEPTH):
        level = [child for node in level for child in ast.iter_child_nodes(node)]
        if not level:
            return
    raise SchemaError(f"{where}: the expression is nested more than {MAX_DEPTH} deep; write it shorter.")


def missing_columns(
    missing: Collection[str], present: Collection[str], where: str, source: str = "the source"
) -> SchemaError:
    """The error for columns that a source should have: names them, their likely meaning, and what is there."""
    parts = []
    for name in missing:
        close = difflib.get_close_matches(name.casefold(), [p.casefold() for p in present], n=2, cutoff=0.6)
        near = [p for p in present if p.casefold() in close][:2]
        parts.append(f'"{name}"' + (f" (did you mean {' or '.join(near)}?)" if near else ""))
    there = ", ".join(list(present)[:40]) + (f" and {len(present) - 40} more" if len(present) > 40 else "")
    return SchemaError(
        f"{where} needs the column{'s' if len(parts) > 1 else ''} {', '.join(parts)}, which {source} does not have. "
        f"It has: {there or 'none'}. Correct the names in desireline.yaml, or check the file's delimiter and header."
    )
