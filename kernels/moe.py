"""The MoE block of gpt-oss on weights as they are stored, and one matrix of any encoding times tokens."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton

from .activations import Activations, quantize
from .architectures import NATIVE
from .epilogue import swiglu_kernel
from .launch import Gating, Pairs, multiply, one_matrix, sort_pairs
from .native import check_native
from .routing import combine_kernel, route_kernel
from .tiles import COMBINE_BLOCK, ROUTE_TOKENS, SWIGLU_BLOCK, Tiles, target_of, tiles_for
from .weights import Matrices, MoeWeights

DOTS: dict[str, torch.dtype] = {
    "f32": torch.float32,
    "bf16": torch.bfloat16,
    "f16": torch.float16,
    "scaled": torch.bfloat16,
    **dict.fromkeys(NATIVE, torch.float32),
}
"""Precision of the products -> what activations are rounded to. Sums are always float32, and a GEMV's products too.

`scaled` is bf16 with MXFP4 planes decoded by the compiler (`tl.dot_scaled`), in hardware where there is any. Those of
NATIVE take MXFP4 planes as they are, and activations quantized before gate and up, and again before down.
"""


@dataclass(frozen=True)
class MoeStages:
    """Every intermediate result of T tokens with k experts each, I the inner width and H the hidden one.

    Args:
        experts: int32 [T, k].
        weights: float32 [T, k].
        gate, up: float32 [T, k, I], biases in, before the clamps.
        activated: float32 [T, k, I], as rounded for the products with down; where those quantize, before that.
        down: float32 [T, k, H], bias in, before the weights.
        out: float32 [T, H].
    """

    experts: torch.Tensor
    weights: torch.Tensor
    gate: torch.Tensor
    up: torch.Tensor
    activated: torch.Tensor
    down: torch.Tensor
    out: torch.Tensor


def route(logits: torch.Tensor, top_k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The experts int32 [T, top_k] of the largest logits and their softmax float32 [T, top_k].

    Of equal logits the lower expert comes first. NaN counts as the largest, and makes its token's weights NaN.

    Args:
        logits: float32 [T, E].
    """
    n_tokens, n_experts = logits.shape
    assert 0 < top_k <= n_experts
    assert logits.dtype == torch.float32
    experts = torch.empty((n_tokens, top_k), dtype=torch.int32, device=logits.device)
    weights = torch.empty((n_tokens, top_k), dtype=torch.float32, device=logits.device)
    if n_tokens:
        rows = ROUTE_TOKENS if logits.is_cuda else 64
        slots, wide = triton.next_power_of_2(top_k), triton.next_power_of_2(n_experts)
        sizes = {"TOP_K": top_k, "SLOTS": slots, "BT": rows, "BE": wide}
        grid = (triton.cdiv(n_tokens, rows),)
        route_kernel[grid](logits.contiguous(), experts, weights, n_tokens, n_experts, **sizes)
    return experts, weights


def moe(
    x: torch.Tensor,
    logits: torch.Tensor,
    weights: MoeWeights,
    *,
    top_k: int,
    limit: float,
    alpha: float = 1.702,
    dot: str = "f32",
    stages: bool = False,
    tiles: Tiles | None = None,
) -> torch.Tensor | MoeStages:
    """The block's output float32 [T, H]; with `stages`, every intermediate result.

    Args:
        x: float32, bfloat16 or float16 [T, H], after the norm.
        logits: float32 [T, E], the router's.
        limit: SwiGLU's clamp.
        dot: a key of DOTS; `scaled` and those of NATIVE need all weights in MXFP4 planes.
        tiles: instead of what the table says for the device.

    Raises:
        UsageError: `dot` is of NATIVE, and the weights are not for it, or the device has no such product.
    """
    check_native(dot, *target_of(x.device), weights.gate.encoding, weights.up.encoding, weights.down.encoding)
    n_tokens, hidden = x.shape
    n_experts, inner, cols = weights.gate.shape
    assert cols == hidden
    assert logits.shape == (n_tokens, n_experts)
    experts, shares = route(logits, top_k)
    tiles = tiles or _tiles(x, weights.gate, dot, top_k)
    rounded = torch.float32 if tiles.BM == 1 else DOTS[dot]
    n_pairs, f32 = n_tokens * top_k, torch.float32
    activated = torch.empty((n_pairs, inner), dtype=rounded, device=x.device)
    down = torch.empty((n_pairs, hidden), dtype=f32, device=x.device)
    sums = None
    if stages:
        gate, up = (torch.empty((n_pairs, inner), dtype=f32, device=x.device) for _ in range(2))
        sums = gate, up
    out = torch.empty((n_tokens, hidden), dtype=torch.float32, device=x.device)
    if n_tokens:
        pairs = sort_pairs(experts, n_experts, tiles.BM)
        gating = Gating(weights.up, weights.up_bias.contiguous(), limit, alpha, sums)
        _activate(_operand(x, dot, tiles), pairs, weights, gating, activated, tiles, dot)
        own_rows = Pairs(pairs.experts, pairs.tiles, pairs.tile_experts, 1)
        inner_rows = _operand(activated, dot, tiles)
        multiply(inner_rows, own_rows, weights.down, weights.down_bias.contiguous(), down, tiles=tiles, dot=dot)
        grid = (n_tokens * triton.cdiv(hidden, COMBINE_BLOCK),)
        combine_kernel[grid](down, shares, out, hidden, TOP_K=top_k, BLOCK=COMBINE_BLOCK)
    if sums is None:
        return out
    gate, up, active, down = (part.view(n_tokens, top_k, part.shape[1]) for part in (*sums, activated.float(), down))
    return MoeStages(experts, shares, gate, up, active, down, out)


