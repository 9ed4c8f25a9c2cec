"""GGUF files whose dense weights are block-quantized, as llama.cpp's tools leave them: read, decoded, and said so."""

from __future__ import annotations

from pathlib import Path

import ggml
import numpy as np
import pytest
from command_line import command, refused
from gguf_files import stored_bytes, write_plan
from llama_cpp import LlamaCpp
from numpy.typing import NDArray

from gptoss_convert.formats.containers.gguf_reader import GgufFile, read_gguf
from gptoss_convert.formats.containers.gguf_types import GGML_TYPES
from gptoss_convert.formats.containers.gguf_writer import plan_gguf, u32

TYPES = {ggml_type.name: ggml_type for ggml_type in GGML_TYPES.values()}
# 192 columns hold blocks of 32; only attn_output, with 256, holds those of 256.
SMALL, LARGE = ("Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "IQ4_NL"), ("Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K")


def values(file: GgufFile, name: str) -> NDArray[np.float32]:
    tensor = file.tensors[name]
    data = np.frombuffer(stored_bytes(file, name), np.uint8)
    if tensor.type.name == "BF16":
        return (data.view(np.uint16).astype(np.uint32) << 16).view(np.float32).reshape(tensor.shape)
    blocks = data.reshape(-1, tensor.type.block_bytes)
    return ggml.dequantize(tensor.type.name, blocks).reshape(tensor.shape)


@pytest.fixture(scope="module")
def quantized(tiny_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """tiny with each of its matrices quantized to one of the types in turn, without the keys that old files lack."""
    source = read_gguf(tiny_gguf)
    kv = {key: value for key, value in source.kv.items() if "yarn_beta" not in key}
    tensors, data = [], {}
    for number, (name, tensor) in enumerate(source.tensors.items()):
        data[name] = np.frombuffer(stored_bytes(source, name), np.uint8)
        ggml_type = tensor.type
        if ggml_type.name == "BF16":
            kinds = LARGE if tensor.shape[-1] % 256 == 0 else SMALL
            ggml_type = TYPES[kinds[number % len(kinds)]]
            blocks = values(source, name).reshape(-1, ggml_type.block_elements)
            data[name] = ggml.quantize(ggml_type.name, blocks)
        tensors.append((name, ggml_type, tensor.shape))
    return write_plan(tmp_path_factory.mktemp("quantized") / "quantized.gguf", plan_gguf(kv, tensors), data)


def test_inspect_shows_the_true_encodings(quantized: Path) -> None:
    report = command("inspect", quantized, "--json").json
    encodings = {row["encoding"] for row in report["roles"]}
    assert {"Q8_0", "GGML_MXFP4", "F32"} < encodings
    assert encodings & set(LARGE)
    assert report["config"]["yarn"]["beta_fast"] == 32


def test_every_type_is_there(quantized: Path) -> None:
    found = {tensor.type.name for tensor in read_gguf(quantized).tensors.values()}
    assert set(SMALL) < found
    assert len(found & set(LARGE)) >= 3


def test_decoded_weights_are_ggmls_own_rounded_to_bf16(quantized: Path, tmp_path: Path) -> None:
    out = tmp_path / "decoded.gguf"
    report = command("to-gguf", quantized, out, "--json").json
    assert report["verified"] is True
    assert [note for note in report["notes"] if "Q8_0" in note and "stays lost" in note]
    before, after = read_gguf(quantized), read_gguf(out)
    for name, tensor in before.tensors.items():
        if tensor.type.name in SMALL + LARGE:
            bits = np.ascontiguousarray(values(before, name)).view(np.uint32)
            rounded = ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16 << 16).view(np.float32)
            assert np.array_equal(values(after, name), rounded), name
        else:
            assert stored_bytes(before, name) == stored_bytes(after, name)


def test_value_identical_as_f32(quantized: Path, tmp_path: Path) -> None:
    out = tmp_path / "decoded.gguf"
    report = command("to-gguf", quantized, out, "--type", "f32", "--json").json
    assert report["rounded"] == {}
    before, after = read_gguf(quantized), read_gguf(out)
    for name, tensor in before.tensors.items():
        if tensor.type.name in SMALL + LARGE:
            assert values(before, name).tobytes() == stored_bytes(after, name)


def test_llama_cpp_reads_the_source_and_what_we_make_of_it_alike(quantized: Path, tmp_path: Path) -> None:
    out = tmp_path / "decoded.gguf"
    assert command("to-gguf", quantized, out, "--type", "f32", "--quiet").code == 0
    prompt = list(range(1, 60))
    best = []
    for path in (quantized, out):
        with LlamaCpp(path) as model:
            best.append(model.next_tokens(prompt, 1)[0].token_id)
    assert best[0] == best[1]


def test_keys_that_contradict_each_other_are_refused(tiny_gguf: Path, tmp_path: Path) -> None:
    source = read_gguf(tiny_gguf)
    kv = source.kv | {"gpt-oss.feed_forward_length": u32(192)}
    tensors = [(name, tensor.type, tensor.shape) for name, tensor in source.tensors.items()]
    path = write_plan(tmp_path / "wrong.gguf", plan_gguf(kv, tensors))
    refused(command("inspect", path), "gpt-oss.expert_feed_forward_length", "contradicts", "expected 192", "found 160")


def test_absurd_number_of_layers_is_refused_at_once(tiny_gguf: Path, tmp_path: Path) -> None:
    source = read_gguf(tiny_gguf)
    tensors = [(name, tensor.type, tensor.shape) for name, tensor in source.tensors.items()]
    kv = {key: value for key, value in source.kv.items() if key != "gptoss_convert.config"}
    plan = plan_gguf(kv | {"gpt-oss.block_count": u32(2**31 - 1)}, tensors)
    path = write_plan(tmp_path / "wrong.gguf", plan)
    refused(command("inspect", path), "num_hidden_layers", "at most 1000")
