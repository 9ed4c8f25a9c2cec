"""E8M0: a power of two in one byte, the scale of an MX block.

    scale      0        1      ...   127   ...    254      255
    value   2^-127   2^-126    ...     1   ...   2^127     NaN

There is no sign, no zero and no infinity. 2^-127 is subnormal in float32 and BF16, and exact in both.

Source: OCP Microscaling Formats (MX) Specification v1.0, section 5.4.1 (E8M0).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import REPORT, CodecError

BIAS = 127
NAN = 255
MIN_EXPONENT, MAX_EXPONENT = -BIAS, NAN - 1 - BIAS

# Float32 bit patterns where the scale byte is not simply the exponent field.
_BITS_OF_SCALE_0 = 0x0040_0000
_BITS_OF_NAN = 0x7FC0_0000


def decode(scales: NDArray[np.uint8]) -> NDArray[np.float32]:
    """2^(scale - 127), exact, and NaN for 255: float32, same shape.

    Args:
        scales: uint8 [...].
    """
    bits = scales.astype(np.uint32) << np.uint32(23)
    bits[scales == 0] = _BITS_OF_SCALE_0
    bits[scales == NAN] = _BITS_OF_NAN
    return bits.view(np.float32)


def encode(exponents: NDArray[Any]) -> NDArray[np.uint8]:
    """The scale byte of 2^exponent: uint8 0..254, same shape.

    Args:
        exponents: integers [...], -127..127.

    Raises:
        CodecError: an exponent is outside that range; it is never wrapped or clamped.
    """
    outside = (exponents < MIN_EXPONENT) | (exponents > MAX_EXPONENT)
    if outside.any():
        index = np.unravel_index(int(np.argmax(outside)), exponents.shape)
        raise CodecError(
            f"E8M0 has no scale for the exponent at index {tuple(map(int, index))}",
            expected=f"{MIN_EXPONENT}..{MAX_EXPONENT}",
            found=exponents[index],
            remedy=REPORT,
        )
    return (exponents.astype(np.int16) + BIAS).astype(np.uint8)


def find_nan(scales: NDArray[np.uint8]) -> tuple[int, ...] | None:
    """The index of the first NaN (255) in C order, or None.

    Args:
        scales: uint8 [...]; rows may be strided.
    """
    if not scales.size or scales.max() != NAN:
        return None
    index = np.unravel_index(int(np.argmax(scales == NAN)), scales.shape)
    return tuple(map(int, index))
