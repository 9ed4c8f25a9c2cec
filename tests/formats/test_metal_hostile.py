"""Malformed Metal files: each rule refused by name; any damage refused or read and built back to the same bytes."""

from __future__ import annotations

import struct
import tracemalloc
from pathlib import Path
from uuid import UUID

import pytest
from hostile_metal import FIELDS, MAGIC, START, fields, header, section
from hypothesis import given, settings
from hypothesis import strategies as st

from gptoss_convert.formats.containers.metal import build_metal_header, read_metal
from gptoss_convert.formats.errors import MetalError

RIGHT = header()
OTHER = UUID(int=7)
UNSIGNED = [name for name, value in FIELDS.items() if isinstance(value, int)]
FLOATS = [name for name, value in FIELDS.items() if isinstance(value, float)]

START_RULES = {
    "empty": (b"", "this is not a Metal model file; expected b'GPT-OSS v1.0.*; found b''"),
    "one byte": (b"v", "this is not a Metal model file"),
    "another format": (b"GGUF" + bytes(20000), "this is not a Metal model file; .*Give the model.bin"),
    "another version": (b"GPT-OSS v1.1" + RIGHT[12:], "unknown version .*; found b'GPT-OSS v1.1"),
    "magic not zero at its end": (header(magic=MAGIC[:-1] + b"\1"), "unknown version of a Metal model file"),
    "magic alone": (MAGIC, "ends within the UUID of the model family; expected 16 bytes; found 0 bytes left"),
    "Git LFS pointer": (b"version https://git-lfs.github.com/spec/v1\n", "is a Git LFS pointer.*git lfs pull"),
    "another model": (header(model=OTHER), f"unknown model family; expected df52dc86-.*; found {OTHER}"),
    "another layout": (header(layout=OTHER), f"unknown weights layout; expected 229177a8-.*; found {OTHER}"),
    "another tokenizer": (header(tokenizer=OTHER), f"unknown tokenizer format; expected 7401aded-.*; found {OTHER}"),
    "UUID in another byte order": (header(model=UUID(bytes=header()[16:32][::-1])), "unknown model family"),
    "cut in the fields": (RIGHT[:99], "ends within the model header; expected 68 bytes; found 67 bytes left"),
    "cut in the sizes": (RIGHT[:146], "ends within the tokenizer header; expected 4 bytes; found 2 bytes left"),
}

FIELD_RULES = {
    **{
        f"{name} 0": (header(model_fields=fields(**{name: 0})), f"'{name}': the field is out of range; .*; found 0")
        for name in UNSIGNED
    },
    **{
        f"{name} {bad}": (header(model_fields=fields(**{name: bad})), f"'{name}': .*finite float32; found {bad}")
        for name in FLOATS
        for bad in (float("nan"), float("inf"), float("-inf"))
    },
}

