"""Activations as products take them: floats, or quantized to MXFP8 or MXFP4."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton

from .quantize import quantize_kernel
from .tiles import QUANTIZE_BLOCKS

# What activations are quantized to -> the element, as `tl.dot_scaled` calls it.
ELEMENTS = {"MXFP8": "e4m3", "MXFP4": "e2m1"}


@dataclass(frozen=True)
class Activations:
    """Rows as a product takes them.

    Args:
        values: float [rows, K]; or codes, uint8 [rows, K] of MXFP8 and [rows, K / 2] of MXFP4.
        scales: uint8 [rows, K / 32]; `values` again where there are none.
    """

    values: torch.Tensor
    scales: torch.Tensor


def quantize(x: torch.Tensor, kind: str) -> Activations:
    """x in MXFP8 or MXFP4, by the rules in `quantize.py`.

    Args:
        x: float32, bfloat16 or float16 [rows, K], K a multiple of 32.
        kind: a key of ELEMENTS.
    """
    n_rows, cols = x.shape
    assert cols % 32 == 0
    width = cols if kind == "MXFP8" else cols // 2
    codes = torch.empty((n_rows, width), dtype=torch.uint8, device=x.device)
    scales = torch.empty((n_rows, cols // 32), dtype=torch.uint8, device=x.device)
    if scales.numel():
        x = x.contiguous()
        x = x.view(torch.int16) if x.dtype == torch.bfloat16 else x
        blocks = QUANTIZE_BLOCKS if x.is_cuda else 4096
        grid = (triton.cdiv(scales.numel(), blocks),)
        quantize_kernel[grid](x, codes, scales, scales.numel(), ELEMENT=ELEMENTS[kind], BG=blocks)
    return Activations(codes, scales)
