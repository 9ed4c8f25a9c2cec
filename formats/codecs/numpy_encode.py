"""Floats to MXFP4 in plain numpy: the twin of `numba_encode`, for where numba is not to be had.

`mxfp4_scales.EncodeKernels` says what each function does.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .mxfp4_scales import ScaleTables, Scaling, Tally
from .numpy_kernels import _row_chunks

Array = NDArray[Any]


def encode(values: Array, tables: ScaleTables, scaling: Scaling, blocks: Array, scales: Array) -> Tally:
    counts, sums = np.zeros(3, np.int64), np.zeros((2, 32))
    for rows in _row_chunks(scales):
        chunk = values[rows].reshape(-1, 32)
        sign_bit = chunk.itemsize * 8 - 1
        magnitudes = chunk & ((1 << sign_bit) - 1)
        amax = magnitudes.max(axis=1)
        if amax.max() >= scaling.limit:
            refused = rows.start * scales.shape[1] + int(np.argmax(amax >= scaling.limit))
            return Tally(refused, 0, 0, 0, 0.0, 0.0)
        scale, codes, ambiguous = _choose(magnitudes, amax, tables, scaling)
        held = _held(scale, codes, tables)
        exact = (held == magnitudes).all(axis=1)
        counts += np.count_nonzero([amax == 0, exact, ambiguous], axis=1)
        sums = _add_squares(sums, magnitudes[~exact], held[~exact])
        codes |= (chunk >> (sign_bit - 3)).astype(np.uint8) & 8
        blocks[rows] = (codes[:, 0::2] | codes[:, 1::2] << 4).reshape(blocks[rows].shape)
        scales[rows] = scale.reshape(scales[rows].shape)
    return Tally(-1, *map(int, counts), *(float(np.cumsum(lanes)[-1]) for lanes in sums))


def keep(values: Array, tables: ScaleTables, like: tuple[Array, Array], blocks: Array, scales: Array) -> int:
    kept = 0
    sign_bit = values.itemsize * 8 - 1
    for rows in _row_chunks(scales):
        like_blocks, like_scales = like[0][rows], like[1][rows]
        codes = np.stack([like_blocks & 15, like_blocks >> 4], axis=-1).reshape(*like_scales.shape, 32)
        patterns = tables.magnitudes[like_scales[:, :, None], codes & 7] | (codes >> 3).astype(values.dtype) << sign_bit
        same = (values[rows].reshape(codes.shape) == patterns).all(axis=2)
        kept += int(np.count_nonzero(same))
        blocks[rows][same] = like_blocks[same]
        scales[rows][same] = like_scales[same]
    return kept


def _choose(magnitudes: Array, amax: Array, tables: ScaleTables, scaling: Scaling) -> tuple[Array, Array, Array]:
    """Scale and codes without sign of each block, and whether it is exact at two exponents."""
    general = _scale(amax, scaling.carry)
    if not scaling.exact_first:
        return general, _codes(magnitudes, general, tables), np.zeros(len(amax), np.bool_)
    lowest = _scale(amax, 0)
    codes = _codes(magnitudes, lowest, tables)
    exact = (_held(lowest, codes, tables) == magnitudes).all(axis=1)
    # With neither 0.5 nor 1.5 (codes 1 and 3), and 6 for the largest, all halve to a value that has a code.
    ambiguous = exact & (amax == tables.magnitudes[lowest, 7]) & (codes & 5 != 1).all(axis=1)
    scale = np.where(exact, lowest, general) + (ambiguous & scaling.high)
    other = scale != lowest
    codes[other] = _codes(magnitudes[other], scale[other], tables)
    return scale, codes, ambiguous


def _scale(amax: Array, carry: int) -> Array:
    mantissa_bits = 8 * amax.itemsize - 9
    field = (amax.astype(np.int64) + carry) >> mantissa_bits
    scale: Array = np.maximum(field - 2, 0).astype(np.uint8)
    return scale


def _codes(magnitudes: Array, scale: Array, tables: ScaleTables) -> Array:
    thresholds = tables.thresholds[scale]
    codes = np.zeros(magnitudes.shape, np.uint8)
    for code in range(7):
        codes += magnitudes >= thresholds[:, code, None]
    return codes


def _held(scale: Array, codes: Array, tables: ScaleTables) -> Array:
    """The magnitudes that the codes stand for."""
    return tables.magnitudes.reshape(-1).take((scale.astype(np.uint16) << 3)[:, None] | codes)


def _add_squares(sums: Array, magnitudes: Array, held: Array) -> Array:
    """`sums` [2, 32] and the squared differences and squares of each block, added block by block as numba does."""
    numbers, levels = _numbers(magnitudes), _numbers(held)
    terms = np.stack([np.square(numbers - levels), np.square(numbers)])
    added: Array = np.add.reduce(np.concatenate([sums[:, None], terms], axis=1), axis=1)
    return added


def _numbers(patterns: Array) -> Array:
    bits = patterns.astype(np.uint32) << (32 - 8 * patterns.itemsize)
    return bits.view(np.float32).astype(np.float64)
