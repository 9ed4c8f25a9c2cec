"""The tensors of two checkpoints side by side, and the slabs in which both are read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from ..checkpoint import Checkpoint
from ..plan import SLAB_BYTES, Group, Move
from ..stored import StoredTensor


def pair_up(a: Checkpoint, b: Checkpoint) -> list[Group]:
    """Every tensor of `a` (source) beside that of `b` (target), which must be of one model.

    Of embeddings only the rows that both have are taken. Tensors whose rows alternate in one array, on either side, are
    one group.
    """
    moves = {name: _pair(stored, b.tensors[name]) for name, stored in a.tensors.items()}
    return [_group(members) for members in _sharing(moves)]


def _pair(a: StoredTensor, b: StoredTensor) -> Move:
    rows = min(a.tensor.rows, b.tensor.rows)
    return Move(_first_rows(a, rows), _first_rows(b, rows))


def _first_rows(stored: StoredTensor, rows: int) -> StoredTensor:
    """The tensor without the rows after the first `rows`, if it has more."""
    if stored.tensor.rows == rows:
        return stored
    tensor = replace(stored.tensor, shape=(rows, stored.tensor.cols))
    dropped = stored.tensor.rows - rows
    spans = tuple(replace(span, matrix_rows=rows, padding=max(0, span.padding - dropped)) for span in stored.spans)
    return StoredTensor(tensor, stored.encoding, spans)


def _sharing(moves: Mapping[str, Move]) -> Iterator[list[Move]]:
    """The pairs in their order, those together that share an array with alternating rows."""
    members: dict[str, list[Move]] = {}
    first_of: dict[tuple[Path, str], str] = {}
    for name, move in moves.items():
        spans = [span for side in move.sides for span in side.spans if span.step > 1]
        arrays = [(span.array.file, span.array.name) for span in spans]
        first = next((first_of[array] for array in arrays if array in first_of), name)
        first_of.update(dict.fromkeys(arrays, first))
        members.setdefault(first, []).append(move)
    yield from members.values()


def _group(moves: list[Move]) -> Group:
    tensor = moves[0].source.tensor
    sides = [side for move in moves for side in move.sides]
    if any(side.is_transposed or side.encoding.whole for side in sides):
        return Group(tuple(moves), tensor.rows, tensor.matrix_rows, tensor.matrix_rows)
    row_bytes = [sum(side.encoding.row_bytes(tensor.cols) for side in group) for group in (sides[::2], sides[1::2])]
    slab_rows = max(1, SLAB_BYTES // max(row_bytes))
    if slab_rows > tensor.matrix_rows:
        is_even = all(span.is_even for side in sides for span in side.spans)
        slab_rows = slab_rows // tensor.matrix_rows * tensor.matrix_rows if is_even else tensor.matrix_rows
    return Group(tuple(moves), tensor.rows, tensor.matrix_rows, slab_rows)
