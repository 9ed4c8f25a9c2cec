"""The config as GGUF keys, and back.

GGUF has no key for YaRN's `truncate: false` (llama.cpp always truncates) nor for `swiglu_limit` (7.0 in llama.cpp).

Source: llama.cpp `gguf-py/gguf/constants.py` (Keys), `conversion/gpt_oss.py`, `src/llama-model.cpp`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ...formats.containers.gguf_values import GgufValue
from ...formats.containers.gguf_writer import f32, string, u32
from ...formats.errors import CheckpointError
from ..config import GptOssConfig, parse_config

ARCHITECTURE = "gpt-oss"
LEGACY_ARCHITECTURE = "gptoss"
QUANTIZATION_VERSION = 2

# general.file_type by what the experts are stored in; llama.cpp's LLAMA_FTYPE_*.
FILE_TYPES = {"F32": 0, "F16": 1, "BF16": 32, "GGML_MXFP4": 38}

# key (without the architecture), constructor, config key; dots reach into rope_scaling
CONFIG_KEYS: tuple[tuple[str, Callable[[Any], GgufValue], str], ...] = (
    ("block_count", u32, "num_hidden_layers"),
    ("context_length", u32, "max_position_embeddings"),
    ("embedding_length", u32, "hidden_size"),
    ("feed_forward_length", u32, "intermediate_size"),
    ("attention.head_count", u32, "num_attention_heads"),
    ("attention.head_count_kv", u32, "num_key_value_heads"),
    ("rope.scaling.factor", f32, "rope_scaling.factor"),
    ("rope.scaling.original_context_length", u32, "rope_scaling.original_max_position_embeddings"),
    ("rope.scaling.yarn_beta_fast", f32, "rope_scaling.beta_fast"),
    ("rope.scaling.yarn_beta_slow", f32, "rope_scaling.beta_slow"),
    ("rope.freq_base", f32, "rope_theta"),
    ("attention.layer_norm_rms_epsilon", f32, "rms_norm_eps"),
    ("expert_count", u32, "num_local_experts"),
    ("expert_used_count", u32, "num_experts_per_tok"),
    ("attention.key_length", u32, "head_dim"),
    ("attention.value_length", u32, "head_dim"),
    ("attention.sliding_window", u32, "sliding_window"),
    ("expert_feed_forward_length", u32, "intermediate_size"),
)

# What GGUF cannot say and llama.cpp computes with.
_IMPLIED: dict[str, object] = {"swiglu_limit": 7.0}
_IMPLIED_YARN: dict[str, object] = {"rope_type": "yarn", "truncate": True}


# Keys that files written before they existed lack, with the value that llama.cpp takes then.
_ASSUMED = {"rope.scaling.yarn_beta_fast": f32(32.0), "rope.scaling.yarn_beta_slow": f32(1.0)}


def config_to_kv(config: GptOssConfig, name: str, expert_encoding: str) -> dict[str, GgufValue]:
    """The model's GGUF keys, in the order they are written. `name` is for people; tokenizer keys are apart."""
    values = _flat(config)
    kv = {"general.architecture": string(ARCHITECTURE), "general.type": string("model"), "general.name": string(name)}
    for key, make, source in CONFIG_KEYS:
        kv[f"{ARCHITECTURE}.{key}"] = make(values[source])
    kv[f"{ARCHITECTURE}.rope.scaling.type"] = string("yarn")
    kv["general.file_type"] = u32(FILE_TYPES[expert_encoding])
    kv["general.quantization_version"] = u32(QUANTIZATION_VERSION)
    return kv


def _flat(config: GptOssConfig) -> dict[str, Any]:
    values = {name: value for name, value in vars(config).items() if name not in ("yarn", "raw")}
    return values | {f"rope_scaling.{name}": value for name, value in vars(config.yarn).items()}


def kv_to_config(kv: Mapping[str, GgufValue], vocab_size: int, file: Path) -> GptOssConfig:
    """The config that a GGUF's keys say. `vocab_size` comes from the embedding's shape. Raises CheckpointError."""
    _check_architecture(kv, file)
    raw: dict[str, Any] = {
        "model_type": "gpt_oss",
        "vocab_size": vocab_size,
        **_IMPLIED,
        "rope_scaling": dict(_IMPLIED_YARN),
    }
    for key, _, target in CONFIG_KEYS:
        value = kv.get(f"{ARCHITECTURE}.{key}", _ASSUMED.get(key))
        if value is None:
            raise CheckpointError(
                "the key is missing",
                file=file,
                key=f"{ARCHITECTURE}.{key}",
                remedy="llama.cpp would refuse the file or assume a default; convert it again from its source.",
            )
        outer, dot, inner = target.partition(".")
        place = raw[outer] if dot else raw
        number = _number(value.value)
        if place.setdefault(inner or outer, number) != number:
            raise CheckpointError(
                "the key contradicts another that says the same",
                file=file,
                key=f"{ARCHITECTURE}.{key}",
                expected=place[inner or outer],
                found=number,
                remedy="The file is damaged or was made by a faulty tool; convert it again from its source.",
            )
    return parse_config(raw, file)


def _check_architecture(kv: Mapping[str, GgufValue], file: Path) -> None:
    value = kv.get("general.architecture")
    found = value.value if value is not None else None
    if found == ARCHITECTURE:
        return
    legacy = found == LEGACY_ARCHITECTURE
    raise CheckpointError(
        "the file is written in Ollama's old dialect" if legacy else "this is not a gpt-oss model",
        file=file,
        key="general.architecture",
        expected=repr(ARCHITECTURE),
        found=repr(found),
        remedy="Convert it from the official checkpoint." if legacy else "This tool converts gpt-oss checkpoints only.",
    )


def _number(value: Any) -> Any:
    """F32 keys hold 1e-5 and the like rounded to 24 bits; the shortest decimal that rounds so is what was meant."""
    return float(f"{value:.7g}") if isinstance(value, float) else value
