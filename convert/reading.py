"""Slabs from files: reads the bytes that a few rows of some tensors occupy, once, into reused buffers."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from ..formats.codecs.slab import Scratch, Slab, unpack
from ..formats.files import DataFile, open_data_file
from .placed import placed
from .stored import StoredTensor
from .window import Window


class SlabReader(Protocol):
    """Gives canonical slabs of a checkpoint's tensors. Used as a context; `load` may be called from any thread."""

    def load(self, tensors: Sequence[StoredTensor], begin: int, end: int, scratch: Scratch) -> list[Slab]:
        """Rows `begin … end - 1` of each of `tensors`, in canonical form, valid until `scratch` is used again."""

    def __enter__(self) -> SlabReader: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def slabs(tensors: Sequence[StoredTensor], window: Window, scratch: Scratch) -> list[Slab]:
    """The canonical form of rows that lie in `window`. Raises CodecError naming file and tensor."""
    found = []
    for number, stored in enumerate(tensors):
        with placed(stored, window.begin, "the tensor cannot be decoded", part=0):
            found.append(unpack(stored.encoding, window.rows(stored), scratch, f"unpack{number}"))
    return found


class FileReader:
    """Reads stored tensors from files; keeps each file open until the context ends."""

    def __init__(self) -> None:
        self._files: dict[Path, DataFile] = {}
        self._stack = ExitStack()
        self._lock = threading.Lock()

    def load(self, tensors: Sequence[StoredTensor], begin: int, end: int, scratch: Scratch) -> list[Slab]:
        return slabs(tensors, self.read(tensors, begin, end, scratch), scratch)

    def read(self, tensors: Sequence[StoredTensor], begin: int, end: int, scratch: Scratch) -> Window:
        """The bytes of rows `begin … end - 1` of `tensors` as they are stored."""
        window = Window(tensors, begin, end, scratch, "read")
        for piece in window.pieces:
            self.file(piece.array.file).read_into(piece.buffer.data, piece.first)
        window.turn_in()
        return window

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
