"""Bad input through the command line: one message with file, tensor or key, expected, found and remedy; nothing is left."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from checkpoints import BLOCKS, INDEX, ROUTER, SCALES, Tensor, copy_of, edit_json, edit_tensors, nothing_left_in, patch
from command_line import Outcome, command, refused

SECOND_SHARD = "model-00001-of-00003.safetensors"
NORM = "model.layers.0.input_layernorm.weight"
EMBEDDING = "model.embed_tokens.weight"
SINKS = "model.layers.3.self_attn.sinks"
BIAS = "model.layers.1.mlp.experts.gate_up_proj_bias"
HIDDEN, SCALE_SHAPE = 192, (8, 320, 6)


@pytest.fixture
def checkpoint(tiny: Path, tmp_path: Path) -> Path:
    """A copy of `tiny` in an otherwise empty directory."""
    return copy_of(tiny, tmp_path / "tiny")


@dataclass(frozen=True)
class Case:
    """A name, the damage, and what the message must say."""

    name: str
    damage: Callable[[Path], object]
    message: tuple[str, ...]


def by_name(case: Case) -> str:
    return case.name


def convert(source: Path, *options: str) -> Outcome:
    """`to-gguf` into the source's own parent directory, which must stay as it was."""
    with nothing_left_in(source.parent):
        return command("to-gguf", source, source.parent / "out.gguf", *options)


# --- the path is no checkpoint, or its files are not there ---


def edit(file: str, change: Callable[[dict[str, Any]], object]) -> Callable[[Path], object]:
    return lambda checkpoint: edit_json(checkpoint / file, change)


def shard_in_index(name: str) -> Callable[[Path], object]:
    return edit(INDEX, lambda index: index["weight_map"].update({ROUTER: name}))


def truncate(file: str, n_bytes: int) -> Callable[[Path], object]:
    return lambda checkpoint: os.truncate(checkpoint / file, (checkpoint / file).stat().st_size - n_bytes)


def write(file: str, text: str) -> Callable[[Path], object]:
    return lambda checkpoint: (checkpoint / file).write_text(text, encoding="utf-8")


def remove(*files: str) -> Callable[[Path], object]:
    return lambda checkpoint: [(checkpoint / file).unlink() for file in files]


FILE_CASES = [
    Case("missing shard", remove(SECOND_SHARD), (INDEX, "1 of 4 shards missing", SECOND_SHARD, "Download the missing")),
    Case("truncated shard", truncate(SECOND_SHARD, 7), (SECOND_SHARD, "truncated (bytes missing: 7)", "Download the")),
    Case("empty shard", truncate(SECOND_SHARD, 971_792), (SECOND_SHARD, "Download the file again")),
    *(
        Case(f"index names {shard}", shard_in_index(shard), (INDEX, ROUTER, "no plain name", repr(shard), "again"))
        for shard in ("../tiny/model.safetensors", "/etc/model.safetensors", "sub/model.safetensors", "..\\model", "")
    ),
    Case("index is no JSON", write(INDEX, "{"), (INDEX, "not valid JSON", "Download the file again")),
    Case("index names nothing", write(INDEX, "{}"), (INDEX, "key 'weight_map'", "found nothing", "Download the index")),
    Case("no config", remove("config.json"), ("the directory has no config.json", "expected config.json", "Download it")),
    Case("config is no JSON", write("config.json", "{,}"), ("config.json", "not valid JSON", "correct the JSON")),
    Case("config is a list", write("config.json", "[]"), ("config.json", "not a JSON object", "found list", "Compare it")),
    Case("no tokenizer", remove("tokenizer.json"), ("tokenizer.json", "there is no such file", "download the file")),
    Case("tokenizer is no JSON", write("tokenizer.json", "[}"), ("tokenizer.json", "not valid JSON", "correct the JSON")),
]


@pytest.mark.parametrize("case", FILE_CASES, ids=by_name)
def test_bad_file_is_named(case: Case, checkpoint: Path) -> None:
    case.damage(checkpoint)
    refused(convert(checkpoint), *case.message)


def test_shard_linked_out_of_the_checkpoint_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside.safetensors"
    shutil.move(checkpoint / SECOND_SHARD, outside)
    (checkpoint / SECOND_SHARD).symlink_to(outside)
    refused(convert(checkpoint), SECOND_SHARD, "link out of the checkpoint", f"found {outside}", "Replace the link")


@pytest.mark.parametrize("kind", ["nothing", "empty directory", "text file", "name that is too long"])
def test_path_that_is_no_checkpoint_is_named(kind: str, tmp_path: Path) -> None:
    source = tmp_path / ("n" * 5000 if "too long" in kind else "source")
    if kind == "empty directory":
        source.mkdir()
    elif kind == "text file":
        source.write_text("GGU", encoding="utf-8")
    refused(command("inspect", source), source, "this is not a gpt-oss checkpoint", "expected a directory", "Give the")


