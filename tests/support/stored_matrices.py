"""Random matrices in every encoding that the kernels take, with the values they stand for by another decoder.

MXFP4 and ggml's blocks by their definitions, floats by numpy.
"""

from __future__ import annotations

from typing import Any

import ggml_definitions
import ml_dtypes
import numpy as np
import torch
from numpy.typing import NDArray

from gptoss_convert.formats.codecs.ggml_blocks import TYPES
from gptoss_convert.kernels.weights import Matrices, matrices

Array = NDArray[Any]

E2M1 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6])
FLOATS = {"BF16": ml_dtypes.bfloat16, "F16": np.float16, "F32": np.float32}
GGML = tuple(name for name in TYPES if name not in ("Q2_K", "Q3_K"))
BLOCKS_OF_32 = tuple(name for name in GGML if TYPES[name].block_elements == 32)
ALL = ("MXFP4", "GGML_MXFP4", *FLOATS, *GGML)

# The standard deviation of what is made here: gates of a few hundred inputs then reach SwiGLU's clamps.
SPREAD = 0.3


def tensor(array: Array, device: str) -> torch.Tensor:
    """A copy on the device; ml_dtypes' bfloat16 becomes torch's."""
    array = np.ascontiguousarray(array)
    if array.dtype == ml_dtypes.bfloat16:
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16).to(device, copy=True)
    return torch.from_numpy(array).to(device, copy=True)


def mxfp4_blocks(codes: Array) -> Array:
    """uint8 [..., 16] of codes [..., 32], the even element low."""
    return (codes[..., 0::2] | codes[..., 1::2] << 4).astype(np.uint8)


def ggml_mxfp4_blocks(codes: Array, scales: Array) -> Array:
    """uint8 [..., 17] of codes [..., 32] and scales [...]: the scale, then elements j and j + 16 in byte j."""
    return np.concatenate([scales[..., None], codes[..., :16] | codes[..., 16:] << 4], axis=-1).astype(np.uint8)


def mxfp4_values(codes: Array, scales: Array) -> Array:
    """float64 [..., 32]."""
    return E2M1[codes] * np.exp2(scales.astype(np.float64) - 127)[..., None]


def random_ggml(name: str, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    """Blocks uint8 [*shape, block bytes] of random codes and factors, whose values have the deviation SPREAD."""
    kind = TYPES[name]
    data = rng.integers(0, 256, (*shape, kind.block_bytes), dtype=np.uint8)

    def put(halves: Array) -> None:
        for number, at in enumerate(kind.halves.values()):
            bits = halves[..., number].astype("<f2").view(np.uint16)
            data[..., at], data[..., at + 1] = bits & 255, bits >> 8

    put(np.ones((*shape, len(kind.halves))))
    deviation = decoded_ggml(name, data).std()
    signs = rng.choice([-1.0, 1.0], (*shape, len(kind.halves)))
    put(signs * rng.uniform(0.5, 1.5, signs.shape) * SPREAD / deviation)
    return data


def decoded_ggml(name: str, data: Array) -> Array:
    """float64 [..., elements of a block]."""
    return ggml_definitions.decoded(name, data).astype(np.float64)


def random_matrices(
    encoding: str, shape: tuple[int, int, int], rng: np.random.Generator, device: str
) -> tuple[Matrices, Array]:
    """Matrices [E, N, K] and their values float64."""
    n_experts, n_rows, cols = shape
    if encoding in FLOATS:
        floats = (SPREAD * rng.standard_normal(shape)).astype(FLOATS[encoding])
        return matrices(encoding, tensor(floats, device)), floats.astype(np.float64)
    if encoding in ("MXFP4", "GGML_MXFP4"):
        codes = rng.integers(0, 16, (n_experts, n_rows, cols // 32, 32), dtype=np.uint8)
        scales = rng.integers(121, 126, codes.shape[:3], dtype=np.uint8)
        values = mxfp4_values(codes, scales).reshape(shape)
        if encoding == "MXFP4":
            return matrices("MXFP4", tensor(mxfp4_blocks(codes), device), tensor(scales, device)), values
        data = ggml_mxfp4_blocks(codes, scales)
    else:
        data = random_ggml(encoding, (n_experts, n_rows, cols // TYPES[encoding].block_elements), rng)
        values = decoded_ggml(encoding, data).reshape(shape)
    return matrices(encoding, tensor(data.reshape(n_experts, n_rows, -1), device)), values
