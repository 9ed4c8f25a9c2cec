"""The arrays that a layout's table asks for, given how each tensor is to be encoded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

from ...formats.codecs.encoding import Encoding
from ...formats.containers.safetensors import DTYPE_BITS
from ...formats.errors import UsageError
from ...model.config import GptOssConfig
from ...model.layouts.table import Table, places
from ..checkpoint import Checkpoint


@dataclass(frozen=True)
class PlannedArray:
    """A stored array to be: one part of an encoding, of `shape` in numpy order; `dtype` is safetensors' word."""

    name: str
    encoding: Encoding
    part: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def n_bytes(self) -> int:
        """Bytes of the array in a safetensors file."""
        return prod(self.shape) * DTYPE_BITS[self.dtype] // 8


def planned_arrays(table: Table, config: GptOssConfig, encodings: Mapping[str, Encoding]) -> dict[str, PlannedArray]:
    """The arrays of the layout by stored name, in the inventory's order. `encodings` is by canonical name."""
    arrays: dict[str, PlannedArray] = {}
    for place in places(table, config):
        encoding = encodings[place.tensor.name]
        for part, _ in encoding.parts:
            for name in place.array_names(part):
                shape = place.part_shape(encoding, part)
                arrays[name] = PlannedArray(name, encoding, part, place.part_dtype(encoding, part), shape)
    return arrays


def encodings_of(checkpoint: Checkpoint, experts: Encoding, others: Encoding) -> dict[str, Encoding]:
    """`experts` for the experts and `others` for everything else, by canonical name."""
    return {name: experts if stored.tensor.role == "experts" else others for name, stored in checkpoint.tensors.items()}


def require_all_rows(checkpoint: Checkpoint) -> None:
    """Raises UsageError if the embeddings end with the last token, as in a Metal file."""
    if checkpoint.lost_rows:
        rows = checkpoint.config.vocab_size
        raise UsageError(
            "the file does not hold the rows of the embeddings that have no token of its own",
            file=checkpoint.path,
            expected=f"{rows + checkpoint.lost_rows:,} rows",
            found=f"{rows:,} rows",
            remedy="Use --pad-vocab to add rows of zeros, or convert from another layout to keep the true ones.",
        )
