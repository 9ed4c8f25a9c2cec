"""Launches the matrix kernels on pairs of a token and an expert."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton

from .activations import Activations
from .gemm import gemm_kernel
from .gemv import gemv_kernel
from .routing import count_kernel, group_kernel
from .tiles import SORT_CHUNK, Tiles
from .weights import Matrices


@dataclass(frozen=True)
class Operand:
    """One part of stored matrices: a tensor that begins at row 0 of matrix 0, and its strides."""

    first: torch.Tensor
    expert_stride: int
    row_stride: int
    col_stride: int


@dataclass(frozen=True)
class Pairs:
    """Which expert each pair goes to.

    Args:
        experts: int32 [n_pairs].
        tiles: int32 [n_tiles, BM], the pairs of each tile and n_pairs where there is none; None for the GEMV.
        tile_experts: int32 [n_tiles], -1 for a tile without pairs; None for the GEMV.
        per_row: how many pairs, one after another, share a row of x.
    """

    experts: torch.Tensor
    tiles: torch.Tensor | None
    tile_experts: torch.Tensor | None
    per_row: int


@dataclass(frozen=True)
class Gating:
    """What makes a product gate and up with SwiGLU: up, and where the two sums go if anyone asks for them."""

    up: Matrices
    up_bias: torch.Tensor
    limit: float
    alpha: float
    sums: tuple[torch.Tensor, torch.Tensor] | None


def operands(stored: Matrices) -> tuple[Operand, Operand]:
    """The two parts; the first again where there is no second."""
    found = []
    for index, part in enumerate(stored.parts):
        first = part.as_strided((1,), (1,), part.storage_offset() + stored.offsets[index])
        if first.dtype == torch.bfloat16:
            first = first.view(torch.int16)
        strides = stored.expert_strides[index], stored.row_strides[index], stored.col_strides[index]
        found.append(Operand(first, *strides))
    return found[0], found[-1]


def sort_pairs(experts: torch.Tensor, n_experts: int, BM: int) -> Pairs:
    """Pairs of `experts` int32 [T, top_k] in tiles of one expert each, the order within an expert kept."""
    flat = experts.flatten()
    per_row = experts.shape[1]
    if BM == 1:
        return Pairs(flat, None, None, per_row)
    n_pairs, device = flat.numel(), flat.device
    n_tiles = (n_pairs + min(n_experts, n_pairs) * (BM - 1)) // BM
    tiles = torch.full((n_tiles, BM), n_pairs, dtype=torch.int32, device=device)
    tile_experts = torch.full((n_tiles,), -1, dtype=torch.int32, device=device)
    counts = torch.empty(n_experts, dtype=torch.int32, device=device)
    count_kernel[(n_experts,)](flat, counts, n_pairs, CHUNK=SORT_CHUNK)
    wide = triton.next_power_of_2(n_experts)
    group_kernel[(n_experts,)](flat, counts, tiles, tile_experts, n_pairs, n_experts, BM=BM, BE=wide, CHUNK=SORT_CHUNK)
    return Pairs(flat, tiles, tile_experts, per_row)


def one_matrix(n_rows: int, device: torch.device, BM: int) -> Pairs:
    """Every row of x times the one matrix there is."""
    experts = torch.zeros(n_rows, dtype=torch.int32, device=device)
    n_tiles = triton.cdiv(n_rows, BM)
    tiles = torch.arange(n_tiles * BM, dtype=torch.int32, device=device).view(n_tiles, BM)
    return Pairs(experts, tiles, experts[:n_tiles], 1)


def multiply(
    x: Activations,
    pairs: Pairs,
    stored: Matrices,
    bias: torch.Tensor,
    out: torch.Tensor,
    *,
    tiles: Tiles,
    dot: str,
    gating: Gating | None = None,
) -> None:
    """Writes `stored` · x + bias of every pair to `out` [n_pairs, N], or SwiGLU of that as gate."""
    assert dot != "scaled" or stored.encoding == "MXFP4"
    _, n_rows, cols = stored.shape
    n_pairs = pairs.experts.numel()
    a, b = operands(stored)
    up_a, up_b = operands(gating.up) if gating else (a, b)
    gate_sums, up_sums = gating.sums if gating and gating.sums else (out, out)
    BN = tiles.BN if gating else 2 * tiles.BN
    sizes = (n_rows, cols, gating.limit if gating else 0.0, gating.alpha if gating else 0.0)
    parts, biases = (a.first, b.first, up_a.first, up_b.first), (bias, gating.up_bias if gating else bias)
    tensors = (*parts, *biases, out, gate_sums, up_sums)
    strides = (a.expert_stride, b.expert_stride, a.row_stride, b.row_stride)
    constants = {
        "ENCODING": stored.encoding,
        "COL_A": a.col_stride,
        "COL_B": b.col_stride,
        "PAIRS_PER_ROW": pairs.per_row,
        "GATED": gating is not None,
        "STAGES": gating is not None and gating.sums is not None,
        "BN": BN,
        "BK": tiles.BK,
        "num_warps": tiles.warps,
    }
    n_blocks = triton.cdiv(n_rows, BN)
    if tiles.BM == 1:
        gemv_kernel[(n_pairs * n_blocks,)](
            x.values, pairs.experts, *tensors, *strides, *sizes, **constants, LOADS=tiles.stages
        )
        return
    assert pairs.tiles is not None
    assert pairs.tile_experts is not None
    gemm_kernel[(len(pairs.tiles) * n_blocks,)](
        x.values,
        x.scales,
        pairs.tiles,
        pairs.tile_experts,
        *tensors,
        *strides,
        n_pairs,
        *sizes,
        **constants,
        DOT=dot,
        BM=tiles.BM,
        num_stages=tiles.stages,
    )
