"""F32, F16 and BF16: from one to another, and a fast look for NaN and infinity.

    bit    31 | 30 .. 23 | 22 ........ 0      F32     sign, exponent, mantissa
           15 | 14 .. 10 | 9 .. 0             F16
           15 | 14 ..  7 | 6 .. 0             BF16: the upper half of F32

F32 is float32; F16 and BF16 are uint16 bit patterns.

Source: IEEE 754-2019; BF16 rounds as it does, to nearest, ties to even, with subnormals.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import REPORT, CodecError
from .accelerate import kernels
from .encoding import BF16, F16, F32

_ELEMENT = {F32.name: np.dtype(np.float32), F16.name: np.dtype(np.uint16), BF16.name: np.dtype(np.uint16)}
_EXPONENT = {F32.name: 0x7F80_0000, F16.name: 0x7C00, BF16.name: 0x7F80}

# Elements copied together where rows are strided, or where numpy does the work.
_CHUNK_ELEMENTS = 65536

_OVERFLOW = -1


def find_nonfinite(values: NDArray[Any], encoding: str) -> tuple[int, ...] | None:
    """The index of the first NaN or infinity in C order, or None.

    Args:
        values: [N, ...], float32 or uint16 patterns; any strides, fastest if C-contiguous.
        encoding: "F32", "F16" or "BF16".
    """
    _require(values, encoding)
    for begin, rows in _row_chunks(values):
        flat = np.ascontiguousarray(values[rows]).reshape(-1)
        found = kernels().first_nonfinite(flat.view(f"u{flat.itemsize}"), _EXPONENT[encoding])
        if found >= 0:
            row, *rest = np.unravel_index(found, values[rows].shape)
            return (begin + int(row), *map(int, rest))
    return None


def convert(values: NDArray[Any], source: str, target: str, out: NDArray[Any]) -> int:
    """Writes `values` into `out` as another float encoding, rounded to nearest, ties to even.

    Infinity stays infinity, NaN stays NaN, zero keeps its sign.

    Args:
        values: [N, ...], in the encoding `source`; any strides, fastest if C-contiguous.
        source: "F32", "F16" or "BF16".
        target: the same.
        out: same shape, in the encoding `target`; any strides.

    Returns:
        How many values had to be rounded: 0 says that every value survives exactly.

    Raises:
        CodecError: a finite value is too large for `target`; its index is named.
    """
    _require(values, source)
    _require(out, target)
    assert values.shape == out.shape
    if source == target:
        np.copyto(out, values)
        return 0
    work = _CONVERSIONS[source, target]
    rounded = 0
    for begin, rows in _row_chunks(values, out):
        flat = np.ascontiguousarray(values[rows]).reshape(-1)
        target_rows = out[rows]
        result = target_rows if target_rows.flags.c_contiguous else np.empty(target_rows.shape, out.dtype)
        count = work(flat, result.reshape(-1))
        if count == _OVERFLOW:
            _refuse_overflow(values[rows], result, begin, source, target)
        if result is not target_rows:
            target_rows[...] = result
        rounded += count
    return rounded


def _bf16_to_f32(values: NDArray[Any], out: NDArray[Any]) -> int:
    kernels().widen(values, out.view(np.uint32))
    return 0


def _f32_to_bf16(values: NDArray[Any], out: NDArray[Any]) -> int:
    return kernels().narrow(values.view(np.uint32), out)


def _bf16_to_f16(values: NDArray[Any], out: NDArray[Any]) -> int:
    return kernels().translate(values, _bf16_to_f16_table(), out)


def _f16_to_bf16(values: NDArray[Any], out: NDArray[Any]) -> int:
    return kernels().translate(values, _f16_to_bf16_table(), out)


def _f16_to_f32(values: NDArray[Any], out: NDArray[Any]) -> int:
    with np.errstate(invalid="ignore"):
        out[:] = values.view(np.float16)
    return 0


def _f32_to_f16(values: NDArray[Any], out: NDArray[Any]) -> int:
    rounded = 0
    for begin in range(0, len(values), _CHUNK_ELEMENTS):
        chunk = values[begin : begin + _CHUNK_ELEMENTS]
        nearest = _as_f16(chunk)
        out[begin : begin + _CHUNK_ELEMENTS] = nearest.view(np.uint16)
        if (np.isinf(nearest) & np.isfinite(chunk)).any():
            return _OVERFLOW
        rounded += int(np.count_nonzero(~_same(nearest, chunk)))
    return rounded


# Each takes and fills 1-D C-contiguous arrays and returns how many values were rounded, or _OVERFLOW.
_CONVERSIONS: dict[tuple[str, str], Callable[[NDArray[Any], NDArray[Any]], int]] = {
    (BF16.name, F32.name): _bf16_to_f32,
    (BF16.name, F16.name): _bf16_to_f16,
    (F16.name, F32.name): _f16_to_f32,
    (F16.name, BF16.name): _f16_to_bf16,
    (F32.name, BF16.name): _f32_to_bf16,
    (F32.name, F16.name): _f32_to_f16,
}


@functools.cache
def _bf16_to_f16_table() -> NDArray[np.uint32]:
    """Every BF16 pattern's F16 pattern; bit 16 says that it is rounded, bit 17 that it overflows. uint32 [65536]."""
    exact = (np.arange(1 << 16, dtype=np.uint32) << 16).view(np.float32)
    nearest = _as_f16(exact)
    table = nearest.view(np.uint16).astype(np.uint32)
    table[~_same(nearest, exact)] |= 1 << 16
    table[np.isinf(nearest) & np.isfinite(exact)] |= 1 << 17
    return table


