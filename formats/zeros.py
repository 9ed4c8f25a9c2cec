"""Whether bytes are all zero: what is written as such can stay a hole in a file, and takes no room on the disk."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# Data shows itself in its first bytes; the rest is looked at in pieces that stay in the cache.
_FIRST_BYTES, _PIECE_BYTES = 4096, 256 << 10


def is_zero(data: NDArray[np.uint8]) -> bool:
    """True if all of `data`, uint8 [n], is zero; stops soon after the first byte that is not."""
    if data[:_FIRST_BYTES].any():
        return False
    return not any(data[begin : begin + _PIECE_BYTES].max() for begin in range(0, len(data), _PIECE_BYTES))
