"""ggml's blocks decoded in plain numpy: the twin of `numba_ggml`, for where numba is not to be had.

`ggml_blocks` draws the blocks. Every type is brought into one form, a whole number per element and a scale for each
group of elements, from some of them less a minimum.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .ggml_blocks import IQ4_NL_LEVELS

Array = NDArray[Any]

# Temporaries of this many elements stay in the cache.
_CHUNK_ELEMENTS = 65536

_IQ4_NL = np.array(IQ4_NL_LEVELS, np.int8)
_PAIR_SHIFTS = np.arange(0, 8, 2, dtype=np.uint8)[:, None]
_BIT_SHIFTS = np.arange(8, dtype=np.uint8)[:, None]


def decode(type_name: str, data: Array, out: Array) -> int:
    step = max(1, _CHUNK_ELEMENTS // out.shape[1])
    for begin in range(0, len(data), step):
        with np.errstate(invalid="ignore"):
            parts = _PARTS[type_name](data[begin : begin + step])
        bad = _decode(parts, out[begin : begin + step])
        if bad >= 0:
            return begin + bad
    return -1


def _decode(parts: tuple[Array, ...], out: Array) -> int:
    """`out` [B, elements] = codes [B, elements] * scales [B, groups], less minima [B, groups] where there are any."""
    codes, *factors = parts
    finite = np.logical_and.reduce([np.isfinite(factor).all(axis=1) for factor in factors])
    good = len(out) if finite.all() else int(np.argmin(finite))
    groups = factors[0].shape[1]
    grouped = out[:good].reshape(good, groups, out.shape[1] // groups)
    grouped[...] = codes[:good].reshape(grouped.shape)
    grouped *= factors[0][:good, :, None]
    if len(factors) == 2:
        grouped -= factors[1][:good, :, None]
    return -1 if good == len(out) else good


def _half(data: Array, at: int) -> Array:
    """The F16 number in bytes `at` and `at + 1` of each block: float32 [B, 1]."""
    return np.ascontiguousarray(data[:, at : at + 2]).view("<f2").astype(np.float32)


# --- blocks of 32 ------------------------------------------------------------------------------------------------


def _nibbles(data: Array, at: int) -> Array:
    """The 32 codes of 16 bytes: int8 [B, 32]."""
    packed = data[:, at : at + 16]
    return np.concatenate([packed & 15, packed >> 4], axis=1).view(np.int8)


def _fifth_bits(data: Array, at: int) -> Array:
    """16 where bit i of the 32 bits at `at` is set: int8 [B, 32]."""
    return np.unpackbits(data[:, at : at + 4], axis=1, bitorder="little").view(np.int8) << 4


def _q8_0(data: Array) -> tuple[Array, ...]:
    return data[:, 2:34].view(np.int8), _half(data, 0)


def _q4_0(data: Array) -> tuple[Array, ...]:
    return _nibbles(data, 2) - 8, _half(data, 0)


def _q4_1(data: Array) -> tuple[Array, ...]:
    return _nibbles(data, 4), _half(data, 0), -_half(data, 2)


def _q5_0(data: Array) -> tuple[Array, ...]:
    return (_nibbles(data, 6) | _fifth_bits(data, 2)) - 16, _half(data, 0)


def _q5_1(data: Array) -> tuple[Array, ...]:
    return _nibbles(data, 8) | _fifth_bits(data, 4), _half(data, 0), -_half(data, 2)


def _iq4_nl(data: Array) -> tuple[Array, ...]:
    return _IQ4_NL[_nibbles(data, 2)], _half(data, 0)


# --- blocks of 256 -----------------------------------------------------------------------------------------------


def _pairs(data: Array, at: int, n_bytes: int) -> Array:
    """Two bits per code: of 32 bytes all lowest pairs, then all second pairs, and so on. int8 [B, 4 * n_bytes]."""
    packed = data[:, at : at + n_bytes].reshape(len(data), -1, 1, 32)
    return (packed >> _PAIR_SHIFTS & 3).reshape(len(data), 4 * n_bytes).view(np.int8)


def _long_nibbles(data: Array, at: int, width: int) -> Array:
    """The 256 codes of 128 bytes: of `width` bytes all low nibbles, then all high ones. int8 [B, 256]."""
    packed = data[:, at : at + 128].reshape(len(data), -1, 1, width)
    return np.concatenate([packed & 15, packed >> 4], axis=2).reshape(len(data), 256).view(np.int8)


def _bits(data: Array, at: int) -> Array:
    """The 256 bits of 32 bytes: all lowest bits, then all second bits, and so on. int8 [B, 256]."""
    packed = data[:, None, at : at + 32]
    return (packed >> _BIT_SHIFTS & 1).reshape(len(data), 256).view(np.int8)


def _q2_k(data: Array) -> tuple[Array, ...]:
    scales, minima = data[:, :16] & 15, data[:, :16] >> 4
    return _pairs(data, 16, 64), _half(data, 80) * scales, _half(data, 82) * minima


def _q3_k(data: Array) -> tuple[Array, ...]:
    low, high = data[:, 96:104], data[:, None, 104:108] >> _PAIR_SHIFTS & 3
    scales = np.concatenate([low & 15, low >> 4], axis=1) | high.reshape(len(data), 16) << 4
    codes = _pairs(data, 32, 64) | _bits(data, 0) << 2
    return codes - 4, _half(data, 108) * (scales.view(np.int8) - 32)


def _scales_and_minima(data: Array, at: int) -> tuple[Array, Array]:
    """The eight 6-bit scales and the eight 6-bit minima of Q4_K and Q5_K: uint8 [B, 8] each."""
    first, second, third = (data[:, at + 4 * part : at + 4 * part + 4] for part in range(3))
    scales = np.concatenate([first & 63, third & 15 | first >> 6 << 4], axis=1)
    minima = np.concatenate([second & 63, third >> 4 | second >> 6 << 4], axis=1)
    return scales, minima


def _q4_k(data: Array) -> tuple[Array, ...]:
    scales, minima = _scales_and_minima(data, 4)
    return _long_nibbles(data, 16, 32), _half(data, 0) * scales, _half(data, 2) * minima


def _q5_k(data: Array) -> tuple[Array, ...]:
    scales, minima = _scales_and_minima(data, 4)
    codes = _long_nibbles(data, 48, 32) | _bits(data, 16) << 4
    return codes, _half(data, 0) * scales, _half(data, 2) * minima


def _q6_k(data: Array) -> tuple[Array, ...]:
    codes = _long_nibbles(data, 0, 64) | _pairs(data, 128, 64) << 4
    return codes - 32, _half(data, 208) * data[:, 192:208].view(np.int8)


# type -> codes int8 [B, elements], scales float32 [B, groups] and minima float32 [B, groups], if it has minima.
_PARTS: dict[str, Callable[[Array], tuple[Array, ...]]] = {
    "Q4_0": _q4_0,
    "Q4_1": _q4_1,
    "Q5_0": _q5_0,
    "Q5_1": _q5_1,
    "Q8_0": _q8_0,
    "IQ4_NL": _iq4_nl,
    "Q2_K": _q2_k,
    "Q3_K": _q3_k,
    "Q4_K": _q4_k,
    "Q5_K": _q5_k,
    "Q6_K": _q6_k,
}
