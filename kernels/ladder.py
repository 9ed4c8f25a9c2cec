"""The ladder: which path multiplies an encoding's weights on a device, why, and what a fallback costs.

    path = PATHS[what the architecture can do][how the kernels take the encoding]

`architectures.py` has a row per architecture, `ENCODINGS` a row per encoding; nothing else decides. Neither torch nor
Triton is imported and nothing looks at this machine: any architecture can be asked about anywhere.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ..formats.codecs import encoding as stored
from ..formats.errors import UsageError
from .architectures import ARCHITECTURES, HARDWARE, NATIVE, NONE, SCALAR, UPCAST, Architecture

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

DOT_SCALED = "triton dot_scaled"
OWN_DECODE = "triton own decode"
GEMV_MATMUL = "triton gemv + torch matmul"
TORCH = "torch"
NUMBA_TORCH = "numba + torch"
INTERPRETER = "triton interpreter"

# The version whose compilations the table rests on.
TRITON = "3.9.0"
# Up to so many pairs of a token and one of its experts are multiplied one by one, without tensor cores: as tiles.py.
GEMV_PAIRS = 16
# … and up to so many tokens of gpt-oss, which have four experts each.
GEMV_TOKENS = GEMV_PAIRS // 4
# 0.5 · 2^(104 - 127) = 2^-24 is float16's smallest value; 6 · 2^(140 - 127) = 49,152 is below its largest.
FP16_SCALES = (104, 140)

# How kernels take an encoding.
PLANES, BYTES, NO_KERNEL = "planes", "bytes", "no kernel"
_BITS = {"float16": 16, "bfloat16": 16, "float32": 32}
_DOTS = {"bfloat16": "bf16", "float16": "f16", "float32": "f32"}


@dataclass(frozen=True)
class Device:
    """Something that can multiply.

    Args:
        name: what it calls itself.
        backend: "cuda", "hip", "cpu", or "interpret": Triton's interpreter on the processor.
        arch: "sm_90", "gfx942"; "" unless it is a GPU.
        memory_bytes: all the memory it has; None if not known.
        triton: the version of Triton; None without it.
        torch: the version of torch; None without it.
    """

    name: str
    backend: str
    arch: str
    memory_bytes: int | None = None
    triton: str | None = None
    torch: str | None = None


@dataclass(frozen=True)
class Path:
    """How weights are multiplied on a device.

    Args:
        name: what output shows; one of the six names above.
        stored_bits: bits per weight in the file.
        used_bits: bits per weight that the product reads from memory.
        native: the product itself takes MXFP4; activations are quantized.
        emulated: the stored encoding becomes another, in the kernel or before it.
        dot: the float, or floats, that the product takes.
        why: why it is this path, as a clause.
        costs: what it costs in bytes per weight; "" if weights are read as they are stored.
        kernel_dot: what `moe.moe` and `moe.matmul` call this dot; "" where torch multiplies.
    """

    name: str
    stored_bits: float
    used_bits: float
    native: bool
    emulated: bool
    dot: str
    why: str
    costs: str
    kernel_dot: str = ""


@dataclass(frozen=True)
class Weights:
    """How kernels take an encoding.

    Args:
        name: as `formats.codecs.encoding` has it.
        stored_bits: bits per weight in the file.
        kernel: PLANES, BYTES or NO_KERNEL.
        block: elements that must lie together in a row.
        exact: the floats that hold every value exactly. MXFP4 in float16: only if `fp16_exact`.
        how: how the kernels read it, as a clause; "" without a kernel.
    """

    name: str
    stored_bits: float
    kernel: str
    block: int
    exact: tuple[str, ...]
    how: str


_MXFP4_EXACT = ("bfloat16", "float16", "float32")
_REPACKED = "repacked into planes when loaded, at the same size"
_GGML_BLOCKS = "ggml's blocks are decoded where they lie"
_FLOATS = "floats are read as they are"


def _row(encoding: stored.Encoding, kernel: str, how: str, exact: tuple[str, ...] = ("float32",)) -> Weights:
    return Weights(encoding.name, encoding.bits_per_weight, kernel, encoding.block_elements, exact, how)


_UNREAD = ("Q2_K", "Q3_K")
_MLX = [stored.mlx_affine(bits, group, "BF16") for bits in (4, 8) for group in (32, 64, 128)]

ENCODINGS: dict[str, Weights] = {
    row.name: row
    for row in (
        _row(stored.MXFP4, PLANES, "planes of codes and scales are read as they are", _MXFP4_EXACT),
        _row(stored.METAL_MXFP4, PLANES, _REPACKED, _MXFP4_EXACT),
        _row(stored.OLLAMA_MXFP4, PLANES, _REPACKED, _MXFP4_EXACT),
        _row(stored.GGML_MXFP4, BYTES, _GGML_BLOCKS, _MXFP4_EXACT),
        _row(stored.BF16, BYTES, _FLOATS, ("bfloat16", "float32")),
        _row(stored.F16, BYTES, _FLOATS, ("float16", "float32")),
        _row(stored.F32, BYTES, _FLOATS),
        *(_row(encoding, BYTES, _GGML_BLOCKS) for name, encoding in stored.QUANTIZED.items() if name not in _UNREAD),
        *(_row(encoding, NO_KERNEL, "") for encoding in (*(stored.QUANTIZED[name] for name in _UNREAD), *_MLX)),
    )
}

# The ladder itself; what is not in it is torch's.
PATHS: dict[str, dict[str, str]] = {
    HARDWARE: {PLANES: DOT_SCALED, BYTES: OWN_DECODE},
    UPCAST: {PLANES: DOT_SCALED, BYTES: OWN_DECODE},
    SCALAR: {PLANES: GEMV_MATMUL, BYTES: GEMV_MATMUL},
    NONE: {},
}


def path_for(
    encoding: str,
    device: Device,
    *,
    tokens: int = 1,
    top_k: int = 4,
    native: bool = False,
    fits_fp16: bool = True,
) -> Path:
    """The path for weights in `encoding` on `device`.

    Args:
        encoding: a name of `ENCODINGS`, METAL_Q, METAL_K or Q8_0_PLANES.
        device: one of `devices()`, or of `parse_arch`.
        tokens: how many are multiplied at once.
        top_k: experts per token; 1 for a matrix that all tokens are multiplied with.
        native: quantize the activations where the hardware then multiplies MXFP4 itself. Changes results. Where it does
            not, or with few pairs, the path is the plain one and `why` says so.
        fits_fp16: what `fp16_exact` said of MXFP4 scales.

    Raises:
        UsageError: the encoding or the device's architecture is none that there is.
    """
    weights = weights_for(encoding)
    if device.backend in ("cpu", "interpret"):
        path = _on_processor(weights, device)
        return _without_native(path, "a processor has no product of MXFP4") if native else path
    architecture = _architecture(device)
    if device.triton is None:
        path = _decoded(weights, NUMBA_TORCH, "float32", "Triton is not installed here, so the processor multiplies")
        return _without_native(path, "that takes Triton") if native else path
    path = _on_gpu(weights, architecture, device.triton, tokens * top_k, fits_fp16)
    return _natively(path, weights, architecture, tokens * top_k) if native else path


def weights_for(encoding: str) -> Weights:
    """The row of `encoding`, or of what it is put in order to when loaded. Raises UsageError."""
    if encoding == "Q8_0_PLANES":
        return replace(ENCODINGS["Q8_0"], name=encoding, how="split into planes when loaded, at the same size")
    if encoding in ("METAL_Q", "METAL_K"):
        return replace(ENCODINGS["BF16"], name=encoding, how="rows are put in order when loaded, at the same size")
    if encoding not in ENCODINGS:
        raise UsageError(
            "there is no such encoding",
            expected=f"one of {', '.join(ENCODINGS)}",
            found=repr(encoding),
            remedy="Choose one of these.",
        )
    return ENCODINGS[encoding]


def parse_arch(text: str) -> Device:
    """The device that `text` names, without looking for one: "sm_75", "7.5", "gfx1100", "cpu" or "interpret".

    It is taken to have Triton. Raises UsageError if no row of the table has that name.
    """
    name = _spelling(text)
    if name in ("cpu", "interpret"):
        return Device("this processor" if name == "cpu" else "Triton's interpreter", name, "", triton=TRITON)
    if name not in ARCHITECTURES:
        raise UsageError(
            "there is no such architecture in the table",
            expected=f"cpu, interpret, {', '.join(ARCHITECTURES)}",
            found=repr(text),
            remedy="`nvidia-smi --query-gpu=compute_cap` or `rocminfo` says which one a card has.",
        )
    architecture = ARCHITECTURES[name]
    return Device(architecture.cards, architecture.backend, name, triton=TRITON)


def fp16_exact(
    scales: NDArray[np.uint8] | torch.Tensor, blocks: NDArray[np.uint8] | torch.Tensor | None = None
) -> bool:
    """True if float16 holds every MXFP4 value under these scales exactly: all are 104 … 140.

    Args:
        scales: uint8 [..., G], biased.
        blocks: uint8 [..., G, 16]; if given, blocks whose values are all zero may have any scale but 255.
    """
    low, high = FP16_SCALES
    bounds: Any = (scales < low) | (scales > high)
    if blocks is not None:
        codes: Any = blocks & 0x77
        bounds = bounds & (codes.any(-1) | (scales == 255))
    return not bool(bounds.any())


def _spelling(text: str) -> str:
    """The table's spelling: 7.5, sm75 and SM_75 are sm_75; sm_90a is sm_90; gfx942:xnack- is gfx942."""
    name = text.strip().lower().partition(":")[0]
    if found := re.fullmatch(r"(?:sm_?)?(\d{1,2})\.?(\d)[af]?", name):
        return f"sm_{found[1]}{found[2]}"
    return name


