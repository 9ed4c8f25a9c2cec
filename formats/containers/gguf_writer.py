"""Plan a GGUF file: its header, and where every tensor's data goes, before the first byte is written.

The format allows exactly one place for each tensor, so the caller writes `plan.header` at 0 and each tensor's bytes
at its `offset`, in any order, into a file of `plan.file_bytes`. What lies between must be zero, as in a new file
that was made that long.

    plan = plan_gguf(
        {"general.architecture": string("gpt-oss"), "gpt-oss.block_count": u32(24)},
        [("output_norm.weight", F32, (2880,))],
    )

Source: ggml `docs/gguf.md` and `ggml/src/gguf.cpp`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..errors import GgufError, remedied
from .gguf_types import (
    ALIGNMENT_KEY,
    DEFAULT_ALIGNMENT,
    MAGIC,
    MAX_ENTRIES,
    MAX_HEADER_BYTES,
    VERSION,
    GgmlType,
    GgufTensor,
    ValueType,
    align_up,
    check_alignment,
    decode_name,
    tensor_bytes,
)
from .gguf_values import GgufValue, encode_value

NOT_HELD = "GGUF files cannot hold it: choose another target."

PlannedTensor = tuple[str, GgmlType, Sequence[int]]
"""name, type, shape as numpy has it."""


@dataclass(frozen=True, slots=True)
class GgufPlan:
    """A whole GGUF file but for its tensors' bytes.

    `header` ends where the data begins, padding included; `tensors` are in file order with absolute offsets;
    `file_bytes` includes the padding after the last tensor.
    """

    header: bytes = field(repr=False)
    tensors: dict[str, GgufTensor]
    file_bytes: int
    alignment: int


def plan_gguf(
    kv: Mapping[str, GgufValue], tensors: Iterable[PlannedTensor], *, alignment: int = DEFAULT_ALIGNMENT
) -> GgufPlan:
    """The one file that holds `kv` and `tensors` in the order given. Pure: touches no disk.

    An alignment other than 32 is recorded under `general.alignment`.

    Raises:
        GgufError: ggml would refuse the file, or a value would not survive in it.
    """
    with remedied(NOT_HELD):
        return _plan(_with_alignment(kv, alignment), tensors, alignment)


def _plan(kv: Mapping[str, GgufValue], tensors: Iterable[PlannedTensor], alignment: int) -> GgufPlan:
    relative = _place(tensors, alignment)
    for what, count in (("keys", len(kv)), ("tensors", len(relative))):
        if count > MAX_ENTRIES:
            raise GgufError(f"too many {what} for one file", expected=f"at most {MAX_ENTRIES}", found=count)
    parts = [MAGIC, struct.pack("<IQQ", VERSION, len(relative), len(kv))]
    parts += [_encode_name(key, "key") + encode_value(value, key) for key, value in kv.items()]
    parts += [_encode_info(tensor) for tensor in relative]
    n_bytes = sum(map(len, parts))
    if n_bytes > MAX_HEADER_BYTES:
        raise GgufError(
            "the metadata is too long for a GGUF header", expected=f"at most {MAX_HEADER_BYTES} bytes", found=n_bytes
        )
    data_offset = align_up(n_bytes, alignment)
    parts.append(bytes(data_offset - n_bytes))
    placed = {tensor.name: replace(tensor, offset=data_offset + tensor.offset) for tensor in relative}
    data_bytes = sum(align_up(tensor.n_bytes, alignment) for tensor in relative)
    return GgufPlan(b"".join(parts), placed, data_offset + data_bytes, alignment)


def _with_alignment(kv: Mapping[str, GgufValue], alignment: int) -> Mapping[str, GgufValue]:
    check_alignment(alignment)
    given = kv.get(ALIGNMENT_KEY)
    if given is not None and given != u32(alignment):
        raise GgufError("the metadata has another alignment", key=ALIGNMENT_KEY, expected=alignment, found=given.value)
    if given is None and alignment != DEFAULT_ALIGNMENT:
        return {ALIGNMENT_KEY: u32(alignment), **kv}
    return kv


def _place(tensors: Iterable[PlannedTensor], alignment: int) -> list[GgufTensor]:
    """The tensors with offsets from the start of the data."""
    placed: list[GgufTensor] = []
    names: set[str] = set()
    offset = 0
    for name, ggml_type, shape in tensors:
        if name in names:
            raise GgufError("two tensors have the same name", tensor=name)
        names.add(name)
        ne = tuple(int(n) for n in reversed(shape))
        n_bytes = tensor_bytes(name, ggml_type, ne)
        placed.append(GgufTensor(name, ggml_type, ne, offset, n_bytes))
        offset += align_up(n_bytes, alignment)
    return placed


def _encode_name(name: str, kind: Literal["key", "tensor"]) -> bytes:
    try:
        raw = name.encode()
    except UnicodeEncodeError:
        raise GgufError(f"a {kind}'s name is not valid Unicode", found=ascii(name)) from None
    decode_name(raw, kind)
    return struct.pack("<Q", len(raw)) + raw


def _encode_info(tensor: GgufTensor) -> bytes:
    """name, dimensions, type, offset from the start of the data."""
    n_dims = len(tensor.ne)
    return _encode_name(tensor.name, "tensor") + struct.pack(
        f"<I{n_dims}QIQ", n_dims, *tensor.ne, tensor.type.id, tensor.offset
    )


# Values, named after their type: metadata reads as a table. They are checked when the file is planned, where the
# message can name the key.


def string(text: str) -> GgufValue:
    return GgufValue(ValueType.STRING, text)


def boolean(flag: bool) -> GgufValue:
    return GgufValue(ValueType.BOOL, flag)


def u8(number: int) -> GgufValue:
    return GgufValue(ValueType.U8, number)


def u16(number: int) -> GgufValue:
    return GgufValue(ValueType.U16, number)


def u32(number: int) -> GgufValue:
    return GgufValue(ValueType.U32, number)


def u64(number: int) -> GgufValue:
    return GgufValue(ValueType.U64, number)


def i32(number: int) -> GgufValue:
    return GgufValue(ValueType.I32, number)


def f32(number: float) -> GgufValue:
    return GgufValue(ValueType.F32, number)


def strings(texts: Sequence[str]) -> GgufValue:
    return GgufValue(ValueType.ARRAY, texts, ValueType.STRING)


def i32s(numbers: Sequence[int] | NDArray[np.integer[Any]]) -> GgufValue:
    return GgufValue(ValueType.ARRAY, numbers, ValueType.I32)


def f32s(numbers: Sequence[float] | NDArray[np.floating[Any]]) -> GgufValue:
    return GgufValue(ValueType.ARRAY, numbers, ValueType.F32)
