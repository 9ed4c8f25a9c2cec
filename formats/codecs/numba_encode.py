"""Floats to MXFP4, compiled by numba: the GIL is free, one thread per call (the caller runs several).

`mxfp4_scales.EncodeKernels` says what each function does, `numpy_encode` is the twin without numba.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, types
from numpy.typing import NDArray

from . import numba_lanes as lanes
from .mxfp4_scales import ScaleTables, Scaling, Tally
from .numba_compile import flat, kernel, rows

Array = NDArray[Any]


def encode(values: Array, tables: ScaleTables, scaling: Scaling, blocks: Array, scales: Array) -> Tally:
    counts, sums = np.zeros(3, np.int64), np.zeros(2)
    refused = int(_encode(values, *tables, *scaling, blocks.view(np.uint64), scales, counts, sums))
    if refused >= 0:
        return Tally(refused, 0, 0, 0, 0.0, 0.0)
    return Tally(-1, *map(int, counts), *map(float, sums))


def keep(values: Array, tables: ScaleTables, like: tuple[Array, Array], blocks: Array, scales: Array) -> int:
    like_words, like_scales = like[0].view(np.uint64), like[1]
    return int(_keep(values, *tables, like_words, like_scales, blocks.view(np.uint64), scales))


@kernel(
    *(
        types.int64(
            *(rows(bits, 2), flat(bits, 2), flat(bits, 2)),
            *(types.uint64, types.uint64, types.boolean, types.boolean),
            *(rows(types.uint64, 3, out=True), rows(types.uint8, 2, out=True)),
            *(flat(types.int64, out=True), flat(types.float64, out=True)),
        )
        for bits in (types.uint16, types.uint32)
    )
)
def _encode(
    values: Array,
    thresholds: Array,
    magnitudes: Array,
    carry: Any,
    limit: Any,
    exact_first: bool,
    high: bool,
    words: Array,
    scales: Array,
    counts: Array,
    sums: Array,
) -> Any:
    mantissa_bits = np.uint64(8 * magnitudes.itemsize - 9)
    error = square = lanes.zeros()
    for row in range(scales.shape[0]):
        for block in range(scales.shape[1]):
            value = lanes.load(values[row], 32 * block)
            magnitude = lanes.magnitudes(value)
            amax = lanes.largest(magnitude)
            if amax >= limit:
                return row * scales.shape[1] + block
            general = _scale(amax + carry >> mantissa_bits)
            scale = _scale(amax >> mantissa_bits) if exact_first else general
            codes, held = lanes.nearest(magnitude, thresholds, magnitudes, scale)
            counts[0] += amax == 0
            if lanes.equal(held, magnitude):
                counts[1] += 1
                # With neither 0.5 nor 1.5, and 6 for the largest, all halve to a value that has a code.
                if exact_first and amax == magnitudes[scale, 7] and not lanes.any_half(codes):
                    counts[2] += 1
                    if high:
                        scale += 1
                        codes, held = lanes.nearest(magnitude, thresholds, magnitudes, scale)
            else:
                if scale != general:
                    scale = general
                    codes, held = lanes.nearest(magnitude, thresholds, magnitudes, scale)
                error, square = lanes.add_squares(error, square, magnitude, held)
            words[row, block, 0], words[row, block, 1] = lanes.pack(codes, value)
            scales[row, block] = scale
    sums[0], sums[1] = lanes.total(error), lanes.total(square)
    return -1


@njit(nogil=True)
def _scale(exponent_field: Any) -> Any:
    return max(np.int64(exponent_field) - 2, 0)


@kernel(
    *(
        types.int64(
            *(rows(bits, 2), flat(bits, 2), flat(bits, 2)),
            *(rows(types.uint64, 3), rows(types.uint8, 2)),
            *(rows(types.uint64, 3, out=True), rows(types.uint8, 2, out=True)),
        )
        for bits in (types.uint16, types.uint32)
    )
)
def _keep(
    values: Array,
    thresholds: Array,
    magnitudes: Array,
    like_words: Array,
    like_scales: Array,
    words: Array,
    scales: Array,
) -> int:
    kept = 0
    for row in range(scales.shape[0]):
        for block in range(scales.shape[1]):
            value = lanes.load(values[row], 32 * block)
            magnitude = lanes.magnitudes(value)
            codes, held = lanes.nearest(magnitude, thresholds, magnitudes, np.int64(like_scales[row, block]))
            low, high = lanes.pack(codes, value)
            same = low == like_words[row, block, 0] and high == like_words[row, block, 1]
            if same and lanes.equal(held, magnitude):
                words[row, block, 0], words[row, block, 1] = low, high
                scales[row, block] = like_scales[row, block]
                kept += 1
    return kept
