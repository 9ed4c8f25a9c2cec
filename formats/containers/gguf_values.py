"""Metadata values of GGUF: typed, encoded without ever wrapping a number, strings decoded only when asked for.

A value in the file, after its key:

    scalar  u32 type | the number, little-endian (a bool is one byte, 0 or 1)
    string  u32 8    | u64 n_bytes | UTF-8 bytes
    array   u32 9    | u32 element type | u64 n | n elements, packed as above without their types

Source: ggml `docs/gguf.md`, section "File Structure".
"""

from __future__ import annotations

import operator
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, NamedTuple, overload

import numpy as np
from numpy.typing import NDArray

from ..errors import GgufError
from .gguf_types import DAMAGED, SCALAR_FORMATS, ValueType

_U32 = struct.Struct("<I")
_U64 = struct.Struct("<Q")
_FLOATS = (ValueType.F32, ValueType.F64)


class Source(NamedTuple):
    """Where a value was read, for messages."""

    file: str
    key: str


class StringArray(Sequence[str]):
    """The strings of an array as they lie in the file, decoded one by one on access.

    `data` holds `u64 n_bytes | bytes` for every string; string i ends at `ends[i + 1]`, and `ends[0]` is where the
    first one begins. 647,289 strings of a gpt-oss header cost 2.6 MB this way, as Python objects 60 MB.

    Raises:
        GgufError: on access, a string is not UTF-8.
    """

    __slots__ = ("_data", "_ends", "_source")

    def __init__(self, data: bytes | bytearray, ends: Sequence[int], source: Source) -> None:
        self._data = data
        self._ends = ends
        self._source = source

    def __len__(self) -> int:
        return len(self._ends) - 1

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        i = range(len(self))[index]
        raw = bytes(self._data[self._ends[i] + 8 : self._ends[i + 1]])
        return decode_string(raw, self._source, index=i)

    def __iter__(self) -> Iterator[str]:
        data, ends = self._data, iter(self._ends)
        start = next(ends)
        for index, end in enumerate(ends):
            try:
                yield data[start + 8 : end].decode()
            except UnicodeDecodeError:
                decode_string(bytes(data[start + 8 : end]), self._source, index=index)
            start = end

    def __eq__(self, other: object) -> bool:
        if isinstance(other, StringArray):
            return len(self) == len(other) and self.payload == other.payload
        if isinstance(other, Sequence) and not isinstance(other, str | bytes):
            return len(self) == len(other) and all(map(operator.eq, self, other))
        return NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"StringArray({len(self)} strings)"

    @property
    def payload(self) -> bytes:
        """The strings exactly as the file holds them, lengths included."""
        return bytes(self._data[self._ends[0] : self._ends[-1]])


@dataclass(frozen=True, eq=False, slots=True)
class GgufValue:
    """A metadata value with the type it has in the file; two are equal if GGUF stores them alike.

    `stored` is a number or bool; `str`, or `bytes` as read, for a string; for an array (`type` is ARRAY and
    `element_type` is set) a 1-D numpy array, a `StringArray`, or any sequence.
    """

    type: ValueType
    stored: Any
    element_type: ValueType | None = None
    source: Source | None = None

    @property
    def value(self) -> Any:
        """`stored`, with a string decoded to `str`.

        Raises:
            GgufError: the string is not UTF-8.
        """
        if isinstance(self.stored, bytes):
            return decode_string(self.stored, self.source)
        return self.stored

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, GgufValue):
            return NotImplemented
        if (self.type, self.element_type) != (other.type, other.element_type):
            return False
        return encode_value(self, "") == encode_value(other, "")

    __hash__ = None  # type: ignore[assignment]


def decode_string(raw: bytes, source: Source | None, *, index: int | None = None) -> str:
    """`raw` as text; `index` is its place in an array.

    Raises:
        GgufError: it is not UTF-8.
    """
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        place = "the string" if index is None else f"string {index} of the array"
        raise GgufError(
            f"{place} is not UTF-8",
            file=source.file if source else None,
            key=source.key if source else None,
            expected="UTF-8 text",
            found=f"byte {raw[error.start]:#04x} at position {error.start}",
            remedy=DAMAGED,
        ) from None


