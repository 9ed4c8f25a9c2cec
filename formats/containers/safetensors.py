"""Safetensors: a strict, bounded reader and a byte-exact builder of the header. Tensor data is never touched here.

    byte 0        8                 8 + n                              end of file
    ┌─────────────┬─────────────────┬──────────┬──────────┬─ ─ ─┬──────────┐
    │ n: uint64 le│ JSON, n bytes   │ tensor   │ tensor   │     │ tensor   │
    └─────────────┴─────────────────┴──────────┴──────────┴─ ─ ─┴──────────┘
    JSON = {"__metadata__": {string: string}, name: {"dtype", "shape", "data_offsets": [begin, end]}, …} then spaces

Offsets in the JSON count from byte 8 + n; tensors follow each other without gap or overlap up to the end of the file.

Source: safetensors 0.8.0, README "Format" and `safetensors/src/tensor.rs`. Stricter than upstream: no name or key comes
twice, entries have no further keys, `__metadata__` is not null, the JSON starts at byte 8 and is padded with spaces
only, and sizes are bounded (`MAX_HEADER_BYTES`, `MAX_HEADER_VALUES`, `MAX_RANK`).
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from ..errors import SafetensorsError
from ..json_text import clipped, excerpt, open_regular_file, parse_json

DTYPE_BITS = {
    "BOOL": 8,
    "F4": 4,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
    "U8": 8,
    "I8": 8,
    "F8_E5M2": 8,
    "F8_E4M3": 8,
    "F8_E8M0": 8,
    "F8_E4M3FNUZ": 8,
    "F8_E5M2FNUZ": 8,
    "I16": 16,
    "U16": 16,
    "F16": 16,
    "BF16": 16,
    "I32": 32,
    "U32": 32,
    "F32": 32,
    "C64": 64,
    "F64": 64,
    "I64": 64,
    "U64": 64,
}
"""Bits per element, in upstream's order; its writer sorts tensors by this order from the end, then by name."""

MAX_HEADER_BYTES = 8 * 2**20
"""Longest header taken. gpt-oss needs 0.1 MB, a fine-tune with one tensor per expert up to 5 MB; upstream allows
100 MB, which a hostile file turns into gigabytes of objects."""

MAX_HEADER_VALUES = 800_000
"""Most JSON values in a header, keys counted: about 60,000 tensors, and at most 160 MB while it is parsed."""

MAX_RANK = 64
"""Most dimensions of a tensor, as in numpy. Bounds the product of a hostile shape."""

METADATA_KEY = "__metadata__"

_LENGTH_BYTES = 8
_HEADER_DEPTH = 3  # {name: {"shape": [
_ENTRY_KEYS = {"dtype", "shape", "data_offsets"}
_MAX_SIZE = 2**63 - 1
_LFS_POINTER = b"version https://git-lfs"
_DOWNLOAD = "Download the file again."
_DOWNLOAD_OR_BLAME = f"{_DOWNLOAD} If it stays so, the program that wrote it is at fault."
_STORE_OTHERWISE = "Store the tensor with another dtype or shape."


