"""How far two arrays of the same shape are apart: whether their bytes are equal, which blocks changed, and by how much.

Values are compared as float32, which holds those of every encoding, and summed as float64. All are finite: the caller
refuses NaN and infinity first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from . import accelerate
from .encoding import GGML_MXFP4, MXFP4, Encoding
from .mxfp4 import Mxfp4, require_rows

Parts = Sequence[NDArray[np.uint8]]

SHIFTS = 511
"""How many differences two scale bytes can have: -255 to 255. Difference d is counted at place d + 255."""

# Bytes compared together: what numpy makes of them stays in the first-level cache.
_CHUNK_BYTES = 1 << 18
_LONG_ROW = 4096


class CompareKernels(Protocol):
    """What `numba_compare` and `numpy_compare` both offer: the same counts, and sums that differ in rounding alone."""

    def measure(self, a: NDArray[Any], b: NDArray[Any], block: int, counts: NDArray[Any], sums: NDArray[Any]) -> float:
        """The largest |b - a|, as float64, of float32 [n] arrays of finite numbers, C-contiguous.

        Args:
            a, b: the values.
            block: how many elements are counted as one; n is a multiple of it.
            counts: int64 [2], filled with how many blocks differ, and where the first largest |b - a| is.
            sums: float64 [4], filled with the sums of a², b², ab and (b - a)².
        """

    def changed_blocks(
        self,
        words: tuple[NDArray[Any], NDArray[Any]],
        scales: tuple[NDArray[Any], NDArray[Any]],
        shifts: NDArray[Any],
        counts: NDArray[Any],
    ) -> None:
        """Counts the blocks whose bytes differ.

        Args:
            words: of both sides, the blocks as uint64 [N, G, 2]; rows may lie any distance apart.
            scales: of both sides, uint8 [N, G]; the same.
            shifts: int64 [511]; at `scale b - scale a + 255` every block that differs is added.
            counts: int64 [3], filled with how many blocks differ, how many of them in their scale alone, and how many
                zeros have another sign.
        """

    def same_in_ggml(self, data: NDArray[Any], blocks: NDArray[Any], scales: NDArray[Any]) -> bool:
        """Whether ggml's blocks, uint8 [N, G, 17], hold the same bytes as `blocks` uint8 [N, G, 16] and `scales`
        uint8 [N, G], and no scale is NaN. Rows may lie any distance apart.
        """


@dataclass(frozen=True)
class Distance:
    """How far values b are from values a.

    Attributes:
        elements: how many were compared.
        changed: how many blocks (or elements) have another value; 0 and -0 are one value.
        energy_a, energy_b, product, error: the sums of a², b², ab and (b - a)².
        largest: max |b - a|.
        place: row and column of the first such element.
        values: a and b there.
    """

    elements: int
    changed: int
    energy_a: float
    energy_b: float
    product: float
    error: float
    largest: float
    place: tuple[int, int]
    values: tuple[float, float]


@dataclass(frozen=True)
class PackedChanges:
    """Which bytes of packed blocks differ.

    Attributes:
        blocks: how many differ.
        scale_only: how many of them in their scale alone.
        signed_zeros: how many codes are 0 on one side and -0 (code 8) on the other.
        shifts: int64 [511], how many of the blocks have scale b - scale a = place - 255.
    """

    blocks: int
    scale_only: int
    signed_zeros: int
    shifts: NDArray[np.int64]


def same_bytes(a: NDArray[Any], b: NDArray[Any]) -> bool:
    """Whether two arrays [N, …] of one shape and dtype hold the same bytes; rows may lie any distance apart."""
    assert (a.shape, a.dtype) == (b.shape, b.dtype)
    if not a.size:
        return True
    together = a.flags.c_contiguous and b.flags.c_contiguous
    first, second = (_words(array, together=together) for array in (a, b))
    step = max(1, _CHUNK_BYTES // (first.shape[1] * first.itemsize))
    return all(np.array_equal(first[at : at + step], second[at : at + step]) for at in range(0, len(first), step))


def same_packed(encodings: tuple[Encoding, Encoding], parts_a: Parts, parts_b: Parts) -> bool:
    """Whether stored rows hold the same MXFP4 blocks in another order of bytes, and no scale is NaN.

    False also where only unpacking can tell: it knows MXFP4's planes beside ggml's blocks.

    Args:
        encodings: of both sides.
        parts_a: uint8 [N, row bytes] of each part, in the encoding's order; rows may lie any distance apart.
        parts_b: the same.
    """
    if encodings == (GGML_MXFP4, MXFP4):
        parts_a, parts_b = parts_b, parts_a
    elif encodings != (MXFP4, GGML_MXFP4):
        return False
    (blocks, scales), (data,) = parts_a, parts_b
    n_rows, groups = scales.shape
    return _kernels().same_in_ggml(data.reshape(n_rows, groups, 17), blocks.reshape(n_rows, groups, 16), scales)


def _words(array: NDArray[Any], *, together: bool) -> NDArray[Any]:
    """The array's bytes as rows of the widest integers that divide them; long rows if all bytes lie `together`."""
    rows = array.reshape(len(array), -1).view(np.uint8)
    if together and rows.size % _LONG_ROW == 0:
        rows = rows.reshape(-1, _LONG_ROW)
    for word in (np.uint64, np.uint32, np.uint16):
        if rows.shape[1] % np.dtype(word).itemsize == 0:
            return rows.view(word)
    return rows


def measure(a: NDArray[np.float32], b: NDArray[np.float32], block: int = 1) -> Distance:
    """The distance of `b` from `a`: float32 [N, cols], finite, C-contiguous. `block` elements are counted as one."""
    for name, array in (("a", a), ("b", b)):
        require_rows(name, array, np.float32, a.shape)
        assert array.flags.c_contiguous
    assert a.shape[1] % block == 0
    if not a.size:
        return Distance(0, 0, 0.0, 0.0, 0.0, 0.0, 0.0, (0, 0), (0.0, 0.0))
    counts, sums = np.zeros(2, np.int64), np.zeros(4, np.float64)
    largest = _kernels().measure(a.reshape(-1), b.reshape(-1), block, counts, sums)
    changed, at = map(int, counts)
    row, column = divmod(at, a.shape[1])
    values = float(a[row, column]), float(b[row, column])
    energy_a, energy_b, product, error = map(float, sums)
    return Distance(a.size, changed, energy_a, energy_b, product, error, float(largest), (row, column), values)


def changed_blocks(a: Mxfp4, b: Mxfp4) -> PackedChanges:
    """Which blocks of two packed tensors of one shape differ in their bytes."""
    require_rows("blocks", b.blocks, np.uint8, a.blocks.shape)
    shifts, counts = np.zeros(SHIFTS, np.int64), np.zeros(3, np.int64)
    if a.scales.size:
        words = a.blocks.view(np.uint64), b.blocks.view(np.uint64)
        _kernels().changed_blocks(words, (a.scales, b.scales), shifts, counts)
    blocks, scale_only, signed_zeros = map(int, counts)
    return PackedChanges(blocks, scale_only, signed_zeros, shifts)


def _kernels() -> CompareKernels:
    if accelerate.uses_numba():
        from . import numba_compare

        return numba_compare
    from . import numpy_compare

    return numpy_compare
