"""Who else multiplies experts: torch with BF16 weights, and triton-lang's triton_kernels where they can be imported."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import torch
from bench_gpu_work import LIMIT, TOP_K, Batch, Shape

ALPHA = 1.702


class TorchExperts:
    """Decoded experts, BF16: a product for each expert that has tokens. What tokens go where is known beforehand."""

    bytes_per_weight = 2.0

    def __init__(self, shape: Shape, device: str) -> None:
        def random(rows: int, cols: int) -> torch.Tensor:
            return (0.02 * torch.randn(shape.experts, rows, cols, device=device)).bfloat16()

        self.gate_up, self.down = random(2 * shape.inner, shape.hidden), random(shape.hidden, shape.inner)
        self.gate_up_bias = torch.zeros(shape.experts, 2 * shape.inner, dtype=torch.bfloat16, device=device)
        self.down_bias = torch.zeros(shape.experts, shape.hidden, dtype=torch.bfloat16, device=device)

    def call(self, batch: Batch) -> Callable[[], torch.Tensor]:
        chosen, experts = batch.logits.topk(TOP_K)
        shares = chosen.softmax(-1).bfloat16()
        used = torch.unique(experts).tolist()
        groups = [(expert, *(experts == expert).nonzero(as_tuple=True)) for expert in used]
        weighted = [(expert, tokens, shares[tokens, slots, None]) for expert, tokens, slots in groups]

        def run() -> torch.Tensor:
            out = torch.zeros_like(batch.x)
            for expert, tokens, share in weighted:
                both = torch.addmm(self.gate_up_bias[expert], batch.x[tokens], self.gate_up[expert].T)
                gate, up = both[:, 0::2].clamp(max=LIMIT), both[:, 1::2].clamp(-LIMIT, LIMIT)
                active = (up + 1) * gate * torch.sigmoid(ALPHA * gate)
                product = torch.addmm(self.down_bias[expert], active, self.down[expert].T)
                out.index_add_(0, tokens, product * share)
            return out

        return run


class TritonKernels:
    """triton-lang's triton_kernels with MXFP4 experts, by the names that it had with Triton 3.5 and 3.6.

    Fails where it is missing or has other names: then there is nothing to compare with.
    """

    bytes_per_weight = 4.25 / 8

    def __init__(self, shape: Shape, device: str) -> None:
        names = ("matmul_ogs", "numerics", "numerics_details.mxfp", "routing", "swiglu", "tensor")
        # Looked up by name: it is no dependency, and a package of another maker has its name on PyPI.
        ogs, numerics, mxfp, self._routing, swiglu, tensor = (
            importlib.import_module(f"triton_kernels.{name}") for name in names
        )
        self._ogs = ogs

        def packed(rows: int, cols: int) -> tuple[Any, Any]:
            dense = (0.02 * torch.randn(shape.experts, cols, rows, device=device)).bfloat16()
            codes, scales = mxfp.downcast_to_mxfp(dense, torch.uint8, axis=1)
            precision = ogs.PrecisionConfig(
                weight_scale=tensor.wrap_torch_tensor(scales), flex_ctx=ogs.FlexCtx(rhs_data=numerics.InFlexData())
            )
            return tensor.wrap_torch_tensor(codes, dtype=tensor.FP4), precision

        self._gate_up, self._down = packed(2 * shape.inner, shape.hidden), packed(shape.hidden, shape.inner)
        self._gate_up_bias = torch.zeros(shape.experts, 2 * shape.inner, device=device)
        self._down_bias = torch.zeros(shape.experts, shape.hidden, device=device)
        specs = ogs.FnSpecs("swiglu", swiglu.swiglu_fn, ("alpha", "limit"))
        self._activation = ogs.FusedActivation(specs, (ALPHA, LIMIT), 2)

    def call(self, batch: Batch) -> Callable[[], torch.Tensor]:
        def run() -> torch.Tensor:
            data, gather, scatter = self._routing.routing(batch.logits.bfloat16(), TOP_K)
            (weights, precision), (down, down_precision) = self._gate_up, self._down
            active = self._ogs.matmul_ogs(
                batch.x,
                weights,
                self._gate_up_bias,
                data,
                gather_indx=gather,
                precision_config=precision,
                fused_activation=self._activation,
            )
            out: torch.Tensor = self._ogs.matmul_ogs(
                active,
                down,
                self._down_bias,
                data,
                scatter_indx=scatter,
                precision_config=down_precision,
                gammas=data.gate_scal,
            )
            return out

        return run
