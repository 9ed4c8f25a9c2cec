"""The canonical tensors: their published numbers, and nothing that holds for the published sizes only."""

from __future__ import annotations

from collections import Counter
from math import prod

import pytest

from gptoss_convert.model.config import GptOssConfig, parse_config
from gptoss_convert.model.config_checks import layer_types
from gptoss_convert.model.hf_files import GPT_OSS_20B, GPT_OSS_120B
from gptoss_convert.model.inventory import inventory

CONFIGS = {"20b": parse_config(GPT_OSS_20B), "120b": parse_config(GPT_OSS_120B)}

# Sizes of which no two that could be confused are equal.
ODD = parse_config(
    {
        **GPT_OSS_20B,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_local_experts": 5,
        "num_hidden_layers": 2,
        "layer_types": layer_types(2),
        "num_attention_heads": 6,
        "num_key_value_heads": 3,
        "head_dim": 10,
        "vocab_size": 7,
    }
)
SHAPES = {
    "embedding.weight": (7, 64),
    "norm.weight": (64,),
    "unembedding.weight": (7, 64),
    "layers.1.attention.norm.weight": (64,),
    "layers.1.attention.q.weight": (60, 64),
    "layers.1.attention.q.bias": (60,),
    "layers.1.attention.k.weight": (30, 64),
    "layers.1.attention.k.bias": (30,),
    "layers.1.attention.v.weight": (30, 64),
    "layers.1.attention.v.bias": (30,),
    "layers.1.attention.o.weight": (64, 60),
    "layers.1.attention.o.bias": (64,),
    "layers.1.attention.sinks": (6,),
    "layers.1.moe.norm.weight": (64,),
    "layers.1.moe.router.weight": (5, 64),
    "layers.1.moe.router.bias": (5,),
    "layers.1.moe.gate.weight": (5, 96, 64),
    "layers.1.moe.gate.bias": (5, 96),
    "layers.1.moe.up.weight": (5, 96, 64),
    "layers.1.moe.up.bias": (5, 96),
    "layers.1.moe.down.weight": (5, 64, 96),
    "layers.1.moe.down.bias": (5, 64),
}


@pytest.mark.parametrize(
    ("model", "n_tensors", "n_parameters"), [("20b", 459, 20_914_757_184), ("120b", 687, 116_829_156_672)]
)
def test_inventory_has_the_published_tensors_and_parameters(model: str, n_tensors: int, n_parameters: int) -> None:
    tensors = inventory(CONFIGS[model])
    assert len(tensors) == n_tensors
    assert sum(tensor.n_elements for tensor in tensors.values()) == n_parameters


@pytest.mark.parametrize(("model", "n_blocks"), [("20b", 597_196_800), ("120b", 3_583_180_800)])
def test_experts_have_the_published_number_of_blocks(model: str, n_blocks: int) -> None:
    experts = [tensor for tensor in inventory(CONFIGS[model]).values() if tensor.role == "experts"]
    assert sum(tensor.n_elements for tensor in experts) == 32 * n_blocks


def test_every_shape_follows_from_the_config() -> None:
    tensors = inventory(ODD)
    assert {name: tensor.shape for name, tensor in tensors.items() if "layers.0." not in name} == SHAPES


def test_layers_are_alike() -> None:
    tensors = inventory(ODD)
    first, second = (
        {
            name.partition(f"layers.{layer}.")[2]: tensor.shape
            for name, tensor in tensors.items()
            if f".{layer}." in name
        }
        for layer in range(2)
    )
    assert first == second
    assert len(first) == 19


@pytest.mark.parametrize("config", [ODD, CONFIGS["20b"]], ids=["odd", "20b"])
def test_rows_and_columns_make_the_tensor(config: GptOssConfig) -> None:
    for name, tensor in inventory(config).items():
        assert tensor.rows * tensor.cols == prod(tensor.shape) == tensor.n_elements
        is_matrix = tensor.role in ("embedding", "unembedding", "attention", "router", "experts")
        assert tensor.cols == (tensor.shape[-1] if is_matrix else 1), name


def test_roles_are_those_of_the_names() -> None:
    roles = Counter(tensor.role for tensor in inventory(CONFIGS["20b"]).values())
    assert roles == {
        "embedding": 1,
        "unembedding": 1,
        "norm": 24 * 2 + 1,
        "attention": 24 * 4,
        "attention bias": 24 * 4,
        "sinks": 24,
        "router": 24,
        "router bias": 24,
        "experts": 24 * 3,
        "expert bias": 24 * 3,
    }
