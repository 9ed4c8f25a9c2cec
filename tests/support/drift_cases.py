"""Checkpoints that differ in a known way, and what `drift` says of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import ggml
import ml_dtypes
import numpy as np
from checkpoints import Tensor, Tensors, copy_of, edit_json, edit_tensors
from experts import DOWN, GATE_UP, ExpertBlocks, read_blocks, store_blocks
from gguf_files import stored_bytes, write_plan
from numpy.typing import NDArray

from gptoss_convert.convert.checkpoint import open_checkpoint
from gptoss_convert.convert.drift.command import Outcome, run_drift
from gptoss_convert.convert.drift.results import TensorComparison
from gptoss_convert.convert.drift.tensors import compare_tensors
from gptoss_convert.formats.containers.gguf_reader import read_gguf
from gptoss_convert.formats.containers.gguf_types import GGML_TYPES
from gptoss_convert.formats.containers.gguf_writer import plan_gguf

Array = NDArray[Any]
Edit = Callable[[Tensors], object]

LAYERS, HEAD_DIM = range(4), 64
ATTENTION = "model.layers.{}.self_attn.{}_proj.{}"
TYPES = {ggml_type.name: ggml_type for ggml_type in GGML_TYPES.values()}


def compared(a: Path, b: Path) -> TensorComparison:
    """Every tensor of both, in this process."""
    return compare_tensors(open_checkpoint(a), open_checkpoint(b))


def sentence(a: Path, b: Path) -> str:
    """What `drift` says that the difference is."""
    return str(drifted(a, b).report["tensors"]["sentence"])


def drifted(a: Path, b: Path, **options: Any) -> Outcome:
    """What `drift` of both gives."""
    return run_drift(a, b, **options)


def changed(source: Path, out: Path, change: Edit) -> Path:
    """A copy of the Hugging Face directory whose tensors were changed."""
    edit_tensors(copy_of(source, out), change)
    return out


def bf16(tensor: Tensor) -> Array:
    """The tensor's numbers, float32, in its shape; to be changed and stored again."""
    return np.frombuffer(tensor.data, ml_dtypes.bfloat16).reshape(tensor.shape).astype(np.float32)


def store(tensor: Tensor, values: Array) -> None:
    """Puts such numbers in their place, rounded to BF16."""
    tensor.data = values.astype(ml_dtypes.bfloat16).tobytes()


def on(name: str, change: Callable[[Array], Array]) -> Edit:
    """What stores the BF16 tensor anew after `change`; in every layer if there is {} in its name."""

    def edit(tensors: Tensors) -> None:
        for layer in LAYERS if "{}" in name else LAYERS[:1]:
            tensor = tensors[name.format(layer)]
            store(tensor, change(bf16(tensor)))

    return edit


def on_blocks(stem: str, change: Callable[[ExpertBlocks], object]) -> Edit:
    """What stores the packed projections anew after `change`, made in place; in every layer if there is {} in it."""

    def edit(tensors: Tensors) -> None:
        for layer in LAYERS if "{}" in stem else LAYERS[:1]:
            blocks = ExpertBlocks(*map(np.array, read_blocks(tensors, stem.format(layer))))
            change(blocks)
            store_blocks(tensors, stem.format(layer), blocks)

    return edit


def together(*edits: Edit) -> Edit:
    return lambda tensors: [edit(tensors) for edit in edits]


def both(change: Callable[[ExpertBlocks], object]) -> Edit:
    """The change made to both packed projections of every layer."""
    return together(on_blocks(GATE_UP, change), on_blocks(DOWN, change))


def in_config(key: str, change: Callable[[Any], Any]) -> Callable[[Path], None]:
    """What writes config.json anew with another value of the key; "a.b" is key b of the object a."""

    def edit(config: dict[str, Any]) -> None:
        *outer, last = key.split(".")
        for part in outer:
            config = config[part]
        config[last] = change(config[last])

    return lambda directory: edit_json(directory / "config.json", edit)


def quantized_gguf(gguf: Path, out: Path, encoding: str) -> Path:
    """A copy of the GGUF whose BF16 matrices were quantized by ggml to one block type."""
    source, quantized, tensors, data = read_gguf(gguf), TYPES[encoding], [], {}
    for name, tensor in source.tensors.items():
        data[name] = np.frombuffer(stored_bytes(source, name), np.uint8)
        if tensor.type.name == "BF16":
            values = data[name].view(ml_dtypes.bfloat16).astype(np.float32)
            data[name] = ggml.quantize(encoding, values.reshape(-1, quantized.block_elements))
        tensors.append((name, quantized if tensor.type.name == "BF16" else tensor.type, tensor.shape))
    return write_plan(out, plan_gguf(source.kv, tensors), data)


# --- the faults of `validation.faults` that can be in a file ---


def _swap_gate_and_up(blocks: ExpertBlocks) -> None:
    for plane in blocks:
        plane[:, 0::2], plane[:, 1::2] = plane[:, 1::2].copy(), plane[:, 0::2].copy()


