"""Malformed safetensors: each rule refused by name, any damage refused or read as upstream does, in bounded memory."""

from __future__ import annotations

import contextlib
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors
from hostile_safetensors import COSTLY_HEADERS, entry, file_of, framed
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

from gptoss_convert.formats.containers.safetensors import (
    MAX_HEADER_BYTES,
    MAX_HEADER_VALUES,
    MAX_RANK,
    read_safetensors_header,
)
from gptoss_convert.formats.errors import GptOssConvertError, SafetensorsError

RIGHT = file_of(a=entry())
TEXT = RIGHT[8:-4]

LENGTH_RULES = {
    "empty file": (b"", "too short for a header; expected at least 8 bytes; found 0 bytes"),
    "7 bytes": (b"1234567", "too short for a header; expected at least 8 bytes; found 7 bytes"),
    "length 0": (framed(b"", TEXT), "the header length is 0"),
    "length past the end": (
        framed(TEXT, length=len(TEXT) + 1),
        "longer than the file.*; expected at most .* bytes left",
    ),
    "length 2**64 - 1": (
        framed(TEXT, length=2**64 - 1),
        "longer than the file.*; found 18,446,744,073,709,551,615 bytes",
    ),
    "length over the cap": (
        framed(TEXT + b" " * MAX_HEADER_BYTES, b"abcd"),
        "the header is too large; expected at most 8,388,608 bytes; .* A gpt-oss header needs less than 1 MB",
    ),
    "another format": (b"GGUF" + bytes(100), "or this is no safetensors file"),
    "Git LFS pointer": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
        "is a Git LFS pointer.*git lfs pull",
    ),
}

TEXT_RULES = {
    "space first": (framed(b" " + TEXT, b"abcd"), "does not begin as a JSON object; expected '{'"),
    "array": (framed(b"[]"), "does not begin as a JSON object; expected '{'; found b'\\[\\]'"),
    "byte order mark": (framed(b"\xef\xbb\xbf" + TEXT, b"abcd"), "does not begin as a JSON object"),
    "padding of zeros": (
        framed(TEXT + b"\0\0", b"abcd"),
        "does not end as a JSON object; expected '}', then only spaces",
    ),
    "padding of newlines": (framed(TEXT + b"\n", b"abcd"), "does not end as a JSON object"),
    "cut off": (framed(TEXT[:-1], b"abcd"), "the header is not valid JSON"),
    "two objects": (framed(b"{}" + TEXT, b"abcd"), "the header is not valid JSON; found Extra data at character 2"),
    "not UTF-8": (framed(b'{"\xff":0}'), "the header is not text in UTF-8"),
    "nested": (framed(b'{"a":{"b":[[]]}}'), "the header is nested too deeply; expected at most 3 levels; found 4"),
    "tensor twice": (framed(TEXT[:-1] + b"," + TEXT[1:], b"abcd"), "key 'a': the header has the same key twice"),
    "key twice": (framed(TEXT[:-2] + b',"dtype":"I8"}}', b"abcd"), "key 'dtype': the header has the same key twice"),
    "NaN": (framed(b'{"a":NaN}'), "a value that JSON does not have"),
    "half a character": (framed(rb'{"\ud83d":0}'), "half of a surrogate pair"),
    "number of 5,000 digits": (framed(b'{"a":' + b"9" * 5000 + b"}"), "too long; .*; found 5,000 characters"),
}

METADATA_RULES = {
    "metadata is a list": (
        file_of(b"", __metadata__=[]),
        "'__metadata__': the value is not an object; .*; found \\[\\]",
    ),
    "metadata is null": (file_of(b"", __metadata__=None), "'__metadata__': the value is not an object; .*; found None"),
    "metadata holds a number": (file_of(b"", __metadata__={"k": 1}), "'__metadata__.k': the value is not a string"),
    "metadata is a tensor": (file_of(__metadata__=entry()), "'__metadata__.shape': the value is not a string"),
}