@functools.cache
def _f16_to_bf16_table() -> NDArray[np.uint32]:
    """Every F16 pattern's BF16 pattern; bit 16 says that it is rounded. uint32 [65536]."""
    exact = np.empty(1 << 16, np.float32)
    patterns = np.arange(1 << 16, dtype=np.uint16)
    _f16_to_f32(patterns, exact)
    _f32_to_bf16(exact, patterns)
    table = patterns.astype(np.uint32)
    table[(exact.view(np.uint32) & 0xFFFF != 0) & ~np.isnan(exact)] |= 1 << 16
    return table


def _as_f16(values: NDArray[np.float32]) -> NDArray[np.float16]:
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        return values.astype(np.float16)


def _same(nearest: NDArray[np.float16], exact: NDArray[np.float32]) -> NDArray[np.bool_]:
    same: NDArray[np.bool_] = (nearest == exact) | np.isnan(exact)
    return same


def _row_chunks(*arrays: NDArray[Any]) -> Iterator[tuple[int, slice]]:
    """All rows at once if all arrays are C-contiguous, else so many that their copies stay in the cache."""
    n_rows = len(arrays[0])
    if all(array.flags.c_contiguous for array in arrays):
        step = max(1, n_rows)
    else:
        step = max(1, _CHUNK_ELEMENTS * n_rows // max(1, arrays[0].size))
    for begin in range(0, n_rows, step):
        yield begin, slice(begin, begin + step)


def _require(values: NDArray[Any], encoding: str) -> None:
    if values.dtype != _ELEMENT[encoding] or values.ndim == 0:
        raise CodecError(
            f"the array does not hold rows of {encoding}",
            expected=f"{_ELEMENT[encoding]} [N, ...]",
            found=values.dtype,
            remedy=REPORT,
        )


def _refuse_overflow(values: NDArray[Any], result: NDArray[Any], begin: int, source: str, target: str) -> None:
    infinite = (result.view(f"u{result.itemsize}") & _EXPONENT[target]) == _EXPONENT[target]
    finite = (values.view(f"u{values.itemsize}") & _EXPONENT[source]) != _EXPONENT[source]
    row, *rest = map(int, np.unravel_index(int(np.argmax(infinite & finite)), values.shape))
    value = np.empty(1, np.float32)
    convert(np.array([values[row, *rest]]), source, F32.name, value)
    raise CodecError(
        f"the value at index {(begin + row, *rest)} is too large for {target}",
        expected=f"a magnitude that {target} can hold",
        found=f"{value[0]:g}",
        remedy=f"Convert to {F32.name} or {BF16.name}." if target == F16.name else f"Convert to {F32.name}.",
    )
