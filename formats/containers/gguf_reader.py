"""Read a GGUF header and trust nothing in it.

Only the header is read, in chunks, never the tensors' data; every count and length is compared with what is left of
the file before anything is allocated for it. What is accepted is what ggml accepts, less what no honest writer
produces: names with NUL or not UTF-8, bools other than 0 and 1, empty tensors, data cut short, bytes after the data.

Source: ggml `docs/gguf.md` and `ggml/src/gguf.cpp`.
"""

from __future__ import annotations

import os
import struct
from array import array
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from ..errors import GgufError
from .gguf_types import (
    ALIGNMENT_KEY,
    DAMAGED,
    DEFAULT_ALIGNMENT,
    GGML_TYPES,
    MAGIC,
    MAX_DIMS,
    MAX_ENTRIES,
    MAX_HEADER_BYTES,
    MAX_KEY_BYTES,
    READABLE_VERSIONS,
    REMOVED_TYPES,
    SCALAR_FORMATS,
    GgmlType,
    GgufTensor,
    ValueType,
    align_up,
    check_alignment,
    decode_name,
    tensor_bytes,
)
from .gguf_values import GgufValue, Source, StringArray

_CHUNK_BYTES = 1 << 20

# The least that one entry occupies: a one-byte key with a one-byte value; a one-byte name with one dimension.
_MIN_KV_BYTES = 8 + 1 + 4 + 1
_MIN_TENSOR_BYTES = 8 + 1 + 4 + 8 + 4 + 8


@dataclass(frozen=True, slots=True)
class GgufFile:
    """A checked header: `kv` and `tensors` in file order, `data_offset` where the tensors' data begins."""

    path: Path
    file_bytes: int
    version: int
    alignment: int
    kv: dict[str, GgufValue]
    tensors: dict[str, GgufTensor]
    data_offset: int


def read_gguf(path: str | Path) -> GgufFile:
    """The header of the GGUF file at `path`, every rule of the format checked.

    Raises:
        GgufError: the file cannot be read or breaks a rule; the message names the rule and the key or tensor.
    """
    path = Path(path)
    try:
        if path.exists() and not path.is_file():
            raise GgufError("this is not a file", file=path, remedy="Give the path of a .gguf file.")
        with path.open("rb") as handle:
            cursor = _Cursor(handle, path)
            try:
                return _read(cursor)
            except GgufError as error:
                raise cursor.located(error) from error
    except OSError as error:
        raise GgufError(
            "the file cannot be read", file=path, found=error.strerror, remedy="Check the path and its permissions."
        ) from error


def _read(cursor: _Cursor) -> GgufFile:
    version, n_tensors, n_kv = _read_preamble(cursor)
    kv = _read_kv(cursor, n_kv)
    alignment = _read_alignment(cursor, kv)
    placed = _read_tensors(cursor, n_tensors, alignment)
    data_offset = align_up(cursor.position, alignment)
    tensors = {
        t.name: GgufTensor(t.name, t.type, t.ne, data_offset + t.relative_offset, t.n_bytes) for t in placed.values()
    }
    _check_extent(cursor, list(tensors.values()), alignment)
    return GgufFile(cursor.path, cursor.file_bytes, version, alignment, kv, tensors, data_offset)


class _Cursor:
    """A position in the header, and as much of the file as has been needed so far."""

    def __init__(self, handle: BinaryIO, path: Path) -> None:
        self.path = path
        self.file_bytes = os.fstat(handle.fileno()).st_size
        self.buffer = bytearray()
        self.position = 0
        self.key: str | None = None
        self.tensor: str | None = None
        self._handle = handle

    def located(self, error: GgufError) -> GgufError:
        """The error with the place that was being read, and the usual remedy if it has none of its own."""
        return error.but(
            file=self.path,
            tensor=error.tensor or self.tensor,
            key=error.key or self.key,
            remedy=error.remedy or DAMAGED,
        )

    def require(self, n_bytes: int, what: str) -> None:
        """Refuse `n_bytes` from here on unless the file has them and the header may."""
        left = self.file_bytes - self.position
        if n_bytes > left:
            raise GgufError(
                f"{what} reaches past the end of the file",
                expected=f"at most {left} bytes, all that is left of the file",
                found=f"{n_bytes} bytes",
            )
        if self.position + n_bytes > MAX_HEADER_BYTES:
            raise GgufError(
                f"{what} makes the header too long",
                expected=f"at most {MAX_HEADER_BYTES} bytes of header",
                found=f"{self.position + n_bytes} bytes or more",
            )

    def load(self, n_bytes: int, what: str) -> int:
        """Make `n_bytes` from here on present in the buffer; the buffer's length."""
        self.require(n_bytes, what)
        end = self.position + n_bytes
        while len(self.buffer) < end:
            chunk = self._handle.read(_CHUNK_BYTES)
            if not chunk:
                raise GgufError("the file became shorter while it was read")
            self.buffer += chunk
        return len(self.buffer)

    def take(self, n_bytes: int, what: str) -> bytes:
        self.load(n_bytes, what)
        start, self.position = self.position, self.position + n_bytes
        return bytes(self.buffer[start : self.position])

    def number(self, layout: str, what: str) -> Any:
        """One `struct` number."""
        return struct.unpack(layout, self.take(struct.calcsize(layout), what))[0]

    def text(self, what: str) -> bytes:
        """A length and as many bytes."""
        n_bytes = self.number("<Q", f"the length of {what}")
        return self.take(n_bytes, what)