def test_file_that_may_not_be_read_is_named(tiny_gguf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, *_arguments: object, **_options: object) -> object:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(Path, "open", refuse)
    refused(command("inspect", tiny_gguf), tiny_gguf, "cannot be read", os.strerror(errno.EACCES), "ermission")


# --- the tensors are not those of the config ---


def take(name: str) -> Callable[[Path], object]:
    return lambda checkpoint: edit_tensors(checkpoint, lambda tensors: tensors.pop(name))


def change(name: str, **fields: object) -> Callable[[Path], object]:
    return lambda checkpoint: edit_tensors(checkpoint, lambda tensors: vars(tensors[name]).update(fields))


def add(name: str, shard: str = SECOND_SHARD) -> Callable[[Path], object]:
    extra = Tensor(shard, "BF16", [2], bytes(4))
    return lambda checkpoint: edit_tensors(checkpoint, lambda tensors: tensors.update({name: extra}))


TENSOR_CASES = [
    Case(
        "scales without blocks",
        take(BLOCKS),
        (f"tensor '{SCALES}'", f"'{BLOCKS}' is missing", "expected blocks and scales", "found scales alone", "Download"),
    ),
    Case(
        "blocks without scales",
        take(SCALES),
        (f"tensor '{BLOCKS}'", f"'{SCALES}' is missing", "expected blocks and scales", "found blocks alone", "Download"),
    ),
    Case("missing tensor", take(NORM), (f"tensor '{NORM}'", "is missing", "expected shape [192]", "Download the")),
    Case(
        "missing experts",
        lambda checkpoint: (take(BLOCKS)(checkpoint), take(SCALES)(checkpoint)),
        (f"tensor '{BLOCKS}'", "is missing", "Download the checkpoint again"),
    ),
    Case(
        "wrong shape",
        change(ROUTER, shape=[192, 8]),
        (f"tensor '{ROUTER}'", "contradicts the config", "expected shape [8, 192]", "found shape [192, 8]", "config.json"),
    ),
    Case(
        "wrong shape of scales",
        change(SCALES, shape=[8, 6, 320]),
        (f"tensor '{SCALES}'", "expected shape [8, 320, 6]", "found shape [8, 6, 320]", "config.json"),
    ),
    Case(
        "wrong dtype",
        change(ROUTER, dtype="I16"),
        (f"tensor '{ROUTER}'", "dtype", "expected F32, F16, BF16", "found I16", "Convert from"),
    ),
    Case(
        "wrong dtype of blocks",
        change(BLOCKS, dtype="I8"),
        (f"tensor '{BLOCKS}'", "dtype", "expected U8", "found I8", "Convert from"),
    ),
    Case(
        "unknown tensor",
        add("model.layers.0.self_attn.lora_A.weight"),
        (SECOND_SHARD, "tensor 'model.layers.0.self_attn.lora_A.weight'", "belongs to no part of gpt-oss", "remove it"),
    ),
    Case(
        "tensor of a layer too many",
        add("model.layers.4.input_layernorm.weight"),
        ("tensor 'model.layers.4.input_layernorm.weight'", "belongs to no part of gpt-oss", "remove it"),
    ),
]


@pytest.mark.parametrize("case", TENSOR_CASES, ids=by_name)
def test_bad_tensor_is_named(case: Case, checkpoint: Path) -> None:
    case.damage(checkpoint)
    refused(convert(checkpoint), *case.message)


def test_config_of_another_shape_is_refused_by_the_first_tensor_that_differs(checkpoint: Path) -> None:
    edit_json(checkpoint / "config.json", lambda config: config.update(hidden_size=224))
    refused(convert(checkpoint), EMBEDDING, "expected shape [416, 224]", "found shape [416, 192]", "config.json")


# --- the values are no numbers ---

QUIET_NAN, SIGNALING_NAN, INFINITY, MINUS_INFINITY = 0x7FC0, 0xFF81, 0x7F80, 0xFF80


def bf16(tensor: str, index: int, bits: int) -> Callable[[Path], object]:
    return lambda checkpoint: patch(checkpoint, tensor, 2 * index, struct.pack("<H", bits))


@pytest.mark.parametrize("options", [(), ("--no-verify",), ("--experts", "bf16")], ids=["verified", "not", "decoded"])
@pytest.mark.parametrize(("row", "place"), [(43, "up.weight[3, 21]"), (44, "gate.weight[3, 22]")])
def test_scale_byte_255_is_named_by_expert_row_and_block(
    row: int, place: str, options: tuple[str, ...], checkpoint: Path
) -> None:
    expert, block = 3, 4
    shard = patch(checkpoint, SCALES, (expert * SCALE_SHAPE[1] + row) * SCALE_SHAPE[2] + block, b"\xff")
    message = (shard, f"tensor '{SCALES}'", f"layers.2.moe.{place}, block 4", "expected a scale byte", "found 255", "again")
    refused(convert(checkpoint, *options), *message)