def encode_value(value: GgufValue, key: str) -> bytes:
    """The value as it stands after its key in the file: type, then payload. `key` is for messages.

    Raises:
        GgufError: the value does not fit its type. Nothing is wrapped, truncated or replaced.
    """
    tag = _U32.pack(value.type)
    if value.type is not ValueType.ARRAY:
        return tag + _encode_scalar(value.type, value.stored, key)
    if value.element_type is None or value.element_type is ValueType.ARRAY:
        raise GgufError(
            "the array's element type cannot be stored", key=key, expected="a scalar type", found=value.element_type
        )
    if value.element_type is ValueType.STRING:
        payload = _encode_strings(value.stored, key)
    else:
        payload = _encode_numbers(value.element_type, value.stored, key)
    return tag + _U32.pack(value.element_type) + _U64.pack(len(value.stored)) + payload


def _encode_scalar(value_type: ValueType, stored: Any, key: str) -> bytes:
    if value_type is ValueType.STRING:
        raw = stored if isinstance(stored, bytes) else _encode_text(stored, key)
        return _U64.pack(len(raw)) + raw
    is_bool = isinstance(stored, bool | np.bool_)
    try:
        if is_bool != (value_type is ValueType.BOOL) or isinstance(stored, str | bytes):
            raise TypeError
        number = stored if is_bool or value_type in _FLOATS else operator.index(stored)
        return struct.pack(SCALAR_FORMATS[value_type], number)
    except (TypeError, struct.error, OverflowError):
        raise _misfit(value_type, key, repr(stored)) from None


def _encode_text(text: object, key: str) -> bytes:
    if not isinstance(text, str):
        raise _misfit(ValueType.STRING, key, repr(text))
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise GgufError(
            "the text is not valid Unicode", key=key, expected="no lone surrogate", found=ascii(text)
        ) from None


def _encode_strings(values: Sequence[str], key: str) -> bytes:
    if isinstance(values, StringArray):
        return values.payload
    if isinstance(values, str):
        raise GgufError("a list of strings is wanted", key=key, expected="a list", found="one string")
    try:
        encoded = list(map(str.encode, values))
    except (TypeError, UnicodeEncodeError):
        encoded = [_encode_text(text, key) for text in values]
    lengths = map(_U64.pack, map(len, encoded))
    return b"".join(chain.from_iterable(zip(lengths, encoded, strict=True)))


def _encode_numbers(element_type: ValueType, values: Any, key: str) -> bytes:
    array: NDArray[Any] = np.asarray(values)
    dtype = np.dtype(SCALAR_FORMATS[element_type])
    if array.ndim != 1:
        raise GgufError("a GGUF array has one dimension", key=key, expected="1", found=array.ndim)
    if not array.size:
        return b""
    kinds = {"b": "b", "f": "fiu"}.get(dtype.kind, "iu")
    if array.dtype.kind not in kinds:
        raise _misfit(element_type, key, f"elements of numpy type {array.dtype}")
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        for extreme in (int(array.min()), int(array.max())):
            if not limits.min <= extreme <= limits.max:
                raise _misfit(element_type, key, str(extreme))
    with np.errstate(over="ignore"):
        stored = array.astype(dtype)
    if dtype.kind == "f" and (np.isinf(stored) & np.isfinite(array)).any():
        raise _misfit(element_type, key, str(array[np.isinf(stored) & np.isfinite(array)][0]))
    return stored.tobytes()


def _misfit(value_type: ValueType, key: str, found: str) -> GgufError:
    if value_type in SCALAR_FORMATS and np.dtype(SCALAR_FORMATS[value_type]).kind in "iu":
        limits = np.iinfo(np.dtype(SCALAR_FORMATS[value_type]))
        expected = f"an integer from {limits.min} to {limits.max}"
    else:
        expected = {
            ValueType.STRING: "text",
            ValueType.BOOL: "true or false",
        }.get(value_type, f"a number in the range of {value_type.name}")
    return GgufError(f"the value does not fit the type {value_type.name}", key=key, expected=expected, found=found)
