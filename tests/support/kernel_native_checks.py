"""Products that quantize activations: the quantizer byte for byte, each product, and what the whole block loses.

The interpreter multiplies float8 and MXFP4 as a GPU should; nothing is mended for any figure here.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import kernel_native_reference as native
import ml_dtypes
import moe_reference
import numpy as np
import torch
from kernel_cases import GEMM, GEMV, LIMIT, NATIVE_KINDS, NATIVE_SHAPES, Shape
from kernel_moe_checks import Case, bits_differ, errors, expected, fitting, interleaved, make, run, worst
from moe_reference import error, relative
from numpy.typing import NDArray
from stored_matrices import random_matrices, tensor

import gptoss_convert.kernels.moe as launched
from gptoss_convert.formats.errors import UsageError
from gptoss_convert.kernels.activations import Activations, quantize
from gptoss_convert.kernels.by_ladder import moe_by_ladder
from gptoss_convert.kernels.device import ARCHITECTURES, devices, parse_arch
from gptoss_convert.kernels.moe import MoeStages, matmul

Array = NDArray[Any]


def figures(device: str) -> Iterator[tuple[str, Any]]:
    for kind in ("MXFP8", "MXFP4"):
        yield from byte_figures(kind, device)
        yield f"{kind} of torchao", torchao_differs(kind, device)
        yield f"{kind} of blocks with NaN and infinity", broken_blocks(kind, device)
    dots = native_dots(device)
    for dot in dots:
        yield from product_figures(dot, device)
        yield from block_figures(dot, device)
        if device == "cuda" or dot != "mxfp8_wide":
            yield from fault_figures(dot, device)
    yield "a matrix in BF16", refusal(make("BF16", Shape(), device))
    if device == "cpu":
        case = make("MXFP4", Shape(), device)
        yield "codes widened", bits_differ(run(case, dot="mxfp8"), run(case, dot="mxfp8_wide"))
        yield from ladder_figures()
    else:
        for dot in set(NATIVE_KINDS) - set(dots):
            yield f"{dot} without hardware", refusal(make("MXFP4", Shape(), device), dot)


def native_dots(device: str) -> tuple[str, ...]:
    """What the device multiplies; the interpreter everything."""
    return tuple(NATIVE_KINDS) if device == "cpu" else ARCHITECTURES[devices()[0].arch].native


# --- bytes ---


def bytes_differ(x: Array, kind: str, device: str) -> int:
    """Codes, as they are packed, and scales that differ from the definition's."""
    codes, scales = native.quantized(x.astype(np.float32), kind)
    found = quantize(tensor(x, device), kind)
    same = found.values.cpu().numpy().reshape(len(codes), -1) == native.packed(codes, kind)
    return int((~same).sum() + (found.scales.cpu().numpy().reshape(-1) != scales).sum())


def byte_figures(kind: str, device: str) -> Iterator[tuple[str, Any]]:
    blocks = native.hard_blocks(kind)
    for name, x in blocks.items():
        yield f"{kind}: {name}", bytes_differ(x, kind, device)
    for name, dtype in (("BF16", ml_dtypes.bfloat16), ("F16", np.float16)):
        yield f"{kind}: every {name}", bytes_differ(native.every_half_float(dtype), kind, device)
    rows = tensor(blocks["normal"].reshape(-1, 160), device)
    turned, straight = quantize(rows.T.contiguous().T, kind), quantize(rows, kind)
    yield f"{kind}: rows that lie apart", int((turned.values != straight.values).sum())
    yield f"{kind}: no rows", list(quantize(rows[:0], kind).values.shape)


def torchao_differs(kind: str, device: str) -> int | None:
    """Bytes that differ from torchao's, under scales above 0, where it is right; None without torchao.

    Not for MXFP8 at the rule's limit: torchao rounds amax / 448 to float32, and so clips what is one float above.
    """
    if importlib.util.find_spec("torchao") is None:
        return None
    from torchao.prototype.mx_formats.config import ScaleCalculationMode
    from torchao.prototype.mx_formats.mx_tensor import to_mx

    mode = ScaleCalculationMode.RCEIL if kind == "MXFP8" else ScaleCalculationMode.EVEN
    element = torch.float8_e4m3fn if kind == "MXFP8" else torch.float4_e2m1fn_x2
    left_out = "at the rule's limit" if kind == "MXFP8" else ""
    blocks = [x for name, x in native.hard_blocks(kind).items() if name != left_out]
    x = torch.from_numpy(np.concatenate(blocks))
    scales, codes = to_mx(x, element, 32, mode)
    found = quantize(x.to(device), kind)
    some = found.scales.cpu()[:, 0] > 0
    differ = (found.values.cpu() != codes.view(torch.uint8))[some].sum()
    return int(differ + (found.scales.cpu() != scales.view(torch.uint8).view(-1, 1))[some].sum())


def broken_blocks(kind: str, device: str) -> list[int]:
    """Scales of blocks that hold NaN, -NaN, infinity, -infinity, and of one that holds none."""
    x = np.random.default_rng(2).standard_normal((5, 32)).astype(np.float32)
    x[0, 3], x[1, 30], x[2, 0], x[3, 31] = np.nan, -np.nan, np.inf, -np.inf
    return [int(scale) for scale in quantize(tensor(x, device), kind).scales[:, 0]]


# --- products ---


