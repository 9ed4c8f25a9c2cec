"""What the MoE kernels compute, compared with float64: each figure is an error as `moe_reference.error` has it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import interpreter
import moe_reference
import numpy as np
import torch
from kernel_cases import GEMM, GEMV, LIMIT, MATMUL_ENCODINGS, MOE_ENCODINGS, SHAPES, STAGES, Shape
from moe_reference import Experts, error, relative
from numpy.typing import NDArray
from stored_matrices import random_matrices, tensor

from gptoss_convert.kernels.by_expert import moe_by_expert
from gptoss_convert.kernels.moe import MoeStages, matmul, moe
from gptoss_convert.kernels.tiles import Tiles
from gptoss_convert.kernels.weights import Matrices, MoeWeights, matrices, split_planes

Array = NDArray[Any]
Measure = Callable[[Array, Array], float]


@dataclass(frozen=True)
class Case:
    """One MoE: what the kernels get, and what the reference does."""

    shape: Shape
    weights: MoeWeights
    dense: Experts
    x: Array
    logits: Array

    @property
    def device(self) -> str:
        return self.weights.gate_bias.device.type


def make(encoding: str, shape: Shape, device: str, seed: int = 0) -> Case:
    rng = np.random.default_rng([seed, *encoding.encode()])
    inner_by_hidden = (shape.experts, shape.inner, shape.hidden)
    gate, gate_values = random_matrices(encoding, inner_by_hidden, rng, device)
    up, up_values = random_matrices(encoding, inner_by_hidden, rng, device)
    down, down_values = random_matrices(encoding, (shape.experts, shape.hidden, shape.inner), rng, device)
    biases = [
        rng.standard_normal((shape.experts, n)).astype(np.float32) for n in (shape.inner, shape.inner, shape.hidden)
    ]
    # Values that bfloat16 holds, so that all precisions start from the same.
    x = rng.standard_normal((shape.tokens, shape.hidden)).astype(np.float32)
    x = (x.view(np.uint32) & 0xFFFF0000).view(np.float32)
    logits = rng.standard_normal((shape.tokens, shape.experts)).astype(np.float32)
    weights = MoeWeights(gate, up, down, *(tensor(bias, device) for bias in biases))
    return Case(shape, weights, Experts(gate_values, up_values, down_values, *biases), x, logits)


def fitting(tiles: Tiles, device: str) -> Tiles:
    """The interpreter's cost is by the tile, so they are large; a GPU has room for small ones only."""
    if device == "cpu":
        return tiles
    return replace(tiles, BN=min(tiles.BN, 16), BK=min(tiles.BK, 64))


def run(case: Case, tiles: Tiles | None = GEMM, dot: str = "f32", **changes: Any) -> MoeStages:
    """Without tiles those of the table."""
    tiles = tiles and fitting(tiles, case.device)
    arguments = {
        "top_k": case.shape.top_k,
        "limit": LIMIT,
        "dot": dot,
        "tiles": fitting(tiles, case.device),
        "stages": True,
        **changes,
    }
    found = moe(tensor(case.x, case.device), tensor(case.logits, case.device), case.weights, **arguments)
    assert isinstance(found, MoeStages)
    return found


def expected(case: Case) -> dict[str, Array]:
    return moe_reference.stages(case.x, case.logits, case.dense, case.shape.top_k, LIMIT)


def errors(found: MoeStages, wanted: dict[str, Array], measure: Measure = error) -> dict[str, float]:
    return {stage: measure(getattr(found, stage).cpu().numpy(), wanted[stage]) for stage in STAGES}


def worst(found: MoeStages, wanted: dict[str, Array], measure: Measure = error) -> float:
    """The largest error of any stage; NaN if there is a NaN."""
    return float(np.max(list(errors(found, wanted, measure).values())))


def figures(device: str) -> Iterator[tuple[str, Any]]:
    yield from encoding_figures(device)
    yield from shape_figures(device)
    yield from table_figures(device)
    yield from by_expert_figures(device)
    yield from layout_figures(device)
    yield from fault_figures(device)
    yield from nan_figures(device)
    yield from matmul_figures(device)
    yield from precision_figures(device)


def encoding_figures(device: str) -> Iterator[tuple[str, Any]]:
    for encoding in MOE_ENCODINGS:
        case = make(encoding, Shape(), device)
        wanted = expected(case)
        yield f"{encoding} by GEMM", worst(run(case, GEMM), wanted)
        yield f"{encoding} by GEMV", worst(run(case, GEMV), wanted)
        if encoding == "MXFP4":
            clamped = (wanted["gate"] > LIMIT).mean(), (np.abs(wanted["up"]) > LIMIT).mean()
            yield "share of gates and ups that are clamped", [float(share) for share in clamped]


