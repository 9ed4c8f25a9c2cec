"""The config as GGUF keys in both dialects, and back: nothing lost with our key, the official files without it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ollama_files import ollama_kv

from gptoss_convert.formats.containers.gguf_reader import read_gguf
from gptoss_convert.formats.containers.gguf_types import ValueType
from gptoss_convert.formats.containers.gguf_values import GgufValue
from gptoss_convert.formats.containers.gguf_writer import boolean, f32, i32, i32s, plan_gguf, string, strings, u32, u64
from gptoss_convert.formats.errors import CheckpointError, ConfigError
from gptoss_convert.model.config import GptOssConfig, parse_config, read_config
from gptoss_convert.model.gguf_tokenizer import PREFIX, tokenizer_to_kv, tokenizer_to_ollama_kv
from gptoss_convert.model.hf_files import GPT_OSS_20B, GPT_OSS_120B, official_config
from gptoss_convert.model.layouts.gguf_metadata import (
    LLAMA_CPP,
    OLLAMA_LEGACY,
    STORED_CONFIG,
    Dialect,
    config_to_kv,
    dialect_of,
    kv_to_config,
    truncate_is_stored,
)
from gptoss_convert.model.tokenizer import read_tokenizer

FILE = Path("model.gguf")
VOCAB_SIZE = 201_088

# Of the published config.json.
SHA256 = {
    "20b": "3a2a26ded679375b7928ddeca59764df7cea83220c1961035f6d6e232659e9ce",
    "120b": "933aeb666a3fd851133ddd7686414f369bc564c4185fb5704416550879f10566",
}
OFFICIAL = {"20b": GPT_OSS_20B, "120b": GPT_OSS_120B}
EXPERTS = {"llama.cpp": "GGML_MXFP4", "ollama-legacy": "OLLAMA_MXFP4"}
YARN: dict[str, Any] = dict(GPT_OSS_20B["rope_scaling"])  # type: ignore[call-overload]

Keys = dict[str, GgufValue]


@pytest.fixture(params=[LLAMA_CPP, OLLAMA_LEGACY], ids=lambda dialect: dialect.name)
def dialect(request: pytest.FixtureRequest) -> Dialect:
    found: Dialect = request.param
    return found


def config(yarn: dict[str, Any] | None = None, **changed: Any) -> GptOssConfig:
    scaling = YARN | (yarn or {})
    same = {
        "initial_context_length": scaling["original_max_position_embeddings"],
        "experts_per_token": changed.get("num_experts_per_tok", 4),
    }
    return parse_config(GPT_OSS_20B | changed | same | {"rope_scaling": scaling})


def keys(config: GptOssConfig, dialect: Dialect, *, ours: bool = True) -> Keys:
    kv = config_to_kv(config, "name", EXPERTS[dialect.name], dialect=dialect)
    return kv if ours else {key: value for key, value in kv.items() if key != STORED_CONFIG}


@pytest.fixture
def kv(dialect: Dialect) -> Keys:
    return keys(config(), dialect)


# What is written.


# Those of `convert_hf_to_gguf.py` for the 20b model, but for what it finds in the README.
CONVERTERS = {
    "general.architecture": string("gpt-oss"),
    "general.type": string("model"),
    "general.name": string("name"),
    "gpt-oss.block_count": u32(24),
    "gpt-oss.context_length": u32(131_072),
    "gpt-oss.embedding_length": u32(2880),
    "gpt-oss.feed_forward_length": u32(2880),
    "gpt-oss.attention.head_count": u32(64),
    "gpt-oss.attention.head_count_kv": u32(8),
    "gpt-oss.rope.scaling.type": string("yarn"),
    "gpt-oss.rope.scaling.factor": f32(32.0),
    "gpt-oss.rope.scaling.original_context_length": u32(4096),
    "gpt-oss.rope.scaling.yarn_beta_fast": f32(32.0),
    "gpt-oss.rope.scaling.yarn_beta_slow": f32(1.0),
    "gpt-oss.rope.freq_base": f32(150_000.0),
    "gpt-oss.attention.layer_norm_rms_epsilon": f32(1e-5),
    "gpt-oss.expert_count": u32(32),
    "gpt-oss.expert_used_count": u32(4),
    "gpt-oss.attention.key_length": u32(64),
    "gpt-oss.attention.value_length": u32(64),
    "general.file_type": u32(38),
    "gpt-oss.attention.sliding_window": u32(128),
    "gpt-oss.expert_feed_forward_length": u32(2880),
    "general.quantization_version": u32(2),
}


def test_llama_cpps_keys_are_its_converters_and_one_of_ours() -> None:
    written = keys(config(), LLAMA_CPP)
    assert {key: value for key, value in written.items() if key != STORED_CONFIG} == CONVERTERS
    assert list(written)[-1] == STORED_CONFIG


def test_ollamas_keys_are_its_converters_and_one_of_ours(tiny: Path) -> None:
    written = keys(read_config(tiny / "config.json"), OLLAMA_LEGACY)
    expected = {key: value for key, value in ollama_kv(tiny).items() if not key.startswith(PREFIX)}
    assert {key: value for key, value in written.items() if key != STORED_CONFIG} == expected
    assert list(written) == sorted(written)


def test_ollamas_tokenizer_keys_are_its_converters_and_the_template(tiny: Path) -> None:
    written = tokenizer_to_ollama_kv(read_tokenizer(tiny), read_config(tiny / "config.json").vocab_size)
    template = written.pop("tokenizer.chat_template")
    assert template.value == (tiny / "chat_template.jinja").read_text(encoding="utf-8")
    assert written == {key: value for key, value in ollama_kv(tiny).items() if key.startswith(PREFIX)}
    assert list(written) == sorted(written)


@pytest.mark.parametrize(
    ("experts", "llama_cpp", "ollama"),
    [("F32", 0, 0), ("F16", 1, 1), ("BF16", 32, 32), ("GGML_MXFP4", 38, 4), ("OLLAMA_MXFP4", None, 4)],
)
def test_file_type_says_what_the_experts_are_stored_in(experts: str, llama_cpp: int | None, ollama: int) -> None:
    expected = {LLAMA_CPP.name: llama_cpp, OLLAMA_LEGACY.name: ollama}
    found = {one.name: one.file_types.get(experts) for one in (LLAMA_CPP, OLLAMA_LEGACY)}
    assert found == expected
    kv = config_to_kv(config(), "name", experts, dialect=OLLAMA_LEGACY)
    assert kv["general.file_type"] == u32(ollama)


def test_the_stored_config_is_compact_and_sorted(kv: Keys) -> None:
    text = kv[STORED_CONFIG].value
    assert json.loads(text) == GPT_OSS_20B
    assert text == json.dumps(json.loads(text), sort_keys=True, separators=(",", ":"))


# What comes back.


@pytest.mark.parametrize("model", OFFICIAL)
@pytest.mark.parametrize("ours", [True, False], ids=["with our key", "without it"])
def test_an_official_models_config_comes_back_byte_identical(model: str, ours: bool, dialect: Dialect) -> None:
    official = parse_config(OFFICIAL[model])
    found = kv_to_config(keys(official, dialect, ours=ours), VOCAB_SIZE, FILE)
    assert found == official
    assert hashlib.sha256(official_config(found.raw)).hexdigest() == SHA256[model]


def test_keys_come_back_from_a_file(dialect: Dialect, kv: Keys, tmp_path: Path) -> None:
    path = tmp_path / "f.gguf"
    path.write_bytes(plan_gguf(kv, []).header)
    stored = read_gguf(path).kv
    assert dialect_of(stored, path) is dialect
    assert kv_to_config(stored, VOCAB_SIZE, path) == config()


ODD = {
    "truncate": config({"truncate": True}),
    "yarn": config({"factor": 7.3, "beta_fast": 30.1, "beta_slow": 1.7, "original_max_position_embeddings": 4001}),
    "floats without a short decimal": config(rms_norm_eps=1.23456789e-5, rope_theta=149999.987654321),
    "large whole numbers": config(max_position_embeddings=(1 << 31) - 1, sliding_window=(1 << 24) + 1),
    "a fine-tune's own keys": config(é={"b": [1, None, "\n"]}),
}


@pytest.mark.parametrize("how", [{"torch_dtype": "bfloat16"}, {"quantization_config": None, "dtype": "float32"}])
def test_how_another_layout_stores_weights_is_not_kept(how: dict[str, object], dialect: Dialect) -> None:
    assert keys(config(**how), dialect) == keys(config(), dialect)


@pytest.mark.parametrize("odd", ODD.values(), ids=ODD)
def test_any_config_comes_back_with_our_key(odd: GptOssConfig, dialect: Dialect, tmp_path: Path) -> None:
    path = tmp_path / "f.gguf"
    path.write_bytes(plan_gguf(keys(odd, dialect), []).header)
    assert kv_to_config(read_gguf(path).kv, VOCAB_SIZE, path) == odd


def test_a_config_in_the_spelling_of_transformers_5_comes_back_in_the_official_one(dialect: Dialect) -> None:
    raw = {key: value for key, value in GPT_OSS_20B.items() if key not in ("rope_scaling", "rope_theta")}
    newer = parse_config(raw | {"rope_parameters": YARN | {"rope_theta": 150_000.0}})
    assert kv_to_config(keys(newer, dialect), VOCAB_SIZE, FILE).raw == GPT_OSS_20B


def test_sizes_and_positions_come_back_without_our_key() -> None:
    odd = config({"factor": 7.3, "beta_fast": 30.1, "truncate": True}, rms_norm_eps=2e-6, num_experts_per_tok=2)
    found = kv_to_config(keys(odd, LLAMA_CPP, ours=False), VOCAB_SIZE, FILE)
    assert replace(found, raw=odd.raw) == odd


CHANGED_YARN: dict[str, dict[str, Any]] = {
    "factor": {"factor": 16.0},
    "fast": {"beta_fast": 31.0},
    "slow": {"beta_slow": 2.0},
    "original context": {"original_max_position_embeddings": 8192},
}


@pytest.mark.parametrize("changed", CHANGED_YARN.values(), ids=CHANGED_YARN)
def test_truncate_is_llama_cpps_if_the_yarn_is_not_official(changed: dict[str, Any]) -> None:
    found = kv_to_config(keys(config(changed), LLAMA_CPP, ours=False), VOCAB_SIZE, FILE)
    assert found.yarn.truncate


def test_whether_truncate_is_stored_can_be_asked(dialect: Dialect) -> None:
    assert truncate_is_stored(keys(config(), dialect))
    assert not truncate_is_stored(keys(config(), dialect, ours=False))


@pytest.mark.parametrize("make", [tokenizer_to_kv, tokenizer_to_ollama_kv])
def test_the_tokenizers_ids_are_found_among_its_keys(make: Callable[..., Keys], dialect: Dialect, tiny: Path) -> None:
    stored = read_config(tiny / "config.json")
    kv = keys(stored, dialect, ours=False) | make(read_tokenizer(tiny), stored.vocab_size)
    found = kv_to_config(kv, stored.vocab_size, FILE).raw
    ids = ("eos_token_id", "pad_token_id")
    assert [found[key] for key in ids] == [stored.raw[key] for key in ids]


def test_a_file_of_ollamas_converter_gives_the_config_it_was_made_of(tiny: Path) -> None:
    stored = read_config(tiny / "config.json")
    found = kv_to_config(ollama_kv(tiny), stored.vocab_size, FILE)
    assert replace(found, raw=stored.raw) == stored
    assert found.raw == stored.raw


def test_llama_cpps_files_of_2025_have_no_betas() -> None:
    kv = {key: value for key, value in keys(config(), LLAMA_CPP, ours=False).items() if "yarn_beta" not in key}
    assert kv_to_config(kv, VOCAB_SIZE, FILE) == config()


# Contradictions and damage.


def refused(kv: Keys, message: str, vocab_size: int = VOCAB_SIZE) -> None:
    with pytest.raises(CheckpointError, match=message) as caught:
        kv_to_config(kv, vocab_size, FILE)
    assert str(caught.value).startswith("model.gguf: ")
    assert caught.value.remedy


NUMBERS = {key: value for key, value in keys(config(), LLAMA_CPP).items() if key.startswith("gpt-oss.")}
NUMBERS.pop("gpt-oss.rope.scaling.type")

# The first of two keys that say the same, and the second.
TWINS = {
    "gpt-oss.attention.key_length": "gpt-oss.attention.value_length",
    "gpt-oss.feed_forward_length": "gpt-oss.expert_feed_forward_length",
}


@pytest.mark.parametrize("key", NUMBERS)
def test_a_key_that_contradicts_the_stored_config_is_refused_by_name(key: str) -> None:
    changed = replace(NUMBERS[key], stored=NUMBERS[key].value * 2)
    kv = keys(config(), LLAMA_CPP) | {key: changed, TWINS.get(key, key): changed}
    refused(kv, f"^model.gguf: key '{key}': .*contradicts .*expected .*found {changed.value}")


@pytest.mark.parametrize("key", ["rms_norm_eps", "rope_theta"])
def test_a_float_may_differ_by_its_rounding_only(key: str) -> None:
    odd = config(**{key: 0.1})
    gguf_key = {"rms_norm_eps": "attention.layer_norm_rms_epsilon", "rope_theta": "rope.freq_base"}[key]
    rounded, next_one = 0.10000000149011612, 0.10000000894069672
    kv = keys(odd, LLAMA_CPP)
    assert kv_to_config(kv | {f"gpt-oss.{gguf_key}": f32(rounded)}, VOCAB_SIZE, FILE) == odd
    refused(kv | {f"gpt-oss.{gguf_key}": f32(next_one)}, f"contradicts '{key}' under 'gptoss_convert.config'")


def test_an_embedding_that_contradicts_the_stored_config_is_refused(kv: Keys) -> None:
    refused(kv, "the embedding's rows.*contradicts 'vocab_size' under .*expected 201088.*found 201087", 201_087)


STORED: dict[str, tuple[GgufValue, str]] = {
    "number": (u32(1), "has another type; expected a string; found u32"),
    "array": (strings(["{}"]), "has another type; expected a string; found array"),
    "not JSON": (string("{"), "the value of 'gptoss_convert.config' is not valid JSON"),
    "empty": (string(""), "the value of 'gptoss_convert.config' "),
    "list": (string("[]"), "is not a JSON object; expected an object; found list"),
    "key twice": (string('{"model_type":"gpt_oss","model_type":"gpt_oss"}'), "has the same key twice"),
    "NaN": (string('{"rope_theta":NaN}'), "has a value that JSON does not have"),
    "too long": (string('"' + "x" * (1 << 20) + '"'), "is too large; expected at most 1,048,576 bytes"),
    "too deep": (string('{"a":' * 17 + "1" + "}" * 17), "is nested too deeply; expected at most 16 levels; found 17"),
}


@pytest.mark.parametrize("case", STORED)
def test_a_stored_config_that_is_none_is_refused(case: str, kv: Keys) -> None:
    value, message = STORED[case]
    refused(kv | {STORED_CONFIG: value}, message)


def test_a_stored_config_of_another_model_is_refused(kv: Keys) -> None:
    with pytest.raises(ConfigError, match=r"this is not a gpt-oss model.*found 'llama'"):
        kv_to_config(kv | {STORED_CONFIG: string('{"model_type":"llama"}')}, VOCAB_SIZE, FILE)


ARCHITECTURES = {
    "none": (None, "found None"),
    "another": (string("llama"), "found 'llama'"),
    "number": (u32(1), "found u32"),
    "array": (strings(["gpt-oss", "gptoss"]), "found array"),
    "long": (string("x" * 1000), r"found 'x{79}… \(1,002 characters\)"),
}


@pytest.mark.parametrize("case", ARCHITECTURES)
def test_another_architecture_is_refused(case: str, kv: Keys) -> None:
    value, found = ARCHITECTURES[case]
    kv.pop("general.architecture")
    kv |= {} if value is None else {"general.architecture": value}
    refused(kv, f"'general.architecture': this is not a gpt-oss model; expected 'gpt-oss' or 'gptoss'; {found}")


def test_keys_of_the_other_architecture_do_not_count(dialect: Dialect, kv: Keys) -> None:
    other = {"gpt-oss": "gptoss", "gptoss": "gpt-oss"}[dialect.architecture]
    refused(kv | {"general.architecture": string(other)}, f"key '{other}.block_count': the key is missing")


OPTIONAL = ("yarn_beta_fast", "yarn_beta_slow")


@pytest.mark.parametrize("ours", [True, False])
@pytest.mark.parametrize("key", [key for key in NUMBERS if not key.endswith(OPTIONAL)])
def test_a_missing_key_is_refused_by_name(key: str, ours: bool, dialect: Dialect) -> None:
    key = key.replace("gpt-oss", dialect.architecture)
    kv = keys(config(), dialect, ours=ours)
    if key not in kv:
        assert (dialect, key) == (OLLAMA_LEGACY, "gptoss.expert_feed_forward_length")
        return
    del kv[key]
    refused(kv, f"key '{key}': the key is missing")


@pytest.mark.parametrize("pair", [("attention.key_length", "attention.value_length")])
def test_keys_that_contradict_each_other_are_refused(pair: tuple[str, str], dialect: Dialect) -> None:
    kv = keys(config(), dialect, ours=False)
    key = f"{dialect.architecture}.{pair[1]}"
    refused(kv | {key: u32(128)}, f"key '{key}': the key contradicts another that says the same.*64.*128")


def test_experts_of_another_size_than_the_layers_are_refused(dialect: Dialect) -> None:
    key = f"{dialect.architecture}.expert_feed_forward_length"
    refused(keys(config(), dialect, ours=False) | {key: u32(64)}, f"key '{key}': the key contradicts another")


ROPE_TYPES = {"other": (string("linear"), "found 'linear'"), "number": (u32(1), "found u32")}


@pytest.mark.parametrize("case", ROPE_TYPES)
def test_positions_scaled_in_another_way_are_refused(case: str, dialect: Dialect, kv: Keys) -> None:
    value, found = ROPE_TYPES[case]
    key = f"{dialect.architecture}.rope.scaling.type"
    refused(kv | {key: value}, f"key '{key}': the model's positions are not scaled by YaRN; expected 'yarn'; {found}")


NO_NUMBERS = {
    "block_count": [f32(24.0), string("24"), i32s([24]), boolean(True)],
    "rope.freq_base": [string("150000"), strings(["150000"]), boolean(True)],
}


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, values in NO_NUMBERS.items() for value in values])
@pytest.mark.parametrize("ours", [True, False])
def test_what_is_no_number_is_refused_by_name(key: str, value: GgufValue, ours: bool) -> None:
    kv = keys(config(), LLAMA_CPP, ours=ours) | {f"gpt-oss.{key}": value}
    found = value.type.name.lower() if value.type is not ValueType.STRING else repr(value.value)
    refused(kv, f"key 'gpt-oss.{key}': the key has another type; expected a .*number; found {found}")


@pytest.mark.parametrize("value", [u64(24), i32(24)])
def test_whole_numbers_may_have_any_size(value: GgufValue) -> None:
    assert kv_to_config(keys(config(), LLAMA_CPP) | {"gpt-oss.block_count": value}, VOCAB_SIZE, FILE) == config()


@pytest.mark.parametrize("number", [0, (1 << 32) - 1])
def test_impossible_numbers_are_refused(number: int, dialect: Dialect) -> None:
    kv = keys(config(), dialect, ours=False) | {f"{dialect.architecture}.block_count": u32(number)}
    with pytest.raises(ConfigError, match="num_hidden_layers"):
        kv_to_config(kv, VOCAB_SIZE, FILE)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -1.0])
def test_floats_that_are_no_sizes_are_refused(number: float) -> None:
    for ours in (True, False):
        kv = keys(config(), LLAMA_CPP, ours=ours) | {"gpt-oss.rope.freq_base": f32(number)}
        with pytest.raises((ConfigError, CheckpointError), match=r"rope_theta|rope\.freq_base"):
            kv_to_config(kv, VOCAB_SIZE, FILE)
