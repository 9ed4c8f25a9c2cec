"""The MoE block along the ladder's path: errors beside float64, and which path it was.

A GPU goes its own way. In the interpreter the ways of several architectures are played; its bfloat16 is mended for
that, so that what is shown there is the way, not Triton's bfloat16.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import interpreter
import torch
from kernel_cases import LADDER_ARCHS, LADDER_ENCODINGS, LADDER_TOKENS, LIMIT, Shape
from kernel_moe_checks import Case, changed, expected, make
from moe_reference import error, relative
from stored_matrices import tensor

from gptoss_convert.kernels.by_ladder import moe_by_ladder
from gptoss_convert.kernels.device import Device, devices, parse_arch


def figures(device: str) -> Iterator[tuple[str, Any]]:
    if os.environ.get("TRITON_INTERPRET") == "1":
        interpreter.mend_bfloat16()
    for arch in ("gpu",) if device == "cuda" else LADDER_ARCHS:
        played = devices()[0] if arch == "gpu" else parse_arch(arch)
        for encoding in LADDER_ENCODINGS:
            for tokens in LADDER_TOKENS:
                case = make(encoding, Shape(tokens=tokens), device)
                yield f"{encoding}, {tokens} tokens, {arch}", figure(case, played)
        yield f"scales that float16 cannot hold, {arch}", figure(beyond_float16(device), played)


def figure(case: Case, device: Device) -> dict[str, Any]:
    """The largest error (of rounded products the relative one), and the path's name and dot."""
    x, logits = tensor(case.x, case.device), tensor(case.logits, case.device)
    out, path = moe_by_ladder(x, logits, case.weights, device, top_k=case.shape.top_k, limit=LIMIT)
    measure = error if path.dot == "float32" else relative
    return {"error": measure(out.cpu().numpy(), expected(case)["out"]), "path": path.name, "dot": path.dot}


def beyond_float16(device: str) -> Case:
    """MXFP4 with one block of `down` so small that float16 would lose it."""

    def smaller(scales: torch.Tensor) -> None:
        scales[0, 0, 0] = 90

    case = make("MXFP4", Shape(tokens=20), device)
    down = case.dense.down.copy()
    down[0, 0, :32] *= 2.0 ** (90 - int(case.weights.down.parts[1][0, 0, 0]))
    weights = replace(case.weights, down=changed(case.weights.down, 1, smaller))
    return replace(case, weights=weights, dense=replace(case.dense, down=down))
