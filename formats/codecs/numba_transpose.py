"""The transpose of dense experts, compiled by numba: the GIL is free, one thread per call (the caller runs several).

`transpose` says what the functions do, `numpy_transpose` is the twin without numba. Both directions are one kernel: it
takes either array as pairs of rows, [rows / 2, 2, columns]. The pair is a row of gate and the same row of up, or just
two rows that follow each other.
"""

from __future__ import annotations

from typing import Any

import numba
from llvmlite import ir  # type: ignore[import-untyped]
from numba.core import cgutils as _cgutils
from numpy.typing import NDArray

from . import numpy_transpose
from .numba_compile import kernel, operation
from .numba_compile import rows as strided

Array = NDArray[Any]

# numba annotates some of these, not all; half-typed calls are worse than none.
types: Any = numba.types
cgutils: Any = _cgutils

# Rows and columns of a tile: eight vectors of eight elements.
_TILE = 8

# Source rows of one strip of tiles. Their cache lines hold the columns of the next strips too, and stay in the
# second-level cache until then. From 160 to 1440 rows it is about as fast, with all 2880 by a third slower.
_STRIP_ROWS = 640

_INT32, _INTP = ir.IntType(32), ir.IntType(64)


def to_rows(stored: Array, out: Array) -> None:
    n_matrices, n, k = out.shape
    if n_matrices > 2:
        numpy_transpose.to_rows(stored, out)
        return
    n_tiled, k_tiled = n - n % _TILE, k - k % _TILE
    split = n_tiled * n_matrices
    _transpose(_pairs(stored[:k_tiled, :split]), _pairs_of_matrices(out[:, :n_tiled, :k_tiled]))
    numpy_transpose.to_rows(stored[k_tiled:], out[:, :, k_tiled:])
    numpy_transpose.to_rows(stored[:k_tiled, split:], out[:, n_tiled:, :k_tiled])


def to_columns(rows: Array, out: Array) -> None:
    n_matrices, n, k = rows.shape
    if n_matrices > 2:
        numpy_transpose.to_columns(rows, out)
        return
    n_tiled, k_tiled = n - n % _TILE, k - k % _TILE
    split = n_tiled * n_matrices
    _transpose(_pairs_of_matrices(rows[:, :n_tiled, :k_tiled]), _pairs(out[:k_tiled, :split]))
    numpy_transpose.to_columns(rows[:, :, k_tiled:], out[k_tiled:])
    numpy_transpose.to_columns(rows[:, n_tiled:, :k_tiled], out[:k_tiled, split:])


def _pairs(matrix: Array) -> Array:
    return matrix.reshape(len(matrix) // 2, 2, matrix.shape[1])


def _pairs_of_matrices(rows: Array) -> Array:
    return _pairs(rows[0]) if len(rows) == 1 else rows.transpose(1, 0, 2)


@operation
def _tile(_typing: Any, source: Any, out: Any, _row: Any, _column: Any) -> Any:
    """`out[column + j, row + i] = source[row + i, column + j]` for i and j of 0 to 7, both as matrices."""

    def generate(context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        row, column = args[2:]
        lanes = ir.VectorType(context.get_value_type(source.dtype), _TILE)
        vectors = []
        for pointer in _addresses(context, builder, source, args[0], row, column):
            vector = builder.load(builder.bitcast(pointer, lanes.as_pointer()))
            vector.align = 1
            vectors.append(vector)
        # Each round interleaves the vectors of the first half with those of the second; three of them transpose.
        halves = [
            ir.Constant(ir.VectorType(_INT32, _TILE), [lane for i in range(begin, begin + 4) for lane in (i, i + 8)])
            for begin in (0, 4)
        ]
        for _ in range(3):
            vectors = [
                builder.shuffle_vector(vectors[i], vectors[i + 4], half) for i in range(_TILE // 2) for half in halves
            ]
        for pointer, vector in zip(_addresses(context, builder, out, args[1], column, row), vectors, strict=True):
            builder.store(vector, builder.bitcast(pointer, lanes.as_pointer())).align = 1
        return context.get_dummy_value()

    return types.void(source, out, types.intp, types.intp), generate


def _addresses(context: Any, builder: Any, array: Any, value: Any, row: Any, column: Any) -> list[Any]:
    """Of the element in `column` of eight rows from `row` on; `array` is [rows / 2, 2, columns]."""
    view = context.make_array(array)(context, builder, value)
    pair = builder.lshr(row, _INTP(1))
    return [
        cgutils.get_item_pointer(
            context, builder, array, view, [builder.add(pair, _INTP(i // 2)), _INTP(i % 2), column], wraparound=False
        )
        for i in range(_TILE)
    ]


@kernel(*(types.void(strided(bits, 3), strided(bits, 3, out=True)) for bits in (types.uint16, types.uint32)))
def _transpose(source: Array, out: Array) -> None:
    """`out` [C / 2, 2, R] from `source` [R / 2, 2, C], both as matrices of whole tiles."""
    n_rows, n_columns = out.shape[2], source.shape[2]
    for begin in range(0, n_rows, _STRIP_ROWS):
        end = min(begin + _STRIP_ROWS, n_rows)
        for column in range(0, n_columns, _TILE):
            for row in range(begin, end, _TILE):
                _tile(source, out, row, column)
