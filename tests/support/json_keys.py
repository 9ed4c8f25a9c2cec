"""The tables of docs/json.md, and what is wrong with a report beside them.

A table belongs to the heading above it. Its keys are paths: `files[].name`, `digests.{tensor}`; `?` behind one says
that it may be missing, and `…` stands for the keys of the table that its type names. A type is alternatives with "or"
between them, after "list of" those of the items; `[role](#role)` is an object with the keys of that table.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from pages import DOCS

PAGE = DOCS / "json.md"

_HEAD = "| key | type | meaning |"
_ROW = re.compile(r"\| `(?P<key>[^`]+)`(?P<optional>\??) \| (?P<type>[^|]+) \| (?P<meaning>[^|]*)\|")
_REFERENCE = re.compile(r"\[(?P<name>[^]]+)\]\(#(?P<anchor>[a-z0-9-]+)\)")
_PRIMITIVES = {str: "string", bool: "true/false", int: "integer", float: "number", type(None): "null"}
_NAME = re.compile(r"\{\w+\}")
ALL = "…"


@dataclass
class Shape:
    """What a value may be.

    Attributes:
        place: where the page says it: its table, and the key in it.
        kinds: names of primitives, "object" and "list".
        optional: whether the key may be missing.
        table: whose keys the object has, if the page names one.
        keys: of the object, if they are said here.
        items: of the list.
    """

    place: str
    kinds: frozenset[str] = frozenset()
    optional: bool = False
    table: str | None = None
    keys: dict[str, Shape] = field(default_factory=dict)
    items: Shape | None = None


Tables = dict[str, Shape]


@dataclass
class Seen:
    """What the reports so far have shown.

    Attributes:
        kinds: place and kind of every value.
        missing: places of optional keys that were not there.
    """

    kinds: set[tuple[str, str]] = field(default_factory=set)
    missing: set[str] = field(default_factory=set)


def read_tables(page: Path = PAGE) -> Tables:
    """Every table of the page, by its anchor."""
    tables: Tables = {}
    heading, inside = "", False
    for line in page.read_text(encoding="utf-8").splitlines():
        if line.startswith("## "):
            heading = line[3:].strip()
        elif line == _HEAD:
            assert heading not in tables, f"two tables under {heading}"
            tables[_anchor(heading)] = Shape(heading, frozenset({"object"}))
            inside = True
        elif not line.startswith("|"):
            inside = False
        elif inside and not line.startswith("|---"):
            found = _ROW.fullmatch(line)
            assert found is not None, f"not a row: {line}"
            _add(tables[_anchor(heading)], found)
    for shape in tables.values():
        _include(shape, tables)
    return tables


def _anchor(heading: str) -> str:
    return heading.lower().replace(" ", "-")


def _add(table: Shape, row: re.Match[str]) -> None:
    """Puts what the row says into the table; the rows of the objects around it come before it."""
    *around, last = row["key"].split(".")
    shape = table
    for part in around:
        shape = shape.keys[part.removesuffix("[]")]
        if part.endswith("[]"):
            assert shape.items is not None, f"{row['key']}: {part} is no list"
            shape = shape.items
    assert last not in shape.keys, f"{table.place}: {row['key']} is there twice"
    shape.keys[last] = _shape(row["type"].strip(), f"{table.place}: {row['key']}", optional=bool(row["optional"]))


def _shape(text: str, place: str, *, optional: bool = False) -> Shape:
    shape, kinds = Shape(place, optional=optional), set()
    before, of, items = text.partition("list of ")
    if of:
        kinds.add("list")
        shape.items = _shape(items, f"{place}[]")
    for part in (part.strip() for part in before.split(" or ") if part.strip()):
        reference = _REFERENCE.fullmatch(part)
        if reference is not None:
            assert _anchor(reference["name"]) == reference["anchor"], part
            shape.table = reference["anchor"]
            kinds.add("object")
        else:
            assert part in {*_PRIMITIVES.values(), "object"}, f"{place}: no such type: {part}"
            kinds.add(part)
    shape.kinds = frozenset(kinds)
    return shape


def _include(shape: Shape, tables: Tables) -> None:
    """Puts the keys of other tables where the page says `…`."""
    for one in [*shape.keys.values(), *([] if shape.items is None else [shape.items])]:
        _include(one, tables)
    included = shape.keys.pop(ALL, None)
    if included is not None:
        assert included.table is not None
        _include(tables[included.table], tables)
        shape.keys = tables[included.table].keys | shape.keys


def faults(value: object, table: str, tables: Tables, seen: Seen) -> Iterator[str]:
    """What in the report is not as its table says; what it shows is added to `seen`."""
    return _faults(value, tables[table], tables, seen)


def _faults(value: object, shape: Shape, tables: Tables, seen: Seen) -> Iterator[str]:
    if isinstance(value, dict):
        kind = "object"
    elif isinstance(value, list):
        kind = "list"
    else:
        kind = _PRIMITIVES[type(value)]
    if kind not in shape.kinds and not (kind == "integer" and "number" in shape.kinds):
        yield f"{shape.place}: {kind}, not {' or '.join(sorted(shape.kinds))}"
        return
    seen.kinds.add((shape.place, kind))
    if isinstance(value, dict):
        yield from _faults_of_keys(value, tables[shape.table] if shape.table else shape, tables, seen)
    elif isinstance(value, list):
        assert shape.items is not None
        for item in value:
            yield from _faults(item, shape.items, tables, seen)


def _faults_of_keys(value: dict[str, object], shape: Shape, tables: Tables, seen: Seen) -> Iterator[str]:
    seen.kinds.add((shape.place, "object"))
    named = next((one for key, one in shape.keys.items() if _NAME.fullmatch(key)), None)
    for key, item in value.items():
        inner = shape.keys.get(key, named)
        if inner is None:
            yield f"{shape.place}: {key} is not on the page"
        else:
            yield from _faults(item, inner, tables, seen)
    for key, inner in shape.keys.items():
        if key in value or inner is named:
            continue
        if inner.optional:
            seen.missing.add(inner.place)
        else:
            yield f"{shape.place}: {key} is missing"


def unseen(tables: Tables, seen: Seen) -> Iterator[str]:
    """What the page says and no report has shown: keys, types, and optional keys that are always there.

    A null beside a number is left out: it may stand for infinity alone.
    """
    for shape in tables.values():
        yield from _unseen(shape, seen)


def _unseen(shape: Shape, seen: Seen) -> Iterator[str]:
    for kind in sorted(shape.kinds):
        if not (kind == "null" and "number" in shape.kinds) and (shape.place, kind) not in seen.kinds:
            yield f"{shape.place}: never {kind}"
    if shape.optional and shape.place not in seen.missing:
        yield f"{shape.place}: never missing"
    for one in [*shape.keys.values(), *([] if shape.items is None else [shape.items])]:
        yield from _unseen(one, seen)
