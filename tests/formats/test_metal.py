"""The Metal header: read as it was written by hand, built back to the same bytes."""

from __future__ import annotations

import math
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hostile_metal import END, FIELDS, LAYOUT, START, TOKENS, header, section
from hypothesis import given, settings
from hypothesis import strategies as st
from metal_script import REGEX, TINY, metal_file, tiny_tensors

from gptoss_convert.formats.containers.metal import build_metal_header, read_metal
from gptoss_convert.formats.containers.metal_types import (
    MAX_REGEX_BYTES,
    MAX_SPECIAL_TOKENS,
    MAX_TOKENS_BYTES,
    MetalFields,
    MetalFile,
    MetalTokenizer,
)
from gptoss_convert.formats.errors import MetalError

WORDS = [bytes([byte]) for byte in range(256)] + [b"word%d" % n for n in range(40)] + [b"long" * 16000]


def written(path: Path, file: bytes) -> MetalFile:
    path.write_bytes(file)
    return read_metal(path)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.bin"


def test_every_field_is_read(path: Path) -> None:
    file = written(path, header() + b"weights")
    assert asdict(file.fields) == FIELDS
    assert file.layout == LAYOUT
    assert (file.path, file.file_bytes, file.weights_offset, file.weights_bytes) == (path, 16391, 16384, 7)


def test_the_tokenizer_is_read(path: Path) -> None:
    tokenizer = written(path, header()).tokenizer
    assert tokenizer.regex == r"\s+"
    assert list(tokenizer.tokens) == list(TOKENS)
    assert tokenizer.specials == {3: START, 4: None, 5: END}
    assert tokenizer.n_tokens == 6


def test_tokens_behave_as_a_list(path: Path) -> None:
    tokens = written(path, header()).tokenizer.tokens
    assert [tokens[place] for place in (0, 2, -1)] == [b"a", b"\xff\x00d", b"\xff\x00d"]
    assert tokens[1:] == [b"bc", b"\xff\x00d"]
    assert (len(tokens), tokens.index(b"bc")) == (3, 1)
    with pytest.raises(IndexError):
        tokens[3]


def test_a_header_that_ends_on_a_page_has_no_padding(path: Path) -> None:
    without = len(header(tokens=section([b"x"]), sizes={"text": 1}, pad=b""))
    filler = b"x" * (16384 - without + 1)
    file = header(tokens=section([filler]), sizes={"text": 1})
    assert len(file) == 16384
    assert written(path, file).weights_offset == 16384


@pytest.mark.parametrize("tokens", [[], [b"a"], WORDS], ids=["none", "one", "many"])
def test_what_is_read_is_built_byte_identical(path: Path, tokens: list[bytes]) -> None:
    whole = metal_file(TINY, tiny_tensors(), tokens)
    file = written(path, whole)
    assert file.tokenizer.regex == REGEX
    assert build_metal_header(file.fields, file.tokenizer) == whole[: file.weights_offset]


def test_numbers_are_rounded_to_float32(path: Path) -> None:
    fields = MetalFields(**FIELDS)
    built = build_metal_header(replace(fields, rmsnorm_epsilon=1e-5), MetalTokenizer("x", [], {}))
    assert written(path, built).fields.rmsnorm_epsilon == np.float32(1e-5)


UNBUILDABLE: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "count 0": ({"num_blocks": 0}, {}, "'num_blocks': the field is out of range; expected a whole number from 1"),
    "count too large": ({"num_heads": 2**32}, {}, "'num_heads': .* to 4,294,967,295; found 4294967296"),
    "count a float": ({"num_experts": 3.0}, {}, "'num_experts': .*; found 3.0"),
    "NaN": ({"rope_theta": math.nan}, {}, "'rope_theta': .*expected a finite float32; found nan"),
    "too large for float32": ({"rope_theta": 1e39}, {}, "'rope_theta': .*; found 1e\\+39"),
    "special ids with a gap": ({}, {"specials": {1: None, 3: None}}, "one by one; expected id 2; found id 3"),
    "special ids elsewhere": ({}, {"specials": {0: None}}, "one by one; expected id 1; found id 0"),
    "UUID twice": ({}, {"specials": {1: START, 2: START}}, f"the UUID {START}; .*; found ids 1 and 2"),
    "too many specials": (
        {},
        {"specials": dict.fromkeys(range(1, MAX_SPECIAL_TOKENS + 2))},
        "too many special tokens; expected at most 4,096; found 4,097",
    ),
    "pattern not ASCII": ({}, {"regex": "é"}, "the split pattern cannot be stored; .*; found 'é'"),
    "pattern with NUL": ({}, {"regex": "a\0"}, "the split pattern cannot be stored"),
    "pattern too long": ({}, {"regex": "a" * MAX_REGEX_BYTES}, "expected up to 65,535 ASCII characters"),
    "empty token": ({}, {"tokens": [b""]}, "text token 0 cannot be stored; expected 1 to 65,535 bytes; found 0"),
    "long token": ({}, {"tokens": [b"x" * 65536]}, "text token 0 cannot be stored; .*; found 65,536"),
    "many long tokens": (
        {},
        {"tokens": [b"x" * 65534] * 257, "specials": {}},
        f"too long together; expected at most {MAX_TOKENS_BYTES:,} bytes",
    ),
}


@pytest.mark.parametrize(("fields", "tokenizer", "message"), UNBUILDABLE.values(), ids=UNBUILDABLE)
def test_what_the_format_cannot_hold_is_refused(fields: Any, tokenizer: Any, message: str) -> None:
    with pytest.raises(MetalError, match=message) as caught:
        build_metal_header(
            MetalFields(**FIELDS | fields),
            MetalTokenizer(**{"regex": "x", "tokens": [b"a"], "specials": {1: None}} | tokenizer),
        )
    assert caught.value.remedy


@given(
    tokens=st.lists(st.binary(min_size=1, max_size=300), max_size=40),
    roles=st.lists(st.none() | st.uuids(allow_nil=False), max_size=20, unique_by=lambda role: role or object()),
    regex=st.text(st.characters(min_codepoint=1, max_codepoint=127), max_size=200),
)
@settings(derandomize=True, max_examples=60, deadline=None)
def test_what_is_built_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, tokens: list[bytes], roles: list[Any], regex: str
) -> None:
    specials = {len(tokens) + place: role for place, role in enumerate(roles)}
    built = build_metal_header(MetalFields(**FIELDS), MetalTokenizer(regex, tokens, specials))
    file = written(tmp_path_factory.mktemp("built") / "model.bin", built)
    assert (file.tokenizer.regex, list(file.tokenizer.tokens), file.tokenizer.specials) == (regex, tokens, specials)
    assert build_metal_header(file.fields, file.tokenizer) == built
