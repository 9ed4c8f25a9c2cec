"""Lays arrays out in a new directory of safetensors shards: headers, offsets, sizes, small files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...formats.containers.safetensors import build_safetensors_header
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

    @property
    def weight_map(self) -> dict[str, str]:
        """The file's name for each array."""
        return {name: array.file.name for name, array in self.arrays.items()}


def lay_out_shards(
    out: Path,
    planned: Mapping[str, PlannedArray],
    shards: Sequence[tuple[str, Sequence[str]]],
    metadata: Mapping[str, str] | None = None,
) -> Shards:
    """Files in the directory `out`.

    Args:
        out: where they lie.
        planned: every array by stored name.
        shards: file name and stored names of each file.
        metadata: the files' `__metadata__`; none if None.
    """
    files: list[OutputFile] = []
    arrays: dict[str, StoredArray] = {}
    for file_name, names in shards:
        path = out / file_name
        dtypes = {name: planned[name].dtype for name in names}
        ordered = header_order(names, dtypes)
        header, offsets = build_safetensors_header(
            [(name, dtypes[name], planned[name].shape) for name in ordered], metadata
        )
        for name in ordered:
            array = planned[name]
            offset = len(header) + offsets[name]
            arrays[name] = StoredArray(path, name, array.dtype, array.shape, offset, array.n_bytes)
        files.append(OutputFile(path, header, len(header) + sum(planned[name].n_bytes for name in names)))
    return Shards(tuple(files), {name: arrays[name] for _, names in shards for name in names})
