"""What the decode kernel makes of every encoding, compared bit for bit: each figure counts values that differ."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from stored_matrices import (
    FLOATS,
    GGML,
    ggml_mxfp4_blocks,
    mxfp4_blocks,
    mxfp4_values,
    random_ggml,
    random_matrices,
    tensor,
)

from gptoss_convert.formats.codecs import ggml_blocks
from gptoss_convert.kernels.decode import decode
from gptoss_convert.kernels.weights import Matrices, matrices, split_planes

Array = NDArray[Any]


def differing(stored: Matrices, expected: Array) -> int:
    """How many of the decoded values have other bits than expected; NaN is like any NaN."""
    found = decode(stored).cpu().numpy()
    with np.errstate(over="ignore"):
        expected = expected.astype(np.float32).reshape(found.shape)
    same = (found.view(np.uint32) == expected.view(np.uint32)) | (np.isnan(found) & np.isnan(expected))
    return int((~same).sum())


def every_code_and_scale() -> tuple[Array, Array, Array]:
    """Codes [1, 256, 3, 32], scales [1, 256, 3] and values: each code under each scale byte, 255 being NaN."""
    scales = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, axis=1)[None]
    codes = np.stack([np.arange(32) % 16, np.arange(31, -1, -1) % 16, np.arange(32) * 7 % 16]).astype(np.uint8)
    codes = np.ascontiguousarray(np.broadcast_to(codes, (1, 256, 3, 32)))
    values = mxfp4_values(codes, scales)
    values[0, 255] = np.nan
    return codes, scales, values


def ggml_blocks_and_values(name: str) -> tuple[Array, Array]:
    """Random blocks [2, 5, 3, bytes], some with a tiny, a negative, a zero or a large d, by the package's own codec."""
    rng = np.random.default_rng(sum(name.encode()))
    data = random_ggml(name, (2, 5, 3), rng)
    kind = ggml_blocks.TYPES[name]
    for row, d in enumerate((1, 0x8001, 0, 0x7BFF)):  # the smallest, the same negative, zero, the largest
        for at in kind.halves.values():
            data[0, row, 0, at], data[0, row, 0, at + 1] = d & 255, d >> 8
    out = np.empty((10, 3 * kind.block_elements), np.float32)
    ggml_blocks.decode(name, data.reshape(10, -1), out)
    return data, out


def figures(device: str) -> Iterator[tuple[str, Any]]:
    yield from mxfp4_figures(device)
    for name in GGML:
        data, values = ggml_blocks_and_values(name)
        stored = matrices(name, tensor(data.reshape(2, 5, -1), device))
        yield name, differing(stored, values)
        if name == "Q8_0":
            planes = split_planes(stored)
            assert planes.encoding == "Q8_0_PLANES"
            yield "Q8_0 in planes", differing(planes, values)
    yield from float_figures(device)
    yield from place_figures(device)


def mxfp4_figures(device: str) -> Iterator[tuple[str, Any]]:
    codes, scales, values = every_code_and_scale()
    planes = matrices("MXFP4", tensor(mxfp4_blocks(codes), device), tensor(scales, device))
    yield "MXFP4", differing(planes, values)
    ggml = matrices("GGML_MXFP4", tensor(ggml_mxfp4_blocks(codes, scales).reshape(1, 256, -1), device))
    yield "GGML_MXFP4", differing(ggml, values)
    split = split_planes(ggml)
    assert split.encoding == "MXFP4"
    yield "GGML_MXFP4 in planes", differing(split, values)
    yield "other codes than those", differing(planes, np.roll(values, 1, axis=3))


def float_figures(device: str) -> Iterator[tuple[str, Any]]:
    """Every pattern of the short floats; of F32 random ones."""
    for name in FLOATS:
        if name == "F32":
            bits = np.random.default_rng(1).integers(0, 2**32, 1 << 16, dtype=np.uint32)
        else:
            bits = np.arange(1 << 16, dtype=np.uint16)
        floats = bits.view(FLOATS[name]).reshape(1, 64, 1024)
        yield name, differing(matrices(name, tensor(floats, device)), floats)


def place_figures(device: str) -> Iterator[tuple[str, Any]]:
    """Rows, matrices and columns elsewhere than one after another."""
    rng = np.random.default_rng(2)
    for name in ("MXFP4", "GGML_MXFP4", "BF16", "Q5_K"):
        stored, values = random_matrices(name, (3, 10, 512), rng, device)
        yield f"odd rows of {name}", differing(stored.rows(1, 2), values[:, 1::2])
        yield f"third row on of expert 1 of {name}", differing(stored.expert(1).rows(2, 3), values[1:2, 2::3])
    for name in FLOATS:
        stored, values = random_matrices(name, (2, 6, 10), rng, device)
        turned = matrices(name, stored.parts[0].transpose(1, 2))
        yield f"transposed {name}", differing(turned, values.transpose(0, 2, 1))
    codes = rng.integers(0, 16, (1, 4, 6, 32), dtype=np.uint8)
    scales = rng.integers(110, 130, (1, 4, 6), dtype=np.uint8)
    blocks = np.concatenate([mxfp4_blocks(codes), np.full((1, 4, 6, 3), 0xAA, np.uint8)], axis=3)
    gaps = matrices("MXFP4", tensor(blocks, device), tensor(scales, device))
    yield "MXFP4 with gaps between blocks", differing(gaps, mxfp4_values(codes, scales))
    yield "beyond 2^31 bytes", far_apart(device)


def far_apart(device: str) -> int:
    """The second of two matrices begins where an int32 would overflow."""
    rng = np.random.default_rng(3)
    stored, values = random_matrices("GGML_MXFP4", (2, 4, 64), rng, device)
    n_bytes = stored.parts[0][0].numel()
    stride = 2**31 + 4096
    # Pages that nobody writes to are never there.
    memory = torch.from_numpy(np.zeros(stride + n_bytes, np.uint8)).to(device)
    for expert in range(2):
        memory[expert * stride :][:n_bytes] = stored.parts[0][expert].flatten()
    apart = Matrices("GGML_MXFP4", (memory,), (2, 4, 64), (stride,), stored.row_strides, stored.col_strides, (0,))
    return differing(apart, values)
