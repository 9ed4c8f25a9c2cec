"""What a layout's table is made of: which stored rows make which canonical tensor.

A table maps canonical names to `Rows` of a stored tensor. In both names `{layer}` stands for the layer; in the stored
one further placeholders say that a tensor is stored as several arrays:

    {expert}    one array for each expert, numbered from 0
    {part}      one array for each part of MXFP4: "blocks", "scales"
    {mlx}       MLX's spelling: "weight" of anything, and "scales" and "biases" of what is quantized
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ...formats.codecs.encoding import AffineEncoding, Encoding
from ..config import GptOssConfig
from ..inventory import LAYER_TENSORS, MODEL_TENSORS, CanonicalTensor, dimensions, inventory

# placeholder -> part of an encoding -> how the placeholder spells it
_SPELLINGS: dict[str, dict[str, str]] = {
    "{part}": {"blocks": "blocks", "scales": "scales"},
    "{mlx}": {"data": "weight", "blocks": "weight", "weight": "weight", "scales": "scales", "biases": "biases"},
}

_DTYPE_BYTES = {"U8": 1, "F16": 2, "BF16": 2, "F32": 4, "U32": 4}


@dataclass(frozen=True)
class Rows:
    """Rows of the stored tensor `name`, counted inside one matrix.

    Canonical row i is stored row `first + i · step`. Where several tensors are stored one after another, `before` and
    `after` are the sizes (of `inventory.dimensions`) of those around this one. If `transposed`, stored matrices are
    [inputs, outputs], and rows are their columns.
    """

    name: str
    first: int = 0
    step: int = 1
    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    transposed: bool = False


Table = Mapping[str, Rows]
Variants = Mapping[str, tuple[Rows, ...]]


@dataclass(frozen=True)
class Place:
    """Where one canonical tensor lies: in `name`, which may hold placeholders, from row `first` on, every `step`-th.

    `rows` is the size of the stored matrices' row dimension.
    """

    tensor: CanonicalTensor
    name: str
    first: int
    step: int
    rows: int
    transposed: bool

    @property
    def is_packed(self) -> bool:
        """True if only MXFP4 is stored so."""
        return "{part}" in self.name

    @property
    def is_mlx(self) -> bool:
        """True if arrays are spelled as MLX does."""
        return "{mlx}" in self.name

    def first_name(self, part: str) -> str:
        """The name of the array, or of the first one, that holds one part of the encoding."""
        return next(self.array_names(part))

    def array_names(self, part: str) -> Iterator[str]:
        """The names of the arrays that hold one part of the encoding: one, or one per expert."""
        name = self.name
        for placeholder, spelling in _SPELLINGS.items():
            if placeholder in name:
                name = name.replace(placeholder, spelling[part])
        # A hostile number of experts must not become a list.
        n_arrays = self.tensor.shape[0] if "{expert}" in name else 1
        return (name.replace("{expert}", str(expert)) for expert in range(n_arrays))

    def part_dtype(self, encoding: Encoding, part: str) -> str:
        """The safetensors dtype of one part of the encoding."""
        if part == "data":
            return encoding.name
        if isinstance(encoding, AffineEncoding):
            return "U32" if part == "weight" else encoding.scales
        return "U32" if self.is_mlx and part == "blocks" else "U8"

    def part_shape(self, encoding: Encoding, part: str) -> tuple[int, ...]:
        """The shape of each array of one part: blocks are [..., G, 16] or, in MLX's words of 4 bytes, [..., 4 G]."""
        is_matrix = self.tensor.cols > 1
        leading = self.tensor.shape[: -2 if is_matrix else -1]
        if "{expert}" in self.name:
            leading = leading[1:]
        if not is_matrix:
            return (*leading, self.rows)
        if part == "data":
            matrix = (self.tensor.cols, self.rows) if self.transposed else (self.rows, self.tensor.cols)
            return (*leading, *matrix)
        n_elements = encoding.part_row_bytes(self.tensor.cols)[part] // _DTYPE_BYTES[self.part_dtype(encoding, part)]
        columns = (n_elements // 16, 16) if part == "blocks" and not self.is_mlx else (n_elements,)
        return (*leading, self.rows, *columns)


def places(table: Table, config: GptOssConfig) -> Iterator[Place]:
    """The table's rows for this model, in the inventory's order."""
    return (first for first, *_ in alternatives(table, {}, config))


def alternatives(table: Table, variants: Variants, config: GptOssConfig) -> Iterator[tuple[Place, ...]]:
    """For each canonical tensor, in the inventory's order, the table's place, then those of `variants`."""
    tensors, sizes = inventory(config), dimensions(config)

    def place(name: str, rows: Rows, layer: int) -> Place:
        tensor = tensors[name.format(layer=layer)]
        before = sum(sizes[size] for size in rows.before)
        after = sum(sizes[size] for size in rows.after)
        # str.format would trip over the other placeholders.
        stored = rows.name.replace("{layer}", str(layer))
        total = before + tensor.matrix_rows * rows.step + after
        return Place(tensor, stored, before + rows.first, rows.step, total, rows.transposed)

    def all_of(name: str, layer: int = 0) -> tuple[Place, ...]:
        return tuple(place(name, rows, layer) for rows in (table[name], *variants.get(name, ())))

    embedding, norm, unembedding = (name for name, _, _ in MODEL_TENSORS)
    yield all_of(embedding)
    for layer in range(config.num_hidden_layers):
        for name, _, _ in LAYER_TENSORS:
            yield all_of(name, layer)
    yield all_of(norm)
    yield all_of(unembedding)
