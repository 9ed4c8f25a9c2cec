"""How large the pieces are that a program works on: a table, for tuning would need the device."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from .architectures import ARCHITECTURES, NATIVE

SORT_CHUNK = 1024  # pairs looked at together
ROUTE_TOKENS = 4  # tokens of a program on a GPU
COMBINE_BLOCK = 512  # elements of a program
SWIGLU_BLOCK = 1024
QUANTIZE_BLOCKS = 64  # blocks of 32 of a program on a GPU
DECODE_TILE = (32, 128)  # rows and columns of a program on a GPU

GEMV_PAIRS = 16
"""Up to so many pairs of a token and an expert are multiplied one by one: few experts are met twice."""

GATHERED = ("Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "IQ4_NL", "GGML_MXFP4", "Q4_K", "Q5_K", "Q6_K")
"""Encodings whose bytes are loaded one by one: a large tile of them does not fit in registers."""


@dataclass(frozen=True)
class Tiles:
    """One program's share of a matrix product.

    Args:
        BM: pairs of a token and an expert; 1 is the GEMV, which makes no dots.
        BN: rows of gate and as many of up, or twice as many rows of a single matrix.
        BK: elements of a row per step, at least 32.
        warps: of 32 threads (64 on AMD's CDNA).
        stages: steps whose loads are under way together.
    """

    BM: int
    BN: int
    BK: int
    warps: int
    stages: int


def tiles_for(
    backend: str,
    arch: str,
    n_tokens: int,
    encoding: str,
    *,
    dot: str = "bf16",
    top_k: int = 4,
    n_experts: int = 32,
    is_transposed: bool = False,
) -> Tiles:
    """The tiles for `n_tokens` tokens whose `top_k` experts are of `n_experts`.

    Args:
        backend: "cuda", "hip" or "interpret", whose cost is per step, not per element.
        arch: "sm_90", "gfx942" …
        encoding: a key of weights.ENCODINGS.
        dot: as `moe` takes it.
        is_transposed: rows are one element apart, or two, which costs an address for every element.
    """
    share = -(-n_tokens * top_k // n_experts)
    if backend not in ("cuda", "hip"):
        return Tiles(BM=16 if share <= 16 else 64, BN=256, BK=256, warps=4, stages=1)
    stages = _stages(backend, arch)
    is_rdna = arch.startswith(("gfx11", "gfx12"))  # 256 registers, and more of them for a product
    is_narrow = encoding in GATHERED or (encoding == "Q8_0_PLANES" and is_rdna)
    if n_tokens * top_k <= GEMV_PAIRS:
        length = 128 if is_narrow and stages == 1 else 256
        return Tiles(BM=1, BN=8, BK=length, warps=8 if is_narrow else 4, stages=min(3, stages))
    if dot == "f32":
        return Tiles(BM=16, BN=32, BK=32, warps=4, stages=min(2, stages))
    if is_narrow:
        return Tiles(BM=16, BN=32, BK=32 if is_rdna else 64, warps=8, stages=min(2, stages))
    rows = 128 if dot in NATIVE and _is_tcgen05(arch) else 64
    if share <= 16:
        length = 32 if is_transposed else 128 if encoding == "MXFP4" and not is_rdna else 64
        return Tiles(BM=16, BN=rows, BK=length, warps=4, stages=min(3, stages))
    is_large = share >= 256 and stages == 4
    return Tiles(BM=128 if is_large else 64, BN=rows, BK=64, warps=8, stages=stages)


def target_of(device: torch.device) -> tuple[str, str]:
    """Backend and architecture of a device: ("cuda", "sm_90"), ("hip", "gfx942"), or ("interpret", "")."""
    if device.type != "cuda":
        return "interpret", ""
    properties = torch.cuda.get_device_properties(device)
    if torch.version.hip:
        return "hip", properties.gcnArchName.partition(":")[0]
    return "cuda", f"sm_{properties.major}{properties.minor}"


def _is_tcgen05(arch: str) -> bool:
    """Whether a product with scales is tcgen05's, which wants 128 rows on its left; with fewer it is no native one."""
    return arch in ARCHITECTURES and "tcgen05.mma" in ARCHITECTURES[arch].dots


def _stages(backend: str, arch: str) -> int:
    """As many as shared memory has room for; without tensor cores one, for there nothing waits for loads alone."""
    row = ARCHITECTURES.get(arch)
    if row is None or backend == "hip":
        return 2
    if not row.dots:
        return 1
    return 4 if row.shared_bytes > 200_000 else 3
