"""What the page says of the layers, at `--depth layers` and `--depth logits`."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from ..layer_report import error_text, layer_tables, share
from .axes import Axis, category_axis, log_axis, number_axis
from .charts import Series, columns_with_titles, figure, legend, lines
from .markup import Markup
from .parts import Tile, folded, lead, section
from .tables import from_terminal, table

if TYPE_CHECKING:
    from ..layers import Distances, LayerComparison, LayerFigures

Read = Callable[["LayerFigures"], float | None]
Line = tuple[str, str, Read]
"""Its name, its style, and what of a layer it shows."""


def layer_tiles(found: LayerComparison) -> list[Tile]:
    figures = found.figures()
    noise = max((one.noise.residual for one in found.layers if one.noise), default=None)
    part, layer, error = found.largest
    return [
        (
            "residual stream, largest relative error",
            error_text(figures["residual"]),
            "" if noise is None else f"A in bf16: {error_text(noise)}",
        ),
        ("largest error of one part", error_text(error), part if layer is None else f"{part} of layer {layer}"),
        ("same experts", share(figures["experts"]), "of tokens, in the worst layer"),
        ("overlap of experts", share(figures["overlap"]), "in the worst layer"),
    ]


def layer_sections(found: LayerComparison) -> list[Markup]:
    first, second = layer_tables(found)
    has_noise = any(one.noise for one in found.layers)
    sections = [
        section(
            "Residual stream by layer",
            lead(
                "Each model runs on its own residual stream, so errors add up from layer to layer. "
                + ("The noise floor is A itself, computed in bf16." if has_noise else "")
            ),
            _residual(found),
        )
    ]
    if any(one.local_moe is not None for one in found.layers):
        text = "B's attention, and B's experts, get what A gave its own, so an error shows in the layer that makes it."
        sections.append(section("Where errors are made", lead(text), _local(found)))
    sections.append(section("Routing by layer", lead(_rerouted(found)), _routing(found)))
    tables = [
        from_terminal("Relative errors by layer", first),
        from_terminal("Routing and magnitudes by layer", second),
    ]
    rerouted = _first_rerouted(found)
    return [*sections, section("Layer by layer", *tables, *rerouted)]


def _residual(found: LayerComparison) -> Markup:
    shown: list[Line] = [("B", "line-b", lambda one: one.b.residual)]
    if any(one.noise for one in found.layers):
        shown.append(("A in bf16 (noise)", "line-noise", lambda one: one.noise.residual if one.noise else None))
    return _error_chart(found, "Relative error of the residual stream", shown)


def _local(found: LayerComparison) -> Markup:
    shown: list[Line] = [
        ("attention alone", "line-b", lambda one: one.local_attention),
        ("experts alone", "line-second", lambda one: one.local_moe),
    ]
    return _error_chart(found, "Relative error of one layer's part", shown)


def _error_chart(found: LayerComparison, title: str, shown: list[Line]) -> Markup:
    values = [value for _, _, read in shown for one in found.layers if (value := read(one)) is not None]
    y = log_axis(values)
    worst = max(found.layers, key=lambda one: _finite(shown[0][2](one)))
    description = f"{shown[0][0]}: largest in layer {worst.layer}, {error_text(shown[0][2](worst))}."
    none = "Errors of exactly 0 are drawn on the lowest line." if 0 in values else None
    return _chart(found, title, description, shown, y, "relative error, logarithmic", error_text, none)


def _finite(value: float | None) -> float:
    return -math.inf if value is None else value


def _routing(found: LayerComparison) -> Markup:
    shown: list[Line] = [
        ("same experts, share of tokens", "line-b", lambda one: one.b.same_experts),
        ("overlap of experts, mean over tokens", "line-second", lambda one: one.b.expert_overlap),
    ]
    if any(one.noise for one in found.layers):
        shown.append(("A in bf16: same experts (noise)", "line-noise", lambda one: _same(one.noise)))
    values = [value for _, _, read in shown for one in found.layers if (value := read(one)) is not None]
    percents = number_axis(min(100 * math.floor(10 * min(values)) / 10, 90), 100, suffix=" %")
    worst = min(found.layers, key=lambda one: one.b.same_experts)
    description = (
        f"Fewest tokens keep all their experts in layer {worst.layer}: {share(worst.b.same_experts)}; overlap there "
        f"{share(worst.b.expert_overlap)}."
    )
    hundred: list[Line] = [(name, style, _hundredfold(read)) for name, style, read in shown]

    def told(percentage: float | None) -> str:
        return "" if percentage is None else share(percentage / 100)

    return _chart(found, "Routing agreement by layer", description, hundred, percents, "agreement with A", told, None)


def _hundredfold(read: Read) -> Read:
    def times_hundred(one: LayerFigures) -> float | None:
        value = read(one)
        return None if value is None else 100 * value

    return times_hundred


def _same(noise: Distances | None) -> float | None:
    return None if noise is None else noise.same_experts


def _chart(
    found: LayerComparison,
    title: str,
    description: str,
    shown: list[Line],
    y: Axis,
    label: str,
    told: Callable[[float | None], str],
    caption: str | None,
) -> Markup:
    x = category_axis([str(one.layer) for one in found.layers])
    series = [
        Series(name, style, tuple((float(place), read(one)) for place, one in enumerate(found.layers)))
        for name, style, read in shown
    ]
    titles = [
        "\n".join([f"layer {one.layer}", *(f"{name}: {told(read(one))}" for name, _, read in shown)])
        for one in found.layers
    ]
    return figure(
        title,
        description,
        [lines(series, x, y), columns_with_titles(titles, x)],
        axes=(x, y),
        labels=("layer", label),
        legend=legend((style, name) for name, style, _ in shown),
        caption=caption,
    )


def _rerouted(found: LayerComparison) -> str:
    n_layers = sum(one.first_rerouted is not None for one in found.layers)
    if not n_layers:
        return "Every token is sent to the same experts in every layer."
    return f"In {n_layers} of {len(found.layers)} layers some token is sent to other experts than in A."


def _first_rerouted(found: LayerComparison) -> list[Markup]:
    rows = [
        (str(one.layer), token.prompt, str(token.place), token.piece or "not known")
        for one in found.layers
        if (token := one.first_rerouted) is not None
    ]
    if not rows:
        return []
    columns = ("layer", "prompt", "token", "spells")
    listed = table("First token that is sent to other experts", columns, rows, left=("prompt", "spells"))
    return [folded("The first token of each layer that is sent to other experts", listed)]
