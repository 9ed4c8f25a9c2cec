"""A window on stored bytes: some rows of the tensors of a group, in reused buffers, seen as canonical rows.

Tensors that share an array (gate and up) share its bytes. Rows that are the columns of what is stored exist only as a
turned copy: `turn_in` makes it of bytes that were read, `turn_out` makes the bytes to be written of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..formats.codecs import transpose
from ..formats.codecs.slab import Scratch
from .stored import RowSpan, StoredArray, StoredTensor


@dataclass
class Piece:
    """What the window needs of `array`: the bytes from file offset `first` on, in `buffer`.

    `turned` is [tensors, rows, columns], one matrix of each tensor that shares a transposed array.
    """

    array: StoredArray
    first: int
    buffer: NDArray[np.uint8]
    turned: NDArray[Any] | None = None

    @property
    def columns(self) -> NDArray[Any]:
        """The bytes as the stored matrix [columns, rows · tensors]."""
        assert self.turned is not None
        tensors, rows, cols = self.turned.shape
        return self.buffer.view(self.turned.dtype).reshape(cols, rows * tensors)


class Window:
    """Rows `begin … end - 1` of `tensors`; `name` keeps the buffers of several windows in one `scratch` apart."""

    def __init__(self, tensors: Sequence[StoredTensor], begin: int, end: int, scratch: Scratch, name: str) -> None:
        self.begin, self.end = begin, end
        self._scratch, self._name = scratch, name
        self._pieces: dict[tuple[Path, str], Piece] = {}
        for array, first, last in intervals(tensors, begin, end):
            buffer = scratch.take(f"{name}{len(self._pieces)}", last - first)
            self._pieces[array.file, array.name] = Piece(array, first, buffer)
        for stored in tensors:
            for span in stored.spans:
                if span.transposed:
                    self._make_room_to_turn(stored, span)

    @property
    def pieces(self) -> list[Piece]:
        """What lies where in the files."""
        return list(self._pieces.values())

    def turn_in(self) -> None:
        """Turns what was read, where it is transposed."""
        for piece in self.pieces:
            if piece.turned is not None:
                transpose.to_rows(piece.columns, piece.turned)

    def turn_out(self) -> None:
        """Turns what is to be written, where it is transposed."""
        for piece in self.pieces:
            if piece.turned is not None:
                transpose.to_columns(piece.turned, piece.columns)

    def rows(self, stored: StoredTensor) -> list[NDArray[np.uint8]]:
        """Each part's rows as uint8 [N, row bytes], to be read or to be filled."""
        return [self._rows(span, number) for number, span in enumerate(stored.spans)]

    def _rows(self, span: RowSpan, number: int) -> NDArray[np.uint8]:
        array, first, last = span.interval(self.begin, self.end)
        piece = self._pieces[array.file, array.name]
        if piece.turned is not None:
            turned: NDArray[np.uint8] = piece.turned[span.first].view(np.uint8)
            return turned
        n_rows = self.end - self.begin
        stored_rows = n_rows if not span.padding else (last - first) // span.row_bytes
        shape, strides = (stored_rows, span.row_bytes), (span.row_bytes * span.step, 1)
        rows = np.ndarray(shape, np.uint8, buffer=piece.buffer.data, offset=first - piece.first, strides=strides)
        if stored_rows == n_rows:
            return rows
        padded = self._scratch.array(f"{self._name}padded{number}", (n_rows, span.row_bytes), rows.dtype)
        padded[:stored_rows], padded[stored_rows:] = rows, 0
        return padded

    def _make_room_to_turn(self, stored: StoredTensor, span: RowSpan) -> None:
        array, _, _ = span.interval(self.begin, self.end)
        piece = self._pieces[array.file, array.name]
        assert self.end - self.begin == span.matrix_rows
        assert span.pitch == span.matrix_rows * span.step
        shape, dtype = (
            (span.step, span.matrix_rows, stored.tensor.cols),
            np.dtype(f"<u{span.row_bytes // stored.tensor.cols}"),
        )
        number = list(self._pieces).index((array.file, array.name))
        piece.turned = self._scratch.array(f"{self._name}turned{number}", shape, dtype)


def intervals(tensors: Sequence[StoredTensor], begin: int, end: int) -> list[tuple[StoredArray, int, int]]:
    """File offsets (first, past the last) of what the rows occupy, for each array they lie in.

    Tensors that share an array share its interval.
    """
    found: dict[tuple[Path, str], tuple[StoredArray, int, int]] = {}
    for stored in tensors:
        for span in stored.spans:
            array, first, last = span.interval(begin, end)
            _, known_first, known_last = found.setdefault((array.file, array.name), (array, first, last))
            found[array.file, array.name] = (array, min(first, known_first), max(last, known_last))
    return list(found.values())
