"""HTML out of parts: text is escaped unless it was made here, so no file's text can become markup."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable
from typing import TypeAlias

# Made by us: elements without an end tag, and SVG shapes that may have content (a title) or none.
_VOID = frozenset(("meta", "col", "br"))
_SHAPES = frozenset(("circle", "line", "path", "polyline", "rect"))

# Characters that HTML forbids, and those that turn the direction of text round and so could make a name look like
# another: shown by their number.
_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\n\t"}
_DIRECTIONS = {code: f"\\u{code:04x}" for code in (0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))}
_NONCHARACTERS = {code: f"\\u{code:04x}" for code in (*range(0xFDD0, 0xFDF0), 0xFFFE, 0xFFFF)}
_SHOWN = _CONTROLS | _DIRECTIONS | _NONCHARACTERS


_NUMBER = re.compile(r"([0-9.]+e[-+][0-9]+|[0-9.]+ (?:%|dB))")


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


Child: TypeAlias = "str | Markup | Iterable[Child] | None"
Attribute: TypeAlias = "str | float | None"


def escaped(text: str) -> Markup:
    """`text` as HTML that shows it, in an element or between the quotes of an attribute.

    What UTF-8 cannot hold (a file name that is not UTF-8) is shown by its number.
    """
    if isinstance(text, Markup):
        return text
    plain = text.encode("utf-8", "backslashreplace").decode("utf-8")
    return Markup(html.escape(plain.translate(_SHOWN), quote=True))


def joined(*children: Child) -> Markup:
    """All of them, one after the other; nothing for None."""
    return Markup("".join(_flat(children)))


def _flat(children: Iterable[Child]) -> Iterable[str]:
    for child in children:
        if isinstance(child, str):
            yield escaped(child)
        elif child is not None:
            yield from _flat(child)


def element(name: str, /, *children: Child, **attributes: Attribute) -> Markup:
    """An element. `class_="a"` is class="a", `aria_label` is aria-label; an attribute that is None is left out."""
    start = name + "".join(
        f' {key.rstrip("_").replace("_", "-")}="{_value(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    content = joined(*children)
    if name in _VOID:
        return Markup(f"<{start}>")
    if name in _SHAPES and not content:
        return Markup(f"<{start}/>")
    return Markup(f"<{start}>{content}</{name}>")


def _value(value: str | float) -> str:
    return escaped(value) if isinstance(value, str) else f"{value:.6g}"


def anchor(title: str) -> str:
    """What a section of this title is called in a link: "routing-agreement-by-layer"."""
    words = "".join(character if character.isascii() and character.isalnum() else " " for character in title.lower())
    return "-".join(words.split())


def unbroken(text: str) -> Markup:
    """Text whose numbers, such as 1.2e-05 or 12 %, are each kept on one line."""
    parts = _NUMBER.split(text)
    return joined(
        *(element("span", part, class_="unbroken") if place % 2 else part for place, part in enumerate(parts))
    )
