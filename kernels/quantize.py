"""Floats to MXFP8 or MXFP4 on the device: 32 elements of a row share a scale, the smallest-error rule of each kind.

    kind    element  largest  scale                               amax in steps
    MXFP8   e4m3     448      ceil: the least that clips nothing  (224, 448]
    MXFP4   e2m1     6        even: floor of amax rounded to one  [3.5, 7), clipped to 6
                              mantissa bit, ties away

The scale is a sum on the bits of amax: a carry into the exponent field, which is then read off. Elements are rounded to
nearest, ties to even, in integers and exact float32 steps; signs of zero are kept. A block of zeros gets scale 0. One
with NaN or infinity gets scale 255, which makes NaN of all that it is multiplied with.

Source: OCP Microscaling Formats (MX) Specification v1.0, sections 5.3 (E4M3, E2M1), 5.4.1 (E8M0) and 6.3; torchao
`prototype/mx_formats`, RCEIL and EVEN.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def shared_scale(magnitudes, ELEMENT: tl.constexpr):
    """Scale bytes int32 [BG] of the bits int32 [BG, 32] of magnitudes."""
    EMAX: tl.constexpr = 8 if ELEMENT == "e4m3" else 2
    CARRY: tl.constexpr = 0x1FFFFF if ELEMENT == "e4m3" else 0x200000
    largest = tl.max(magnitudes, axis=1)
    exponent = (tl.where(largest < 0x7F800000, largest, 0) + CARRY) >> 23
    return tl.where(largest < 0x7F800000, tl.where(exponent > EMAX, exponent - EMAX, 0), 255)


@triton.jit
def nearest_code(bits, scale, ELEMENT: tl.constexpr):
    """Codes uint8 [BG, 32] of float32 bits int32 under scales int32 [BG, 1]; the largest (of e4m3 NaN) under 255."""
    MANTISSA: tl.constexpr = 3 if ELEMENT == "e4m3" else 1
    BIAS: tl.constexpr = 7 if ELEMENT == "e4m3" else 1
    LARGEST: tl.constexpr = 0x7E if ELEMENT == "e4m3" else 7
    SIGN: tl.constexpr = 0x80 if ELEMENT == "e4m3" else 8
    SHIFT: tl.constexpr = 23 - MANTISSA
    inverse = tl.where(scale == 255, 0, (254 - scale) << 23).to(tl.float32, bitcast=True)
    value = (bits & 0x7FFFFFFF).to(tl.float32, bitcast=True) * inverse
    near = value.to(tl.int32, bitcast=True)
    normal = ((near + ((1 << (SHIFT - 1)) - 1) + ((near >> SHIFT) & 1)) >> SHIFT) - ((127 - BIAS) << MANTISSA)
    # Below the smallest normal element all lie one step apart, and 2^23 leaves no room for less than a step.
    steps = value * (1 << (MANTISSA + BIAS - 1)) + 8388608.0
    subnormal = steps.to(tl.int32, bitcast=True) - 0x4B000000
    code = tl.where(near < ((128 - BIAS) << 23), subnormal, tl.where(normal > LARGEST, LARGEST, normal))
    code = tl.where(scale == 255, LARGEST | 1, code)
    return tl.where(bits < 0, code | SIGN, code).to(tl.uint8)


@triton.jit
def quantize_kernel(
    x_ptr,  # [blocks, 32]; bfloat16 as int16
    codes_ptr,  # uint8 [blocks, 32] of e4m3, [blocks, 16] of e2m1: element 2j low, 2j + 1 high
    scales_ptr,  # uint8 [blocks]
    n_blocks,
    ELEMENT: tl.constexpr,
    BG: tl.constexpr,
):
    """Grid: (ceil(n_blocks / BG),)."""
    block = tl.program_id(0).to(tl.int64) * BG + tl.arange(0, BG)
    inside = block < n_blocks
    x = tl.load(x_ptr + block[:, None] * 32 + tl.arange(0, 32)[None, :], mask=inside[:, None], other=0)
    bits = x.to(tl.int32) << 16 if x.dtype == tl.int16 else x.to(tl.float32).to(tl.int32, bitcast=True)
    scale = shared_scale(bits & 0x7FFFFFFF, ELEMENT)
    codes = nearest_code(bits, scale[:, None], ELEMENT)
    tl.store(scales_ptr + block, scale.to(tl.uint8), mask=inside)
    if ELEMENT == "e2m1":
        low, high = tl.split(tl.reshape(codes, [BG, 16, 2]))
        at = block[:, None] * 16 + tl.arange(0, 16)[None, :]
        tl.store(codes_ptr + at, low | (high << 4), mask=inside[:, None])
    else:
        at = block[:, None] * 32 + tl.arange(0, 32)[None, :]
        tl.store(codes_ptr + at, codes, mask=inside[:, None])
