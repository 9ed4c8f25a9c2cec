"""The config as Metal fields: those of OpenAI's script, and the same config back."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from metal_script import TINY, metal_file, tiny_tensors

from gptoss_convert.formats.containers.metal import read_metal
from gptoss_convert.formats.errors import CheckpointError, ConfigError, MetalError
from gptoss_convert.model.config import GptOssConfig, parse_config
from gptoss_convert.model.layouts.metal_metadata import config_to_fields, fields_to_config, kernel_warnings

FILE = Path("model.bin")
OFFICIAL_YARN = {
    "rope_type": "yarn",
    "factor": 32.0,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
    "truncate": False,
    "original_max_position_embeddings": 4096,
}
OFFICIAL = {
    "model_type": "gpt_oss",
    "num_hidden_layers": 24,
    "hidden_size": 2880,
    "intermediate_size": 2880,
    "num_local_experts": 32,
    "num_experts_per_tok": 4,
    "head_dim": 64,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "vocab_size": 201088,
    "max_position_embeddings": 131072,
    "sliding_window": 128,
    "swiglu_limit": 7.0,
    "rms_norm_eps": 1e-5,
    "rope_theta": 150000,
    "rope_scaling": OFFICIAL_YARN,
}


def config(yarn: dict[str, Any] | None = None, **changed: Any) -> GptOssConfig:
    return parse_config(OFFICIAL | changed | {"rope_scaling": OFFICIAL_YARN | (yarn or {})})


def known(config: GptOssConfig) -> dict[str, Any]:
    return {name: value for name, value in vars(config).items() if name != "raw"}


def test_the_official_fields() -> None:
    fields = asdict(config_to_fields(config()))
    expected = {
        "context_length": 131072,
        "num_blocks": 24,
        "num_experts": 32,
        "num_active_experts": 4,
        "embedding_dim": 2880,
        "mlp_dim": 2880,
        "swiglu_limit": 7.0,
        "head_dim": 64,
        "num_heads": 64,
        "num_kv_heads": 8,
        "attention_window": 128,
        "rope_theta": 150000.0,
        "interpolation_scale": 0.03125,
        "yarn_offset": float(np.float32(-8.092779115512402 / (17.39802450158856 - 8.092779115512402))),
        "yarn_scale": float(np.float32(1 / (17.39802450158856 - 8.092779115512402))),
        "yarn_multiplier": float(np.float32(1.3465735902799727)),
        "rmsnorm_epsilon": float(np.float32(1e-5)),
    }
    assert fields == expected


def test_the_fields_are_those_of_openais_script(tmp_path: Path) -> None:
    path = tmp_path / "model.bin"
    path.write_bytes(metal_file(TINY, tiny_tensors(), [b"a"]))
    tiny = {
        "num_hidden_layers": TINY["num_hidden_layers"],
        "num_local_experts": TINY["num_experts"],
        "num_experts_per_tok": TINY["experts_per_token"],
        **{name: TINY[name] for name in TINY.keys() & OFFICIAL.keys() if name != "num_hidden_layers"},
    }
    assert config_to_fields(config(**tiny)) == read_metal(path).fields


CONFIGS: dict[str, GptOssConfig] = {
    "official": config(),
    "truncated": config({"truncate": True}),
    "other betas": config({"beta_fast": 24.0, "beta_slow": 1.5}),
    "other factor": config({"factor": 24.0}, max_position_embeddings=98304),
    "fractional factor": config({"factor": 2.5}, max_position_embeddings=10240),
    "other context": config({"original_max_position_embeddings": 8192, "factor": 16.0}),
    "other numbers": config(rms_norm_eps=3e-6, swiglu_limit=6.3, rope_theta=1234567.0),
    "small heads": config(head_dim=8, num_attention_heads=6, num_key_value_heads=2),
}


@pytest.mark.parametrize("before", CONFIGS.values(), ids=CONFIGS)
def test_the_same_config_comes_back(before: GptOssConfig) -> None:
    after = fields_to_config(config_to_fields(before), before.vocab_size, FILE)
    assert known(after) == known(before)


@pytest.mark.parametrize("truncate", [False, True])
def test_the_ramp_is_that_of_transformers(truncate: bool) -> None:
    from transformers import GptOssConfig as Theirs
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    theirs = Theirs(rope_parameters={**OFFICIAL_YARN, "truncate": truncate, "rope_theta": 150000.0})
    frequencies, multiplier = ROPE_INIT_FUNCTIONS["yarn"](theirs, torch.device("cpu"))
    fields = config_to_fields(config({"truncate": truncate}))
    pair = np.arange(32)
    own = fields.rope_theta ** (-pair / 32)
    alpha = np.clip(pair * fields.yarn_scale + fields.yarn_offset, 0, 1)
    ours = own * (1 - alpha) + own * fields.interpolation_scale * alpha
    np.testing.assert_allclose(ours, frequencies.numpy(), rtol=2e-6)
    assert fields.yarn_multiplier == pytest.approx(multiplier)


def test_kernels_run_the_official_sizes() -> None:
    assert kernel_warnings(config_to_fields(config())) == []
    assert kernel_warnings(config_to_fields(config(num_local_experts=128))) == []


def test_kernels_do_not_run_other_sizes() -> None:
    fields = config_to_fields(config(num_local_experts=16, head_dim=32))
    assert kernel_warnings(fields) == [
        "OpenAI's Metal kernels need num_experts 32 or 128; this model has 16.",
        "OpenAI's Metal kernels need head_dim 64; this model has 32.",
    ]


@pytest.mark.parametrize(
    "changed",
    [
        {"rope_theta": 1.0},
        {"rope_theta": 0.5},
        {"yarn": {"beta_fast": 1.0, "beta_slow": 32.0}},
        {"yarn": {"beta_fast": 1e-30, "beta_slow": 1e-31}},
    ],
    ids=str,
)
def test_a_ramp_that_cannot_be_written_is_refused(changed: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="YaRN does not fit the heads"):
        config_to_fields(config(**changed))


def test_a_context_beyond_the_field_is_refused() -> None:
    with pytest.raises(MetalError, match="'context_length': the field is out of range"):
        config_to_fields(config({"factor": 1e7}))


STRANGE: dict[str, dict[str, Any]] = {
    "multiplier": {"yarn_multiplier": 1.0},
    "scale negative": {"yarn_scale": -0.1},
    "scale tiny": {"yarn_scale": 1e-44},
    "offset huge": {"yarn_offset": -3e38},
    "offset positive": {"yarn_offset": 3e38},
    "interpolation 0": {"interpolation_scale": 0.0},
    "interpolation tiny": {"interpolation_scale": 1e-45},
    "interpolation huge": {"interpolation_scale": 1e25},
    "theta 1": {"rope_theta": 1.0},
    "theta negative": {"rope_theta": -5.0},
    "context": {"context_length": 131071},
}


@pytest.mark.parametrize("changed", STRANGE.values(), ids=STRANGE)
def test_fields_that_no_config_gives_are_refused(changed: dict[str, Any]) -> None:
    fields = replace(config_to_fields(config()), **changed)
    with pytest.raises(CheckpointError):
        fields_to_config(fields, 201088, FILE)


def test_strange_positions_are_named() -> None:
    fields = replace(config_to_fields(config()), yarn_multiplier=1.0)
    message = "model.bin: key 'yarn_offset': the positions are not scaled .*; found interpolation 0.03125, .*lier 1"
    with pytest.raises(CheckpointError, match=message):
        fields_to_config(fields, 201088, FILE)


def test_a_config_that_is_not_gpt_oss_is_named_by_its_key() -> None:
    fields = replace(config_to_fields(config()), num_kv_heads=7)
    with pytest.raises(ConfigError, match="num_key_value_heads"):
        fields_to_config(fields, 201088, FILE)


def test_a_billion_layers_are_refused() -> None:
    fields = replace(config_to_fields(config()), num_blocks=2**30)
    with pytest.raises(ConfigError, match="too many layers"):
        fields_to_config(fields, 201088, FILE)
