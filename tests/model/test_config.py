"""The config: both spellings, keys that are carried, and each contradiction refused by its key."""

from __future__ import annotations

import json
import math
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gptoss_convert.formats.errors import ConfigError
from gptoss_convert.model.config import GptOssConfig, Yarn, parse_config, read_config
from gptoss_convert.model.config_checks import layer_types
from gptoss_convert.model.hf_files import GPT_OSS_20B, GPT_OSS_120B

OFFICIAL: dict[str, Any] = dict(GPT_OSS_20B)
# What transformers 5 saves of the official config.
NEWER: dict[str, Any] = {
    **{key: value for key, value in OFFICIAL.items() if key not in ("rope_scaling", "rope_theta")},
    "dtype": "bfloat16",
    "rope_parameters": {**OFFICIAL["rope_scaling"], "rope_theta": 150_000.0},
}


def _with_yarn(**keys: float | None) -> dict[str, Any]:
    return {"rope_scaling": {**OFFICIAL["rope_scaling"], **keys}}


def same(first: GptOssConfig, second: GptOssConfig) -> bool:
    """Equal in everything but the file they came from."""
    return replace(first, raw={}) == replace(second, raw={})


def refused(key: str, expected: str, found: str, changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config({**OFFICIAL, **changes}, Path("config.json"))
    error = caught.value
    assert (error.file, error.key) == ("config.json", key)
    assert expected in str(error.expected)
    assert found in str(error.found)
    assert error.remedy


def test_official_config_says_what_the_20b_model_is() -> None:
    assert replace(parse_config(OFFICIAL), raw={}) == GptOssConfig(
        num_hidden_layers=24,
        hidden_size=2880,
        intermediate_size=2880,
        num_local_experts=32,
        num_experts_per_tok=4,
        head_dim=64,
        num_attention_heads=64,
        num_key_value_heads=8,
        vocab_size=201_088,
        max_position_embeddings=131_072,
        sliding_window=128,
        swiglu_limit=7.0,
        rms_norm_eps=1e-5,
        rope_theta=150_000.0,
        yarn=Yarn(32.0, 32.0, 1.0, 4096, truncate=False),
        raw={},
    )


def test_120b_differs_in_layers_and_experts_only() -> None:
    expected = replace(parse_config(OFFICIAL), num_hidden_layers=36, num_local_experts=128)
    assert same(parse_config(GPT_OSS_120B), expected)


def test_both_spellings_give_equal_configs() -> None:
    assert same(parse_config(NEWER), parse_config(OFFICIAL))
    assert same(parse_config({**OFFICIAL, **NEWER}), parse_config(OFFICIAL))


def test_nulls_count_as_missing() -> None:
    assert same(parse_config({**NEWER, "rope_scaling": None, "rope_theta": None}), parse_config(OFFICIAL))


@pytest.mark.parametrize(
    "without", ["experts_per_token", "num_experts_per_tok", "initial_context_length", "layer_types", "architectures"]
)
def test_what_is_said_twice_may_be_said_once(without: str) -> None:
    assert same(parse_config({key: value for key, value in OFFICIAL.items() if key != without}), parse_config(OFFICIAL))


def test_model_is_recognised_by_its_architecture_too() -> None:
    assert same(parse_config({**OFFICIAL, "model_type": None}), parse_config(OFFICIAL))


@pytest.mark.parametrize("quantization", [None, {"quant_method": "mxfp4"}, OFFICIAL["quantization_config"]])
def test_mxfp4_and_plain_weights_are_taken(quantization: object) -> None:
    assert same(parse_config({**OFFICIAL, "quantization_config": quantization}), parse_config(OFFICIAL))


def test_unknown_keys_are_carried_in_raw(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    content = {**OFFICIAL, "trained_by": {"who": "us"}, "swiglu_alpha": 1.702}
    path.write_text(json.dumps(content), encoding="utf-8")
    config = read_config(path)
    assert config.raw == content
    assert same(config, parse_config(OFFICIAL))


def test_sizes_need_not_be_those_of_a_published_model() -> None:
    changes = {"hidden_size": 96, "intermediate_size": 64, "num_local_experts": 3, "num_experts_per_tok": 1}
    changes |= {
        "experts_per_token": 1,
        "vocab_size": 1,
        "num_attention_heads": 3,
        "num_key_value_heads": 1,
        "head_dim": 2,
    }
    config = parse_config({**OFFICIAL, **changes, "num_hidden_layers": 1, "layer_types": ["sliding_attention"]})
    assert (config.hidden_size, config.intermediate_size, config.num_local_experts) == (96, 64, 3)


COUNTS = (
    *("num_hidden_layers", "hidden_size", "intermediate_size", "num_local_experts", "head_dim", "num_attention_heads"),
    *("num_key_value_heads", "vocab_size", "max_position_embeddings", "sliding_window"),
)


@pytest.mark.parametrize("value", [0, -1, 1.5, "24", True, [24], 1 << 31], ids=repr)
@pytest.mark.parametrize("key", COUNTS)
def test_count_that_is_no_whole_number_from_1_on_is_refused(key: str, value: object) -> None:
    refused(key, "a whole number from 1 on", repr(value), {key: value})


@pytest.mark.parametrize("value", [0, -1.0, "7", False, float("inf"), float("nan")], ids=repr)
@pytest.mark.parametrize("key", ["swiglu_limit", "rms_norm_eps", "rope_theta"])
def test_number_that_is_not_above_0_is_refused(key: str, value: object) -> None:
    refused(key, "a number above 0", repr(value), {key: value})


@pytest.mark.parametrize("value", [0, 1, "false", []], ids=repr)
def test_truncate_that_is_no_truth_value_is_refused(value: object) -> None:
    scaling = {**OFFICIAL["rope_scaling"], "truncate": value}
    refused("rope_scaling.truncate", "true or false", repr(value), {"rope_scaling": scaling})


@pytest.mark.parametrize("kind", ["linear", "llama3", "default"])
def test_other_ways_to_scale_positions_are_refused(kind: str) -> None:
    refused("rope_scaling.rope_type", "'yarn'", kind, {"rope_scaling": {**OFFICIAL["rope_scaling"], "rope_type": kind}})


@pytest.mark.parametrize(
    ("key", "changes", "expected", "found"),
    [
        ("experts_per_token", {"experts_per_token": 3}, "4", "3"),
        ("rope_parameters.rope_theta", {"rope_parameters": {"rope_theta": 1}}, "150000", "1"),
        ("rope_parameters.factor", {"rope_parameters": {"factor": 4.0}}, "32.0", "4.0"),
        ("rope_parameters.truncate", {"rope_parameters": {"truncate": True}}, "False", "True"),
        ("initial_context_length", {"initial_context_length": 1}, "4096", "1"),
        ("layer_types", {"num_hidden_layers": 23}, "23 entries", "24 entries"),
        ("layer_types", {"layer_types": "sliding"}, "24 entries", "'sliding'"),
        ("layer_types[0]", {"layer_types": layer_types(25)[1:]}, "'sliding_attention'", "'full_attention'"),
        ("num_experts_per_tok", {"num_local_experts": 3}, "at most num_local_experts", "4"),
        ("num_key_value_heads", {"num_key_value_heads": 7}, "a divisor of num_attention_heads 64", "7"),
        ("head_dim", {"head_dim": 63}, "an even number", "63"),
        ("hidden_size", {"hidden_size": 2881}, "a multiple of 32", "2881"),
        ("intermediate_size", {"intermediate_size": 16}, "a multiple of 32", "16"),
        ("tie_word_embeddings", {"tie_word_embeddings": True}, "False", "True"),
        ("attention_bias", {"attention_bias": False}, "True", "False"),
        ("hidden_act", {"hidden_act": "gelu"}, "'silu'", "'gelu'"),
        ("swiglu_alpha", {"swiglu_alpha": 1.0}, "1.702", "1.0"),
        ("rope_scaling.attention_factor", _with_yarn(attention_factor=1.0), "nothing, or 1.34657", "1.0"),
        ("rope_scaling.mscale", _with_yarn(mscale=1.0), "nothing", "1.0"),
        ("rope_scaling.mscale_all_dim", _with_yarn(mscale_all_dim=0.5), "nothing", "0.5"),
        ("model_type", {"model_type": "qwen3_moe", "architectures": None}, "'gpt_oss'", "'qwen3_moe'"),
        ("model_type", {"model_type": "qwen3_moe"}, "'gpt_oss'", "'qwen3_moe'"),
        ("quantization_config.quant_method", {"quantization_config": {"quant_method": "awq"}}, "'mxfp4'", "'awq'"),
        ("quantization_config.quant_method", {"quantization_config": "mxfp8"}, "'mxfp4'", "'mxfp8'"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_contradiction_is_refused_by_its_key(key: str, changes: dict[str, Any], expected: str, found: str) -> None:
    refused(key, expected, found, changes)


@pytest.mark.parametrize("value", [None, 0.1 * math.log(32) + 1])
def test_attention_factor_that_gpt_oss_has_is_accepted(value: float | None) -> None:
    parse_config({**OFFICIAL, **_with_yarn(attention_factor=value)})


@pytest.mark.parametrize("without", [(), ("layer_types",)], ids=["with layer_types", "without"])
def test_absurd_number_of_layers_is_refused_before_anything_is_made_of_it(without: tuple[str, ...]) -> None:
    raw = {key: value for key, value in OFFICIAL.items() if key not in without} | {"num_hidden_layers": 1_000_000}
    tracemalloc.start()
    try:
        with pytest.raises(ConfigError):
            parse_config(raw)
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()
