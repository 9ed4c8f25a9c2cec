"""Launches the decode kernels."""

from __future__ import annotations

import torch
import triton

from .mxfp4 import decode_ggml_kernel, decode_planes_kernel

# Blocks per program: 128 threads' worth of 16-byte rows.
_TILE = 128


def decode_planes(blocks: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    """The values of MXFP4 planes: float32 [N, 32·G], exact.

    Args:
        blocks: uint8 [N, G, 16], interleaved nibbles, contiguous.
        scales: uint8 [N, G], contiguous, on the same device.
    """
    n_rows, groups, _ = blocks.shape
    assert blocks.is_contiguous()
    assert scales.is_contiguous()
    assert scales.shape == (n_rows, groups)
    out = torch.empty((n_rows, groups * 32), dtype=torch.float32, device=blocks.device)
    n_blocks = n_rows * groups
    decode_planes_kernel[(triton.cdiv(n_blocks, _TILE),)](blocks, scales, out, n_blocks, TILE=_TILE)
    return out


def decode_ggml(data: torch.Tensor) -> torch.Tensor:
    """The values of ggml's 17-byte MXFP4 blocks: float32 [N, 32·G], exact.

    Args:
        data: uint8 [N, G, 17], contiguous.
    """
    n_rows, groups, _ = data.shape
    assert data.is_contiguous()
    out = torch.empty((n_rows, groups * 32), dtype=torch.float32, device=data.device)
    n_blocks = n_rows * groups
    decode_ggml_kernel[(triton.cdiv(n_blocks, _TILE),)](data, out, n_blocks, TILE=_TILE)
    return out
