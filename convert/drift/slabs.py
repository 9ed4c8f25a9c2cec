"""One slab of a tensor on both sides: equal in bytes, equal in values, or how far apart.

Bytes are compared first, in the canonical form where both sides have the same, else as the finer of both: MXFP4 is
decoded to the floats of the other side. Only what differs is decoded to float32 and measured, a few rows at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ...formats.codecs.compare import Distance, PackedChanges, changed_blocks, measure, same_bytes
from ...formats.codecs.encoding import BF16, F32, MXFP4, canonical
from ...formats.codecs.mxfp4 import Mxfp4
from ...formats.codecs.slab import Dense, Scratch, Slab, as_f32, encoding_of, planes, restore
from ...formats.errors import CodecError
from ..placed import placed
from ..plan import Move
from ..stored import StoredTensor
from ..transfer import refuse_invalid

# Elements measured together: 1 MB of float32 on each side.
_CHUNK_ELEMENTS = 1 << 18

_EMBEDDINGS = ("embedding", "unembedding")


@dataclass(frozen=True)
class RowChanges:
    """Rows of an embedding that differ, and how many of them are all zero on one side."""

    changed: int = 0
    zero_in_a: int = 0
    zero_in_b: int = 0


@dataclass(frozen=True)
class Part:
    """Rows `begin … end - 1` of a tensor.

    Attributes:
        same_bytes: whether the canonical bytes are equal; False where the canonical encodings differ.
        distances: of rows that follow each other, with places from the tensor's first row on. Empty where all values
            are equal and none was measured.
        packed: which bytes of packed blocks differ, where both sides are packed and any does.
        rows: which rows of an embedding differ.
    """

    begin: int
    end: int
    same_bytes: bool
    distances: tuple[Distance, ...] = ()
    packed: PackedChanges | None = None
    rows: RowChanges | None = None


def unit_elements(move: Move) -> int:
    """How many elements are counted as one: 32 where either side is MXFP4, else 1."""
    return max(canonical(side.encoding).block_elements for side in move.sides)


def compare_slab(move: Move, a: Slab, b: Slab, begin: int, scratch: Scratch) -> Part:
    """What differs between the rows from `begin` on. Raises CodecError for NaN or infinity, naming the place."""
    refuse_invalid(a, move.source, begin)
    end = begin + len(planes(a)[0])
    alike = encoding_of(a) is encoding_of(b)
    if alike and _equal(a, b):
        return Part(begin, end, same_bytes=True)
    refuse_invalid(b, move.target, begin)
    if not alike and _equal_when_decoded(a, b, scratch):
        return Part(begin, end, same_bytes=False)
    packed = changed_blocks(a, b) if isinstance(a, Mxfp4) and isinstance(b, Mxfp4) else None
    distances: list[Distance] = []
    rows: list[RowChanges] = []
    for at, first, second in _floats(move, a, b, begin, scratch):
        found = measure(first, second, unit_elements(move))
        distances.append(replace(found, place=(begin + at + found.place[0], found.place[1])))
        if move.source.tensor.role in _EMBEDDINGS:
            rows.append(_row_changes(first, second))
    changes = RowChanges(*(sum(column) for column in zip(*map(_counts, rows), strict=True))) if rows else None
    return Part(begin, end, same_bytes=False, distances=tuple(distances), packed=packed, rows=changes)


def measure_alone(move: Move, a: Slab, part: Part, scratch: Scratch) -> Part:
    """`part`, whose values are equal on both sides, with its distances of zero: they hold the sums of a²."""
    distances = []
    for at, first, second in _floats(move, a, a, part.begin, scratch):
        found = measure(first, second, unit_elements(move))
        distances.append(replace(found, place=(part.begin + at, 0)))
    return replace(part, distances=tuple(distances))


def _equal(a: Slab, b: Slab) -> bool:
    return all(same_bytes(first, second) for first, second in zip(planes(a), planes(b), strict=True))


def _equal_when_decoded(a: Slab, b: Slab, scratch: Scratch) -> bool:
    """Whether both hold the same bytes in an encoding that holds every value of either; False if there is none."""
    names = {encoding_of(a), encoding_of(b)}
    common = BF16 if names == {MXFP4, BF16} else F32
    try:
        decoded = [restore(slab, common, None, scratch, name)[0] for slab, name in ((a, "a"), (b, "b"))]
    except CodecError:
        return False
    return _equal(*decoded)


def _floats(
    move: Move, a: Slab, b: Slab, begin: int, scratch: Scratch
) -> Iterator[tuple[int, NDArray[np.float32], NDArray[np.float32]]]:
    """Both sides a few rows at a time: the first row's number in the slab, and float32 [n, cols] twice."""
    n_rows, step = len(planes(a)[0]), max(1, _CHUNK_ELEMENTS // move.source.tensor.cols)
    for at in range(0, n_rows, step):
        first = _decoded(move.source, _rows(a, at, at + step), begin + at, scratch, "first")
        second = first if b is a else _decoded(move.target, _rows(b, at, at + step), begin + at, scratch, "second")
        yield at, first, second


def _rows(slab: Slab, begin: int, end: int) -> Slab:
    if isinstance(slab, Mxfp4):
        return Mxfp4(slab.blocks[begin:end], slab.scales[begin:end])
    return Dense(slab.encoding, slab.values[begin:end])


def _decoded(stored: StoredTensor, slab: Slab, begin: int, scratch: Scratch, name: str) -> NDArray[np.float32]:
    """The values. Raises CodecError naming file and tensor if one is too large for float32."""
    with placed(stored, begin, "the tensor cannot be measured"):
        return as_f32(slab, scratch, name)


def _row_changes(a: NDArray[np.float32], b: NDArray[np.float32]) -> RowChanges:
    changed = (a != b).any(axis=1)
    zeros = [int((~side.any(axis=1) & changed).sum()) for side in (a, b)]
    return RowChanges(int(changed.sum()), *zeros)


def _counts(rows: RowChanges) -> tuple[int, int, int]:
    return rows.changed, rows.zero_in_a, rows.zero_in_b
