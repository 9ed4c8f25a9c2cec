"""Checkpoints whose weights are not plain: recognised by their config, or by their tensors alone, and refused by name.

Plain are floats and MXFP4 as OpenAI stores it, and what MLX stores (its config names no method). Everything else was
made by a quantizer that keeps its own arrays beside the weights, or is an adapter that is no model yet.

Source: transformers 5.23 `quantizers/`, `integrations/` (methods, names); vLLM `model_executor/models/gpt_oss.py`;
unsloth-zoo `temporary_patches/gpt_oss.py`; NVIDIA Model-Optimizer `torch/quantization/utils/core_utils.py`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..formats.errors import CheckpointError, ConfigError

ADAPTER_CONFIG = "adapter_config.json"
_SECTION = "quantization_config"

_ORIGIN = (
    "What quantization lost cannot be brought back. Convert from the checkpoint it was quantized from (for the "
    "official model: openai/gpt-oss-20b or openai/gpt-oss-120b)."
)
_UNSLOTH = (
    "Convert from the 16-bit weights. For the base model: openai/gpt-oss-20b or unsloth/gpt-oss-20b-BF16 (or -120b). "
    'Of your fine-tune: what model.save_pretrained_merged(directory, tokenizer, save_method="merged_16bit") writes.'
)
_MERGE = (
    "Merge the adapter into its base model first: with PEFT, load the base with Mxfp4Config(dequantize=True), then "
    "PeftModel.from_pretrained(base, adapter).merge_and_unload().save_pretrained(directory); with Unsloth, "
    'model.save_pretrained_merged(directory, tokenizer, save_method="merged_16bit"). Convert from that directory.'
)


@dataclass(frozen=True)
class _Quantizer:
    """What one writer leaves in a checkpoint. `flavour`: the config key that says which of its encodings was taken."""

    name: str
    methods: tuple[str, ...] = ()
    flavour: str = ""
    tensors: str = ""
    remedy: str = _ORIGIN


_PEFT = _Quantizer("a PEFT adapter (LoRA)", tensors=r"\.lora_(A|B|embedding_A|magnitude_vector)\b", remedy=_MERGE)

# name; quantization_config.quant_method; flavour; tensors. The first row whose pattern is found names the checkpoint.
_QUANTIZERS = (
    _PEFT,
    _Quantizer("bitsandbytes 4-bit (nf4)", (), "", r"\.quant_state\.bitsandbytes__nf4$", _UNSLOTH),
    _Quantizer("bitsandbytes 4-bit (fp4)", (), "", r"\.quant_state\.bitsandbytes__fp4$", _UNSLOTH),
    _Quantizer("bitsandbytes 4-bit", ("bitsandbytes_4bit",), "bnb_4bit_quant_type", r"\.(absmax|quant_map)$", _UNSLOTH),
    _Quantizer("bitsandbytes 8-bit", ("bitsandbytes_8bit",), "", r"\.(SCB|weight_format)$", _UNSLOTH),
    _Quantizer("GPTQ", ("gptq",), "", r"\.g_idx$"),
    _Quantizer("AWQ", ("awq",), "version"),
    _Quantizer("AutoRound", ("auto-round", "intel/auto-round")),
    _Quantizer("AWQ, GPTQ or AutoRound", (), "", r"\.q(weight|zeros)$"),
    _Quantizer("ModelOpt", ("modelopt", "modelopt_fp4"), "quant_algo"),
    _Quantizer("ModelOpt (NVFP4)", (), "", r"[._]weight_scale_2$"),
    _Quantizer("NVFP4", ("nvfp4",), "", r"\.weight_sf(_rowmajor)?$"),
    _Quantizer("compressed-tensors", ("compressed-tensors",), "format", r"\.weight_(packed|global_scale|zero_point)$"),
    _Quantizer("AMD Quark", ("quark",), "global_quant_config.weight.dtype"),
    _Quantizer("FP8", ("fp8",), "fmt", r"_scale_inv$"),
    _Quantizer("FP8 (FBGEMM)", ("fbgemm_fp8",)),
    _Quantizer("MXFP8", ("mxfp8",)),
    _Quantizer("HQQ", ("hqq",)),
    _Quantizer("SINQ", ("sinq",)),
    _Quantizer("HQQ or SINQ", (), "", r"\.W_q$"),
    _Quantizer("EETQ", ("eetq",), "", r"\.weight_scales$"),
    _Quantizer("torchao", ("torchao",), "", r"\._\w+_(qdata|scale_and_zero)$"),
    _Quantizer("Quanto", ("quanto",), "weights", r"\._data$"),
    _Quantizer("EXL3", ("exl3",), "", r"\.trellis$"),
    _Quantizer("transformers' Metal kernels", ("metal",), "", r"\.qbiases$"),
    _Quantizer("AMD Quark, ModelOpt or compressed-tensors", (), "", r"[._](weight|input)_scale$"),
)


@dataclass(frozen=True)
class Foreign:
    """What a checkpoint is, and what says so: a config key and its value, or a tensor and its dtype."""

    name: str
    remedy: str
    found: str
    key: str | None = None
    tensor: str | None = None

    @property
    def evidence(self) -> str:
        """The key, or the tensor's name."""
        return str(self.key or self.tensor)