def _read_preamble(cursor: _Cursor) -> tuple[int, int, int]:
    """version, n_tensors, n_kv."""
    magic = cursor.take(4, "the magic")
    if magic != MAGIC:
        raise GgufError("this is not a GGUF file", expected=MAGIC, found=magic, remedy="Give a .gguf file.")
    version = cursor.number("<I", "the version")
    if version and not version & 0xFFFF:
        raise GgufError(
            "this is a big-endian GGUF file",
            expected="little-endian",
            remedy="Convert it with gguf-py's gguf-convert-endian, or download the little-endian file.",
        )
    if version not in READABLE_VERSIONS:
        raise GgufError(
            "unknown GGUF version",
            expected=" or ".join(map(str, READABLE_VERSIONS)),
            found=version,
            remedy="Convert the model again with a current tool.",
        )
    n_tensors = _read_count(cursor, "tensors", _MIN_TENSOR_BYTES)
    n_kv = _read_count(cursor, "keys", _MIN_KV_BYTES)
    return version, n_tensors, n_kv


def _read_count(cursor: _Cursor, what: str, min_bytes: int) -> int:
    count: int = cursor.number("<q", f"the number of {what}")
    possible = min((cursor.file_bytes - cursor.position) // min_bytes, MAX_ENTRIES)
    if not 0 <= count <= possible:
        raise GgufError(f"impossible number of {what}", expected=f"0 to {possible} in this file", found=count)
    return count


def _read_kv(cursor: _Cursor, n_kv: int) -> dict[str, GgufValue]:
    kv: dict[str, GgufValue] = {}
    for index in range(n_kv):
        cursor.key = None
        n_bytes = cursor.number("<Q", f"the length of key {index}")
        if n_bytes > MAX_KEY_BYTES:
            raise GgufError(f"key {index} is too long", expected=f"at most {MAX_KEY_BYTES} bytes", found=n_bytes)
        key = decode_name(cursor.take(n_bytes, f"key {index}"), "key")
        cursor.key = key
        if key in kv:
            raise GgufError("the key is there twice", remedy="Write the file again with every key once.")
        kv[key] = _read_value(cursor, key)
    cursor.key = None
    return kv


def _read_value(cursor: _Cursor, key: str) -> GgufValue:
    source = Source(str(cursor.path), key)
    value_type = _read_value_type(cursor, "the value's type")
    if value_type is ValueType.STRING:
        return GgufValue(value_type, cursor.text("the string"), source=source)
    if value_type is not ValueType.ARRAY:
        raw = cursor.take(struct.calcsize(SCALAR_FORMATS[value_type]), "the value")
        if value_type is ValueType.BOOL and raw[0] > 1:
            raise GgufError("a bool is neither 0 nor 1", expected="0 or 1", found=raw[0])
        return GgufValue(value_type, struct.unpack(SCALAR_FORMATS[value_type], raw)[0], source=source)
    element_type = _read_value_type(cursor, "the array's element type")
    if element_type is ValueType.ARRAY:
        raise GgufError("the value is an array of arrays", expected="an array of scalars or strings")
    n = cursor.number("<Q", "the array's length")
    if element_type is ValueType.STRING:
        return GgufValue(value_type, _read_strings(cursor, n, source), element_type, source)
    return GgufValue(value_type, _read_numbers(cursor, element_type, n), element_type, source)


def _read_value_type(cursor: _Cursor, what: str) -> ValueType:
    number = cursor.number("<I", what)
    if number > max(ValueType):
        raise GgufError(f"{what} is unknown", expected=f"0 to {max(ValueType)}", found=number)
    return ValueType(number)


def _read_numbers(cursor: _Cursor, element_type: ValueType, n: int) -> np.ndarray[Any, np.dtype[Any]]:
    """A read-only 1-D array of `n` elements."""
    dtype = np.dtype(SCALAR_FORMATS[element_type])
    raw = cursor.take(n * dtype.itemsize, f"an array of {n} {element_type.name}")
    numbers = np.frombuffer(raw, np.uint8 if element_type is ValueType.BOOL else dtype)
    if element_type is ValueType.BOOL:
        if n and numbers.max() > 1:
            raise GgufError("a bool of the array is neither 0 nor 1", expected="0 or 1", found=numbers.max())
        numbers = numbers.view(np.bool_)
    return numbers


def _read_strings(cursor: _Cursor, n: int, source: Source) -> StringArray:
    """Step over `n` strings and note where each ends. The loop is flat because a vocabulary has 600,000 of them."""
    cursor.require(8 * n, f"an array of {n} strings")
    length_at = struct.Struct("<Q").unpack_from
    buffer = cursor.buffer
    loaded = len(buffer)
    position = cursor.position
    ends = array("I", [position])
    for index in range(n):
        if position + 8 > loaded:
            cursor.position = position
            loaded = cursor.load(8, f"the length of string {index}")
        end = position + 8 + length_at(buffer, position)[0]
        if end > loaded:
            cursor.position = position + 8
            loaded = cursor.load(end - cursor.position, f"string {index} of the array")
        ends.append(end)
        position = end
    cursor.position = position
    return StringArray(buffer, ends, source)


def _read_alignment(cursor: _Cursor, kv: dict[str, GgufValue]) -> int:
    value = kv.get(ALIGNMENT_KEY)
    if value is None:
        return DEFAULT_ALIGNMENT
    if value.type is not ValueType.U32:
        cursor.key = ALIGNMENT_KEY
        raise GgufError("the alignment has the wrong type", expected="U32", found=value.type.name)
    alignment: int = value.stored
    check_alignment(alignment)
    return alignment


class _TensorInfo(NamedTuple):
    name: str
    type: GgmlType
    ne: tuple[int, ...]
    relative_offset: int
    n_bytes: int


def _read_tensors(cursor: _Cursor, n_tensors: int, alignment: int) -> dict[str, _TensorInfo]:
    tensors: dict[str, _TensorInfo] = {}
    next_offset = 0
    for index in range(n_tensors):
        cursor.tensor = None
        name = decode_name(cursor.text(f"the name of tensor {index}"), "tensor")
        cursor.tensor = name
        if name in tensors:
            raise GgufError("the tensor is there twice", remedy="Write the file again with every tensor once.")
        info = _read_tensor_info(cursor, name)
        if info.relative_offset != next_offset:
            raise GgufError(
                "the tensor does not follow the one before it", expected=next_offset, found=info.relative_offset
            )
        next_offset += align_up(info.n_bytes, alignment)
        tensors[name] = info
    cursor.tensor = None
    return tensors


def _read_tensor_info(cursor: _Cursor, name: str) -> _TensorInfo:
    n_dims = cursor.number("<I", "the number of dimensions")
    if not 1 <= n_dims <= MAX_DIMS:
        raise GgufError("wrong number of dimensions", expected=f"1 to {MAX_DIMS}", found=n_dims)
    ne = struct.unpack(f"<{n_dims}Q", cursor.take(8 * n_dims, "the shape"))
    type_id = cursor.number("<I", "the tensor's type")
    ggml_type = GGML_TYPES.get(type_id)
    if ggml_type is None:
        raise _unknown_type(type_id)
    n_bytes = tensor_bytes(name, ggml_type, ne)
    return _TensorInfo(name, ggml_type, ne, cursor.number("<Q", "the offset"), n_bytes)


def _unknown_type(type_id: int) -> GgufError:
    if type_id not in REMOVED_TYPES:
        return GgufError(
            "unknown tensor type", expected=f"0 to {max(GGML_TYPES)}", found=type_id, remedy="Update gptoss-convert."
        )
    return GgufError(
        "the tensor's type was removed from ggml",
        expected="a type that ggml still reads",
        found=f"{type_id} ({REMOVED_TYPES[type_id]})",
        remedy="Convert the model again with a current tool.",
    )


def _check_extent(cursor: _Cursor, tensors: list[GgufTensor], alignment: int) -> None:
    """The data ends inside the file, and the file ends with the data; the last padding may be left out."""
    end = tensors[-1].offset + tensors[-1].n_bytes if tensors else cursor.position
    if end > cursor.file_bytes:
        cut = next(t for t in tensors if t.offset + t.n_bytes > cursor.file_bytes)
        cursor.tensor = cut.name
        raise GgufError(
            f"the file is {end - cursor.file_bytes} bytes too short for its tensors",
            expected=f"at least {end} bytes",
            found=f"{cursor.file_bytes} bytes",
        )
    if cursor.file_bytes > align_up(end, alignment):
        raise GgufError(
            "there are bytes after the last tensor",
            expected=f"at most {align_up(end, alignment)} bytes",
            found=f"{cursor.file_bytes} bytes",
        )
