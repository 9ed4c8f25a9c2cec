"""Lays arrays out in safetensors shards: headers, offsets, sizes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

from ...formats.containers.safetensors import DTYPE_BITS, build_safetensors_header
from ...model.layouts.official_shards import header_order
from ..plan import OutputFile
from ..stored import StoredArray
from .arrays import PlannedArray


@dataclass(frozen=True)
class Shards:
    """Safetensors files to write, and where each array lies in them."""

    files: tuple[OutputFile, ...]
    arrays: dict[str, StoredArray]

    @property
    def n_bytes(self) -> int:
        """Bytes of tensor data."""
        return sum(array.n_bytes for array in self.arrays.values())


def dtype_of(array: PlannedArray) -> str:
    """The safetensors dtype of a planned array: parts of MXFP4 are bytes."""
    return array.encoding.name if array.part == "data" else "U8"


def bytes_of(array: PlannedArray) -> int:
    """Bytes of a planned array."""
    return prod(array.shape) * DTYPE_BITS[dtype_of(array)] // 8


def lay_out_shards(
    out: Path, planned: Mapping[str, PlannedArray], shards: Sequence[tuple[str, Sequence[str]]]
) -> Shards:
    """Files in the directory `out`. `shards` are (file name, stored names); a file has no `__metadata__`."""
    files: list[OutputFile] = []
    arrays: dict[str, StoredArray] = {}
    for file_name, names in shards:
        path = out / file_name
        dtypes = {name: dtype_of(planned[name]) for name in names}
        ordered = header_order(names, dtypes)
        header, offsets = build_safetensors_header([(name, dtypes[name], planned[name].shape) for name in ordered])
        for name in ordered:
            array = planned[name]
            arrays[name] = StoredArray(
                path, name, dtypes[name], array.shape, len(header) + offsets[name], bytes_of(array)
            )
        files.append(OutputFile(path, header, len(header) + sum(bytes_of(planned[name]) for name in names)))
    return Shards(tuple(files), arrays)
