"""The rules by which a block of floats gets its MXFP4 scale, and the tables that the encoder's kernels work with.

The exponent e follows from the block's largest magnitude, amax:

    rule     e                               amax / 2^e    also known as
    floor    floor(log2 amax) - 2            [4, 8)        OCP MX 6.3
    even     the same of amax rounded to     [3.5, 7)
             one mantissa bit, ties away
    ceil     the lowest with amax <= 6 * 2^e (3, 6]        RCEIL, ROUND_UP
    exact    see `mxfp4_encode`

All are one sum on the bit pattern of amax: a carry into the exponent field, which is then read off. An e below -127 is
-127; a block of zeros gets -127, which is scale 0.

Source: OCP Microscaling Formats (MX) Specification v1.0, section 6.3; torchao `prototype/mx_formats` for even and ceil.
"""

from __future__ import annotations

import functools
from enum import StrEnum
from itertools import pairwise
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from . import e2m1, e8m0
from .accelerate import kernels
from .encoding import BF16, F32


class ScaleRule(StrEnum):
    """Which scale a block gets."""

    EXACT = "exact"
    FLOOR = "floor"
    CEIL = "ceil"
    EVEN = "even"


class ScaleTables(NamedTuple):
    """MXFP4 in the bit patterns of one float encoding, uint16 (BF16) or uint32 (F32), C-contiguous.

    Args:
        thresholds: [256, 7], per scale the lowest magnitude whose code is at least 1, 2, … 7.
        magnitudes: [256, 8], per scale the magnitude of codes 0..7.
    """

    thresholds: NDArray[Any]
    magnitudes: NDArray[Any]


class Scaling(NamedTuple):
    """How amax becomes a scale: max(0, (pattern + carry >> mantissa bits) - 2).

    Args:
        carry: what rounds the pattern up; 0 is the floor rule.
        limit: the lowest pattern that is refused.
        exact_first: try carry 0 first, and keep that scale where it is exact.
        high: give a block that is exact at two exponents the higher one. Only with `exact_first`.
    """

    carry: int
    limit: int
    exact_first: bool
    high: bool


class Tally(NamedTuple):
    """What was met in encoding; all zero if a block was refused. The sums run over the blocks that are not exact.

    Args:
        refused: the first block (row * G + block) with a magnitude at the limit or above, or -1.
        zero: blocks of zeros.
        exact: blocks held exactly, those of zeros too.
        ambiguous: blocks exact at two exponents; looked for only with `exact_first`.
        squared_error: sum of (value - value of the code)^2, in float64.
        squared_sum: sum of value^2, in float64.
    """

    refused: int
    zero: int
    exact: int
    ambiguous: int
    squared_error: float
    squared_sum: float


class EncodeKernels(Protocol):
    """What `numba_encode` and `numpy_encode` both offer: the same results, byte for byte.

    N rows, G blocks per row; rows may lie any distance apart. Values are bit patterns, uint16 or uint32 [N, G * 32].
    """

    def encode(
        self, values: NDArray[Any], tables: ScaleTables, scaling: Scaling, blocks: NDArray[Any], scales: NDArray[Any]
    ) -> Tally:
        """Writes `blocks` uint8 [N, G, 16] and `scales` uint8 [N, G]; both are unfinished if a block is refused."""

    def keep(
        self,
        values: NDArray[Any],
        tables: ScaleTables,
        like: tuple[NDArray[Any], NDArray[Any]],
        blocks: NDArray[Any],
        scales: NDArray[Any],
    ) -> int:
        """Copies each block of `like` (blocks, scales) that holds the block's finite values to the bit; counts them."""


def encode_kernels() -> EncodeKernels:
    """The numba kernels or their numpy twin, as `accelerate.kernels` chooses."""
    from . import numpy_encode, numpy_kernels

    if kernels() is numpy_kernels:
        return numpy_encode
    from . import numba_encode

    return numba_encode


@functools.cache
def tables(encoding: str) -> ScaleTables:
    """The tables for "BF16" or "F32".

    All values and midpoints have at most three significant bits and are multiples of 2^-129: exact in both encodings.
    """
    scale = np.ldexp(1.0, np.arange(256) - e8m0.BIAS)[:, None]
    magnitudes = e2m1.VALUES[:8].astype(np.float64)
    # A tie goes to the even code: at an even code's upper midpoint only the next pattern is the next code's.
    midpoints = np.array([(below + above) / 2 for below, above in pairwise(magnitudes)])
    past_tie = np.array([1, 0, 1, 0, 1, 0, 1])
    patterns = _patterns(magnitudes * scale, encoding)
    return ScaleTables((_patterns(midpoints * scale, encoding) + past_tie).astype(patterns.dtype), patterns)


def scaling(encoding: str, rule: ScaleRule, fallback: ScaleRule, high: bool) -> Scaling:
    """The numbers of a rule for "BF16" or "F32"; `fallback` and `high` count for the exact rule only."""
    general = fallback if rule is ScaleRule.EXACT else rule
    assert general is not ScaleRule.EXACT
    unit = 1 if encoding == BF16.name else 1 << 16  # BF16 is the upper half of F32
    # Floor clips below infinity. The others would go to 4 * 2^126 from 1.75 * 2^127, which is infinite as a float.
    carry, limit = {
        ScaleRule.FLOOR: (0, 0x7F80 * unit),
        ScaleRule.EVEN: (0x20 * unit, 0x7F60 * unit),
        ScaleRule.CEIL: (0x40 * unit - 1, 0x7F60 * unit),
    }[general]
    return Scaling(carry, limit, rule is ScaleRule.EXACT, high)


def _patterns(values: NDArray[np.float64], encoding: str) -> NDArray[Any]:
    with np.errstate(over="ignore"):
        bits = values.astype(np.float32).view(np.uint32)
    return bits if encoding == F32.name else (bits >> 16).astype(np.uint16)
