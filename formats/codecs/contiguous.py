"""Rows that lie apart, handed on in pieces that lie together, for kernels that want one run of blocks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Elements of `out` copied together where rows are strided: 256 kB of float32 stay in the cache.
_CHUNK_ELEMENTS = 65536


def pieces(data: NDArray[Any], out: NDArray[Any]) -> Iterator[tuple[int, NDArray[Any], NDArray[Any]]]:
    """The first row of each piece, its rows of `data` and its rows of `out`, both C-contiguous.

    All rows are one piece if both arrays are C-contiguous. What is written to a piece of `out` is in `out` when the
    next piece is asked for.

    Args:
        data: [N, ...], any strides.
        out: [N, ...], any strides.
    """
    together = data.flags.c_contiguous and out.flags.c_contiguous
    step = max(1, len(out) if together else _CHUNK_ELEMENTS * len(out) // max(1, out.size))
    for begin in range(0, len(out), step):
        target = out[begin : begin + step]
        piece = target if target.flags.c_contiguous else np.empty(target.shape, target.dtype)
        yield begin, np.ascontiguousarray(data[begin : begin + step]), piece
        if piece is not target:
            target[...] = piece