def _architecture(device: Device) -> Architecture:
    """The device's row; a GPU that is newer than the table gets one that promises nothing. Raises UsageError."""
    row = ARCHITECTURES.get(device.arch)
    if row is not None and row.backend == device.backend:
        return row
    pattern = {"cuda": r"sm_\d{2,3}", "hip": r"gfx[0-9a-f]{3,4}"}.get(device.backend)
    if pattern is None or not re.fullmatch(pattern, device.arch):
        raise UsageError(
            "this names no GPU",
            expected="such as sm_90 or gfx942",
            found=repr(device.arch),
            remedy="Use `gptoss-convert doctor --arch sm_90`, or another of its table.",
        )
    reason = "it is not in the table of architectures that our kernels are compiled for"
    return Architecture(device.arch, device.backend, device.name, NONE, "float32", reason=reason)


def _on_processor(weights: Weights, device: Device) -> Path:
    if device.backend == "cpu":
        why = "no GPU is used; only the experts that tokens are routed to are decoded"
        return _decoded(weights, NUMBA_TORCH, "float32", why)
    if weights.kernel == NO_KERNEL:
        return _decoded(weights, NUMBA_TORCH, "float32", f"there is no kernel for {weights.name}")
    why = (
        "the kernels themselves, step by step on the processor; in float32, since Triton 3.9's interpreter computes "
        "bfloat16 wrongly; for small models"
    )
    return _packed(weights, INTERPRETER, "float32", why)


