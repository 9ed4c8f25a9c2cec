"""The config as the fields of a Metal file's header, and back.

The header has YaRN's ramp ready to use, not what it is made of: low and high, between which dimension pairs pass from
their own frequency to the interpolated one, are

    pairs(beta) = head_dim / 2 · ln(original context / (2π · beta)) / ln(theta)      low of beta_fast, high of beta_slow

rounded outwards if `truncate` says so. The header cannot say `rope_scaling.attention_factor` or a maximum length other
than factor · original context.

Source: openai/gpt-oss `gpt_oss/metal/scripts/create-local-model.py`; transformers `modeling_rope_utils.py`.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from ...formats.containers.metal_types import MetalFields, decode_fields, encode_fields
from ...formats.errors import CheckpointError, ConfigError, MetalError
from ..config import GptOssConfig, Yarn, parse_config
from ..config_checks import MAX_LAYERS, layer_types

_OFFICIAL_BETAS = (32.0, 1.0)

# Sizes that OpenAI's kernels are compiled for.
_KERNEL_SIZES: dict[str, tuple[int, ...]] = {
    "num_experts": (32, 128),
    "num_active_experts": (4,),
    "head_dim": (64,),
    "num_heads": (64,),
    "num_kv_heads": (8,),
}


def config_to_fields(config: GptOssConfig) -> MetalFields:
    """The header's fields, rounded to what the file stores.

    Raises:
        ConfigError: YaRN's ramp is upside down or outside of the head.
        MetalError: a number that the header cannot hold.
    """
    yarn = config.yarn
    low, high = _ramp(yarn, config.head_dim, config.rope_theta)
    fields = MetalFields(
        context_length=int(yarn.original_max_position_embeddings * yarn.factor),
        num_blocks=config.num_hidden_layers,
        num_experts=config.num_local_experts,
        num_active_experts=config.num_experts_per_tok,
        embedding_dim=config.hidden_size,
        mlp_dim=config.intermediate_size,
        swiglu_limit=config.swiglu_limit,
        head_dim=config.head_dim,
        num_heads=config.num_attention_heads,
        num_kv_heads=config.num_key_value_heads,
        attention_window=config.sliding_window,
        rope_theta=config.rope_theta,
        interpolation_scale=1.0 / yarn.factor,
        yarn_offset=-low / (high - low),
        yarn_scale=1.0 / (high - low),
        yarn_multiplier=_multiplier(yarn.factor),
        rmsnorm_epsilon=config.rms_norm_eps,
    )
    return decode_fields(encode_fields(fields))


def fields_to_config(fields: MetalFields, vocab_size: int, file: Path) -> GptOssConfig:
    """The config that gives these fields; the official one where it does.

    Args:
        fields: as read from `file`.
        vocab_size: of the model that is made of them.
        file: named in errors.

    Raises:
        CheckpointError: no gpt-oss config gives these fields.
    """
    # A hostile count of layers must not become a list of layer types.
    layers = layer_types(fields.num_blocks) if fields.num_blocks <= MAX_LAYERS else []
    raw: dict[str, Any] = {
        "model_type": "gpt_oss",
        "vocab_size": vocab_size,
        "num_hidden_layers": fields.num_blocks,
        "layer_types": layers,
        "num_local_experts": fields.num_experts,
        "num_experts_per_tok": fields.num_active_experts,
        "hidden_size": fields.embedding_dim,
        "intermediate_size": fields.mlp_dim,
        "head_dim": fields.head_dim,
        "num_attention_heads": fields.num_heads,
        "num_key_value_heads": fields.num_kv_heads,
        "sliding_window": fields.attention_window,
        "max_position_embeddings": fields.context_length,
        "swiglu_limit": _shortest(fields.swiglu_limit),
        "rms_norm_eps": _shortest(fields.rmsnorm_epsilon),
        "rope_theta": _shortest(fields.rope_theta),
    }
    for yarn in _candidates(fields):
        raw["rope_scaling"] = {"rope_type": "yarn", **vars(yarn)}
        config = parse_config(raw, file)
        if _same(config, fields):
            return config
    raise CheckpointError(
        "the positions are not scaled as gpt-oss scales them",
        file=file,
        key="yarn_offset",
        expected="numbers that follow from YaRN's factor and betas",
        found=f"interpolation {fields.interpolation_scale:g}, offset {fields.yarn_offset:g}, "
        f"scale {fields.yarn_scale:g}, multiplier {fields.yarn_multiplier:g}",
        remedy="Convert from the checkpoint the file was made of.",
    )


def kernel_warnings(fields: MetalFields) -> list[str]:
    """One sentence for each size that OpenAI's kernels cannot run; the file itself is right."""
    return [
        f"OpenAI's Metal kernels need {key} {' or '.join(map(str, sizes))}; this model has {getattr(fields, key)}."
        for key, sizes in _KERNEL_SIZES.items()
        if getattr(fields, key) not in sizes
    ]