VALUE_CASES = [
    Case("norm", bf16(NORM, 5, QUIET_NAN), (f"tensor '{NORM}'", "layers.0.attention.norm.weight[5]")),
    Case("sinks", bf16(SINKS, 3, SIGNALING_NAN), (f"tensor '{SINKS}'", "layers.3.attention.sinks[3]")),
    Case("gate bias", bf16(BIAS, 2 * 320 + 8, INFINITY), (f"tensor '{BIAS}'", "layers.1.moe.gate.bias[2, 4]")),
    Case("up bias", bf16(BIAS, 2 * 320 + 9, MINUS_INFINITY), (f"tensor '{BIAS}'", "layers.1.moe.up.bias[2, 4]")),
    Case("router", bf16(ROUTER, 7 * HIDDEN + 9, INFINITY), (f"tensor '{ROUTER}'", "router.weight[7], column 9")),
    Case("embedding", bf16(EMBEDDING, 415 * HIDDEN, QUIET_NAN), (f"tensor '{EMBEDDING}'", "weight[415], column 0")),
]


@pytest.mark.parametrize("case", VALUE_CASES, ids=by_name)
def test_value_that_is_not_finite_is_named_by_its_place(case: Case, checkpoint: Path) -> None:
    case.damage(checkpoint)
    refused(convert(checkpoint), *case.message, "not finite", "expected finite numbers", "found NaN or inf", "again")


@pytest.mark.parametrize("case", VALUE_CASES, ids=by_name)
def test_value_that_is_not_finite_is_refused_without_verification_too(case: Case, checkpoint: Path) -> None:
    case.damage(checkpoint)
    refused(convert(checkpoint, "--no-verify"), *case.message, "not finite")


@pytest.mark.parametrize("scale", [142, 254])
def test_experts_that_overflow_f16_are_refused(scale: int, checkpoint: Path) -> None:
    patch(checkpoint, BLOCKS, 0, b"\x77" * 16)
    patch(checkpoint, SCALES, 0, bytes([scale]))
    message = (f"tensor '{BLOCKS}'", "F16 cannot hold", "expected", "found", "bf16 and f32 hold every value")
    refused(convert(checkpoint, "--experts", "f16"), *message)


@pytest.mark.parametrize("scale", [253, 254])
def test_experts_that_overflow_bf16_are_refused_with_a_remedy_that_helps(scale: int, checkpoint: Path) -> None:
    patch(checkpoint, BLOCKS, 0, b"\x77" * 16)
    patch(checkpoint, SCALES, 0, bytes([scale]))
    outcome = convert(checkpoint, "--experts", "bf16")
    refused(outcome, f"tensor '{BLOCKS}'", "BF16 cannot hold", "expected", "found", "--experts mxfp4")
    assert "bf16 and f32 hold every value" not in outcome.err


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
    refused(convert(checkpoint), "config.json", f"key '{keys[0]}'", "missing", "expected", "found", "Compare it with the")


@pytest.mark.parametrize("key", NEEDED_FOR_YARN)
def test_missing_yarn_key_is_named(key: str, checkpoint: Path) -> None:
    edit_json(checkpoint / "config.json", lambda config: config["rope_scaling"].pop(key))
    refused(convert(checkpoint), "config.json", f"key 'rope_scaling.{key}'", "missing", "Compare it with the config.json")