def _packed(weights: Weights, name: str, dot: str, why: str) -> Path:
    """A path whose kernels read weights as they are stored."""
    bits, kernel_dot = weights.stored_bits, "scaled" if name == DOT_SCALED else _DOTS[dot]
    return Path(name, bits, bits, False, not _is_stored_as(weights, dot), dot, why, "", kernel_dot)


def _decoded(weights: Weights, name: str, dot: str, why: str) -> Path:
    """A path that decodes an expert to `dot` before it is multiplied."""
    bits = _BITS[dot]
    if _is_stored_as(weights, dot):
        return Path(name, bits, bits, False, False, dot, why, "")
    return Path(name, weights.stored_bits, bits, False, True, dot, why, _decoding(weights, bits))


def _is_stored_as(weights: Weights, dot: str) -> bool:
    return weights.block == 1 and weights.exact[0] == dot


def _decoding(weights: Weights, bits: int) -> str:
    """What it costs to decode first, in bytes per weight: written once, read once, beside what is stored."""
    before, after = weights.stored_bits / 8, bits / 8
    return (
        f"{after:g} bytes per weight of an expert while it is multiplied, not {before:.2f}; "
        f"{before + 2 * after:.2f} bytes moved per weight, not {before:.2f}"
    )


def _on_gpu(weights: Weights, architecture: Architecture, triton: str, pairs: int, fits_fp16: bool) -> Path:
    name = PATHS[architecture.rung].get(weights.kernel, TORCH)
    if name == TORCH:
        return _torch(weights, architecture)
    if pairs <= GEMV_PAIRS:
        why = f"up to {GEMV_PAIRS} pairs of a token and an expert go one by one, with weights as stored, in float32"
        if name == GEMV_MATMUL:
            return _packed(weights, name, "float32", f"{_no_tensor_cores(architecture)}; {why}")
        return _packed(weights, OWN_DECODE, "float32", why)
    if name == GEMV_MATMUL:
        return _without_tensor_cores(weights, architecture, fits_fp16)
    dot = weights.exact[0] if weights.block == 1 else "bfloat16"
    return _packed(weights, name, dot, _upcast_reason(weights, architecture, triton, dot))


