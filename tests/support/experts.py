"""The experts of a Hugging Face directory as blocks of 32: read, stored, and replaced by others that are known.

A stem is the name of a stored projection without its end, `model.layers.0.mlp.experts.down_proj`. Blocks are
[E, N, G, 32]: experts, rows as they are stored (gate and up in turn), groups of 32 inputs.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from checkpoints import Tensor, Tensors, copy_of, edit_tensors
from mxfp4_reference import (
    FLOATS,
    KINDS,
    as_encoding,
    as_numbers,
    decoded,
    exponents,
    hard_blocks,
    nearest_codes,
    packed,
)
from numpy.typing import NDArray

Array = NDArray[Any]


class ExpertBlocks(NamedTuple):
    """Packed blocks: `codes` uint8 [E, N, G, 32], `scales` uint8 [E, N, G]."""

    codes: Array
    scales: Array

    @property
    def exponents(self) -> Array:
        """int64 [E, N, G]."""
        return self.scales.astype(np.int64) - 127

    def values(self) -> Array:
        """float64 [E, N, G, 32]; zeros have their sign."""
        flat = decoded(self.codes.reshape(-1, 32), self.exponents.reshape(-1))
        return flat.reshape(self.codes.shape)

    def same_bytes(self, other: ExpertBlocks) -> Array:
        """Which blocks are equal, bool [E, N, G]."""
        same: Array = (self.codes == other.codes).all(axis=-1) & (self.scales == other.scales)
        return same


def encoded(values: Array, rule: str) -> ExpertBlocks:
    """The blocks of `values`, float64 [E, N, G, 32], by one of the rules floor, ceil and even."""
    flat = values.reshape(-1, 32)
    exponent = exponents(np.abs(flat).max(axis=1), rule)
    codes = nearest_codes(flat, exponent).reshape(values.shape)
    return ExpertBlocks(codes, (exponent + 127).astype(np.uint8).reshape(values.shape[:-1]))


def stems(tensors: Tensors) -> list[str]:
    """Every projection, packed or dense, in order."""
    ends = ("_blocks", "_scales", "_bias")
    names = (name for name in tensors if ".experts." in name and not name.endswith("_bias"))
    found = {name.removesuffix(ends[0]).removesuffix(ends[1]) for name in names}
    return sorted(found)


def read_blocks(tensors: Tensors, stem: str) -> ExpertBlocks:
    """The packed blocks of a projection."""
    scales = np.frombuffer(tensors[f"{stem}_scales"].data, np.uint8).reshape(tensors[f"{stem}_scales"].shape)
    stored = np.frombuffer(tensors[f"{stem}_blocks"].data, np.uint8).reshape(*scales.shape, 16)
    codes = np.empty((*scales.shape, 32), np.uint8)
    codes[..., 0::2], codes[..., 1::2] = stored & 15, stored >> 4
    return ExpertBlocks(codes, scales)


def store_blocks(tensors: Tensors, stem: str, blocks: ExpertBlocks) -> None:
    """Puts packed blocks in place of what the projection is now."""
    shard = _remove(tensors, stem)
    shape = list(blocks.scales.shape)
    tensors[f"{stem}_blocks"] = Tensor(shard, "U8", [*shape, 16], packed(blocks.codes.reshape(-1, 32)).tobytes())
    tensors[f"{stem}_scales"] = Tensor(shard, "U8", shape, blocks.scales.tobytes())


def read_floats(tensors: Tensors, stem: str) -> Array:
    """float64 [E, N, G, 32] of a dense projection, which is stored [E, inputs, rows]."""
    tensor = tensors[stem]
    patterns = np.frombuffer(tensor.data, np.dtype(FLOATS[tensor.dtype])).reshape(tensor.shape)
    numbers = as_numbers(np.ascontiguousarray(patterns.swapaxes(1, 2)), tensor.dtype)
    return numbers.reshape(*numbers.shape[:2], -1, 32)


def store_floats(tensors: Tensors, stem: str, values: Array, encoding: str = "BF16", name: str | None = None) -> None:
    """Puts floats in place of what the projection is now, as transformers stores them, as `name` if given."""
    shard = _remove(tensors, stem)
    matrices = values.reshape(*values.shape[:2], -1).swapaxes(1, 2)
    data = as_encoding(np.ascontiguousarray(matrices), encoding).tobytes()
    tensors[name or stem] = Tensor(shard, encoding, list(matrices.shape), data)


def _remove(tensors: Tensors, stem: str) -> str:
    """Removes the projection; returns the shard it was in."""
    removed = [tensors.pop(name) for name in (stem, f"{stem}_blocks", f"{stem}_scales") if name in tensors]
    return removed[0].shard


# --- directories ---

LAYER = "model.layers.{}.mlp.experts"
GATE_UP, DOWN = (f"{LAYER}.{name}" for name in ("gate_up_proj", "down_proj"))

# Which rows of which projections of `written_by_known_rules` are by whom; all others are of random codes.
ALL, GATE, UP = slice(None), slice(0, None, 2), slice(1, None, 2)
WRITERS: list[tuple[str, slice, str]] = [
    (DOWN.format(0), ALL, "floor"),
    (DOWN.format(1), ALL, "even"),
    (DOWN.format(2), ALL, "ceil"),
    (GATE_UP.format(2), GATE, "ceil"),
    (GATE_UP.format(2), UP, "even"),
]

# Codes (repeated to fill a block) and scale: as they are in the first blocks of the last layer's down projection, and
# as they come back. Codes 0 to 7 are 0, 0.5, 1, 1.5, 2, 3, 4, 6 steps, and negative from 8 on.
Codes = tuple[int, ...]
HAND_MADE: dict[str, tuple[Codes, int, Codes, int]] = {
    "zeros of both signs": ((0, 8, 8), 130, (0, 8, 8), 0),
    "6 steps, and 0.5": ((7, 1, 12, 8), 120, (7, 1, 12, 8), 120),
    "4 steps": ((14, 2, 8), 120, (14, 2, 8), 120),
    "6 steps, no 0.5, no 1.5": ((7, 4, 12, 8), 120, (7, 4, 12, 8), 120),
    "3 steps": ((5, 13, 2, 0, 8), 120, (7, 15, 4, 0, 8), 119),
    "2 steps": ((4, 1, 11, 8), 120, (6, 2, 13, 8), 119),
    "0.5 steps": ((1, 9, 0, 8), 120, (6, 14, 0, 8), 117),
    "1.5 steps, and no lower scale": ((3, 1, 9), 0, (3, 1, 9), 0),
    "1.5 steps, and one lower scale": ((3, 1, 10), 1, (5, 2, 12), 0),
    "3 steps, almost the largest of floats": ((5, 2, 10), 253, (7, 4, 12), 252),
}
# As some blocks of a writer that uses ceil are: its exponent is the higher of two, but here the lower one was taken.
LOWER = (7, 4, 12, 8)


def written_by_known_rules(tiny: Path, out: Path, *, largest_scale: int = 254) -> Path:
    """A copy of `tiny` with experts that a rule made of normal weights (`WRITERS`), and blocks made by hand.

    Those with a larger scale are left out: Metal holds none above 240.
    """
    random = np.random.default_rng(5)

    def edit(tensors: Tensors) -> None:
        for stem, rows, rule in WRITERS:
            blocks = ExpertBlocks(*map(np.array, read_blocks(tensors, stem)))
            values = random.normal(0, 0.02, blocks.codes[:, rows].shape)
            made = encoded(as_numbers(as_encoding(values, "BF16"), "BF16"), rule)
            blocks.codes[:, rows], blocks.scales[:, rows] = made
            if rule == "ceil":
                blocks.codes[0, 0, 0] = np.resize(LOWER, 32)
            store_blocks(tensors, stem, blocks)
        blocks = ExpertBlocks(*map(np.array, read_blocks(tensors, DOWN.format(3))))
        for place, (codes, scale, _, _) in zip(np.ndindex(2, blocks.scales.shape[2]), HAND_MADE.values(), strict=True):
            if scale <= largest_scale:
                blocks.codes[0][place], blocks.scales[0][place] = np.resize(codes, 32), scale
        store_blocks(tensors, DOWN.format(3), blocks)

    edit_tensors(copy_of(tiny, out), edit)
    return out


def with_hard_values(dense: Path, out: Path, encoding: str) -> Path:
    """A copy of the BF16 directory, experts in `encoding`: one of each kind of hard blocks, then others as before."""

    def edit(tensors: Tensors) -> None:
        for seed, stem in enumerate(stems(tensors)):
            values = read_floats(tensors, stem)
            shape = values[0].shape
            for expert, kind in enumerate(KINDS):
                values[expert] = hard_blocks(kind, encoding, shape[0] * shape[1], seed).reshape(shape)
            store_floats(tensors, stem, values, encoding)

    edit_tensors(copy_of(dense, out), edit)
    return out


def change_floats(directory: Path, stem: str, change: Callable[[Array], object]) -> None:
    """Stores a dense projection anew after `change` was made to its values, float64 [E, N, G, 32]."""

    def edit(tensors: Tensors) -> None:
        encoding, values = tensors[stem].dtype, read_floats(tensors, stem)
        change(values)
        store_floats(tensors, stem, values, encoding)

    edit_tensors(directory, edit)