def _take_apart_twice(blocks: ExpertBlocks) -> None:
    for plane in blocks:
        gate, up = plane[:, 0::2].copy(), plane[:, 1::2].copy()
        plane[:, 0::2] = np.concatenate([gate[:, 0::2], up[:, 0::2]], axis=1)
        plane[:, 1::2] = np.concatenate([gate[:, 1::2], up[:, 1::2]], axis=1)


def _reorder(order: Array) -> Callable[[ExpertBlocks], None]:
    def change(blocks: ExpertBlocks) -> None:
        blocks.codes[:] = blocks.codes[..., order]

    return change


def _transpose(blocks: ExpertBlocks) -> None:
    """The memory of each expert's codes taken for that of the transposed matrix."""
    n_experts, n_rows = blocks.codes.shape[:2]
    turned = blocks.codes.reshape(n_experts, -1, n_rows).swapaxes(1, 2)
    blocks.codes[:] = turned.reshape(blocks.codes.shape)


def _scale(amount: int) -> Callable[[ExpertBlocks], None]:
    def change(blocks: ExpertBlocks) -> None:
        blocks.scales[:] += np.uint8(amount)

    return change


def _zero_scales_of_one_expert(blocks: ExpertBlocks) -> None:
    blocks.scales[0] = 0


def _flip_one_bit(blocks: ExpertBlocks) -> None:
    blocks.codes[0, 6, 1, 4] ^= 1


def _scale_of_one_block(blocks: ExpertBlocks) -> None:
    blocks.scales[0, 6, 1] += 1


def _zero(values: Array) -> Array:
    return np.zeros_like(values)


def _without_half(first: int) -> Callable[[Array], Array]:
    def change(values: Array) -> Array:
        values[:, first::2] = 0
        return values

    return change


def _half_of_heads(values: Array) -> Array:
    return np.roll(values, len(values) // 2, 0)


def _in_pairs(values: Array) -> Array:
    heads = values.reshape(-1, 2, HEAD_DIM // 2, *values.shape[1:])
    return heads.swapaxes(1, 2).reshape(values.shape)


def _norms_of_another_layer(tensors: Tensors) -> None:
    for norm in ("input_layernorm", "post_attention_layernorm"):
        names = [f"model.layers.{layer}.{norm}.weight" for layer in LAYERS]
        data = [tensors[name].data for name in names]
        for name, other in zip(names, [data[1], *data[:-1]], strict=True):
            tensors[name].data = other


def _tie(tensors: Tensors) -> None:
    tensors["lm_head.weight"].data = tensors["model.embed_tokens.weight"].data


_SPLIT = np.arange(32).reshape(2, 16).T.reshape(-1)
_EXPERT_BIAS = "model.layers.{}.mlp.experts.{}_proj_bias"

FILE_FAULTS: dict[str, Edit] = {
    "gate and up swapped": on_blocks(GATE_UP, _swap_gate_and_up),
    "gate and up taken apart twice": on_blocks(GATE_UP, _take_apart_twice),
    "nibbles swapped": both(_reorder(np.arange(32) ^ 1)),
    "ggml's nibbles read in Hugging Face's order": both(_reorder(_SPLIT)),
    "scales off by one": both(_scale(1)),
    "scales of one expert zero": both(_zero_scales_of_one_expert),
    "down transposed": on_blocks(DOWN, _transpose),
    "one bit of one block flipped": on_blocks(GATE_UP.format(0), _flip_one_bit),
    "scale of one block off by one": on_blocks(GATE_UP.format(0), _scale_of_one_block),
    **{f"bias of {role} dropped": on(ATTENTION.format("{}", role, "bias"), _zero) for role in "qkvo"},
    "bias of gate dropped": on(_EXPERT_BIAS.format("{}", "gate_up"), _without_half(0)),
    "bias of up dropped": on(_EXPERT_BIAS.format("{}", "gate_up"), _without_half(1)),
    "bias of down dropped": on(_EXPERT_BIAS.format("{}", "down"), _zero),
    "biases of experts permuted": on(_EXPERT_BIAS.format("{}", "down"), lambda values: np.roll(values, 1, 0)),
    "bias of the router dropped": on("model.layers.{}.mlp.router.bias", _zero),
    "q swapped between heads": on(ATTENTION.format("{}", "q", "weight"), _half_of_heads),
    "k swapped between heads": on(ATTENTION.format("{}", "k", "weight"), _half_of_heads),
    "q and k in pairs, not in halves": together(
        *(on(ATTENTION.format("{}", role, "weight"), _in_pairs) for role in "qk")
    ),
    "norms of another layer": _norms_of_another_layer,
    "embedding one row off": on("model.embed_tokens.weight", lambda values: np.roll(values, 1, 0)),
    "norm before the logits dropped": on("model.norm.weight", np.ones_like),
    "embedding read as unembedding": _tie,
}

CONFIG_FAULTS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "no clamp": ("swiglu_limit", lambda _value: 1e30),
    "window one too long": ("sliding_window", lambda value: value + 1),
    "window one too short": ("sliding_window", lambda value: value - 1),
    "YaRN truncated": ("rope_scaling.truncate", lambda _value: True),
}

ARITHMETIC_FAULTS = (
    "softmax over all experts",
    "alpha 1.0",
    "up without + 1",
    "no sinks",
    "full attention on sliding layers",
    "sliding layers are the odd ones",
    "YaRN off",
)
