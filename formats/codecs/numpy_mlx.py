"""MLX's groups decoded in plain numpy: the twin of `numba_mlx`, for where numba is not to be had.

`mlx_affine` says what the kernels do.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

# Temporaries of this many elements stay in the cache.
_CHUNK_ELEMENTS = 65536


def decode_8(codes: Array, scales: Array, biases: Array, out: Array) -> None:
    step = _CHUNK_ELEMENTS // out.shape[1]
    for begin in range(0, len(codes), step):
        some = slice(begin, begin + step)
        _affine(codes[some], scales[some, None], biases[some, None], out[some])


def decode_4(codes: Array, scales: Array, biases: Array, out: Array) -> None:
    step = _CHUNK_ELEMENTS // out.shape[1]
    for begin in range(0, len(codes), step):
        some = slice(begin, begin + step)
        _affine(codes[some] & 15, scales[some, None], biases[some, None], out[some, 0::2])
        _affine(codes[some] >> 4, scales[some, None], biases[some, None], out[some, 1::2])


def _affine(codes: Array, scales: Array, biases: Array, out: Array) -> None:
    with np.errstate(over="ignore", invalid="ignore"):
        np.multiply(codes, scales, out=out, dtype=np.float32)
        out += biases
