"""Weights as torch tensors: from every layout the same values, and nothing is read but what is asked for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import ggml
import ml_dtypes
import numpy as np
import pytest
import torch
from checkpoints import BLOCKS, EMBEDDING, SCALES, Tensors, copy_of, patch, read_tensors
from gguf_files import stored_bytes, write_plan
from mxfp4_reference import decoded
from numpy.typing import NDArray
from ways import Ways

from gptoss_convert.convert.checkpoint import open_checkpoint
from gptoss_convert.convert.plan import SLAB_BYTES
from gptoss_convert.convert.weights import CheckpointWeights
from gptoss_convert.formats.containers.gguf_reader import read_gguf
from gptoss_convert.formats.containers.gguf_types import GGML_TYPES
from gptoss_convert.formats.containers.gguf_writer import plan_gguf
from gptoss_convert.formats.errors import CodecError

LAYOUTS = ("hf", "original", "gguf", "ollama-legacy", "mlx", "metal", "bf16", "gguf-bf16", "gguf-f16", "gguf-f32")
DTYPES = (torch.bfloat16, torch.float32, torch.float64)
N_EXPERTS = 8

# A module of Hugging Face's layout -> the canonical tensors that its rows are, one after the other or in turns.
MODULES: dict[str, tuple[str, ...]] = {
    "input_layernorm.weight": ("attention.norm.weight",),
    **{f"self_attn.{n}_proj.{p}": (f"attention.{n}.{p}",) for n in "qkvo" for p in ("weight", "bias")},
    "self_attn.sinks": ("attention.sinks",),
    "post_attention_layernorm.weight": ("moe.norm.weight",),
    "mlp.router.weight": ("moe.router.weight",),
    "mlp.router.bias": ("moe.router.bias",),
    "mlp.experts.gate_up_proj": ("moe.gate.weight", "moe.up.weight"),
    "mlp.experts.gate_up_proj_bias": ("moe.gate.bias", "moe.up.bias"),
    "mlp.experts.down_proj": ("moe.down.weight",),
    "mlp.experts.down_proj_bias": ("moe.down.bias",),
}

Values = NDArray[np.float64]


def values(tensors: Tensors, name: str) -> Values:
    """What a module of a Hugging Face directory holds."""
    if name in tensors:
        data = np.frombuffer(tensors[name].data, ml_dtypes.bfloat16)
        return data.astype(np.float64).reshape(tensors[name].shape)
    blocks, scales = (np.frombuffer(tensors[f"{name}_{part}"].data, np.uint8) for part in ("blocks", "scales"))
    codes = np.stack([blocks & 15, blocks >> 4], axis=-1).reshape(-1, 32)
    n_experts, n_rows, _ = tensors[f"{name}_scales"].shape
    return decoded(codes, scales.astype(np.int64) - 127).reshape(n_experts, n_rows, -1)


@pytest.fixture(scope="module")
def expected(tiny: Path) -> dict[str, Values]:
    """Every canonical tensor of `tiny`."""
    tensors = read_tensors(tiny)
    found = {"embedding.weight": "model.embed_tokens", "norm.weight": "model.norm", "unembedding.weight": "lm_head"}
    known = {name: values(tensors, f"{module}.weight") for name, module in found.items()}
    for layer in range(4):
        for module, names in MODULES.items():
            whole = values(tensors, f"model.layers.{layer}.{module}")
            for part, name in enumerate(names):
                known[f"layers.{layer}.{name}"] = whole[:, part :: len(names)] if len(names) > 1 else whole
    return known


@pytest.fixture(scope="module")
def ways(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Ways:
    return Ways(tiny, tmp_path_factory.mktemp("ways"))


@pytest.fixture
def weights(tiny: Path) -> Iterator[CheckpointWeights]:
    with CheckpointWeights(open_checkpoint(tiny)) as weights:
        yield weights


def all_tensors(weights: CheckpointWeights, names: list[str]) -> Iterator[tuple[str, torch.Tensor]]:
    """Every tensor by name; of experts, one matrix after the other."""
    for name in names:
        if name.endswith(("gate.weight", "up.weight", "down.weight")):
            yield name, torch.stack([weights.expert(name, expert).clone() for expert in range(N_EXPERTS)])
        else:
            yield name, weights.dense(name)


def differing(path: Path, dtype: torch.dtype, expected: dict[str, Values], **options: bool) -> list[str]:
    """Which tensors at `path` have other values, another shape or another dtype."""
    checkpoint = open_checkpoint(path, **options)
    assert checkpoint.tensors.keys() == expected.keys()
    with CheckpointWeights(checkpoint, dtype=dtype) as weights:
        return [
            name
            for name, tensor in all_tensors(weights, list(expected))
            if tensor.dtype != dtype or not np.array_equal(tensor.double().numpy(), expected[name])
        ]


# --- values ---


@pytest.mark.parametrize("slab_bytes", [SLAB_BYTES, 1000])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_values(
    layout: str, slab_bytes: int, ways: Ways, expected: dict[str, Values], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gptoss_convert.convert.weights.SLAB_BYTES", slab_bytes)
    if layout == "metal":
        expected = {name: tensor[:400] if "embedding" in name else tensor for name, tensor in expected.items()}
    path = ways.path(*(() if layout == "hf" else (layout,)))
    assert differing(path, torch.float32, expected) == []


def test_rows_that_are_not_stored_are_zero(ways: Ways, expected: dict[str, Values]) -> None:
    padded = {name: tensor.copy() for name, tensor in expected.items()}
    padded["embedding.weight"][400:] = padded["unembedding.weight"][400:] = 0
    assert differing(ways.path("metal"), torch.float32, padded, pad_vocab=True) == []


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("layout", ["gguf", "gguf-f16", "bf16"])
def test_every_dtype_holds_the_same_values(
    layout: str, dtype: torch.dtype, ways: Ways, expected: dict[str, Values]
) -> None:
    assert differing(ways.path(layout), dtype, expected) == []


def test_float16_is_rounded_to_nearest(tiny: Path, expected: dict[str, Values]) -> None:
    rounded = {name: tensor.astype(np.float16).astype(np.float64) for name, tensor in expected.items()}
    assert any((rounded[name] != expected[name]).any() for name in expected)
    assert differing(tiny, torch.float16, rounded) == []


def test_experts_together_are_the_experts_one_by_one(weights: CheckpointWeights, expected: dict[str, Values]) -> None:
    name = "layers.2.moe.up.weight"
    assert np.array_equal(weights.dense(name).numpy(), expected[name])


@pytest.mark.parametrize("kind", ["Q8_0", "IQ4_NL"])
def test_rows_of_a_quantized_gguf_are_ggmls_own(kind: str, tiny_gguf: Path, tmp_path: Path) -> None:
    source = read_gguf(tiny_gguf)
    types = {name: tensor.type for name, tensor in source.tensors.items()}
    data = {name: np.frombuffer(stored_bytes(source, name), np.uint8) for name in types}
    types["token_embd.weight"] = next(known for known in GGML_TYPES.values() if known.name == kind)
    numbers = data["token_embd.weight"].view(ml_dtypes.bfloat16).astype(np.float32)
    data["token_embd.weight"] = blocks = ggml.quantize(kind, numbers.reshape(-1, 32))
    tensors = [(name, types[name], tensor.shape) for name, tensor in source.tensors.items()]
    path = write_plan(tmp_path / "quantized.gguf", plan_gguf(source.kv, tensors), data)
    with CheckpointWeights(open_checkpoint(path)) as weights:
        found = weights.rows("embedding.weight", torch.tensor([411, 2, 3])).numpy()
    assert np.array_equal(found, ggml.dequantize(kind, blocks).reshape(416, 192)[[411, 2, 3]])


# --- what is asked for ---


@pytest.mark.parametrize(
    "ids", [[5], [0, 415], [7, 8, 9], [9, 8, 7], [3, 3, 4, 3], list(range(416))], ids=lambda ids: str(ids)[:12]
)
@pytest.mark.parametrize("layout", ["hf", "metal"])
def test_rows_come_in_the_order_of_their_ids(
    ids: list[int], layout: str, ways: Ways, expected: dict[str, Values]
) -> None:
    checkpoint = open_checkpoint(ways.path(*(() if layout == "hf" else (layout,))))
    ids = [row for row in ids if row < checkpoint.config.vocab_size]
    with CheckpointWeights(checkpoint) as weights:
        found = weights.rows("embedding.weight", torch.tensor(ids))
    assert np.array_equal(found.numpy(), expected["embedding.weight"][ids])


@pytest.fixture(scope="module")
def damaged(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`tiny` with NaN in row 7 of the embedding, and as the scale of expert 3, row 20, block 4 in layer 2.

    Row 20 of gate_up is row 10 of gate.
    """
    directory = copy_of(tiny, tmp_path_factory.mktemp("damaged") / "tiny")
    patch(directory, EMBEDDING, 2 * (7 * 192 + 11), b"\xff\xff")
    patch(directory, SCALES, (3 * 320 + 20) * 6 + 4, b"\xff")
    return directory


