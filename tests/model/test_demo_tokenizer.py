"""The demo tokenizer: what transformers, tokenizers and llama.cpp make of it."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import xllamacpp
from tokenizers import Tokenizer as HfTokenizer
from transformers import AutoTokenizer

from gptoss_convert.formats.errors import UsageError
from gptoss_convert.model.demo_tokenizer import byte_level_vocabulary, demo_tokenizer_files
from gptoss_convert.model.gguf_tokenizer import tokenizer_to_kv
from gptoss_convert.model.harmony import special_tokens
from gptoss_convert.model.tokenizer import read_tokenizer

N_TEXT, VOCAB_SIZE = 3000, 3072

TEXTS = [
    "",
    " ",
    "Hello, world! The weather in the mountains.",
    "don't CAN'T  we'Ll iPhone HTTPServer",
    "   lead\n \n trail  \r\n\r\n",
    "def f(x):\n    return {'a': x[0] // 1234567}  # a/b//c\n",
    "Ünïcode ÉCOLE École ÀÉbc ПРИВЕТ Привет ½²٣٤٥٦ Ⅷ",
    "今日は天気がいい 안녕하세요 مرحبا Ελληνικά",
    "😀👩‍👩‍👧🏽 \u200b\x00\x7f",
]

MESSAGES = [
    {"role": "system", "content": "Be kind."},
    {"role": "user", "content": "How much?"},
    {
        "role": "assistant",
        "content": "",
        "reasoning_content": "Ask.",
        "tool_calls": [{"id": "0", "type": "function", "function": {"name": "price", "arguments": '{"of": 1}'}}],
    },
    {"role": "tool", "tool_call_id": "0", "content": "42"},
    {"role": "assistant", "content": "It is 42."},
    {"role": "user", "content": "Thanks."},
]

RENDERED = (
    "<|start|>system<|message|>You are a test model that speaks the Harmony format.\n\nReasoning: medium\n\n"
    "Channels: analysis, commentary, final. Every message names one.<|end|>"
    "<|start|>developer<|message|># Instructions\n\nBe kind.<|end|>"
    "<|start|>user<|message|>How much?<|end|>"
    "<|start|>assistant<|channel|>analysis<|message|>Ask.<|end|>"
    '<|start|>assistant to=functions.price<|channel|>commentary <|constrain|>json<|message|>{"of": 1}<|call|>'
    "<|start|>functions.price to=assistant<|channel|>commentary<|message|>42<|end|>"
    "<|start|>assistant<|channel|>final<|message|>It is 42.<|end|>"
    "<|start|>user<|message|>Thanks.<|end|>"
    "<|start|>assistant"
)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("tokenizer")
    for name, content in demo_tokenizer_files(N_TEXT, VOCAB_SIZE).items():
        (directory / name).write_bytes(content)
    return directory


@pytest.fixture(scope="module")
def hf(directory: Path) -> Any:
    return AutoTokenizer.from_pretrained(directory)


@pytest.fixture(scope="module")
def llama_cpp(directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    """`llama_cpp(path, **request)`: llama.cpp's answer, with our metadata in the smallest model it loads."""
    path = tmp_path_factory.mktemp("gguf") / "tokenizer.gguf"
    write_smallest_model(path, directory)
    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(path)
    parameters.n_ctx, parameters.n_parallel, parameters.warmup, parameters.verbosity = 256, 1, False, 0
    server = xllamacpp.Server(parameters)

    def ask(endpoint: str, **request: Any) -> Any:
        headers = {"Content-Type": "application/json"}
        url = server.listening_address + endpoint
        with urllib.request.urlopen(urllib.request.Request(url, json.dumps(request).encode(), headers)) as answer:
            return json.load(answer)

    return ask


