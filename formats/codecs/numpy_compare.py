"""Comparison in plain numpy: the twin of `numba_compare`, for where numba is not to be had.

`compare.CompareKernels` says what the functions do.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .numpy_kernels import repack_from_ggml

Array = NDArray[Any]

# Temporaries of so many elements or blocks stay in the cache.
_CHUNK_ELEMENTS = 32768
_CHUNK_BLOCKS = 4096

_BITS = np.array([bin(byte).count("1") for byte in range(256)], np.uint8)


def measure(a: Array, b: Array, block: int, counts: Array, sums: Array) -> float:
    largest = -1.0
    step = _CHUNK_ELEMENTS // block * block
    for begin in range(0, len(a), step):
        first, second = a[begin : begin + step], b[begin : begin + step]
        counts[0] += int((first != second).reshape(-1, block).any(axis=1).sum())
        wide_a, wide_b = first.astype(np.float64), second.astype(np.float64)
        error = wide_b - wide_a
        sums += (wide_a @ wide_a, wide_b @ wide_b, wide_a @ wide_b, error @ error)
        place = int(np.abs(error).argmax())
        if abs(error[place]) > largest:
            largest, counts[1] = abs(float(error[place])), begin + place
    return largest


def changed_blocks(words: tuple[Array, Array], scales: tuple[Array, Array], shifts: Array, counts: Array) -> None:
    n_rows, groups = scales[0].shape
    step = max(1, _CHUNK_BLOCKS // groups)
    for begin in range(0, n_rows, step):
        rows = slice(begin, begin + step)
        first, second = (side[rows].reshape(-1, 2) for side in words)
        scale_a, scale_b = (side[rows].reshape(-1).astype(np.int64) for side in scales)
        codes = (first != second).any(axis=1)
        changed = codes | (scale_a != scale_b)
        counts[0] += int(changed.sum())
        counts[1] += int((changed & ~codes).sum())
        shifts += np.bincount((scale_b - scale_a + 255)[changed], minlength=len(shifts))
        bytes_a, bytes_b = (side[changed].reshape(-1).view(np.uint8) for side in (first, second))
        for sign in (0x08, 0x80):
            zeros = ((bytes_a | bytes_b) & (sign - (sign >> 3))) == 0
            counts[2] += int((zeros & (((bytes_a ^ bytes_b) & sign) != 0)).sum())


def same_in_ggml(data: Array, blocks: Array, scales: Array) -> bool:
    step = max(1, _CHUNK_BLOCKS // scales.shape[1])
    for begin in range(0, len(scales), step):
        rows = slice(begin, begin + step)
        if (scales[rows] == 255).any() or not np.array_equal(data[rows, :, 0], scales[rows]):
            return False
        found, unused = np.empty(blocks[rows].shape, np.uint8), np.empty(scales[rows].shape, np.uint8)
        repack_from_ggml(data[rows], found, unused)
        if not np.array_equal(found, blocks[rows]):
            return False
    return True
