"""OpenAI's `original/` layout: own names and config, q, k and v in one tensor, experts as in the HF layout.

Source: openai/gpt-oss `gpt_oss/torch/model.py`, `gpt_oss/torch/weights.py`; `original/` of the official models.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...formats.errors import ConfigError
from ..config import GptOssConfig, parse_config
from ..config_checks import MAX_LAYERS, layer_types
from ..hf_files import GPT_OSS_20B
from .table import Rows, Table

NAME = "original"
DTYPES_FILE = "dtypes.json"

# 20b (13.8 GB) is published as one file, 120b in files of up to 10 GiB of tensors, taken in alphabetical order.
ONE_FILE_BYTES = 16 << 30
FILE_BYTES = 10 << 30

_BLOCK = "block.{layer}"

TABLE: Table = {
    "embedding.weight": Rows("embedding.weight"),
    "layers.{layer}.attention.norm.weight": Rows(f"{_BLOCK}.attn.norm.scale"),
    "layers.{layer}.attention.q.weight": Rows(f"{_BLOCK}.attn.qkv.weight", after=("kv", "kv")),
    "layers.{layer}.attention.q.bias": Rows(f"{_BLOCK}.attn.qkv.bias", after=("kv", "kv")),
    "layers.{layer}.attention.k.weight": Rows(f"{_BLOCK}.attn.qkv.weight", before=("q",), after=("kv",)),
    "layers.{layer}.attention.k.bias": Rows(f"{_BLOCK}.attn.qkv.bias", before=("q",), after=("kv",)),
    "layers.{layer}.attention.v.weight": Rows(f"{_BLOCK}.attn.qkv.weight", before=("q", "kv")),
    "layers.{layer}.attention.v.bias": Rows(f"{_BLOCK}.attn.qkv.bias", before=("q", "kv")),
    "layers.{layer}.attention.o.weight": Rows(f"{_BLOCK}.attn.out.weight"),
    "layers.{layer}.attention.o.bias": Rows(f"{_BLOCK}.attn.out.bias"),
    "layers.{layer}.attention.sinks": Rows(f"{_BLOCK}.attn.sinks"),
    "layers.{layer}.moe.norm.weight": Rows(f"{_BLOCK}.mlp.norm.scale"),
    "layers.{layer}.moe.router.weight": Rows(f"{_BLOCK}.mlp.gate.weight"),
    "layers.{layer}.moe.router.bias": Rows(f"{_BLOCK}.mlp.gate.bias"),
    "layers.{layer}.moe.gate.weight": Rows(f"{_BLOCK}.mlp.mlp1_weight.{{part}}", first=0, step=2),
    "layers.{layer}.moe.gate.bias": Rows(f"{_BLOCK}.mlp.mlp1_bias", first=0, step=2),
    "layers.{layer}.moe.up.weight": Rows(f"{_BLOCK}.mlp.mlp1_weight.{{part}}", first=1, step=2),
    "layers.{layer}.moe.up.bias": Rows(f"{_BLOCK}.mlp.mlp1_bias", first=1, step=2),
    "layers.{layer}.moe.down.weight": Rows(f"{_BLOCK}.mlp.mlp2_weight.{{part}}"),
    "layers.{layer}.moe.down.bias": Rows(f"{_BLOCK}.mlp.mlp2_bias"),
    "norm.weight": Rows("norm.scale"),
    "unembedding.weight": Rows("unembedding.weight"),
}

# original key -> the HF key that says the same; in the order of the official file. OpenAI's loader takes no other key.
CONFIG_KEYS: dict[str, str] = {
    "num_hidden_layers": "num_hidden_layers",
    "num_experts": "num_local_experts",
    "experts_per_token": "num_experts_per_tok",
    "vocab_size": "vocab_size",
    "hidden_size": "hidden_size",
    "intermediate_size": "intermediate_size",
    "swiglu_limit": "swiglu_limit",
    "head_dim": "head_dim",
    "num_attention_heads": "num_attention_heads",
    "num_key_value_heads": "num_key_value_heads",
    "sliding_window": "sliding_window",
    "initial_context_length": "rope_scaling.original_max_position_embeddings",
    "rope_theta": "rope_theta",
    "rope_scaling_factor": "rope_scaling.factor",
    "rope_ntk_alpha": "rope_scaling.beta_slow",
    "rope_ntk_beta": "rope_scaling.beta_fast",
}

# The official file writes these whole numbers without a point, the others as they are.
_WHOLE = frozenset({"rope_theta", "rope_ntk_alpha", "rope_ntk_beta"})

# What is implied in OpenAI's code: RMSNorm's epsilon; YaRN is never truncated.
_IMPLIED: dict[str, object] = {"rms_norm_eps": 1e-05}


def recognises_config(raw: Mapping[str, Any]) -> bool:
    """True if the config is spelled as in `original/`."""
    return "num_experts" in raw and "rope_ntk_beta" in raw and "model_type" not in raw


def parse_original_config(
    raw: Mapping[str, Any], file: Path | None = None, special_ids: Mapping[str, int] | None = None
) -> GptOssConfig:
    """The config, with what `original/` does not say taken from the official HF config. Raises ConfigError.

    `special_ids` are "eos_token_id" and "pad_token_id" of the tokenizer, if there is one.
    """
    known = dict(GPT_OSS_20B) | _IMPLIED
    scaling = dict(GPT_OSS_20B["rope_scaling"])  # type: ignore[call-overload]
    for key, hf_key in CONFIG_KEYS.items():
        if key not in raw:
            raise ConfigError("the key is missing", file=file, key=key, remedy="Compare it with original/config.json.")
        outer, dot, inner = hf_key.partition(".")
        (scaling if dot else known)[inner or outer] = raw[key]
    for key in ("factor", "beta_fast", "beta_slow"):
        if isinstance(scaling[key], int) and not isinstance(scaling[key], bool):
            scaling[key] = float(scaling[key])
    layers, context, factor = known["num_hidden_layers"], raw["initial_context_length"], scaling["factor"]
    known |= {
        "experts_per_token": raw["experts_per_token"],
        "initial_context_length": context,
        "rope_scaling": scaling,
        **(special_ids or {}),
    }
    if isinstance(layers, int) and not isinstance(layers, bool) and 0 < layers <= MAX_LAYERS:
        known["layer_types"] = layer_types(layers)
    if isinstance(context, int) and isinstance(factor, float) and factor < 1 << 20:
        known["max_position_embeddings"] = int(context * factor)
    return parse_config(known, file)


def original_config(config: GptOssConfig) -> bytes:
    """The bytes of `original/config.json`. Raises ConfigError if OpenAI's code would compute otherwise."""
    if config.yarn.truncate or config.rms_norm_eps != _IMPLIED["rms_norm_eps"]:
        key = "rope_scaling.truncate" if config.yarn.truncate else "rms_norm_eps"
        raise ConfigError(
            "original/ cannot express the value",
            key=key,
            expected="that of the official models",
            remedy="Use `gptoss-convert to-mxfp4 --layout hf`, which can.",
        )
    values = {name: value for name, value in vars(config).items() if name not in ("yarn", "raw")}
    values |= {f"rope_scaling.{name}": value for name, value in vars(config.yarn).items()}
    found: dict[str, Any] = {}
    for key, hf_key in CONFIG_KEYS.items():
        value = values[hf_key]
        found[key] = int(value) if key in _WHOLE and value == int(value) else value
    return json.dumps(found).encode()


def dtypes_json(names: Mapping[str, str]) -> bytes:
    """The bytes of `dtypes.json`: FP4 for blocks, UE8 for scales, BF16 else. `names` are stored names by part."""
    words = {"blocks": "FP4", "scales": "UE8", "data": "BF16"}
    return json.dumps({name: words[part] for name, part in names.items()}).encode()