ENTRY_RULES = {
    "entry is a string": (file_of(a="U8"), "the entry has wrong keys; .*; found 'U8'"),
    "key missing": (
        file_of(a={"dtype": "U8", "shape": [4]}),
        "the entry has wrong keys; .*; found \\['dtype', 'shape'\\]",
    ),
    "key more": (file_of(a=entry(stride=[1])), "the entry has wrong keys; .*'stride'"),
    "dtype unknown": (file_of(a=entry(dtype="u8")), "unknown dtype; expected one of BOOL, .*, U64; found 'u8'"),
    "dtype is a list": (file_of(a=entry(dtype=["U8"])), "unknown dtype; .*; found \\['U8'\\]"),
    "shape is a number": (file_of(a=entry(shape=4)), "the shape is not a list of sizes; .*; found 4"),
    "size negative": (file_of(a=entry(shape=[-2, -2])), "the shape is not a list of sizes"),
    "size a float": (file_of(a=entry(shape=[4.0])), "the shape is not a list of sizes; .*; found \\[4.0\\]"),
    "size a bool": (file_of(a=entry(shape=[4, True])), "the shape is not a list of sizes"),
    "size 2**63": (file_of(a=entry(shape=[0, 2**63])), "the shape is not a list of sizes"),
    "rank": (file_of(a=entry(shape=[1] * MAX_RANK + [4])), "too many dimensions; expected at most 64; found 65"),
    "half a byte": (file_of(a=entry("F4", [7])), "do not fill whole bytes; .*; found F4 \\[7\\]: 28 bits"),
    "offsets are three": (file_of(a=entry(data_offsets=[0, 2, 4])), "not two offsets; .*; found \\[0, 2, 4\\]"),
    "offsets are no list": (file_of(a=entry(data_offsets={})), "not two offsets; .*; found {}"),
    "offset negative": (file_of(a=entry(data_offsets=[-4, 0])), "not two offsets"),
    "offset a float": (file_of(a=entry(data_offsets=[0, 4.0])), "not two offsets"),
    "offset a bool": (file_of(a=entry(shape=[1], data_offsets=[False, True])), "not two offsets"),
    "offset 2**63": (file_of(a=entry(data_offsets=[2**63, 2**63 + 4])), "not two offsets"),
    "end before begin": (file_of(a=entry(data_offsets=[4, 0])), "end before they begin; .*; found \\[4, 0\\]"),
    "too few bytes": (
        file_of(a=entry(shape=[5])),
        "contradict dtype and shape; expected 5 bytes for U8 \\[5\\]; found 4 bytes",
    ),
    "too many bytes": (
        file_of(a=entry(shape=[3])),
        "contradict dtype and shape; expected 3 bytes for U8 \\[3\\]; found 4 bytes",
    ),
    "product wraps to 4": (
        file_of(a=entry(shape=[2**62 + 1, 4])),
        "contradict dtype and shape; expected 18,446,744,073",
    ),
}

LAYOUT_RULES = {
    "gap at the start": (file_of(b"abcde", a=entry(data_offsets=[1, 5])), "'a': there is a gap .* from 0; found 1"),
    "gap": (file_of(bytes(9), a=entry(), b=entry(data_offsets=[5, 9])), "'b': there is a gap .* from 4; found 5"),
    "overlap": (
        file_of(bytes(7), a=entry(), b=entry(data_offsets=[3, 7])),
        "'b': the tensor overlaps .* from 4; found 3",
    ),
    "same bytes": (file_of(a=entry(), b=entry()), "'b': the tensor overlaps the one before it"),
    "empty inside another": (
        file_of(a=entry(), b=entry(shape=[0], data_offsets=[2, 2])),
        "'b': the tensor overlaps the one before it",
    ),
    "truncated": (RIGHT[:-3], "truncated \\(bytes missing: 3\\); .*Download the file again"),
    "no data": (RIGHT[:-4], "truncated \\(bytes missing: 4\\)"),
    "trailing": (RIGHT + b"xy", "bytes too many: 2"),
    "data without tensors": (framed(b"{}", b"x"), "bytes too many: 1"),
}

RULES = LENGTH_RULES | TEXT_RULES | METADATA_RULES | ENTRY_RULES | LAYOUT_RULES

STRICTER_THAN_UPSTREAM = [
    "space first",
    "padding of newlines",
    "length over the cap",
    "tensor twice",
    "metadata is null",
    "key more",
    "rank",
]


