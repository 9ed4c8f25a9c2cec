"""The safetensors reader and builder against safetensors' own reader and writer."""

from __future__ import annotations

import json
import re
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import safetensors
from hostile_safetensors import entry, file_of, framed
from safetensors.numpy import save

from gptoss_convert.formats.containers.safetensors import (
    DTYPE_BITS,
    MAX_HEADER_BYTES,
    MAX_RANK,
    build_safetensors_header,
    read_safetensors_header,
    stored_bytes,
)
from gptoss_convert.formats.errors import SafetensorsError

TENSORS = {
    "model.layers.1.bias": np.arange(6, dtype=ml_dtypes.bfloat16),
    "model.layers.0.weight": np.arange(12, dtype=np.float32).reshape(3, 4),
    "blocks": np.arange(2 * 3 * 16, dtype=np.uint8).reshape(2, 3, 16),
    "empty": np.zeros((0, 7), np.float16),
    "scalar": np.array(7, np.int64),
    'naïve "名" \\ / \x01\x1f\x7f\n\t\b\f\r\u2028😀': np.arange(3, dtype=np.int8),
}
METADATA = [None, {}, {"format": "pt"}, {"a": 'q"\\\n\x02é😀', "format": "pt", "z": ""}]


def upstream_members(file: bytes) -> dict[str, dict[str, object]]:
    length = int.from_bytes(file[:8], "little")
    return json.loads(file[8 : 8 + length])


@pytest.mark.parametrize("metadata", METADATA, ids=str)
def test_built_header_is_byte_identical_to_upstream(metadata: dict[str, str] | None) -> None:
    file = save(TENSORS, metadata)
    members = upstream_members(file)
    in_file_order = members.pop("__metadata__", None)
    header, offsets = build_safetensors_header(
        [(name, value["dtype"], value["shape"]) for name, value in members.items()], in_file_order
    )
    assert header == file[: len(header)]
    assert offsets == {name: value["data_offsets"][0] for name, value in members.items()}


def test_dtype_order_is_upstreams_sort_order() -> None:
    names = list(upstream_members(save(TENSORS)).values())
    ranks = [list(DTYPE_BITS).index(value["dtype"]) for value in names]
    assert ranks == sorted(ranks, reverse=True)
    assert len(set(ranks)) == 6


@pytest.mark.parametrize("metadata", METADATA, ids=str)
def test_read_header_points_at_upstreams_bytes(tmp_path: Path, metadata: dict[str, str] | None) -> None:
    path = tmp_path / "model.safetensors"
    file = save(TENSORS, metadata)
    path.write_bytes(file)
    header = read_safetensors_header(path)
    assert header.path == path
    assert header.file_bytes == len(file)
    assert header.metadata == (metadata or {})
    assert header.entries.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        found = header.entries[name]
        assert found.name == name
        assert found.shape == tensor.shape
        assert file[found.offset : found.offset + found.n_bytes] == tensor.tobytes()


def test_dtypes_are_all_of_upstreams_in_its_order() -> None:
    with pytest.raises(safetensors.SafetensorError, match="unknown variant") as caught:
        safetensors.deserialize(file_of(a=entry(dtype="Q")))
    assert re.findall(r"`(\w+)`", str(caught.value))[1:] == list(DTYPE_BITS)


@pytest.mark.parametrize("dtype", DTYPE_BITS)
def test_upstream_agrees_on_the_bits_of(dtype: str) -> None:
    n_bytes = stored_bytes(dtype, [3, 8])
    ((_, tensor),) = safetensors.deserialize(file_of(bytes(n_bytes), a=entry(dtype, [3, 8], [0, n_bytes])))
    assert tensor["dtype"] == dtype
    with pytest.raises(safetensors.SafetensorError, match="invalid shape, data type, or offset"):
        safetensors.deserialize(file_of(bytes(n_bytes + 1), a=entry(dtype, [3, 8], [0, n_bytes + 1])))


def test_entries_come_in_file_order_whatever_the_header_order(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    late, early = entry("U8", [1], [8, 9]), entry("F32", [2], [0, 8])
    empty = entry("F32", [0], [8, 8])
    path.write_bytes(file_of(b"123456789", late=late, empty=empty, early=early))
    header = read_safetensors_header(path)
    assert list(header.entries) == ["early", "empty", "late"]
    assert [found.offset - header.data_offset for found in header.entries.values()] == [0, 8, 8]


@pytest.mark.parametrize("text", [b"{}", b"{}" + b" " * 6, b'{"__metadata__":{}}'])
def test_a_file_without_tensors_is_read(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(framed(text))
    assert read_safetensors_header(path).entries == {}


def test_a_file_larger_than_memory_is_read_by_its_header(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    header, _ = build_safetensors_header([("a", "U8", (2**20, 2**20)), ("b", "BF16", (1,))])
    with path.open("wb") as file:
        file.write(header)
        file.truncate(len(header) + 2**40 + 2)
    assert read_safetensors_header(path).entries["b"].offset == len(header) + 2**40


def test_built_header_keeps_the_order_given() -> None:
    header, offsets = build_safetensors_header([("z", "U8", (3,)), ("a", "F64", (1,)), ("m", "F4", (2, 3))])
    assert offsets == {"z": 0, "a": 3, "m": 11}
    assert len(header) % 8 == 0
    assert list(upstream_members(header)) == ["z", "a", "m"]
    safetensors.deserialize(header + bytes(14))


UNBUILDABLE = {
    "name twice": ([("a", "U8", (1,)), ("a", "U8", (1,))], "tensor 'a': the name is taken"),
    "name of the metadata": ([("__metadata__", "U8", (1,))], "tensor '__metadata__': the name is taken"),
    "unknown dtype": ([("a", "MXFP4", (1,))], "tensor 'a': unknown dtype; expected one of BOOL, .*; found 'MXFP4'"),
    "negative size": ([("a", "U8", (-1,))], r"the shape is not a list of sizes; .*; found \(-1,\)"),
    "half a byte": ([("a", "F4", (3,))], r"do not fill whole bytes; .*; found F4 \(3,\): 12 bits"),
    "too many dimensions": ([("a", "U8", (1,) * (MAX_RANK + 1))], "too many dimensions; expected at most 64; found 65"),
    "half a character": ([("\ud83d", "U8", (1,))], r"not valid Unicode; found '\\ud83d'"),
    "too large": ([("a" * MAX_HEADER_BYTES, "U8", (1,))], "the header is too large; expected at most 8,388,608 bytes"),
}


@pytest.mark.parametrize(("tensors", "message"), UNBUILDABLE.values(), ids=UNBUILDABLE)
def test_what_no_reader_takes_is_not_built(tensors: list[tuple[str, str, tuple[int, ...]]], message: str) -> None:
    with pytest.raises(SafetensorsError, match=message) as caught:
        build_safetensors_header(tensors)
    assert caught.value.remedy
