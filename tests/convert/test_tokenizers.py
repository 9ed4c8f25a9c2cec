"""A tokenizer out of every kind of source, and the Hugging Face files out of every tokenizer."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from tokenizer_directory import FILES, N_TEXT, VOCAB_SIZE, edit, write_tokenizer
from tokenizers import Tokenizer as Library

from gptoss_convert.convert.targets.small_files import small_files
from gptoss_convert.convert.tokenizers import (
    DirectoryTokenizer,
    GgufTokenizer,
    MetalHeaderTokenizer,
    TokenizerSource,
    gguf_tokenizer,
)
from gptoss_convert.formats.containers.gguf_reader import read_gguf
from gptoss_convert.formats.containers.gguf_writer import plan_gguf, string, u32
from gptoss_convert.formats.containers.metal import build_metal_header, read_metal
from gptoss_convert.formats.errors import TokenizerError
from gptoss_convert.model.config import parse_config
from gptoss_convert.model.gguf_tokenizer import tokenizer_to_kv
from gptoss_convert.model.hf_files import GPT_OSS_20B
from gptoss_convert.model.layouts.metal_metadata import config_to_fields
from gptoss_convert.model.metal_tokenizer import to_metal_tokenizer
from gptoss_convert.model.tokenizer import read_tokenizer
from gptoss_convert.model.tokenizer_writer import official_small_files

OFFICIAL_VOCAB_SIZE = 201_088


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    path = tmp_path / "tokenizer"
    path.mkdir()
    return write_tokenizer(path)


@pytest.fixture
def gguf(directory: Path, tmp_path: Path) -> GgufTokenizer:
    path = tmp_path / "model.gguf"
    kv = {"general.name": string("x")} | tokenizer_to_kv(read_tokenizer(directory), VOCAB_SIZE)
    path.write_bytes(plan_gguf(kv | {"tokenizer.unknown": u32(5)}, []).header)
    source = gguf_tokenizer(read_gguf(path).kv, path)
    assert source is not None
    return source


@pytest.fixture
def metal(directory: Path, tmp_path: Path) -> MetalHeaderTokenizer:
    path = tmp_path / "model.bin"
    stored = to_metal_tokenizer(read_tokenizer(directory), VOCAB_SIZE)
    path.write_bytes(build_metal_header(config_to_fields(parse_config(GPT_OSS_20B)), stored))
    return MetalHeaderTokenizer(read_metal(path))


@pytest.fixture(params=["directory", "gguf", "metal"])
def source(request: pytest.FixtureRequest, directory: Path) -> TokenizerSource:
    if request.param == "directory":
        return DirectoryTokenizer(directory)
    source: TokenizerSource = request.getfixturevalue(request.param)
    return source


def test_every_source_has_the_same_tokenizer(source: TokenizerSource, directory: Path) -> None:
    expected, found = read_tokenizer(directory), source.tokenizer(VOCAB_SIZE)
    assert (found.tokens, found.specials, found.pattern) == (expected.tokens, expected.specials, expected.pattern)
    assert (found.bos_id, found.eos_id, found.pad_id) == (300, 304, 301)


def test_every_source_has_files_that_encode_alike(source: TokenizerSource, directory: Path) -> None:
    text = "<|start|>user<|message|>Grüße, they'll say: 12345 今日は 😀<|end|>"
    files, notes = source.files(VOCAB_SIZE)
    expected = Library.from_file(str(directory / "tokenizer.json"))
    assert Library.from_buffer(files["tokenizer.json"]).encode(text).ids == expected.encode(text).ids
    assert files["generation_config.json"] == FILES["generation_config.json"]
    assert notes == []


def test_every_source_has_the_same_facts(source: TokenizerSource, directory: Path) -> None:
    expected, found = read_tokenizer(directory).describe(), source.facts()
    assert (found.bos, found.eos, found.pad) == (expected.bos, expected.eos, expected.pad)


def test_every_source_refuses_a_vocabulary_that_is_too_small(source: TokenizerSource) -> None:
    with pytest.raises(TokenizerError, match=r"tokenizer\.json|model\.gguf|model\.bin"):
        source.tokenizer(N_TEXT)


def test_a_directorys_files_are_carried_byte_for_byte(directory: Path) -> None:
    edit(directory, "tokenizer.json", lambda document: document.update(normalizer={"type": "NFC"}))
    (directory / "LICENSE").write_bytes(b"\r\nApache \xff")
    (directory / "model.safetensors").write_bytes(b"weights")
    files, _ = DirectoryTokenizer(directory).files(VOCAB_SIZE)
    assert set(files) == {*FILES, "LICENSE"}
    assert files == {name: (directory / name).read_bytes() for name in files}


def test_a_file_that_is_too_large_is_not_carried(directory: Path) -> None:
    with (directory / "LICENSE").open("wb") as file:
        file.truncate(2**27 + 1)
    with pytest.raises(TokenizerError, match=r"LICENSE: the file is too large.*134,217,728 bytes; found 134,217,729"):
        DirectoryTokenizer(directory).files(VOCAB_SIZE)


def test_a_ggufs_files_are_byte_identical_to_those_it_was_made_of(gguf: GgufTokenizer) -> None:
    assert gguf.files(VOCAB_SIZE)[0] == FILES


def test_a_ggufs_keys_are_kept_as_they_are_even_unknown_ones(gguf: GgufTokenizer) -> None:
    expected = {key: value for key, value in gguf.metadata.items() if key != "general.name"}
    assert gguf.kv() == expected
    assert "tokenizer.unknown" in expected


def test_a_gguf_without_tokens_has_no_tokenizer(gguf: GgufTokenizer) -> None:
    weights = {key: value for key, value in gguf.metadata.items() if not key.startswith("tokenizer.ggml")}
    assert gguf_tokenizer(weights, gguf.file) is None


def test_what_is_doubtful_in_a_gguf_is_said_with_its_files(gguf: GgufTokenizer) -> None:
    doubtful = replace(gguf, metadata=dict(gguf.metadata) | {"tokenizer.ggml.pre": string("llama-bpe")})
    assert ["'llama-bpe'" in note for note in doubtful.files(VOCAB_SIZE)[1]] == [True]
    assert small_files(doubtful, VOCAB_SIZE)[1] == doubtful.files(VOCAB_SIZE)[1]


def test_a_metal_files_special_tokens_are_those_that_have_rows(metal: MetalHeaderTokenizer) -> None:
    assert max(metal.tokenizer(N_TEXT + 16).specials) == N_TEXT + 15
    assert "chat_template.jinja" not in metal.files(N_TEXT + 16)[0]


# The small files of a directory that is written.


def test_small_files_are_those_of_the_source(directory: Path) -> None:
    assert small_files(DirectoryTokenizer(directory), OFFICIAL_VOCAB_SIZE) == (FILES, [])


def test_official_small_files_are_made_where_the_source_has_none(directory: Path) -> None:
    (directory / "generation_config.json").unlink()
    files, notes = small_files(DirectoryTokenizer(directory), OFFICIAL_VOCAB_SIZE)
    assert files == FILES | {"generation_config.json": official_small_files()["generation_config.json"]}
    assert notes == []


def test_official_small_files_are_made_for_the_official_size_only() -> None:
    assert small_files(None, OFFICIAL_VOCAB_SIZE)[0] == official_small_files()
    assert small_files(None, VOCAB_SIZE)[0] == {}


def test_what_cannot_be_made_is_said() -> None:
    notes = small_files(None, OFFICIAL_VOCAB_SIZE)[1]
    assert [note.split()[0] for note in notes] == ["tokenizer.json", "chat_template.jinja"]
    assert all("--tokenizer" in note for note in notes)


def test_a_metal_file_has_no_template_and_that_is_said(metal: MetalHeaderTokenizer) -> None:
    assert [note.split()[0] for note in small_files(metal, VOCAB_SIZE)[1]] == ["chat_template.jinja"]
