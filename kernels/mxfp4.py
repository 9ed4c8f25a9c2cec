"""MXFP4 to float32 on the device, from planes of blocks and scales. Every value is exact.

An e2m1 code is moved into the bits of a float16 and multiplied by a power of two.

Source: OCP Microscaling Formats (MX) Specification v1.0, sections 5.3.3 (E2M1) and 5.4.1 (E8M0).
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def e2m1_to_f32(code):
    """Codes 0 … 15 to float32. The code's exponent and mantissa become those of a float16, 2^14 too small."""
    code = code.to(tl.uint16)
    bits = ((code & 8) << 12) | ((code & 7) << 9)
    return bits.to(tl.float16, bitcast=True).to(tl.float32) * 16384.0


@triton.jit
def e2m1_to_e4m3(code):
    """Codes 0 … 15, uint8, to bytes of e4m3, exactly. From 1 on the bits are moved; 0.5 is subnormal in e2m1 alone."""
    magnitude = code & 7
    wide = tl.where(magnitude > 1, (magnitude << 2) + 0x30, magnitude * 0x30)
    return (wide | ((code & 8) << 4)).to(tl.uint8)


@triton.jit
def e8m0_to_f32(scale):
    """Scale bytes to 2^(scale - 127) in float32; 0 is subnormal, 255 is NaN."""
    wide = scale.to(tl.int32)
    bits = tl.where(wide == 0, 0x00400000, tl.where(wide == 255, 0x7FC00000, wide << 23))
    return bits.to(tl.float32, bitcast=True)


@triton.jit
def place(k, SIZE: tl.constexpr, COL: tl.constexpr):
    """Where element k lies in a row of blocks of SIZE elements, COL apart. Without a division where they touch, which
    would hide from the compiler that elements are consecutive."""
    return k if COL == SIZE else k // SIZE * COL + k % SIZE


@triton.jit
def mxfp4_packed(
    blocks_rows,  # pointers [BN] to rows of uint8, byte j of a block = element 2j | element 2j + 1 << 4
    scales_rows,  # pointers [BN] to rows of uint8
    inside,  # bool [BN]: the row exists
    step,  # the tile begins at element step · BK
    K,
    BLOCKS_COL: tl.constexpr,
    SCALES_COL: tl.constexpr,
    BK: tl.constexpr,
):
    """Bytes uint8 [BN, BK / 2] and scales uint8 [BN, BK / 32] as they are stored; 0 outside the matrix."""
    byte, group = tl.arange(0, BK // 2) + step * (BK // 2), tl.arange(0, BK // 32) + step * (BK // 32)
    inside_bytes = inside[:, None] & (byte < K // 32 * 16)[None, :]
    packed = tl.load(blocks_rows[:, None] + place(byte, 16, BLOCKS_COL)[None, :], mask=inside_bytes, other=0)
    inside_groups = inside[:, None] & (group < K // 32)[None, :]
    scale = tl.load(scales_rows[:, None] + (group * SCALES_COL)[None, :], mask=inside_groups, other=0)
    return packed, scale


@triton.jit
def spread(factors, BK: tl.constexpr):
    """[BN, BK / 32] to [BN, BK]: each of the 32 elements of a block gets its block's."""
    BN: tl.constexpr = factors.shape[0]
    return tl.reshape(tl.broadcast_to(factors[:, :, None], [BN, BK // 32, 32]), [BN, BK])


@triton.jit
def mxfp4_values(packed, scale, BK: tl.constexpr):
    """float32 [BN, BK] of what `mxfp4_packed` loaded."""
    return tl.interleave(e2m1_to_f32(packed & 15), e2m1_to_f32(packed >> 4)) * spread(e8m0_to_f32(scale), BK)