def test_damage_where_nothing_is_asked_for_is_not_read(damaged: Path, expected: dict[str, Values]) -> None:
    with CheckpointWeights(open_checkpoint(damaged)) as weights:
        for name, ids in (("embedding.weight", [6, 8]), ("unembedding.weight", [6, 7, 8])):
            assert np.array_equal(weights.rows(name, torch.tensor(ids)).numpy(), expected[name][ids])
        for name, expert in (("gate", 2), ("gate", 4), ("up", 3), ("down", 3)):
            name = f"layers.2.moe.{name}.weight"
            assert np.array_equal(weights.expert(name, expert).numpy(), expected[name][expert])


def test_damaged_expert_is_refused_with_its_block(damaged: Path) -> None:
    with CheckpointWeights(open_checkpoint(damaged)) as weights, pytest.raises(CodecError) as refusal:
        weights.expert("layers.2.moe.gate.weight", 3)
    assert "the scale of a block is not a number (layers.2.moe.gate.weight[3, 10], block 4)" in str(refusal.value)
    assert SCALES in str(refusal.value)
    assert ".safetensors" in str(refusal.value)


def test_damaged_row_is_refused_with_its_column(damaged: Path) -> None:
    with CheckpointWeights(open_checkpoint(damaged)) as weights, pytest.raises(CodecError) as refusal:
        weights.rows("embedding.weight", torch.tensor([6, 7]))
    assert "a value is not finite (embedding.weight[7], column 11)" in str(refusal.value)
    assert EMBEDDING in str(refusal.value)


