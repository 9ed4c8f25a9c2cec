"""The config as GGUF keys, and back: in llama.cpp's dialect and in Ollama's legacy one.

GGUF has keys for sizes and positions only. It has none for YaRN's `truncate` (llama.cpp and Ollama always truncate, the
official models do not), for `swiglu_limit` (7.0 in both), nor for what else config.json says. Files written here carry
the whole config.json under a key of our own, which both programs pass over:

    gptoss_convert.config    string: the config as JSON, without spaces, its keys sorted

What a file without it does not say is taken from the official models. So is `truncate: false` if the file's YaRN is
theirs, for every such file was made of a model that had it; with another YaRN it is true, as llama.cpp computes.

Source: llama.cpp `gguf-py/gguf/constants.py` (Keys), `conversion/gpt_oss.py`, `src/llama-model.cpp`;
Ollama `convert/convert_gptoss.go` at 333203d8, `model/models/gptoss/model.go` at f1373193.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...formats.containers.gguf_types import ValueType
from ...formats.containers.gguf_values import GgufValue
from ...formats.containers.gguf_writer import f32, string, u32
from ...formats.errors import CheckpointError
from ...formats.json_text import excerpt, parse_json
from ..config import MAX_CONFIG_BYTES, GptOssConfig, parse_config
from ..config_checks import MAX_LAYERS, layer_types
from ..gguf_tokenizer import config_ids
from ..hf_files import GPT_OSS_20B
from ..target_configs import mxfp4_config

ARCHITECTURE = "gpt-oss"
LEGACY_ARCHITECTURE = "gptoss"
QUANTIZATION_VERSION = 2

STORED_CONFIG = "gptoss_convert.config"

_ARCHITECTURE_KEY = "general.architecture"
_ROPE_TYPE = "rope.scaling.type"
_EXPERT_SIZE = "expert_feed_forward_length"
_BETA_FAST, _BETA_SLOW = "rope.scaling.yarn_beta_fast", "rope.scaling.yarn_beta_slow"

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
    (_BETA_FAST, f32, "rope_scaling.beta_fast"),
    (_BETA_SLOW, f32, "rope_scaling.beta_slow"),
    ("rope.freq_base", f32, "rope_theta"),
    ("attention.layer_norm_rms_epsilon", f32, "rms_norm_eps"),
    ("expert_count", u32, "num_local_experts"),
    ("expert_used_count", u32, "num_experts_per_tok"),
    ("attention.key_length", u32, "head_dim"),
    ("attention.value_length", u32, "head_dim"),
    ("attention.sliding_window", u32, "sliding_window"),
    (_EXPERT_SIZE, u32, "intermediate_size"),
)

# Keys that files may lack, with the value that the programs take then. llama.cpp's files of 2025 have no betas.
_ASSUMED = {"rope_scaling.beta_fast": 32.0, "rope_scaling.beta_slow": 1.0}

_OFFICIAL_YARN = {"factor": 32.0, "beta_fast": 32.0, "beta_slow": 1.0, "original_max_position_embeddings": 4096}

_FLOATS = frozenset({ValueType.F32, ValueType.F64})
_NOT_NUMBERS = frozenset({ValueType.BOOL, ValueType.STRING, ValueType.ARRAY})

_REMEDY = "The file is damaged or was made by a faulty tool; convert it again from its source."


@dataclass(frozen=True)
class Dialect:
    """A way to say a model in GGUF keys.

    Args:
        name: as `--dialect` has it.
        program: what reads it.
        architecture: what the model's own keys begin with.
        omitted: keys of `CONFIG_KEYS` that are not written and need not be there.
        file_types: general.file_type by what the experts are stored in.
    """

    name: str
    program: str
    architecture: str
    omitted: frozenset[str]
    file_types: Mapping[str, int]


_FLOAT_FILE_TYPES = {"F32": 0, "F16": 1, "BF16": 32}
LLAMA_CPP = Dialect("llama.cpp", "llama.cpp", ARCHITECTURE, frozenset(), _FLOAT_FILE_TYPES | {"GGML_MXFP4": 38})
OLLAMA_LEGACY = Dialect(
    "ollama-legacy",
    "Ollama",
    LEGACY_ARCHITECTURE,
    frozenset({_BETA_FAST, _BETA_SLOW, _EXPERT_SIZE}),
    _FLOAT_FILE_TYPES | {"OLLAMA_MXFP4": 4, "GGML_MXFP4": 4},
)
DIALECTS = {dialect.name: dialect for dialect in (LLAMA_CPP, OLLAMA_LEGACY)}


def dialect_of(kv: Mapping[str, GgufValue], file: Path) -> Dialect:
    """The dialect a file is written in. Raises CheckpointError if it is not a gpt-oss model."""
    stored = kv.get(_ARCHITECTURE_KEY)
    for dialect in DIALECTS.values():
        if stored == string(dialect.architecture):
            return dialect
    raise CheckpointError(
        "this is not a gpt-oss model",
        file=file,
        key=_ARCHITECTURE_KEY,
        expected=" or ".join(repr(dialect.architecture) for dialect in DIALECTS.values()),
        found=repr(None) if stored is None else _shown(stored),
        remedy="This tool converts gpt-oss checkpoints only: give one, such as openai/gpt-oss-20b.",
    )


def config_to_kv(
    config: GptOssConfig, name: str, expert_encoding: str, *, dialect: Dialect = LLAMA_CPP
) -> dict[str, GgufValue]:
    """The model's GGUF keys, in the order the dialect's own converter writes them; tokenizer keys are apart.

    `name` is for people; Ollama's dialect has no key for it.
    """
    values, architecture = _flat(config), dialect.architecture
    kv = {_ARCHITECTURE_KEY: string(architecture)}
    if dialect is LLAMA_CPP:
        kv |= {"general.type": string("model"), "general.name": string(name)}
    for key, make, source in CONFIG_KEYS:
        if key not in dialect.omitted:
            kv[f"{architecture}.{key}"] = make(values[source])
    if dialect is LLAMA_CPP:
        kv[f"{architecture}.{_ROPE_TYPE}"] = string("yarn")
    kv["general.file_type"] = u32(dialect.file_types[expert_encoding])
    kv["general.quantization_version"] = u32(QUANTIZATION_VERSION)
    # How another layout stored the weights is none of this file's business.
    official = json.loads(mxfp4_config(config.raw))
    kv[STORED_CONFIG] = string(json.dumps(official, sort_keys=True, separators=(",", ":"), ensure_ascii=False))
    return kv if dialect is LLAMA_CPP else dict(sorted(kv.items()))


def _flat(config: GptOssConfig) -> dict[str, Any]:
    values = {name: value for name, value in vars(config).items() if name not in ("yarn", "raw")}
    return values | {f"rope_scaling.{name}": value for name, value in vars(config.yarn).items()}


def truncate_is_stored(kv: Mapping[str, GgufValue]) -> bool:
    """True if the file itself says what YaRN's `truncate` is, so that nothing had to be assumed."""
    return STORED_CONFIG in kv