def matmul(
    x: torch.Tensor,
    stored: Matrices,
    bias: torch.Tensor | None,
    *,
    dot: str = "f32",
    tiles: Tiles | None = None,
) -> torch.Tensor:
    """x · matrixᵀ + bias, float32 [T, N].

    Args:
        x: float32, bfloat16 or float16 [T, K].
        stored: one matrix [N, K].
        bias: float32 [N].
        dot, tiles: as for `moe`, and so is what is raised.
    """
    check_native(dot, *target_of(x.device), stored.encoding)
    n_experts, n_rows, cols = stored.shape
    assert n_experts == 1
    assert x.shape[1] == cols
    out = torch.empty((len(x), n_rows), dtype=torch.float32, device=x.device)
    if not len(x):
        return out
    tiles = tiles or _tiles(x, stored, dot, 1)
    if bias is None:
        bias = torch.zeros(n_rows, dtype=torch.float32, device=x.device)
    pairs = one_matrix(len(x), x.device, tiles.BM)
    multiply(_operand(x, dot, tiles), pairs, stored, bias.contiguous(), out, tiles=tiles, dot=dot)
    return out


def _tiles(x: torch.Tensor, stored: Matrices, dot: str, top_k: int) -> Tiles:
    backend, arch = target_of(x.device)
    return tiles_for(
        backend,
        arch,
        len(x),
        stored.encoding,
        dot=dot,
        top_k=top_k,
        n_experts=stored.shape[0],
        is_transposed=stored.is_transposed,
    )


def _operand(x: torch.Tensor, dot: str, tiles: Tiles) -> Activations:
    """x as the dots take it, rounded once and not in every program."""
    if dot in NATIVE and tiles.BM > 1:
        return quantize(x, NATIVE[dot])
    x = x.contiguous() if tiles.BM == 1 else x.to(DOTS[dot]).contiguous()
    return Activations(x, x)


def _activate(
    x: Activations,
    pairs: Pairs,
    weights: MoeWeights,
    gating: Gating,
    out: torch.Tensor,
    tiles: Tiles,
    dot: str,
) -> None:
    """SwiGLU of gate and up: in one pass where both are laid out alike, else one by one."""
    gate_bias = weights.gate_bias.contiguous()
    if weights.gate.is_laid_out_like(weights.up):
        multiply(x, pairs, weights.gate, gate_bias, out, tiles=tiles, dot=dot, gating=gating)
        return
    sums = gating.sums or (out.new_empty(out.shape, dtype=torch.float32), out.new_empty(out.shape, dtype=torch.float32))
    multiply(x, pairs, weights.gate, gate_bias, sums[0], tiles=tiles, dot=dot)
    multiply(x, pairs, weights.up, gating.up_bias, sums[1], tiles=tiles, dot=dot)
    n = out.numel()
    swiglu_kernel[(triton.cdiv(n, SWIGLU_BLOCK),)](*sums, out, n, gating.limit, gating.alpha, BLOCK=SWIGLU_BLOCK)
