"""The MoE block the way the ladder says: by the kernels in the precision of the path, or by torch, expert by expert."""

from __future__ import annotations

import torch

from .by_expert import moe_by_expert
from .ladder import Device, Path, fp16_exact, path_for
from .moe import MoeStages, moe
from .weights import Matrices, MoeWeights


def path_of(weights: MoeWeights, device: Device, n_tokens: int, top_k: int, *, native: bool = False) -> Path:
    """The path of `n_tokens` tokens through these experts.

    Experts in two encodings go the way of the one that is not MXFP4 in planes. Where float16 might be used, scales are
    looked at: it must hold every value.
    """
    stored = (weights.gate, weights.up, weights.down)
    encoding = next((one.encoding for one in stored if one.encoding != "MXFP4"), "MXFP4")
    path = path_for(encoding, device, tokens=n_tokens, top_k=top_k, native=native)
    if path.kernel_dot or path.dot != "float16" or all(map(_fits_fp16, stored)):
        return path
    return path_for(encoding, device, tokens=n_tokens, top_k=top_k, native=native, fits_fp16=False)


def moe_by_ladder(
    x: torch.Tensor,
    logits: torch.Tensor,
    weights: MoeWeights,
    device: Device,
    *,
    top_k: int,
    limit: float,
    alpha: float = 1.702,
    native: bool = False,
) -> tuple[torch.Tensor, Path]:
    """The block's output float32 [T, H], and the path that it went.

    Args:
        x, logits, top_k, limit, alpha: as `moe` takes them.
        device: one of `device.devices()`; that of the tensors, or another that is to be played here.
        native: as `path_for` takes it.
    """
    path = path_of(weights, device, len(x), top_k, native=native)
    if path.kernel_dot:
        out = moe(x, logits, weights, top_k=top_k, limit=limit, alpha=alpha, dot=path.kernel_dot)
        assert not isinstance(out, MoeStages)
        return out, path
    dtype: torch.dtype = getattr(torch, path.dot)
    return moe_by_expert(x, logits, weights, top_k=top_k, limit=limit, alpha=alpha, dtype=dtype).out, path


def _fits_fp16(stored: Matrices) -> bool:
    """Whether float16 holds every value; of ggml's MXFP4 the scale is the first byte of a block."""
    if stored.encoding == "MXFP4":
        return fp16_exact(stored.view(1))
    if stored.encoding == "GGML_MXFP4":
        return fp16_exact(stored.view(0)[..., 0])
    return stored.encoding == "F16"