def shape_figures(device: str) -> Iterator[tuple[str, Any]]:
    for name, (encoding, shape, tiles) in SHAPES.items():
        case = make(encoding, shape, device)
        yield f"shape: {name}", worst(run(case, tiles), expected(case))
    case = make("MXFP4", Shape(tokens=20), device)
    case.logits[:, 2] = -9
    assert not (moe_reference.choose(case.logits, 3)[0] == 2).any()
    yield "shape: an expert without tokens", worst(run(case), expected(case))
    nobody = replace(case, x=case.x[:0], logits=case.logits[:0])
    yield "shape: no token", list(run(nobody).out.shape)


def bits_differ(a: MoeStages, b: MoeStages) -> int:
    """Whether any stage has other bits."""
    return sum(not torch.equal(getattr(a, stage), getattr(b, stage)) for stage in STAGES)


def table_figures(device: str) -> Iterator[tuple[str, Any]]:
    """With the tiles that the table has for the device, for one token and for many."""
    for encoding in ("MXFP4", "BF16", "Q8_0"):
        for tokens in (1, 7, 60):
            case = make(encoding, Shape(tokens=tokens), device)
            yield f"{encoding}, {tokens} tokens, by the table", worst(run(case, None), expected(case))


def by_expert_figures(device: str) -> Iterator[tuple[str, Any]]:
    for encoding in ("MXFP4", "Q4_1"):
        case = make(encoding, Shape(), device)
        for dtype in (torch.float32, torch.float16):
            found = moe_by_expert(
                tensor(case.x, device),
                tensor(case.logits, device),
                case.weights,
                top_k=case.shape.top_k,
                limit=LIMIT,
                dtype=dtype,
            )
            measure = error if dtype == torch.float32 else relative
            yield f"{encoding} by expert in {str(dtype)[6:]}", worst(found, expected(case), measure)


def layout_figures(device: str) -> Iterator[tuple[str, Any]]:
    """The same weights stored in another way: the figure counts stages that differ in any bit."""
    for encoding in ("MXFP4", "GGML_MXFP4", "BF16", "Q4_1"):
        case = make(encoding, Shape(), device)
        separate = run(case)
        yield f"{encoding} interleaved", bits_differ(separate, run(interleaved(case)))
        if encoding == "BF16":
            yield "BF16 interleaved and transposed", bits_differ(separate, run(transposed(case)))
    for encoding in ("GGML_MXFP4", "Q8_0"):
        case = make(encoding, Shape(), device)
        split = {name: split_planes(getattr(case.weights, name)) for name in ("gate", "up", "down")}
        planes = replace(case, weights=replace(case.weights, **split))
        yield f"{encoding} split into planes", bits_differ(run(case), run(planes))
        yield f"{encoding} split into planes, by GEMV", bits_differ(run(case, GEMV), run(planes, GEMV))
    planes, floats = make("MXFP4", Shape(), device), make("F16", Shape(), device)
    mixed = replace(
        planes,
        weights=replace(planes.weights, up=floats.weights.up),
        dense=replace(planes.dense, up=floats.dense.up),
    )
    yield "gate and up in two encodings", worst(run(mixed), expected(mixed))


def interleaved(case: Case) -> Case:
    """Gate and up as every second row of one array each part."""
    gate, up = case.weights.gate, case.weights.up
    both = [torch.stack([a, b], dim=2).flatten(1, 2).contiguous() for a, b in zip(gate.parts, up.parts, strict=True)]
    one = matrices(gate.encoding, *both)
    return replace(case, weights=replace(case.weights, gate=one.rows(0, 2), up=one.rows(1, 2)))


def transposed(case: Case) -> Case:
    """As Hugging Face stores BF16: gate_up [E, hidden, 2 · inner], down [E, inner, hidden]."""
    gate, up, down = (getattr(case.weights, name).parts[0] for name in ("gate", "up", "down"))
    both = torch.stack([gate, up], dim=2).flatten(1, 2).transpose(1, 2).contiguous()
    one = matrices("BF16", both.transpose(1, 2))
    turned = matrices("BF16", down.transpose(1, 2).contiguous().transpose(1, 2))
    return replace(case, weights=replace(case.weights, gate=one.rows(0, 2), up=one.rows(1, 2), down=turned))


def changed(stored: Matrices, part: int, change: Any) -> Matrices:
    """With one part changed in place in a copy."""
    parts = list(stored.parts)
    parts[part] = parts[part].clone()
    change(parts[part])
    return replace(stored, parts=tuple(parts))


