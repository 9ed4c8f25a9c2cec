"""What OpenAI's Metal file changes in stored values, exactly, and the way back.

    rows of a head      0   1  …  d/2-1 | d/2  d/2+1 …  d-1        two halves, as everywhere else
    pairs in the file   0  d/2 |  1   d/2+1 |  …  | d/2-1  d-1     each pair is rotated together

    BF16 times 2^k      sign and mantissa stay, the exponent field changes by k
    scale byte + 14     the kernels decode codes as F16 patterns, 2^14 too small

BF16 values are uint16 patterns. Nothing is rounded: a value that would lose bits is refused.

Source: openai/gpt-oss `gpt_oss/metal/scripts/create-local-model.py`, `gpt_oss/metal/source/moematmul.metal`.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import REPORT, CodecError
from .accelerate import kernels

SCALE_SHIFT = 14
"""What stored scales are larger by: the kernels decode codes 2^14 too small."""

MAX_SCALE = 254
"""Largest scale byte that stays a number when the kernels put it into a float32's exponent field."""

_INEXACT, _OVERFLOW = 1 << 16, 1 << 17


def encode_heads(
    values: NDArray[np.uint16],
    head_dim: int,
    exponent: int,
    out: NDArray[np.uint16],
    *,
    tensor: str | None = None,
    first_row: int = 0,
) -> None:
    """Writes into `out` the rows of each head as pairs, times 2^`exponent`.

    Row i of a head goes to 2i, row i + head_dim / 2 to 2i + 1. Zero keeps its sign; infinity and NaN stay as they are.

    Args:
        values: uint16 [N, ...], BF16 patterns, N a multiple of `head_dim`; rows may lie any distance apart.
        head_dim: rows of one head; even.
        exponent: -8..8.
        out: same shape, C-contiguous, no memory in common with `values`.
        tensor: named in errors.
        first_row: of `values` in that tensor.

    Raises:
        CodecError: the rows are not whole heads, or a product has too many bits for BF16 or is too large for it.
    """
    halves, pairs = _by_head(values, head_dim, (2, head_dim // 2)), _by_head(out, head_dim, (head_dim // 2, 2))
    pairs[...] = halves.swapaxes(1, 2)
    _multiply(values, exponent, out, tensor, first_row)


def decode_heads(
    values: NDArray[np.uint16],
    head_dim: int,
    exponent: int,
    out: NDArray[np.uint16],
    *,
    tensor: str | None = None,
    first_row: int = 0,
) -> None:
    """Undoes `encode_heads` with the same arguments, bit for bit: pairs become halves, times 2^-`exponent`.

    Raises:
        CodecError: as there.
    """
    pairs, halves = _by_head(values, head_dim, (head_dim // 2, 2)), _by_head(out, head_dim, (2, head_dim // 2))
    halves[...] = pairs.swapaxes(1, 2)
    _multiply(values, -exponent, out, tensor, first_row)


def shift_scales(
    scales: NDArray[np.uint8],
    shift: int,
    out: NDArray[np.uint8],
    *,
    tensor: str | None = None,
    first_row: int = 0,
) -> None:
    """Writes `scales` + `shift` into `out`; never wraps.

    Args:
        scales: uint8 [N, ...].
        shift: 14 for what the file stores, -14 for the way back.
        out: same shape; may be `scales`.
        tensor: named in errors.
        first_row: of `scales` in that tensor.

    Raises:
        CodecError: a scale would exceed 254 in the file, or is below 14 in it; its index is named.
    """
    low, high = max(0, -shift), min(255, MAX_SCALE - shift)
    if scales.size and not (low <= scales.min() and scales.max() <= high):
        index = _first((scales < low) | (scales > high))
        raise CodecError(
            f"the scale at index {_counted(index, first_row)} cannot be shifted by {shift}",
            tensor=tensor,
            expected=f"{low} to {high}",
            found=int(scales[index]),
            remedy="No gpt-oss model has such scales: check what wrote the source.",
        )
    np.add(scales, np.uint8(shift % 256), out=out)


def _by_head(values: NDArray[Any], head_dim: int, parts: tuple[int, int]) -> NDArray[Any]:
    """A view [heads, *parts, ...]; splitting the first axis never copies."""
    if head_dim < 2 or head_dim % 2 or len(values) % head_dim:
        expected, found = f"a multiple of an even number, {head_dim}", len(values)
        raise CodecError("the rows are not whole heads", expected=expected, found=found, remedy=REPORT)
    return values.reshape(len(values) // head_dim, *parts, *values.shape[1:])


def _multiply(
    values: NDArray[np.uint16], exponent: int, out: NDArray[np.uint16], tensor: str | None, first_row: int
) -> None:
    """Multiplies `out`, which holds the rows of `values` in another order."""
    assert out.flags.c_contiguous
    flat = out.reshape(-1)
    if exponent and kernels().translate(flat, _products(exponent), flat):
        _refuse_product(values, exponent, tensor, first_row)


@functools.cache
def _products(exponent: int) -> NDArray[np.uint32]:
    """Every BF16 pattern times 2^exponent; bit 16 says that bits are lost, bit 17 that it overflows. uint32 [65536]."""
    assert -8 <= exponent <= 8
    patterns = np.arange(1 << 16, dtype=np.uint32)
    values = (patterns << 16).view(np.float32)
    # Float32 has room for 16 bits more than BF16, in subnormal numbers too: below infinity no product is rounded here.
    with np.errstate(over="ignore", invalid="ignore"):
        products = values * np.float32(2.0**exponent)
    bits = products.view(np.uint32)
    is_finite = np.isfinite(values)
    table = np.where(is_finite, bits >> 16, patterns)
    table[is_finite & (bits & 0xFFFF != 0)] |= _INEXACT
    table[is_finite & np.isinf(products)] |= _OVERFLOW
    return table


def _refuse_product(values: NDArray[np.uint16], exponent: int, tensor: str | None, first_row: int) -> None:
    flags = _products(exponent)[values]
    bad = (flags & (_INEXACT | _OVERFLOW)) != 0
    index = _first(bad)
    value = (np.array([values[index]], np.uint32) << 16).view(np.float32)[0]
    problem = "is too large" if flags[index] & _OVERFLOW else "has too many bits for a subnormal number"
    others = f" (and {int(bad.sum()) - 1:,} more)" if bad.sum() > 1 else ""
    raise CodecError(
        f"the value at index {_counted(index, first_row)} times 2^{exponent} {problem}{others}",
        tensor=tensor,
        expected="a product that BF16 holds exactly",
        found=f"{value:g}",
        remedy="No trained weight is such a number: check what wrote the source.",
    )


def _first(bad: NDArray[np.bool_]) -> tuple[int, ...]:
    return tuple(map(int, np.unravel_index(int(np.argmax(bad)), bad.shape)))


def _counted(index: tuple[int, ...], first_row: int) -> tuple[int, ...]:
    """The index in the whole tensor."""
    return (first_row + index[0], *index[1:])