def find_foreign(raw_config: Mapping[str, Any], arrays: Mapping[str, str]) -> Foreign | None:
    """What the checkpoint is instead of plain weights, or None.

    `arrays` has the dtype of each by its name; if it is empty, the config alone is asked.
    """
    return _in_config(raw_config) or _in_arrays(arrays)


def refuse_foreign(raw_config: Mapping[str, Any], arrays: Mapping[str, str], where: Path | None) -> None:
    """Raises ConfigError if the config, CheckpointError if a tensor says that the weights in `where` are not plain."""
    foreign = find_foreign(raw_config, arrays)
    if foreign is None:
        return
    error, expected = (
        (ConfigError, "'mxfp4', or no quantization_config")
        if foreign.key is not None
        else (CheckpointError, "floats or MXFP4")
    )
    raise error(
        f"the weights are not plain: {foreign.name}",
        file=where,
        key=foreign.key,
        tensor=foreign.tensor,
        expected=expected,
        found=foreign.found,
        remedy=foreign.remedy,
    )


def refuse_adapter(directory: Path) -> None:
    """Raises CheckpointError if `directory` holds an adapter, beside a model or alone."""
    if not (directory / ADAPTER_CONFIG).exists():
        return
    raise CheckpointError(
        f"this is {_PEFT.name}, which changes a model that lies elsewhere",
        file=directory,
        expected="a whole model",
        found=ADAPTER_CONFIG,
        remedy=f"{_MERGE} If it is merged already, remove the adapter's files.",
    )


def _in_config(raw: Mapping[str, Any]) -> Foreign | None:
    section = raw.get(_SECTION)
    if not section:
        return None
    settings = section if isinstance(section, dict) else {"quant_method": section}
    key, method = _method(settings)
    if method == "mxfp4" or (key == "bits" and "group_size" in settings):
        return None
    row = next((row for row in _QUANTIZERS if method in row.methods), None)
    found = repr(settings.get(key))
    if row is None:
        name = "quantized in a way the config does not name" if method is None else f"quantized by {method!r}"
        return Foreign(name, _ORIGIN, found, key=f"{_SECTION}.{key}")
    flavour = _value_at(settings, row.flavour)
    name = f"{row.name} ({flavour})" if isinstance(flavour, str) else row.name
    return Foreign(name, row.remedy, found, key=f"{_SECTION}.{key}")


def _method(settings: Mapping[str, Any]) -> tuple[str, object]:
    """The key that says how weights are quantized, and the method it means; `bits` alone is how MLX says it."""
    method = settings.get("quant_method")
    in_bits = {"load_in_8bit": "bitsandbytes_8bit", "load_in_4bit": "bitsandbytes_4bit"}
    flag = next((key for key in in_bits if settings.get(key) is True), None)
    if method == "bitsandbytes":
        return "quant_method", in_bits[flag or "load_in_4bit"]
    if method is not None:
        return "quant_method", method
    if flag is not None:
        return flag, in_bits[flag]
    others = {"quant_algo": "modelopt", "config_groups": "compressed-tensors", "bits": None}
    return next(((key, meant) for key, meant in others.items() if key in settings), ("quant_method", None))


def _value_at(settings: Mapping[str, Any], path: str) -> object:
    """The value at a dotted path, or None."""
    value: object = settings
    for key in path.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _in_arrays(arrays: Mapping[str, str]) -> Foreign | None:
    # One name stands for those that differ in layer and expert only: thousands become a few dozen.
    names: dict[str, str] = {}
    for name in arrays:
        names.setdefault(re.sub(r"\.\d+\.", ".0.", name), name)
    for row in _QUANTIZERS:
        if row.tensors and (tensor := _first_like(row.tensors, names)) is not None:
            return Foreign(row.name, row.remedy, arrays[tensor], tensor=tensor)
    for tensor, dtype in arrays.items():
        if dtype.startswith("F8_"):
            return Foreign("FP8", _ORIGIN, dtype, tensor=tensor)
    return None


def _first_like(pattern: str, names: Mapping[str, str]) -> str | None:
    """The first of `names`' values whose key has `pattern` in it."""
    return next((name for kind, name in names.items() if re.search(pattern, kind)), None)
