"""Which stored numbers explain an error: tensor, expert, row and block, found by reading them both ways."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ...model.forward import Weights
from ..stored import StoredTensor
from .stages import PROJECTIONS

# stage -> tensors of its layer that make it, beside the projections' matrices
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
# stage -> the matrix one row of which made an element, and what else goes into it; none is in a layer
_ENDS = {"embedding": ("embedding.weight",), "logits": ("unembedding.weight", "norm.weight")}


@dataclass(frozen=True)
class Difference:
    """Where two readings of a tensor are farthest apart.

    Attributes:
        tensor: its canonical name.
        expert, row, column: which element; None where the tensor has no such index.
        block: which block of the row; None if the elements are not stored in blocks.
        expected, found: what both read.
        factor: what multiplies all of its block, if anything does: then its scale is another.
        differing: how many blocks (or elements, if there are no blocks) of the matrix differ, and of how many.
        file, stored: where the tested one is stored: the file, and the tensor's name in it.
        others: more tensors that differ and go into the same stage.
    """

    tensor: str
    expert: int | None
    row: int
    column: int | None
    block: int | None
    expected: float
    found: float
    factor: float | None
    differing: tuple[int, int]
    file: str
    stored: str
    others: tuple[str, ...] = ()

    def __str__(self) -> str:
        unit = "elements" if self.block is None else "blocks"
        named = (("expert", self.expert), ("row", self.row), ("block", self.block))
        place = ", ".join(f"{name} {number}" for name, number in named if number is not None)
        if self.column is not None:
            place += f" (column {self.column})" if self.block is not None else f", column {self.column}"
        what = f"{self.tensor}, {place}: {self.found:.6g}, not {self.expected:.6g}"
        if self.factor is not None:
            what += f", as all of its block is {self.factor:g} times what it should be"
        what += f"; {self.differing[0]:,} of {self.differing[1]:,} {unit} there differ"
        what += f", stored as {self.stored!r} in {self.file}" if self.stored else ""
        return what + (f"; so do {', '.join(self.others)}" if self.others else "")


@dataclass(frozen=True)
class Cause:
    """What explains a stage that is off.

    Attributes:
        text: the explanation, in words.
        follows: the earlier stage that is to blame; "" if none is.
        difference: the stored numbers that are to blame, if any are.
    """

    text: str
    follows: str = ""
    difference: Difference | None = None


@dataclass(frozen=True)
class Spot:
    """An element of a stage in terms of what made it: the row of a matrix, and the expert whose matrix that is."""

    expert: int | None = None
    row: int | None = None


def find_difference(
    reference: Weights,
    found: Weights,
    tensors: Mapping[str, StoredTensor],
    layer: int | None,
    stage: str,
    spot: Spot,
) -> Difference | None:
    """The largest difference of the weights that make a stage, in units of each tensor's RMS; None if there is none.

    Args:
        reference, found: the weights of both sides.
        tensors: where those of `found` are stored.
        layer, stage: as in `measures.Measure`.
        spot: the element that is farthest off. Its row is looked at first.
    """
    candidates = []
    for part in _parts(layer, stage, spot):
        expected, other = (_read(weights, part) for weights in (reference, found))
        difference = (other.to(expected) - expected).abs()
        if bool((difference > 0).any()):
            rms = float(expected.square().mean().sqrt())
            weight = float(difference.max()) / rms if rms else math.inf
            place = _place(difference, part.first)
            candidates.append((weight, _described(tensors[part.name], part, place, expected, other)))
    if not candidates:
        return None
    (_, worst), *others = sorted(candidates, key=lambda one: -one[0])
    return replace(worst, others=tuple(one.tensor for _, one in others))


@dataclass(frozen=True)
class _Part:
    """What is compared: a tensor, one expert's matrix of it, or one row of it. Row `first` is looked at first."""

    name: str
    expert: int | None = None
    only_row: int | None = None
    first: int | None = None


def _parts(layer: int | None, stage: str, spot: Spot) -> list[_Part]:
    """All that goes into a stage."""
    if stage in _ENDS:
        matrix, *others = _ENDS[stage]
        return [_Part(matrix, only_row=spot.row), *map(_Part, others)]
    stem, is_projection = f"layers.{layer}", stage in PROJECTIONS
    found = [_Part(f"{stem}.moe.{stage}.weight", expert=spot.expert, first=spot.row)] if is_projection else []
    for name in _MAKERS.get(stage, ()):
        # Rows of an expert's bias are experts.
        first = spot.expert if is_projection and name.endswith("bias") else None
        found.append(_Part(f"{stem}.{name}", first=first))
    return found


def _read(weights: Weights, part: _Part) -> Tensor:
    """The part as a matrix; a vector is one column."""
    if part.expert is not None:
        return weights.expert(part.name, part.expert)
    if part.only_row is not None:
        return weights.rows(part.name, torch.tensor([part.only_row]))
    tensor = weights.dense(part.name)
    return tensor.reshape(len(tensor), -1)


def _place(difference: Tensor, first: int | None) -> tuple[int, int]:
    """Row and column of the largest difference in row `first`, or in all rows if there is none in it."""
    if first is not None and bool((difference[first] > 0).any()):
        return first, int(difference[first].argmax())
    row, column = divmod(int(difference.argmax()), difference.shape[1])
    return row, column


def _described(
    stored: StoredTensor, part: _Part, place: tuple[int, int], expected: Tensor, found: Tensor
) -> Difference:
    """The difference at `place` in what was read of the tensor."""
    tensor, n = stored.tensor, stored.encoding.block_elements
    numbers = float(expected[place]), float(found[place])
    differs = found.to(expected) != expected
    row, column = place
    block = factor = None
    if n > 1:
        block, differs = column // n, differs.view(len(differs), -1, n).any(-1)
        factor = _factor(*(side[row, block * n : (block + 1) * n] for side in (expected, found.to(expected))))
    expert, shown, row = part.expert, column if tensor.cols > 1 else None, part.only_row or row
    at = row + (expert or 0) * tensor.matrix_rows
    if tensor.cols == 1 and len(tensor.shape) == 2:
        # A bias of experts: rows are experts, columns are what is stored as rows.
        expert, row, at = row, column, row * tensor.matrix_rows + column
    # Of MXFP4 in planes the last span is the scales'.
    spans = stored.spans[-1:] if factor is not None else stored.spans[:1]
    arrays = [span.interval(at, at + 1)[0] for span in spans]
    where = (str(arrays[0].file), arrays[0].name) if arrays else ("", "")
    counts = int(differs.sum()), differs.numel()
    return Difference(tensor.name, expert, row, shown, block, *numbers, factor, counts, *where)


def _factor(expected: Tensor, found: Tensor) -> float | None:
    """What `expected` is multiplied by to give `found`, if that is one number."""
    some = expected != 0
    if int(some.sum()) < 2 or bool(found[~some].any()):
        return None
    ratios = found[some] / expected[some]
    return float(ratios[0]) if bool((ratios == ratios[0]).all()) else None
