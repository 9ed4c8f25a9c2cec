"""The words GGUF is written in: value types, tensor types, limits, and what a tensor of a type occupies.

    "GGUF" | u32 version | u64 n_tensors | u64 n_kv
    n_kv      x  str key | u32 value type | value          str = u64 n_bytes, then the bytes, no NUL
    n_tensors x  str name | u32 n_dims | u64 ne[n_dims] | u32 tensor type | u64 offset
    zeros up to the alignment; then each tensor's data, each padded with zeros to the alignment

Everything is little-endian. `ne` is ggml's order (`ne[0]` is the row length, the fastest axis), the reverse of
numpy's shape. Offsets count from the end of the padded header and are exactly the running sum of the padded sizes.

Source: ggml `docs/gguf.md`, `ggml/src/gguf.cpp`, `ggml/src/ggml.c` (type traits). The tables are our own because
importing gguf-py costs 0.1 s; tests compare them with gguf-py and with ggml itself.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Literal

from ..errors import GgufError

MAGIC = b"GGUF"
VERSION = 3
READABLE_VERSIONS = (2, 3)
DEFAULT_ALIGNMENT = 32
ALIGNMENT_KEY = "general.alignment"

DAMAGED = "The file is damaged or incomplete: download it again, or convert the model again."

MAX_HEADER_BYTES = 64 << 20  # a true gpt-oss header has 13 MB
MAX_ENTRIES = 65_536  # of keys, and of tensors; gpt-oss-120b has 687 tensors
MAX_KEY_BYTES = 65_535
MAX_NAME_BYTES = 63  # ggml keeps names in 64 bytes with their NUL
MAX_DIMS = 4
MAX_ELEMENTS = 2**63 - 1
MAX_ALIGNMENT = 2**31  # the largest power of two in a u32


class ValueType(IntEnum):
    """The type of a metadata value, by its number in the file."""

    U8 = 0
    I8 = 1
    U16 = 2
    I16 = 3
    U32 = 4
    I32 = 5
    F32 = 6
    BOOL = 7
    STRING = 8
    ARRAY = 9
    U64 = 10
    I64 = 11
    F64 = 12


# Every type of a fixed size; `struct` and numpy read these codes alike.
SCALAR_FORMATS = {
    ValueType.U8: "<B",
    ValueType.I8: "<b",
    ValueType.U16: "<H",
    ValueType.I16: "<h",
    ValueType.U32: "<I",
    ValueType.I32: "<i",
    ValueType.F32: "<f",
    ValueType.BOOL: "<?",
    ValueType.U64: "<Q",
    ValueType.I64: "<q",
    ValueType.F64: "<d",
}


@dataclass(frozen=True, slots=True)
class GgmlType:
    """How a tensor's elements are stored: blocks of `block_elements` elements in `block_bytes` bytes each."""

    name: str
    id: int
    block_elements: int
    block_bytes: int


F32 = GgmlType("F32", 0, 1, 4)
F16 = GgmlType("F16", 1, 1, 2)
BF16 = GgmlType("BF16", 30, 1, 2)
Q8_0 = GgmlType("Q8_0", 8, 32, 34)
MXFP4 = GgmlType("MXFP4", 39, 32, 17)
# Ollama 0.11.0 to 0.11.7 wrote MXFP4 under the number of ggml's Q4_2, removed in 2023, and in another nibble order.
OLLAMA_MXFP4 = GgmlType("OLLAMA_MXFP4", 4, 32, 17)

GGML_TYPES = {
    ggml_type.id: ggml_type
    for ggml_type in (
        F32,
        F16,
        GgmlType("Q4_0", 2, 32, 18),
        GgmlType("Q4_1", 3, 32, 20),
        OLLAMA_MXFP4,
        GgmlType("Q5_0", 6, 32, 22),
        GgmlType("Q5_1", 7, 32, 24),
        Q8_0,
        GgmlType("Q8_1", 9, 32, 36),
        GgmlType("Q2_K", 10, 256, 84),
        GgmlType("Q3_K", 11, 256, 110),
        GgmlType("Q4_K", 12, 256, 144),
        GgmlType("Q5_K", 13, 256, 176),
        GgmlType("Q6_K", 14, 256, 210),
        GgmlType("Q8_K", 15, 256, 292),
        GgmlType("IQ2_XXS", 16, 256, 66),
        GgmlType("IQ2_XS", 17, 256, 74),
        GgmlType("IQ3_XXS", 18, 256, 98),
        GgmlType("IQ1_S", 19, 256, 50),
        GgmlType("IQ4_NL", 20, 32, 18),
        GgmlType("IQ3_S", 21, 256, 110),
        GgmlType("IQ2_S", 22, 256, 82),
        GgmlType("IQ4_XS", 23, 256, 136),
        GgmlType("I8", 24, 1, 1),
        GgmlType("I16", 25, 1, 2),
        GgmlType("I32", 26, 1, 4),
        GgmlType("I64", 27, 1, 8),
        GgmlType("F64", 28, 1, 8),
        GgmlType("IQ1_M", 29, 256, 56),
        BF16,
        GgmlType("TQ1_0", 34, 256, 54),
        GgmlType("TQ2_0", 35, 256, 66),
        MXFP4,
        GgmlType("NVFP4", 40, 64, 36),
        GgmlType("Q1_0", 41, 128, 18),
        GgmlType("Q2_0", 42, 64, 18),
    )
}
REMOVED_TYPES = {
    5: "Q4_3",
    31: "Q4_0_4_4",
    32: "Q4_0_4_8",
    33: "Q4_0_8_8",
    36: "IQ4_NL_4_4",
    37: "IQ4_NL_4_8",
    38: "IQ4_NL_8_8",
}