def _upcast_reason(weights: Weights, architecture: Architecture, triton: str, dot: str) -> str:
    name, instruction = architecture.name, architecture.dots[0]
    if weights.block == 1:
        by = name if dot == "float32" else f"{instruction} on {name}"
        return f"{weights.how}; {by} multiplies {dot} itself"
    if weights.kernel == PLANES:
        by = f"arithmetic, as {name} has no instruction,"
        if architecture.rung == HARDWARE:
            by = f"an instruction of {name}"
            if _is_older(triton, TRITON):
                by = f"arithmetic, as Triton {triton} does not use {name}'s instruction,"
        return f"{weights.how}; {by} turns codes into {dot} in registers, for {instruction}"
    rounded = "" if dot in weights.exact else f" and rounded to {dot}"
    return f"{weights.how}{rounded}, for {instruction} on {name}"


def _is_older(version: str, than: str) -> bool:
    """Whether the first two numbers of `version` come before those of `than`."""
    return [int(part) for part in re.findall(r"\d+", version)[:2]] < [
        int(part) for part in re.findall(r"\d+", than)[:2]
    ]


def _torch(weights: Weights, architecture: Architecture) -> Path:
    if architecture.rung == NONE:
        reason = f"{architecture.name}: {architecture.reason}"
    else:
        reason = f"there is no kernel for {weights.name}"
    dot = architecture.matmul if architecture.matmul in weights.exact else "float32"
    return _decoded(weights, TORCH, dot, f"{reason}; torch.matmul multiplies experts decoded to {dot}")


def _without_tensor_cores(weights: Weights, architecture: Architecture, fits_fp16: bool) -> Path:
    dot, exact = "float32", "float16 would not hold every value"
    if weights.name == "F16":
        dot, exact = "float16", "exact"
    elif "float16" in weights.exact and fits_fp16:
        low, high = FP16_SCALES
        dot, exact = "float16", f"exact while all scales are {low} to {high}; float32 else"
    why = (
        f"{_no_tensor_cores(architecture)}, torch.matmul does: above {GEMV_PAIRS} pairs an "
        f"expert is decoded to {dot} ({exact}); sums and the residual stay float32"
    )
    return _decoded(weights, GEMV_MATMUL, dot, why)


def _no_tensor_cores(architecture: Architecture) -> str:
    return f"Triton 3.9 uses no tensor cores on {architecture.name}"


def _natively(path: Path, weights: Weights, architecture: Architecture, pairs: int) -> Path:
    """The path whose product takes MXFP4 itself, or the given one with the reason why there is none."""
    if weights.kernel != PLANES:
        return _without_native(path, f"{weights.name} is not MXFP4 in planes")
    if not architecture.native:
        return _without_native(path, f"{architecture.name} has no product of MXFP4")
    if pairs <= GEMV_PAIRS:
        return _without_native(path, f"{pairs} pairs are too few for it")
    kernel_dot = architecture.native[0]
    dot = f"{NATIVE[kernel_dot]} × MXFP4"
    why = f"asked for: {architecture.name} multiplies {dot}; activations are quantized, so results change"
    if kernel_dot == "mxfp8_wide":
        why += "; codes of weights become e4m3 in registers, exactly, as both sides must be alike for Triton 3.9"
    return replace(path, name=DOT_SCALED, native=True, emulated=False, dot=dot, why=why, kernel_dot=kernel_dot)


def _without_native(path: Path, obstacle: str) -> Path:
    return replace(path, why=f"native was asked for, but {obstacle}; {path.why}")
