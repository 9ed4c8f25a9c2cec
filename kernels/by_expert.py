"""The MoE block by torch.matmul on one decoded expert at a time: for GPUs whose tensor cores Triton does not use."""

from __future__ import annotations

import torch

from .decode import decode
from .moe import MoeStages, route
from .weights import Matrices, MoeWeights


def moe_by_expert(
    x: torch.Tensor,
    logits: torch.Tensor,
    weights: MoeWeights,
    *,
    top_k: int,
    limit: float,
    alpha: float = 1.702,
    dtype: torch.dtype = torch.float32,
) -> MoeStages:
    """Every stage of the block, as `moe` gives them. Asks the device which experts have tokens.

    Args:
        dtype: what weights and activations are rounded to for the products; whether float16 holds the weights is for
            the caller to know. Between products everything is float32.
    """
    experts, shares = route(logits, top_k)
    flat = experts.flatten().long()
    inner, hidden = weights.gate.shape[1:]
    gate, up, activated, down = (
        torch.empty((flat.numel(), width), dtype=torch.float32, device=x.device)
        for width in (inner, inner, inner, hidden)
    )
    for expert in sorted(set(flat.tolist())):
        pairs = (flat == expert).nonzero()[:, 0]
        rows = x[pairs // top_k]
        gate[pairs] = _product(rows, weights.gate, expert, dtype) + weights.gate_bias[expert]
        up[pairs] = _product(rows, weights.up, expert, dtype) + weights.up_bias[expert]
        clamped = gate[pairs].clamp(max=limit)
        raised = up[pairs].clamp(-limit, limit) + 1
        activated[pairs] = (raised * clamped * torch.sigmoid(alpha * clamped)).to(dtype).float()
        down[pairs] = _product(activated[pairs], weights.down, expert, dtype) + weights.down_bias[expert]
    gate, up, activated, down = (part.view(len(x), top_k, part.shape[1]) for part in (gate, up, activated, down))
    return MoeStages(experts, shares, gate, up, activated, down, (down * shares[:, :, None]).sum(dim=1))


def _product(rows: torch.Tensor, stored: Matrices, expert: int, dtype: torch.dtype) -> torch.Tensor:
    return (rows.to(dtype) @ decode(stored.expert(expert), dtype)[0].T).float()
