"""Layers × roles, coloured by relative error."""

from __future__ import annotations

import math
from collections.abc import Mapping

from ..results import TensorComparison, Totals, Verdict
from .axes import Axis, Tick
from .charts import figure, legend
from .markup import Markup, element

EDGES = (1e-4, 1e-3, 1e-2, 0.03, 0.1, 0.3, 1.0)
"""Where the colours change: the same on every page, so that two pages can be compared."""

_NAMES = ("0.01 %", "0.1 %", "1 %", "3 %", "10 %", "30 %", "100 %")

# In the order in which a token meets them; a role that is not named here comes last.
_ORDER = (
    *("embedding", "norm", "attention", "attention bias", "sinks", "router", "router bias", "experts", "expert bias"),
    "unembedding",
)

Cells = Mapping[tuple[int | None, str], Totals]


def heat_map(found: TensorComparison) -> Markup:
    """The largest relative error of any tensor in each cell; tensors of no layer are in the last column."""
    cells = found.by_layer_and_role()
    roles = sorted({role for _, role in cells}, key=_place)
    layers = sorted({layer for layer, _ in cells if layer is not None})
    columns: list[int | None] = [*layers, *([None] if any(layer is None for layer, _ in cells) else [])]
    x, y = _layer_axis(columns), _role_axis(roles)
    drawn = [
        _cell(cells[layer, role], layer, role, x, y, columns.index(layer), roles.index(role))
        for layer, role in sorted(cells, key=lambda cell: (roles.index(cell[1]), columns.index(cell[0])))
    ]
    title = "Relative error by layer and role"
    return figure(
        title,
        _description(cells),
        [_hatch(), drawn],
        axes=(x, y),
        labels=("layer", ""),
        legend=_legend(),
        caption="The largest ‖b - a‖ / ‖a‖ of any tensor in the cell. The last column holds the tensors that belong to "
        "no layer."
        if None in columns
        else None,
        style="plot heat",
    )


def _place(role: str) -> tuple[int, str]:
    return (_ORDER.index(role) if role in _ORDER else len(_ORDER), role)


def _layer_axis(columns: list[int | None]) -> Axis:
    step = next(step for step in (1, 2, 4, 6, 12, 24, 48, 10**9) if len(columns) <= 12 * step)
    ticks = [
        Tick(float(place), "none" if layer is None else str(layer), is_minor=place // step % 2 == 1)
        for place, layer in enumerate(columns)
        if layer is None or (place % step == 0 and len(columns) - place > step // 2 + 1)
    ]
    return Axis(-0.5, len(columns) - 0.5, tuple(ticks))


def _role_axis(roles: list[str]) -> Axis:
    ticks = tuple(Tick(len(roles) - place - 0.5, role) for place, role in enumerate(roles))
    return Axis(0.0, float(len(roles)), ticks)


def style_of(totals: Totals) -> str:
    """The class of a cell: cell-bytes, cell-values, or cell-0 (smallest errors) to cell-7."""
    if not totals.tensors[Verdict.DIFFERS]:
        return "cell-values" if totals.tensors[Verdict.VALUES] else "cell-bytes"
    return f"cell-{sum(totals.worst_relative >= edge for edge in EDGES)}"


def _cell(totals: Totals, layer: int | None, role: str, x: Axis, y: Axis, column: int, row: int) -> Markup:
    width, height = 100 / (x.high - x.low), 100 / y.high
    where = role if layer is None else f"layer {layer}, {role}"
    return element(
        "rect",
        element("title", f"{where}: {_said(totals)}"),
        x=f"{column * width:.5g}%",
        y=f"{row * height:.5g}%",
        width=f"{width:.5g}%",
        height=f"{height:.5g}%",
        class_=f"cell {style_of(totals)}",
    )


def _said(totals: Totals) -> str:
    differ = totals.tensors[Verdict.DIFFERS]
    if differ:
        error = f"{100 * totals.worst_relative:.3g} %" if math.isfinite(totals.worst_relative) else "∞"
        return f"{differ} of {totals.count} differ, relative error up to {error}"
    return Verdict.VALUES.value if totals.tensors[Verdict.VALUES] else Verdict.BYTES.value


def _description(cells: Cells) -> str:
    differing = {cell: totals for cell, totals in cells.items() if totals.tensors[Verdict.DIFFERS]}
    if not differing:
        return f"All {len(cells)} cells are identical."
    layer, role = max(differing, key=lambda cell: differing[cell].worst_relative)
    where = role if layer is None else f"{role} of layer {layer}"
    return f"{len(differing)} of {len(cells)} cells differ, most of all {where}: {_said(differing[layer, role])}."


def _legend() -> Markup:
    same = legend([("cell cell-bytes", "same bytes"), ("cell cell-values", "same values")])
    width = 100 / (len(EDGES) + 1)
    boxes = [
        element("rect", x=f"{number * width:g}%", y="0", width=f"{width:g}%", height=12, class_=f"cell cell-{number}")
        for number in range(len(EDGES) + 1)
    ]
    names = [
        element("text", name, x=f"{number * width:g}%", y="12", dy="1.3em", text_anchor="middle")
        for number, name in enumerate(_NAMES, start=1)
    ]
    described = element("title", f"Colours change at relative errors of {', '.join(_NAMES)}")
    return element("div", same, element("svg", described, boxes, names, class_="ramp", role="img"), class_="key")


def _hatch() -> Markup:
    """What cells with the same values in other bytes are filled with."""
    line = element("path", d="M0 6L6 0", class_="hatch")
    ground = element("rect", width=6, height=6, class_="ground")
    pattern = element("pattern", ground, line, id="hatch", width=6, height=6, patternUnits="userSpaceOnUse")
    return element("defs", pattern)
