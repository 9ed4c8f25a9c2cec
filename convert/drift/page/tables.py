"""Tables: those of the terminal as HTML, and our own."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.table import Table
from rich.text import Text

from .markup import Child, Markup, element, joined

MOST_ROWS = 1000
"""Most rows of a table; how many are left out is said below it."""


def table(
    caption: str,
    columns: Sequence[str],
    rows: Iterable[Sequence[Child]],
    *,
    left: Sequence[str] = (),
    most: int = MOST_ROWS,
    style: str | None = None,
) -> Markup:
    """A table that scrolls by itself where it is too wide. The first cell of a row heads it; `left` are no numbers."""
    all_rows = list(rows)
    sides = ["left" if column in left else "right" for column in columns]
    head = [element("th", column, scope="col", class_=side) for column, side in zip(columns, sides, strict=True)]
    body = [element("tr", _cells(row, sides)) for row in all_rows[:most]]
    more = len(all_rows) - most
    return joined(
        element(
            "div",
            element(
                "table",
                element("caption", caption, class_="hidden"),
                element("thead", element("tr", head)),
                element("tbody", body),
                class_=style,
            ),
            class_="scroll",
            role="region",
            aria_label=caption,
            tabindex="0",
        ),
        element("p", f"{more:,} more rows are left out.", class_="small") if more > 0 else None,
    )


def _cells(row: Sequence[Child], sides: Sequence[str]) -> list[Markup]:
    first, *others = zip(row, sides, strict=True)
    cells = [element("th", first[0], scope="row", class_=first[1])]
    return cells + [element("td", value, class_=side) for value, side in others]


def from_terminal(caption: str, shown: Table, *, most: int = MOST_ROWS, is_numbered: bool = False) -> Markup:
    """A table of the terminal, with the very same text in its cells.

    If `is_numbered`, each row begins with its number.
    """
    headers = [_plain(column.header) for column in shown.columns]
    left = [header for header, column in zip(headers, shown.columns, strict=True) if column.justify == "left"]
    rows = list(zip(*(map(_plain, column.cells) for column in shown.columns), strict=True))
    if is_numbered:
        rows = [(f"{number}. {row[0]}", *row[1:]) for number, row in enumerate(rows, start=1)]
    return table(caption, headers, rows, left=left, most=most)


def _plain(cell: object) -> str:
    return cell.plain if isinstance(cell, Text) else Text.from_markup(str(cell)).plain