def product_figures(dot: str, device: str) -> Iterator[tuple[str, Any]]:
    """Beside float64 of the quantized values: nothing is lost but by sums in float32."""
    kind = NATIVE_KINDS[dot]
    rng = np.random.default_rng(8)
    stored, dense = random_matrices("MXFP4", (1, 70, 480), rng, device)
    x, bias = rng.standard_normal((18, 480)).astype(np.float32), rng.standard_normal(70).astype(np.float32)
    wanted = native.rounded(x, kind) @ dense[0].T + bias
    x_there, bias_there, tiles = tensor(x, device), tensor(bias, device), fitting(GEMM, device)
    yield f"{dot}: product", error(matmul(x_there, stored, bias_there, dot=dot, tiles=tiles).cpu().numpy(), wanted)
    few = matmul(x_there[:2], stored, bias_there, dot=dot, tiles=fitting(GEMV, device))
    yield f"{dot}: product of two rows", error(few.cpu().numpy(), x[:2] @ dense[0].T + bias)
    x_there[3, 100] = float("nan")
    rows = torch.isnan(matmul(x_there, stored, bias_there, dot=dot, tiles=tiles)).all(dim=1).cpu().tolist()
    yield f"{dot}: rows that are NaN", [row for row, broken in enumerate(rows) if broken]


def stage_errors(case: Case, found: MoeStages, kind: str) -> float:
    """The largest error of any stage, each beside float64 of what it was given, quantized by definition."""
    wanted = moe_reference.stages(native.rounded(case.x, kind), case.logits, case.dense, case.shape.top_k, LIMIT)
    worst_yet = max(errors(found, wanted)[stage] for stage in ("weights", "gate", "up", "activated"))
    inner = native.rounded(found.activated.cpu().numpy(), kind)
    experts = found.experts.cpu().numpy()
    down = np.einsum("tkij,tkj->tki", case.dense.down[experts], inner) + case.dense.down_bias[experts]
    out = (down * found.weights.cpu().numpy()[:, :, None]).sum(axis=1)
    return max(worst_yet, error(found.down.cpu().numpy(), down), error(found.out.cpu().numpy(), out))


def block_figures(dot: str, device: str) -> Iterator[tuple[str, Any]]:
    kind = NATIVE_KINDS[dot]
    for name, (shape, tiles) in NATIVE_SHAPES.items():
        case = make("MXFP4", shape, device)
        yield f"{dot}: {name}", stage_errors(case, run(case, tiles, dot), kind)
    case = make("MXFP4", Shape(tokens=20), device)
    found = run(case, None, dot)
    yield f"{dot}: by the table", stage_errors(case, found, kind)
    yield f"{dot}: whole block", relative(found.out.cpu().numpy(), expected(case)["out"])
    yield f"{dot}: interleaved", bits_differ(found, run(interleaved(case), None, dot))
    few = make("MXFP4", Shape(tokens=2), device)
    yield f"{dot}: two tokens", worst(run(few, GEMV, dot), expected(few))


def fault_figures(dot: str, device: str) -> Iterator[tuple[str, Any]]:
    """Errors of the whole block when something is wrong on purpose."""
    case = make("MXFP4", Shape(tokens=20), device)
    case.x[:, :32] *= 4
    wanted = expected(case)["out"]
    yield f"{dot}: whole block, its blocks unlike", relative(run(case, None, dot).out.cpu().numpy(), wanted)

    def spoilt(change: Callable[[Activations], Activations]) -> float:
        original = launched.quantize
        launched.quantize = lambda x, kind: change(original(x, kind))
        try:
            return relative(run(case, None, dot).out.cpu().numpy(), wanted)
        finally:
            launched.quantize = original

    faults: dict[str, Callable[[Activations], Activations]] = {
        "no scales": lambda x: replace(x, scales=torch.full_like(x.scales, 127)),
        "all scales too large by one": lambda x: replace(x, scales=x.scales + 1),
        "scales of the next block": lambda x: replace(x, scales=x.scales.roll(1, dims=1)),
        "halves swapped": lambda x: replace(x, values=swapped(x.values, NATIVE_KINDS[dot])),
        "codes are zeros": lambda x: replace(x, values=torch.zeros_like(x.values)),
        "signs lost": lambda x: replace(x, values=x.values & (0x7F if NATIVE_KINDS[dot] == "MXFP8" else 0x77)),
    }
    for name, change in faults.items():
        yield f"{dot}: fault: {name}", spoilt(change)
    weights = replace(case.weights, gate=case.weights.up, up=case.weights.gate)
    turned = run(replace(case, weights=weights), None, dot)
    yield f"{dot}: fault: gate and up swapped", relative(turned.out.cpu().numpy(), wanted)


def swapped(codes: torch.Tensor, kind: str) -> torch.Tensor:
    """Each two neighbours in turn: the nibbles of a byte, or two bytes."""
    if kind == "MXFP4":
        return (codes << 4) | (codes >> 4)
    return codes.view(len(codes), -1, 2).flip(2).reshape(codes.shape)


def refusal(case: Case, dot: str = "mxfp8") -> str:
    try:
        run(case, dot=dot)
    except UsageError as raised:
        return str(raised)
    return "nothing was raised"


def ladder_figures() -> Iterator[tuple[str, Any]]:
    """The ladder's native paths, played in the interpreter."""
    for arch in ("sm_86", "sm_100", "sm_120", "gfx950"):
        for tokens in (2, 20):
            case = make("MXFP4", Shape(tokens=tokens), "cpu")
            x, logits = tensor(case.x, "cpu"), tensor(case.logits, "cpu")
            arguments: dict[str, Any] = {"top_k": case.shape.top_k, "limit": LIMIT, "native": True}
            out, path = moe_by_ladder(x, logits, case.weights, parse_arch(arch), **arguments)
            found = {"error": relative(out.numpy(), expected(case)["out"]), "dot": path.kernel_dot}
            yield f"{arch}, {tokens} tokens", found
