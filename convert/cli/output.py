"""What commands print."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from ..progress import Progress


def progress_bar(silent: bool) -> Progress:
    from rich.console import Console

    from ..bar import progress_for
    from ..progress import Progress

    return Progress() if silent else progress_for(Console(stderr=True))


def print_json(report: dict[str, Any]) -> None:
    # ASCII, so that any terminal encoding and any file name give valid JSON.
    typer.echo(json.dumps(report, indent=2))


def print_lines(lines: list[str], *, to_stderr: bool = False) -> None:
    for line in lines:
        typer.echo(line, err=to_stderr)


def print_table(table: Any) -> None:
    """Prints a table at its full width: a redirected table is for tools and must not be cut."""
    from rich.console import Console
    from rich.measure import Measurement

    console = Console()
    needed = Measurement.get(console, console.options.update(max_width=10_000), table).maximum
    console.width = max(console.width, needed)
    console.print(table, crop=False, overflow="ignore")