TOKENIZER_RULES = {
    "too many specials": (
        header(sizes={"special": 4097}),
        "impossible number of special tokens; expected at most 4,096; found 4,097",
    ),
    "too many tokens": (
        header(sizes={"text": 2**32 - 1}),
        "impossible number of text tokens; .*; found 4,294,967,295",
    ),
    "pattern over the cap": (
        header(sizes={"regex": 65537}),
        "impossible number of bytes of split pattern; expected at most 65,536",
    ),
    "tokens over the cap": (
        header(sizes={"tokens": 2**32 - 1}),
        "impossible number of bytes of text tokens; expected at most 16,777,216",
    ),
    "more tokens than bytes": (
        header(sizes={"text": 5}),
        "the text tokens do not fit their section; expected at least 15 bytes for 5 tokens; found 12",
    ),
    "specials past the end": (
        header(sizes={"special": 4000}, pad=b""),
        "ends within the special tokens; expected 64,000 bytes",
    ),
    "pattern past the end": (header(sizes={"regex": 60000}), "ends within the split pattern; expected 60,000 bytes"),
    "tokens past the end": (header(sizes={"tokens": 2**24}), "ends within the text tokens; expected 16,777,216 bytes"),
    "UUID twice": (header(roles=(START, START)), f"two special tokens have the UUID {START}; .*; found ids 3 and 4"),
    "no pattern": (header(regex=b""), "the split pattern is malformed; expected ASCII, then one NUL; found b''"),
    "pattern without NUL": (header(regex=b"abc"), "the split pattern is malformed; .*; found b'abc'"),
    "pattern with two NULs": (header(regex=b"a\0c\0"), "the split pattern is malformed"),
    "pattern not ASCII": (header(regex=b"\xc3\xa9\0"), "the split pattern is malformed"),
    "empty token": (header(tokens=section([b"a", b"", b"long"])), "text token 1 is empty"),
    "token past its section": (
        header(tokens=section([b"a", b"bc"]) + b"\x09\x00ab"),
        "text token 2 reaches past the end of its section; expected at most 2 bytes; found 9",
    ),
    "length past its section": (
        header(tokens=section([b"a", b"bcdef"]) + b"\x01"),
        "the length of text token 2 reaches past the end of its section",
    ),
    "a token missing": (header(tokens=section([b"abc", b"defgh"])), "the length of text token 2 reaches past"),
    "a token more": (
        header(tokens=section([b"a", b"b", b"c", b"d"])),
        "the text tokens do not fill their section; expected 12 bytes; found 9 bytes",
    ),
    "padding not zero": (
        RIGHT[:-2] + b"\x07\0",
        "padding before the weights is not zero; expected zeros; found 0x07 at byte 16,382",
    ),
    "padding cut": (RIGHT[:-1], "ends within the padding before the weights"),
    "no padding": (header(pad=b""), "ends within the padding before the weights; .*; found 0 bytes left"),
}

RULES = START_RULES | FIELD_RULES | TOKENIZER_RULES


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hostile") / "model.bin"


def test_the_unspoilt_header_is_read(path: Path) -> None:
    path.write_bytes(RIGHT)
    assert read_metal(path).weights_offset == len(RIGHT)


@pytest.mark.parametrize(("file", "message"), RULES.values(), ids=RULES)
def test_refused_by_name(path: Path, file: bytes, message: str) -> None:
    path.write_bytes(file)
    with pytest.raises(MetalError, match=message) as caught:
        read_metal(path)
    assert caught.value.file == str(path)
    assert caught.value.remedy


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(MetalError, match=r"model\.bin: there is no such file"):
        read_metal(tmp_path / "model.bin")


def test_a_directory_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(MetalError, match="not a regular file"):
        read_metal(tmp_path)


def assert_refused_or_kept(path: Path, file: bytes) -> None:
    path.write_bytes(file)
    try:
        found = read_metal(path)
    except MetalError:
        return
    assert build_metal_header(found.fields, found.tokenizer) == file[: found.weights_offset]


END_OF_CONTENT = len(header(pad=b""))


@pytest.mark.parametrize("bit", range(8))
def test_every_single_flipped_bit_is_refused_or_kept(path: Path, bit: int) -> None:
    for position in range(END_OF_CONTENT + 8):
        file = bytearray(RIGHT)
        file[position] ^= 1 << bit
        assert_refused_or_kept(path, bytes(file))


@given(flips=st.lists(st.tuples(st.integers(0, END_OF_CONTENT), st.integers(0, 255)), min_size=1, max_size=6))
@settings(derandomize=True, max_examples=300, deadline=None)
def test_flipped_bytes_are_refused_or_kept(path: Path, flips: list[tuple[int, int]]) -> None:
    file = bytearray(RIGHT)
    for position, byte in flips:
        file[position] = byte
    assert_refused_or_kept(path, bytes(file))


@pytest.mark.parametrize("length", range(END_OF_CONTENT + 1))
def test_every_cut_is_refused(path: Path, length: int) -> None:
    path.write_bytes(RIGHT[:length])
    with pytest.raises(MetalError):
        read_metal(path)


def test_hostile_sizes_cost_no_memory(path: Path) -> None:
    sizes = struct.pack("<4I", 4096, 16 * 2**20 // 3, 65536, 16 * 2**20)
    path.write_bytes(RIGHT[:132] + sizes + RIGHT[148:])
    tracemalloc.start()
    with pytest.raises(MetalError, match="ends within the special tokens"):
        read_metal(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20
