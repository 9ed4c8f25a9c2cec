"""One skeleton for matrices times tokens in tiles: gate and up with SwiGLU, or one matrix with its bias.

Rows are *pairs*, each of a token and one of its experts. The weights are the dot's left operand: few tokens still fill
an instruction that wants 64 rows on its left. Sums are float32.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .epilogue import finish
from .mxfp4 import e2m1_to_e4m3, mxfp4_packed
from .tile import plain_tile, rows_of, weight_tile


@triton.jit
def width_of(K, DOT: tl.constexpr):
    """Elements of x that a row of K takes: bytes of mxfp4 hold two."""
    return K // 2 if DOT == "mxfp4" else K


@triton.jit
def x_tile(rows, scale_rows, live, step, K, DOT: tl.constexpr, BK: tl.constexpr):
    """x [BK, BM] and, of what is quantized, scales uint8 [BM, BK / 32]; 0 for what is not there."""
    SIZE: tl.constexpr = BK // 2 if DOT == "mxfp4" else BK
    k = step * SIZE + tl.arange(0, SIZE)
    x = tl.load(rows[None, :] + k[:, None], mask=live[None, :] & (k < width_of(K, DOT))[:, None], other=0)
    if DOT == "mxfp8" or DOT == "mxfp8_wide" or DOT == "mxfp4":
        group = tl.arange(0, BK // 32) + step * (BK // 32)
        some = live[:, None] & (group < K // 32)[None, :]
        scale = tl.load(scale_rows[:, None] + group[None, :], mask=some, other=0)
    else:
        scale = x
    return x, scale


@triton.jit
def multiply(
    acc,  # float32 [BN, BM]
    x,  # [BK, BM], in mxfp4 [BK / 2, BM]
    x_scale,  # uint8 [BM, BK / 32]; unused where x is not quantized
    a_rows,
    b_rows,
    inside,
    step,
    K,
    ENCODING: tl.constexpr,
    COL_A: tl.constexpr,
    COL_B: tl.constexpr,
    DOT: tl.constexpr,
    BK: tl.constexpr,
):
    """acc + weights [BN, BK] · x, in the precision `DOT`."""
    if DOT == "mxfp8" or DOT == "mxfp8_wide" or DOT == "mxfp4":
        tl.static_assert(ENCODING == "MXFP4")
        packed, scale = mxfp4_packed(a_rows, b_rows, inside, step, K, COL_A, COL_B, BK)
        if DOT == "mxfp4":
            acc = tl.dot_scaled(packed, scale, "e2m1", x, x_scale, "e2m1", acc)
        elif DOT == "mxfp8":
            acc = tl.dot_scaled(packed, scale, "e2m1", x, x_scale, "e4m3", acc)
        else:
            wide = tl.interleave(e2m1_to_e4m3(packed & 15), e2m1_to_e4m3(packed >> 4))
            acc = tl.dot_scaled(wide, scale, "e4m3", x, x_scale, "e4m3", acc)
    elif DOT == "scaled":
        tl.static_assert(ENCODING == "MXFP4")
        packed, scale = mxfp4_packed(a_rows, b_rows, inside, step, K, COL_A, COL_B, BK)
        acc = tl.dot_scaled(packed, scale, "e2m1", x.to(tl.bfloat16), None, "bf16", acc)
    elif DOT == "bf16" and ENCODING == "BF16":
        w = plain_tile(a_rows, inside, step, K, COL_A, BK).to(tl.bfloat16, bitcast=True)
        acc = tl.dot(w, x.to(tl.bfloat16), acc)
    else:
        w = weight_tile(a_rows, b_rows, inside, step, K, ENCODING, COL_A, COL_B, BK)
        if DOT == "bf16":
            acc = tl.dot(w.to(tl.bfloat16), x.to(tl.bfloat16), acc)
        elif DOT == "f16":
            acc = tl.dot(w.to(tl.float16), x.to(tl.float16), acc)
        else:
            tl.static_assert(DOT == "f32")
            acc = tl.dot(w, x.to(tl.float32), acc, input_precision="ieee")
    return acc


@triton.jit
def gemm_kernel(
    x_ptr,  # [n_pairs / PAIRS_PER_ROW, K], in mxfp4 K / 2
    x_scales_ptr,  # uint8 [n_pairs / PAIRS_PER_ROW, K / 32] of what is quantized
    pairs_ptr,  # int32 [tiles, BM], n_pairs where there is none
    experts_ptr,  # int32 [tiles], -1 for a tile without pairs
    a_ptr,  # the parts of the matrix; of gate, if GATED
    b_ptr,
    up_a_ptr,  # the parts of up, if GATED; their strides are those of gate
    up_b_ptr,
    bias_ptr,  # float32 [E, N]
    up_bias_ptr,
    out_ptr,  # [n_pairs, N]
    gate_ptr,  # float32 [n_pairs, N], what SwiGLU is taken of; written if STAGES
    up_ptr,
    matrix_a,
    matrix_b,
    row_a,
    row_b,
    n_pairs,
    N,
    K,
    limit,
    alpha,
    ENCODING: tl.constexpr,
    COL_A: tl.constexpr,
    COL_B: tl.constexpr,
    PAIRS_PER_ROW: tl.constexpr,
    GATED: tl.constexpr,
    STAGES: tl.constexpr,
    DOT: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
):
    """Grid: (tiles · ceil(N / BN),)."""
    n_blocks = tl.cdiv(N, BN)
    tile, begin = tl.program_id(0) // n_blocks, tl.program_id(0) % n_blocks * BN
    expert = tl.load(experts_ptr + tile)
    if expert < 0:
        return
    pair, n = tl.load(pairs_ptr + tile * BM + tl.arange(0, BM)), begin + tl.arange(0, BN)
    live, inside = pair < n_pairs, n < N
    row = (pair // PAIRS_PER_ROW).to(tl.int64)
    x_rows, scale_rows = x_ptr + row * width_of(K, DOT), x_scales_ptr + row * (K // 32)
    a_rows = rows_of(a_ptr, expert, begin, matrix_a, row_a, BN)
    b_rows = rows_of(b_ptr, expert, begin, matrix_b, row_b, BN)
    up_a_rows = rows_of(up_a_ptr, expert, begin, matrix_a, row_a, BN)
    up_b_rows = rows_of(up_b_ptr, expert, begin, matrix_b, row_b, BN)
    acc, up = tl.zeros([BN, BM], tl.float32), tl.zeros([BN, BM], tl.float32)
    for step in range(tl.cdiv(K, BK)):
        x, x_scale = x_tile(x_rows, scale_rows, live, step, K, DOT, BK)
        acc = multiply(acc, x, x_scale, a_rows, b_rows, inside, step, K, ENCODING, COL_A, COL_B, DOT, BK)
        if GATED:
            up = multiply(up, x, x_scale, up_a_rows, up_b_rows, inside, step, K, ENCODING, COL_A, COL_B, DOT, BK)
    at, some = (pair.to(tl.int64) * N)[None, :] + n[:, None], inside[:, None] & live[None, :]
    acc += tl.load(bias_ptr + expert * N + n, mask=inside, other=0)[:, None]
    up += tl.load(up_bias_ptr + expert * N + n, mask=inside, other=0)[:, None]
    finish(acc, up, at, some, out_ptr, gate_ptr, up_ptr, limit, alpha, GATED, STAGES)
