"""Launches the decode kernel."""

from __future__ import annotations

import torch
import triton

from .launch import operands
from .tile import decode_kernel
from .tiles import DECODE_TILE
from .weights import Matrices


def decode(stored: Matrices, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """The values [E, N, K], exact in float32, rounded to nearest in another `dtype`."""
    n_experts, n_rows, cols = stored.shape
    out = torch.empty(stored.shape, dtype=dtype, device=stored.parts[0].device)
    if not out.numel():
        return out
    rows, width = DECODE_TILE if out.is_cuda else (256, 512)
    a, b = operands(stored)
    decode_kernel[(triton.cdiv(cols, width), triton.cdiv(n_rows, rows), n_experts)](
        a.first,
        b.first,
        out,
        a.expert_stride,
        b.expert_stride,
        a.row_stride,
        b.row_stride,
        n_rows,
        cols,
        ENCODING=stored.encoding,
        COL_A=a.col_stride,
        COL_B=b.col_stride,
        BN=rows,
        BK=width,
        num_warps=8,
    )
    return out
