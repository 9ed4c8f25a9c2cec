"""The transpose between how dense experts are stored and their canonical rows.

Hugging Face stores the projections of a dense expert with the inputs first, and interleaves gate and up (S = 2):

    stored [K, 2N]     gate 0   up 0   gate 1   up 1   …        row k: what input k is multiplied by
    rows   [2, N, K]   gate [N, K], then up [N, K]

    rows[s, n, k] = stored[k, n * S + s]

down stands alone (S = 1): stored [K, N], rows [1, N, K]. Elements are patterns: uint16 of BF16 and F16, uint32 of F32.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..errors import REPORT, CodecError
from . import accelerate
from .mxfp4 import require_rows


class TransposeKernels(Protocol):
    """What `numba_transpose` and `numpy_transpose` both offer, with the arrays of `to_rows`, checked by the caller."""

    def to_rows(self, stored: NDArray[Any], out: NDArray[Any]) -> None:
        """`out[s, n, k] = stored[k, n * S + s]`."""

    def to_columns(self, rows: NDArray[Any], out: NDArray[Any]) -> None:
        """`out[k, n * S + s] = rows[s, n, k]`."""


def to_rows(stored: NDArray[Any], out: NDArray[Any]) -> None:
    """Writes `out[s, n, k] = stored[k, n * S + s]`.

    Args:
        stored: uint16 or uint32 [K, N * S]; rows may lie any distance apart, so it can be some columns of an expert.
        out: [S, N, K], the same dtype, S of at least 1; each of the S matrices C-contiguous. Not the same memory.

    Raises:
        CodecError: a dtype, shape or stride is another.
    """
    _require("stored", stored, "out", out)
    if out.size:
        _kernels().to_rows(stored, out)


def to_columns(rows: NDArray[Any], out: NDArray[Any]) -> None:
    """Writes `out[k, n * S + s] = rows[s, n, k]`: the inverse of `to_rows`.

    Args:
        rows: uint16 or uint32 [S, N, K], as `out` of `to_rows`.
        out: [K, N * S], as `stored` of `to_rows`.

    Raises:
        CodecError: as `to_rows`.
    """
    _require("out", out, "rows", rows)
    if out.size:
        _kernels().to_columns(rows, out)


def _require(columns_name: str, columns: NDArray[Any], rows_name: str, rows: NDArray[Any]) -> None:
    if rows.ndim != 3 or not len(rows) or rows.dtype not in (np.uint16, np.uint32):
        raise CodecError(
            f"the array {rows_name} has the wrong shape or dtype",
            expected="uint16 or uint32 [S, N, K] with S of at least 1",
            found=f"{rows.dtype.name} {list(rows.shape)}",
            remedy=REPORT,
        )
    n_matrices, n, k = rows.shape
    require_rows(rows_name, rows, rows.dtype, rows.shape)
    require_rows(columns_name, columns, rows.dtype, (k, n * n_matrices))


def _kernels() -> TransposeKernels:
    from . import numpy_kernels, numpy_transpose

    if accelerate.kernels() is numpy_kernels:
        return numpy_transpose
    from . import numba_transpose

    return numba_transpose
