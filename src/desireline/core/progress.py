"""Progress bars with rate and time left, on stderr, so that stdout stays for answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

console = Console(stderr=True)


class _Rate(TextColumn):
    def __init__(self, unit: str) -> None:
        super().__init__("")
        self.unit = unit

    def render(self, task):  # type: ignore[no-untyped-def]  # noqa: ANN001
        from rich.text import Text

        return Text(f"{task.speed:,.0f} {self.unit}/s" if task.speed else "", style="cyan")


@contextmanager
def progress(description: str, total: float | None, unit: str = "events") -> Iterator[Callable[..., None]]:
    """A bar for `total` units of work; yields `advance(n, note="")`.

    Nothing is drawn when stderr is no terminal. `total=None` shows rate and elapsed time only.
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%" if total else ""),
        _Rate(unit),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task: TaskID = bar.add_task(description, total=total)

        def advance(n: float = 1, note: str = "") -> None:
            bar.update(task, advance=n, description=f"{description} {note}".rstrip())

        yield advance


def say(message: str) -> None:
    """One line for the person at the terminal, on stderr."""
    console.print(message, highlight=False, markup=False, soft_wrap=True)