def test_value_too_large_for_the_dtype_is_refused(tiny: Path, tmp_path: Path) -> None:
    directory = copy_of(tiny, tmp_path / "tiny")
    patch(directory, SCALES, (5 * 320 + 2) * 6, b"\x8e")
    patch(directory, BLOCKS, (5 * 320 + 2) * 96, b"\x77")
    checkpoint = open_checkpoint(directory)
    name, number = "layers.2.moe.gate.weight", 6.0 * 2.0 ** (0x8E - 127)
    with CheckpointWeights(checkpoint) as weights:
        assert weights.expert(name, 5)[1, 0] == number
    with CheckpointWeights(checkpoint, dtype=torch.float16) as weights, pytest.raises(CodecError) as refusal:
        weights.expert(name, 5)
    assert f"F16 cannot hold the tensor ({name}, rows from 800 on)" in str(refusal.value)
    assert SCALES in str(refusal.value)


# --- buffers ---


def test_the_next_layers_tensor_takes_the_place_of_this_ones(weights: CheckpointWeights) -> None:
    first, second = (weights.dense(f"layers.{layer}.attention.q.weight") for layer in (0, 1))
    assert first.data_ptr() == second.data_ptr()


def test_the_next_expert_takes_the_place_of_this_one(weights: CheckpointWeights) -> None:
    first, second = (weights.expert("layers.0.moe.gate.weight", expert) for expert in (0, 1))
    assert first.data_ptr() == second.data_ptr()


def test_tensors_of_one_layer_stay_beside_each_other(weights: CheckpointWeights, expected: dict[str, Values]) -> None:
    held = {name: weights.dense(name) for name in expected if "layers.1." in name and "moe.gate.weight" not in name}
    held |= {"layers.1.moe.gate.weight": weights.expert("layers.1.moe.gate.weight", 2)}
    for name, tensor in held.items():
        known = expected[name][2] if name == "layers.1.moe.gate.weight" else expected[name]
        assert np.array_equal(tensor.numpy(), known), name


def test_files_are_closed_with_the_context(tiny: Path) -> None:
    with CheckpointWeights(open_checkpoint(tiny)) as weights:
        weights.dense("norm.weight")
    with pytest.raises((OSError, ValueError)):
        weights.dense("norm.weight")