def fault_figures(device: str) -> Iterator[tuple[str, Any]]:
    """Errors of outputs that are wrong on purpose; a bound that lets them pass is too wide."""
    case = make("MXFP4", Shape(), device)
    wanted, weights = expected(case), case.weights

    def louder(scales: torch.Tensor) -> None:
        scales[0, 5, 1] += 1

    def flipped(blocks: torch.Tensor) -> None:
        blocks[0, 5, 1, 3] ^= 2

    def swapped(blocks: torch.Tensor) -> None:
        blocks.copy_((blocks << 4) | (blocks >> 4))

    faults = {
        "gate and up swapped": {"gate": weights.up, "up": weights.gate},
        "the scale of one block too large by one": {"gate": changed(weights.gate, 1, louder)},
        "one bit of one block flipped": {"down": changed(weights.down, 0, flipped)},
        "nibbles swapped": {"up": changed(weights.up, 0, swapped)},
        **{f"{name} dropped": {name: torch.zeros_like(getattr(weights, name))} for name in BIASES},
        **{f"{name} of another expert": {name: getattr(weights, name).roll(1, 0)} for name in BIASES},
    }
    for name, fault in faults.items():
        yield f"fault: {name}", worst(run(replace(case, weights=replace(weights, **fault))), wanted)
    yield "fault: no clamp", worst(run(case, limit=1e9), wanted)
    yield "fault: alpha 1", worst(run(case, alpha=1.0), wanted)
    yield "fault: zeros", error(np.zeros_like(wanted["out"]), wanted["out"])


BIASES = ("gate_bias", "up_bias", "down_bias")


def nan_figures(device: str) -> Iterator[tuple[str, Any]]:
    """A scale of 255 makes NaN of the row's result for every token of that expert, and of nothing else there."""

    def broken(scales: torch.Tensor) -> None:
        scales[1, 5, 2] = 255

    case = make("MXFP4", Shape(), device)
    for name, stage in (("gate", "gate"), ("up", "up"), ("down", "down")):
        fault = replace(case, weights=replace(case.weights, **{name: changed(getattr(case.weights, name), 1, broken)}))
        for way, tiles in (("GEMM", GEMM), ("GEMV", GEMV)):
            found = run(fault, tiles)
            values = torch.isnan(getattr(found, stage)).cpu()
            should = torch.zeros_like(values)
            should[..., 5] = found.experts.cpu() == 1
            right = torch.equal(values, should) and bool(should.any())
            spread = torch.isnan(found.activated).cpu().equal(should) or name == "down"
            affected = (found.experts.cpu() == 1).any(dim=1)
            right_out = torch.equal(torch.isnan(found.out).cpu().any(dim=1), affected)
            yield f"NaN in {name} by {way}", [right, spread, right_out]


def matmul_figures(device: str) -> Iterator[tuple[str, Any]]:
    """One matrix with tokens: every encoding, 512 columns, as attn_output in K-quants."""
    for encoding in MATMUL_ENCODINGS:
        rng = np.random.default_rng([7, *encoding.encode()])
        stored, values = random_matrices(encoding, (1, 70, 512), rng, device)
        x, bias = rng.standard_normal((18, 512)).astype(np.float32), rng.standard_normal(70).astype(np.float32)
        wanted = x.astype(np.float64) @ values[0].T + bias
        for way, tiles in (("GEMM", replace(GEMM, BK=256)), ("GEMV", replace(GEMV, BK=512))):
            rows = slice(0, 18 if way == "GEMM" else 2)
            found = matmul(tensor(x[rows], device), stored, tensor(bias, device), tiles=fitting(tiles, device))
            yield f"matmul {encoding} by {way}", error(found.cpu().numpy(), wanted[rows])
    found = matmul(tensor(x, device), stored, None, tiles=fitting(GEMM, device))
    yield "matmul without a bias", error(found.cpu().numpy(), wanted - bias)
    yield "matmul of no rows", list(matmul(tensor(x[:0], device), stored, None).shape)


def precision_figures(device: str) -> Iterator[tuple[str, Any]]:
    """Rounded products, last: the interpreter must be mended for bfloat16, and stays so."""
    case = make("MXFP4", Shape(), device)
    wanted = expected(case)
    yield "two runs", bits_differ(run(case), run(case))
    if os.environ.get("TRITON_INTERPRET") == "1":
        # Inputs of both dots are exact, and nothing is rounded before these stages.
        found = errors(run(case, dot="scaled"), wanted)
        yield "scaled, gate and up, interpreter as it is", max(found["gate"], found["up"])
        interpreter.mend_bfloat16()
    for dot in ("bf16", "scaled", "f16"):
        found = run(case, dot=dot)
        yield f"{dot}, gate and up", max(errors(found, wanted)[stage] for stage in ("gate", "up"))
        yield f"{dot} of MXFP4", worst(found, wanted, relative)
        yield f"{dot} of MXFP4, by the table", worst(run(case, None, dot), wanted, relative)
    for encoding in ("BF16", "GGML_MXFP4", "Q8_0"):
        other = make(encoding, Shape(), device)
        yield f"bf16 of {encoding}", worst(run(other, dot="bf16"), expected(other), relative)
