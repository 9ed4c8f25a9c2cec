"""What follows the sums: the clamped SwiGLU of gpt-oss, and where results are written.

Clamps are comparisons, so that NaN stays NaN.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def swiglu(gate, up, limit, alpha):
    """(up + 1) · gate · sigmoid(alpha · gate), gate at most `limit` and up at most that far from 0."""
    gate = tl.where(gate > limit, limit, gate)
    up = tl.where(up > limit, limit, tl.where(up < -limit, -limit, up))
    return (up + 1.0) * gate * tl.sigmoid(alpha * gate)


@triton.jit
def finish(
    sums,
    up,
    at,
    inside,
    out_ptr,
    gate_ptr,
    up_ptr,
    limit,
    alpha,
    GATED: tl.constexpr,
    STAGES: tl.constexpr,
):
    """Writes `sums`, or SwiGLU of them and `up`, to elements `at` of the output."""
    if GATED:
        if STAGES:
            tl.store(gate_ptr + at, sums, mask=inside)
            tl.store(up_ptr + at, up, mask=inside)
        sums = swiglu(sums, up, limit, alpha)
    tl.store(out_ptr + at, sums, mask=inside)


@triton.jit
def swiglu_kernel(gate_ptr, up_ptr, out_ptr, n, limit, alpha, BLOCK: tl.constexpr):
    """Grid: (ceil(n / BLOCK),). For a gate and an up that are not stored alike."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    gate = tl.load(gate_ptr + at, mask=at < n, other=0)
    up = tl.load(up_ptr + at, mask=at < n, other=0)
    tl.store(out_ptr + at, swiglu(gate, up, limit, alpha), mask=at < n)
