"""What ggml's blocks stand for, by their definitions, in numpy: an oracle for machines without the gguf package.

It shares no code with the package; tests/kernels/test_weights.py shows that it agrees with gguf bit for bit.

Source: ggml `block_*` in ggml-common.h, `dequantize_row_*` in ggml-quants.c.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

IQ4_NL = np.array([-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113])


def half(blocks: Array, at: int) -> Array:
    """float64 [..., 1] of the F16 number at byte `at`."""
    return np.ascontiguousarray(blocks[..., at : at + 2]).view("<f2").astype(np.float64)


def halves(data: Array) -> Array:
    """Nibbles of bytes [..., n]: the low ones, then the high ones, int64 [..., 2n]."""
    return np.concatenate([data & 15, data >> 4], axis=-1).astype(np.int64)


def bits(data: Array) -> Array:
    """Bits of bytes [..., n], the lowest first: int64 [..., 8n]."""
    return np.unpackbits(data, axis=-1, bitorder="little").astype(np.int64)


def six_bits(factors: Array) -> tuple[Array, Array]:
    """Scales and minima int64 [..., 8] of the 12 bytes of Q4_K and Q5_K."""
    first, second, third = (factors[..., i : i + 4].astype(np.int64) for i in (0, 4, 8))
    scales = [first & 63, third & 15 | first >> 6 << 4]
    minima = [second & 63, third >> 4 | second >> 6 << 4]
    return np.concatenate(scales, axis=-1), np.concatenate(minima, axis=-1)


def affine(blocks: Array, codes: Array) -> Array:
    """Codes [..., 8, 32] of Q4_K and Q5_K with their groups' factors: [..., 256]."""
    scales, minima = six_bits(blocks[..., 4:16])
    values = half(blocks, 0)[..., None] * scales[..., None] * codes - (half(blocks, 2) * minima)[..., None]
    return values.reshape(*blocks.shape[:-1], 256)


def groups(codes: Array) -> Array:
    """Bytes [..., 128] of Q4_K and Q5_K: 32 low nibbles, 32 high ones of the same bytes, and so on: [..., 8, 32]."""
    return halves(codes.reshape(*codes.shape[:-1], 4, 32)).reshape(*codes.shape[:-1], 8, 32)


def q5_k(blocks: Array) -> Array:
    fifth = blocks[..., None, 16:48].astype(np.int64) >> np.arange(8)[:, None] & 1
    return affine(blocks, groups(blocks[..., 48:]) | fifth << 4)


def q6_k(blocks: Array) -> Array:
    shape = blocks.shape[:-1]
    low = halves(blocks[..., :128].reshape(*shape, 2, 64)).reshape(*shape, 2, 4, 32)
    high = blocks[..., 128:192].reshape(*shape, 2, 1, 32).astype(np.int64) >> 2 * np.arange(4)[:, None] & 3
    codes = (low | high << 4).reshape(*shape, 16, 16) - 32
    scales = np.ascontiguousarray(blocks[..., 192:208]).view(np.int8).astype(np.float64)
    return ((half(blocks, 208) * scales)[..., None] * codes).reshape(*shape, 256)


DECODE: dict[str, Callable[[Array], Array]] = {
    "Q8_0": lambda b: half(b, 0) * np.ascontiguousarray(b[..., 2:]).view(np.int8),
    "Q4_0": lambda b: half(b, 0) * (halves(b[..., 2:]) - 8),
    "Q4_1": lambda b: half(b, 0) * halves(b[..., 4:]) + half(b, 2),
    "Q5_0": lambda b: half(b, 0) * ((halves(b[..., 6:]) | bits(b[..., 2:6]) << 4) - 16),
    "Q5_1": lambda b: half(b, 0) * (halves(b[..., 8:]) | bits(b[..., 4:8]) << 4) + half(b, 2),
    "IQ4_NL": lambda b: half(b, 0) * IQ4_NL[halves(b[..., 2:])],
    "Q4_K": lambda b: affine(b, groups(b[..., 16:])),
    "Q5_K": q5_k,
    "Q6_K": q6_k,
}


def decoded(name: str, blocks: Array) -> Array:
    """float32 [..., elements of a block] of blocks uint8 [..., bytes of a block]: exact, then rounded once."""
    return DECODE[name](blocks).astype(np.float32)
