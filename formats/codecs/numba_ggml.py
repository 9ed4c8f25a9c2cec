"""ggml's blocks decoded by code that numba compiles: the GIL is free, one thread per call.

`ggml_blocks` draws the blocks, `numpy_ggml` is the twin without numba. The length of every inner loop is taken from a
shape: LLVM unrolls a short loop of constant length, and then no longer makes vector code of it.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numba import njit, types
from numpy.typing import NDArray

from .ggml_blocks import IQ4_NL_LEVELS
from .numba_compile import flat, kernel

Array = NDArray[Any]

_LOW, _4 = np.uint8(15), np.uint8(4)
_F4, _F8, _F16, _F32 = (np.float32(offset) for offset in (4, 8, 16, 32))
_IQ4_NL = np.array(IQ4_NL_LEVELS, np.float32)

# data uint8 [B, block bytes], halves float32 [65536], out float32 [B, block elements] -> the first bad block, or -1.
_DECODE = types.int64(flat(types.uint8, 2), flat(types.float32), flat(types.float32, 2, out=True))


def decode(type_name: str, data: Array, out: Array) -> int:
    return int(_KERNELS[type_name](data, _halves(), out))


@functools.cache
def _halves() -> NDArray[np.float32]:
    """The value of every F16 pattern. A table, so that no mode of the processor can flush subnormals to zero."""
    with np.errstate(invalid="ignore"):
        return np.arange(1 << 16, dtype=np.uint16).view(np.float16).astype(np.float32)


@njit(nogil=True)
def _half(data: Array, block: int, at: int, halves: Array) -> Any:
    """The F16 number in bytes `at` and `at + 1`."""
    return halves[data[block, at] | np.uint16(data[block, at + 1]) << 8]


# --- blocks of 32 ------------------------------------------------------------------------------------------------


@kernel(_DECODE)
def _decode_q8_0(data: Array, halves: Array, out: Array) -> int:
    n = out.shape[1]
    for block in range(len(data)):
        d = _half(data, block, 0, halves)
        if not np.isfinite(d):
            return block
        for i in range(n):
            out[block, i] = np.float32(np.int8(data[block, 2 + i])) * d
    return -1


@kernel(_DECODE)
def _decode_q4_0(data: Array, halves: Array, out: Array) -> int:
    n = out.shape[1] // 2
    for block in range(len(data)):
        d = _half(data, block, 0, halves)
        if not np.isfinite(d):
            return block
        for i in range(n):
            out[block, i] = (np.float32(np.uint8(data[block, 2 + i] & _LOW)) - _F8) * d
        for i in range(n):
            out[block, n + i] = (np.float32(np.uint8(data[block, 2 + i] >> _4)) - _F8) * d
    return -1


@kernel(_DECODE)
def _decode_q4_1(data: Array, halves: Array, out: Array) -> int:
    n = out.shape[1] // 2
    for block in range(len(data)):
        d, m = _half(data, block, 0, halves), _half(data, block, 2, halves)
        if not np.isfinite(d + m):
            return block
        for i in range(n):
            out[block, i] = np.float32(np.uint8(data[block, 4 + i] & _LOW)) * d + m
        for i in range(n):
            out[block, n + i] = np.float32(np.uint8(data[block, 4 + i] >> _4)) * d + m
    return -1


@njit(nogil=True)
def _word(data: Array, block: int, at: int) -> Any:
    """The 32-bit number in bytes `at` to `at + 3`."""
    low = np.uint32(data[block, at]) | np.uint32(data[block, at + 1]) << 8
    return np.uint32(low | np.uint32(data[block, at + 2]) << 16 | np.uint32(data[block, at + 3]) << 24)


@njit(nogil=True)
def _fifth(word: Any, bit: int) -> Any:
    """16 if `bit` of `word` is set, else 0."""
    return np.uint8(np.uint32(word >> np.uint32(bit)) << np.uint32(4) & np.uint32(16))


@kernel(_DECODE)
def _decode_q5_0(data: Array, halves: Array, out: Array) -> int:
    n = out.shape[1] // 2
    for block in range(len(data)):
        d, word = _half(data, block, 0, halves), _word(data, block, 2)
        if not np.isfinite(d):
            return block
        for i in range(n):
            out[block, i] = (np.float32(np.uint8(data[block, 6 + i] & _LOW | _fifth(word, i))) - _F16) * d
        for i in range(n):
            out[block, n + i] = (np.float32(np.uint8(data[block, 6 + i] >> _4 | _fifth(word, n + i))) - _F16) * d
    return -1


@kernel(_DECODE)
def _decode_q5_1(data: Array, halves: Array, out: Array) -> int:
    n = out.shape[1] // 2
    for block in range(len(data)):
        d, m, word = _half(data, block, 0, halves), _half(data, block, 2, halves), _word(data, block, 4)
        if not np.isfinite(d + m):
            return block
        for i in range(n):
            out[block, i] = np.float32(np.uint8(data[block, 8 + i] & _LOW | _fifth(word, i))) * d + m
        for i in range(n):
            out[block, n + i] = np.float32(np.uint8(data[block, 8 + i] >> _4 | _fifth(word, n + i))) * d + m
    return -1


@kernel(_DECODE)
def _decode_iq4_nl(data: Array, halves: Array, out: Array) -> int:
    n = out.shape[1] // 2
    for block in range(len(data)):
        d = _half(data, block, 0, halves)
        if not np.isfinite(d):
            return block
        for i in range(n):
            out[block, i] = _IQ4_NL[data[block, 2 + i] & _LOW] * d
        for i in range(n):
            out[block, n + i] = _IQ4_NL[data[block, 2 + i] >> _4] * d
    return -1


# --- blocks of 256 -----------------------------------------------------------------------------------------------


@kernel(_DECODE)
def _decode_q2_k(data: Array, halves: Array, out: Array) -> int:
    n = out.shape[1] // 16
    for block in range(len(data)):
        d, dmin = _half(data, block, 80, halves), _half(data, block, 82, halves)
        if not np.isfinite(d + dmin):
            return block
        for group in range(16):
            code_at, shift = 16 + 32 * (group // 8) + 16 * (group % 2), np.uint8(group % 8 // 2 * 2)
            scale = d * np.float32(np.uint8(data[block, group] & _LOW))
            low = dmin * np.float32(np.uint8(data[block, group] >> _4))
            for i in range(n):
                code = np.uint8(data[block, code_at + i] >> shift & np.uint8(3))
                out[block, 16 * group + i] = np.float32(code) * scale - low
    return -1


@njit(nogil=True)
def _q3_k_scale(data: Array, block: int, group: int) -> Any:
    """The 6-bit scale of a group, less 32."""
    low = data[block, 96 + group % 8] >> np.uint8(4 * (group // 8)) & 15
    high = data[block, 104 + group % 4] >> np.uint8(2 * (group // 4)) & 3
    return np.float32(np.uint8(low | high << 4)) - _F32


@kernel(_DECODE)
def _decode_q3_k(data: Array, halves: Array, out: Array) -> int:
    n = out.shape[1] // 16
    for block in range(len(data)):
        d = _half(data, block, 108, halves)
        if not np.isfinite(d):
            return block
        for group in range(16):
            mask_at, mask_shift = 16 * (group % 2), np.uint8(group // 2)
            code_at, shift = 32 + 32 * (group // 8) + 16 * (group % 2), np.uint8(group % 8 // 2 * 2)
            scale = d * _q3_k_scale(data, block, group)
            for i in range(n):
                high = np.uint8(data[block, mask_at + i] >> mask_shift & np.uint8(1))
                code = np.uint8((data[block, code_at + i] >> shift & np.uint8(3)) | high << np.uint8(2))
                out[block, 16 * group + i] = (np.float32(code) - _F4) * scale
    return -1


@njit(nogil=True)
def _scale_and_min(data: Array, block: int, at: int, group: int) -> Any:
    """The 6-bit scale and the 6-bit minimum of a group of Q4_K or Q5_K, from the 12 bytes at `at`."""
    if group < 4:
        scale, low = data[block, at + group] & 63, data[block, at + 4 + group] & 63
    else:
        both = data[block, at + 4 + group]
        scale = (both & 15) | (data[block, at + group - 4] >> np.uint8(6)) << 4
        low = (both >> np.uint8(4)) | (data[block, at + group] >> np.uint8(6)) << 4
    return np.float32(np.uint8(scale)), np.float32(np.uint8(low))


@kernel(_DECODE)
def _decode_q4_k(data: Array, halves: Array, out: Array) -> int:
    n = out.shape[1] // 8
    for block in range(len(data)):
        d, dmin = _half(data, block, 0, halves), _half(data, block, 2, halves)
        if not np.isfinite(d + dmin):
            return block
        for group in range(8):
            code_at, shift = 16 + 32 * (group // 2), np.uint8(4 * (group % 2))
            scale, low = _scale_and_min(data, block, 4, group)
            scale, low = d * scale, dmin * low
            for i in range(n):
                code = np.uint8(data[block, code_at + i] >> shift & _LOW)
                out[block, 32 * group + i] = np.float32(code) * scale - low
    return -1


@kernel(_DECODE)
def _decode_q5_k(data: Array, halves: Array, out: Array) -> int:
    n = out.shape[1] // 8
    for block in range(len(data)):
        d, dmin = _half(data, block, 0, halves), _half(data, block, 2, halves)
        if not np.isfinite(d + dmin):
            return block
        for group in range(8):
            code_at, shift, high_shift = 48 + 32 * (group // 2), np.uint8(4 * (group % 2)), np.uint8(group)
            scale, low = _scale_and_min(data, block, 4, group)
            scale, low = d * scale, dmin * low
            for i in range(n):
                high = np.uint8(data[block, 16 + i] >> high_shift & np.uint8(1))
                code = np.uint8((data[block, code_at + i] >> shift & _LOW) | high << _4)
                out[block, 32 * group + i] = np.float32(code) * scale - low
    return -1


@kernel(_DECODE)
def _decode_q6_k(data: Array, halves: Array, out: Array) -> int:
    n = out.shape[1] // 16
    for block in range(len(data)):
        d = _half(data, block, 208, halves)
        if not np.isfinite(d):
            return block
        for group in range(16):
            half, quarter, side = group // 8, group % 8 // 2, group % 2
            low_at, low_shift = 64 * half + 32 * (quarter % 2) + 16 * side, np.uint8(4 * (quarter // 2))
            high_at, high_shift = 128 + 32 * half + 16 * side, np.uint8(2 * quarter)
            scale = d * np.float32(np.int8(data[block, 192 + group]))
            for i in range(n):
                high = np.uint8(data[block, high_at + i] >> high_shift & np.uint8(3))
                code = np.uint8((data[block, low_at + i] >> low_shift & _LOW) | high << _4)
                out[block, 16 * group + i] = (np.float32(code) - _F32) * scale
    return -1


_KERNELS = {
    "Q4_0": _decode_q4_0,
    "Q4_1": _decode_q4_1,
    "Q5_0": _decode_q5_0,
    "Q5_1": _decode_q5_1,
    "Q8_0": _decode_q8_0,
    "IQ4_NL": _decode_iq4_nl,
    "Q2_K": _decode_q2_k,
    "Q3_K": _decode_q3_k,
    "Q4_K": _decode_q4_k,
    "Q5_K": _decode_q5_k,
    "Q6_K": _decode_q6_k,
}
