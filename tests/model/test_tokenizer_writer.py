"""The Hugging Face files of a tokenizer: the published bytes, and what tokenizers and transformers make of others."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tokenizer_directory import FILES, VOCAB_SIZE, write_tokenizer
from tokenizers import Tokenizer as Library
from transformers import AutoTokenizer

from gptoss_convert.model.gguf_tokenizer import kv_to_tokenizer, tokenizer_to_kv
from gptoss_convert.model.harmony import special_tokens
from gptoss_convert.model.metal_tokenizer import metal_to_tokenizer, to_metal_tokenizer
from gptoss_convert.model.tokenizer import Tokenizer, harmony_tokenizer, read_tokenizer
from gptoss_convert.model.tokenizer_json import AddedToken, byte_alphabet
from gptoss_convert.model.tokenizer_writer import official_small_files, small_tokenizer_files, tokenizer_files

# Published with revisions 6cee5e81 (20b) and b5c939de (120b); the same in both.
PUBLISHED = {
    "generation_config.json": (177, "f9970ada892d2d1f72e3ed0a6535ccebadd11897318794ca671d8c7014c957da"),
    "special_tokens_map.json": (98, "dd5e191d20c12d2fee1da5bae14ca1db0f5f4215300af691f23cdee97120a293"),
    "tokenizer_config.json": (4200, "9279e942392b742d633c7adbb89ebe002c98399db8926a7af5125c726f404070"),
}

TEXTS = [
    "Hello, world! The weather in the mountains.",
    "don't CAN'T  we'Ll iPhone HTTPServer\t\r\n\r\n   trail  ",
    "<|start|>user<|message|>Grüße 今日は天気がいい 안녕하세요 مرحبا<|end|><|start|>assistant<|channel|>final",
    "😀👩‍👩‍👧🏽 \u200b\x00\x7f ½²٣٤٥٦ Ⅷ<|return|><|endofprompt|>",
    "<|startoftext|> <|reserved_200017|>x<tool> y <tool>",
]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return read_tokenizer(write_tokenizer(tmp_path_factory.mktemp("tokenizer")))


def written(tokenizer: Tokenizer, directory: Path) -> Path:
    for name, content in tokenizer_files(tokenizer).items():
        (directory / name).write_bytes(content)
    return directory


def library(tokenizer: Tokenizer) -> Any:
    return Library.from_buffer(tokenizer_files(tokenizer)["tokenizer.json"])


@pytest.mark.parametrize("name", PUBLISHED)
def test_official_file_is_byte_identical_to_the_published_one(name: str) -> None:
    content = official_small_files()[name]
    assert (len(content), hashlib.sha256(content).hexdigest()) == PUBLISHED[name]


def test_files_are_byte_identical_to_those_that_were_read(tokenizer: Tokenizer) -> None:
    assert tokenizer_files(tokenizer) == FILES


def test_files_are_byte_identical_after_gguf(tokenizer: Tokenizer) -> None:
    assert tokenizer_files(kv_to_tokenizer(tokenizer_to_kv(tokenizer, VOCAB_SIZE), "x.gguf")) == FILES


def test_small_files_are_byte_identical_after_metal(tokenizer: Tokenizer) -> None:
    """Merges are found again by another rule, so tokenizer.json is not; its ids are, see the test below."""
    back = metal_to_tokenizer(to_metal_tokenizer(tokenizer, VOCAB_SIZE), VOCAB_SIZE, Path("model.bin"))
    assert tokenizer_files(back).keys() == FILES.keys() - {"chat_template.jinja"}
    assert small_tokenizer_files(back).items() <= FILES.items()


def test_tokenizer_json_is_byte_identical_to_what_the_library_writes(tokenizer: Tokenizer) -> None:
    odd = tokenizer.specials | {321: AddedToken('"\\\u2028 <tool>\n\x01', special=False)}
    changes: list[dict[str, Any]] = [
        {},
        {"specials": odd},
        {"add_bos": True, "add_eos": True},
        {"tokens": tokenizer.tokens | {321: "zzzzz"}},
    ]
    for varied in (replace(tokenizer, **change) for change in changes):
        assert tokenizer_files(varied)["tokenizer.json"].decode() == library(varied).to_str(pretty=True)


VARIED: dict[str, Callable[[Tokenizer], dict[str, object]]] = {
    "demo": lambda tokenizer: {},
    "first and last": lambda tokenizer: {"add_bos": True, "add_eos": True},
    "user-defined": lambda tokenizer: {"specials": tokenizer.specials | {321: AddedToken("<tool>", special=False)}},
    "gap before special tokens": lambda tokenizer: {
        "specials": {token_id + 5: added for token_id, added in tokenizer.specials.items()},
        "bos_id": 305,
        "eos_id": 309,
        "pad_id": 306,
        "stop_ids": (309, 306),
    },
    "text after special tokens": lambda tokenizer: {
        "tokens": tokenizer.tokens | {321: "ĠĠĠĠĠĠĠ", 324: "zzzzz"},
        "specials": tokenizer.specials | {322: AddedToken("<tool>", special=False)},
    },
    "merge into a special token": lambda tokenizer: {
        "specials": tokenizer.specials | {321: AddedToken("qq", special=False)},
        "merges": [*tokenizer.merges, "q q"],
    },
    "no roles": lambda tokenizer: {"bos_id": None, "pad_id": None, "chat_template": None, "chat_template_source": None},
}


@pytest.mark.parametrize("change", VARIED.values(), ids=VARIED)
def test_the_library_has_every_token_at_its_id(
    tokenizer: Tokenizer, change: Callable[[Tokenizer], dict[str, Any]]
) -> None:
    varied = replace(tokenizer, **change(tokenizer))
    everything = varied.tokens | {token_id: added.content for token_id, added in varied.specials.items()}
    loaded = library(varied)
    assert loaded.get_vocab(with_added_tokens=True) == {text: token_id for token_id, text in everything.items()}
    flags = {token_id: added.special for token_id, added in loaded.get_added_tokens_decoder().items()}
    assert flags == {token_id: added.special for token_id, added in varied.specials.items()}


@pytest.mark.parametrize("change", VARIED.values(), ids=VARIED)
def test_what_was_written_is_read_again(
    tokenizer: Tokenizer, change: Callable[[Tokenizer], dict[str, Any]], tmp_path: Path
) -> None:
    varied = replace(tokenizer, **change(tokenizer))
    assert read_tokenizer(written(varied, tmp_path)) == replace(varied, warnings=())


@pytest.mark.parametrize("kind", ["gguf", "metal"])
@pytest.mark.parametrize("text", TEXTS)
def test_transformers_encodes_as_the_original(tokenizer: Tokenizer, kind: str, text: str, tmp_path: Path) -> None:
    if kind == "gguf":
        back = kv_to_tokenizer(tokenizer_to_kv(tokenizer, VOCAB_SIZE), "x.gguf")
    else:
        back = metal_to_tokenizer(to_metal_tokenizer(tokenizer, VOCAB_SIZE), VOCAB_SIZE, Path("model.bin"))
    found = AutoTokenizer.from_pretrained(written(back, tmp_path))
    (tmp_path / "original").mkdir()
    expected = AutoTokenizer.from_pretrained(write_tokenizer(tmp_path / "original"))
    assert found.encode(text) == expected.encode(text)
    assert found.decode(found.encode(text)) == text
    assert (found.bos_token_id, found.eos_token_id, found.pad_token_id) == (300, 304, 301)


@pytest.mark.parametrize("name", ["user-defined", "gap before special tokens", "text after special tokens"])
def test_transformers_has_every_special_token_at_its_id(tokenizer: Tokenizer, name: str, tmp_path: Path) -> None:
    varied = replace(tokenizer, **VARIED[name](tokenizer))  # type: ignore[arg-type]
    found = AutoTokenizer.from_pretrained(written(varied, tmp_path))
    contents = [added.content for added in varied.specials.values()]
    assert found.convert_tokens_to_ids(contents) == list(varied.specials)
    assert found.encode("".join(contents)) == list(varied.specials)
    assert set(found.all_special_ids) >= {varied.bos_id, varied.eos_id, varied.pad_id}


def test_transformers_hides_special_tokens_and_shows_the_others(tokenizer: Tokenizer, tmp_path: Path) -> None:
    varied = replace(tokenizer, **VARIED["user-defined"](tokenizer))  # type: ignore[arg-type]
    found = AutoTokenizer.from_pretrained(written(varied, tmp_path))
    assert found.decode([*found.encode("a<tool>b"), varied.eos_id], skip_special_tokens=True) == "a<tool>b"


@pytest.mark.parametrize(("bos", "eos"), [(True, False), (False, True), (True, True)])
def test_transformers_adds_the_first_and_the_last_token(
    tokenizer: Tokenizer, bos: bool, eos: bool, tmp_path: Path
) -> None:
    found = AutoTokenizer.from_pretrained(written(replace(tokenizer, add_bos=bos, add_eos=eos), tmp_path))
    inner = found.encode("abc", add_special_tokens=False)
    assert found.encode("abc") == [300] * bos + inner + [304] * eos


def test_the_template_is_carried_byte_for_byte(tokenizer: Tokenizer) -> None:
    files = tokenizer_files(replace(tokenizer, chat_template="\r\n é\n\n"))
    assert files["chat_template.jinja"] == "\r\n é\n\n".encode()


@pytest.mark.parametrize(
    ("stop_ids", "names", "expected"),
    [
        ((7, 304), (), [7, 304]),
        ((), (), [304, 301, 314]),
        ((), ("<|call|>",), [304, 301]),
        ((), ("<|call|>", "<|return|>", "<|endoftext|>"), [304]),
    ],
)
def test_generation_stops_at_the_end_and_at_harmonys_stop_tokens(
    tokenizer: Tokenizer, stop_ids: tuple[int, ...], names: tuple[str, ...], expected: list[int]
) -> None:
    """`names` are missing: another token stands at their id."""
    renamed = {
        token_id: replace(added, content=f"<|was {added.content[2:-2]}|>") if added.content in names else added
        for token_id, added in tokenizer.specials.items()
    }
    files = small_tokenizer_files(replace(tokenizer, specials=renamed, stop_ids=stop_ids))
    assert json.loads(files["generation_config.json"])["eos_token_id"] == expected


@pytest.mark.parametrize("first_special", [384, 99_990, 199_998])
def test_special_ids_follow_the_first(first_special: int) -> None:
    files = small_tokenizer_files(harmony_tokenizer({}, [], special_tokens(first_special)))
    stored = json.loads(files["tokenizer_config.json"])["added_tokens_decoder"]
    assert [int(token_id) for token_id in stored] == list(range(first_special, first_special + 21))
    stop = json.loads(files["generation_config.json"])["eos_token_id"]
    assert [stored[str(token_id)]["content"] for token_id in stop] == ["<|return|>", "<|endoftext|>", "<|call|>"]


def test_a_tokenizer_of_bytes_alone_is_written() -> None:
    bare = harmony_tokenizer(dict(enumerate(byte_alphabet())), [], special_tokens(256))
    loaded = library(bare)
    assert loaded.encode("é<|end|>").ids == [0xC3, 0xA9, 256 + 9]
    assert loaded.to_str(pretty=True).encode() == tokenizer_files(bare)["tokenizer.json"]


def test_a_whole_word_that_is_a_token_needs_no_merge() -> None:
    """As in the official tokenizer.json: `ignore_merges`."""
    tokens = dict(enumerate([*byte_alphabet(), "abc"]))
    assert library(harmony_tokenizer(tokens, [], special_tokens(257))).encode("abc ab").ids == [256, 32, 97, 98]
