"""Checks of a config's values against each other and against what gpt-oss is."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

from ..formats.errors import ConfigError

if TYPE_CHECKING:
    from .config import GptOssConfig

# Far more than any gpt-oss has, and little enough to make a list of.
MAX_LAYERS = 1000

# Values that gpt-oss has and that nothing in any layout could express otherwise.
_FIXED: dict[str, object] = {
    "hidden_act": "silu",
    "attention_bias": True,
    "tie_word_embeddings": False,
    "swiglu_alpha": 1.702,
}

# YaRN's further keys, which gpt-oss leaves to their defaults: no file but the config could say otherwise.
_YARN_DEFAULTS = ("attention_factor", "mscale", "mscale_all_dim")


def layer_types(n_layers: int) -> list[str]:
    """What each layer attends to: a sliding window on even layers, everything on odd ones."""
    return ["full_attention" if layer % 2 else "sliding_attention" for layer in range(n_layers)]


def check_consistency(config: GptOssConfig, file: Path | None) -> None:
    """Raises ConfigError naming the first key that contradicts another."""
    if config.num_hidden_layers > MAX_LAYERS:
        found = str(config.num_hidden_layers)
        raise _contradiction(file, "num_hidden_layers", "there are too many layers", f"at most {MAX_LAYERS}", found)
    for key, expected in _FIXED.items():
        found = config.raw.get(key, expected)
        if found != expected:
            raise _contradiction(file, key, "the value is not that of gpt-oss", repr(expected), repr(found))
    _check_yarn(config, file)
    expected_types = layer_types(config.num_hidden_layers)
    types = config.raw.get("layer_types", expected_types)
    if not isinstance(types, list) or len(types) != config.num_hidden_layers:
        length = f"{len(types)} entries" if isinstance(types, list) else repr(types)
        raise _contradiction(
            file,
            "layer_types",
            "the list contradicts 'num_hidden_layers'",
            f"{config.num_hidden_layers} entries",
            length,
        )
    for layer, (expected_type, found_type) in enumerate(zip(expected_types, types, strict=True)):
        if found_type != expected_type:
            raise _contradiction(
                file, f"layer_types[{layer}]", "the layer does not alternate", repr(expected_type), repr(found_type)
            )
    _check_sizes(config, file)


def _check_yarn(config: GptOssConfig, file: Path | None) -> None:
    """YaRN's factor of attention follows from its factor of positions, and from nothing else."""
    usual = 0.1 * math.log(config.yarn.factor) + 1
    for spelling in ("rope_scaling", "rope_parameters"):
        given = config.raw.get(spelling) or {}
        for key in _YARN_DEFAULTS:
            found = given.get(key)
            if found is None or (key == "attention_factor" and _is_close(found, usual)):
                continue
            expected = f"nothing, or {usual:.6g}" if key == "attention_factor" else "nothing"
            raise _contradiction(file, f"{spelling}.{key}", "the value is not that of gpt-oss", expected, repr(found))


def _check_sizes(config: GptOssConfig, file: Path | None) -> None:
    """Divisibility and order among the sizes."""
    rules = (
        ("num_experts_per_tok", config.num_experts_per_tok <= config.num_local_experts, "at most num_local_experts"),
        (
            "num_key_value_heads",
            config.num_attention_heads % config.num_key_value_heads == 0,
            f"a divisor of num_attention_heads {config.num_attention_heads}",
        ),
        ("head_dim", config.head_dim % 2 == 0, "an even number (positions rotate pairs)"),
        ("hidden_size", config.hidden_size % 32 == 0, "a multiple of 32 (the MXFP4 block)"),
        ("intermediate_size", config.intermediate_size % 32 == 0, "a multiple of 32 (the MXFP4 block)"),
    )
    for key, holds, expected in rules:
        if not holds:
            raise _contradiction(file, key, "the size does not fit the others", expected, str(getattr(config, key)))


def _is_close(found: object, expected: float) -> bool:
    return isinstance(found, int | float) and math.isclose(found, expected, rel_tol=1e-6)


def _contradiction(file: Path | None, key: str, problem: str, expected: str, found: str) -> ConfigError:
    return ConfigError(
        problem,
        file=file,
        key=key,
        expected=expected,
        found=found,
        remedy="Compare it with the config.json of openai/gpt-oss-20b.",
    )
