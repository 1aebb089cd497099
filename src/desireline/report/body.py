"""The page's body as it grows: sections, figures and tables, every text escaped where it enters."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any


class Body:
    """The HTML so far, the charts that it holds and the sections to jump to."""

    def __init__(self) -> None:
        self.parts: list[str] = []
        self.specs: dict[str, dict[str, Any]] = {}
        self.sections: list[tuple[str, str]] = []

    def add(self, html: str) -> None:
        """Append HTML; what comes from a log must be escaped already."""
        self.parts.append(html)

    def section(self, anchor: str, title: str) -> None:
        """Begin a section with a heading that the page's navigation links to."""
        self.sections.append((anchor, title))
        self.add(f'<h2 id="{escape(anchor)}">{escape(title)}</h2>')

    def figure(self, spec: dict[str, Any] | None, title: str, note: str = "", says: str = "") -> str:
        """A chart with its title; "" for a chart that has nothing to show.

        Parameters
        ----------
        spec
            A Vega-Lite specification.
        title, note
            The caption, and a softer half-sentence behind it.
        says
            What the chart shows, in words, for who cannot see it; default: the caption.
        """
        if spec is None:
            return ""
        name = f"chart-{len(self.specs) + 1}"
        self.specs[name] = spec
        label = escape(says or f"{title}. {note}".strip())
        behind = f" <span>{escape(note)}</span>" if note else ""
        return (
            f"<figure><figcaption>{escape(title)}{behind}</figcaption>"
            f'<div id="{name}" class="chart" role="img" aria-label="{label}"></div></figure>'
        )


def number(value: float) -> str:
    """A count with separators."""
    return f"{value:,.0f}"


def columns(parts: Iterable[str], kind: str = "two") -> str:
    """Blocks side by side where there is room; "" without any."""
    html = "".join(parts)
    return f'<div class="{kind}">{html}</div>' if html else ""


def small_table(caption: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of plain texts, the first column names the row; "" without rows."""
    if not rows:
        return ""
    titles = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in head)
    lines = "".join(
        f'<tr><th scope="row">{escape(row[0])}</th>{"".join(f"<td>{escape(cell)}</td>" for cell in row[1:])}</tr>'
        for row in rows
    )
    return (
        f'<div class="scroll"><table><caption>{escape(caption)}</caption><thead><tr>{titles}</tr></thead>'
        f"<tbody>{lines}</tbody></table></div>"
    )
