"""E2M1: a 4-bit float, one sign bit, two exponent bits, one mantissa bit.

    bit      3      2 1        0
           sign | exponent | mantissa          bias 1

    code     0    1    2    3    4    5    6    7
    value   +0  0.5    1  1.5    2    3    4    6          codes 8..15: the same, negative; 8 is -0

There is no infinity and no NaN.

Source: OCP Microscaling Formats (MX) Specification v1.0, section 5.3.3 (FP4).
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import REPORT, CodecError

_MAGNITUDES = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)

VALUES: NDArray[np.float32] = np.array([*_MAGNITUDES, *(-value for value in _MAGNITUDES)], np.float32)
VALUES.setflags(write=False)


def decode(codes: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The value of each code, float32, same shape.

    Args:
        codes: uint8 [...], 0..15, one code per byte.

    Raises:
        CodecError: a byte is above 15.
    """
    if codes.size and codes.max() > 15:
        raise CodecError("an E2M1 code has 4 bits", expected="0..15", found=codes.max(), remedy=REPORT)
    return VALUES[codes]


def encode(values: NDArray[Any]) -> NDArray[np.uint8]:
    """The code of the nearest value, uint8 0..15, same shape.

    A tie goes to the even code, a magnitude above 6 to 6, and a zero keeps its sign.

    Args:
        values: float32 or float64 [...], finite.

    Raises:
        CodecError: a value is NaN or infinite.
    """
    finite = np.isfinite(values)
    if not finite.all():
        index = np.unravel_index(int(np.argmin(finite)), values.shape)
        raise CodecError(
            f"E2M1 has no code for the value at index {tuple(map(int, index))}",
            expected="a finite value",
            found=values[index],
            remedy=REPORT,
        )
    magnitudes = np.abs(values)
    codes: NDArray[np.uint8] = np.signbit(values).astype(np.uint8) << 3
    for lower, (below, above) in enumerate(pairwise(_MAGNITUDES)):
        midpoint = (below + above) / 2
        codes += magnitudes > midpoint if lower % 2 == 0 else magnitudes >= midpoint
    return codes