@pytest.mark.parametrize(("file", "message"), RULES.values(), ids=RULES)
def test_refused_by_name(tmp_path: Path, file: bytes, message: str) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(file)
    with pytest.raises(SafetensorsError, match=message) as caught:
        read_safetensors_header(path)
    assert caught.value.file == str(path)
    assert caught.value.remedy


@pytest.mark.parametrize("rule", [rule for rule in RULES if rule not in STRICTER_THAN_UPSTREAM])
def test_upstream_refuses_it_too(rule: str) -> None:
    with pytest.raises(safetensors.SafetensorError):
        safetensors.deserialize(RULES[rule][0])


@pytest.mark.parametrize("rule", STRICTER_THAN_UPSTREAM)
def test_upstream_takes_what_only_we_refuse(rule: str) -> None:
    safetensors.deserialize(RULES[rule][0])


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SafetensorsError, match=r"model\.safetensors: there is no such file"):
        read_safetensors_header(tmp_path / "model.safetensors")


def test_a_directory_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(SafetensorsError, match="not a regular file"):
        read_safetensors_header(tmp_path)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("damaged") / "model.safetensors"


INTACT = save({"weight": np.arange(6, dtype=np.float32), "b": np.arange(3, dtype=np.uint8)}, {"format": "pt"})
DAMAGED_HEADER = st.lists(
    st.tuples(st.integers(0, len(INTACT) - 28), st.integers(0, 255) | st.sampled_from(b'[]{}",:0123456789 \\')),
    min_size=1,
    max_size=4,
)


def assert_refused_or_read_as_upstream_does(path: Path, file: bytes) -> None:
    path.write_bytes(file)
    try:
        header = read_safetensors_header(path)
    except GptOssConvertError:
        return
    ours = {
        name: (found.dtype, list(found.shape), file[found.offset : found.offset + found.n_bytes])
        for name, found in header.entries.items()
    }
    upstream = safetensors.deserialize(file)
    assert ours == {name: (value["dtype"], value["shape"], bytes(value["data"])) for name, value in upstream}


@given(flips=DAMAGED_HEADER)
@settings(derandomize=True, max_examples=500, deadline=None)
def test_flipped_bytes_are_refused_or_read_as_upstream_does(path: Path, flips: list[tuple[int, int]]) -> None:
    file = bytearray(INTACT)
    for position, byte in flips:
        file[position] = byte
    assert_refused_or_read_as_upstream_does(path, bytes(file))


@pytest.mark.parametrize("bit", range(8))
def test_every_single_flipped_bit_is_refused_or_read_as_upstream_does(path: Path, bit: int) -> None:
    for position in range(len(INTACT)):
        file = bytearray(INTACT)
        file[position] ^= 1 << bit
        assert_refused_or_read_as_upstream_does(path, bytes(file))


def test_every_truncation_is_refused(path: Path) -> None:
    for length in range(len(INTACT)):
        path.write_bytes(INTACT[:length])
        with pytest.raises(SafetensorsError):
            read_safetensors_header(path)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("header", COSTLY_HEADERS.values(), ids=COSTLY_HEADERS)
def test_the_costliest_headers_take_less_than_200_mb(path: Path, header: Callable[[int, int], bytes]) -> None:
    text = header(MAX_HEADER_BYTES, MAX_HEADER_VALUES)
    assert MAX_HEADER_BYTES // 8 < len(text) <= MAX_HEADER_BYTES
    path.write_bytes(framed(text))
    assert peak_bytes(path) < 200e6


def peak_bytes(path: Path) -> int:
    """Most bytes that Python and numpy hold at once while the header is read or refused."""
    tracemalloc.start()
    try:
        with contextlib.suppress(SafetensorsError):
            read_safetensors_header(path)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_messages_stay_short(path: Path) -> None:
    name = "n" * 100_000
    path.write_bytes(file_of(**{name: entry(dtype=name)}))
    with pytest.raises(SafetensorsError, match=r"n… \(100,000 characters\)") as caught:
        read_safetensors_header(path)
    assert len(str(caught.value)) < 1000
