"""MXFP4: blocks of 32 E2M1 codes that share one E8M0 scale, in the interleaved nibble order.

    byte      0             1           ...        15
          | 1    0    |  3     2    |        |  31    30   |    element: high nibble, low nibble

    value of an element = E2M1[code] * 2^(scale - 127)

A tensor of N rows and G * 32 columns is two arrays, blocks [N, G, 16] and scales [N, G].

Source: OCP Microscaling Formats (MX) Specification v1.0, section 5.2 (concrete MX-compliant formats).
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DAMAGED_TENSOR, REPORT, CodecError
from . import e2m1, e8m0
from .accelerate import kernels
from .encoding import BF16, F16, F32

BLOCK_ELEMENTS = 32

# Blocks looked at together when an unusual scale is audited: 16 MB of temporaries at most.
_AUDIT_BLOCKS = 65536


@dataclass(frozen=True)
class Mxfp4:
    """N packed rows. Rows may lie any distance apart (every second row of gate_up, say).

    Args:
        blocks: uint8 [N, G, 16], interleaved.
        scales: uint8 [N, G].

    Raises:
        CodecError: the arrays are not of those dtypes and shapes.
    """

    blocks: NDArray[np.uint8]
    scales: NDArray[np.uint8]

    def __post_init__(self) -> None:
        require_rows("scales", self.scales, np.uint8, (*self.scales.shape[:1], *self.scales.shape[1:2]))
        require_rows("blocks", self.blocks, np.uint8, (*self.scales.shape, 16))


def require_rows(name: str, array: NDArray[Any], dtype: Any, shape: tuple[int, ...]) -> None:
    """Raises CodecError unless `array` has that dtype and shape and each row's elements lie one after another."""
    if array.dtype != dtype or array.shape != shape or not array[:1].flags.c_contiguous:
        raise CodecError(
            f"the array {name} has the wrong shape, dtype or strides",
            expected=f"{np.dtype(dtype).name} {list(shape)}, contiguous within a row",
            found=f"{array.dtype.name} {list(array.shape)}, strides of {list(array.strides)} bytes",
            remedy=REPORT,
        )


def check_scales(scales: NDArray[np.uint8]) -> None:
    """Raises CodecError naming row and block of the first scale that is NaN (255). `scales`: uint8 [N, G]."""
    found = e8m0.find_nan(scales)
    if found is not None:
        row, block = found
        raise CodecError(
            f"row {row}, block {block}: the scale is NaN",
            expected="a scale byte of 0 to 254",
            found="scale byte 255",
            remedy=DAMAGED_TENSOR,
        )


def decode_bf16(mx: Mxfp4, out: NDArray[np.uint16]) -> int:
    """Writes the values as BF16 patterns into `out` uint16 [N, G * 32]; always 0, for all are exact.

    Raises:
        CodecError: a scale is 255, or a value overflows (scale 253 or 254). Row, block and element are named.
    """
    return _decode(mx, BF16.name, out)


def decode_f32(mx: Mxfp4, out: NDArray[np.float32]) -> int:
    """Writes the values into `out` float32 [N, G * 32]; always 0, for all are exact.

    Raises:
        CodecError: as `decode_bf16`.
    """
    return _decode(mx, F32.name, out)


def decode_f16(mx: Mxfp4, out: NDArray[np.uint16]) -> int:
    """Writes the values as F16 patterns into `out` uint16 [N, G * 32], rounded to nearest, ties to even.

    Returns:
        How many values F16 cannot hold: 0 if all scales of blocks with other codes than zero are 104..140.

    Raises:
        CodecError: a scale is 255, or a value overflows (scale above 140). Row, block and element are named.
    """
    return _decode(mx, F16.name, out)


def encode_exact(values: NDArray[Any], encoding: str, scales: NDArray[np.uint8], out_blocks: NDArray[np.uint8]) -> int:
    """How many values are not exactly E2M1[code] * 2^(scale - 127) for some code; 0 proves the blocks hold them.

    Writes the blocks. The sign of zero is kept. A value that cannot be held gets code 0 or 8.

    Args:
        values: [N, G * 32], float32 for "F32", uint16 patterns for "BF16" and "F16".
        encoding: which of these.
        scales: uint8 [N, G]; a block of scale 255 holds no value.
        out_blocks: uint8 [N, G, 16].
    """
    form = _form(encoding)
    check = functools.partial(require_rows, shape=(len(scales), scales.shape[1] * BLOCK_ELEMENTS))
    check("values", values, form.element)
    require_rows("scales", scales, np.uint8, scales.shape)
    require_rows("blocks", out_blocks, np.uint8, (*scales.shape, 16))
    if not scales.size:
        return 0
    return kernels().match(values.view(form.magnitudes.dtype), scales, form.magnitudes, out_blocks)


