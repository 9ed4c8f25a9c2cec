"""The arrays that a layout's table asks for, given how each tensor is to be encoded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ...formats.codecs.encoding import Encoding
from ...model.config import GptOssConfig
from ...model.inventory import inventory
from ...model.layouts.table import Table, expand, stored_shape


@dataclass(frozen=True)
class PlannedArray:
    """A stored array to be: one part of an encoding, of `shape` in numpy order."""

    name: str
    encoding: Encoding
    part: str
    shape: tuple[int, ...]


def planned_arrays(table: Table, config: GptOssConfig, encodings: Mapping[str, Encoding]) -> dict[str, PlannedArray]:
    """The arrays of the layout by stored name, in the inventory's order. `encodings` is by canonical name."""
    tensors = inventory(config)
    arrays: dict[str, PlannedArray] = {}
    for name, rows in expand(table, config):
        tensor, encoding = tensors[name], encodings[name]
        for part, _ in encoding.parts:
            stored = rows.name.replace("{part}", part)
            shape = stored_shape(tensor.shape, is_matrix=tensor.cols > 1, step=rows.step, part=part)
            arrays[stored] = PlannedArray(stored, encoding, part, shape)
    return arrays
