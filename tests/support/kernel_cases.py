"""What the checks of the MoE kernels are run on. Imports no Triton, so that it can be listed on every system."""

from __future__ import annotations

from dataclasses import dataclass, replace

from stored_matrices import BLOCKS_OF_32, FLOATS, GGML

from gptoss_convert.kernels.tiles import Tiles

MOE_ENCODINGS = ("MXFP4", "GGML_MXFP4", *FLOATS, *BLOCKS_OF_32)
MATMUL_ENCODINGS = ("MXFP4", *GGML)
LIMIT = 7.0
STAGES = ("weights", "gate", "up", "activated", "down", "out")
GEMM, GEMV = Tiles(16, 128, 128, 4, 2), Tiles(1, 64, 256, 4, 2)


@dataclass(frozen=True)
class Shape:
    """T tokens with k of E experts; K = `hidden` for gate and up, `inner` for down."""

    tokens: int = 7
    experts: int = 5
    top_k: int = 3
    hidden: int = 96
    inner: int = 160


SHAPES: dict[str, tuple[str, Shape, Tiles]] = {
    "one token": ("MXFP4", Shape(tokens=1), GEMM),
    "one token, one expert": ("BF16", Shape(tokens=1, experts=1, top_k=1), GEMM),
    "more experts than pairs": ("MXFP4", Shape(tokens=1, experts=9, top_k=2), GEMM),
    "all experts chosen": ("BF16", Shape(top_k=5), GEMM),
    "two tiles of one expert, the second with one pair": ("BF16", Shape(tokens=17, experts=1, top_k=1), GEMM),
    "tiles of 32 pairs": ("BF16", Shape(tokens=40, experts=3), replace(GEMM, BM=32)),
    "rows in several tiles, the last one cut": ("MXFP4", Shape(inner=96, hidden=160), Tiles(16, 32, 64, 4, 2)),
    "rows in several tiles, by GEMV": ("MXFP4", Shape(tokens=2, inner=96, hidden=160), Tiles(1, 32, 64, 4, 2)),
    "K in several steps, the last one cut": ("MXFP4", Shape(hidden=352, inner=224), Tiles(16, 256, 128, 4, 2)),
    "odd widths": ("BF16", Shape(hidden=75, inner=37), Tiles(16, 64, 32, 4, 2)),
    "odd widths by GEMV": ("F32", Shape(tokens=2, hidden=75, inner=37), Tiles(1, 64, 32, 4, 2)),
    "one row": ("F16", Shape(hidden=33, inner=1), GEMM),
    "one column": ("F16", Shape(hidden=1, inner=33), GEMM),
    "one block": ("MXFP4", Shape(hidden=32, inner=32), GEMM),
    "true width": ("MXFP4", Shape(tokens=2, experts=2, top_k=2, hidden=2880, inner=64), Tiles(16, 64, 1024, 4, 2)),
}

LADDER_ARCHS = ("interpret", "sm_75", "sm_86")
LADDER_ENCODINGS = ("MXFP4", "GGML_MXFP4", "BF16", "F16", "Q8_0")
# Of 3 experts each: one by one, and in tiles.
LADDER_TOKENS = (2, 20)

# What `moe` is asked for -> what activations are quantized to.
NATIVE_KINDS = {"mxfp8": "MXFP8", "mxfp8_wide": "MXFP8", "mxfp4": "MXFP4"}
NATIVE_SHAPES: dict[str, tuple[Shape, Tiles]] = {
    "seven tokens": (Shape(), GEMM),
    "one block": (Shape(hidden=32, inner=32), GEMM),
    "rows in several tiles, the last one cut": (Shape(inner=96, hidden=160), Tiles(16, 32, 64, 4, 2)),
    "K in several steps, the last one cut": (Shape(hidden=352, inner=224), Tiles(16, 256, 128, 4, 2)),
    "tiles of 32 pairs": (Shape(tokens=40, experts=3), replace(GEMM, BM=32)),
    "all experts chosen": (Shape(top_k=5), GEMM),
}
