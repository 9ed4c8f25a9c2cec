"""A comparison of layers as JSON data, as tables and in words."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.table import Table

from ..render import plain_table
from ..report import number

if TYPE_CHECKING:
    from .layers import Distances, LayerComparison, LayerFigures


def describe_layers(found: LayerComparison) -> dict[str, Any]:
    """The report of `drift --depth layers`, as JSON data."""
    part, layer, error = found.largest
    first = found.first
    return {
        "a": found.path_a,
        "b": found.path_b,
        "inputs": found.prompts.source,
        "prompts": found.prompts.describe(),
        "embedding": number(found.embedding),
        "layers": [_describe_layer(one) for one in found.layers],
        "largest": {"part": part, "layer": layer, "relative_error": number(error)},
        "first_beyond_rounding": None
        if first is None
        else {"part": first[0], "layer": first[1], "relative_error": number(first[2])},
        "is_zero": found.is_zero,
        "notes": list(found.notes),
    }


def _describe_layer(one: LayerFigures) -> dict[str, Any]:
    return {
        "layer": one.layer,
        "b": _describe_distances(one.b),
        "noise": None if one.noise is None else _describe_distances(one.noise),
        "local_attention": number(one.local_attention),
        "local_moe": number(one.local_moe),
        "first_rerouted": None if one.first_rerouted is None else asdict(one.first_rerouted),
        "peak_a": number(one.peak_a),
        "peak_b": number(one.peak_b),
    }


def _describe_distances(distances: Distances) -> dict[str, Any]:
    return {name: number(value) for name, value in asdict(distances).items()}


def layer_tables(found: LayerComparison) -> list[Table]:
    """Errors by layer, then routing and magnitudes by layer; columns of what did not run are left out."""
    has_noise = any(one.noise for one in found.layers)
    has_local = any(one.local_moe is not None for one in found.layers)
    errors = ["layer"]
    for name in ("residual", "attention", "experts"):
        errors += [name, "noise"] if has_noise else [name]
    errors += ["attention alone", "experts alone"] if has_local else []
    first = plain_table(*errors, left=())
    second = plain_table(
        "layer", "same experts", *(["noise"] if has_noise else []), "overlap", "peak A", "peak B", left=()
    )
    for one in found.layers:
        first.add_row(*_error_row(one, has_noise, has_local))
        noise = [share(one.noise.same_experts)] if one.noise else []
        second.add_row(
            str(one.layer),
            share(one.b.same_experts),
            *noise,
            share(one.b.expert_overlap),
            f"{one.peak_a:,.4g}",
            f"{one.peak_b:,.4g}",
        )
    return [first, second]


def _error_row(one: LayerFigures, has_noise: bool, has_local: bool) -> list[str]:
    row = [str(one.layer)]
    for part in ("residual", "attention", "moe"):
        row.append(error_text(getattr(one.b, part)))
        if has_noise:
            row.append(error_text(getattr(one.noise, part)))
    return row + ([error_text(one.local_attention), error_text(one.local_moe)] if has_local else [])


def error_text(error: float | None) -> str:
    """ "1.2e-05", "0" if it is exactly that, "∞"."""
    if error is None:
        return ""
    if error == 0:
        return "0"
    return f"{error:.1e}" if math.isfinite(error) else "∞"


def share(share: float) -> str:
    """ "99.95 %"; "100 %" only if it is all."""
    return "100 %" if share == 1 else f"{min(100 * share, 99.99):.2f} %"


def _count(number: int, what: str) -> str:
    """ "1 layer", "24 layers"."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def head_lines(found: LayerComparison) -> list[str]:
    """What was run."""
    n_tokens = sum(len(one.tokens) for one in found.prompts.prompts)
    layers, prompts = _count(len(found.layers), "layer"), _count(len(found.prompts.prompts), "prompt")
    return [
        f"A: {found.path_a}",
        f"B: {found.path_b}",
        f"{layers}, {n_tokens:,} tokens in {prompts}: {found.prompts.source}",
        *(f"note: {note}" for note in found.notes),
    ]


def layer_lines(found: LayerComparison) -> list[str]:
    """What was run, how the tables are read, and what they say."""
    lines = head_lines(found)
    lines.append(
        "relative errors: each model on its own residual stream, where errors add up from layer to layer"
        + ("; noise: A computed in bf16" if any(one.noise for one in found.layers) else "")
    )
    if any(one.local_moe is not None for one in found.layers):
        lines.append("alone: B's attention, and B's experts, on what A gave its own: errors show where they are made")
    rerouted = next((one for one in found.layers if one.first_rerouted), None)
    if rerouted is not None and rerouted.first_rerouted is not None:
        token = rerouted.first_rerouted
        spelled = f" ({token.piece!r})" if token.piece else ""
        where = f"in layer {rerouted.layer}, token {token.place} of {token.prompt!r}{spelled}"
        lines.append(f"the first token sent to other experts: {where}")
    return [*lines, verdict(found)]


def verdict(found: LayerComparison) -> str:
    if found.is_zero:
        return "no drift: both models compute the very same numbers in every layer"
    part, layer, error = found.largest
    where = part if layer is None else f"the {part} of layer {layer}"
    first = found.first
    if first is None:
        return f"no drift beyond rounding in float32: relative errors of {error_text(error)} at most ({where})"
    begins = first[0] if first[1] is None else f"the {first[0]} of layer {first[1]}"
    return f"DRIFT: begins in {begins} ({error_text(first[2])}) and is largest in {where} ({error_text(error)})"
