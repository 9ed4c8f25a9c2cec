"""Which code does the byte work: the numba kernels, or their numpy twin.

Both modules hold the same functions with the same results, byte for byte. numba is 3 to 14 times as fast.
"""

from __future__ import annotations

import functools
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

NO_NUMBA_VARIABLE = "GPTOSS_CONVERT_NO_NUMBA"


class SlowCodecWarning(UserWarning):
    """numba cannot be imported, so the byte work is done by numpy, several times slower."""


class Kernels(Protocol):
    """What the codecs ask for. N rows, G blocks per row.

    Rows may lie any distance apart, their elements lie one after another. Shapes and dtypes are checked by the
    caller. Nothing is allocated but a few kilobytes, or in the numpy twin a few megabytes.
    """

    def repack_to_ggml(self, blocks: NDArray[Any], scales: NDArray[Any], out: NDArray[Any]) -> None:
        """Writes `out` uint8 [N, G, 17] from `blocks` uint8 [N, G, 16] and `scales` uint8 [N, G]."""

    def repack_from_ggml(self, data: NDArray[Any], blocks: NDArray[Any], scales: NDArray[Any]) -> None:
        """Writes `blocks` uint8 [N, G, 16] and `scales` uint8 [N, G] from `data` uint8 [N, G, 17]."""

    def expand(self, blocks: NDArray[Any], scales: NDArray[Any], pairs: NDArray[Any], out: NDArray[Any]) -> None:
        """`out[n, g, j] = pairs[scales[n, g], blocks[n, g, j]]`.

        Args:
            blocks: uint8 [N, G, 16].
            scales: uint8 [N, G].
            pairs: uint32 or uint64 [256, 256], C-contiguous.
            out: [N, G, 16], the dtype of `pairs`.
        """

    def match(self, values: NDArray[Any], scales: NDArray[Any], magnitudes: NDArray[Any], out: NDArray[Any]) -> int:
        """Writes the code of each value whose magnitude is in its block's list; counts the values that are not.

        The code is the place in the list, plus 8 if the value's highest bit is set; a value that is not in the
        list gets code 0 or 8.

        Args:
            values: uint16 or uint32 [N, G * 32], bit patterns.
            scales: uint8 [N, G], which row of `magnitudes` belongs to a block.
            magnitudes: [256, 8], the dtype of `values`, C-contiguous: patterns with the highest bit clear, or all
                ones for "none". The others of a row differ.
            out: uint8 [N, G, 16], interleaved.
        """

    def first_nonfinite(self, values: NDArray[Any], exponent: int) -> int:
        """The first index with all bits of `exponent` set, or -1. `values`: uint16 or uint32 [n], C-contiguous."""

    def widen(self, values: NDArray[Any], out: NDArray[Any]) -> None:
        """BF16 to F32: `out` uint32 [n] = `values` uint16 [n] << 16, both C-contiguous."""

    def narrow(self, values: NDArray[Any], out: NDArray[Any]) -> int:
        """F32 to BF16, to nearest, ties to even; NaN stays NaN. `values` uint32 [n], `out` uint16 [n], C-contiguous.

        Returns:
            How many values had to be rounded; -1 if a finite value became infinite.
        """

    def translate(self, values: NDArray[Any], table: NDArray[Any], out: NDArray[Any]) -> int:
        """`out[i]` = the low 16 bits of `table[values[i]]`. `values`, `out`: uint16 [n]; `table`: uint32 [65536].

        Returns:
            How many entries used have bit 16 set; -1 if one has bit 17 set.
        """


_TWIN = ContextVar("twin", default=False)


@contextmanager
def numpy_twin() -> Iterator[None]:
    """Inside, the numpy twin does this thread's byte work: a second opinion on what the numba kernels make."""
    token = _TWIN.set(True)
    try:
        yield
    finally:
        _TWIN.reset(token)


def kernels() -> Kernels:
    """The numba kernels; their numpy twin if numba is missing, if GPTOSS_CONVERT_NO_NUMBA is 1, or in `numpy_twin`.

    Imports numba when first called. Warns once (`SlowCodecWarning`) if it is missing.
    """
    if _TWIN.get() or os.environ.get(NO_NUMBA_VARIABLE) == "1":
        from . import numpy_kernels

        return numpy_kernels
    return _numba_or_twin()


def uses_numba() -> bool:
    """Whether `kernels` gives the numba kernels."""
    from . import numpy_kernels

    return kernels() is not numpy_kernels


def prepare() -> None:
    """Loads the kernels that every conversion needs, so that a thread can do it while others wait for files."""
    module = kernels()
    blocks, scales, packed = (np.zeros(shape, np.uint8) for shape in ((1, 1, 16), (1, 1), (1, 1, 17)))
    module.repack_to_ggml(blocks, scales, packed)
    module.repack_from_ggml(packed, blocks, scales)
    module.first_nonfinite(np.zeros(1, np.uint16), 0x7F80)


@functools.cache
def _numba_or_twin() -> Kernels:
    try:
        from . import numba_kernels
    except ImportError as error:
        from . import numpy_kernels

        warnings.warn(
            f"numba cannot be imported ({error}), so conversion will be several times slower. "
            f"Install it with `pip install numba`, or set {NO_NUMBA_VARIABLE}=1 to silence this warning.",
            SlowCodecWarning,
            stacklevel=3,
        )
        return numpy_kernels
    return numba_kernels
