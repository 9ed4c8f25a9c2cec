"""What the routing kernels make of logits, compared with float64, and of pairs, compared with what tiles must hold."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import moe_reference
import numpy as np
import torch
from numpy.typing import NDArray
from stored_matrices import tensor

from gptoss_convert.kernels.launch import sort_pairs
from gptoss_convert.kernels.moe import route

Array = NDArray[Any]


def figures(device: str) -> Iterator[tuple[str, Any]]:
    rng = np.random.default_rng(0)
    for n_tokens, n_experts, top_k in ((65, 32, 4), (33, 128, 4), (5, 5, 3), (3, 4, 4), (2, 1, 1)):
        logits = (2 * rng.standard_normal((n_tokens, n_experts))).astype(np.float32)
        yield f"{n_tokens} tokens, {top_k} of {n_experts}", compared(logits, top_k, device)
    few = rng.integers(-2, 3, (64, 32)).astype(np.float32)
    yield "equal logits", compared(few, 4, device)
    zeros = np.where(rng.random((16, 8)) < 0.5, -0.0, 0.0).astype(np.float32)
    yield "zeros of both signs", compared(zeros, 4, device)
    extreme = rng.choice(np.array([-np.inf, -3e38, -1e-45, 1e-45, 1.0], np.float32), (16, 8))
    extreme[:, 3] = 2.0
    yield "infinite, huge and tiny logits", compared(extreme, 4, device)
    yield "NaN", not_a_number(device)
    for n_pairs, n_experts, size in ((28, 5, 16), (3000, 7, 16), (40, 3, 32), (1, 128, 16)):
        experts = rng.integers(0, n_experts, (n_pairs, 1)).astype(np.int32)
        experts[experts == 2] = 0  # an expert without pairs
        yield (
            f"{n_pairs} pairs of {n_experts} experts in tiles of {size}",
            wrong_tiles(experts, n_experts, size, device),
        )


def compared(logits: Array, top_k: int, device: str) -> dict[str, float]:
    """How many experts are others, and the largest relative error of a weight."""
    experts, weights = (part.cpu().numpy() for part in route(tensor(logits, device), top_k))
    right, shares = moe_reference.choose(logits, top_k)
    return {
        "others": int((experts != right).sum()),
        "error": float(np.max(np.abs(weights - shares) / np.maximum(shares, 1e-30))),
    }


def not_a_number(device: str) -> list[bool]:
    """The NaN's expert comes first, its token's weights are NaN, other tokens' are not, and all experts exist."""
    logits = np.zeros((3, 5), np.float32)
    logits[1, 3] = np.nan
    logits[2] = -np.array(np.nan, np.float32)
    experts, weights = (part.cpu() for part in route(tensor(logits, device), 2))
    nan = torch.isnan(weights)
    return [
        experts[1, 0].item() == 3,
        bool(nan[1:].all()),
        not bool(nan[0].any()),
        bool(((experts >= 0) & (experts < 5)).all()),
    ]


def wrong_tiles(experts: Array, n_experts: int, size: int, device: str) -> int:
    """How many entries of the tiles are other than those that are filled one after another."""
    found = sort_pairs(tensor(experts, device), n_experts, size)
    assert found.tiles is not None
    assert found.tile_experts is not None
    tiles, owners = found.tiles.cpu().numpy(), found.tile_experts.cpu().numpy()
    right_tiles, right_owners = np.full_like(tiles, experts.size), np.full_like(owners, -1)
    at = 0
    for expert in range(n_experts):
        pairs = np.flatnonzero(experts.ravel() == expert)
        for begin in range(0, len(pairs), size):
            some = pairs[begin : begin + size]
            right_tiles[at, : len(some)], right_owners[at] = some, expert
            at += 1
    return int((tiles != right_tiles).sum() + (owners != right_owners).sum())
