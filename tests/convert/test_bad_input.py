"""Bad files, tensors and values: one message with file, tensor, expected, found and remedy; nothing is left."""

from __future__ import annotations

import errno
import os
import shutil
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from checkpoints import (
    BLOCKS,
    EMBEDDING,
    HIDDEN,
    INDEX,
    ROUTER,
    SCALE_SHAPE,
    SCALES,
    Tensor,
    copy_of,
    edit_json,
    edit_tensors,
    patch,
)
from command_line import command, refused, refuses

SECOND_SHARD = "model-00001-of-00003.safetensors"
NORM = "model.layers.0.input_layernorm.weight"
SINKS = "model.layers.3.self_attn.sinks"
BIAS = "model.layers.1.mlp.experts.gate_up_proj_bias"


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
    Case("no config", remove("config.json"), ("the directory has no config.json", "expected config.json", "Download")),
    Case("config is no JSON", write("config.json", "{,}"), ("config.json", "not valid JSON", "correct the JSON")),
    Case("config is a list", write("config.json", "[]"), ("config.json", "not a JSON object", "found list", "Compare")),
    Case("no tokenizer", remove("tokenizer.json"), ("no tokenizer.json", "Copy tokenizer.json from")),
    Case("tokenizer is no JSON", write("tokenizer.json", "[}"), ("tokenizer.json", "not valid JSON", "correct the")),
]


@pytest.mark.parametrize("case", FILE_CASES, ids=by_name)
def test_bad_file_is_named(case: Case, checkpoint: Path) -> None:
    case.damage(checkpoint)
    refuses(checkpoint, *case.message)


def test_shard_linked_out_of_the_checkpoint_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside.safetensors"
    shutil.move(checkpoint / SECOND_SHARD, outside)
    (checkpoint / SECOND_SHARD).symlink_to(outside)
    refuses(checkpoint, SECOND_SHARD, "link out of the checkpoint", f"found {outside}", "Replace the link")


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
        (
            f"tensor '{SCALES}'",
            f"'{BLOCKS}' is missing",
            "expected blocks and scales",
            "found scales alone",
            "Download",
        ),
    ),
    Case(
        "blocks without scales",
        take(SCALES),
        (
            f"tensor '{BLOCKS}'",
            f"'{SCALES}' is missing",
            "expected blocks and scales",
            "found blocks alone",
            "Download",
        ),
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
        (
            f"tensor '{ROUTER}'",
            "contradicts the config",
            "expected shape [8, 192]",
            "found shape [192, 8]",
            "config.json",
        ),
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
        add("model.layers.0.self_attn.scale.weight"),
        (SECOND_SHARD, "tensor 'model.layers.0.self_attn.scale.weight'", "belongs to no part of gpt-oss", "remove it"),
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
    refuses(checkpoint, *case.message)


def test_config_of_another_shape_is_refused_by_the_first_tensor_that_differs(checkpoint: Path) -> None:
    edit_json(checkpoint / "config.json", lambda config: config.update(hidden_size=224))
    refuses(checkpoint, EMBEDDING, "expected shape [416, 224]", "found shape [416, 192]", "config.json")


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
    message = (
        shard,
        f"tensor '{SCALES}'",
        f"layers.2.moe.{place}, block 4",
        "expected a scale byte",
        "found 255",
        "again",
    )
    refuses(checkpoint, *message, options=options)


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
    refuses(checkpoint, *case.message, "not finite", "expected finite numbers", "found NaN or inf", "again")


@pytest.mark.parametrize("case", VALUE_CASES[:-1], ids=by_name)
def test_converted_value_that_is_not_finite_is_refused_without_verification_too(case: Case, checkpoint: Path) -> None:
    case.damage(checkpoint)
    refuses(checkpoint, *case.message, "not finite", options=("--no-verify",))


@pytest.mark.parametrize("scale", [142, 254])
def test_experts_that_overflow_f16_are_refused(scale: int, checkpoint: Path) -> None:
    patch(checkpoint, BLOCKS, 0, b"\x77" * 16)
    patch(checkpoint, SCALES, 0, bytes([scale]))
    message = (f"tensor '{SCALES}'", "F16 cannot hold", "expected", "found", "--experts mxfp4")
    refuses(checkpoint, *message, options=("--experts", "f16"))


@pytest.mark.parametrize("scale", [253, 254])
def test_experts_that_overflow_bf16_are_refused_with_a_remedy_that_helps(scale: int, checkpoint: Path) -> None:
    patch(checkpoint, BLOCKS, 0, b"\x77" * 16)
    patch(checkpoint, SCALES, 0, bytes([scale]))
    message = (f"tensor '{SCALES}'", "BF16 cannot hold", "expected", "found", "--experts mxfp4")
    refuses(checkpoint, *message, options=("--experts", "bf16"))
