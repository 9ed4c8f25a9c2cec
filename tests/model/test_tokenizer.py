"""Reading tokenizers: equal to what tokenizers, transformers and gguf-py read; bad ones refused by name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from gguf.vocab import SpecialVocab
from tokenizer_directory import FILES, N_TEXT, Edit, edit, write_tokenizer
from tokenizers import Tokenizer as HfTokenizer
from tokenizers.pre_tokenizers import ByteLevel

from gptoss_convert.formats.errors import TokenizerError
from gptoss_convert.model.harmony import CHAT_TEMPLATE, O200K_PATTERN
from gptoss_convert.model.tokenizer import read_tokenizer
from gptoss_convert.model.tokenizer_files import SpecialToken, read_special_token_facts, template_facts
from gptoss_convert.model.tokenizer_json import AddedToken, byte_alphabet


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return write_tokenizer(tmp_path)


def test_tokens_and_specials_are_those_that_the_tokenizers_library_reads(directory: Path) -> None:
    tokenizer = read_tokenizer(directory)
    library = HfTokenizer.from_file(str(directory / "tokenizer.json"))
    everything = tokenizer.tokens | {token_id: added.content for token_id, added in tokenizer.specials.items()}
    assert {token: token_id for token_id, token in everything.items()} == library.get_vocab(with_added_tokens=True)
    assert {key: added.content for key, added in tokenizer.specials.items()} == {
        key: added.content for key, added in library.get_added_tokens_decoder().items()
    }


def test_merges_ids_and_template_are_those_that_llama_cpp_s_converter_reads(directory: Path) -> None:
    tokenizer = read_tokenizer(directory)
    converter = SpecialVocab(directory, load_merges=True)
    assert tokenizer.merges == converter.merges
    assert converter.special_token_ids == {"bos": tokenizer.bos_id, "eos": tokenizer.eos_id, "pad": tokenizer.pad_id}
    assert tokenizer.chat_template == converter.chat_template == CHAT_TEMPLATE


def test_byte_alphabet_is_that_of_the_tokenizers_library() -> None:
    assert len(set(byte_alphabet())) == 256
    assert set(byte_alphabet()) == set(ByteLevel.alphabet())
    # The library's own spelling of every short character in UTF-8 fixes which character is which byte.
    for code_point in range(0x800):
        character = chr(code_point)
        spelled = ByteLevel(add_prefix_space=False, use_regex=False).pre_tokenize_str(character)[0][0]
        assert spelled == "".join(byte_alphabet()[byte] for byte in character.encode())


def test_merges_written_as_strings_are_read_alike(directory: Path) -> None:
    expected = read_tokenizer(directory).merges

    def join(document: dict[str, Any]) -> None:
        document["model"]["merges"] = [" ".join(pair) for pair in document["model"]["merges"]]

    edit(directory, "tokenizer.json", join)
    assert read_tokenizer(directory).merges == expected


def test_an_added_token_that_is_in_the_vocabulary_too_is_a_special_one(directory: Path) -> None:
    edit(directory, "tokenizer.json", lambda document: document["model"]["vocab"].update({"<|start|>": 308}))
    tokenizer = read_tokenizer(directory)
    assert tokenizer.specials[308] == AddedToken("<|start|>", special=True)
    assert 308 not in tokenizer.tokens


def merge(left: Any, *right: Any) -> Edit:
    return lambda document: document["model"].update(merges=[[left, *right]])


def added(**entry: Any) -> Edit:
    return lambda document: document["added_tokens"].append(entry)


def vocabulary(**entries: Any) -> Edit:
    return lambda document: document["model"]["vocab"].update(entries)


BAD_TOKENIZERS: dict[str, tuple[Edit, str]] = {
    "no model": (lambda document: document.pop("model"), "key 'model': .* expected an object; found None"),
    "not BPE": (
        lambda document: document["model"].update(type="Unigram"),
        "model.type.* BPE; found 'Unigram'",
    ),
    "no vocabulary": (lambda document: document["model"].update(vocab={}), "expected an object of tokens and ids"),
    "suffix": (
        lambda document: document["model"].update(end_of_word_suffix="</w>"),
        "suffix.*found '</w>'",
    ),
    "id twice": (vocabulary(Ø=0), "every id once; found id 0 for '!' and 'Ø'"),
    "negative id": (vocabulary(Ø=-1), "ids from 0 up; found '.*' with id -1"),
    "id is a bool": (vocabulary(Ø=True), "ids from 0 up; found '.*' with id True"),
    "id is a text": (vocabulary(Ø="7"), "ids from 0 up; found '.*' with id '7'"),
    "not in the byte alphabet": (vocabulary(**{"a b": 325}), "byte-level alphabet; found 'a b', id 325"),
    "added tokens not a list": (lambda document: document.update(added_tokens={}), "'added_tokens'.*expected a list"),
    "added id twice": (added(id=300, content="<x>"), "every id once; found id 300 for '<|startoftext|>' and '<x>'"),
    "added id of a text token": (added(id=0, content="<x>"), "every id once; found id 0 for '!' and '<x>'"),
    "added text twice": (added(id=329, content="<|end|>"), "every text once; found '<|end|>' with the ids 309 and 329"),
    "added without id": (added(content="<x>"), "expected objects with an id from 0 up and a content"),
    "added id negative": (added(id=-4, content="<x>"), "expected objects with an id from 0 up and a content"),
    "added without content": (added(id=329), "expected objects with an id from 0 up and a content"),
    "no merges": (lambda document: document["model"].pop("merges"), "key 'model.merges': .* expected a list"),
    "merge of unknown left": (merge("??", "!"), "tokens of model.vocab; found '??' and '!'"),
    "merge of unknown right": (merge("!", "??"), "tokens of model.vocab; found '!' and '??'"),
    "merge into an unknown token": (merge("ÿ", "ÿ"), "tokens of model.vocab; found 'ÿ' and 'ÿ'"),
    "merge of three": (merge("a", "b", "c"), "two tokens in each merge"),
    "merge of a list": (merge(["a"], "b"), "two tokens in each merge"),
    "no byte-level split": (
        lambda document: document.update(pre_tokenizer=None),
        "'pre_tokenizer'.*expected ByteLevel",
    ),
    "no byte-level decoder": (
        lambda document: document.update(decoder={"type": "Metaspace"}),
        "'decoder'.*expected ByteLevel; found .'Metaspace'.",
    ),
}


@pytest.mark.parametrize("case", BAD_TOKENIZERS)
def test_bad_tokenizer_is_refused_by_name(directory: Path, case: str) -> None:
    change, message = BAD_TOKENIZERS[case]
    edit(directory, "tokenizer.json", change)
    with pytest.raises(TokenizerError, match=message.replace("|", r"\|").replace("??", r"\?\?")) as caught:
        read_tokenizer(directory)
    assert str(caught.value).startswith(str(directory / "tokenizer.json"))


def test_missing_tokenizer_is_refused_with_where_to_get_it(directory: Path) -> None:
    (directory / "tokenizer.json").unlink()
    with pytest.raises(TokenizerError, match=r"there is no tokenizer\.json.*Copy tokenizer\.json from openai"):
        read_tokenizer(directory)


def test_tokenizer_that_is_not_json_is_refused(directory: Path) -> None:
    (directory / "tokenizer.json").write_bytes(FILES["tokenizer.json"][:1000])
    with pytest.raises(TokenizerError, match="not valid JSON"):
        read_tokenizer(directory)


def test_tokenizer_that_is_not_an_object_is_refused(directory: Path) -> None:
    (directory / "tokenizer.json").write_text("[]")
    with pytest.raises(TokenizerError, match="expected a JSON object"):
        read_tokenizer(directory)


def test_tokenizer_larger_than_the_vocabulary_is_refused(directory: Path) -> None:
    read_tokenizer(directory, vocab_size=321)
    with pytest.raises(TokenizerError, match=r"ids below vocab_size 320; found id 320, '<\|endofprompt\|>'"):
        read_tokenizer(directory, vocab_size=320)


@pytest.mark.parametrize("role", ["bos", "eos", "pad"])
def test_a_role_given_to_an_unknown_token_is_refused(directory: Path, role: str) -> None:
    edit(directory, "tokenizer_config.json", lambda config: config.update({f"{role}_token": "<nope>"}))
    with pytest.raises(TokenizerError, match=f"key '{role}_token': is not a known token; .* found '<nope>'"):
        read_tokenizer(directory)


def test_a_role_given_to_an_unknown_id_is_refused(directory: Path) -> None:
    (directory / "tokenizer_config.json").unlink()
    edit(directory, "generation_config.json", lambda config: config.update(eos_token_id=[325]))
    with pytest.raises(TokenizerError, match=r"generation_config\.json: key 'eos_token_id': is not a known token"):
        read_tokenizer(directory)


def test_a_tokenizer_without_an_end_is_refused(directory: Path) -> None:
    (directory / "tokenizer_config.json").unlink()
    (directory / "generation_config.json").unlink()
    with pytest.raises(TokenizerError, match="nothing says which token ends a text"):
        read_tokenizer(directory)


def test_ids_come_from_config_json_when_tokenizer_config_is_missing(directory: Path) -> None:
    (directory / "tokenizer_config.json").unlink()
    (directory / "config.json").write_text('{"eos_token_id": 304, "pad_token_id": 301}')
    tokenizer = read_tokenizer(directory)
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id) == (300, 304, 301)


def test_a_role_may_be_spelled_as_an_object(directory: Path) -> None:
    edit(directory, "tokenizer_config.json", lambda config: config.update(eos_token={"content": "<|call|>"}))
    assert read_tokenizer(directory).eos_id == 314


@pytest.mark.parametrize("content", [b"[]", b"{", b'{"a": NaN}'])
def test_a_small_file_that_is_not_what_its_name_says_is_refused(directory: Path, content: bytes) -> None:
    (directory / "tokenizer_config.json").write_bytes(content)
    with pytest.raises(TokenizerError, match=r"tokenizer_config\.json"):
        read_tokenizer(directory)


# Warnings: the conversion goes on.


def split_step(document: dict[str, Any]) -> Any:
    return document["pre_tokenizer"]["pretokenizers"][0]


WARNED: dict[str, tuple[str, Edit, str]] = {
    "other pattern": (
        "tokenizer.json",
        lambda document: split_step(document)["pattern"].update(Regex=r"\p{L}+"),
        "llama.cpp will split it by the gpt-4o rules",
    ),
    "no pattern": (
        "tokenizer.json",
        lambda document: document.update(pre_tokenizer={"type": "ByteLevel"}),
        "llama.cpp will split it by the gpt-4o rules",
    ),
    "normalizer": ("tokenizer.json", lambda document: document.update(normalizer={"type": "NFC"}), "normalizes text"),
    "prefix space": (
        "tokenizer.json",
        lambda document: document["pre_tokenizer"]["pretokenizers"][1].update(add_prefix_space=True),
        "puts a space before a text",
    ),
    "ids disagree": (
        "generation_config.json",
        lambda config: config.update(eos_token_id=301),
        "generation_config.json says eos_token_id 301; 304 is used",
    ),
    "ids with a gap": (
        "tokenizer.json",
        lambda document: document["added_tokens"].append({"id": 325, "content": "<x>"}),
        "tokenizer.json gives '<x>' the id 325, but transformers will give it 321",
    ),
    "templates disagree": (
        "tokenizer_config.json",
        lambda config: config.update(chat_template="other"),
        "tokenizer_config.json holds another chat template; chat_template.jinja is used",
    ),
    "named templates": (
        "tokenizer_config.json",
        lambda config: config.update(chat_template=[{"name": "tool_use", "template": "x"}]),
        "chat template 'tool_use' of tokenizer_config.json is not carried",
    ),
}


def test_the_demo_gives_no_warning(directory: Path) -> None:
    assert read_tokenizer(directory).warnings == ()


@pytest.mark.parametrize("case", WARNED)
def test_what_llama_cpp_will_do_otherwise_is_a_warning(directory: Path, case: str) -> None:
    name, change, message = WARNED[case]
    edit(directory, name, change)
    warnings = read_tokenizer(directory).warnings
    assert len(warnings) == 1
    assert message in warnings[0]


@pytest.mark.parametrize(("old", "new"), [(r"\r\n", "\r\n"), ("/", r"\/")])
def test_the_o200k_pattern_is_known_in_other_escapes(directory: Path, old: str, new: str) -> None:
    spelled = O200K_PATTERN.replace(old, new)
    assert spelled != O200K_PATTERN
    edit(directory, "tokenizer.json", lambda document: split_step(document)["pattern"].update(Regex=spelled))
    assert read_tokenizer(directory).warnings == ()


# The chat template.


@pytest.mark.parametrize(
    "stored", ["embedded\r\n é", [{"name": "default", "template": "embedded\r\n é"}]], ids=["text", "list"]
)
def test_template_comes_from_tokenizer_config_when_there_is_no_file(directory: Path, stored: object) -> None:
    (directory / "chat_template.jinja").unlink()
    edit(directory, "tokenizer_config.json", lambda config: config.update(chat_template=stored))
    tokenizer = read_tokenizer(directory)
    assert (tokenizer.chat_template, tokenizer.chat_template_source) == ("embedded\r\n é", "tokenizer_config.json")


def test_template_file_is_carried_byte_for_byte(directory: Path) -> None:
    content = b"\r\n<|channel|>\r\ttrailing \n\n"
    (directory / "chat_template.jinja").write_bytes(content)
    tokenizer = read_tokenizer(directory)
    assert tokenizer.chat_template is not None
    assert tokenizer.chat_template.encode() == content


def test_no_template_is_no_template(directory: Path) -> None:
    (directory / "chat_template.jinja").unlink()
    tokenizer = read_tokenizer(directory)
    assert (tokenizer.chat_template, tokenizer.describe().template) == (None, None)


def test_template_that_is_not_utf_8_is_refused(directory: Path) -> None:
    (directory / "chat_template.jinja").write_bytes(b"abc\xff")
    with pytest.raises(TokenizerError, match=r"chat_template\.jinja: is not text in UTF-8; found .* at byte 3"):
        read_tokenizer(directory)


@pytest.mark.parametrize("stored", [5, [{"name": "default"}], ["text"]])
def test_malformed_embedded_template_is_refused(directory: Path, stored: object) -> None:
    edit(directory, "tokenizer_config.json", lambda config: config.update(chat_template=stored))
    with pytest.raises(TokenizerError, match="key 'chat_template': is not a chat template"):
        read_tokenizer(directory)


def test_template_digest_tells_the_official_one_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    # SHA-256 of "abc" from FIPS 180-4.
    digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    facts = template_facts("abc", "here")
    assert facts is not None
    assert (facts.source, facts.n_chars, facts.sha256, facts.official) == ("here", 3, digest, False)
    monkeypatch.setattr("gptoss_convert.model.tokenizer_files.OFFICIAL_CHAT_TEMPLATE_SHA256", digest)
    assert template_facts("abc", "here") == replace(facts, official=True)


# Facts for inspect.


def test_facts_without_tokenizer_json_equal_those_with_it(directory: Path) -> None:
    full = read_tokenizer(directory).describe()
    (directory / "tokenizer.json").unlink()
    quick = read_special_token_facts(directory)
    assert replace(full, n_text_tokens=None, n_special_tokens=None, n_merges=None) == quick
    assert (full.n_text_tokens, full.n_special_tokens, full.n_merges) == (N_TEXT, 21, N_TEXT - 256)
    assert quick.eos == SpecialToken(304, "<|return|>")
    assert quick.stop_ids == (304, 301, 314)


def test_facts_of_an_empty_directory_are_unknown(tmp_path: Path) -> None:
    facts = read_special_token_facts(tmp_path)
    assert (facts.bos, facts.template, facts.stop_ids) == (SpecialToken(None, None), None, ())


def test_facts_take_ids_from_config_json_when_tokenizer_config_lists_none(directory: Path) -> None:
    edit(directory, "tokenizer_config.json", lambda config: config.pop("added_tokens_decoder"))
    assert read_special_token_facts(directory).eos == SpecialToken(304, "<|return|>")
