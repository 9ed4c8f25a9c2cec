"""The quick ways: bytes are compared as they come, where both files store a slab alike or in another order of bytes.

Most comparisons are of files that are equal, or nearly so. What differs, or may hold NaN or an infinity, sends its slab
the long way (`slabs.compare_slab`), which says what it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...formats.codecs.compare import same_bytes, same_packed
from ...formats.codecs.encoding import BF16, F16, F32, GGML_MXFP4, MXFP4, OLLAMA_MXFP4, Encoding
from ...formats.codecs.slab import Scratch
from ..plan import Group
from ..reading import FileReader, SlabReader
from ..stored import RowSpan
from ..transfer import keeps_bytes
from ..window import Window, intervals

# In smaller pieces threads wait for each other (Python's lock) more than they work: 256 kB took half as long again.
_PIECE_BYTES = 1 << 20

# Bit patterns of infinity. Finite numbers of either sign are below them as signed, and as unsigned, integers.
_INFINITY = {F32.name: (0x7F80_0000, 0xFF80_0000), F16.name: (0x7C00, 0xFC00), BF16.name: (0x7F80, 0xFF80)}
_INTEGERS = {4: (np.int32, np.uint32), 2: (np.int16, np.uint16)}
_SCALE_FIRST = (GGML_MXFP4, OLLAMA_MXFP4)
_NAN_SCALE = 255


def stored_alike(group: Group) -> bool:
    """Whether the rows of the group are stored in the same order of bytes on both sides, and can be checked so."""
    for move in group.moves:
        a, b = move.sides
        if a.encoding is not b.encoding or not (a.encoding.name in _INFINITY or _is_packed(a.encoding)):
            return False
    return keeps_bytes(group) or all(
        _geometry(first) == _geometry(second)
        for move in group.moves
        for first, second in zip(move.source.spans, move.target.spans, strict=True)
    )


def _is_packed(encoding: Encoding) -> bool:
    return encoding is MXFP4 or encoding in _SCALE_FIRST


def _geometry(span: RowSpan) -> tuple[object, ...]:
    place = span.first, span.step, span.row_bytes, span.matrix_rows, span.pitch
    return (*place, span.transposed, span.padding, len(span.arrays))


def same_stored_bytes(
    group: Group, begin: int, end: int, readers: tuple[SlabReader, SlabReader], scratch: Scratch
) -> bool:
    """Whether rows `begin … end - 1` of the group, `stored_alike`, are the same bytes on both sides, and all finite.

    False where that cannot be told this way.
    """
    a, b = readers
    if not isinstance(a, FileReader) or not isinstance(b, FileReader):
        return False
    pairs = [intervals([move.sides[side] for move in group.moves], begin, end) for side in (0, 1)]
    holders = _holders(group)
    for (array_a, first_a, last_a), (array_b, first_b, last_b) in zip(*pairs, strict=True):
        if last_a - first_a != last_b - first_b:
            return False
        encoding, part = holders[array_a.file, array_a.name]
        files = a.file(array_a.file), b.file(array_b.file)
        unit = encoding.parts[part][1]
        step = _PIECE_BYTES // unit * unit
        for at in range(0, last_a - first_a, step):
            n_bytes = min(step, last_a - first_a - at)
            pieces = [scratch.take(name, n_bytes) for name in ("piece a", "piece b")]
            for file, piece, first in zip(files, pieces, (first_a, first_b), strict=True):
                file.read_into(piece.data, first + at)
            if not same_bytes(*pieces) or not _is_valid(pieces[0], encoding, part):
                return False
    return True


def _holders(group: Group) -> dict[tuple[Path, str], tuple[Encoding, int]]:
    """Of each array of A: the encoding of its tensor, and which part of that it is."""
    return {
        (array.file, array.name): (move.source.encoding, part)
        for move in group.moves
        for part, span in enumerate(move.source.spans)
        for array in span.arrays
    }


def _is_valid(piece: NDArray[np.uint8], encoding: Encoding, part: int) -> bool:
    """Whether no scale is NaN and every number is finite."""
    if _is_packed(encoding):
        scales: NDArray[Any] = piece[:: encoding.parts[0][1]] if encoding in _SCALE_FIRST else piece
        return (encoding is MXFP4 and part == 0) or int(scales.max()) != _NAN_SCALE
    limits = zip(_INTEGERS[encoding.parts[0][1]], _INFINITY[encoding.name], strict=True)
    return all(int(piece.view(integer).max()) < infinity for integer, infinity in limits)


def same_blocks(group: Group, windows: Sequence[Window]) -> bool:
    """Whether what was read of the group on both sides are the same MXFP4 blocks in two orders, without NaN.

    False where that cannot be told this way.
    """
    a, b = windows
    return all(
        same_packed((move.source.encoding, move.target.encoding), a.rows(move.source), b.rows(move.target))
        for move in group.moves
    )
