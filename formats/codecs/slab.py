"""Slabs: some rows of one tensor in canonical form, and the way between them and stored parts.

Every stored encoding has one way in (`unpack`) and one way out (`pack`): never a converter per pair of layouts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import floats, ggml_blocks, ggml_mxfp4, mxfp4
from .encoding import BF16, F16, F32, GGML_MXFP4, MXFP4, QUANTIZED, Encoding
from .mxfp4 import Mxfp4

# What a float encoding's elements are to numpy; F16 and BF16 are handled as bit patterns.
_ELEMENT: dict[str, np.dtype[Any]] = {
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
            buffer = np.empty(n_bytes, np.uint8)
            self._buffers[name] = buffer
        return buffer[:n_bytes]

    def array(self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
        """The buffer `name` as an array of `shape` and `dtype`."""
        n_bytes = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        return self.take(name, n_bytes).view(dtype).reshape(shape)

    def nested(self, name: str) -> Scratch:
        """Buffers of their own for a second reader, kept under `name`."""
        return self._nested.setdefault(name, Scratch())


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
    (data,) = parts
    if encoding is GGML_MXFP4:
        n_rows, groups = len(data), data.shape[1] // 17
        blocks = scratch.array(f"{name}.blocks", (n_rows, groups, 16), np.dtype(np.uint8))
        scales = scratch.array(f"{name}.scales", (n_rows, groups), np.dtype(np.uint8))
        ggml_mxfp4.repack_from_ggml(data.reshape(n_rows, groups, 17), blocks, scales)
        return Mxfp4(blocks, scales)
    if encoding.name in QUANTIZED:
        n_bytes = encoding.row_bytes(encoding.block_elements)
        values = scratch.array(
            f"{name}.values", (len(data), data.shape[1] // n_bytes * encoding.block_elements), _ELEMENT[F32.name]
        )
        ggml_blocks.decode(encoding.name, data, values)
        return Dense(F32, values)
    return Dense(encoding, data.view(_ELEMENT[encoding.name]))


def pack(slab: Slab, encoding: Encoding, outs: Sequence[NDArray[np.uint8]]) -> int:
    """Writes `slab` as `encoding` into `outs` (uint8 [N, row bytes] per part; rows may be strided).

    Returns:
        How many values had to be rounded: 0 unless the encoding is coarser than the slab's.

    Raises:
        CodecError: a value overflows the encoding.
    """
    if encoding is MXFP4:
        assert isinstance(slab, Mxfp4)
        for out, plane in zip(outs, planes(slab), strict=True):
            out[:] = plane.reshape(out.shape)
        return 0
    (out,) = outs
    if encoding is GGML_MXFP4:
        assert isinstance(slab, Mxfp4)
        ggml_mxfp4.repack_to_ggml(slab, out.reshape(len(out), -1, 17))
        return 0
    values = out.view(_ELEMENT[encoding.name])
    if isinstance(slab, Mxfp4):
        return _DECODE[encoding.name](slab, values) or 0
    return floats.convert(slab.values, slab.encoding.name, encoding.name, values)


_DECODE: dict[str, Any] = {F32.name: mxfp4.decode_f32, F16.name: mxfp4.decode_f16, BF16.name: mxfp4.decode_bf16}


def restore(
    slab: Slab, encoding: Encoding, scales: NDArray[np.uint8] | None, scratch: Scratch, name: str
) -> tuple[Slab, int]:
    """`slab` in the canonical `encoding` it came from, and how many of its values that encoding does not hold exactly.

    A decoded MXFP4 tensor is encoded again with the `scales` it was decoded with, which determine its codes.
    """
    if encoding_of(slab) is encoding:
        return slab, 0
    assert isinstance(slab, Dense)
    n_rows, cols = slab.values.shape
    if encoding is MXFP4:
        assert scales is not None
        blocks = scratch.array(f"{name}.restored", (n_rows, cols // 32, 16), np.dtype(np.uint8))
        wrong = mxfp4.encode_exact(slab.values, slab.encoding.name, scales, blocks)
        return Mxfp4(blocks, scales), wrong
    values = scratch.array(f"{name}.restored", (n_rows, cols), _ELEMENT[encoding.name])
    return Dense(encoding, values), floats.convert(slab.values, slab.encoding.name, encoding.name, values)
