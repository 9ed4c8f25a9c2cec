"""The arrays that a layout's table asks for, given how each tensor is to be encoded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ...formats.codecs.encoding import MXFP4, Encoding
from ...formats.errors import UsageError
from ...model.config import GptOssConfig
from ...model.layouts.table import Table, places
from ..checkpoint import Checkpoint
from ..plan import canonical
from ..stored import StoredTensor


@dataclass(frozen=True)
class PlannedArray:
    """A stored array to be: one part of an encoding, of `shape` in numpy order."""

    name: str
    encoding: Encoding
    part: str
    shape: tuple[int, ...]


def planned_arrays(table: Table, config: GptOssConfig, encodings: Mapping[str, Encoding]) -> dict[str, PlannedArray]:
    """The arrays of the layout by stored name, in the inventory's order. `encodings` is by canonical name."""
    arrays: dict[str, PlannedArray] = {}
    for place in places(table, config):
        encoding = encodings[place.tensor.name]
        for part, _ in encoding.parts:
            name = place.part_name(part)
            arrays[name] = PlannedArray(name, encoding, part, place.part_shape(part))
    return arrays


def packed_encodings(checkpoint: Checkpoint, experts: Encoding, others: Encoding) -> dict[str, Encoding]:
    """`experts` for the experts and `others` for everything else, by canonical name.

    Raises:
        UsageError: the experts are not stored as MXFP4, and encoding them is not supported.
    """
    for stored in checkpoint.tensors.values():
        if stored.tensor.role == "experts":
            require_packed(stored)
    return {name: experts if stored.tensor.role == "experts" else others for name, stored in checkpoint.tensors.items()}


def require_packed(stored: StoredTensor) -> None:
    """Raises UsageError unless the tensor is stored as MXFP4."""
    encoding = canonical(stored.encoding)
    if encoding is not MXFP4:
        raise UsageError(
            "the experts are not stored as MXFP4, and encoding them is not supported",
            file=stored.spans[0].array.file,
            tensor=stored.spans[0].array.name,
            found=encoding.name,
            remedy=f"Use to-gguf with --experts {encoding.name.lower()}.",
        )
