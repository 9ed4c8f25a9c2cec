"""The byte work in plain numpy: the twin of `numba_kernels`, for where numba is not to be had.

`accelerate.Kernels` says what each function does.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Temporaries of this many blocks or elements stay in the cache; larger ones run at a third of the speed.
_CHUNK_BLOCKS = 8192
_CHUNK_ELEMENTS = 65536


def repack_to_ggml(blocks: NDArray[Any], scales: NDArray[Any], out: NDArray[Any]) -> None:
    for rows in _row_chunks(scales):
        low, high = blocks[rows, :, :8], blocks[rows, :, 8:]
        out[rows, :, 0] = scales[rows]
        out[rows, :, 1::2] = (low & 0x0F) | (high << 4)
        out[rows, :, 2::2] = (low >> 4) | (high & 0xF0)


def repack_from_ggml(data: NDArray[Any], blocks: NDArray[Any], scales: NDArray[Any]) -> None:
    for rows in _row_chunks(scales):
        even, odd = data[rows, :, 1::2], data[rows, :, 2::2]
        scales[rows] = data[rows, :, 0]
        blocks[rows, :, :8] = (even & 0x0F) | (odd << 4)
        blocks[rows, :, 8:] = (even >> 4) | (odd & 0xF0)


def expand(blocks: NDArray[Any], scales: NDArray[Any], pairs: NDArray[Any], out: NDArray[Any]) -> None:
    table = pairs.reshape(-1)
    for rows in _row_chunks(scales):
        index = (scales[rows].astype(np.uint16) << 8)[:, :, None] | blocks[rows]
        out[rows] = table[index]


def match(values: NDArray[Any], scales: NDArray[Any], magnitudes: NDArray[Any], out: NDArray[Any]) -> int:
    sign_bit = values.itemsize * 8 - 1
    missing = 0
    for rows in _row_chunks(scales):
        chunk = values[rows].reshape(*scales[rows].shape, 32)
        magnitude = chunk & ((1 << sign_bit) - 1)
        targets = magnitudes[scales[rows]]
        codes = (chunk >> (sign_bit - 3)).astype(np.uint8) & 8
        found = magnitude == targets[:, :, :1]
        for code in range(1, 8):
            equal = magnitude == targets[:, :, code, None]
            found |= equal
            codes |= equal * np.uint8(code)
        missing += found.size - int(np.count_nonzero(found))
        out[rows] = codes[:, :, 0::2] | (codes[:, :, 1::2] << 4)
    return missing


def first_nonfinite(values: NDArray[Any], exponent: int) -> int:
    for start in range(0, len(values), _CHUNK_ELEMENTS):
        nonfinite = (values[start : start + _CHUNK_ELEMENTS] & exponent) == exponent
        if nonfinite.any():
            return start + int(np.argmax(nonfinite))
    return -1


def widen(values: NDArray[Any], out: NDArray[Any]) -> None:
    np.left_shift(values, 16, out=out, dtype=np.uint32)


def narrow(values: NDArray[Any], out: NDArray[Any]) -> int:
    rounded, overflowed = 0, False
    for start in range(0, len(values), _CHUNK_ELEMENTS):
        chunk = values[start : start + _CHUNK_ELEMENTS]
        magnitude = chunk & 0x7FFF_FFFF
        high = chunk >> 16
        is_nan = magnitude > 0x7F80_0000
        nearest = np.where(is_nan, high | 0x40, (chunk + (0x7FFF + (high & 1))) >> 16)
        rounded += int(np.count_nonzero(((chunk & 0xFFFF) != 0) & ~is_nan))
        overflowed |= bool((((nearest & 0x7FFF) == 0x7F80) & (magnitude < 0x7F80_0000)).any())
        out[start : start + _CHUNK_ELEMENTS] = nearest
    return -1 if overflowed else rounded


def translate(values: NDArray[Any], table: NDArray[Any], out: NDArray[Any]) -> int:
    rounded, overflowed = 0, False
    for start in range(0, len(values), _CHUNK_ELEMENTS):
        entries = table[values[start : start + _CHUNK_ELEMENTS]]
        rounded += int(np.count_nonzero(entries & 0x1_0000))
        overflowed |= bool((entries & 0x2_0000).any())
        out[start : start + _CHUNK_ELEMENTS] = entries & 0xFFFF
    return -1 if overflowed else rounded


def _row_chunks(scales: NDArray[Any]) -> Iterator[slice]:
    """Ranges of rows of about `_CHUNK_BLOCKS` blocks."""
    n_rows, groups = scales.shape
    step = max(1, _CHUNK_BLOCKS // max(1, groups))
    for start in range(0, n_rows, step):
        yield slice(start, start + step)
