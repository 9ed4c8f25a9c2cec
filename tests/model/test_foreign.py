"""Weights that are not plain: each quantizer is named from its config alone and from its tensors alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gptoss_convert.formats.codecs.encoding import BF16, MXFP4, Encoding
from gptoss_convert.formats.errors import CheckpointError, ConfigError
from gptoss_convert.model.config import parse_config
from gptoss_convert.model.foreign import find_foreign, refuse_adapter, refuse_foreign
from gptoss_convert.model.hf_files import GPT_OSS_20B
from gptoss_convert.model.layouts import hf, mlx, original
from gptoss_convert.model.layouts.table import Place, alternatives

CONFIG = {key: value for key, value in GPT_OSS_20B.items() if key != "quantization_config"}
LAYER = "model.layers.7"
EXPERTS = f"{LAYER}.mlp.experts"

# name, quantization_config, key that says so
BY_CONFIG: dict[str, tuple[str, Any, str]] = {
    "bitsandbytes 4-bit": (
        "bitsandbytes 4-bit (nf4)",
        {"quant_method": "bitsandbytes", "load_in_4bit": True, "load_in_8bit": False, "bnb_4bit_quant_type": "nf4"},
        "quant_method",
    ),
    "bitsandbytes 8-bit": (
        "bitsandbytes 8-bit",
        {"quant_method": "bitsandbytes", "load_in_4bit": False, "load_in_8bit": True},
        "quant_method",
    ),
    "bitsandbytes, no flag": ("bitsandbytes 4-bit", {"quant_method": "bitsandbytes"}, "quant_method"),
    "bitsandbytes, no method": ("bitsandbytes 4-bit", {"load_in_4bit": True}, "load_in_4bit"),
    "GPTQ": ("GPTQ", {"quant_method": "gptq", "bits": 4, "group_size": 128, "desc_act": True}, "quant_method"),
    "AWQ": ("AWQ (gemm)", {"quant_method": "awq", "bits": 4, "group_size": 128, "version": "gemm"}, "quant_method"),
    "AutoRound": ("AutoRound", {"quant_method": "auto-round", "bits": 4, "group_size": 128}, "quant_method"),
    "AutoRound before 0.5": ("AutoRound", {"quant_method": "intel/auto-round", "bits": 4}, "quant_method"),
    "ModelOpt": ("ModelOpt (NVFP4)", {"quant_method": "modelopt", "quant_algo": "NVFP4"}, "quant_method"),
    "ModelOpt, no method": (
        "ModelOpt (NVFP4)",
        {"config_groups": {"group_0": {}}, "quant_algo": "NVFP4", "producer": {"name": "modelopt"}},
        "quant_algo",
    ),
    "NVFP4 of transformers": ("NVFP4", {"quant_method": "nvfp4"}, "quant_method"),
    "compressed-tensors": (
        "compressed-tensors (nvfp4-pack-quantized)",
        {"quant_method": "compressed-tensors", "format": "nvfp4-pack-quantized"},
        "quant_method",
    ),
    "compressed-tensors MXFP4": (
        "compressed-tensors (mxfp4-pack-quantized)",
        {"quant_method": "compressed-tensors", "format": "mxfp4-pack-quantized"},
        "quant_method",
    ),
    "compressed-tensors, no method": (
        "compressed-tensors (pack-quantized)",
        {"config_groups": {"group_0": {"weights": {"num_bits": 4}}}, "format": "pack-quantized"},
        "config_groups",
    ),
    "Quark MXFP4": (
        "AMD Quark (fp4)",
        {"quant_method": "quark", "global_quant_config": {"weight": {"dtype": "fp4", "scale_format": "e8m0"}}},
        "quant_method",
    ),
    "Quark, several weights": (
        "AMD Quark",
        {"quant_method": "quark", "global_quant_config": {"weight": [{"dtype": "fp4"}]}},
        "quant_method",
    ),
    "FP8": ("FP8 (e4m3)", {"quant_method": "fp8", "fmt": "e4m3", "weight_block_size": [128, 128]}, "quant_method"),
    "FBGEMM": ("FP8 (FBGEMM)", {"quant_method": "fbgemm_fp8"}, "quant_method"),
    "MXFP8": ("MXFP8", "mxfp8", "quant_method"),
    "HQQ": ("HQQ", {"quant_method": "hqq"}, "quant_method"),
    "SINQ": ("SINQ", {"quant_method": "sinq"}, "quant_method"),
    "EETQ": ("EETQ", {"quant_method": "eetq", "weights": "int8"}, "quant_method"),
    "torchao": ("torchao", {"quant_method": "torchao", "quant_type": {"default": {}}}, "quant_method"),
    "Quanto": ("Quanto (int8)", {"quant_method": "quanto", "weights": "int8"}, "quant_method"),
    "EXL3": ("EXL3", {"quant_method": "exl3", "bits": 3.5, "head_bits": 6}, "quant_method"),
    "Metal": ("transformers' Metal kernels", {"quant_method": "metal", "bits": 4, "group_size": 64}, "quant_method"),
    "unknown method": ("quantized by 'vptq'", {"quant_method": "vptq"}, "quant_method"),
    "no method": ("quantized in a way the config does not name", {"quant_method": None}, "quant_method"),
    "no method but bits": ("quantized in a way the config does not name", {"bits": 4, "desc_act": True}, "bits"),
}

# name, the tensor that says so, its dtype, what lies beside it
BY_TENSORS: dict[str, tuple[str, str, str, dict[str, str]]] = {
    "Unsloth's 4-bit": (
        "bitsandbytes 4-bit (nf4)",
        f"{EXPERTS}.gate_up_projs.31.weight.quant_state.bitsandbytes__nf4",
        "U8",
        {
            f"{EXPERTS}.gate_up_projs.31.weight": "U8",
            f"{EXPERTS}.gate_up_projs.31.weight.absmax": "U8",
            f"{EXPERTS}.gate_up_projs.31.weight.nested_absmax": "F32",
            f"{EXPERTS}.gate_up_projs.31.weight.nested_quant_map": "F32",
            f"{EXPERTS}.gate_up_projs.31.weight.quant_map": "F32",
        },
    ),
    "bitsandbytes FP4": (
        "bitsandbytes 4-bit (fp4)",
        f"{LAYER}.self_attn.q_proj.weight.quant_state.bitsandbytes__fp4",
        "U8",
        {f"{LAYER}.self_attn.q_proj.weight.absmax": "F32"},
    ),
    "bitsandbytes 4-bit": ("bitsandbytes 4-bit", f"{LAYER}.self_attn.q_proj.weight.absmax", "F32", {}),
    "bitsandbytes 8-bit": (
        "bitsandbytes 8-bit",
        f"{EXPERTS}.down_projs.0.SCB",
        "F32",
        {f"{EXPERTS}.down_projs.0.weight": "I8"},
    ),
    "GPTQ": (
        "GPTQ",
        f"{EXPERTS}.0.gate_proj.g_idx",
        "I32",
        {f"{EXPERTS}.0.gate_proj.{part}": "I32" for part in ("qweight", "qzeros")},
    ),
    "AWQ": (
        "AWQ, GPTQ or AutoRound",
        f"{EXPERTS}.0.gate_proj.qweight",
        "I32",
        {f"{EXPERTS}.0.gate_proj.scales": "F16"},
    ),
    "ModelOpt NVFP4": (
        "ModelOpt (NVFP4)",
        f"{EXPERTS}.gate_up_proj_weight_scale_2",
        "F32",
        {
            f"{EXPERTS}.gate_up_proj": "U8",
            f"{EXPERTS}.gate_up_proj_weight_scale": "F8_E4M3",
            f"{EXPERTS}.gate_up_proj_input_scale": "F32",
        },
    ),
    "ModelOpt NVFP4, linear": ("ModelOpt (NVFP4)", f"{LAYER}.self_attn.q_proj.weight_scale_2", "F32", {}),
    "NVFP4 of transformers": ("NVFP4", f"{LAYER}.self_attn.q_proj.weight_sf", "I32", {}),
    "compressed-tensors": (
        "compressed-tensors",
        f"{EXPERTS}.0.gate_proj.weight_packed",
        "U8",
        {f"{EXPERTS}.0.gate_proj.weight_scale": "F8_E4M3"},
    ),
    "compressed-tensors NVFP4": ("compressed-tensors", f"{EXPERTS}.0.up_proj.weight_global_scale", "F32", {}),
    "FP8 in blocks": (
        "FP8",
        f"{LAYER}.self_attn.q_proj.weight_scale_inv",
        "F32",
        {f"{LAYER}.self_attn.q_proj.weight": "F8_E4M3"},
    ),
    "FP8 of experts": ("FP8", f"{EXPERTS}.gate_up_proj_scale_inv", "F32", {}),
    "FP8 without scales": ("FP8", f"{EXPERTS}.gate_up_proj", "F8_E5M2", {}),
    "FBGEMM": ("FP8", f"{EXPERTS}.gate_up_proj", "F8_E4M3", {f"{EXPERTS}.gate_up_proj_scale": "F32"}),
    "Quark MXFP4": (
        "AMD Quark, ModelOpt or compressed-tensors",
        f"{EXPERTS}.0.gate_up_proj.weight_scale",
        "U8",
        {f"{EXPERTS}.0.gate_up_proj.weight": "U8"},
    ),
    "Quark's activations": (
        "AMD Quark, ModelOpt or compressed-tensors",
        f"{EXPERTS}.0.gate_up_proj.input_scale",
        "F32",
        {},
    ),
    "HQQ": ("HQQ or SINQ", f"{LAYER}.self_attn.q_proj.W_q", "U8", {f"{LAYER}.self_attn.q_proj.meta": "U8"}),
    "EETQ": ("EETQ", f"{LAYER}.self_attn.q_proj.weight_scales", "F16", {f"{LAYER}.self_attn.q_proj.weight": "I8"}),
    "torchao": ("torchao", f"{LAYER}.self_attn.q_proj._weight_qdata", "I8", {}),
    "Quanto": ("Quanto", f"{LAYER}.self_attn.q_proj.weight._data", "I8", {}),
    "EXL3": ("EXL3", f"{EXPERTS}.0.gate_proj.trellis", "I16", {f"{EXPERTS}.0.gate_proj.suh": "F16"}),
    "Metal": ("transformers' Metal kernels", f"{LAYER}.self_attn.q_proj.qbiases", "BF16", {}),
    "LoRA": (
        "a PEFT adapter (LoRA)",
        f"base_model.model.{LAYER}.self_attn.q_proj.lora_A.weight",
        "F32",
        {f"base_model.model.{LAYER}.self_attn.q_proj.lora_B.weight": "F32"},
    ),
    "LoRA, unmerged": ("a PEFT adapter (LoRA)", f"{EXPERTS}.base_layer.lora_A.default.weight", "F32", {}),
}


@pytest.mark.parametrize(("name", "quantization", "key"), BY_CONFIG.values(), ids=BY_CONFIG)
def test_quantizer_is_named_from_the_config_alone(name: str, quantization: object, key: str) -> None:
    foreign = find_foreign({**CONFIG, "quantization_config": quantization}, {})
    assert foreign is not None
    assert (foreign.name, foreign.evidence) == (name, f"quantization_config.{key}")


@pytest.mark.parametrize(("name", "tensor", "dtype", "others"), BY_TENSORS.values(), ids=BY_TENSORS)
def test_quantizer_is_named_from_the_tensors_alone(name: str, tensor: str, dtype: str, others: dict[str, str]) -> None:
    foreign = find_foreign(CONFIG, {"model.norm.weight": "BF16", tensor: dtype, **others})
    assert foreign is not None
    assert (foreign.name, foreign.evidence, foreign.found) == (name, tensor, dtype)


def test_config_is_refused_with_key_value_and_what_to_do() -> None:
    quantization = BY_CONFIG["bitsandbytes 4-bit"][1]
    with pytest.raises(ConfigError) as caught:
        refuse_foreign({**CONFIG, "quantization_config": quantization}, {}, Path("config.json"))
    fields = caught.value.fields()
    assert (fields["file"], fields["key"]) == ("config.json", "quantization_config.quant_method")
    assert (fields["problem"], fields["found"]) == (
        "the weights are not plain: bitsandbytes 4-bit (nf4)",
        "'bitsandbytes'",
    )
    assert "unsloth/gpt-oss-20b-BF16" in fields["remedy"]
    assert 'save_pretrained_merged(directory, tokenizer, save_method="merged_16bit")' in fields["remedy"]


@pytest.mark.parametrize(
    ("kind", "remedy"),
    [
        ("GPTQ", "checkpoint it was quantized from"),
        ("LoRA", "merge_and_unload()"),
    ],
)
def test_tensor_is_refused_with_its_dtype_and_what_to_do(kind: str, remedy: str) -> None:
    name, tensor, dtype, others = BY_TENSORS[kind]
    with pytest.raises(CheckpointError) as caught:
        refuse_foreign(CONFIG, {tensor: dtype, **others}, Path("somewhere"))
    fields = caught.value.fields()
    assert (fields["file"], fields["tensor"], fields["found"]) == ("somewhere", tensor, dtype)
    assert name in fields["problem"]
    assert remedy in fields["remedy"]


@pytest.mark.parametrize("weights", ["adapter_model.safetensors", "model.safetensors"])
def test_adapter_directory_is_refused(weights: str, tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA"}), encoding="utf-8")
    (tmp_path / weights).touch()
    with pytest.raises(CheckpointError, match=r"a PEFT adapter .*found adapter_config\.json.*Merge the adapter"):
        refuse_adapter(tmp_path)


def test_directory_without_adapter_is_not_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    refuse_adapter(tmp_path)


# --- plain weights ---

PLAIN_CONFIGS: dict[str, Any] = {
    "none": None,
    "empty": {},
    "official": GPT_OSS_20B["quantization_config"],
    "ModelOpt's script": {"quant_method": "mxfp4", "modules_to_not_convert": ["model.layers.*.self_attn", "lm_head"]},
    "transformers 5": {"quant_method": "mxfp4", "dequantize": False, "modules_to_not_convert": None},
    "word": "mxfp4",
    "MLX": {"group_size": 32, "bits": 4, "mode": "mxfp4", "model.embed_tokens": {"group_size": 64, "bits": 8}},
    "MLX before modes": {"group_size": 64, "bits": 8},
}


@pytest.mark.parametrize("quantization", PLAIN_CONFIGS.values(), ids=PLAIN_CONFIGS)
def test_plain_config_is_not_refused(quantization: object) -> None:
    refuse_foreign({**CONFIG, "quantization_config": quantization, "quantization": quantization}, {}, None)


def dtypes(place: Place, encoding: Encoding) -> dict[str, str]:
    """The dtype by name of every array at `place`."""
    return {name: place.part_dtype(encoding, part) for part, _ in encoding.parts for name in place.array_names(part)}


def stored(rank: int, experts: Encoding) -> dict[str, str]:
    """Every array of the 20b model in the HF layout, each tensor at the `rank`-th of its places, or the first."""
    arrays: dict[str, str] = {}
    for places in alternatives(hf.TABLE, hf.VARIANTS, parse_config(GPT_OSS_20B)):
        place = places[min(rank, len(places) - 1)]
        arrays |= dtypes(place, experts if place.is_packed else BF16)
    return arrays


SPELLINGS = {"official": 0, "transformers": 1, "transformers 5": 2, "one by one": 3, "linearized": 4}


@pytest.mark.parametrize("rank", SPELLINGS.values(), ids=SPELLINGS)
def test_plain_tensors_in_any_spelling_are_not_refused(rank: int) -> None:
    arrays = stored(rank, MXFP4)
    assert len(arrays) > 450
    assert find_foreign(CONFIG, arrays) is None


@pytest.mark.parametrize("table", [mlx.TABLE, original.TABLE], ids=["MLX", "original"])
def test_other_layouts_tensors_are_not_refused(table: dict[str, Any]) -> None:
    names = {row.name.format(layer=3, part="scales", mlx="scales"): "U8" for row in table.values()}
    names |= {row.name.format(layer=3, part="blocks", mlx="biases"): "BF16" for row in table.values()}
    names |= {row.name.format(layer=3, part="blocks", mlx="weight"): "U32" for row in table.values()}
    assert find_foreign(CONFIG, names) is None
