"""config.json for each way the experts can be stored, whatever the source's config looked like.

Always in the official spelling; keys that are not official are carried along. What says how weights are stored is
replaced: `quantization_config` (official), MLX's `quantization`, and `torch_dtype`, which the official file lacks.
"""

from __future__ import annotations

from collections.abc import Mapping

from .hf_files import GPT_OSS_20B, official_config

MLX_QUANTIZATION: dict[str, object] = {"group_size": 32, "bits": 4, "mode": "mxfp4"}

_STORAGE_KEYS = ("quantization_config", "quantization", "dtype", "torch_dtype")


def mxfp4_config(raw: Mapping[str, object]) -> bytes:
    """The bytes of config.json beside MXFP4 experts. Raises ConfigError if `raw` contradicts itself."""
    return official_config(_without_storage(raw) | {"quantization_config": GPT_OSS_20B["quantization_config"]})


def bf16_config(raw: Mapping[str, object]) -> bytes:
    """The bytes of config.json beside BF16 weights. Raises ConfigError as `mxfp4_config`."""
    return official_config(_without_storage(raw) | {"torch_dtype": "bfloat16"})


def mlx_config(raw: Mapping[str, object]) -> bytes:
    """The bytes of config.json for mlx-lm, which reads either of the two keys. Raises ConfigError as `mxfp4_config`."""
    quantization = {"quantization": MLX_QUANTIZATION, "quantization_config": MLX_QUANTIZATION}
    return official_config(_without_storage(raw) | quantization)


def _without_storage(raw: Mapping[str, object]) -> dict[str, object]:
    return {key: value for key, value in raw.items() if key not in _STORAGE_KEYS}