CONTRADICTIONS: list[tuple[dict[str, object], tuple[str, ...]]] = [
    ({"layer_types": ["sliding_attention"] * 3}, ("'layer_types'", "expected 4 entries", "found 3 entries")),
    ({"num_hidden_layers": 3}, ("'layer_types'", "'num_hidden_layers'", "expected 3 entries", "found 4 entries")),
    ({"experts_per_token": 2}, ("'experts_per_token'", "'num_experts_per_tok'", "expected 4", "found 2")),
    ({"num_experts_per_tok": 9, "experts_per_token": 9}, ("'num_experts_per_tok'", "at most num_local_experts", "found 9")),
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
    refused(convert(checkpoint), "config.json", *message, "Compare it with the config.json of openai/gpt-oss-20b")


@pytest.mark.parametrize("method", ["bitsandbytes", "awq", "gptq", "fp8", "compressed-tensors", "modelopt", None])
def test_other_quantization_methods_are_refused(method: str | None, checkpoint: Path) -> None:
    edit_json(checkpoint / "config.json", lambda config: config.update(quantization_config={"quant_method": method}))
    message = ("config.json", "'quantization_config.quant_method'", "expected 'mxfp4'", f"found {method!r}", "Convert from")
    refused(convert(checkpoint), *message)


@pytest.mark.parametrize("model_type", ["llama", "mixtral", "gpt2", "GPT_OSS"])
def test_other_models_are_refused(model_type: str, checkpoint: Path) -> None:
    another = {"model_type": model_type, "architectures": ["OtherForCausalLM"]}
    edit_json(checkpoint / "config.json", lambda config: config.update(another))
    refused(convert(checkpoint), "config.json", "'model_type'", "expected 'gpt_oss'", f"found '{model_type}'", "This tool")


def test_swiglu_limit_that_gguf_cannot_express_is_refused(checkpoint: Path) -> None:
    edit_json(checkpoint / "config.json", lambda config: config.update(swiglu_limit=10.0))
    refused(convert(checkpoint), "'swiglu_limit'", "expected 7.0", "found 10.0", "Use a runtime")


@pytest.mark.parametrize(("key", "value"), [("rope_theta", 1e300), ("rms_norm_eps", 1e-300)])
def test_number_that_gguf_cannot_hold_is_refused(key: str, value: float, checkpoint: Path) -> None:
    edit_json(checkpoint / "config.json", lambda config: config.update({key: value}))
    outcome = convert(checkpoint)
    assert outcome.code == 1
    assert "Traceback" not in outcome.err
    assert re.search("freq_base|rms_epsilon|" + key, outcome.err)


def test_tokenizer_larger_than_the_vocabulary_is_refused(checkpoint: Path) -> None:
    def smaller(tensors: dict[str, Tensor]) -> None:
        for name in (EMBEDDING, "lm_head.weight"):
            tensors[name].shape = [400, HIDDEN]
            tensors[name].data = tensors[name].data[: 400 * HIDDEN * 2]

    edit_tensors(checkpoint, smaller)
    edit_json(checkpoint / "config.json", lambda config: config.update(vocab_size=400))
    message = ("tokenizer.json", "larger than the vocabulary", "expected ids below vocab_size 400", "found id 404", "Use the")
    refused(convert(checkpoint), *message)


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
def test_gguf_that_is_not_llama_cpps_gpt_oss_is_refused(old: bytes, new: bytes, message: tuple[str, ...], gguf: Path) -> None:
    replaced(gguf, old, new)
    refused(command("inspect", gguf), gguf, *message)


def test_gguf_of_ollamas_old_dialect_is_named(gguf: Path) -> None:
    content = gguf.read_bytes()
    old, new = struct.pack("<Q", 7) + b"gpt-oss", struct.pack("<Q", 6) + b"gptoss"
    gguf.write_bytes(content.replace(old, new, 1))
    refused(command("inspect", gguf), gguf, "Ollama's old dialect", "found 'gptoss'", "official checkpoint")


def test_wrong_usage_exits_with_2(tiny: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.gguf"
    refused(command("to-gguf", tiny, out, "--colour"), "No such option", "--colour", code=2)
    refused(command("to-gguf", tiny, out, "--type", "q4_k"), "--type", "q4_k", code=2)
    refused(command("to-gguf", tiny), "Missing argument", code=2)
    refused(command("to-mlx", tiny, out), "No such command", code=2)
    refused(command("make-demo", out, "--layers", "0"), "a model needs a layer", "found 0", code=2)
    for size in ("", "5X", "-1", "0", "1.5G", "G"):
        refused(command("to-gguf", tiny, out, "--split-max-size", size), "size", "K, M, G", f"found {size!r}", code=2)
    assert list(tmp_path.iterdir()) == []


def test_encoding_experts_that_are_not_stored_as_mxfp4_is_wrong_usage(tiny: Path, tmp_path: Path) -> None:
    decoded = tmp_path / "decoded.gguf"
    assert command("to-gguf", tiny, decoded, "--experts", "bf16", "--no-verify").code == 0
    message = (decoded, "blk.0.ffn_gate_exps.weight", "not stored as MXFP4", "found BF16", "Use --experts bf16")
    with nothing_left_in(tmp_path):
        refused(command("to-gguf", decoded, tmp_path / "out.gguf"), *message, code=2)


def test_error_is_an_object_on_standard_output_with_json(tmp_path: Path) -> None:
    outcome = command("inspect", tmp_path, "--json")
    assert outcome.code == 1
    assert outcome.err == ""
    error = outcome.json["error"]
    assert error["kind"] == "CheckpointError"
    assert error["file"] == str(tmp_path)
    assert error["message"].endswith(error["remedy"])
    assert json.loads(outcome.out).keys() == {"error"}
