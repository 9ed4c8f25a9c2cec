"""Comparison compiled by numba: the GIL is free, one thread per call (the caller runs several).

`compare.CompareKernels` says what the functions do, `numpy_compare` is the twin without numba. Sums of finite numbers
may be taken in any order, so LLVM makes vector code of them; the order is the same on every call.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, types
from numpy.typing import NDArray

from .numba_compile import flat, kernel, rows
from .numba_kernels import GGML_BLOCK
from .numba_lanes import interleaved

Array = NDArray[Any]

# Small enough that both sides stay in the first-level cache. A multiple of every block.
_CHUNK = 2048

_ANY_ORDER = {"reassoc", "nsz", "contract"}
_LOW_BITS = np.uint64(0x7777_7777_7777_7777)
_SIGNS = np.uint64(0x8888_8888_8888_8888)
_1 = np.uint64(1)
_0 = np.uint64(0)
_NAN_SCALE = 255


@kernel(
    types.float64(
        flat(types.float32),
        flat(types.float32),
        types.int64,
        flat(types.int64, out=True),
        flat(types.float64, out=True),
    )
)
def measure(a: Array, b: Array, block: int, counts: Array, sums: Array) -> Any:
    errors = np.empty(_CHUNK, np.float64)
    changed, place, largest = 0, 0, -1
    aa, bb, ab, ee = 0.0, 0.0, 0.0, 0.0
    for begin in range(0, len(a), _CHUNK):
        first, second = a[begin : begin + _CHUNK], b[begin : begin + _CHUNK]
        chunk_aa, chunk_bb, chunk_ab, chunk_ee = _sums(first, second, errors)
        aa, bb, ab, ee = aa + chunk_aa, bb + chunk_bb, ab + chunk_ab, ee + chunk_ee
        bits = errors[: len(first)].view(np.int64)
        most = _largest(bits)
        if most > largest:
            largest, place = most, begin + _place(bits, most)
        if most > 0:
            changed += _changed(first, second) if block == 1 else _changed_blocks(first, second, block)
    counts[0], counts[1] = changed, place
    sums[0], sums[1], sums[2], sums[3] = aa, bb, ab, ee
    errors.view(np.int64)[0] = largest
    return errors[0]


@njit(nogil=True, fastmath=_ANY_ORDER)
def _sums(a: Array, b: Array, errors: Array) -> Any:
    """The sums, and every |b - a|."""
    aa, bb, ab, ee = 0.0, 0.0, 0.0, 0.0
    for i in range(len(a)):
        first, second = np.float64(a[i]), np.float64(b[i])
        error = abs(second - first)
        aa += first * first
        bb += second * second
        ab += first * second
        ee += error * error
        errors[i] = error
    return aa, bb, ab, ee


@njit(nogil=True)
def _largest(bits: Array) -> Any:
    """The largest: floats that are not negative are in the order of their bits, whose maximum LLVM can vectorize."""
    most = np.int64(-1)
    for i in range(len(bits)):
        most = max(most, bits[i])
    return most


@njit(nogil=True)
def _place(bits: Array, most: int) -> int:
    for i in range(len(bits)):
        if bits[i] == most:
            return i
    return 0


@njit(nogil=True)
def _changed(a: Array, b: Array) -> int:
    changed = 0
    for i in range(len(a)):
        changed += a[i] != b[i]
    return changed


@njit(nogil=True, fastmath=_ANY_ORDER)
def _changed_blocks(a: Array, b: Array, block: int) -> int:
    """A difference of two floats is zero only if they are equal, and so is the sum of their magnitudes."""
    changed = 0
    for begin in range(0, len(a), block):
        first, second = a[begin : begin + block], b[begin : begin + block]
        total = np.float32(0)
        for i in range(len(first)):
            total += abs(second[i] - first[i])
        changed += total != 0
    return changed


def changed_blocks(words: tuple[Array, Array], scales: tuple[Array, Array], shifts: Array, counts: Array) -> None:
    _changed_packed(*words, *scales, shifts, counts)


@kernel(
    types.void(
        rows(types.uint64, 3),
        rows(types.uint64, 3),
        rows(types.uint8, 2),
        rows(types.uint8, 2),
        flat(types.int64, out=True),
        flat(types.int64, out=True),
    )
)
def _changed_packed(
    words_a: Array, words_b: Array, scales_a: Array, scales_b: Array, shifts: Array, counts: Array
) -> None:
    changed, scale_only, signed_zeros = 0, 0, 0
    for row in range(scales_a.shape[0]):
        for block in range(scales_a.shape[1]):
            shift = np.int64(scales_b[row, block]) - np.int64(scales_a[row, block])
            low_a, low_b = words_a[row, block, 0], words_b[row, block, 0]
            high_a, high_b = words_a[row, block, 1], words_b[row, block, 1]
            codes = (low_a ^ low_b) | (high_a ^ high_b)
            if codes != _0 or shift != 0:
                changed += 1
                shifts[shift + 255] += 1
                scale_only += codes == _0
                signed_zeros += _signed_zeros(low_a, low_b) + _signed_zeros(high_a, high_b)
    counts[0], counts[1], counts[2] = changed, scale_only, signed_zeros


@njit(nogil=True)
def _signed_zeros(a: Any, b: Any) -> int:
    """How many of 16 codes are 0 in one word and 8 in the other."""
    low = (a | b) & _LOW_BITS
    # Adding 7 to a nibble of 0 to 7 sets its highest bit unless it is 0.
    found = ~(low + _LOW_BITS) & (a ^ b) & _SIGNS
    count = 0
    while found != _0:
        found &= found - _1
        count += 1
    return count


def same_in_ggml(data: Array, blocks: Array, scales: Array) -> bool:
    stored = data.view(GGML_BLOCK)[:, :, 0]
    return bool(_same_in_ggml(stored["words"], stored["scale"], blocks.view(np.uint64), scales))


@kernel(types.boolean(rows(types.uint64, 3), rows(types.uint8, 2), rows(types.uint64, 3), rows(types.uint8, 2)))
def _same_in_ggml(words: Array, word_scales: Array, blocks: Array, scales: Array) -> bool:
    for row in range(scales.shape[0]):
        different, highest = _0, np.uint8(0)
        for block in range(scales.shape[1]):
            first, second = interleaved(words[row, block, 0], words[row, block, 1])
            scale = scales[row, block]
            different |= (first ^ blocks[row, block, 0]) | (second ^ blocks[row, block, 1])
            different |= np.uint64(scale ^ word_scales[row, block])
            highest = max(highest, scale)
        if different != _0 or highest == _NAN_SCALE:
            return False
    return True
