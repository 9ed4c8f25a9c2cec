"""ggml's quantized blocks, decoded to float32: the same bits as ggml's own decoder.

Fields lie one after another, their bytes in brackets. `d`, `m` and `dmin` are F16; everything is little-endian.

Blocks of 32 elements:

    type    bytes   fields                                                           value of an element
    Q8_0      34    | d [2] | codes, int8 [32] |                                     code * d
    Q4_0      18    | d [2] | nibbles [16] |                                         (code - 8) * d
    Q4_1      20    | d [2] | m [2] | nibbles [16] |                                 code * d + m
    Q5_0      22    | d [2] | high [4] | nibbles [16] |                              (code - 16) * d
    Q5_1      24    | d [2] | m [2] | high [4] | nibbles [16] |                      code * d + m
    IQ4_NL    18    | d [2] | nibbles [16] |                                         IQ4_NL_LEVELS[code] * d

    nibbles   byte j holds codes j (low) and j + 16 (high); Q5: the low four bits of them
    high      bit i of this 32-bit number is bit 4 of code i

Blocks of 256 elements, in 16 groups of 16 (Q2_K, Q3_K, Q6_K) or 8 groups of 32 (Q4_K, Q5_K):

    Q2_K      84    | factors [16] | pairs [64] | d [2] | dmin [2] |                 code * scale * d - minimum * dmin
    Q3_K     110    | bits [32] | pairs [64] | factors [12] | d [2] |                (code - 4) * (scale - 32) * d
    Q4_K     144    | d [2] | dmin [2] | factors [12] | nibbles [128] |              code * scale * d - minimum * dmin
    Q5_K     176    | d [2] | dmin [2] | factors [12] | bits [32] | nibbles [128] |  code * scale * d - minimum * dmin
    Q6_K     210    | nibbles [128] | pairs [64] | factors, int8 [16] | d [2] |      (code - 32) * scale * d

    nibbles   Q4_K, Q5_K: byte 32c + i holds codes 64c + i (low) and 64c + 32 + i (high), i = 0..31; the low four bits
              Q6_K:       byte 64h + i holds codes 128h + i (low) and 128h + 64 + i (high), i = 0..63; the low four bits
    pairs     byte 32h + i holds two bits of codes 128h + i, + 32, + 64, + 96, from its lowest bits up
              (Q6_K: bits 4 and 5 of them)
    bits      byte i holds one bit of codes i, i + 32, ..., i + 224, from its lowest bit up
              (Q3_K: bit 2, Q5_K: bit 4)
    factors   Q2_K: byte g   | minimum g, 4 bits | scale g, 4 bits |                         high bits on the left
              Q3_K: byte j   | low 4 bits of scale j + 8 | low 4 bits of scale j |           j = 0..7
                    byte 8+k | high 2 bits of scale k + 12 | k + 8 | k + 4 | k |             k = 0..3
              Q4_K, Q5_K:
                    byte k   | high 2 bits of scale k + 4 | scale k, 6 bits |                k = 0..3
                    byte 4+k | high 2 bits of minimum k + 4 | minimum k, 6 bits |
                    byte 8+k | low 4 bits of minimum k + 4 | low 4 bits of scale k + 4 |
              Q6_K: byte g is scale g

Every product is exact in float32 (at most 23 significant bits, Q6_K), so only the last addition rounds: fused or not,
in any order of the factors, the bits are the same on every machine.

Source: ggml `block_*` in ggml-common.h, `dequantize_row_*` and `ggml_validate_row_data` in ggml-quants.c.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from ..errors import DAMAGED_TENSOR, REPORT, CodecError
from . import accelerate
from .contiguous import pieces
from .mxfp4 import require_rows


class BlockType(NamedTuple):
    """A block: how many elements, how many bytes, and at which byte its F16 numbers lie."""

    block_elements: int
    block_bytes: int
    halves: dict[str, int]


TYPES: dict[str, BlockType] = {
    "Q4_0": BlockType(32, 18, {"d": 0}),
    "Q4_1": BlockType(32, 20, {"d": 0, "m": 2}),
    "Q5_0": BlockType(32, 22, {"d": 0}),
    "Q5_1": BlockType(32, 24, {"d": 0, "m": 2}),
    "Q8_0": BlockType(32, 34, {"d": 0}),
    "IQ4_NL": BlockType(32, 18, {"d": 0}),
    "Q2_K": BlockType(256, 84, {"d": 80, "dmin": 82}),
    "Q3_K": BlockType(256, 110, {"d": 108}),
    "Q4_K": BlockType(256, 144, {"d": 0, "dmin": 2}),
    "Q5_K": BlockType(256, 176, {"d": 0, "dmin": 2}),
    "Q6_K": BlockType(256, 210, {"d": 208}),
}


# What a code of IQ4_NL stands for, in units of `d`.
IQ4_NL_LEVELS = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)


class GgmlKernels(Protocol):
    """What `numba_ggml` and `numpy_ggml` both offer."""

    def decode(self, type_name: str, data: NDArray[Any], out: NDArray[Any]) -> int:
        """The first of B blocks whose `d`, `m` or `dmin` is not finite, or -1; writes all blocks before it.

        Args:
            type_name: a key of TYPES.
            data: uint8 [B, block bytes], C-contiguous.
            out: float32 [B, block elements], C-contiguous.
        """


def decode(type_name: str, data: NDArray[np.uint8], out: NDArray[np.float32]) -> None:
    """Writes the values of N rows of blocks into `out` float32 [N, cols].

    Args:
        type_name: a key of TYPES, as ggml names it.
        data: uint8 [N, cols / block elements * block bytes]. Rows of both may lie any distance apart.
        out: written; `cols` is a multiple of the block's elements.

    Raises:
        CodecError: there is no such type, a shape or dtype is wrong, or a block's `d`, `m` or `dmin` is infinite or
            NaN, which ggml's validation refuses too; row and block are named.
    """
    if type_name not in TYPES:
        raise CodecError(
            "there is no decoder for this block type", expected=", ".join(TYPES), found=type_name, remedy=REPORT
        )
    kind = TYPES[type_name]
    n_rows, cols = out.shape
    if cols % kind.block_elements:
        raise CodecError(
            f"a row is not a whole number of {type_name} blocks",
            expected=f"a multiple of {kind.block_elements} elements",
            found=cols,
            remedy=REPORT,
        )
    groups = cols // kind.block_elements
    require_rows("data", data, np.uint8, (n_rows, groups * kind.block_bytes))
    require_rows("out", out, np.float32, (n_rows, cols))
    if not out.size:
        return
    for begin, stored, target in pieces(data, out):
        blocks = stored.reshape(-1, kind.block_bytes)
        bad = _kernels().decode(type_name, blocks, target.reshape(-1, kind.block_elements))
        if bad >= 0:
            _refuse_nonfinite(type_name, blocks[bad], begin + bad // groups, bad % groups)


def _kernels() -> GgmlKernels:
    from . import numpy_ggml, numpy_kernels

    if accelerate.kernels() is numpy_kernels:
        return numpy_ggml
    from . import numba_ggml

    return numba_ggml


def _refuse_nonfinite(type_name: str, block: NDArray[np.uint8], row: int, number: int) -> None:
    for name, at in TYPES[type_name].halves.items():
        value = np.frombuffer(block[at : at + 2].tobytes(), "<f2")[0]
        if not np.isfinite(value):
            raise CodecError(
                f"row {row}, block {number}: the {type_name} scale {name} is not finite",
                expected="a finite F16 number",
                found=value,
                remedy=DAMAGED_TENSOR,
            )
    raise AssertionError("the block is sound")