@dataclass(frozen=True)
class _Form:
    """MXFP4 as one float encoding sees it. `pairs` and the other tables of bytes are [256 scales, 256 bytes].

    Args:
        element: the dtype of a decoded element.
        pairs: the two values of a byte, as one integer in memory order.
        rounded: uint8, how many of the two are not exact.
        overflow: bool, whether one of the two overflows.
        magnitudes: [256, 8], the patterns of codes 0..7, all ones where not exact.
        exact_scales: the lowest and the highest scale with which every code is exact.
    """

    element: np.dtype[Any]
    pairs: NDArray[Any]
    rounded: NDArray[np.uint8]
    overflow: NDArray[np.bool_]
    magnitudes: NDArray[Any]
    exact_scales: tuple[int, int]


@functools.cache
def _form(encoding: str) -> _Form:
    exact = e8m0.decode(np.arange(256, dtype=np.uint8)).astype(np.float64)[:, None] * e2m1.VALUES.astype(np.float64)
    with np.errstate(over="ignore"):
        if encoding == F16.name:
            rounded = exact.astype(np.float16)
            patterns = rounded.view(np.uint16)
        else:
            rounded = exact.astype(np.float32)
            patterns = rounded.view(np.uint32)
    if encoding == BF16.name:
        # Two significant bits and an exponent of at least -128: the lower half is zero, except in NaN.
        patterns = (patterns >> 16).astype(np.uint16)
    held = rounded.astype(np.float64) == exact
    byte = np.arange(256)
    low, high = byte & 15, byte >> 4
    all_held = np.flatnonzero(held.all(axis=1))
    pairs = np.stack([patterns[:, low], patterns[:, high]], axis=-1)
    return _Form(
        element=np.dtype(np.float32 if encoding == F32.name else np.uint16),
        pairs=np.ascontiguousarray(pairs).view(f"u{2 * patterns.itemsize}").reshape(256, 256),
        rounded=(~held[:, low]).astype(np.uint8) + ~held[:, high],
        overflow=np.isinf(rounded)[:, low] | np.isinf(rounded)[:, high],
        magnitudes=np.where(held[:, :8], patterns[:, :8], np.iinfo(patterns.dtype).max).astype(patterns.dtype),
        exact_scales=(int(all_held[0]), int(all_held[-1])),
    )


def _decode(mx: Mxfp4, encoding: str, out: NDArray[Any]) -> int:
    n_rows, groups = mx.scales.shape
    form = _form(encoding)
    require_rows("out", out, form.element, (n_rows, groups * BLOCK_ELEMENTS))
    if not mx.scales.size:
        return 0
    rounded = _audit(mx, encoding, form)
    kernels().expand(mx.blocks, mx.scales, form.pairs, out.view(form.pairs.dtype).reshape(n_rows, groups, 16))
    return rounded


def _audit(mx: Mxfp4, encoding: str, form: _Form) -> int:
    """How many values are not exact. Raises CodecError for the first scale of 255, then for the first overflow."""
    lowest, highest = form.exact_scales
    if mx.scales.min() >= lowest and mx.scales.max() <= highest:
        return 0
    check_scales(mx.scales)
    rounded = 0
    step = max(1, _AUDIT_BLOCKS // mx.scales.shape[1])
    for begin in range(0, len(mx.scales), step):
        scales = mx.scales[begin : begin + step]
        rows, groups = np.nonzero((scales < lowest) | (scales > highest))
        at_risk, blocks = scales[rows, groups, None], mx.blocks[begin + rows, groups]
        overflow = form.overflow[at_risk, blocks]
        if overflow.any():
            first, byte = np.unravel_index(int(np.argmax(overflow)), overflow.shape)
            _refuse_overflow(mx, encoding, begin + int(rows[first]), int(groups[first]), int(byte))
        rounded += int(form.rounded[at_risk, blocks].sum())
    return rounded


def _refuse_overflow(mx: Mxfp4, encoding: str, row: int, block: int, byte: int) -> None:
    scale, pair = int(mx.scales[row, block]), int(mx.blocks[row, block, byte])
    low, high = pair & 15, pair >> 4
    half = 0 if _form(encoding).overflow[scale, low | low << 4] else 1
    raise CodecError(
        f"row {row}, block {block}, element {2 * byte + half} is too large for {encoding}",
        expected=f"a magnitude that {encoding} can hold",
        found=f"{e2m1.VALUES[(low, high)[half]]:g} * 2^{scale - e8m0.BIAS} (scale byte {scale})",
        remedy="Keep experts as MXFP4 (to-gguf --experts mxfp4), or choose a type with a wider range.",
    )
