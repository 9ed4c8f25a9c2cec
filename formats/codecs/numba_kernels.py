"""The byte work compiled by numba: the GIL is free, one thread per call (the caller runs several).

`accelerate.Kernels` says what each function does, `numpy_kernels` is the twin without numba. Loops over short
contiguous buffers are kept apart from strided loads and stores, because LLVM makes vector code of the former only.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, types
from numpy.typing import NDArray

from .numba_compile import flat, kernel, rows
from .numba_lanes import interleaved, split_half

Array = NDArray[Any]

# Per buffer; small enough to stay in the first-level cache.
_CHUNK_BLOCKS = 128
_CHUNK_ELEMENTS = 8192

GGML_BLOCK = np.dtype([("scale", "u1"), ("words", "<u8", (2,))])


# --- repacks: interleaved <-> split_half -------------------------------------------------------------------------


def repack_to_ggml(blocks: Array, scales: Array, out: Array) -> None:
    stored = out.view(GGML_BLOCK)[:, :, 0]
    _split(blocks.view(np.uint64), scales, stored["words"], stored["scale"])


def repack_from_ggml(data: Array, blocks: Array, scales: Array) -> None:
    stored = data.view(GGML_BLOCK)[:, :, 0]
    _interleave(stored["words"], stored["scale"], blocks.view(np.uint64), scales)


_REPACK = types.void(
    rows(types.uint64, 3), rows(types.uint8, 2), rows(types.uint64, 3, out=True), rows(types.uint8, 2, out=True)
)


@kernel(_REPACK)
def _split(words: Array, scales: Array, out_words: Array, out_scales: Array) -> None:
    for row in range(words.shape[0]):
        for block in range(words.shape[1]):
            first, second = split_half(words[row, block, 0], words[row, block, 1])
            out_words[row, block, 0], out_words[row, block, 1] = first, second
            out_scales[row, block] = scales[row, block]


@kernel(_REPACK)
def _interleave(words: Array, scales: Array, out_words: Array, out_scales: Array) -> None:
    for row in range(words.shape[0]):
        for block in range(words.shape[1]):
            first, second = interleaved(words[row, block, 0], words[row, block, 1])
            out_words[row, block, 0], out_words[row, block, 1] = first, second
            out_scales[row, block] = scales[row, block]


# --- MXFP4 <-> floats --------------------------------------------------------------------------------------------


@kernel(
    *(
        types.void(rows(types.uint8, 3), rows(types.uint8, 2), flat(pair, 2), rows(pair, 3, out=True))
        for pair in (types.uint32, types.uint64)
    )
)
def expand(blocks: Array, scales: Array, pairs: Array, out: Array) -> None:
    for row in range(blocks.shape[0]):
        for block in range(blocks.shape[1]):
            pair = pairs[scales[row, block]]
            for byte in range(16):
                out[row, block, byte] = pair[blocks[row, block, byte]]


def match(values: Array, scales: Array, magnitudes: Array, out: Array) -> int:
    words = values.view(np.uint64).reshape(*scales.shape, 4 * values.itemsize)
    mask = values.dtype.type((1 << (values.itemsize * 8 - 1)) - 1)
    return int(_match(words, scales, magnitudes, mask, out.view(np.uint64)))


@kernel(
    *(
        types.int64(rows(types.uint64, 3), rows(types.uint8, 2), flat(bits, 2), bits, rows(types.uint64, 3, out=True))
        for bits in (types.uint16, types.uint32)
    )
)
def _match(words: Array, scales: Array, magnitudes: Array, mask: Any, out_words: Array) -> int:
    value_words = np.empty(words.shape[2] * _CHUNK_BLOCKS, np.uint64)
    packed_words = np.empty(2 * _CHUNK_BLOCKS, np.uint64)
    values, packed = value_words.view(magnitudes.dtype), packed_words.view(np.uint8)
    codes = np.empty(32 * _CHUNK_BLOCKS, np.uint8)
    missing = 0
    for row in range(words.shape[0]):
        for begin in range(0, words.shape[1], _CHUNK_BLOCKS):
            end = min(begin + _CHUNK_BLOCKS, words.shape[1])
            _load_values(words[row, begin:end], value_words)
            for block in range(end - begin):
                part = slice(32 * block, 32 * block + 32)
                _codes(values[part], magnitudes[scales[row, begin + block]], mask, codes[part])
            missing += _count_missing(codes[: 32 * (end - begin)])
            _pack(codes, packed)
            _store(packed_words, out_words[row, begin:end])
    return missing


@njit(nogil=True)
def _load_values(words: Array, buffer: Array) -> None:
    n_words = words.shape[1]
    for block in range(words.shape[0]):
        for i in range(n_words):
            buffer[n_words * block + i] = words[block, i]


@njit(nogil=True)
def _codes(values: Array, magnitudes: Array, mask: Any, codes: Array) -> None:
    """Code and sign of 32 values; bit 7 is set where no magnitude equals. A match clears it and sets the code."""
    m0, m1, m2, m3 = magnitudes[0], magnitudes[1], magnitudes[2], magnitudes[3]
    m4, m5, m6, m7 = magnitudes[4], magnitudes[5], magnitudes[6], magnitudes[7]
    for i in range(32):
        value = values[i]
        m = value & mask
        low = (m == m0) * 0x80 ^ (m == m1) * 0x81 ^ (m == m2) * 0x82 ^ (m == m3) * 0x83
        high = (m == m4) * 0x84 ^ (m == m5) * 0x85 ^ (m == m6) * 0x86 ^ (m == m7) * 0x87
        codes[i] = 0x80 ^ low ^ high ^ (value > mask) * 8


@njit(nogil=True)
def _count_missing(codes: Array) -> Any:
    missing = np.uint32(0)
    for i in range(len(codes)):
        missing += np.uint32(codes[i] >> 7)
    return missing


@njit(nogil=True)
def _pack(codes: Array, packed: Array) -> None:
    for i in range(len(packed)):
        packed[i] = (codes[2 * i] & 15) | (codes[2 * i + 1] << 4)


@njit(nogil=True)
def _store(buffer: Array, words: Array) -> None:
    for block in range(words.shape[0]):
        words[block, 0] = buffer[2 * block]
        words[block, 1] = buffer[2 * block + 1]


# --- floats ------------------------------------------------------------------------------------------------------


def first_nonfinite(values: Array, exponent: int) -> int:
    return int(_first_nonfinite(values, values.dtype.type(exponent)))


@kernel(*(types.int64(flat(bits), bits) for bits in (types.uint16, types.uint32)))
def _first_nonfinite(values: Array, exponent: Any) -> int:
    for begin in range(0, len(values), _CHUNK_ELEMENTS):
        chunk = values[begin : begin + _CHUNK_ELEMENTS]
        if _any_nonfinite(chunk, exponent):
            for i in range(len(chunk)):
                if chunk[i] & exponent == exponent:
                    return begin + i
    return -1


@njit(nogil=True)
def _any_nonfinite(values: Array, exponent: Any) -> bool:
    found = False
    for i in range(len(values)):
        found |= (values[i] & exponent) == exponent
    return found


@kernel(types.void(flat(types.uint16), flat(types.uint32, out=True)))
def widen(values: Array, out: Array) -> None:
    for i in range(len(values)):
        out[i] = np.uint32(values[i]) << np.uint32(16)


@kernel(types.int64(flat(types.uint32), flat(types.uint16, out=True)))
def narrow(values: Array, out: Array) -> int:
    rounded: Any = 0
    overflowed: Any = False
    for i in range(len(values)):
        value = np.uint32(values[i])
        magnitude = np.uint32(value & np.uint32(0x7FFF_FFFF))
        high = np.uint32(value >> np.uint32(16))
        is_nan = magnitude > np.uint32(0x7F80_0000)
        nearest = np.uint32(value + np.uint32(0x7FFF) + (high & np.uint32(1))) >> np.uint32(16)
        overflowed |= (nearest & np.uint32(0x7FFF)) == np.uint32(0x7F80) and magnitude < np.uint32(0x7F80_0000)
        rounded += not is_nan and (value & np.uint32(0xFFFF)) != 0
        out[i] = (high | np.uint32(0x40)) if is_nan else nearest
    return -1 if overflowed else rounded


@kernel(types.int64(flat(types.uint16), flat(types.uint32), flat(types.uint16, out=True)))
def translate(values: Array, table: Array, out: Array) -> int:
    rounded, flags = 0, np.uint32(0)
    for i in range(len(values)):
        entry = table[values[i]]
        out[i] = entry
        rounded += (entry >> np.uint32(16)) & np.uint32(1)
        flags |= entry
    return -1 if flags & np.uint32(0x2_0000) else rounded