def _ramp(yarn: Yarn, head_dim: int, theta: float) -> tuple[float, float]:
    """low, high: where the ramp begins and ends, in dimension pairs."""
    low, high = 0.0, -1.0
    if theta > 1:
        low, high = (_pairs(beta, yarn, head_dim, theta) for beta in (yarn.beta_fast, yarn.beta_slow))
        if yarn.truncate:
            low, high = math.floor(low), math.ceil(high)
        low, high = max(low, 0.0), min(high, head_dim - 1.0)
    if low > high:
        raise ConfigError(
            "YaRN does not fit the heads",
            key="rope_scaling",
            expected="rope_theta above 1, beta_fast above beta_slow, and a ramp inside of the head",
            found=f"rope_theta {theta:g}, betas {yarn.beta_fast:g} and {yarn.beta_slow:g}, head_dim {head_dim}",
            remedy="Compare it with the config.json of openai/gpt-oss-20b.",
        )
    return low, high + 0.001 if low == high else high


def _pairs(beta: float, yarn: Yarn, head_dim: int, theta: float) -> float:
    turns = yarn.original_max_position_embeddings / (beta * 2 * math.pi)
    return head_dim / 2 * math.log(turns) / math.log(theta)


def _multiplier(factor: float) -> float:
    return 0.1 * math.log(factor) + 1.0 if factor > 1 else 1.0


def _candidates(fields: MetalFields) -> list[Yarn]:
    """What may have made the fields: the official betas, exact or truncated, then those solved for."""
    if not (1e-30 < fields.interpolation_scale < 1e30 and fields.yarn_scale > 0 and fields.rope_theta > 1):
        return []
    factor = _shortest(1 / fields.interpolation_scale)
    original = max(1, round(fields.context_length / factor))
    candidates = [Yarn(factor, *_OFFICIAL_BETAS, original, truncate) for truncate in (False, True)]
    low = -fields.yarn_offset / fields.yarn_scale
    pair = 2 * math.log(fields.rope_theta) / fields.head_dim
    try:
        betas = [original / (2 * math.pi) * math.exp(-at * pair) for at in (low, low + 1 / fields.yarn_scale)]
    except OverflowError:
        return candidates
    for digits in (5, 7, 9):
        fast, slow = (float(f"{beta:.{digits}g}") for beta in betas)
        candidates += [Yarn(factor, fast, slow, original, False)] if fast and slow else []
    return candidates


def _same(config: GptOssConfig, fields: MetalFields) -> bool:
    """Whether the config gives these very fields; betas that were solved for may be off by rounding."""
    try:
        again = config_to_fields(config)
    except (ConfigError, MetalError):
        return False
    ramp = all(
        math.isclose(getattr(again, key), getattr(fields, key), rel_tol=1e-6) for key in ("yarn_offset", "yarn_scale")
    )
    return ramp and _without_ramp(again) == _without_ramp(fields)


def _without_ramp(fields: MetalFields) -> tuple[object, ...]:
    names = [name for name in MetalFields.__slots__ if name not in ("yarn_offset", "yarn_scale")]
    return tuple(getattr(fields, name) for name in names)


def _shortest(value: float) -> float:
    """The shortest decimal that float32 rounds to `value`: 1e-05 for what is stored of it."""
    return float(str(np.float32(value)))
