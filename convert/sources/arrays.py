"""The arrays of a directory of safetensors."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ...formats.containers.safetensors_index import read_safetensors_directory
from ..stored import StoredArray


@dataclass(frozen=True)
class DirectoryArrays:
    """Every array of a directory's files by name, and the files."""

    arrays: dict[str, StoredArray]
    files: tuple[Path, ...]


def read_arrays(directory: Path) -> DirectoryArrays:
    """The arrays in `directory`, each in one file. Raises SafetensorsError."""
    headers = read_safetensors_directory(directory)
    arrays = {
        entry.name: StoredArray(header.path, entry.name, entry.dtype, entry.shape, entry.offset, entry.n_bytes)
        for header in headers
        for entry in header.entries.values()
    }
    return DirectoryArrays(arrays, tuple(header.path for header in headers))
