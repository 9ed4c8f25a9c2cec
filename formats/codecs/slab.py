"""Slabs: some rows of one tensor in canonical form, and the way between them and stored parts.

Every stored encoding has one way in (`unpack`) and one way out (`pack`): never a converter per pair of layouts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import floats, ggml_blocks, ggml_mxfp4, metal_values, mlx_affine, mxfp4, ollama_mxfp4
from .encoding import (
    BF16,
    F16,
    F32,
    GGML_MXFP4,
    METAL_MXFP4,
    MXFP4,
    OLLAMA_MXFP4,
    QUANTIZED,
    AffineEncoding,
    Encoding,
    HeadsEncoding,
)
from .mxfp4 import Mxfp4

# What a float encoding's elements are to numpy; F16 and BF16 are handled as bit patterns.
ELEMENT: dict[str, np.dtype[Any]] = {
    F32.name: np.dtype("<f4"),
    F16.name: np.dtype("<u2"),
    BF16.name: np.dtype("<u2"),
}


@dataclass(frozen=True)
class Dense:
    """Rows of floats. `values`: F32 as float32, F16 and BF16 as uint16 bit patterns, [N, cols]; rows may be strided."""

    encoding: Encoding
    values: NDArray[Any]


Slab = Dense | Mxfp4


class Scratch:
    """Buffers that live as long as their worker: the first touch of new memory is many times slower than reuse."""

    def __init__(self) -> None:
        self._buffers: dict[str, NDArray[np.uint8]] = {}
        self._nested: dict[str, Scratch] = {}

    def take(self, name: str, n_bytes: int) -> NDArray[np.uint8]:
        """`n_bytes` bytes of the buffer `name`, with whatever they held; grown when needed."""
        buffer = self._buffers.get(name)
        if buffer is None or len(buffer) < n_bytes:
            buffer = _aligned(n_bytes)
            self._buffers[name] = buffer
        return buffer[:n_bytes]

    def array(self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
        """The buffer `name` as an array of `shape` and `dtype`."""
        n_bytes = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        return self.take(name, n_bytes).view(dtype).reshape(shape)

    def nested(self, name: str) -> Scratch:
        """Buffers of their own for a second reader, kept under `name`."""
        return self._nested.setdefault(name, Scratch())


def _aligned(n_bytes: int) -> NDArray[np.uint8]:
    """New memory that begins at a multiple of 64 bytes: products of matrices may depend on where these lie."""
    memory = np.empty(n_bytes + 64, np.uint8)
    begin = -memory.ctypes.data % 64
    return memory[begin : begin + n_bytes]


def encoding_of(slab: Slab) -> Encoding:
    """The canonical encoding of `slab`."""
    return MXFP4 if isinstance(slab, Mxfp4) else slab.encoding


def planes(slab: Slab) -> list[NDArray[Any]]:
    """The slab's canonical bytes, part by part, as arrays [N, …]."""
    return [slab.blocks, slab.scales] if isinstance(slab, Mxfp4) else [slab.values]


