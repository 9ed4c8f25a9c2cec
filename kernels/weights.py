"""Stored matrices as the kernels take them: the stored bytes themselves and where each row lies in them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from ..formats.codecs.encoding import QUANTIZED
from ..formats.errors import REPORT, CodecError

# encoding -> elements of a block; for each part its dtype and how many of them a block has
_Parts = tuple[tuple[torch.dtype, int], ...]
ENCODINGS: dict[str, tuple[int, _Parts]] = {
    "MXFP4": (32, ((torch.uint8, 16), (torch.uint8, 1))),
    "GGML_MXFP4": (32, ((torch.uint8, 17),)),
    "BF16": (1, ((torch.bfloat16, 1),)),
    "F16": (1, ((torch.float16, 1),)),
    "F32": (1, ((torch.float32, 1),)),
    **{
        name: (QUANTIZED[name].block_elements, ((torch.uint8, QUANTIZED[name].parts[0][1]),))
        for name in ("Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "IQ4_NL", "Q4_K", "Q5_K", "Q6_K")
    },
    "Q8_0_PLANES": (32, ((torch.int8, 32), (torch.float16, 1))),
}


@dataclass(frozen=True)
class Matrices:
    """E matrices [N, K] as they are stored on a device, rows and columns at any stride.

    Args:
        encoding: a key of ENCODINGS. MXFP4 has Hugging Face's planes (MLX's uint32 words are the same bytes),
            Q8_0_PLANES what `split_planes` makes; the other block types lie as in a GGUF file.
        parts: MXFP4: blocks and scales, uint8; Q8_0_PLANES: codes, int8, and scales, float16; other block types: bytes,
            uint8; BF16, F16 and F32: tensors of that dtype. Seen as one row of elements each, whatever their shape.
        shape: E, N, K.
        expert_strides: per part, in elements of that part, from one matrix to the next.
        row_strides: from row n to n + 1 (interleaved gate and up: twice a row).
        col_strides: from one block to the next along K, or from one float to the next (in Hugging Face's transposed
            BF16 [E, K, 2N]: 2N).
        offsets: of row 0 of matrix 0.

    Raises:
        CodecError: there is no kernel for the encoding, or K is not a whole number of blocks.
    """

    encoding: str
    parts: tuple[torch.Tensor, ...]
    shape: tuple[int, int, int]
    expert_strides: tuple[int, ...]
    row_strides: tuple[int, ...]
    col_strides: tuple[int, ...]
    offsets: tuple[int, ...]

    def __post_init__(self) -> None:
        check_encoding(self.encoding)
        block, parts = ENCODINGS[self.encoding]
        if self.shape[2] % block:
            raise CodecError(
                f"a row is not a whole number of {self.encoding} blocks",
                expected=f"a multiple of {block} elements",
                found=self.shape[2],
                remedy=REPORT,
            )
        assert tuple(part.dtype for part in self.parts) == tuple(dtype for dtype, _ in parts)
        for index, part in enumerate(self.parts):
            last = self.offsets[index] + parts[index][1] - 1
            strides = (self.expert_strides[index], self.row_strides[index], self.col_strides[index])
            last += sum(stride * (size - 1) for stride, size in zip(strides, self._sizes(), strict=True))
            held = part.untyped_storage().nbytes() // part.itemsize - part.storage_offset()
            assert not all(self.shape) or last < held, "the rows lie outside the stored tensor"

    def view(self, index: int) -> torch.Tensor:
        """A part as a tensor [E, N, blocks of a row, elements of a block]; nothing is copied."""
        inner = ENCODINGS[self.encoding][1][index][1]
        strides = (self.expert_strides[index], self.row_strides[index], self.col_strides[index], 1)
        part = self.parts[index]
        return part.as_strided((*self._sizes(), inner), strides, part.storage_offset() + self.offsets[index])

    def rows(self, first: int, step: int) -> Matrices:
        """Every `step`-th row from `first` on: of interleaved gate_up gate is `rows(0, 2)` and up `rows(1, 2)`."""
        n_experts, n_rows, cols = self.shape
        return replace(
            self,
            shape=(n_experts, (n_rows - first + step - 1) // step, cols),
            row_strides=tuple(step * stride for stride in self.row_strides),
            offsets=tuple(o + first * stride for o, stride in zip(self.offsets, self.row_strides, strict=True)),
        )

    def expert(self, number: int) -> Matrices:
        """One of the matrices, as one of one."""
        moved = zip(self.offsets, self.expert_strides, strict=True)
        return replace(
            self, shape=(1, *self.shape[1:]), offsets=tuple(offset + number * stride for offset, stride in moved)
        )

    @property
    def is_transposed(self) -> bool:
        """Whether the elements of a column lie nearer to each other than those of a row."""
        return self.row_strides[0] < self.col_strides[0] and ENCODINGS[self.encoding][0] == 1

    def is_laid_out_like(self, other: Matrices) -> bool:
        """Whether only the addresses differ."""
        return (self.encoding, self.shape, self.expert_strides, self.row_strides, self.col_strides) == (
            other.encoding,
            other.shape,
            other.expert_strides,
            other.row_strides,
            other.col_strides,
        )

    def _sizes(self) -> tuple[int, int, int]:
        n_experts, n_rows, cols = self.shape
        return n_experts, n_rows, cols // ENCODINGS[self.encoding][0]


@dataclass(frozen=True)
class MoeWeights:
    """The experts of one layer.

    Args:
        gate, up: I rows of H elements.
        down: H rows of I elements.
        gate_bias, up_bias: float32 [E, I].
        down_bias: float32 [E, H].
    """

    gate: Matrices
    up: Matrices
    down: Matrices
    gate_bias: torch.Tensor
    up_bias: torch.Tensor
    down_bias: torch.Tensor

    def __post_init__(self) -> None:
        n_experts, inner, hidden = self.gate.shape
        assert self.up.shape == self.gate.shape
        assert self.down.shape == (n_experts, hidden, inner)
        for bias, n_rows in ((self.gate_bias, inner), (self.up_bias, inner), (self.down_bias, hidden)):
            assert bias.shape == (n_experts, n_rows)
            assert bias.dtype == torch.float32


def check_encoding(encoding: str) -> None:
    """Raises CodecError unless there are kernels for `encoding`."""
    if encoding not in ENCODINGS:
        raise CodecError(
            "there is no kernel for this encoding",
            expected=", ".join(ENCODINGS),
            found=encoding,
            remedy="Convert the file to MXFP4, BF16 or a GGUF of one of these types first.",
        )


def matrices(encoding: str, *parts: torch.Tensor) -> Matrices:
    """Matrices from tensors shaped as they are stored.

    Args:
        encoding: a key of ENCODINGS.
        parts: floats [E, N, K], at any strides (a transposed view, say); MXFP4 and Q8_0_PLANES [E, N, G, elements of a
            block] and [E, N, G]; other block types [E, N, bytes of a row].
    """
    check_encoding(encoding)
    block, forms = ENCODINGS[encoding]
    cols = []
    for part, (_, inner) in zip(parts, forms, strict=True):
        assert part.ndim == 3 or part.stride(3) == 1
        whole_blocks = part.ndim == 4 or inner == 1
        assert whole_blocks or part.stride(2) == 1
        cols.append(part.stride(2) if whole_blocks else inner)
    first, inner = parts[0], forms[0][1]
    groups = first.shape[2] if first.ndim == 4 or inner == 1 else first.shape[2] // inner
    return Matrices(
        encoding=encoding,
        parts=parts,
        shape=(first.shape[0], first.shape[1], groups * block),
        expert_strides=tuple(part.stride(0) for part in parts),
        row_strides=tuple(part.stride(1) for part in parts),
        col_strides=tuple(cols),
        offsets=(0,) * len(parts),
    )


def split_planes(stored: Matrices) -> Matrices:
    """The same values with codes and scales in planes of their own, which a GPU reads in words instead of bytes.

    GGML_MXFP4 becomes MXFP4 and Q8_0 becomes Q8_0_PLANES, copied matrix by matrix. Transposed floats are laid row by
    row. Others are returned as they are.
    """
    if stored.is_transposed:
        return matrices(stored.encoding, stored.view(0)[..., 0].contiguous())
    if stored.encoding not in ("GGML_MXFP4", "Q8_0"):
        return stored
    data = stored.view(0)
    n_experts, n_rows, groups, _ = data.shape
    is_mxfp4 = stored.encoding == "GGML_MXFP4"
    shape, dtypes = (n_experts, n_rows, groups), (torch.uint8, torch.uint8) if is_mxfp4 else (torch.int8, torch.float16)
    codes = torch.empty((*shape, 16 if is_mxfp4 else 32), dtype=dtypes[0], device=data.device)
    scales = torch.empty(shape, dtype=dtypes[1], device=data.device)
    for source, to_codes, to_scales in zip(data, codes, scales, strict=True):
        if is_mxfp4:
            to_scales.copy_(source[..., 0])
            even, odd = source[..., 1::2], source[..., 2::2]
            to_codes[..., :8] = (even & 15) | (odd << 4)
            to_codes[..., 8:] = (even >> 4) | (odd & 0xF0)
        else:
            to_scales.copy_(source[..., :2].contiguous().view(torch.float16)[..., 0])
            to_codes.copy_(source[..., 2:].contiguous().view(torch.int8))
    return matrices("MXFP4" if is_mxfp4 else "Q8_0_PLANES", codes, scales)
