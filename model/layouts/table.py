"""What a layout's table is made of: which stored rows make which canonical tensor.

A table maps canonical names to `Rows` of a stored tensor; `{layer}` stands for the layer in both. Where a packed tensor
is stored as several arrays, `{part}` in the stored name stands for the part's name ("blocks", "scales").
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ..config import GptOssConfig
from ..inventory import LAYER_TENSORS, MODEL_TENSORS


@dataclass(frozen=True)
class Rows:
    """Rows `first`, `first + step`, … of the stored tensor `name`.

    Counted over all leading dimensions: canonical row i is stored row `first + i · step`.
    """

    name: str
    first: int = 0
    step: int = 1


Table = Mapping[str, Rows]


def expand(table: Table, config: GptOssConfig) -> Iterator[tuple[str, Rows]]:
    """The table's rows for this many layers: (canonical name, Rows), in the inventory's order."""
    embedding, norm, unembedding = (name for name, _, _ in MODEL_TENSORS)
    yield embedding, table[embedding]
    for layer in range(config.num_hidden_layers):
        for name, _, _ in LAYER_TENSORS:
            rows = table[name]
            # str.format would trip over {part}.
            stored = rows.name.replace("{layer}", str(layer))
            yield name.format(layer=layer), Rows(stored, rows.first, rows.step)
    yield norm, table[norm]
    yield unembedding, table[unembedding]


def stored_shape(shape: tuple[int, ...], *, is_matrix: bool, step: int, part: str) -> tuple[int, ...]:
    """The shape of the stored array that holds every `step`-th row of a canonical tensor of `shape`.

    `data` arrays keep the columns; `blocks` are [..., G, 16] and `scales` [..., G] with G = columns / 32.
    """
    row = len(shape) - (2 if is_matrix else 1)
    wide = (*shape[:row], shape[row] * step, *shape[row + 1 :])
    if part == "data":
        return wide
    groups = wide[-1] // 32
    return (*wide[:-1], groups, 16) if part == "blocks" else (*wide[:-1], groups)