@dataclass(frozen=True, slots=True)
class GgufTensor:
    """Where and how one tensor is stored.

    `ne` is in ggml's order; `offset` is absolute, in bytes from the start of the file; `n_bytes` is without padding.
    """

    name: str
    type: GgmlType
    ne: tuple[int, ...]
    offset: int
    n_bytes: int

    @property
    def shape(self) -> tuple[int, ...]:
        """The dimensions as numpy has them: the row length last."""
        return self.ne[::-1]


def align_up(n_bytes: int, alignment: int) -> int:
    """The smallest multiple of `alignment` that is at least `n_bytes`."""
    return -(-n_bytes // alignment) * alignment


def row_bytes(ggml_type: GgmlType, n_elements: int) -> int:
    """The bytes that a row of `n_elements` elements occupies.

    Raises:
        GgufError: the row is not a whole number of blocks.
    """
    if n_elements % ggml_type.block_elements:
        raise GgufError(
            f"a row is not a whole number of {ggml_type.name} blocks",
            expected=f"a row length that is a multiple of {ggml_type.block_elements}",
            found=n_elements,
        )
    return n_elements // ggml_type.block_elements * ggml_type.block_bytes


def tensor_bytes(tensor: str, ggml_type: GgmlType, ne: Sequence[int]) -> int:
    """The bytes, without padding, of a tensor of `ne` (ggml's order); also the check that ggml can hold such a tensor.

    Raises:
        GgufError: not 1 to 4 dimensions, a dimension below 1, more than 2**63 - 1 elements, or ragged rows.
    """
    if not 1 <= len(ne) <= MAX_DIMS:
        raise GgufError("wrong number of dimensions", tensor=tensor, expected=f"1 to {MAX_DIMS}", found=len(ne))
    if min(ne) < 1:
        raise GgufError("the tensor is empty", tensor=tensor, expected="every dimension at least 1", found=list(ne))
    n_elements = math.prod(ne)
    if n_elements > MAX_ELEMENTS:
        raise GgufError(
            "the tensor has more elements than ggml can count",
            tensor=tensor,
            expected=f"at most {MAX_ELEMENTS}",
            found=" x ".join(map(str, ne)),
        )
    try:
        return row_bytes(ggml_type, ne[0]) * (n_elements // ne[0])
    except GgufError as error:
        raise error.but(tensor=tensor) from None


def check_alignment(alignment: int) -> None:
    """Refuse an alignment that is not a power of two from 1 to 2**31.

    Raises:
        GgufError: it is not.
    """
    if not 1 <= alignment <= MAX_ALIGNMENT or alignment & (alignment - 1):
        raise GgufError("the alignment is not usable", key=ALIGNMENT_KEY, expected="a power of two", found=alignment)


def decode_name(raw: bytes, kind: Literal["key", "tensor"]) -> str:
    """`raw` as the text of a key or of a tensor's name.

    Raises:
        GgufError: it is empty, too long, not UTF-8, or holds a NUL byte (C readers would cut it there).
    """
    limit = MAX_KEY_BYTES if kind == "key" else MAX_NAME_BYTES
    noun = "key" if kind == "key" else "tensor name"
    if not raw:
        raise GgufError(f"a {noun} is empty", expected=f"1 to {limit} bytes", found="0 bytes")
    if len(raw) > limit:
        shown = raw[:MAX_NAME_BYTES].decode("utf-8", "replace")
        raise GgufError(
            f"the {noun} that starts with {shown!r} is too long",
            expected=f"at most {limit} bytes",
            found=f"{len(raw)} bytes",
        )
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        raise GgufError(f"a {noun} is not UTF-8", expected="UTF-8 text", found=raw) from None
    if "\0" in text:
        raise GgufError(f"a {noun} holds a NUL byte", expected="text without NUL", found=repr(text))
    return text