def write_smallest_model(path: Path, directory: Path) -> None:
    """A one-layer llama of width 32 with zero weights, written by gguf-py."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(1)
    writer.add_context_length(256)
    writer.add_embedding_length(32)
    writer.add_feed_forward_length(32)
    writer.add_head_count(1)
    writer.add_layer_norm_rms_eps(1e-5)
    for key, value in tokenizer_to_kv(read_tokenizer(directory), VOCAB_SIZE).items():
        if value.element_type is None:
            writer.add_key_value(key, value.value, gguf.GGUFValueType(int(value.type)))
        else:
            writer.add_array(key, np.asarray(value.value).tolist())
    square = [
        f"blk.0.{name}" for name in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
    ]
    shapes: dict[str, tuple[int, ...]] = dict.fromkeys(square, (32, 32))
    shapes |= dict.fromkeys(("token_embd", "output"), (VOCAB_SIZE, 32))
    shapes |= dict.fromkeys(("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm"), (32,))
    for name, shape in shapes.items():
        writer.add_tensor(f"{name}.weight", np.zeros(shape, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_transformers_finds_every_special_token_at_its_id(hf: Any) -> None:
    expected = special_tokens(N_TEXT)
    assert hf.convert_ids_to_tokens(list(expected)) == list(expected.values())
    assert set(expected.values()) == set(hf.get_added_vocab())
    assert (hf.bos_token_id, hf.pad_token_id, hf.eos_token_id) == (N_TEXT, N_TEXT + 1, N_TEXT + 4)


@pytest.mark.parametrize("text", TEXTS)
def test_encoding_and_decoding_gives_the_text_back(hf: Any, text: str) -> None:
    assert hf.decode(hf.encode(text)) == text


@pytest.mark.parametrize("text", TEXTS)
def test_llama_cpp_encodes_to_the_same_ids(hf: Any, llama_cpp: Callable[..., Any], text: str) -> None:
    answer = llama_cpp("/tokenize", content=text, add_special=True, parse_special=True)
    assert answer["tokens"] == hf.encode(text)


def test_llama_cpp_finds_every_special_token_at_its_id(llama_cpp: Callable[..., Any]) -> None:
    content = "".join(special_tokens(N_TEXT).values())
    answer = llama_cpp("/tokenize", content=content, add_special=True, parse_special=True)
    assert answer["tokens"] == list(special_tokens(N_TEXT))


def test_transformers_renders_the_template_in_harmony(hf: Any) -> None:
    assert hf.apply_chat_template(MESSAGES, tokenize=False, add_generation_prompt=True) == RENDERED


def test_llama_cpp_renders_the_template_in_harmony(llama_cpp: Callable[..., Any]) -> None:
    assert llama_cpp("/apply-template", messages=MESSAGES)["prompt"] == RENDERED


def test_template_ends_a_last_answer_with_return_and_keeps_its_thinking(hf: Any) -> None:
    turns = [{"role": "user", "content": [{"type": "text", "text": "1+"}, {"type": "text", "text": "1"}]}]
    turns.append({"role": "assistant", "thinking": "Add.", "content": "2"})
    rendered = hf.apply_chat_template(turns, tokenize=False, reasoning_effort="high")
    assert "\n\nReasoning: high\n\n" in rendered
    assert rendered.endswith(
        "<|start|>user<|message|>1+1<|end|><|start|>assistant<|channel|>analysis<|message|>Add.<|end|>"
        "<|start|>assistant<|channel|>final<|message|>2<|return|>"
    )


def test_template_tells_the_tools_to_the_model(hf: Any) -> None:
    tool = {"type": "function", "function": {"name": "price", "parameters": {"type": "object", "properties": {}}}}
    rendered = hf.apply_chat_template(MESSAGES, tools=[tool], tokenize=False)
    assert json.dumps(tool["function"]) + "<|end|>" in rendered


def test_template_refuses_an_unknown_role(hf: Any) -> None:
    with pytest.raises(Exception, match="Unknown role: oracle"):
        hf.apply_chat_template([{"role": "oracle", "content": "?"}], tokenize=False)


@pytest.mark.parametrize("n_tokens", [256, 257, 384, 20_000])
def test_vocabulary_has_the_size_asked_for_and_every_merge_makes_a_new_token(n_tokens: int) -> None:
    tokens, merges = byte_level_vocabulary(n_tokens)
    assert len(tokens) == len(set(tokens)) == n_tokens
    known = set(tokens[:256])
    for (left, right), made in zip(merges, tokens[256:], strict=True):
        assert {left, right} <= known
        assert left + right == made
        known.add(made)


def test_official_size_has_the_official_special_ids(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_bytes(demo_tokenizer_files(199_998, 201_088)["tokenizer.json"])
    official = HfTokenizer.from_file(str(path))
    assert official.get_vocab_size() == 200_019
    assert official.token_to_id("<|start|>") == 200_006
    assert official.decode(official.encode(TEXTS[2]).ids) == TEXTS[2]


def test_same_sizes_give_the_same_bytes() -> None:
    assert demo_tokenizer_files(384, 416) == demo_tokenizer_files(384, 416)


@pytest.mark.parametrize("sizes", [(255, 416), (384, 404)])
def test_sizes_that_do_not_fit_are_refused(sizes: tuple[int, int]) -> None:
    with pytest.raises(UsageError, match="sizes do not fit together"):
        demo_tokenizer_files(*sizes)
