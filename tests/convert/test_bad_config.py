"""Configs, tokenizers and GGUF headers that do not fit: one message with file, key, expected, found and remedy."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from checkpoints import EMBEDDING, HIDDEN, Tensor, copy_of, edit_json, edit_tensors
from command_line import command, refused, refuses
from gguf_files import replan, write_plan

from gptoss_convert.formats.containers.gguf_reader import read_gguf
from gptoss_convert.formats.containers.gguf_writer import string

COMPARE = "Compare it with the config.json of openai/gpt-oss-20b"


@pytest.fixture
def checkpoint(tiny: Path, tmp_path: Path) -> Path:
    """A copy of `tiny` in an otherwise empty directory."""
    return copy_of(tiny, tmp_path / "tiny")


# --- the config lacks a key, contradicts itself, or is of something else ---

NEEDED = [
    ("num_hidden_layers",),
    ("hidden_size",),
    ("intermediate_size",),
    ("num_local_experts",),
    ("num_experts_per_tok", "experts_per_token"),
    ("head_dim",),
    ("num_attention_heads",),
    ("num_key_value_heads",),
    ("vocab_size",),
    ("max_position_embeddings",),
    ("sliding_window",),
    ("swiglu_limit",),
    ("rms_norm_eps",),
    ("rope_theta",),
]
NEEDED_FOR_YARN = ["rope_type", "factor", "beta_fast", "beta_slow", "truncate"]


@pytest.mark.parametrize("keys", NEEDED, ids=lambda keys: keys[0])
def test_missing_config_key_is_named(keys: tuple[str, ...], checkpoint: Path) -> None:
    edit_json(checkpoint / "config.json", lambda config: [config.pop(key) for key in keys])
    refuses(checkpoint, "config.json", f"key '{keys[0]}'", "missing", "expected", "found", COMPARE)


@pytest.mark.parametrize("key", NEEDED_FOR_YARN)
def test_missing_yarn_key_is_named(key: str, checkpoint: Path) -> None:
    edit_json(checkpoint / "config.json", lambda config: config["rope_scaling"].pop(key))
    refuses(checkpoint, "config.json", f"key 'rope_scaling.{key}'", "missing", COMPARE)


CONTRADICTIONS: list[tuple[dict[str, object], tuple[str, ...]]] = [
    ({"layer_types": ["sliding_attention"] * 3}, ("'layer_types'", "expected 4 entries", "found 3 entries")),
    ({"num_hidden_layers": 3}, ("'layer_types'", "'num_hidden_layers'", "expected 3 entries", "found 4 entries")),
    ({"experts_per_token": 2}, ("'experts_per_token'", "'num_experts_per_tok'", "expected 4", "found 2")),
    ({"num_experts_per_tok": 9, "experts_per_token": 9}, ("'num_experts_per_tok'", "num_local_experts", "found 9")),
    ({"num_key_value_heads": 3}, ("'num_key_value_heads'", "divisor of num_attention_heads 4", "found 3")),
    ({"rope_parameters": {"rope_theta": 1e4}}, ("'rope_parameters.rope_theta'", "expected 150000", "found 10000.0")),
    ({"rope_parameters": {"factor": 8.0}}, ("'rope_parameters.factor'", "expected 32.0", "found 8.0")),
    ({"initial_context_length": 8192}, ("'initial_context_length'", "expected 4096", "found 8192")),
    ({"tie_word_embeddings": True}, ("'tie_word_embeddings'", "expected False", "found True")),
    ({"hidden_act": "gelu"}, ("'hidden_act'", "expected 'silu'", "found 'gelu'")),
    ({"rope_scaling": "yarn"}, ("'rope_scaling'", "not an object", "found 'yarn'")),
    ({"hidden_size": "192"}, ("'hidden_size'", "expected a whole number", "found '192'")),
]


@pytest.mark.parametrize(("values", "message"), CONTRADICTIONS, ids=lambda value: "-".join(value)[:60])
def test_contradicting_config_is_refused_by_key(
    values: dict[str, object], message: tuple[str, ...], checkpoint: Path
) -> None:
    edit_json(checkpoint / "config.json", lambda config: config.update(values))
    refuses(checkpoint, "config.json", *message, COMPARE)


@pytest.mark.parametrize("method", ["bitsandbytes", "awq", "gptq", "fp8", "compressed-tensors", "modelopt", None])
def test_other_quantization_methods_are_refused(method: str | None, checkpoint: Path) -> None:
    edit_json(checkpoint / "config.json", lambda config: config.update(quantization_config={"quant_method": method}))
    message = ("'quantization_config.quant_method'", "expected 'mxfp4'", f"found {method!r}", "Convert from")
    refuses(checkpoint, "config.json", *message)


@pytest.mark.parametrize("model_type", ["llama", "mixtral", "gpt2", "GPT_OSS"])
def test_other_models_are_refused(model_type: str, checkpoint: Path) -> None:
    another = {"model_type": model_type, "architectures": ["OtherForCausalLM"]}
    edit_json(checkpoint / "config.json", lambda config: config.update(another))
    message = ("'model_type'", "expected 'gpt_oss'", f"found '{model_type}'", "This tool converts gpt-oss")
    refuses(checkpoint, "config.json", *message)


def test_swiglu_limit_that_gguf_cannot_express_is_refused(checkpoint: Path) -> None:
    edit_json(checkpoint / "config.json", lambda config: config.update(swiglu_limit=10.0))
    refuses(checkpoint, "'swiglu_limit'", "expected 7.0", "found 10.0", "Use a runtime")


@pytest.mark.parametrize(("key", "value"), [("rope_theta", 1e300), ("rms_norm_eps", 1e-300)])
def test_number_that_gguf_cannot_hold_is_refused(key: str, value: float, checkpoint: Path) -> None:
    edit_json(checkpoint / "config.json", lambda config: config.update({key: value}))
    refuses(checkpoint, "config.json", f"key '{key}'", "expected", f"found {value}", COMPARE)


def test_tokenizer_larger_than_the_vocabulary_is_refused(checkpoint: Path) -> None:
    def smaller(tensors: dict[str, Tensor]) -> None:
        for name in (EMBEDDING, "lm_head.weight"):
            tensors[name].shape = [400, HIDDEN]
            tensors[name].data = tensors[name].data[: 400 * HIDDEN * 2]

    edit_tensors(checkpoint, smaller)
    edit_json(checkpoint / "config.json", lambda config: config.update(vocab_size=400))
    message = ("larger than the vocabulary", "expected ids below vocab_size 400", "found id 404", "Use the tokenizer")
    refuses(checkpoint, "tokenizer.json", *message)


# --- GGUF files ---


@pytest.fixture
def gguf(tiny_gguf: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(tiny_gguf, tmp_path / "copy.gguf"))


def replaced(path: Path, old: bytes, new: bytes) -> None:
    """Replaces the first `old` by as many bytes."""
    assert len(old) == len(new)
    content = path.read_bytes()
    assert old in content
    path.write_bytes(content.replace(old, new, 1))


def test_truncated_gguf_is_refused(gguf: Path) -> None:
    os.truncate(gguf, gguf.stat().st_size - 1000)
    refused(command("inspect", gguf), gguf, "expected", "found", "again")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b"gpt-oss", b"llama-2", ("'general.architecture'", "expected 'gpt-oss'", "found 'llama-2'", "This tool")),
        (b"gpt-oss.block_count", b"gpt-oss.block_cOUNT", ("'gpt-oss.block_count'", "missing", "convert it again")),
        (b"attn_sinks.weight", b"attn_SINKS.weight", ("'blk.0.attn_sinks.weight'", "is missing", "Download")),
    ],
    ids=["architecture", "key", "tensor"],
)
def test_gguf_of_something_else_is_refused(old: bytes, new: bytes, message: tuple[str, ...], gguf: Path) -> None:
    replaced(gguf, old, new)
    refused(command("inspect", gguf), gguf, *message)


def test_gguf_in_half_of_ollamas_dialect_is_refused(gguf: Path) -> None:
    header = read_gguf(gguf)
    header.kv["general.architecture"] = string("gptoss")
    write_plan(gguf, replan(header))
    refused(command("inspect", gguf), gguf, "'gptoss.block_count'", "missing", "Ollama would refuse")
