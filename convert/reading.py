"""Slabs from files: reads the bytes that a few rows of some tensors occupy, once, into reused buffers."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..formats.codecs.slab import Scratch, Slab, unpack
from ..formats.files import DataFile, open_data_file
from .stored import StoredTensor

# (file, array) -> file offset and bytes of what was read of it
Buffers = dict[tuple[Path, str], tuple[int, NDArray[np.uint8]]]


class SlabReader(Protocol):
    """Gives canonical slabs of a checkpoint's tensors. Used as a context; `load` may be called from any thread."""

    def load(self, tensors: Sequence[StoredTensor], begin: int, end: int, scratch: Scratch) -> list[Slab]:
        """Rows `begin … end - 1` of each of `tensors`, in canonical form, valid until `scratch` is used again."""

    def __enter__(self) -> SlabReader: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def intervals(tensors: Sequence[StoredTensor], begin: int, end: int) -> dict[tuple[Path, str], tuple[int, int]]:
    """File offsets (first, past the last) of what rows `begin … end - 1` occupy, for each array they lie in.

    Tensors that share an array (gate and up) share its interval.
    """
    found: dict[tuple[Path, str], tuple[int, int]] = {}
    for stored in tensors:
        for span in stored.spans:
            key = (span.array.file, span.array.name)
            first, last = span.interval(begin, end)
            known = found.get(key, (first, last))
            found[key] = (min(first, known[0]), max(last, known[1]))
    return found


def slabs(tensors: Sequence[StoredTensor], begin: int, end: int, buffers: Buffers, scratch: Scratch) -> list[Slab]:
    """The canonical form of rows that lie in `buffers`."""
    return [
        unpack(stored.encoding, views(stored, begin, end, buffers), scratch, f"unpack{number}")
        for number, stored in enumerate(tensors)
    ]


def views(stored: StoredTensor, begin: int, end: int, buffers: Buffers) -> list[NDArray[np.uint8]]:
    """Each part's rows `begin … end - 1` as uint8 [N, row bytes] inside the buffers of their intervals."""
    parts = []
    for span in stored.spans:
        start, buffer = buffers[span.array.file, span.array.name]
        offset = span.interval(begin, end)[0] - start
        shape, strides = (end - begin, span.row_bytes), (span.row_bytes * span.step, 1)
        parts.append(np.ndarray(shape, np.uint8, buffer=buffer.data, offset=offset, strides=strides))
    return parts


class FileReader:
    """Reads stored tensors from files; keeps each file open until the context ends."""

    def __init__(self) -> None:
        self._files: dict[Path, DataFile] = {}
        self._stack = ExitStack()
        self._lock = threading.Lock()

    def load(self, tensors: Sequence[StoredTensor], begin: int, end: int, scratch: Scratch) -> list[Slab]:
        return slabs(tensors, begin, end, self.read(tensors, begin, end, scratch), scratch)

    def read(self, tensors: Sequence[StoredTensor], begin: int, end: int, scratch: Scratch) -> Buffers:
        """The bytes of rows `begin … end - 1` of `tensors` as they are stored."""
        buffers: Buffers = {}
        for number, (key, (first, last)) in enumerate(intervals(tensors, begin, end).items()):
            buffer = scratch.take(f"read{number}", last - first)
            self.file(key[0]).read_into(buffer.data, first)
            buffers[key] = (first, buffer)
        return buffers

    def file(self, path: Path) -> DataFile:
        """The open file at `path`. Raises OSError."""
        with self._lock:
            if path not in self._files:
                self._files[path] = self._stack.enter_context(open_data_file(path))
            return self._files[path]

    def __enter__(self) -> FileReader:
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        self._stack.close()
