"""What a layout's table is made of: which stored rows make which canonical tensor.

A table maps canonical names to `Rows` of a stored tensor; `{layer}` stands for the layer in both. Where a packed tensor
is stored as several arrays, `{part}` in the stored name stands for the part's name ("blocks", "scales").
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ..config import GptOssConfig
from ..inventory import LAYER_TENSORS, MODEL_TENSORS, CanonicalTensor, dimensions, inventory


@dataclass(frozen=True)
class Rows:
    """Rows of the stored tensor `name`, counted over all its leading dimensions.

    Canonical row i is stored row `first + i · step`. Where several tensors are stored one after another, `before` and
    `after` are the sizes (of `inventory.dimensions`) of those around this one.
    """

    name: str
    first: int = 0
    step: int = 1
    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()


Table = Mapping[str, Rows]


@dataclass(frozen=True)
class Place:
    """Where one canonical tensor lies: in `name` (which may hold `{part}`), from row `first` on, every `step`-th row.

    `rows` is the size of the stored tensor's row dimension.
    """

    tensor: CanonicalTensor
    name: str
    first: int
    step: int
    rows: int

    def part_name(self, part: str) -> str:
        """The stored array's name for one part of the encoding."""
        return self.name.replace("{part}", part)

    def part_shape(self, part: str) -> tuple[int, ...]:
        """The stored array's shape: `data` keeps the columns, `blocks` are [..., G, 16] and `scales` [..., G]."""
        is_matrix = self.tensor.cols > 1
        leading = self.tensor.shape[: -2 if is_matrix else -1]
        columns = self.tensor.shape[-1:] if is_matrix else ()
        if part == "data":
            return (*leading, self.rows, *columns)
        groups = columns[0] // 32
        return (*leading, self.rows, groups, 16) if part == "blocks" else (*leading, self.rows, groups)


def places(table: Table, config: GptOssConfig) -> Iterator[Place]:
    """The table's rows for this model, in the inventory's order."""
    tensors, sizes = inventory(config), dimensions(config)

    def place(name: str, rows: Rows, layer: int = 0) -> Place:
        tensor = tensors[name.format(layer=layer)]
        before = sum(sizes[size] for size in rows.before)
        after = sum(sizes[size] for size in rows.after)
        # str.format would trip over {part}.
        stored = rows.name.replace("{layer}", str(layer))
        total = before + tensor.matrix_rows * rows.step + after
        return Place(tensor, stored, before + rows.first, rows.step, total)

    embedding, norm, unembedding = (name for name, _, _ in MODEL_TENSORS)
    yield place(embedding, table[embedding])
    for layer in range(config.num_hidden_layers):
        for name, _, _ in LAYER_TENSORS:
            yield place(name, table[name], layer)
    yield place(norm, table[norm])
    yield place(unembedding, table[unembedding])
