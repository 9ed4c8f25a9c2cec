"""The transpose of dense experts in plain numpy: the twin of `numba_transpose`, for where numba is not to be had.

`transpose` says what the functions do.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from numpy.typing import NDArray

Array = NDArray[Any]

# Elements along K that are moved together: the cache lines they lie in are used again before they leave the cache.
_PIECE = 64


def to_rows(stored: Array, out: Array) -> None:
    for target, source in _pieces(out, stored):
        target[...] = source


def to_columns(rows: Array, out: Array) -> None:
    for source, target in _pieces(rows, out):
        target[...] = source


def _pieces(rows: Array, columns: Array) -> Iterator[tuple[Array, Array]]:
    """Views of the same elements of both, [N, some of K]."""
    n_matrices, _, k = rows.shape
    for begin in range(0, k, _PIECE):
        some = slice(begin, begin + _PIECE)
        for matrix in range(n_matrices):
            yield rows[matrix, :, some], columns[some, matrix::n_matrices].T