def kv_to_config(kv: Mapping[str, GgufValue], vocab_size: int, file: Path) -> GptOssConfig:
    """The config that a GGUF's keys say. `vocab_size` comes from the embedding's shape.

    Raises:
        CheckpointError: it is not gpt-oss, a key is missing, or two keys contradict each other.
        ConfigError: the values are not those of a gpt-oss model.
    """
    stated = _stated(kv, dialect_of(kv, file), file)
    if STORED_CONFIG in kv:
        return _stored_config(kv[STORED_CONFIG], stated, vocab_size, file)
    values = {target: _meant(number) for target, (number, _) in stated.items()}
    return parse_config(_completed(_ASSUMED | values | {"vocab_size": vocab_size}, config_ids(kv)), file)


_Stated = dict[str, tuple[float, str]]


def _stated(kv: Mapping[str, GgufValue], dialect: Dialect, file: Path) -> _Stated:
    """Config key -> the number the file states, and under which key."""
    _check_rope_type(kv, f"{dialect.architecture}.{_ROPE_TYPE}", file)
    stated: _Stated = {}
    for short, make, target in CONFIG_KEYS:
        key = f"{dialect.architecture}.{short}"
        if key not in kv:
            if target in _ASSUMED or short in dialect.omitted:
                continue
            remedy = f"{dialect.program} would refuse the file or assume a default; convert it again from its source."
            raise CheckpointError("the key is missing", file=file, key=key, remedy=remedy)
        number = _number(kv[key], key, file, whole=make is u32)
        first, _ = stated.setdefault(target, (number, key))
        if number != first:
            raise CheckpointError(
                "the key contradicts another that says the same",
                file=file,
                key=key,
                expected=first,
                found=number,
                remedy=_REMEDY,
            )
    return stated