@dataclass(frozen=True, slots=True)
class SafetensorsEntry:
    """One tensor: `n_bytes` bytes at `offset` from the start of the file, row-major and little-endian."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    n_bytes: int


@dataclass(frozen=True)
class SafetensorsHeader:
    """A checked header. `entries` are in file order and fill the file from `data_offset` to `file_bytes`."""

    path: Path
    file_bytes: int
    data_offset: int
    entries: dict[str, SafetensorsEntry]
    metadata: dict[str, str]


def read_safetensors_header(path: Path) -> SafetensorsHeader:
    """The header of the file, every rule of the format checked; costs at most 200 MB, whatever the file holds.

    Raises:
        SafetensorsError: the file is missing or unreadable, or breaks a rule of the format.
    """
    with open_regular_file(path, error=SafetensorsError) as file:
        file_bytes = os.fstat(file.fileno()).st_size
        text = _read_text(file, path, file_bytes)
    members = parse_json(
        text,
        file=path,
        what="the header",
        max_bytes=MAX_HEADER_BYTES,
        max_depth=_HEADER_DEPTH,
        max_values=MAX_HEADER_VALUES,
        error=SafetensorsError,
    )
    assert isinstance(members, dict), "the text starts with '{'"
    metadata = _checked_metadata(path, members.pop(METADATA_KEY, {}))
    data_offset = _LENGTH_BYTES + len(text)
    entries = [_checked_entry(path, name, value, data_offset) for name, value in members.items()]
    entries.sort(key=lambda entry: (entry.offset, entry.n_bytes))
    _check_contiguous(path, entries, data_offset, file_bytes)
    return SafetensorsHeader(path, file_bytes, data_offset, {entry.name: entry for entry in entries}, metadata)


def build_safetensors_header(
    tensors: Sequence[tuple[str, str, Sequence[int]]], metadata: Mapping[str, str] | None = None
) -> tuple[bytes, dict[str, int]]:
    """The header bytes (length, JSON, padding to 8 bytes) and each tensor's offset from the end of those bytes.

    Tensors keep the order given. In upstream's order (see `DTYPE_BITS`) the bytes are those that safetensors writes.

    Args:
        tensors: name, dtype and shape of each.
        metadata: written first, in its own order; `{}` is written, `None` is not.

    Raises:
        SafetensorsError: a name, dtype or shape that the format cannot hold, or a header that no reader here takes.
    """
    members: dict[str, object] = {} if metadata is None else {METADATA_KEY: dict(metadata)}
    offsets: dict[str, int] = {}
    end = 0
    for name, dtype, shape in tensors:
        if name in offsets or name == METADATA_KEY:
            raise SafetensorsError("the name is taken", tensor=clipped(name), remedy="Give every tensor its own name.")
        begin, end = end, end + stored_bytes(dtype, shape, tensor=name)
        members[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}
        offsets[name] = begin
    try:
        text = json.dumps(members, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
    except UnicodeEncodeError as problem:
        remedy = "Use names and metadata that are whole characters."
        found = ascii(problem.object[problem.start])
        raise SafetensorsError("a string is not valid Unicode", found=found, remedy=remedy) from problem
    text += b" " * (-len(text) % _LENGTH_BYTES)
    if len(text) > MAX_HEADER_BYTES:
        expected, found = f"at most {MAX_HEADER_BYTES:,} bytes", f"{len(text):,} bytes"
        raise SafetensorsError(
            "the header is too large", expected=expected, found=found, remedy="Use more files with fewer tensors each."
        )
    return len(text).to_bytes(_LENGTH_BYTES, "little") + text, offsets


def stored_bytes(dtype: object, shape: object, *, file: Path | None = None, tensor: str | None = None) -> int:
    """Bytes of a tensor of `dtype` and `shape` (a sequence of ints): its bits, packed.

    Raises:
        SafetensorsError: an unknown dtype, a shape that is not a list of sizes, or bits that do not fill whole bytes.
            It names `file` and `tensor`.
    """
    if not isinstance(dtype, str) or dtype not in DTYPE_BITS:
        expected = f"one of {', '.join(DTYPE_BITS)}"
        raise _refusal(file, "unknown dtype", tensor=tensor, expected=expected, found=excerpt(dtype))
    if not isinstance(shape, (list, tuple)) or not all(_is_size(dim) for dim in shape):
        expected = "a list of whole numbers from 0 up to 2**63 - 1"
        raise _refusal(file, "the shape is not a list of sizes", tensor=tensor, expected=expected, found=excerpt(shape))
    if len(shape) > MAX_RANK:
        expected = f"at most {MAX_RANK}"
        raise _refusal(file, "too many dimensions", tensor=tensor, expected=expected, found=f"{len(shape):,}")
    n_bits = DTYPE_BITS[dtype] * math.prod(shape)
    if n_bits % 8:
        found = f"{dtype} {excerpt(shape)}: {n_bits:,} bits"
        raise _refusal(
            file, "the elements do not fill whole bytes", tensor=tensor, expected="a multiple of 8 bits", found=found
        )
    return n_bits // 8


def _read_text(file: BinaryIO, path: Path, file_bytes: int) -> bytes:
    """The JSON with its padding, its length and its two ends checked."""
    prefix = file.read(_LENGTH_BYTES)
    if len(prefix) < _LENGTH_BYTES:
        raise _refusal(
            path, "the file is too short for a header", expected="at least 8 bytes", found=f"{file_bytes:,} bytes"
        )
    n_bytes = int.from_bytes(prefix, "little")
    left = file_bytes - _LENGTH_BYTES
    if prefix == _LFS_POINTER[:_LENGTH_BYTES] and file.read(15) == _LFS_POINTER[_LENGTH_BYTES:]:
        raise SafetensorsError(
            "this is a Git LFS pointer, not the file itself", file=path, remedy="Run `git lfs pull`."
        )
    if n_bytes == 0:
        raise _refusal(path, "the header length is 0", expected="at least 2 bytes")
    if n_bytes > left:
        problem = "the header is longer than the file, or this is no safetensors file"
        raise _refusal(path, problem, expected=f"at most the {left:,} bytes left", found=f"{n_bytes:,} bytes")
    if n_bytes > MAX_HEADER_BYTES:
        expected = f"at most {MAX_HEADER_BYTES:,} bytes"
        remedy = "A gpt-oss header needs less than 1 MB: check what wrote the file."
        raise _refusal(path, "the header is too large", expected=expected, found=f"{n_bytes:,} bytes", remedy=remedy)
    text = file.read(n_bytes)
    if not text.startswith(b"{"):
        raise _refusal(path, "the header does not begin as a JSON object", expected="'{'", found=ascii(text[:8]))
    if not text.rstrip(b" ").endswith(b"}"):
        found = ascii(text[-8:])
        raise _refusal(path, "the header does not end as a JSON object", expected="'}', then only spaces", found=found)
    return text


def _checked_metadata(path: Path, metadata: object) -> dict[str, str]:
    if not isinstance(metadata, dict):
        problem = "the value is not an object"
        raise _refusal(path, problem, key=METADATA_KEY, expected="strings by name", found=excerpt(metadata))
    for key, value in metadata.items():
        if not isinstance(value, str):
            where = f"{METADATA_KEY}.{clipped(key)}"
            raise _refusal(path, "the value is not a string", key=where, expected="a string", found=excerpt(value))
    return metadata


def _checked_entry(path: Path, name: str, value: object, data_offset: int) -> SafetensorsEntry:
    if not isinstance(value, dict) or value.keys() != _ENTRY_KEYS:
        found = sorted(value) if isinstance(value, dict) else value
        expected = "an object of dtype, shape and data_offsets"
        raise _refusal(path, "the entry has wrong keys", tensor=name, expected=expected, found=excerpt(found))
    dtype, shape, span = value["dtype"], value["shape"], value["data_offsets"]
    n_bytes = stored_bytes(dtype, shape, file=path, tensor=name)
    if not isinstance(span, list) or len(span) != 2 or not all(_is_size(offset) for offset in span):
        expected = "two whole numbers from 0 up to 2**63 - 1"
        raise _refusal(path, "data_offsets are not two offsets", tensor=name, expected=expected, found=excerpt(span))
    begin, end = span
    if begin > end:
        raise _refusal(
            path, "data_offsets end before they begin", tensor=name, expected="begin <= end", found=excerpt(span)
        )
    if end - begin != n_bytes:
        expected = f"{n_bytes:,} bytes for {dtype} {excerpt(shape)}"
        problem = "data_offsets contradict dtype and shape"
        raise _refusal(path, problem, tensor=name, expected=expected, found=f"{end - begin:,} bytes")
    return SafetensorsEntry(name, dtype, tuple(shape), data_offset + begin, n_bytes)


def _check_contiguous(path: Path, entries: list[SafetensorsEntry], data_offset: int, file_bytes: int) -> None:
    end = data_offset
    for entry in entries:
        if entry.offset != end:
            what = "there is a gap before the tensor" if entry.offset > end else "the tensor overlaps the one before it"
            expected, found = f"data_offsets from {end - data_offset:,}", f"{entry.offset - data_offset:,}"
            raise _refusal(path, what, tensor=entry.name, expected=expected, found=found)
        end += entry.n_bytes
    expected, found = f"{end:,} bytes", f"{file_bytes:,}"
    if end > file_bytes:
        problem = f"the file is truncated (bytes missing: {end - file_bytes:,})"
        raise _refusal(path, problem, expected=expected, found=found, remedy=_DOWNLOAD)
    if end < file_bytes:
        problem = f"the file does not end with its last tensor (bytes too many: {file_bytes - end:,})"
        raise _refusal(path, problem, expected=expected, found=found)


def _is_size(value: object) -> bool:
    return type(value) is int and 0 <= value <= _MAX_SIZE


def _refusal(
    file: Path | None, problem: str, *, tensor: str | None = None, remedy: str | None = None, **fields: str | None
) -> SafetensorsError:
    """The error. Unless a remedy is given it is that for a damaged file, or for a tensor not yet in a file."""
    if remedy is None:
        remedy = _STORE_OTHERWISE if file is None else _DOWNLOAD_OR_BLAME
    name = None if tensor is None else clipped(tensor)
    return SafetensorsError(problem, file=file, tensor=name, remedy=remedy, **fields)