def unpack(encoding: Encoding, parts: Sequence[NDArray[np.uint8]], scratch: Scratch, name: str) -> Slab:
    """The canonical form of stored rows.

    Args:
        encoding: how `parts` are encoded.
        parts: uint8 [N, row bytes] per part, in the encoding's order; rows may be strided. A view of them is
            returned where the canonical form is the stored one.
        scratch: where other forms are put, under `name`.
    """
    if encoding is MXFP4:
        blocks, scales = parts
        return Mxfp4(blocks.reshape(len(blocks), -1, 16), scales)
    if encoding is METAL_MXFP4:
        blocks, scales = parts
        shifted = scratch.array(f"{name}.scales", scales.shape, scales.dtype)
        metal_values.shift_scales(scales, -metal_values.SCALE_SHIFT, shifted)
        return Mxfp4(blocks.reshape(len(blocks), -1, 16), shifted)
    if isinstance(encoding, AffineEncoding):
        return _unpack_affine(encoding, parts, scratch, name)
    (data,) = parts
    if encoding is GGML_MXFP4 or encoding is OLLAMA_MXFP4:
        n_rows, groups = len(data), data.shape[1] // 17
        blocks = scratch.array(f"{name}.blocks", (n_rows, groups, 16), np.dtype(np.uint8))
        scales = scratch.array(f"{name}.scales", (n_rows, groups), np.dtype(np.uint8))
        if encoding is OLLAMA_MXFP4:
            ollama_mxfp4.part(data, blocks, scales)
        else:
            ggml_mxfp4.repack_from_ggml(data.reshape(n_rows, groups, 17), blocks, scales)
        return Mxfp4(blocks, scales)
    if isinstance(encoding, HeadsEncoding):
        patterns = data.view(ELEMENT[BF16.name])
        values = scratch.array(f"{name}.values", patterns.shape, patterns.dtype)
        metal_values.decode_heads(patterns, encoding.head_dim, encoding.exponent, values)
        return Dense(BF16, values)
    if encoding.name in QUANTIZED:
        n_bytes = encoding.row_bytes(encoding.block_elements)
        values = scratch.array(
            f"{name}.values", (len(data), data.shape[1] // n_bytes * encoding.block_elements), ELEMENT[F32.name]
        )
        ggml_blocks.decode(encoding.name, data, values)
        return Dense(F32, values)
    return Dense(encoding, data.view(ELEMENT[encoding.name]))


def _unpack_affine(encoding: AffineEncoding, parts: Sequence[NDArray[np.uint8]], scratch: Scratch, name: str) -> Dense:
    weight, scales, biases = parts
    groups = scales.shape[1] // encoding.parts[1][1]
    values = scratch.array(f"{name}.values", (len(weight), groups * encoding.block_elements), ELEMENT[F32.name])
    mlx_affine.decode(
        weight.view(np.dtype("<u4")),
        scales.view(ELEMENT[encoding.scales]),
        biases.view(ELEMENT[encoding.scales]),
        values,
        encoding=encoding.scales,
        bits=encoding.bits,
        group_size=encoding.block_elements,
    )
    return Dense(F32, values)


def pack(slab: Slab, encoding: Encoding, outs: Sequence[NDArray[np.uint8]]) -> int:
    """Writes `slab` as `encoding` into `outs` (uint8 [N, row bytes] per part; rows may be strided).

    Returns:
        How many values had to be rounded: 0 unless the encoding is coarser than the slab's.

    Raises:
        CodecError: a value overflows the encoding.
    """
    if encoding is MXFP4 or encoding is METAL_MXFP4:
        assert isinstance(slab, Mxfp4)
        blocks, scales = outs
        blocks[:] = slab.blocks.reshape(blocks.shape)
        if encoding is METAL_MXFP4:
            metal_values.shift_scales(slab.scales, metal_values.SCALE_SHIFT, scales)
        else:
            scales[:] = slab.scales
        return 0
    (out,) = outs
    if encoding is GGML_MXFP4:
        assert isinstance(slab, Mxfp4)
        ggml_mxfp4.repack_to_ggml(slab, out.reshape(len(out), -1, 17))
        return 0
    if encoding is OLLAMA_MXFP4:
        assert isinstance(slab, Mxfp4)
        ollama_mxfp4.join(slab, out)
        return 0
    if isinstance(encoding, HeadsEncoding):
        return _pack_heads(slab, encoding, out)
    values = out.view(ELEMENT[encoding.name])
    if isinstance(slab, Mxfp4):
        return _DECODE[encoding.name](slab, values) or 0
    return floats.convert(slab.values, slab.encoding.name, encoding.name, values)


def _pack_heads(slab: Slab, encoding: HeadsEncoding, out: NDArray[np.uint8]) -> int:
    """A whole matrix of q or k. Values that are not BF16 yet become so first."""
    assert isinstance(slab, Dense)
    values, rounded = slab.values, 0
    if slab.encoding is not BF16:
        values = np.empty(slab.values.shape, ELEMENT[BF16.name])
        rounded = floats.convert(slab.values, slab.encoding.name, BF16.name, values)
    metal_values.encode_heads(values, encoding.head_dim, encoding.exponent, out.view(ELEMENT[BF16.name]))
    return rounded


_DECODE: dict[str, Any] = {F32.name: mxfp4.decode_f32, F16.name: mxfp4.decode_f16, BF16.name: mxfp4.decode_bf16}


def restore(
    slab: Slab, encoding: Encoding, scales: NDArray[np.uint8] | None, scratch: Scratch, name: str
) -> tuple[Slab, int]:
    """`slab` in the canonical `encoding` it came from, and how many of its values that encoding does not hold exactly.

    A decoded MXFP4 tensor is encoded again with the `scales` it was decoded with, which determine its codes; one that
    was encoded from floats is decoded.
    """
    if encoding_of(slab) is encoding:
        return slab, 0
    if isinstance(slab, Mxfp4):
        n_rows, groups = slab.scales.shape
        values = scratch.array(f"{name}.restored", (n_rows, 32 * groups), ELEMENT[encoding.name])
        return Dense(encoding, values), _DECODE[encoding.name](slab, values)
    n_rows, cols = slab.values.shape
    if encoding is MXFP4:
        assert scales is not None
        blocks = scratch.array(f"{name}.restored", (n_rows, cols // 32, 16), np.dtype(np.uint8))
        wrong = mxfp4.encode_exact(slab.values, slab.encoding.name, scales, blocks)
        return Mxfp4(blocks, scales), wrong
    values = scratch.array(f"{name}.restored", (n_rows, cols), ELEMENT[encoding.name])
    return Dense(encoding, values), floats.convert(slab.values, slab.encoding.name, encoding.name, values)


def as_f32(slab: Slab, scratch: Scratch, name: str) -> NDArray[np.float32]:
    """The slab's values, float32 [N, cols], which hold every encoding's. Raises CodecError if one overflows."""
    n_rows = len(planes(slab)[0])
    cols = 32 * slab.scales.shape[1] if isinstance(slab, Mxfp4) else slab.values.shape[1]
    values = scratch.array(f"{name}.f32", (n_rows, cols), ELEMENT[F32.name])
    if isinstance(slab, Mxfp4):
        mxfp4.decode_f32(slab, values)
    else:
        floats.convert(slab.values, slab.encoding.name, F32.name, values)
    return values
