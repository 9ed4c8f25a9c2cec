"""Which stored numbers explain an error: tensor, expert, row and block, found by reading them both ways."""

from __future__ import annotations

from torch import Tensor

from ...model.forward import Weights

_BLOCK = 32
# stage -> tensors of the layer that make it, the likeliest first
_MAKERS: dict[str, tuple[str, ...]] = {
    "attention": (
        *(f"attention.{name}.{part}" for name in "qkvo" for part in ("weight", "bias")),
        "attention.sinks",
        "attention.norm.weight",
    ),
    "router": ("moe.router.weight", "moe.router.bias", "moe.norm.weight"),
    "gate": ("moe.gate.bias", "moe.norm.weight"),
    "up": ("moe.up.bias", "moe.norm.weight"),
    "down": ("moe.down.bias",),
}


def locate(reference: Weights, found: Weights, layer: int, stage: str, expert: int | None, row: int | None) -> str:
    """Where the weights of both sides differ, in words; that they do not, if it is the arithmetic.

    Args:
        reference, found: the weights of both sides.
        layer: of the stage.
        stage: a key of `measures.STAGES`.
        expert, row: of the element that is farthest off, if the stage has such.
    """
    if expert is not None and row is not None and stage in ("gate", "up", "down"):
        name = f"layers.{layer}.moe.{stage}.weight"
        place = _first_difference(reference.expert(name, expert), found.expert(name, expert), row)
        if place is not None:
            return f"{name}: expert {expert}, row {place[0]}, block {place[1] // _BLOCK}"
    for maker in _MAKERS.get(stage, ()):
        name = f"layers.{layer}.{maker}"
        expected, other = reference.dense(name), found.dense(name)
        place = _first_difference(expected.view(len(expected), -1), other.view(len(other), -1), None)
        if place is not None:
            return f"{name}: row {place[0]}" + (f", column {place[1]}" if expected.ndim > 1 else "")
    return "both sides read the same weights: they compute otherwise"


def _first_difference(expected: Tensor, found: Tensor, row: int | None) -> tuple[int, int] | None:
    """Row and column of the largest difference in `row`, or in all rows if there is none in it."""
    difference = (found.to(expected) - expected).abs()
    if row is not None and bool(difference[row].any()):
        return row, int(difference[row].argmax())
    flat = int(difference.argmax())
    place = divmod(flat, difference.shape[1])
    return place if bool(difference[place] > 0) else None