def _check_rope_type(kv: Mapping[str, GgufValue], key: str, file: Path) -> None:
    if key in kv and kv[key] != string("yarn"):
        raise CheckpointError(
            "the model's positions are not scaled by YaRN",
            file=file,
            key=key,
            expected="'yarn'",
            found=_shown(kv[key]),
            remedy=_REMEDY,
        )


def _number(stored: GgufValue, key: str, file: Path, *, whole: bool) -> float:
    """The key's value. Raises CheckpointError if it is no number, or if `whole`, no whole number."""
    if stored.type in _NOT_NUMBERS or (whole and stored.type in _FLOATS):
        expected = "a whole number" if whole else "a number"
        raise CheckpointError(
            "the key has another type", file=file, key=key, expected=expected, found=_shown(stored), remedy=_REMEDY
        )
    number: float = stored.value
    return number


def _meant(number: float) -> float:
    """F32 keys hold 1e-5 and the like rounded to 24 bits; the shortest decimal that rounds so is what was meant."""
    return float(f"{number:.7g}") if isinstance(number, float) else number


def _shown(stored: GgufValue) -> str:
    return excerpt(stored.value) if stored.type is ValueType.STRING else stored.type.name.lower()


def _completed(values: Mapping[str, Any], ids: Mapping[str, int]) -> dict[str, Any]:
    """`values` as config.json has them, with what GGUF does not say as in the official one."""
    known: dict[str, Any] = GPT_OSS_20B | dict(ids)
    scaling: dict[str, Any] = dict(known["rope_scaling"])
    for key, value in values.items():
        outer, dot, inner = key.partition(".")
        (scaling if dot else known)[inner or outer] = value
    scaling["truncate"] = any(scaling[key] != value for key, value in _OFFICIAL_YARN.items())
    layers, theta = known["num_hidden_layers"], known["rope_theta"]
    if isinstance(layers, int) and not isinstance(layers, bool) and 0 < layers <= MAX_LAYERS:
        known["layer_types"] = layer_types(layers)
    if isinstance(theta, float) and theta.is_integer():
        known["rope_theta"] = int(theta)
    return known | {
        "experts_per_token": known["num_experts_per_tok"],
        "initial_context_length": scaling["original_max_position_embeddings"],
        "rope_scaling": scaling,
    }


def _stored_config(stored: GgufValue, stated: _Stated, vocab_size: int, file: Path) -> GptOssConfig:
    """The config under our own key, which must say what the other keys and the embedding say."""
    config = _parsed_config(stored, file)
    values = _flat(config)
    for target, (number, key) in (stated | {"vocab_size": (vocab_size, "the embedding's rows")}).items():
        if not _agree(values[target], number):
            raise CheckpointError(
                f"contradicts {target!r} under {STORED_CONFIG!r}",
                file=file,
                key=key,
                expected=values[target],
                found=number,
                remedy=_REMEDY,
            )
    return config


def _agree(value: float, number: float) -> bool:
    """True if they are equal, or the same float32."""
    return value == number or (isinstance(number, float) and np.float32(value) == np.float32(number))


def _parsed_config(stored: GgufValue, file: Path) -> GptOssConfig:
    if stored.type is not ValueType.STRING:
        raise CheckpointError(
            "the key has another type",
            file=file,
            key=STORED_CONFIG,
            expected="a string",
            found=stored.type.name.lower(),
            remedy=_REMEDY,
        )
    raw = parse_json(
        stored.value.encode(),
        file=file,
        what=f"the value of {STORED_CONFIG!r}",
        max_bytes=MAX_CONFIG_BYTES,
        max_depth=16,
        error=CheckpointError,
    )
    if not isinstance(raw, dict):
        raise CheckpointError(
            "the config is not a JSON object",
            file=file,
            key=STORED_CONFIG,
            expected="an object",
            found=type(raw).__name__,
            remedy=_REMEDY,
        )
    return parse_config(raw, file)
