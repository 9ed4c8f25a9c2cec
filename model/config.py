"""The gpt-oss config: what config.json says, checked against itself.

Both spellings are read: the official one (`rope_theta`, `rope_scaling`) and that of transformers 5 (`rope_parameters`).
Keys that are not known here are kept in `GptOssConfig.raw`, since fine-tunes have them and outputs must carry them.

Source: openai/gpt-oss-20b config.json; transformers `models/gpt_oss/configuration_gpt_oss.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..formats.errors import ConfigError
from ..formats.json_text import read_json_file
from .config_checks import check_consistency
from .foreign import refuse_foreign

CONFIG_FILE = "config.json"
MAX_CONFIG_BYTES = 1 << 20
# Every layout keeps these numbers as float32 or wider.
_F32_MIN, _F32_MAX = 2.0**-149, (2 - 2.0**-23) * 2.0**127
_REMEDY = "Compare it with the config.json of openai/gpt-oss-20b."


@dataclass(frozen=True)
class Yarn:
    """YaRN's parameters. `truncate` rounds the correction range to whole dimensions; the official models say false."""

    factor: float
    beta_fast: float
    beta_slow: float
    original_max_position_embeddings: int
    truncate: bool


@dataclass(frozen=True)
class GptOssConfig:
    """A checked gpt-oss config; the names are those of config.json. `raw` is the file as it was."""

    num_hidden_layers: int
    hidden_size: int
    intermediate_size: int
    num_local_experts: int
    num_experts_per_tok: int
    head_dim: int
    num_attention_heads: int
    num_key_value_heads: int
    vocab_size: int
    max_position_embeddings: int
    sliding_window: int
    swiglu_limit: float
    rms_norm_eps: float
    rope_theta: float
    yarn: Yarn
    raw: Mapping[str, Any]


def read_config(path: Path) -> GptOssConfig:
    """The config in the JSON file `path`. Raises ConfigError."""
    raw = read_json_file(path, max_bytes=MAX_CONFIG_BYTES, max_depth=16, error=ConfigError)
    if not isinstance(raw, dict):
        raise ConfigError("the config is not a JSON object", file=path, found=type(raw).__name__, remedy=_REMEDY)
    return parse_config(raw, path)


def parse_config(raw: Mapping[str, Any], file: Path | None = None) -> GptOssConfig:
    """The config in the decoded JSON object `raw`; `file` is named in errors. Raises ConfigError."""
    _check_model(raw, file)
    refuse_foreign(raw, {}, file)
    values = _Values(raw, file)
    config = GptOssConfig(
        num_hidden_layers=values.count("num_hidden_layers"),
        hidden_size=values.count("hidden_size"),
        intermediate_size=values.count("intermediate_size"),
        num_local_experts=values.count("num_local_experts"),
        num_experts_per_tok=values.count("num_experts_per_tok", "experts_per_token"),
        head_dim=values.count("head_dim"),
        num_attention_heads=values.count("num_attention_heads"),
        num_key_value_heads=values.count("num_key_value_heads"),
        vocab_size=values.count("vocab_size"),
        max_position_embeddings=values.count("max_position_embeddings"),
        sliding_window=values.count("sliding_window"),
        swiglu_limit=values.positive("swiglu_limit"),
        rms_norm_eps=values.positive("rms_norm_eps"),
        rope_theta=values.positive("rope_theta", "rope_parameters.rope_theta"),
        yarn=_yarn(values),
        raw=dict(raw),
    )
    check_consistency(config, file)
    return config


def _check_model(raw: Mapping[str, Any], file: Path | None) -> None:
    architectures = raw.get("architectures")
    names = architectures if isinstance(architectures, list) else []
    model_type = raw.get("model_type")
    if model_type == "gpt_oss" or (model_type is None and "GptOssForCausalLM" in names):
        return
    raise ConfigError(
        "this is not a gpt-oss model",
        file=file,
        key="model_type",
        expected="'gpt_oss'",
        found=repr(architectures if model_type is None else model_type),
        remedy="This tool converts gpt-oss checkpoints only: give one, such as openai/gpt-oss-20b.",
    )


def _yarn(values: _Values) -> Yarn:
    kind = values.one("rope_scaling.rope_type", "rope_scaling.type", "rope_parameters.rope_type")
    if kind != "yarn":
        raise values.error(
            "the model's positions are not scaled by YaRN", "rope_scaling.rope_type", "'yarn'", repr(kind)
        )

    def both(name: str) -> tuple[str, str]:
        return f"rope_scaling.{name}", f"rope_parameters.{name}"

    return Yarn(
        factor=values.positive(*both("factor")),
        beta_fast=values.positive(*both("beta_fast")),
        beta_slow=values.positive(*both("beta_slow")),
        original_max_position_embeddings=values.count(
            *both("original_max_position_embeddings"), "initial_context_length"
        ),
        truncate=values.flag(*both("truncate")),
    )


class _Values:
    """Looks keys up in `raw`; several spellings of one key must agree. `a.b` is key b of the object a."""

    def __init__(self, raw: Mapping[str, Any], file: Path | None) -> None:
        self.raw = raw
        self.file = file

    def error(self, problem: str, key: str, expected: str, found: str) -> ConfigError:
        return ConfigError(problem, file=self.file, key=key, expected=expected, found=found, remedy=_REMEDY)

    def one(self, *keys: str) -> Any:
        """The value under whichever of `keys` is there; all that are there must be equal."""
        found = {key: self._get(key) for key in keys}
        found = {key: value for key, value in found.items() if value is not None}
        if not found:
            raise self.error("the key is missing", keys[0], " or ".join(keys), "neither" if keys[1:] else "nothing")
        (first, value), *others = found.items()
        for key, other in others:
            if other != value:
                raise self.error(f"the key contradicts {first!r}", key, repr(value), repr(other))
        return value

    def _get(self, key: str) -> Any:
        outer, dot, inner = key.partition(".")
        value = self.raw.get(outer)
        if not dot:
            return value
        if value is not None and not isinstance(value, dict):
            raise self.error("the key is not an object", outer, "an object or null", repr(value))
        return value.get(inner) if value else None

    def _checked(self, keys: tuple[str, ...], expected: str, good: Callable[[Any], bool]) -> Any:
        value = self.one(*keys)
        if not good(value):
            raise self.error("the value is of the wrong kind", keys[0], expected, repr(value))
        return value

    def count(self, *keys: str) -> int:
        return int(self._checked(keys, "a whole number from 1 on", _is_count))

    def positive(self, *keys: str) -> float:
        return float(self._checked(keys, "a number above 0 that float32 can hold", _is_positive))

    def flag(self, *keys: str) -> bool:
        return bool(self._checked(keys, "true or false", lambda value: isinstance(value, bool)))


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < 1 << 31


def _is_positive(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and _F32_MIN <= value <= _F32_MAX
