"""Sections, tiles and notes."""

from __future__ import annotations

from collections.abc import Iterable

from .markup import Child, Markup, anchor, element, unbroken

Tile = tuple[str, str, str]
"""What it is, its value, and a word beside it ("" if there is none)."""


def section(title: str, *children: Child) -> Markup:
    """A part of the page under a heading."""
    name = anchor(title)
    return element("section", element("h2", title, id=name), children, aria_labelledby=name)


def tiles(found: Iterable[Tile]) -> Markup:
    """The figures that matter most."""
    return element(
        "dl",
        [
            element(
                "div", element("dt", label), element("dd", value, element("small", unbroken(word)) if word else None)
            )
            for label, value, word in found
        ],
        class_="tiles",
    )


def notes(found: Iterable[str]) -> Markup | None:
    """A list; None if it is empty."""
    entries = [element("li", note) for note in dict.fromkeys(found)]
    return element("ul", entries, class_="notes") if entries else None


def folded(summary: str, *children: Child) -> Markup:
    """What is shown when it is asked for."""
    return element("details", element("summary", summary), children)


def lead(*children: Child) -> Markup:
    """What a section shows, in a sentence or two."""
    return element("p", children, class_="lead")
