"""Where output goes: tables and JSON to standard output, progress and errors to standard error."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

output = Console(highlight=False, width=None if sys.stdout.isatty() else 200)
errors = Console(stderr=True, highlight=False, soft_wrap=True, markup=False)


def print_json(value: Any) -> None:
    """Print a value as JSON for programs; what is not a finite number is null."""
    print(json.dumps(_plain(value), indent=2, default=str))  # noqa: T201


def json_line(value: Any) -> None:
    """The same in one line, for programs that read one after another."""
    print(json.dumps(_plain(value), default=str), flush=True)  # noqa: T201


def table(title: str | None, *columns: str, right: tuple[str, ...] = ()) -> Table:
    """An empty table; the columns named in `right` hold numbers."""
    made = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, header_style="dim")
    for column in columns:
        made.add_column(column, justify="right" if column in right else "left", no_wrap=column in right)
    return made


@contextmanager
def counting(what: str, of: str) -> Iterator[Callable[[int, int], None]]:
    """Gives a function to be told how much of how much is done; a bar in a terminal, one line in a pipe.

    Nothing is shown where it is never called.
    """
    columns = TextColumn(what), BarColumn(), TextColumn("{task.completed}/{task.total} " + of), TimeRemainingColumn()
    bar = Progress(*columns, console=errors, transient=True)
    task = bar.add_task(what, total=None)

    def tell(done: int, total: int) -> None:
        if errors.is_terminal:
            bar.start()
            bar.update(task, completed=done, total=total)
        elif done == total:
            errors.print(f"{what}: {total} {of}")

    try:
        yield tell
    finally:
        bar.stop()


def number(value: float | None, digits: int = 4) -> str:
    """A number with so many decimals; a dash where there is none."""
    return "-" if value is None else f"{value:.{digits}f}"


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return value if abs(value) < float("inf") else None  # false for NaN too
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
