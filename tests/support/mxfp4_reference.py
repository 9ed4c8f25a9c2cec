"""MXFP4 by float64 arithmetic, one definition after the other, and blocks that are hard to encode.

Slow and plain: an oracle that shares no code with the package.
"""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

STEPS = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6])
FLOATS = {"BF16": ml_dtypes.bfloat16, "F16": np.float16, "F32": np.float32}
ELEMENT = {"BF16": np.uint16, "F16": np.uint16, "F32": np.float32}

# Even codes first, so that the first of two equally near is the even one.
_BY_EVENNESS = np.array([0, 2, 4, 6, 1, 3, 5, 7])


def exponents(amax: Array, rule: str) -> Array:
    """The exponent of each block by a rule of the specification or of torchao, int [n]. `amax`: float64 [n]."""
    mantissa, power = np.frexp(amax)
    floor = power - 3
    if rule == "even":
        floor = floor + (mantissa >= 0.875)
    elif rule == "ceil":
        floor = floor + (amax > np.ldexp(6.0, floor))
        assert (amax <= np.ldexp(6.0, floor)).all()
        assert (amax > np.ldexp(3.0, floor))[amax > 0].all()
    return np.where(amax > 0, np.maximum(floor, -127), -127)


def nearest_codes(values: Array, exponent: Array) -> Array:
    """uint8 [n, 32]: nearest, ties to the even code, sign kept. `values`: float64 [n, 32]."""
    scaled = np.ldexp(np.abs(values), -exponent[:, None])
    distance = np.abs(scaled[:, :, None] - STEPS[_BY_EVENNESS])
    codes = _BY_EVENNESS[distance.argmin(axis=2)] + 8 * np.signbit(values)
    return codes.astype(np.uint8)


def decoded(codes: Array, exponent: Array) -> Array:
    """float64 [n, 32]."""
    magnitudes = np.ldexp(STEPS[codes & 7], exponent[:, None])
    return np.where(codes > 7, -magnitudes, magnitudes)


def exact_exponents(values: Array) -> tuple[Array, Array, Array]:
    """Whether some exponent holds each block exactly, and the lowest and the highest with a largest code of 3 or more.

    Where the lowest exponent there is leaves a largest code below 3, it is both.
    """
    amax = np.abs(values).max(axis=1)
    start = exponents(amax, "floor")
    exact = np.zeros(len(values), bool)
    lowest, highest = start.copy(), start.copy()
    for step in range(-4, 5):
        trial = np.maximum(start + step, -127)
        holds = (decoded(nearest_codes(values, trial), trial) == values).all(axis=1)
        large = (amax >= np.ldexp(3.0, trial)) | (trial == -127)
        lowest = np.where(holds & ~exact, trial, lowest)
        highest = np.where(holds & large, trial, highest)
        exact |= holds
    return exact, lowest, np.maximum(lowest, highest)


def packed(codes: Array) -> Array:
    """uint8 [n, 16] of codes [n, 32], the even element low."""
    return (codes[:, 0::2] + 16 * codes[:, 1::2]).astype(np.uint8)


def as_encoding(values: Array, encoding: str) -> Array:
    """The values rounded to an encoding, as the package takes them."""
    with np.errstate(over="ignore", under="ignore"):
        return values.astype(FLOATS[encoding]).view(ELEMENT[encoding])


def as_numbers(values: Array, encoding: str) -> Array:
    """float64 of what `as_encoding` gave."""
    return values.view(FLOATS[encoding]).astype(np.float64)


def hard_blocks(kind: str, encoding: str, n: int = 400, seed: int = 0) -> Array:
    """float64 [n, 32], each value one that `encoding` holds.

    Args:
        kind: "random": normal, at any magnitude; "tie": every value between two codes, or next to that; "boundary":
            the largest at a rule's boundary, or next to it; "subnormal": at the lower end of the range.
    """
    rng = np.random.default_rng(seed)
    low, high = (-8, 12) if encoding == "F16" else (-110, 120)
    power = rng.integers(low, high, (n, 1))
    if kind == "random":
        values = np.ldexp(rng.standard_normal((n, 32)), power)
    elif kind == "tie":
        values = np.ldexp(rng.choice([0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0], (n, 32)), power)
        values[:, 0] = np.ldexp(rng.choice([4.0, 6.0], n), power[:, 0])
    elif kind == "boundary":
        values = np.ldexp(rng.uniform(0, 1, (n, 32)), power)
        values[:, 0] = np.ldexp(rng.choice([1.0, 1.25, 1.5, 1.75, 2.0], n), power[:, 0])
    else:
        assert kind == "subnormal"
        values = np.ldexp(rng.standard_normal((n, 32)), rng.integers(-24, -8, (n, 1)))
        if encoding != "F16":
            values = np.ldexp(values, -112)
    values = as_numbers(as_encoding(values, encoding), encoding)
    neighbours = neighbour(values, rng.integers(-1, 2, values.shape), encoding)
    values = np.where(kind in ("tie", "boundary"), neighbours, values) * rng.choice([-1.0, 1.0], values.shape)
    return np.where(rng.random(values.shape) < 0.1, np.copysign(0.0, values), values)


def neighbour(values: Array, offset: Array, encoding: str) -> Array:
    """The next float up or down of positive values, by `offset`."""
    bits = as_encoding(values, encoding).view("u4" if encoding == "F32" else "u2")
    moved = (bits + offset.clip(-bits.astype(np.int64))).astype(bits.dtype).view(ELEMENT[encoding])
    return as_numbers(moved, encoding)


KINDS = ("random", "tie", "boundary", "subnormal")
