"""The tokenizer as GGUF metadata: keys, types and values of llama.cpp's converter, and back to facts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tokenizer_directory import VOCAB_SIZE, edit, write_tokenizer

from gptoss_convert.formats.containers.gguf_reader import read_gguf
from gptoss_convert.formats.containers.gguf_writer import plan_gguf, string, u32
from gptoss_convert.formats.errors import TokenizerError
from gptoss_convert.model.gguf_tokenizer import kv_to_facts, tokenizer_to_kv
from gptoss_convert.model.harmony import CHAT_TEMPLATE
from gptoss_convert.model.tokenizer import read_tokenizer
from gptoss_convert.model.tokenizer_files import SpecialToken


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
