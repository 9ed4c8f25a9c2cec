"""The tokenizer as GGUF metadata: keys, types and values of llama.cpp's converter, and back to facts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizer_directory import VOCAB_SIZE, edit, write_tokenizer

from gptoss_convert.formats.containers.gguf_reader import read_gguf
from gptoss_convert.formats.containers.gguf_types import ValueType
from gptoss_convert.formats.containers.gguf_values import GgufValue
from gptoss_convert.formats.containers.gguf_writer import boolean, f32s, i32, i32s, plan_gguf, string, strings, u32
from gptoss_convert.formats.errors import TokenizerError
from gptoss_convert.model.gguf_tokenizer import (
    config_ids,
    kv_to_facts,
    kv_to_tokenizer,
    tokenizer_to_kv,
    tokenizer_to_ollama_kv,
)
from gptoss_convert.model.harmony import CHAT_TEMPLATE, O200K_PATTERN
from gptoss_convert.model.tokenizer import Tokenizer, read_tokenizer
from gptoss_convert.model.tokenizer_files import SpecialToken
from gptoss_convert.model.tokenizer_json import AddedToken


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return write_tokenizer(tmp_path)


def test_without_a_template_there_is_no_template_key(directory: Path) -> None:
    (directory / "chat_template.jinja").unlink()
    assert "tokenizer.chat_template" not in tokenizer_to_kv(read_tokenizer(directory), VOCAB_SIZE)


def test_keys_and_their_order(directory: Path) -> None:
    kv = tokenizer_to_kv(read_tokenizer(directory), VOCAB_SIZE)
    assert {key: value.value for key, value in kv.items() if value.element_type is None} == {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-4o",
        "tokenizer.ggml.bos_token_id": 300,
        "tokenizer.ggml.eos_token_id": 304,
        "tokenizer.ggml.padding_token_id": 301,
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.ggml.add_eos_token": False,
        "tokenizer.chat_template": CHAT_TEMPLATE,
    }
    assert list(kv)[2:5] == ["tokenizer.ggml.tokens", "tokenizer.ggml.token_type", "tokenizer.ggml.merges"]


def test_there_is_a_token_and_a_type_for_every_row(directory: Path) -> None:
    extra = [{"id": 321, "content": "<|looks special|>"}, {"id": 322, "content": "<plain>"}]
    edit(directory, "tokenizer.json", lambda document: document["added_tokens"].extend(extra))
    kv = tokenizer_to_kv(read_tokenizer(directory), VOCAB_SIZE)
    tokens, types = kv["tokenizer.ggml.tokens"].value, np.asarray(kv["tokenizer.ggml.token_type"].value)
    assert len(tokens) == len(types) == VOCAB_SIZE
    assert (tokens[0], tokens[300], tokens[322], tokens[323]) == ("!", "<|startoftext|>", "<plain>", "[PAD323]")
    assert types.tolist() == [1] * 300 + [3] * 21 + [3, 4] + [5] * 7


def test_a_vocabulary_that_is_too_small_is_refused(directory: Path) -> None:
    with pytest.raises(TokenizerError, match="larger than the vocabulary"):
        tokenizer_to_kv(read_tokenizer(directory), 320)


def test_encoding_adds_what_tokenizer_config_says(directory: Path) -> None:
    edit(directory, "tokenizer_config.json", lambda config: config.update(add_bos_token=True))
    kv = tokenizer_to_kv(read_tokenizer(directory), VOCAB_SIZE)
    assert (kv["tokenizer.ggml.add_bos_token"].value, kv["tokenizer.ggml.add_eos_token"].value) == (True, False)


@pytest.mark.parametrize(("first", "last"), [("<|startoftext|>", None), (None, "<|return|>"), ("<|end|>", "<|end|>")])
def test_encoding_adds_what_the_post_processor_adds(directory: Path, first: str | None, last: str | None) -> None:
    ends = [{"SpecialToken": {"id": text, "type_id": 0}} if text else None for text in (first, last)]
    single = [part for part in (ends[0], {"Sequence": {"id": "A", "type_id": 0}}, ends[1]) if part]
    step = {"type": "TemplateProcessing", "single": single, "pair": [], "special_tokens": {}}
    processor = {"type": "Sequence", "processors": [step]}
    edit(directory, "tokenizer.json", lambda document: document.update(post_processor=processor))
    tokenizer = read_tokenizer(directory)
    assert (tokenizer.add_bos, tokenizer.add_eos) == (first == "<|startoftext|>", last == "<|return|>")


def test_facts_of_a_gguf_equal_those_of_its_source(directory: Path, tmp_path: Path) -> None:
    tokenizer = read_tokenizer(directory)
    path = tmp_path / "tokenizer.gguf"
    path.write_bytes(plan_gguf(tokenizer_to_kv(tokenizer, VOCAB_SIZE), []).header)
    facts = kv_to_facts(read_gguf(path).kv)
    expected = tokenizer.describe()
    assert expected.template is not None
    template = replace(expected.template, source="tokenizer.chat_template")
    assert facts == replace(expected, stop_ids=(), template=template)


def test_facts_of_a_gguf_leave_out_what_is_missing_or_of_another_type() -> None:
    kv = {
        "tokenizer.ggml.tokens": u32(5),
        "tokenizer.ggml.eos_token_id": string("5"),
        "tokenizer.chat_template": u32(1),
    }
    facts = kv_to_facts(kv)
    assert (facts.eos, facts.template, facts.n_text_tokens, facts.n_merges) == (SpecialToken(None, None), None, 0, 0)
    assert kv_to_facts({"tokenizer.ggml.bos_token_id": u32(7)}).bos == SpecialToken(7, None)


# Back to a tokenizer.

FILE = Path("model.gguf")

Keys = dict[str, GgufValue]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return read_tokenizer(write_tokenizer(tmp_path_factory.mktemp("tokenizer")))


@pytest.fixture
def kv(tokenizer: Tokenizer) -> Keys:
    return tokenizer_to_kv(tokenizer, VOCAB_SIZE)


def held_by_gguf(tokenizer: Tokenizer) -> Tokenizer:
    """The tokenizer without what GGUF has no key for."""
    source = None if tokenizer.chat_template is None else "tokenizer.chat_template"
    return replace(tokenizer, pattern=O200K_PATTERN, stop_ids=(), chat_template_source=source, warnings=())


VARIED: dict[str, Callable[[Tokenizer], dict[str, object]]] = {
    "demo": lambda tokenizer: {},
    "no template": lambda tokenizer: {"chat_template": None},
    "no first and no padding": lambda tokenizer: {"bos_id": None, "pad_id": None},
    "text ends and begins": lambda tokenizer: {"add_bos": True, "add_eos": True, "eos_id": 7},
    "other pattern": lambda tokenizer: {"pattern": r"\s+"},
    "user-defined": lambda tokenizer: {"specials": tokenizer.specials | {325: AddedToken("<x> é", special=False)}},
    "gap": lambda tokenizer: {"tokens": tokenizer.tokens | {329: "zzzzz"}},
    "no merges": lambda tokenizer: {"merges": []},
    "merge into a special token": lambda tokenizer: {
        "specials": tokenizer.specials | {322: AddedToken("qq", special=False)},
        "merges": [*tokenizer.merges, "q q"],
    },
}


@pytest.mark.parametrize("change", VARIED.values(), ids=VARIED)
def test_a_tokenizer_comes_back_but_for_what_gguf_cannot_hold(
    tokenizer: Tokenizer, change: Callable[[Tokenizer], dict[str, Any]]
) -> None:
    varied = replace(tokenizer, **change(tokenizer))
    assert kv_to_tokenizer(tokenizer_to_kv(varied, VOCAB_SIZE), FILE) == held_by_gguf(varied)


def test_a_tokenizer_comes_back_from_a_file(tokenizer: Tokenizer, kv: Keys, tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.gguf"
    path.write_bytes(plan_gguf(kv, []).header)
    assert kv_to_tokenizer(read_gguf(path).kv, path) == held_by_gguf(tokenizer)


def test_a_token_that_looks_special_comes_back_as_special(tokenizer: Tokenizer) -> None:
    varied = replace(tokenizer, specials=tokenizer.specials | {321: AddedToken("<|x|>", special=False)})
    back = kv_to_tokenizer(tokenizer_to_kv(varied, VOCAB_SIZE), FILE)
    assert back.specials[321] == AddedToken("<|x|>", special=True)


def as_ollama_writes(tokenizer: Tokenizer, n_fillers: int) -> Keys:
    """The keys of Ollama 0.11's converter: numbered fillers, all stop tokens, no template, no padding.

    Source: Ollama `convert/convert.go`, `convert/tokenizer.go`, `convert/convert_gptoss.go` at fa7776fd.
    """
    texts = tokenizer.tokens | {token_id: added.content for token_id, added in tokenizer.specials.items()}
    tokens = [texts[token_id] for token_id in range(len(texts))] + [f"[PAD{place}]" for place in range(n_fillers)]
    types = [3 if token_id in tokenizer.specials else 1 for token_id in range(len(texts))] + [4] * n_fillers
    return {
        "tokenizer.ggml.add_bos_token": boolean(False),
        "tokenizer.ggml.add_eos_token": boolean(False),
        "tokenizer.ggml.bos_token_id": u32(300),
        "tokenizer.ggml.eos_token_id": u32(301),
        "tokenizer.ggml.eos_token_ids": i32s([301, 304, 314]),
        "tokenizer.ggml.merges": strings(tokenizer.merges),
        "tokenizer.ggml.model": string("gpt2"),
        "tokenizer.ggml.pre": string("default"),
        "tokenizer.ggml.scores": f32s([float(token_id) for token_id in range(len(texts))] + [-1.0] * n_fillers),
        "tokenizer.ggml.token_type": i32s(types),
        "tokenizer.ggml.tokens": strings(tokens),
    }


@pytest.mark.parametrize("n_fillers", [0, 9])
def test_ollamas_keys_give_the_tokenizer_they_were_made_of(tokenizer: Tokenizer, n_fillers: int) -> None:
    expected = replace(held_by_gguf(tokenizer), pad_id=None, chat_template=None, chat_template_source=None)
    back = kv_to_tokenizer(as_ollama_writes(tokenizer, n_fillers), FILE)
    assert back == replace(expected, stop_ids=tokenizer.stop_ids)


def test_ollamas_stop_tokens_without_return_do_not_change_the_end(tokenizer: Tokenizer) -> None:
    keys = as_ollama_writes(tokenizer, 0) | {"tokenizer.ggml.eos_token_ids": i32s([314, 301])}
    back = kv_to_tokenizer(keys, FILE)
    assert (back.eos_id, back.stop_ids) == (301, (301, 314))


@pytest.mark.parametrize("n_fillers", [0, 9])
def test_ollamas_keys_are_written_as_its_converter_does(tokenizer: Tokenizer, n_fillers: int) -> None:
    bare = replace(tokenizer, pad_id=None, chat_template=None)
    written = tokenizer_to_ollama_kv(bare, 321 + n_fillers)
    assert written == as_ollama_writes(tokenizer, n_fillers)
    assert list(written) == sorted(written)


def test_padding_and_template_are_further_keys_of_ollamas(tokenizer: Tokenizer) -> None:
    written = tokenizer_to_ollama_kv(tokenizer, VOCAB_SIZE)
    assert {key: written[key] for key in set(written) - set(as_ollama_writes(tokenizer, 9))} == {
        "tokenizer.ggml.add_padding_token": boolean(False),
        "tokenizer.ggml.padding_token_id": u32(301),
        "tokenizer.chat_template": string(CHAT_TEMPLATE),
    }


@pytest.mark.parametrize("change", VARIED.values(), ids=VARIED)
def test_a_tokenizer_comes_back_from_ollamas_keys(
    tokenizer: Tokenizer, change: Callable[[Tokenizer], dict[str, Any]]
) -> None:
    varied = replace(tokenizer, **change(tokenizer))
    back = kv_to_tokenizer(tokenizer_to_ollama_kv(varied, VOCAB_SIZE), FILE)
    assert replace(back, stop_ids=()) == replace(held_by_gguf(varied), eos_id=304)
    assert set(back.stop_ids) == {*varied.stop_ids, varied.eos_id}


def test_another_end_than_return_is_ollamas_end_too(tokenizer: Tokenizer) -> None:
    varied = replace(tokenizer, eos_id=307, stop_ids=(307, 314))
    written = tokenizer_to_ollama_kv(varied, VOCAB_SIZE)
    assert kv_to_tokenizer(written, FILE) == replace(held_by_gguf(varied), stop_ids=(307, 314))


def test_a_gap_has_the_next_numbered_filler(tokenizer: Tokenizer) -> None:
    varied = replace(tokenizer, tokens=tokenizer.tokens | {325: "zzzzz"})
    written = tokenizer_to_ollama_kv(varied, VOCAB_SIZE)
    tokens, scores = written["tokenizer.ggml.tokens"].value, written["tokenizer.ggml.scores"].value
    assert tokens[321:] == ["[PAD0]", "[PAD1]", "[PAD2]", "[PAD3]", "zzzzz", "[PAD4]", "[PAD5]", "[PAD6]", "[PAD7]"]
    assert scores[320:].tolist() == [320, -1, -1, -1, -1, 325, -1, -1, -1, -1]


IDS: dict[str, tuple[Keys, dict[str, int]]] = {
    "nothing": ({}, {}),
    "llama.cpp": (
        {"tokenizer.ggml.eos_token_id": u32(304), "tokenizer.ggml.padding_token_id": u32(301)},
        {"eos_token_id": 304, "pad_token_id": 301},
    ),
    "Ollama": (
        {
            "tokenizer.ggml.eos_token_id": u32(0),
            "tokenizer.ggml.eos_token_ids": i32s([0, 2, 1]),
            "tokenizer.ggml.tokens": strings(["<|endoftext|>", "<|call|>", "<|return|>"]),
        },
        {"eos_token_id": 2},
    ),
    "stops without return": (
        {
            "tokenizer.ggml.eos_token_id": u32(1),
            "tokenizer.ggml.eos_token_ids": i32s([-1, 5, 1]),
            "tokenizer.ggml.tokens": strings(["a", "b", "<|return|>"]),
        },
        {"eos_token_id": 1},
    ),
    "other types": ({"tokenizer.ggml.eos_token_id": string("304"), "tokenizer.ggml.eos_token_ids": u32(1)}, {}),
}


@pytest.mark.parametrize("case", IDS)
def test_ids_of_config_json_are_found_as_far_as_the_keys_say_them(case: str) -> None:
    kv, expected = IDS[case]
    assert config_ids(kv) == expected


@pytest.mark.parametrize("kind", [4, 5])
def test_fillers_are_no_tokens(tokenizer: Tokenizer, kv: Keys, kind: int) -> None:
    """Older converters of llama.cpp call them user-defined, newer ones unused."""
    types = np.asarray(kv["tokenizer.ggml.token_type"].value).copy()
    assert np.count_nonzero(types == 5) == VOCAB_SIZE - 321
    types[types == 5] = kind
    assert kv_to_tokenizer(kv | {"tokenizer.ggml.token_type": i32s(types)}, FILE) == held_by_gguf(tokenizer)


@pytest.mark.parametrize("key", ["tokenizer.ggml.pre", "tokenizer.ggml.add_bos_token", "tokenizer.ggml.add_eos_token"])
def test_keys_that_some_writers_leave_out_may_be_missing(tokenizer: Tokenizer, kv: Keys, key: str) -> None:
    del kv[key]
    assert kv_to_tokenizer(kv, FILE) == held_by_gguf(tokenizer)


@pytest.mark.parametrize("value_type", [ValueType.I32, ValueType.U64])
def test_ids_may_be_whole_numbers_of_any_size(tokenizer: Tokenizer, kv: Keys, value_type: ValueType) -> None:
    ids = {key: value for key, value in kv.items() if key.endswith("_token_id")}
    assert len(ids) == 3
    kv |= {key: GgufValue(value_type, value.value) for key, value in ids.items()}
    assert kv_to_tokenizer(kv, FILE) == held_by_gguf(tokenizer)


@pytest.mark.parametrize(("split", "warned"), [("gpt-4o", False), ("default", False), ("llama-bpe", True)])
def test_another_split_is_a_warning(kv: Keys, split: str, warned: bool) -> None:
    warnings = kv_to_tokenizer(kv | {"tokenizer.ggml.pre": string(split)}, FILE).warnings
    assert [f"'{split}'" in warning and "o200k" in warning for warning in warnings] == [True] * warned


def put(key: str, value: GgufValue) -> Callable[[Keys], object]:
    return lambda kv: kv.update({f"tokenizer.ggml.{key}": value})


def change(key: str, place: int, value: object) -> Callable[[Keys], object]:
    """One element of the array under `key` becomes `value`."""

    def apply(kv: Keys) -> None:
        stored = kv[f"tokenizer.ggml.{key}"]
        values: list[object] = [*stored.value]
        values[place] = value
        kv[f"tokenizer.ggml.{key}"] = replace(stored, stored=values)

    return apply


def shorten(key: str) -> Callable[[Keys], object]:
    def apply(kv: Keys) -> None:
        stored = kv[f"tokenizer.ggml.{key}"]
        kv[f"tokenizer.ggml.{key}"] = replace(stored, stored=stored.value[:-1])

    return apply


def types(kinds: Sequence[int]) -> Callable[[Keys], object]:
    return put("token_type", i32s(kinds))


KINDS = {
    "model": "a string",
    "tokens": "an array of strings",
    "token_type": "an array of whole numbers",
    "merges": "an array of strings",
    "eos_token_id": "a whole number",
}


@pytest.mark.parametrize(("key", "kind"), KINDS.items(), ids=KINDS)
def test_a_missing_key_is_refused_by_name(kv: Keys, key: str, kind: str) -> None:
    del kv[f"tokenizer.ggml.{key}"]
    message = f"^model.gguf: key 'tokenizer.ggml.{key}': the key is missing; expected {kind}; found nothing"
    with pytest.raises(TokenizerError, match=message):
        kv_to_tokenizer(kv, FILE)


OTHER_TYPES = {
    "tokens": (string("a"), "an array of strings; found string"),
    "token_type": (f32s([1.0]), "an array of whole numbers; found array of f32"),
    "merges": (i32s([1]), "an array of strings; found array of i32"),
    "model": (strings(["gpt2"]), "a string; found array of string"),
    "pre": (u32(1), "a string; found u32"),
    "bos_token_id": (string("300"), "a whole number; found string"),
    "eos_token_id": (i32s([304]), "a whole number; found array of i32"),
    "padding_token_id": (boolean(True), "a whole number; found bool"),
    "eos_token_ids": (u32(304), "an array of whole numbers; found u32"),
    "add_bos_token": (u32(1), "true or false; found u32"),
    "add_eos_token": (string("no"), "true or false; found string"),
}


@pytest.mark.parametrize("key", OTHER_TYPES)
def test_a_key_of_another_type_is_refused_by_name(kv: Keys, key: str) -> None:
    value, message = OTHER_TYPES[key]
    put(key, value)(kv)
    match = f"^model.gguf: key 'tokenizer.ggml.{key}': the key has another type; expected {message}"
    with pytest.raises(TokenizerError, match=match):
        kv_to_tokenizer(kv, FILE)


def test_a_template_of_another_type_is_refused_by_name(kv: Keys) -> None:
    kv["tokenizer.chat_template"] = strings(["x"])
    with pytest.raises(TokenizerError, match=r"key 'tokenizer\.chat_template': the key has another type"):
        kv_to_tokenizer(kv, FILE)


BAD: dict[str, tuple[Callable[[Keys], object], str]] = {
    "not BPE": (put("model", string("llama")), "model': is not byte-level BPE; expected 'gpt2'; found 'llama'"),
    "a type too few": (shorten("token_type"), "token_type': there is not one type for each token; .* 330; found 329"),
    "a token too few": (shorten("tokens"), "token_type': there is not one type for each token; .* 329; found 330"),
    "unknown type": (
        change("token_type", 5, 6),
        r"unknown type of token; expected 1 \(normal\), .*; found 6 for id 5,",
    ),
    "no text tokens": (types([3] * VOCAB_SIZE), "there are no text tokens; expected tokens of type 1; found none"),
    "not in the byte alphabet": (change("tokens", 5, "a b"), "tokens in the byte-level alphabet; found 'a b', id 5"),
    "special token without text": (change("tokens", 305, ""), "special token has no text; .*; found id 305"),
    "token twice": (change("tokens", 5, "!"), "tokens': a token is there twice; .*; found '!' with the ids 0 and 5"),
    "special as text": (change("tokens", 305, "!"), "a token is there twice; .*; found '!' with the ids 0 and 305"),
    "merge of one": (change("merges", 3, "ab"), "merges': is not a merge of two tokens into a third; .*; found 'ab'"),
    "merge of three": (change("merges", 3, "a b c"), "into a third; .*; found 'a b c'"),
    "merge of nothing": (change("merges", 3, "a "), "into a third; .*; found 'a '"),
    "merge of an unknown token": (change("merges", 3, "a ??"), "into a third; expected tokens of .*; found 'a .*'"),
    "merge into an unknown token": (change("merges", 3, "ÿ ÿ"), "into a third; .*; found 'ÿ ÿ'"),
    "first past the tokens": (put("bos_token_id", u32(330)), "bos_token_id': is not the id of a token; .* found 330"),
    "end is a filler": (put("eos_token_id", u32(321)), "eos_token_id': is not the id of a token; .* found 321"),
    "padding is negative": (put("padding_token_id", i32(-1)), "padding_token_id': is not the id of .* found -1"),
    "stop is a filler": (put("eos_token_ids", i32s([304, 325])), "eos_token_ids': is not the id of .* found 325"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_keys_are_refused_by_name(kv: Keys, case: str) -> None:
    spoil, message = BAD[case]
    spoil(kv)
    with pytest.raises(TokenizerError, match=message) as caught:
        kv_to_tokenizer(kv, FILE)
    assert str(caught.value).startswith("model.gguf: key 'tokenizer.ggml.")
    assert "--tokenizer" in str(caught.value)
