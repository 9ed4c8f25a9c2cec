"""MLX's affine quantization, decoded to float32: groups of codes that share a scale and a bias.

    weight, uint32, 8 bits    |    code 3 |    code 2 |    code 1 |    code 0 |      code i in bits 8i to 8i + 7
    weight, uint32, 4 bits    | c 7 | c 6 | c 5 | c 4 | c 3 | c 2 | c 1 | c 0 |      code i in bits 4i to 4i + 3

    value of an element = code * scale + bias

Words are little-endian, so the bytes of a row are its codes in order: one a byte, or two with the earlier one in the
low nibble (the interleaved order of `mxfp4`). A row has a scale and a bias for every `group_size` elements, all BF16,
F16 or F32; scales may be negative. MLX's mode "mxfp4" is not affine: its words and its scale bytes are the very bytes
of the blocks and scales of `mxfp4`.

The product and the sum are rounded to float32, each by itself. A BF16 or F16 scale makes the product exact; only the
sum rounds, and the value is the float32 nearest to code * scale + bias. MLX's Metal kernels for matrix products compute
in float32 too. `mx.dequantize` on the CPU computes in the dtype of scales and biases, product and sum each rounded to
it: the same bits for F32, but with BF16 and 8 bits a value can be off by almost a whole step of the code.

Source: `mx.dequantize` of MLX 0.32.4 (measured); `dequantize`, `qdot` in mlx/backend/metal/kernels/quantized.h.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..errors import DAMAGED_TENSOR, REPORT, CodecError
from . import accelerate, floats
from .contiguous import pieces
from .encoding import F32
from .mxfp4 import require_rows

BITS = (4, 8)
GROUP_SIZES = (32, 64, 128)


class MlxKernels(Protocol):
    """What `numba_mlx` and `numpy_mlx` both offer. B groups; all arrays are C-contiguous."""

    def decode_4(self, codes: NDArray[Any], scales: NDArray[Any], biases: NDArray[Any], out: NDArray[Any]) -> None:
        """`out[b, i] = codes[b, i] * scales[b] + biases[b]`.

        Args:
            codes: uint8 [B, group size / 2], the earlier code in the low nibble.
            scales: float32 [B].
            biases: float32 [B].
            out: float32 [B, group size].
        """

    def decode_8(self, codes: NDArray[Any], scales: NDArray[Any], biases: NDArray[Any], out: NDArray[Any]) -> None:
        """As `decode_4`, with `codes` uint8 [B, group size]."""


def decode(
    weight: NDArray[np.uint32],
    scales: NDArray[Any],
    biases: NDArray[Any],
    out: NDArray[np.float32],
    *,
    encoding: str,
    bits: int,
    group_size: int,
) -> None:
    """Writes the values of N rows into `out` float32 [N, cols].

    Args:
        weight: uint32 [N, cols * bits / 32]. Rows of all four arrays may lie any distance apart.
        scales: [N, cols / group_size], float32 for "F32", uint16 patterns for "BF16" and "F16".
        biases: the same.
        out: written; `cols` is a multiple of `group_size`.
        encoding: how scales and biases are encoded: "F32", "F16" or "BF16".
        bits: 4 or 8.
        group_size: 32, 64 or 128.

    Raises:
        CodecError: `bits` or `group_size` is another number, a shape or dtype is wrong, a scale or bias is infinite
            or NaN, or a value overflows float32; row and group, or row and element, are named.
    """
    _require_one_of("bits", bits, BITS)
    _require_one_of("group_size", group_size, GROUP_SIZES)
    n_rows, cols = out.shape
    if cols % group_size:
        raise CodecError(
            "a row is not a whole number of groups",
            expected=f"a multiple of {group_size} elements",
            found=cols,
            remedy=REPORT,
        )
    groups = cols // group_size
    require_rows("weight", weight, np.uint32, (n_rows, cols * bits // 32))
    require_rows("out", out, np.float32, (n_rows, cols))
    scale = _as_f32("scales", scales, encoding, (n_rows, groups))
    bias = _as_f32("biases", biases, encoding, (n_rows, groups))
    if not out.size:
        return
    kernel = _kernels().decode_4 if bits == 4 else _kernels().decode_8
    for begin, words, target in pieces(weight, out):
        some = slice(begin, begin + len(target))
        codes = words.view(np.uint8).reshape(-1, group_size * bits // 8)
        kernel(codes, scale[some].reshape(-1), bias[some].reshape(-1), target.reshape(-1, group_size))
    _refuse_overflow(scale, bias, bits, out)


def _as_f32(name: str, array: NDArray[Any], encoding: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """The values of scales or biases, float32 [N, G], C-contiguous.

    Raises:
        CodecError: the array has another dtype or shape, or holds NaN or infinity.
    """
    require_rows(name, array, np.float32 if encoding == F32.name else np.uint16, shape)
    values = np.empty(shape, np.float32)
    floats.convert(array, encoding, F32.name, values)
    found = floats.find_nonfinite(values, F32.name)
    if found is not None:
        row, group = found
        raise CodecError(
            f"row {row}, group {group} of the {name} is not finite",
            expected=f"a finite {encoding} number",
            found=values[found],
            remedy=DAMAGED_TENSOR,
        )
    return values


def _refuse_overflow(
    scales: NDArray[np.float32], biases: NDArray[np.float32], bits: int, out: NDArray[np.float32]
) -> None:
    """Raises CodecError naming the first value that is not finite. Looks at values only where one can be."""
    if _largest(scales) * (2**bits - 1) + _largest(biases) <= float(np.finfo(np.float32).max):
        return
    found = floats.find_nonfinite(out, F32.name)
    if found is not None:
        row, element = found
        group = element // (out.shape[1] // scales.shape[1])
        raise CodecError(
            f"row {row}, element {element} is too large for F32",
            expected="a magnitude that F32 can hold",
            found=f"scale {scales[row, group]:g}, bias {biases[row, group]:g}",
            remedy=DAMAGED_TENSOR,
        )


def _largest(values: NDArray[np.float32]) -> float:
    return float(max(values.max(), -values.min()))


def _require_one_of(name: str, value: int, allowed: tuple[int, ...]) -> None:
    if value not in allowed:
        raise CodecError(
            f"there is no decoder for MLX's affine quantization with this {name}",
            key=name,
            expected=" or ".join(map(str, allowed)),
            found=value,
            remedy="Convert the model again from its original weights.",
        )


def _kernels() -> MlxKernels:
    from . import numpy_kernels, numpy_mlx

    if accelerate.kernels() is numpy_kernels:
        return numpy_mlx
    from . import numba_mlx

    return numba_mlx
