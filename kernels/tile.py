"""A tile of a stored matrix, whatever its encoding: the kernels' only way to the weights.

What all functions here take:

    a_rows   pointers [BN] to rows of the matrix's first part, in elements of that part
    b_rows   the same of its second part; unused if there is none
    inside   bool [BN]: the row exists
    step     the tile begins at element step · BK of K, a multiple of 32
    COL_A    elements of the first part from one block (or float) to the next along K; COL_B of the second
"""

from __future__ import annotations

import triton
import triton.language as tl

from .ggml_blocks import ggml_mxfp4, iq4_nl, q4_0, q4_1, q4_k, q5_0, q5_1, q5_k, q6_k, q8_0
from .mxfp4 import mxfp4_packed, mxfp4_values, place, spread


@triton.jit
def plain_tile(rows, inside, step, K, COL: tl.constexpr, BK: tl.constexpr):
    """Elements [BN, BK] as they are stored; 0 outside the matrix."""
    k = tl.arange(0, BK) + step * BK
    return tl.load(rows[:, None] + (k * COL)[None, :], mask=inside[:, None] & (k < K)[None, :], other=0)


@triton.jit
def q8_0_planes_tile(codes_rows, d_rows, inside, step, K, COL_A: tl.constexpr, COL_B: tl.constexpr, BK: tl.constexpr):
    """float32 [BN, BK] of codes int8 and their blocks' d, float16."""
    k = tl.arange(0, BK) + step * BK
    some = inside[:, None] & (k < K)[None, :]
    codes = tl.load(codes_rows[:, None] + place(k, 32, COL_A)[None, :], mask=some, other=0).to(tl.float32)
    d = plain_tile(d_rows, inside, step, K // 32, COL_B, BK // 32)
    return codes * spread(d.to(tl.float32), BK)


@triton.jit
def block_tile(rows, inside, step, K, ENCODING: tl.constexpr, COL: tl.constexpr, BK: tl.constexpr):
    """float32 [BN, BK] of ggml's blocks."""
    group = tl.arange(0, BK // 32) + step * (BK // 32)
    some = (inside[:, None] & (group * 32 < K)[None, :])[:, :, None]
    i = tl.arange(0, 32)[None, None, :]
    if ENCODING == "Q4_K" or ENCODING == "Q5_K" or ENCODING == "Q6_K":
        block = (rows[:, None] + (group // 8 * COL)[None, :])[:, :, None]
        part = (group % 8)[None, :, None]
        if ENCODING == "Q4_K":
            values = q4_k(block, i, part, some)
        elif ENCODING == "Q5_K":
            values = q5_k(block, i, part, some)
        else:
            values = q6_k(block, i, part, some)
    else:
        block = (rows[:, None] + (group * COL)[None, :])[:, :, None]
        if ENCODING == "GGML_MXFP4":
            values = ggml_mxfp4(block, i, some)
        elif ENCODING == "Q8_0":
            values = q8_0(block, i, some)
        elif ENCODING == "Q4_0":
            values = q4_0(block, i, some)
        elif ENCODING == "Q4_1":
            values = q4_1(block, i, some)
        elif ENCODING == "Q5_0":
            values = q5_0(block, i, some)
        elif ENCODING == "Q5_1":
            values = q5_1(block, i, some)
        else:
            tl.static_assert(ENCODING == "IQ4_NL")
            values = iq4_nl(block, i, some)
    return tl.reshape(values, [values.shape[0], BK])


@triton.jit
def weight_tile(
    a_rows, b_rows, inside, step, K, ENCODING: tl.constexpr, COL_A: tl.constexpr, COL_B: tl.constexpr, BK: tl.constexpr
):
    """float32 [BN, BK], exact; 0 outside the matrix."""
    if ENCODING == "MXFP4":
        packed, scale = mxfp4_packed(a_rows, b_rows, inside, step, K, COL_A, COL_B, BK)
        values = mxfp4_values(packed, scale, BK)
    elif ENCODING == "BF16":
        # Stored as int16: the interpreter's own conversion of BF16 is wrong for subnormals.
        bits = plain_tile(a_rows, inside, step, K, COL_A, BK).to(tl.int32) << 16
        values = bits.to(tl.float32, bitcast=True)
    elif ENCODING == "F16" or ENCODING == "F32":
        values = plain_tile(a_rows, inside, step, K, COL_A, BK).to(tl.float32)
    elif ENCODING == "Q8_0_PLANES":
        values = q8_0_planes_tile(a_rows, b_rows, inside, step, K, COL_A, COL_B, BK)
    else:
        values = block_tile(a_rows, inside, step, K, ENCODING, COL_A, BK)
    return values


@triton.jit
def rows_of(part_ptr, matrix, begin, matrix_stride, row_stride, BN: tl.constexpr):
    """Pointers [BN] to rows `begin` … of a matrix; beyond 2^31 elements too."""
    start = matrix.to(tl.int64) * matrix_stride + begin.to(tl.int64) * row_stride
    return part_ptr + start + tl.arange(0, BN) * row_stride


@triton.jit
def decode_kernel(
    a_ptr,
    b_ptr,
    out_ptr,  # [E, N, K]
    matrix_a,  # elements of each part from one matrix to the next
    matrix_b,
    row_a,  # and from one row to the next
    row_b,
    N,
    K,
    ENCODING: tl.constexpr,
    COL_A: tl.constexpr,
    COL_B: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
):
    """Grid: (ceil(K / BK), ceil(N / BN), E)."""
    matrix, begin, step = tl.program_id(2), tl.program_id(1) * BN, tl.program_id(0)
    a_rows = rows_of(a_ptr, matrix, begin, matrix_a, row_a, BN)
    b_rows = rows_of(b_ptr, matrix, begin, matrix_b, row_b, BN)
    inside = begin + tl.arange(0, BN) < N
    values = weight_tile(a_rows, b_rows, inside, step, K, ENCODING, COL_A, COL_B, BK)
    k = tl.arange(0, BK) + step * BK
    out_rows = out_ptr + (matrix.to(tl.int64) * N + begin + tl.arange(0, BN)) * K
    tl.store(out_rows[:, None] + k[None, :], values, mask=inside[:, None] & (k < K)[None, :])
