"""ggml's blocks to float32 on the device, byte for byte as they lie in a GGUF file.

Every function gives 32 elements of each of [BN, G] blocks, float32 [BN, G, 32]:

    block   pointers [BN, G, 1] to the blocks' first bytes
    i       0 … 31, int32 [1, 1, 32]
    inside  bool [BN, G, 1]; what is outside is 0
    group   of 256-element blocks, which 32 of them: 0 … 7, int32 [1, G, 1]

Blocks begin at any byte, so only bytes are loaded. Every product is exact and only the last addition rounds, whether
fused or not: the values are ggml's own, bit for bit. `formats/codecs/ggml_blocks.py` draws the blocks.

Source: ggml `block_*` in ggml-common.h, `dequantize_row_*` in ggml-quants.c.
"""

from __future__ import annotations

import triton
import triton.language as tl

from ..formats.codecs.ggml_blocks import IQ4_NL_LEVELS
from .mxfp4 import e2m1_to_f32, e8m0_to_f32

# Eight levels plus 128 a number, the first in its lowest byte.
_LOW_LEVELS = tl.constexpr(sum(level + 128 << 8 * i for i, level in enumerate(IQ4_NL_LEVELS[:8])))
_HIGH_LEVELS = tl.constexpr(sum(level + 128 << 8 * i for i, level in enumerate(IQ4_NL_LEVELS[8:])))


@triton.jit
def byte_at(pointer, inside):
    """int32 of a byte."""
    return tl.load(pointer, mask=inside, other=0).to(tl.int32)


@triton.jit
def half_at(pointer, inside):
    """float32 of the F16 number in two bytes, the low one first."""
    bits = byte_at(pointer, inside) | (byte_at(pointer + 1, inside) << 8)
    return bits.to(tl.uint16).to(tl.float16, bitcast=True).to(tl.float32)


@triton.jit
def signed(byte):
    """The number of -128 … 127 that a byte 0 … 255 stands for."""
    return byte - ((byte & 128) << 1)


# --- blocks of 32 ------------------------------------------------------------------------------------------------


@triton.jit
def nibble_at(nibbles, i, inside):
    """Code i of 16 bytes: byte j holds codes j (low) and j + 16 (high)."""
    return (byte_at(nibbles + i % 16, inside) >> (i // 16 * 4)) & 15


@triton.jit
def fifth_bit_at(high, i, inside):
    """16 where bit i of 32 bits is set, else 0."""
    return ((byte_at(high + i // 8, inside) >> (i % 8)) & 1) << 4


@triton.jit
def ggml_mxfp4(block, i, inside):
    return e2m1_to_f32(nibble_at(block + 1, i, inside)) * e8m0_to_f32(byte_at(block, inside))


@triton.jit
def q8_0(block, i, inside):
    return signed(byte_at(block + 2 + i, inside)).to(tl.float32) * half_at(block, inside)


@triton.jit
def q4_0(block, i, inside):
    return (nibble_at(block + 2, i, inside) - 8).to(tl.float32) * half_at(block, inside)


@triton.jit
def q4_1(block, i, inside):
    return nibble_at(block + 4, i, inside).to(tl.float32) * half_at(block, inside) + half_at(block + 2, inside)


@triton.jit
def q5_0(block, i, inside):
    code = nibble_at(block + 6, i, inside) | fifth_bit_at(block + 2, i, inside)
    return (code - 16).to(tl.float32) * half_at(block, inside)


@triton.jit
def q5_1(block, i, inside):
    code = nibble_at(block + 8, i, inside) | fifth_bit_at(block + 4, i, inside)
    return code.to(tl.float32) * half_at(block, inside) + half_at(block + 2, inside)


@triton.jit
def iq4_nl(block, i, inside):
    code = nibble_at(block + 2, i, inside)
    low, high = tl.full([1, 1, 1], _LOW_LEVELS, tl.uint64), tl.full([1, 1, 1], _HIGH_LEVELS, tl.uint64)
    levels = tl.where(code < 8, low, high) >> ((code & 7) * 8).to(tl.uint64)
    return ((levels & 255).to(tl.int32) - 128).to(tl.float32) * half_at(block, inside)


# --- blocks of 256 -----------------------------------------------------------------------------------------------


@triton.jit
def scale_and_minimum(factors, group, inside):
    """The 6-bit scale and the 6-bit minimum of a group of Q4_K and Q5_K, int32 [BN, G, 1] each."""
    k = group % 4
    first, second = byte_at(factors + k, inside), byte_at(factors + 4 + k, inside)
    third = byte_at(factors + 8 + k, inside)
    is_low = group < 4
    scale = tl.where(is_low, first & 63, (third & 15) | (first >> 6 << 4))
    minimum = tl.where(is_low, second & 63, (third >> 4) | (second >> 6 << 4))
    return scale, minimum


@triton.jit
def affine_values(block, code, group, inside):
    """What codes of Q4_K and Q5_K stand for."""
    scale, minimum = scale_and_minimum(block + 4, group, inside)
    product = code.to(tl.float32) * (half_at(block, inside) * scale.to(tl.float32))
    return product - half_at(block + 2, inside) * minimum.to(tl.float32)


@triton.jit
def q4_k(block, i, group, inside):
    code = (byte_at(block + 16 + group // 2 * 32 + i, inside) >> (group % 2 * 4)) & 15
    return affine_values(block, code, group, inside)


@triton.jit
def q5_k(block, i, group, inside):
    code = (byte_at(block + 48 + group // 2 * 32 + i, inside) >> (group % 2 * 4)) & 15
    fifth = (byte_at(block + 16 + i, inside) >> group) & 1
    return affine_values(block, code | (fifth << 4), group, inside)


@triton.jit
def q6_k(block, i, group, inside):
    half, quarter = group // 4, group % 4
    low = (byte_at(block + half * 64 + quarter % 2 * 32 + i, inside) >> (quarter // 2 * 4)) & 15
    high = (byte_at(block + 128 + half * 32 + i, inside) >> (quarter * 2)) & 3
    scale = signed(byte_at(block + 192 + group * 2 + i // 16, inside)).to(tl.float32)
    return ((low | (high << 4)) - 32).to(tl.float32) * (half_at(block + 208, inside) * scale)
