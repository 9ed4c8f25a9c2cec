"""config.json of an official gpt-oss directory, built from data byte for byte, and the spelling of all its JSON files.

transformers 4.55 wrote the official ones: two spaces, sorted keys, text as UTF-8, a final newline.
The same functions write a tiny model's or a fine-tune's files in that spelling; the tokenizer's files are those of
`tokenizer_writer`.

Source: openai/gpt-oss-20b and -120b; the published SHA-256s are pinned in tests/model/test_hf_files.py.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from ..formats.errors import ConfigError
from .config_checks import layer_types

TRANSFORMERS_VERSION = "4.55.0.dev0"


GPT_OSS_20B: dict[str, object] = {
    "architectures": ["GptOssForCausalLM"],
    "attention_bias": True,
    "attention_dropout": 0.0,
    "eos_token_id": 200_002,
    "experts_per_token": 4,
    "head_dim": 64,
    "hidden_act": "silu",
    "hidden_size": 2880,
    "initial_context_length": 4096,
    "initializer_range": 0.02,
    "intermediate_size": 2880,
    "layer_types": layer_types(24),
    "max_position_embeddings": 131_072,
    "model_type": "gpt_oss",
    "num_attention_heads": 64,
    "num_experts_per_tok": 4,
    "num_hidden_layers": 24,
    "num_key_value_heads": 8,
    "num_local_experts": 32,
    "output_router_logits": False,
    "pad_token_id": 199_999,
    "quantization_config": {
        "modules_to_not_convert": [
            "model.layers.*.self_attn",
            "model.layers.*.mlp.router",
            "model.embed_tokens",
            "lm_head",
        ],
        "quant_method": "mxfp4",
    },
    "rms_norm_eps": 1e-05,
    "rope_scaling": {
        "beta_fast": 32.0,
        "beta_slow": 1.0,
        "factor": 32.0,
        "original_max_position_embeddings": 4096,
        "rope_type": "yarn",
        "truncate": False,
    },
    "rope_theta": 150_000,
    "router_aux_loss_coef": 0.9,
    "sliding_window": 128,
    "swiglu_limit": 7.0,
    "tie_word_embeddings": False,
    "transformers_version": TRANSFORMERS_VERSION,
    "use_cache": True,
    "vocab_size": 201_088,
}

GPT_OSS_120B: dict[str, object] = GPT_OSS_20B | {
    "layer_types": layer_types(36),
    "num_hidden_layers": 36,
    "num_local_experts": 128,
}


def official_json(values: Mapping[str, object]) -> bytes:
    """The bytes of a JSON file as transformers 4 writes it: indent 2, sorted keys, UTF-8, a final newline."""
    text = json.dumps(values, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    return text.encode() + b"\n"


def official_config(values: Mapping[str, object]) -> bytes:
    """The bytes of config.json in the official spelling; keys that are not official are carried along.

    transformers 5 writes `rope_parameters` and `dtype` where the official files have `rope_scaling` with
    `rope_theta`, and `torch_dtype`. The older names are written: mlx-lm reads no other and drops YaRN silently.

    Args:
        values: config values in either spelling; not changed.

    Raises:
        ConfigError: both spellings are there and say different things.
    """
    config = dict(values)
    rope = config.pop("rope_parameters", None)
    if isinstance(rope, Mapping):
        scaling = {key: value for key, value in rope.items() if key != "rope_theta"}
        _set_older_name(config, "rope_scaling", scaling, "rope_parameters")
        if "rope_theta" in rope:
            _set_older_name(config, "rope_theta", rope["rope_theta"], "rope_parameters")
    if "dtype" in config:
        _set_older_name(config, "torch_dtype", config.pop("dtype"), "dtype")
    return official_json(config)


def _set_older_name(config: dict[str, object], older: str, value: object, newer: str) -> None:
    if config.setdefault(older, value) != value:
        raise ConfigError(
            f"contradicts {newer!r}",
            file="config.json",
            key=older,
            expected=value,
            found=config[older],
            remedy="Remove the key that is wrong.",
        )
