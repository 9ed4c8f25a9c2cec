"""MXFP4 to float32 on the device, from the bytes as they are stored: Hugging Face's planes and ggml's blocks.

Every value is exact: e2m1 codes are moved into the bits of a float16 and scaled by a power of two.

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
def e8m0_to_f32(scale):
    """Scale bytes to 2^(scale - 127) in float32; 0 is subnormal, 255 is NaN."""
    wide = scale.to(tl.int32)
    bits = tl.where(wide == 0, 0x00400000, tl.where(wide == 255, 0x7FC00000, wide << 23))
    return bits.to(tl.float32, bitcast=True)


@triton.jit
def decode_planes_kernel(
    blocks_ptr,  # uint8 [n_blocks, 16], byte j = element 2j | element 2j + 1 << 4
    scales_ptr,  # uint8 [n_blocks]
    out_ptr,  # float32 [n_blocks, 32]
    n_blocks,
    TILE: tl.constexpr,
):
    """Grid: (ceil(n_blocks / TILE),). Each program decodes TILE blocks."""
    block = tl.program_id(0).to(tl.int64) * TILE + tl.arange(0, TILE)
    byte = tl.arange(0, 16)
    inside = (block < n_blocks)[:, None]
    scale = e8m0_to_f32(tl.load(scales_ptr + block, mask=block < n_blocks, other=0))[:, None]
    packed = tl.load(blocks_ptr + block[:, None] * 16 + byte[None, :], mask=inside, other=0)
    out = out_ptr + block[:, None] * 32 + 2 * byte[None, :]
    tl.store(out, e2m1_to_f32(packed & 15) * scale, mask=inside)
    tl.store(out + 1, e2m1_to_f32(packed >> 4) * scale, mask=inside)


@triton.jit
def decode_ggml_kernel(
    data_ptr,  # uint8 [n_blocks, 17], the scale, then byte j = element j | element j + 16 << 4
    out_ptr,  # float32 [n_blocks, 32]
    n_blocks,
    TILE: tl.constexpr,
):
    """Grid: (ceil(n_blocks / TILE),). Each program decodes TILE blocks."""
    block = tl.program_id(0).to(tl.int64) * TILE + tl.arange(0, TILE)
    byte = tl.arange(0, 16)
    inside = (block < n_blocks)[:, None]
    scale = e8m0_to_f32(tl.load(data_ptr + block * 17, mask=block < n_blocks, other=0))[:, None]
    packed = tl.load(data_ptr + block[:, None] * 17 + 1 + byte[None, :], mask=inside, other=0)
    out = out_ptr + block[:, None] * 32 + byte[None, :]
    tl.store(out, e2m1_to_f32(packed & 15) * scale, mask=inside)
    tl.store(out + 16, e2m1_to_f32(packed >> 4) * scale, mask=inside)
