"""One skeleton for matrices times one token each: gate and up with SwiGLU, or one matrix with its bias. No dots.

Every pair reads its expert's weights by itself. All arithmetic is float32.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .epilogue import finish
from .tile import rows_of, weight_tile


@triton.jit
def gemv_kernel(
    x_ptr,  # [n_pairs / PAIRS_PER_ROW, K]
    experts_ptr,  # int32 [n_pairs]
    a_ptr,  # the parts of the matrices [E, N, K]; of gate, if GATED
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
    BN: tl.constexpr,
    BK: tl.constexpr,
    LOADS: tl.constexpr,  # K-steps whose loads are under way together
):
    """Grid: (n_pairs · ceil(N / BN),)."""
    n_blocks = tl.cdiv(N, BN)
    pair, begin = tl.program_id(0) // n_blocks, tl.program_id(0) % n_blocks * BN
    expert, n = tl.load(experts_ptr + pair), begin + tl.arange(0, BN)
    inside = n < N
    x_row = x_ptr + (pair // PAIRS_PER_ROW).to(tl.int64) * K
    a_rows = rows_of(a_ptr, expert, begin, matrix_a, row_a, BN)
    b_rows = rows_of(b_ptr, expert, begin, matrix_b, row_b, BN)
    up_a_rows = rows_of(up_a_ptr, expert, begin, matrix_a, row_a, BN)
    up_b_rows = rows_of(up_b_ptr, expert, begin, matrix_b, row_b, BN)
    sums, up_sums = tl.zeros([BN, BK], tl.float32), tl.zeros([BN, BK], tl.float32)
    for step in tl.range(0, tl.cdiv(K, BK), num_stages=LOADS):
        k = step * BK + tl.arange(0, BK)
        x = tl.load(x_row + k, mask=k < K, other=0).to(tl.float32)[None, :]
        sums += x * weight_tile(a_rows, b_rows, inside, step, K, ENCODING, COL_A, COL_B, BK)
        if GATED:
            up_sums += x * weight_tile(up_a_rows, up_b_rows, inside, step, K, ENCODING, COL_A, COL_B, BK)
    at = pair.to(tl.int64) * N + n
    total = tl.sum(sums, axis=1) + tl.load(bias_ptr + expert * N + n, mask=inside, other=0)
    up = tl.sum(up_sums, axis=1) + tl.load(up_bias_ptr + expert * N + n, mask=inside, other=0)
    finish(total, up, at, inside, out_ptr, gate_ptr, up_ptr, limit, alpha, GATED, STAGES)
