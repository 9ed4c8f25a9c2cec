"""MLX's groups decoded by code that numba compiles: the GIL is free, one thread per call.

`mlx_affine` says what the kernels do, `numpy_mlx` is the twin without numba. The length of the inner loops is taken
from a shape: LLVM unrolls a short loop of constant length, and then no longer makes vector code of it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types
from numpy.typing import NDArray

from .numba_compile import flat, kernel

Array = NDArray[Any]

_LOW, _4 = np.uint8(15), np.uint8(4)

_DECODE = types.void(flat(types.uint8, 2), flat(types.float32), flat(types.float32), flat(types.float32, 2, out=True))


@kernel(_DECODE)
def decode_8(codes: Array, scales: Array, biases: Array, out: Array) -> None:
    n = codes.shape[1]
    for group in range(len(codes)):
        scale, bias = scales[group], biases[group]
        for i in range(n):
            out[group, i] = np.float32(codes[group, i]) * scale + bias


@kernel(_DECODE)
def decode_4(codes: Array, scales: Array, biases: Array, out: Array) -> None:
    n = codes.shape[1]
    for group in range(len(codes)):
        scale, bias = scales[group], biases[group]
        for i in range(n):
            out[group, 2 * i] = np.float32(np.uint8(codes[group, i] & _LOW)) * scale + bias
            out[group, 2 * i + 1] = np.float32(np.uint8(codes[group, i] >> _4)) * scale + bias
